//! Rows of the ledger: `| ID | level | statement | source | wording | state | proof |`.
//!
//! Every line that begins with a bar is a row, but for the heads of tables. Names of tests stand in
//! the last column between backticks, as `cargo nextest list --message-format oneline` has them:
//! the binary, a space, the path of the test. Other words of that column are the reason why a
//! statement does not apply or is deviated from.

/// Words that the level of a statement may be: those of RFC 2119, or a behaviour that is allowed.
const LEVELS: [&str; 5] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"];

/// How the wording of a statement was checked: against the text of the RFC, a summary of a
/// quotation of it, or not yet.
const WORDINGS: [&str; 3] = ["read", "quoted", "unread"];

const COLUMNS: usize = 7;

/// What the project does about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Holds,
    DoesNotApply,
    Deviates,
    Open,
}

/// One row of the ledger.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Line of the file, from 1.
    pub(crate) line: usize,
    pub(crate) id: String,
    pub(crate) state: State,
    /// Tests as nextest names them: binary, space, path.
    pub(crate) tests: Vec<String>,
}

/// All rows of the text, and what is wrong with those that are none.
pub(crate) fn parse(text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let Some(inside) = text.strip_prefix('|') else {
            continue;
        };
        let inside = inside.strip_suffix('|').unwrap_or(inside);
        let cells: Vec<&str> = inside.split('|').map(str::trim).collect();
        if cells[0] == "ID" || cells[0].starts_with("--") {
            continue;
        }
        match row(line, &cells) {
            Ok(row) => rows.push(row),
            Err(what) => problems.push(format!("{line}:{}: {what}", cells[0])),
        }
    }
    (rows, problems)
}

fn row(line: usize, cells: &[&str]) -> Result<Row, String> {
    let &[id, level, statement, source, wording, state, proof] = cells else {
        return Err(format!("{} columns, not {COLUMNS}", cells.len()));
    };
    if !LEVELS.contains(&level) {
        return Err(format!("unknown level {level:?}"));
    }
    if !WORDINGS.contains(&wording) {
        return Err(format!("unknown word {wording:?} for how the wording was checked"));
    }
    if statement.is_empty() || source.is_empty() {
        return Err("a statement and its source are needed".to_owned());
    }
    let (tests, reason) = split_proof(proof)?;
    let state = match state {
        "holds" => State::Holds,
        "does not apply" => State::DoesNotApply,
        "deviates" => State::Deviates,
        "open" => State::Open,
        _ => return Err(format!("unknown state {state:?}")),
    };
    match state {
        State::Holds if tests.is_empty() => return Err("holds, but names no test".to_owned()),
        State::DoesNotApply | State::Deviates if !reason => {
            return Err("a reason is needed".to_owned());
        }
        _ => {}
    }
    Ok(Row { line, id: id.to_owned(), state, tests })
}

/// The text with `tests` as the proof of each row that is open and has some.
pub(crate) fn fill(text: &str, tests: impl Fn(&str) -> Vec<String>) -> String {
    let mut filled = String::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let proof = match cells.as_slice() {
            ["", id, .., "open", _, ""] => tests(id),
            _ => Vec::new(),
        };
        if proof.is_empty() {
            filled.push_str(line);
        } else {
            let proof = proof.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>();
            filled.push_str(&cells[..cells.len() - 2].join(" | ")[1..]);
            filled.push_str(&format!(" | {} |", proof.join("<br>")));
        }
        filled.push('\n');
    }
    filled
}

/// The tests of a proof, and whether there are other words.
fn split_proof(proof: &str) -> Result<(Vec<String>, bool), String> {
    let (mut tests, mut reason) = (Vec::new(), false);
    for (index, part) in proof.split('`').enumerate() {
        if index.is_multiple_of(2) {
            reason |= part.replace("<br>", " ").contains(char::is_alphanumeric);
        } else if part.split(' ').filter(|word| !word.is_empty()).count() == 2 {
            tests.push(part.to_owned());
        } else {
            return Err(format!("`{part}` is not a binary, a space, and a test"));
        }
    }
    if !proof.matches('`').count().is_multiple_of(2) {
        return Err("a backtick is missing".to_owned());
    }
    Ok((tests, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(cells: &str) -> String {
        let (rows, mut problems) = parse(&format!("text\n| E01 | {cells} |\n"));
        assert_eq!((rows.len(), problems.len()), (0, 1), "{cells}");
        problems.remove(0)
    }

    /// Headings and lines between tables are no rows; tests are what stands between backticks.
    #[test]
    fn rows_are_read() {
        let text = "# Title\n\n| ID | level | statement | source | wording | state | proof |\n\
            |---|---|---|---|---|---|---|\n\
            | E01 | MUST | First. | RFC 4303, 3.3.3 | read | holds | `a b::c`<br>`a::d e` |\n\
            | E02 | MAY | Next. | RFC 4303, 3.3.3 | quoted | does not apply | No such SA. |\n\
            | E03 | MAY | Next. | RFC 4303, 3.3.3 | read | open | |\n";
        let tests = vec!["a b::c".to_owned(), "a::d e".to_owned()];
        let row = |line, id: &str, state, tests| Row { line, id: id.to_owned(), state, tests };
        let expected = vec![
            row(5, "E01", State::Holds, tests),
            row(6, "E02", State::DoesNotApply, Vec::new()),
            row(7, "E03", State::Open, Vec::new()),
        ];
        assert_eq!(parse(text), (expected, Vec::new()));
    }

    #[test]
    fn rows_that_prove_nothing_are_problems() {
        let holds = "2:E01: holds, but names no test";
        assert_eq!(problem("MUST | First. | RFC | read | holds |"), holds);
        assert_eq!(problem("MUST | First. | RFC | read | holds | Surely."), holds);
        let reason = "2:E01: a reason is needed";
        assert_eq!(problem("MUST | First. | RFC | read | deviates | `a b`<br>`c d`"), reason);
        assert_eq!(problem("MUST | First. | RFC | read | does not apply |"), reason);
    }

    /// Only open rows are filled, and what is filled is a row again.
    #[test]
    fn open_rows_are_filled() {
        let text = "# Title\n\n| E01 | MUST | A. | RFC | read | open | |\n\
            | E02 | MUST | B. | RFC | read | open | `old test` |\n\
            | E03 | MUST | C. | RFC | read | holds | `a b` |\n| E04 | x | open | |\n";
        let tests = |id: &str| match id {
            "E02" => vec!["a b".to_owned(), "c d".to_owned()],
            "E03" => vec!["c d".to_owned()],
            _ => Vec::new(),
        };
        let expected = text.replace("`old test`", "`a b`<br>`c d`");
        assert_eq!(fill(text, tests), expected);
    }

    #[test]
    fn rows_of_another_form_are_problems() {
        assert_eq!(problem("MUST | First. | RFC | read | holds"), "2:E01: 6 columns, not 7");
        assert_eq!(problem("M | a | b | read | open |"), "2:E01: unknown level \"M\"");
        assert_eq!(problem("MUST | a | b | read | done |"), "2:E01: unknown state \"done\"");
        let word = "2:E01: unknown word \"\" for how the wording was checked";
        assert_eq!(problem("MUST | a | b | | open |"), word);
        let source = "2:E01: a statement and its source are needed";
        assert_eq!(problem("MUST | a | | read | open |"), source);
        let test = "2:E01: `b::c` is not a binary, a space, and a test";
        assert_eq!(problem("MUST | a | b | read | holds | `b::c`"), test);
        assert_eq!(problem("MUST | a | b | read | holds | `b c"), "2:E01: a backtick is missing");
    }
}
