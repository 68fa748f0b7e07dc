//! Which tests cite which statements: `/// E03: ...` above a test, or `// I12` inside it.
//!
//! A citation belongs to the function it stands above or in. That function is a test when nextest
//! lists one of its name in the same package; where several have that name, the one whose path has
//! the name of the file. What stands elsewhere, such as in a table that a test reads, is given by
//! file and line. A macro's line `name => ..` with a citation above it is a test of that name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;

use super::read;
use super::statements;
use crate::tidy;

/// Tests, or else places, by the ID of the statement they cite.
pub(crate) fn citations(
    root: &Path,
    existing: &BTreeSet<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut citations: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in tidy::sources(root)? {
        // What this program says about citations is none.
        if path.starts_with(root.join("xtask")) {
            continue;
        }
        let package = package(root, &path)?;
        for citation in cited(&read(&path)?) {
            let test = citation.function.and_then(|function| {
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                test_named(existing, &package, stem, &function)
            });
            let shown = path.strip_prefix(root).unwrap_or(&path).display();
            let place = test.unwrap_or_else(|| format!("{shown}:{}", citation.line));
            citations.entry(citation.id).or_default().insert(place);
        }
    }
    Ok(citations)
}

/// Name of the package that the file belongs to.
fn package(root: &Path, path: &Path) -> Result<String> {
    for directory in path.ancestors().take_while(|&directory| directory != root) {
        let manifest = directory.join("Cargo.toml");
        if manifest.exists() {
            let text = read(&manifest)?;
            let name = text.lines().find_map(|line| line.strip_prefix("name = \""));
            let name = name.and_then(|name| name.strip_suffix('"'));
            return name.map(str::to_owned).with_context(|| format!("{}", manifest.display()));
        }
    }
    anyhow::bail!("{} belongs to no package", path.display())
}

fn test_named(
    existing: &BTreeSet<String>,
    package: &str,
    stem: &str,
    function: &str,
) -> Option<String> {
    let named: Vec<&String> = existing
        .iter()
        .filter(|test| {
            let (binary, path) = test.split_once(' ').unwrap_or_default();
            binary.split("::").next() == Some(package) && path.rsplit("::").next() == Some(function)
        })
        .collect();
    let has_stem = |test: &&&String| test.split([' ', ':']).any(|part| part == stem);
    match named.as_slice() {
        [] => None,
        [only] => Some((*only).clone()),
        several => several.iter().find(has_stem).map(|&test| test.clone()),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Citation {
    id: String,
    /// Line of the file, from 1.
    line: usize,
    function: Option<String>,
}

/// What the comments of a file cite, in order.
fn cited(text: &str) -> Vec<Citation> {
    let lines: Vec<&str> = text.lines().collect();
    let mut citations = Vec::new();
    // The function whose body the line lies in: its name, and the indentation of its end.
    let mut inside: Option<(String, usize)> = None;
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = tidy::function_name(line).filter(|_| inside.is_none()) {
            inside = Some((name.to_owned(), indent));
        }
        let is_comment = line.trim_start().starts_with("//");
        if let Some((_, comment)) = line.split_once("//") {
            let function = match &inside {
                Some((name, _)) => Some(name.clone()),
                None if is_comment => below(&lines[index..]),
                None => None,
            };
            let citation = |id| Citation { id, line: index + 1, function: function.clone() };
            citations.extend(ids_in(comment).into_iter().map(citation));
        }
        let ends =
            |(_, level): &(String, usize)| *level == indent && line.trim_end().ends_with('}');
        if inside.as_ref().is_some_and(ends) {
            inside = None;
        }
    }
    citations
}

/// The function that the comment at the head of `lines` stands above.
fn below(lines: &[&str]) -> Option<String> {
    let mut rest = lines.iter().skip_while(|line| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with('#') || line.ends_with(")]")
    });
    let line = rest.next()?;
    let named = line.trim_start().split_once(" => ").map(|(name, _)| name);
    tidy::function_name(line).or(named).map(str::to_owned)
}

/// IDs of a comment; `C03 to C06` are four.
fn ids_in(comment: &str) -> Vec<String> {
    let words: Vec<&str> = comment
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let all: Vec<String> = statements::ids().collect();
    let position = |word: &str| all.iter().position(|id| id == word);
    let mut ids = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let Some(at) = position(word) else {
            continue;
        };
        let end = match words[index + 1..] {
            ["to", last, ..] => position(last).filter(|&last| last > at),
            _ => None,
        };
        ids.extend_from_slice(&all[at..=end.unwrap_or(at)]);
    }
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_comments() {
        assert_eq!(ids_in(" E07, E08: padded. I14."), ["E07", "E08", "I14"]);
        assert_eq!(ids_in(" C03 to C06: the table"), ["C03", "C04", "C05", "C06"]);
        assert_eq!(ids_in(" U09 to U10"), ["U09", "U09b", "U09c", "U10"]);
        assert_eq!(ids_in(" XE07 E070 E7 P30 E07_x"), Vec::<String>::new());
    }

    /// Above a test, behind a statement inside it, in a closure's table, and outside of functions.
    #[test]
    fn citations_belong_to_functions() {
        let text = "\
            // C01\n\
            const TABLE: u8 = 1;\n\n\
            mod tests {\n    \
                /// E01: first,\n    \
                /// and E02.\n    \
                #[test]\n    \
                fn numbers() {\n        \
                    one(|| {\n        \
                    }); // I01\n    \
                }\n\n    \
                /// Nothing.\n    \
                fn helper() -> u8 {\n        \
                    1 // I02\n    \
                }\n\
            }\n";
        let citation = |id: &str, line, function: Option<&str>| Citation {
            id: id.to_owned(),
            line,
            function: function.map(str::to_owned),
        };
        let expected = [
            citation("C01", 1, None),
            citation("E01", 5, Some("numbers")),
            citation("E02", 6, Some("numbers")),
            citation("I01", 10, Some("numbers")),
            citation("I02", 15, Some("helper")),
        ];
        assert_eq!(cited(text), expected);
        let table = "reasons! {\n    /// U07: short.\n    runt => Runt, 1;\n}\n";
        assert_eq!(cited(table), [citation("U07", 2, Some("runt"))]);
    }

    /// The same name in two packages, and in two files of one.
    #[test]
    fn functions_become_tests() {
        let existing: BTreeSet<String> =
            ["a m::tests::t", "a n::tests::t", "a::live u", "b m::tests::u"]
                .map(str::to_owned)
                .into();
        let named = |package, stem, function| test_named(&existing, package, stem, function);
        assert_eq!(named("a", "n", "t").as_deref(), Some("a n::tests::t"));
        assert_eq!(named("a", "live", "u").as_deref(), Some("a::live u"));
        assert_eq!(named("b", "x", "u").as_deref(), Some("b m::tests::u"));
        assert_eq!(named("b", "x", "t"), None);
        assert_eq!(named("a", "x", "t"), None);
    }
}
