//! The example of the documentation is what really happens.

use std::process::Command;

use crate::scapy;
use crate::support::script;

const REPLAY: &str = include_str!("../../../../docs/replay.md");
const CONFIGURATION: &str = include_str!("../../../../docs/configuration.md");

/// The blocks of code in some language, in order.
fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The commands of the page print the totals and write the verdicts that it shows.
#[test]
fn the_example_is_real() {
    if !scapy::is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [job, totals, verdicts] = blocks(REPLAY, "json")[..] else { panic!("three blocks") };
    std::fs::write(folder.path().join("gw.toml"), blocks(CONFIGURATION, "toml")[0]).unwrap();
    std::fs::write(folder.path().join("job.json"), job).unwrap();
    std::os::unix::fs::symlink(script("."), folder.path().join("scripts")).unwrap();
    let commands = format!("culvert() {{ {} \"$@\"; }}\n", env!("CARGO_BIN_EXE_culvert"));
    let commands = commands + blocks(REPLAY, "sh")[0];
    let output = Command::new("sh")
        .args(["-e", "-c", &commands])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), totals);
    let written = std::fs::read_to_string(folder.path().join("verdicts.jsonl")).unwrap();
    assert_eq!(written, verdicts);
}
