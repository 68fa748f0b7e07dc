//! [`Numbers`]: SAs that have something in common, which nearly always is one SA.

use crate::sas::SaNumber;

/// SAs, oldest first; one of them takes no memory of its own.
#[derive(Debug)]
pub(crate) enum Numbers {
    One(SaNumber),
    /// None, or several.
    Others(Vec<SaNumber>),
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers::Others(Vec::new())
    }
}

impl Numbers {
    pub(crate) fn as_slice(&self) -> &[SaNumber] {
        match self {
            Numbers::One(number) => std::slice::from_ref(number),
            Numbers::Others(numbers) => numbers,
        }
    }

    /// Adds one behind the others.
    pub(crate) fn push(&mut self, number: SaNumber) {
        match self {
            Numbers::Others(numbers) if numbers.is_empty() => *self = Numbers::One(number),
            Numbers::Others(numbers) => numbers.push(number),
            Numbers::One(first) => *self = Numbers::Others(vec![*first, number]),
        }
    }

    /// Takes one out; true when none is left.
    pub(crate) fn remove(&mut self, number: SaNumber) -> bool {
        match self {
            Numbers::One(only) if *only == number => *self = Numbers::default(),
            Numbers::One(_) => {}
            Numbers::Others(numbers) => numbers.retain(|&other| other != number),
        }
        self.as_slice().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever comes and goes, it is the list that it stands for.
    #[test]
    fn equals_a_list() {
        let (mut numbers, mut list) = (Numbers::default(), Vec::new());
        for (is_new, number) in
            [(true, 1), (true, 2), (false, 1), (false, 3), (false, 2), (true, 4), (false, 4)]
                .into_iter()
                .chain([(true, 5), (false, 6), (true, 7), (true, 8), (false, 7)])
        {
            let number = SaNumber(number);
            if is_new {
                numbers.push(number);
                list.push(number);
            } else {
                list.retain(|&other| other != number);
                assert_eq!(numbers.remove(number), list.is_empty());
            }
            assert_eq!(numbers.as_slice(), list);
        }
    }
}
