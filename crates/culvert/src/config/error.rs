//! What is wrong with a configuration file, on one line, without a secret in it.

use std::fmt::Display;
use std::io;

/// Longest value a message quotes, in characters.
const QUOTED_MAX: usize = 64;

/// Hexadecimal digits in one run from which on a value may be a piece of a key.
const HEX_RUN_MAX: usize = 15;

/// Hexadecimal digits in all from which on a value may be a key: AES-128 has 32.
const HEX_MAX: usize = 31;

/// Why a configuration was refused. The message is one line and names the file, and where there is
/// one the line, the field, and what was expected there. It never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be opened or read.
    #[error("{file}: cannot be read: {reason}")]
    Read {
        /// Name of the file.
        file: String,
        /// The system's answer.
        reason: io::Error,
    },
    /// The text is not a valid configuration.
    #[error("{file}:{line}: {field}: {problem}")]
    Invalid {
        /// Name of the file.
        file: String,
        /// Line in the file, from 1.
        line: usize,
        /// Path of the key, such as `sa[1].key`; arrays count from 0.
        field: String,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn read(file: &str, reason: io::Error) -> ConfigError {
        ConfigError::Read { file: one_line(file), reason }
    }

    pub(super) fn invalid(
        file: &str,
        line: usize,
        field: &str,
        problem: impl Display,
    ) -> ConfigError {
        ConfigError::Invalid {
            file: one_line(file),
            line,
            field: one_line(field),
            problem: one_line(&problem.to_string()),
        }
    }
}

/// The value in backquotes; only its length where it may be key material in the wrong place, or
/// is too long to read.
pub(super) fn shown(value: &str) -> String {
    let length = value.chars().count();
    let hex = value.chars().filter(char::is_ascii_hexdigit).count();
    let run = value.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max().unwrap_or(0);
    if length > QUOTED_MAX || hex > HEX_MAX || run > HEX_RUN_MAX {
        format!("{length} characters")
    } else {
        format!("`{}`", one_line(value))
    }
}

/// The text with every control character escaped, so that it stays on its line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value is quoted as it stands, unless it is long or may be a key.
    #[test]
    fn values_that_may_be_keys_are_not_quoted() {
        assert_eq!(shown("aes128"), "`aes128`");
        assert_eq!(shown("2001:db8::1/64"), "`2001:db8::1/64`");
        assert_eq!(shown("a\nb"), "`a\\nb`");
        assert_eq!(shown("0001020304050607"), "16 characters");
        assert_eq!(shown("00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f"), "47 characters");
        assert_eq!(shown(&"z".repeat(65)), "65 characters");
    }

    /// Whatever is in a name, the message is one line.
    #[test]
    fn messages_are_one_line() {
        let error = ConfigError::invalid("a\nb.toml", 3, "x\r\u{2028}", "bad\tthing\n");
        assert_eq!(error.to_string(), "a\\nb.toml:3: x\\r\\u{2028}: bad\\tthing\\n");
        let error = ConfigError::read("c.toml", io::Error::other("no disk"));
        assert_eq!(error.to_string(), "c.toml: cannot be read: no disk");
    }
}
