//! Every mistake the documentation lists, with its message.
//!
//! Each topic makes bad files with their messages. What the messages say, without the place and
//! without what was found, is the list in the documentation: [`said`].

use std::collections::BTreeSet;

mod compare;
mod gateway;
mod options;
mod policy;
mod sa;

use super::*;

/// A bad file, and the message it gets.
pub(super) struct Mistake {
    text: String,
    message: String,
}

impl Mistake {
    fn new(text: impl Into<String>, message: impl Into<String>) -> Mistake {
        Mistake { text: text.into(), message: message.into() }
    }

    /// The message without file, line, numbers of arrays, and what was found.
    fn said(&self) -> String {
        let message = self.message.strip_prefix("gw.toml:").expect("the name of the file");
        let (_, rest) = message.split_once(": ").expect("a line");
        let (field, problem) = rest.split_once(": ").expect("a field");
        let mut bare = String::new();
        let mut inside = false;
        for c in field.chars() {
            inside = (inside || c == '[') && c != ']';
            if !inside || c == '[' {
                bare.push(c);
            }
        }
        let problem = problem.split(", found ").next().expect("what was expected");
        format!("{bare}: {problem}")
    }
}

/// `GOOD`, each time with the first `from` made `to`, and its message.
fn spoil(cases: &[(&str, &str, &str)]) -> Vec<Mistake> {
    cases.iter().map(|(from, to, message)| Mistake::new(spoiled(from, to), *message)).collect()
}

fn all() -> Vec<Mistake> {
    let topics = [gateway::all(), sa::all(), options::all(), compare::all(), policy::all()];
    topics.into_iter().flatten().collect()
}

/// What the messages of all mistakes say.
pub(super) fn said() -> BTreeSet<String> {
    all().iter().map(Mistake::said).collect()
}

#[track_caller]
fn check(mistakes: &[Mistake]) {
    for mistake in mistakes {
        assert_eq!(message_of(&mistake.text), mistake.message, "for\n{}", mistake.text);
    }
}
