//! Where results go: captures, verdicts, records, events, totals.
//!
//! All files are created before the first packet is read, so that a path which cannot be written is
//! known at once. None of them may be a file that the command reads, or another of them: creating
//! it would empty what is still needed.

use std::fs::File;
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use culvert_engine::Side;

use crate::cli::ReplayArgs;
use crate::report;

use super::json_lines::JsonLines;
use super::news::NewsLine;
use super::report::Report;
use super::report::VerdictLine;
use super::writer::Writer;

/// The files to write.
pub(super) struct Outputs {
    protected: Option<Writer>,
    unprotected: Option<Writer>,
    verdicts: Option<JsonLines>,
    audit: Option<JsonLines>,
    events: Option<JsonLines>,
    report: Option<PathBuf>,
}

impl Outputs {
    /// Creates what the command line asks for.
    ///
    /// # Errors
    /// When a file cannot be created, or is named twice.
    pub(super) fn create(args: &ReplayArgs) -> anyhow::Result<Outputs> {
        let mut taken = Taken::default();
        let inputs = [Some(&args.config), args.protected_in.as_ref(), args.unprotected_in.as_ref()];
        inputs.into_iter().flatten().for_each(|path| taken.read(path));
        let mut writer = |path: Option<&PathBuf>| -> anyhow::Result<Option<Writer>> {
            path.map(|path| Writer::new(path, taken.create(path)?, args.link)).transpose()
        };
        let protected = writer(args.protected_out.as_ref())?;
        let unprotected = writer(args.unprotected_out.as_ref())?;
        let mut lines = |path: Option<&PathBuf>| -> anyhow::Result<Option<JsonLines>> {
            path.map(|path| Ok(JsonLines::new(path, taken.create(path)?))).transpose()
        };
        let verdicts = lines(args.verdicts.as_ref())?;
        let audit = lines(args.audit.as_ref())?;
        let events = lines(args.events.as_ref())?;
        args.report.as_deref().map(|path| taken.create(path)).transpose()?;
        let report = args.report.clone();
        Ok(Outputs { protected, unprotected, verdicts, audit, events, report })
    }

    /// Writes a frame that left on a side.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn frame(&mut self, side: Side, at: Duration, frame: &[u8]) -> anyhow::Result<()> {
        let writer = match side {
            Side::Protected => &mut self.protected,
            Side::Unprotected => &mut self.unprotected,
        };
        writer.as_mut().map_or(Ok(()), |writer| writer.write(at, frame))
    }

    /// Writes what became of a packet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn verdict(&mut self, line: &VerdictLine) -> anyhow::Result<()> {
        self.verdicts.as_mut().map_or(Ok(()), |verdicts| verdicts.write(line))
    }

    /// Writes what a worker told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn news(&mut self, news: &NewsLine) -> anyhow::Result<()> {
        match news {
            NewsLine::Audit(line) => self.audit.as_mut().map_or(Ok(()), |audit| audit.write(line)),
            NewsLine::Event(line) => {
                self.events.as_mut().map_or(Ok(()), |events| events.write(line))
            }
        }
    }

    /// Completes all files, and writes the totals: on standard output when no file is named.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(super) fn finish(self, totals: &Report) -> anyhow::Result<()> {
        self.protected.map(Writer::finish).transpose()?;
        self.unprotected.map(Writer::finish).transpose()?;
        for lines in [self.verdicts, self.audit, self.events].into_iter().flatten() {
            lines.finish()?;
        }
        match self.report {
            Some(path) => report::write(&path, totals),
            None => {
                let text = serde_json::to_string_pretty(totals)? + "\n";
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).context("cannot write to standard output")
            }
        }
    }
}

/// Regular files in use, by device and inode. Pipes and devices may be named as often as one likes.
#[derive(Default)]
struct Taken(Vec<(u64, u64)>);

impl Taken {
    fn read(&mut self, path: &Path) {
        self.0.extend(std::fs::metadata(path).ok().as_ref().and_then(identity));
    }

    fn create(&mut self, path: &Path) -> anyhow::Result<File> {
        let there = std::fs::metadata(path).ok().as_ref().and_then(identity);
        if there.is_some_and(|identity| self.0.contains(&identity)) {
            bail!(
                "{}: expected a file that nothing else is read from or written to",
                path.display()
            );
        }
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        self.0.extend(file.metadata().ok().as_ref().and_then(identity));
        Ok(file)
    }
}

fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file is created once, whatever its path looks like, and never one that is read; a device
    /// may be used again.
    #[test]
    fn no_file_serves_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("in"), b"precious").unwrap();
        std::os::unix::fs::symlink(path("in"), path("link")).unwrap();
        let mut taken = Taken::default();
        taken.read(&path("in"));
        for alias in [path("in"), path("link"), path("./in")] {
            let error = taken.create(&alias).unwrap_err().to_string();
            assert!(error.contains(alias.to_str().unwrap()), "{error}");
        }
        assert_eq!(std::fs::read(path("in")).unwrap(), b"precious");
        taken.create(&path("out")).unwrap();
        assert!(taken.create(&path("out")).is_err());
        taken.create(Path::new("/dev/null")).unwrap();
        taken.create(Path::new("/dev/null")).unwrap();
    }
}
