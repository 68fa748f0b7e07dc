//! Which tests there are, and how they fared in a run.
//!
//! Tests are named by their binary, a space, and their path: `culvert-esp trailer::tests::errors`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

/// What a test says that cannot run here; it passes all the same.
const SKIPPED: &str = "SKIPPED";

/// How a test fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// The tests of the workspace, as nextest lists them; builds them first.
pub(crate) fn existing(root: &Path) -> Result<BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["nextest", "list", "--workspace", "--message-format", "oneline"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo nextest")?;
    if !output.status.success() {
        bail!("cargo nextest list failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("names of tests are not UTF-8")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// How each test of a run fared, from what nextest wrote in the JUnit format.
pub(crate) fn outcomes(junit: &str) -> Result<BTreeMap<String, Outcome>> {
    let document = roxmltree::Document::parse(junit).context("results of the tests")?;
    let mut outcomes = BTreeMap::new();
    for case in document.descendants().filter(|node| node.has_tag_name("testcase")) {
        let attribute =
            |name| case.attribute(name).with_context(|| format!("a test without {name}"));
        let name = format!("{} {}", attribute("classname")?, attribute("name")?);
        outcomes.insert(name, outcome(case));
    }
    Ok(outcomes)
}

fn outcome(case: roxmltree::Node<'_, '_>) -> Outcome {
    let has = |tag: &str| case.children().any(|child| child.has_tag_name(tag));
    let says = |tag: &str| {
        let mut texts = case.children().filter(|child| child.has_tag_name(tag));
        texts.any(|text| text.text().is_some_and(|text| text.contains(SKIPPED)))
    };
    if has("failure") || has("error") {
        Outcome::Failed
    } else if has("skipped") || says("system-out") || says("system-err") {
        Outcome::Skipped
    } else {
        Outcome::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form that nextest writes: a suite for each binary, whose name each test repeats.
    #[test]
    fn results_are_read() {
        let junit = r#"<?xml version="1.0" encoding="UTF-8"?>
            <testsuites name="nextest-run" tests="4" failures="1">
              <testsuite name="a::b" tests="3">
                <testcase name="m::passes" classname="a::b" time="0.1">
                  <system-out>ok &lt;1&gt;</system-out>
                </testcase>
                <testcase name="m::fails" classname="a::b">
                  <failure type="test failure">no</failure>
                  <system-err>SKIPPED: half of it</system-err>
                </testcase>
                <testcase name="skips" classname="a::b">
                  <system-out></system-out>
                  <system-err>*** SKIPPED: needs root ***</system-err>
                </testcase>
              </testsuite>
              <testsuite name="c"><testcase name="ok" classname="c"/></testsuite>
            </testsuites>"#;
        let expected = [
            ("a::b m::fails".to_owned(), Outcome::Failed),
            ("a::b m::passes".to_owned(), Outcome::Passed),
            ("a::b skips".to_owned(), Outcome::Skipped),
            ("c ok".to_owned(), Outcome::Passed),
        ];
        assert_eq!(outcomes(junit).unwrap(), expected.into());
        assert!(outcomes("<testsuites>").is_err());
    }
}
