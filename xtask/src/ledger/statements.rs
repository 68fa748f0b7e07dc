//! The IDs of the statements that the ledger has a row for.

/// Letter of each group and how many statements it has, numbered from 1.
const GROUPS: [(char, usize); 8] =
    [('E', 21), ('I', 23), ('G', 12), ('A', 8), ('P', 29), ('U', 16), ('C', 8), ('M', 9)];

/// Statements that came later and stand behind the one whose number they have.
const ADDED: [&str; 2] = ["U09b", "U09c"];

/// All IDs, in the order of the ledger.
pub(crate) fn ids() -> impl Iterator<Item = String> {
    GROUPS.into_iter().flat_map(|(group, count)| {
        (1..=count).flat_map(move |number| {
            let id = format!("{group}{number:02}");
            let added =
                ADDED.iter().filter(|added| added.starts_with(&id)).map(|&id| id.to_owned());
            let added: Vec<String> = added.collect();
            std::iter::once(id).chain(added)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_128_statements() {
        let ids: Vec<String> = ids().collect();
        assert_eq!(ids.len(), 128);
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 128);
        assert_eq!([&ids[0], &ids[127]], ["E01", "M09"]);
        let at = ids.iter().position(|id| id == "U09").unwrap();
        assert_eq!(ids[at + 1..at + 4], ["U09b", "U09c", "U10"]);
    }
}
