//! Lines for the operator, on standard error.

use std::fmt;
use std::io::Write as _;
use std::io::stderr;

/// Says things, and more of them where asked to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    pub(crate) verbose: bool,
}

impl Log {
    /// What an operator should know. Where nobody reads it, that is no error.
    pub(crate) fn say(self, line: fmt::Arguments) {
        let _ = writeln!(stderr(), "culvert exec: {line}");
    }

    /// What only those want to know who asked for it.
    pub(crate) fn detail(self, line: fmt::Arguments) {
        if self.verbose {
            self.say(line);
        }
    }
}
