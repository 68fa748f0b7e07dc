//! Rules about the text of the sources that neither the compiler nor rustfmt checks.
//!
//! - Lines of Rust files have at most [`LINE_MAX`] characters (rustfmt leaves comments and strings
//!   alone).
//! - Functions have at most [`FUNCTION_MAX`] lines, from the `fn` line to the closing brace. The
//!   end is found by indentation, which rustfmt guarantees.
//! - Every crate forbids unsafe code, but those in [`MAY_BE_UNSAFE`].
//! - No text file names a package registry or mirror: where packages come from is a matter of the
//!   machine's configuration, and a checkout must build anywhere.
//!
//! Directories that git ignores by the names in [`SKIPPED`] are not looked at.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

const LINE_MAX: usize = 100;
const FUNCTION_MAX: usize = 70;

/// Directories of packages whose Rust files are checked.
const SOURCES: [&str; 5] = ["benches", "crates", "ebpf", "fuzz", "xtask"];

/// Crates that may contain unsafe code.
const MAY_BE_UNSAFE: [&str; 4] = ["aead", "frame", "launch", "xdp"];

const FORBID_UNSAFE: &str = "#![forbid(unsafe_code)]";

/// Names of files and directories that are not looked at.
const SKIPPED: [&str; 4] = [".git", ".venv", "__pycache__", "target"];

/// What settings of a package registry look like. In two pieces each, since this file is checked
/// as well.
const REGISTRIES: [&str; 6] = [
    concat!("sparse", "+http"),
    concat!("replace", "-with"),
    concat!("index", "-url"),
    concat!("index", "_url"),
    concat!("registry", "+http"),
    concat!("trusted", "-host"),
];

/// How lock files name the one registry that a package may come from: by its canonical name.
const CANONICAL: &str = concat!("registry", "+https://github.com/rust-lang/crates.io-index");

/// Checks the repository at `root`; prints every finding as `path:line: what`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(root, &mut files)?;
    let mut findings = Vec::new();
    for path in &files {
        // What is not text holds neither source nor settings.
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        let path = path.strip_prefix(root).unwrap_or(path);
        let found = check(path, &text);
        findings.extend(
            found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", path.display())),
        );
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings in {} files", findings.len(), files.len());
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot list {}", directory.display());
    let mut entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().with_context(context)?;
        if entry.file_name().to_str().is_some_and(|name| SKIPPED.contains(&name)) {
            continue;
        } else if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The Rust files whose text is checked.
pub(crate) fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    list(root, &mut files)?;
    files.retain(|path| is_source(path.strip_prefix(root).unwrap_or(path)));
    Ok(files)
}

fn is_source(path: &Path) -> bool {
    SOURCES.iter().any(|directory| path.starts_with(directory))
        && path.extension().is_some_and(|extension| extension == "rs")
}

/// A line number and what is wrong there.
type Finding = (usize, String);

fn check(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = registries(text);
    if is_source(path) {
        findings.extend(long_lines(text));
        findings.extend(long_functions(text));
        findings.extend(unsafe_allowed(path, text));
    }
    findings
}

fn registries(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in numbered(text) {
        let line = line.replace(CANONICAL, "");
        if let Some(found) = REGISTRIES.iter().find(|registry| line.contains(*registry)) {
            findings.push((number, format!("names a package registry ({found})")));
        }
    }
    findings
}

fn long_lines(text: &str) -> Vec<Finding> {
    let length = |line: &str| line.chars().count();
    numbered(text)
        .filter(|(_, line)| length(line) > LINE_MAX)
        .map(|(number, line)| (number, format!("{} characters, at most {LINE_MAX}", length(line))))
        .collect()
}

fn long_functions(text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let length = function_length(&lines[index..]);
        if length > FUNCTION_MAX {
            let what = format!("function {name} has {length} lines, at most {FUNCTION_MAX}");
            findings.push((index + 1, what));
        }
    }
    findings
}

/// Name of the function that begins on the line.
pub(crate) fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    // A function that a macro names has its body where the macro is used.
    if after.starts_with('$') {
        return None;
    }
    let qualifiers = ["async", "const", "unsafe", "extern", "\"C\""];
    let is_qualifier = |word: &str| word.starts_with("pub") || word == "in" || word.ends_with(')');
    if !before.split_whitespace().all(|word| qualifiers.contains(&word) || is_qualifier(word)) {
        return None;
    }
    let end = after.find(['(', '<'])?;
    Some(&after[..end])
}

/// Lines of the function that begins on the first of `lines`; one for a declaration.
fn function_length(lines: &[&str]) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some(first) = lines.first() else {
        return 0;
    };
    if first.ends_with(';') || first.ends_with('}') {
        return 1;
    }
    let level = indent(first);
    let mut has_body = first.ends_with('{');
    for (index, line) in lines.iter().enumerate().skip(1) {
        if line.is_empty() || indent(line) != level {
            continue;
        }
        if !has_body && line.ends_with(';') {
            return index + 1;
        }
        if line.trim_start() == "}" {
            return index + 1;
        }
        has_body |= line.ends_with('{');
    }
    lines.len()
}

fn unsafe_allowed(path: &Path, text: &str) -> Option<Finding> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let (package, is_root) = match parts.as_slice() {
        ["crates", package, "src", "lib.rs" | "main.rs"] => (*package, true),
        [package @ ("xtask" | "benches" | "fuzz"), "src", "lib.rs" | "main.rs"] => (*package, true),
        _ => ("", false),
    };
    let forbids = text.lines().any(|line| line == FORBID_UNSAFE);
    (is_root && !forbids && !MAY_BE_UNSAFE.contains(&package))
        .then(|| (1, format!("crate {package} lacks {FORBID_UNSAFE}")))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let findings = check(Path::new(path), text);
        findings.into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    /// A line of 100 characters (not octets) passes, one of 101 does not.
    #[test]
    fn long_lines_are_found() {
        let text = format!("//{}\n//{}\n", "ü".repeat(98), "ü".repeat(99));
        assert_eq!(findings("crates/wire/src/udp.rs", &text), ["2: 101 characters, at most 100"]);
        assert!(findings("docs/page.md", &text).is_empty());
    }

    /// A function of 70 lines passes, one of 71 does not, whatever stands before `fn`.
    #[test]
    fn long_functions_are_found() {
        let function = |head: &str, lines: usize| {
            format!("{head} {{\n{}}}\n", "    step();\n".repeat(lines - 2))
        };
        let text = function("fn short(a: u8)", 70)
            + &function("pub(crate) const fn long<T>(a: T)", 71)
            + &function("pub async unsafe fn longer()", 80);
        let expected = [
            "71: function long has 71 lines, at most 70",
            "142: function longer has 80 lines, at most 70",
        ];
        assert_eq!(findings("xtask/src/a.rs", &text), expected);
    }

    /// Declarations, bodies on one line, signatures over lines, and words that are not functions.
    #[test]
    fn functions_end_where_they_end() {
        let length = |text: &str| function_length(&text.lines().collect::<Vec<_>>());
        assert_eq!(length("fn a();\nfn b() {"), 1);
        assert_eq!(length("fn a() {}\n}"), 1);
        assert_eq!(length("fn a(\n    x: u8,\n) -> u8;\nfn b() {"), 3);
        assert_eq!(length("fn a(\n    x: u8,\n) -> u8\nwhere\n    T: X,\n{\n    x\n}\n}"), 8);
        assert_eq!(length("    fn a() {\n        if x {\n        }\n\n    }\n}"), 5);
        assert_eq!(function_name("    pub(super) extern \"C\" fn name<T>("), Some("name"));
        assert_eq!(function_name("    /// A fn name()"), None);
        assert_eq!(function_name("type F = fn (u8);"), None);
        assert_eq!(function_name("    fn $name() {"), None);
        assert_eq!(function_name("    call: fn(u8) -> u8,"), None);
    }

    /// A crate root without the attribute is found, but not a module or one of the exceptions.
    #[test]
    fn unsafe_crates_are_found() {
        let lacks = |path| !findings(path, "//! Text.\n").is_empty();
        assert!(lacks("crates/wire/src/lib.rs"));
        assert!(lacks("crates/culvert/src/main.rs"));
        assert!(lacks("xtask/src/main.rs"));
        assert!(!lacks("crates/wire/src/udp.rs"));
        assert!(!lacks("crates/frame/src/lib.rs"));
        assert!(!lacks("ebpf/steer/src/main.rs"));
        assert!(
            findings("crates/wire/src/lib.rs", "//! Text.\n\n#![forbid(unsafe_code)]\n").is_empty()
        );
    }

    /// A mirror is found in any file; the canonical name in a lock file is not one.
    #[test]
    fn registries_are_found() {
        let mirror = concat!("source = \"sparse", "+https://mirror.example/index/\"\n");
        let found = concat!("1: names a package registry (sparse", "+http)");
        assert_eq!(findings("Cargo.lock", mirror), [found]);
        assert_eq!(findings("docs/page.md", &format!("a\n{mirror}")).len(), 1);
        assert!(findings("Cargo.lock", &format!("source = \"{CANONICAL}\"\n")).is_empty());
        assert_eq!(findings("Cargo.lock", &format!("\"{CANONICAL}\" {mirror}")).len(), 1);
    }
}
