//! Files of JSON objects, one a line.

use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

/// One such file.
pub(super) struct JsonLines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl JsonLines {
    /// Writes into `file`, which was created at `path`.
    pub(super) fn new(path: &Path, file: File) -> JsonLines {
        JsonLines { path: path.to_owned(), file: BufWriter::new(file) }
    }

    /// Writes one object.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let written = serde_json::to_writer(&mut self.file, line).map_err(anyhow::Error::new);
        let ended = written.and_then(|()| Ok(self.file.write_all(b"\n")?));
        ended.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("cannot write {}", self.path.display()))
    }
}
