//! A walk over the TOML tree that knows at each step where it is.
//!
//! `toml` gives the tree with the place of every key and value in the text. The walk adds the path,
//! so that each error can say `gw.toml:12: sa[1].key: expected ..`. Deriving the structures would
//! be shorter, but a derived error neither counts the tables of an array nor keeps the value to
//! itself, and here the value may be a key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::error::ConfigError;
use super::error::shown;

/// Keys of the file itself, which end up in a section when they are written below its header.
const ABOVE_SECTIONS: [&str; 1] = ["state_directory"];

/// The name of the file and where its lines begin.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Source<'a> {
        let line_starts = line_starts(text.as_bytes());
        Source { file, text, line_starts }
    }

    /// The tree of the text.
    pub(super) fn tree(&self) -> Result<DeTable<'a>, ConfigError> {
        match DeTable::parse(self.text) {
            Ok(tree) => Ok(tree.into_inner()),
            Err(error) => {
                let line = self.line(error.span().map_or(0, |span| span.start));
                Err(self.error(line, &self.key_on(line), error.message()))
            }
        }
    }

    pub(super) fn error(&self, line: usize, field: &str, problem: impl Display) -> ConfigError {
        ConfigError::invalid(self.file, line, field, problem)
    }

    /// Number of the line, from 1, that holds the octet at `offset`.
    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// The key before the equals sign of a line that is not TOML, as far as one can be seen.
    fn key_on(&self, line: usize) -> String {
        let text = self.text.lines().nth(line - 1).unwrap_or("");
        let key = text.split_once('=').map_or("", |(key, _)| key).trim();
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // A name that would not be quoted (it may be a key that lost its quotes) is left out.
        if key.is_empty() || !key.chars().all(bare) || !shown(key).starts_with('`') {
            "TOML".to_owned()
        } else {
            key.to_owned()
        }
    }
}

/// Offsets of the first octet of each line; never empty.
pub(super) fn line_starts(text: &[u8]) -> Vec<usize> {
    let ends = text.iter().enumerate().filter(|&(_, &octet)| octet == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

/// One table of the file, all of whose keys are known.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    table: &'a DeTable<'a>,
    path: String,
    line: usize,
}

impl<'a> Section<'a> {
    /// The file as a whole.
    pub(super) fn root(
        source: &'a Source<'a>,
        tree: &'a DeTable<'a>,
        keys: &[&str],
    ) -> Result<Section<'a>, ConfigError> {
        Section { source, table: tree, path: String::new(), line: 1 }.checked(keys)
    }

    /// Line of the header.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The field `key`, if the table has it.
    pub(super) fn optional(&self, key: &str) -> Option<Field<'a>> {
        let value = self.table.get(key)?;
        Some(Field {
            source: self.source,
            value: value.get_ref(),
            path: self.path_of(key),
            line: self.source.line(value.span().start),
        })
    }

    /// The field `key`.
    pub(super) fn required(
        &self,
        key: &str,
        expected: impl Display,
    ) -> Result<Field<'a>, ConfigError> {
        self.optional(key).ok_or_else(|| self.missing(key, expected))
    }

    /// The error for a field the table lacks.
    pub(super) fn missing(&self, key: &str, expected: impl Display) -> ConfigError {
        let problem = format!("missing: expected {expected}");
        self.source.error(self.line, &self.path_of(key), problem)
    }

    /// The error "expected this" about the table itself.
    pub(super) fn wrong(&self, expected: impl Display) -> ConfigError {
        self.source.error(self.line, &self.path, format_args!("expected {expected}"))
    }

    /// The error `problem` about the field `key`, or about the table if it lacks the field.
    pub(super) fn error(&self, key: &str, problem: impl Display) -> ConfigError {
        let line = self.optional(key).map_or(self.line, |field| field.line);
        self.source.error(line, &self.path_of(key), problem)
    }

    /// The error `problem` about the field `inner` of the table at `key`.
    pub(super) fn error_within(
        &self,
        key: &str,
        inner: &str,
        problem: impl Display,
    ) -> ConfigError {
        let line = self.optional(key).map_or(self.line, |field| field.line);
        self.source.error(line, &format!("{}.{inner}", self.path_of(key)), problem)
    }

    /// Refuses the keys, where the rest of the table leaves them without meaning; `why` says so.
    pub(super) fn refuse(&self, keys: &[&str], why: impl Display) -> Result<(), ConfigError> {
        let fields = keys.iter().filter_map(|key| self.optional(key));
        match fields.min_by_key(|field| field.line) {
            Some(field) => Err(field.error(why)),
            None => Ok(()),
        }
    }

    /// Refuses a key that is not among `keys`; the first in the file, if there are more.
    fn checked(self, keys: &[&str]) -> Result<Section<'a>, ConfigError> {
        let unknown = self.table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else {
            return Ok(self);
        };
        let name: &str = key.get_ref();
        let path = match shown(name).strip_prefix('`') {
            Some(_) => self.path_of(name),
            None => self.path_of(&format!("({})", shown(name))),
        };
        let above = if ABOVE_SECTIONS.contains(&name) && !self.path.is_empty() {
            "; it belongs above the first section"
        } else {
            ""
        };
        let problem = format!("unknown key: expected one of {}{above}", keys.join(", "));
        Err(self.source.error(self.source.line(key.span().start), &path, problem))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// One value of the file.
pub(super) struct Field<'a> {
    source: &'a Source<'a>,
    value: &'a DeValue<'a>,
    path: String,
    line: usize,
}

impl<'a> Field<'a> {
    /// The string, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The integer, if it is one of 0 to 2^64 - 1.
    pub(super) fn as_number(&self) -> Option<u64> {
        let integer = self.value.as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// A string; `expected` describes it in the error.
    pub(super) fn text(&self, expected: impl Display) -> Result<&'a str, ConfigError> {
        self.as_text().ok_or_else(|| self.wrong(expected))
    }

    /// A boolean.
    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// An integer in `range`.
    pub(super) fn number<T>(&self, range: RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        self.as_number()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.wrong(format_args!("an integer from {} to {}", range.start(), range.end()))
            })
    }

    /// A time in seconds, whole or with a fraction, in nanoseconds; `range` is in milliseconds.
    pub(super) fn nanoseconds(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let seconds = match self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            _ => self.as_number().and_then(|seconds| u32::try_from(seconds).ok()).map(f64::from),
        };
        let milliseconds = |bound: u64| Duration::from_millis(bound).as_secs_f64();
        let [least, most] = [*range.start(), *range.end()].map(milliseconds);
        let seconds = seconds.filter(|seconds| (least..=most).contains(seconds));
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanos()).ok());
        nanoseconds
            .ok_or_else(|| self.wrong(format_args!("a number of seconds from {least} to {most}")))
    }

    /// An integer in `range`, or a word for what it stands for.
    pub(super) fn number_or<T, N>(
        &self,
        words: &[(&str, T)],
        range: RangeInclusive<N>,
        number: impl Fn(N) -> T,
    ) -> Result<T, ConfigError>
    where
        T: Copy,
        N: TryFrom<u64> + PartialOrd + Display,
    {
        let found = self.as_text();
        if let Some(&(_, meaning)) = words.iter().find(|(word, _)| Some(*word) == found) {
            return Ok(meaning);
        }
        let found = self.as_number().and_then(|found| N::try_from(found).ok());
        match found.filter(|found| range.contains(found)) {
            Some(found) => Ok(number(found)),
            None => {
                let integer = format!("an integer from {} to {}", range.start(), range.end());
                Err(self.wrong(either(quoted(words).chain([integer]))))
            }
        }
    }

    /// One of the words, for what it stands for.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = self.as_text();
        let meant = words.iter().find(|(word, _)| Some(*word) == found);
        meant.map(|&(_, meaning)| meaning).ok_or_else(|| self.wrong(either(quoted(words))))
    }

    /// The values of an array that is not empty.
    pub(super) fn list(&self, expected: impl Display) -> Result<Vec<Field<'a>>, ConfigError> {
        match self.value.as_array() {
            Some(array) if array.is_empty() => {
                Err(self.error(format_args!("expected {expected}, found an empty list")))
            }
            Some(array) => Ok(self.elements(array)),
            None => Err(self.wrong(expected)),
        }
    }

    /// The table, if all its keys are among `keys`.
    pub(super) fn section(self, keys: &[&str]) -> Result<Section<'a>, ConfigError> {
        match self.value.as_table() {
            Some(table) => {
                let Field { source, path, line, .. } = self;
                Section { source, table, path, line }.checked(keys)
            }
            None => Err(self.wrong("a table")),
        }
    }

    /// The values of an array, or the one value that stands for an array of one.
    pub(super) fn one_or_list(self, expected: impl Display) -> Result<Vec<Field<'a>>, ConfigError> {
        if self.value.is_array() { self.list(expected) } else { Ok(vec![self]) }
    }

    /// The keys and values of a table, in the order of the file; `None` when it is no table.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Field<'a>)>> {
        let mut entries: Vec<_> = self.value.as_table()?.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let field = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let key: &'a std::borrow::Cow<'a, str> = key.get_ref();
            let field = Field {
                source: self.source,
                value: value.get_ref(),
                path: format!("{}.{key}", self.path),
                line: self.source.line(value.span().start),
            };
            (key.as_ref(), field)
        };
        Some(entries.into_iter().map(field).collect())
    }

    /// The tables of an array of tables, all of whose keys are among `keys`.
    pub(super) fn sections(&self, keys: &[&str]) -> Result<Vec<Section<'a>>, ConfigError> {
        let Some(array) = self.value.as_array() else {
            return Err(self.wrong(format_args!("tables headed [[{}]]", self.path)));
        };
        self.elements(array).into_iter().map(|element| element.section(keys)).collect()
    }

    /// The error "expected this, found that". It quotes the value; a field that holds a secret
    /// uses [`error`](Field::error) and [`kind`](Field::kind).
    pub(super) fn wrong(&self, expected: impl Display) -> ConfigError {
        let found = match self.value {
            DeValue::String(text) => shown(text),
            DeValue::Integer(integer) => shown(&integer.to_string()),
            DeValue::Boolean(flag) => shown(&flag.to_string()),
            _ => self.kind().to_owned(),
        };
        self.error(format_args!("expected {expected}, found {found}"))
    }

    /// The error `problem` about this field.
    pub(super) fn error(&self, problem: impl Display) -> ConfigError {
        self.source.error(self.line, &self.path, problem)
    }

    /// What the value is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        }
    }

    fn elements(&self, array: &'a [Spanned<DeValue<'a>>]) -> Vec<Field<'a>> {
        let fields = array.iter().enumerate().map(|(index, value)| Field {
            source: self.source,
            value: value.get_ref(),
            path: format!("{}[{index}]", self.path),
            line: self.source.line(value.span().start),
        });
        fields.collect()
    }
}

/// The words in quotes.
fn quoted<T>(words: &[(&str, T)]) -> impl Iterator<Item = String> {
    words.iter().map(|(word, _)| format!("\"{word}\""))
}

/// Alternatives: `a, b or c`.
pub(super) fn either(alternatives: impl Iterator<Item = String>) -> String {
    let alternatives: Vec<String> = alternatives.collect();
    match alternatives.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of an offset, at and around the ends of lines.
    #[test]
    fn lines_count_from_one() {
        let source = Source::new("f", "ab\n\nc");
        let lines: Vec<usize> = (0..6).map(|offset| source.line(offset)).collect();
        assert_eq!(lines, [1, 1, 1, 2, 3, 3]);
        assert_eq!(Source::new("f", "").line(0), 1);
    }

    /// An integer is read in every radix of TOML, up to the largest sequence number.
    #[test]
    fn integers_have_64_bits() {
        let source = Source::new("f", "a = 0x1_0\nb = 18446744073709551615\nc = -1\nd = +7");
        let tree = source.tree().unwrap();
        let root = Section::root(&source, &tree, &["a", "b", "c", "d"]).unwrap();
        let number = |key| root.optional(key).unwrap().as_number();
        assert_eq!(number("a"), Some(16));
        assert_eq!(number("b"), Some(u64::MAX));
        assert_eq!(number("c"), None);
        assert_eq!(number("d"), Some(7));
    }
}
