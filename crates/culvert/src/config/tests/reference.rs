//! The documentation of configuration: keys and mistakes.

use std::collections::BTreeSet;
use std::fs;

use super::*;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

/// A section of the reference, by its title.
fn section(reference: &str, title: &str) -> String {
    let mut sections = reference.split("\n## ");
    let section = sections.find(|section| section.lines().next() == Some(title));
    section.unwrap_or_else(|| panic!("no section {title}")).to_owned()
}

/// Every key that is read has its row in the reference, in its section and in order, and the
/// reference shows the example as it is.
#[test]
fn the_reference_names_every_key() {
    let reference = fs::read_to_string(REFERENCE).unwrap();
    let sections: [(&str, &[&str]); 15] = [
        ("The file", &KEYS),
        ("`[interfaces]`", &INTERFACES_KEYS),
        ("`[workers]`", &WORKERS_KEYS),
        ("`[control]`", &control::KEYS),
        ("`[lab]`", &LAB_KEYS),
        ("`[spd]`", &settings::SPD_KEYS),
        ("`[ike]`", &settings::IKE_KEYS),
        ("`[icmp]`", &settings::ICMP_KEYS),
        ("`[audit]`", &settings::AUDIT_KEYS),
        ("`[notices]`", &settings::NOTICES_KEYS),
        ("`[[sa]]`", &sa::KEYS),
        ("`soft_lifetime` and `hard_lifetime`", &sa::LIMITS_KEYS),
        ("`encapsulation`", &sa::ENCAPSULATION_KEYS),
        ("`[[policy]]`", &policy::KEYS),
        ("Selectors", &selector::KEYS),
    ];
    for (title, keys) in sections {
        let section = section(&reference, title);
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let rows: Vec<&str> = rows.filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(rows, keys, "the rows of {title}");
    }
    assert!(reference.contains(&format!("```toml\n{}```", Config::example())));
}

/// The mistakes that the reference lists are those that were made here, all of them and no others.
#[test]
fn the_reference_lists_every_mistake() {
    let reference = fs::read_to_string(REFERENCE).unwrap();
    let section = section(&reference, "Every mistake");
    let (_, list) = section.split_once("```text\n").expect("a list");
    let (list, _) = list.split_once("```").expect("the end of the list");
    let listed: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    let made = mistakes::said();
    let difference = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> String {
        one.difference(other).map(|line| format!("{line}\n")).collect()
    };
    assert_eq!(difference(&made, &listed), "", "made, and not in the reference");
    assert_eq!(difference(&listed, &made), "", "in the reference, and never made");
}
