//! Arbitrary text.

use proptest::prelude::*;

use super::*;

/// No panic, and one line, whatever the text.
fn parse_is_tame(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = Config::parse("gw.toml", text) {
        let message = error.to_string();
        prop_assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
        prop_assert!(message.starts_with("gw.toml:"), "{message:?}");
    }
    Ok(())
}

proptest! {
    /// Arbitrary text is refused or read, never a panic.
    #[test]
    fn arbitrary_text_is_tame(text in any::<String>()) {
        parse_is_tame(&text)?;
    }

    /// So is text that is nearly right: a valid file with some lines gone, doubled, or with an
    /// arbitrary value.
    #[test]
    fn nearly_valid_text_is_tame(
        edits in prop::collection::vec((0..50_usize, 0..3_u8, "[ -~]{0,12}"), 1..4),
    ) {
        let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
        for (at, kind, value) in edits {
            let at = at % lines.len();
            let line = lines[at].clone();
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, line),
                _ => lines[at] = line.split('=').next().unwrap_or("").to_owned() + "=" + &value,
            }
        }
        parse_is_tame(&lines.join("\n"))?;
    }

    /// Wherever a key stands in the file, in quotes or without, in whatever piece or notation, no
    /// message quotes 16 digits of it.
    #[test]
    fn keys_stay_out_of_messages(
        line in 0..51_usize,
        length in 16..=40_usize,
        form in 0..6_u8,
    ) {
        let key = &"f0e1d2c3b4a5968778695a4b3c2d1e0fabcdef01"[..length];
        let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
        let line = line % lines.len();
        let name = lines[line].split(" =").next().unwrap_or("").to_owned();
        lines[line] = match form {
            0 => format!("{name} = \"{key}\""),
            1 => format!("{name} = 0x{key}"),
            2 => format!("{name} = {key}"),
            3 => format!("{key} = \"{name}\""),
            4 => format!("{key} = {name}"),
            _ => key.to_owned(),
        };
        let message = message_of(&lines.join("\n"));
        prop_assert!(!message.contains(&key[..16]), "{message}");
    }
}
