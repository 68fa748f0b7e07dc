//! [`JournalFile`]: the journal of the databases in a file beside the control socket.
//!
//! It is to survive the process, not the machine: IKE daemons do not survive that either. So
//! nothing waits for a disk, and the directory, under /run, is in memory. There are no keys in it.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use culvert_keying::Service;
use culvert_keying::journal;
use culvert_keying::policies::Event;
use tracing::warn;

/// Octets beyond which the file is written anew, when that is much more than it needs.
const COMPACT_FROM: u64 = 1 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// Octets after the last time it was written anew.
    compact: u64,
    /// Its end may be cut off, so that nothing behind would be read.
    is_torn: bool,
}

impl JournalFile {
    /// Reads what the process before left, if there was one, and starts the file anew with it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn open(
        socket: &Path,
        service: &mut Service,
        now: u64,
    ) -> anyhow::Result<JournalFile> {
        let path = socket.with_extension("journal");
        if let Ok(octets) = fs::read(&path) {
            service.restore(&octets, now);
        }
        let written = write(&path, service);
        let (file, len) =
            written.with_context(|| format!("journal: cannot write {}", path.display()))?;
        Ok(JournalFile { path, file, len, compact: len, is_torn: false })
    }

    /// Adds what events changed.
    pub(super) fn note(&mut self, events: &[Event], service: &Service) {
        let mut entries = Vec::new();
        for entry in events.iter().filter_map(journal::entry) {
            entries.extend_from_slice(&entry);
        }
        self.len += entries.len() as u64;
        let mut result = match entries.is_empty() {
            true => Ok(()),
            false => self.file.write_all(&entries),
        };
        if self.is_torn || result.is_err() || self.len > COMPACT_FROM.max(4 * self.compact) {
            result = write(&self.path, service).map(|(file, len)| {
                (self.file, self.len, self.compact) = (file, len, len);
            });
            self.is_torn = result.is_err();
        }
        if let Err(error) = result {
            warn!(%error, "journal: policies may be lost when this process ends");
        }
    }
}

/// Writes the whole journal in the place of what is there.
fn write(path: &Path, service: &Service) -> std::io::Result<(File, u64)> {
    let fresh = path.with_extension("journal.new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    let octets = service.journal();
    file.write_all(&octets)?;
    fs::rename(&fresh, path)?;
    Ok((file, octets.len() as u64))
}
