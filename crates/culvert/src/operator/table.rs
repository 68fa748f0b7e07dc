//! Tables and times as people read them.

use std::fmt::Write;

/// Columns with a heading, as wide as what stands in them; two spaces between.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<String>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// How long ago a second since 1970 was, or `-`.
pub(super) fn ago(at: Option<u64>, now: u64) -> String {
    at.map_or("-".to_owned(), |at| format!("{} ago", duration(now.saturating_sub(at))))
}

/// Seconds in two of the larger units: `3h 20m`.
pub(super) fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|&(size, _)| seconds >= size).unwrap_or(3);
    let (size, unit) = UNITS[first];
    let whole = format!("{}{unit}", seconds / size);
    match UNITS.get(first + 1) {
        Some(&(next, unit)) if seconds % size >= next => {
            format!("{whole} {}{unit}", seconds % size / next)
        }
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two units at most, and none that is zero.
    #[test]
    fn durations_are_short() {
        let cases =
            [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3_600, "1h"), (93_784, "1d 2h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!((ago(None, 5), ago(Some(7), 5)), ("-".to_owned(), "0s ago".to_owned()));
    }
}
