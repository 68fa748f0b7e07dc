//! The conformance ledger, `docs/conformance.md`: one row for each statement of the RFCs.
//!
//! - [`statements`]: the IDs that the ledger must have.
//! - [`table`]: the rows of the ledger, and what makes a row wrong in itself.
//! - [`results`]: which tests there are, and how they fared in a run.
//! - [`scan`]: which tests cite which statements in their comments.
//!
//! [`check`] fails when a statement has no row or two, when a row names a test that does not exist,
//! and, given the results of a run, when such a test did not run, skipped itself, or failed.

mod results;
mod scan;
mod statements;
mod table;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

use results::Outcome;
use table::Row;
use table::State;

/// Where the ledger is, from the root of the repository.
const LEDGER: &str = "docs/conformance.md";

/// Checks the ledger; prints every problem, then the totals.
///
/// `junit` holds the results of a run of all tests. Rows that are still open are a problem, unless
/// `allow_open` turns it into a warning.
pub(crate) fn check(root: &Path, junit: Option<&Path>, allow_open: bool) -> Result<()> {
    let text = read(&root.join(LEDGER))?;
    let existing = results::existing(root)?;
    let outcomes = match junit {
        Some(path) => Some(results::outcomes(&read(path)?)?),
        None => None,
    };
    let (rows, mut problems) = table::parse(&text);
    problems.extend(missing(&rows));
    for row in &rows {
        problems.extend(row_problems(row, &existing, outcomes.as_ref()));
    }
    for problem in &problems {
        println!("{LEDGER}: {problem}");
    }
    let open: Vec<&str> = ids(&rows, State::Open).collect();
    if !open.is_empty() {
        println!("{LEDGER}: open: {}", open.join(" "));
    }
    println!("{}", totals(&rows));
    if !problems.is_empty() {
        bail!("{} problems in {LEDGER}", problems.len());
    }
    if !open.is_empty() && !allow_open {
        bail!("{} statements are open in {LEDGER}", open.len());
    }
    Ok(())
}

/// Prints each statement with the tests whose comments cite it.
pub(crate) fn print_citations(root: &Path) -> Result<()> {
    let citations = scan::citations(root, &results::existing(root)?)?;
    for id in statements::ids() {
        println!("{id}");
        for place in citations.get(&id).into_iter().flatten() {
            println!("  {place}");
        }
    }
    Ok(())
}

/// Writes the tests whose comments cite a statement into its row, where that is open. Whether they
/// prove it is for a reader to say.
pub(crate) fn fill(root: &Path) -> Result<()> {
    let existing = results::existing(root)?;
    let citations = scan::citations(root, &existing)?;
    let tests = |id: &str| {
        let places = citations.get(id).into_iter().flatten();
        places.filter(|place| existing.contains(*place)).cloned().collect()
    };
    let path = root.join(LEDGER);
    let text = table::fill(&read(&path)?, tests);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn ids(rows: &[Row], state: State) -> impl Iterator<Item = &str> {
    rows.iter().filter(move |row| row.state == state).map(|row| row.id.as_str())
}

/// Statements without a row, with more than one, and rows of no statement.
fn missing(rows: &[Row]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.id).or_default() += 1;
    }
    let mut problems = Vec::new();
    for id in statements::ids() {
        match counts.remove(id.as_str()) {
            Some(1) => {}
            Some(count) => problems.push(format!("{id}: {count} rows")),
            None => problems.push(format!("{id}: no row")),
        }
    }
    problems.extend(counts.keys().map(|id| format!("{id}: no such statement")));
    problems
}

/// What is wrong with the tests that a row names. Those of an open row prove nothing yet.
fn row_problems(
    row: &Row,
    existing: &BTreeSet<String>,
    outcomes: Option<&BTreeMap<String, Outcome>>,
) -> Vec<String> {
    let mut problems = Vec::new();
    if row.state == State::Open {
        return problems;
    }
    for test in &row.tests {
        let what = match outcomes.map(|outcomes| outcomes.get(test)) {
            _ if !existing.contains(test) => "does not exist",
            None | Some(Some(Outcome::Passed)) => continue,
            Some(Some(Outcome::Failed)) => "failed",
            Some(Some(Outcome::Skipped)) => "skipped itself",
            Some(None) => "did not run",
        };
        problems.push(format!("{}:{}: test `{test}` {what}", row.line, row.id));
    }
    problems
}

fn totals(rows: &[Row]) -> String {
    let count = |state| ids(rows, state).count();
    format!(
        "ledger: {} statements: {} hold, {} do not apply, {} deviate, {} open",
        rows.len(),
        count(State::Holds),
        count(State::DoesNotApply),
        count(State::Deviates),
        count(State::Open),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, tests: &[&str], state: State) -> Row {
        let tests = tests.iter().map(|&test| test.to_owned()).collect();
        Row { line: 7, id: id.to_owned(), state, tests }
    }

    /// All statements once is no problem; none, two and unknown ones are.
    #[test]
    fn each_statement_has_one_row() {
        let mut rows: Vec<Row> =
            statements::ids().map(|id| row(&id, &["p t"], State::Holds)).collect();
        assert_eq!(missing(&rows), Vec::<String>::new());
        rows.retain(|row| row.id != "U09b");
        rows.push(row("C04", &[], State::Open));
        rows.push(row("X01", &[], State::Open));
        assert_eq!(missing(&rows), ["U09b: no row", "C04: 2 rows", "X01: no such statement"]);
    }

    /// Without results it is enough that a test exists; with them it must have passed.
    #[test]
    fn tests_exist_and_passed() {
        let names = ["p good", "p bad", "p skips", "p filtered"];
        let existing: BTreeSet<String> = names.map(str::to_owned).into();
        let row = row("C04", &[&names[..], &["p gone"]].concat(), State::Holds);
        let gone = "7:C04: test `p gone` does not exist";
        assert_eq!(row_problems(&row, &existing, None), [gone]);
        let outcomes = [
            ("p good".to_owned(), Outcome::Passed),
            ("p bad".to_owned(), Outcome::Failed),
            ("p skips".to_owned(), Outcome::Skipped),
        ];
        let expected = [
            "7:C04: test `p bad` failed",
            "7:C04: test `p skips` skipped itself",
            "7:C04: test `p filtered` did not run",
            gone,
        ];
        assert_eq!(row_problems(&row, &existing, Some(&outcomes.into())), expected);
        let open = Row { state: State::Open, ..row };
        assert_eq!(row_problems(&open, &existing, None), Vec::<String>::new());
    }

    #[test]
    fn totals_count_each_state() {
        let states = [State::Holds, State::Holds, State::DoesNotApply, State::Open];
        let rows = states.map(|state| row("C04", &[], state));
        let expected = "ledger: 4 statements: 2 hold, 1 do not apply, 0 deviate, 1 open";
        assert_eq!(totals(&rows), expected);
    }

    /// The ledger of this repository has its 128 rows, and each is in order by itself.
    #[test]
    fn this_ledger_is_complete() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (rows, problems) = table::parse(&read(&root.join(LEDGER)).unwrap());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(missing(&rows), Vec::<String>::new());
        assert_eq!(rows.len(), 128);
    }
}
