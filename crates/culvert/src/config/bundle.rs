//! SA bundles: several SAs around one packet, in the order that a policy lists, innermost first
//! (RFC 2401 section 4.3).

use culvert_engine::tables::BUNDLE_MAX;
use culvert_esp::Mode;

use super::error::ConfigError;
use super::reader::Section;
use super::sa::Direction;
use super::sa::Sa;

/// What policies said so far about the SAs.
pub(super) struct Bundles<'a> {
    sas: &'a [Sa],
    /// For each inbound SA that a policy named: the line of that policy, and the SA around it.
    around: Vec<Option<(usize, Option<usize>)>>,
}

impl<'a> Bundles<'a> {
    pub(super) fn new(sas: &'a [Sa]) -> Bundles<'a> {
        Bundles { sas, around: vec![None; sas.len()] }
    }

    /// Refuses SAs that cannot be around one packet in this order.
    pub(super) fn check(
        &mut self,
        section: &Section<'_>,
        direction: Direction,
        sas: &[usize],
    ) -> Result<(), ConfigError> {
        if sas.len() > BUNDLE_MAX {
            let found = sas.len();
            let problem =
                format!("expected at most {BUNDLE_MAX} SAs, innermost first, found {found}");
            return Err(section.error("sa", problem));
        }
        for (index, sa) in sas.iter().enumerate() {
            if sas[..index].contains(sa) {
                let twice = self.sas[*sa].label();
                let problem = format!("expected each SA once, found the SA {twice} twice");
                return Err(section.error("sa", problem));
            }
        }
        for pair in sas.windows(2) {
            self.check_pair(section, pair[0], pair[1])?;
        }
        match direction {
            Direction::Inbound => self.check_around(section, sas),
            Direction::Outbound if sas.len() > 1 => self.check_resources(section, sas),
            Direction::Outbound => Ok(()),
        }
    }

    /// Transport mode leaves the addresses as they are, so the SA inside must have made them.
    fn check_pair(
        &self,
        section: &Section<'_>,
        inner: usize,
        outer: usize,
    ) -> Result<(), ConfigError> {
        let (inner, outer) = (&self.sas[inner], &self.sas[outer]);
        let same = (inner.source, inner.destination) == (outer.source, outer.destination);
        if outer.mode == Mode::Transport && !same {
            return Err(section.error(
                "sa",
                format_args!(
                    "expected SAs whose source and destination are those of the SA inside, as \
                     transport mode leaves them, found the SA {} around the SA {}",
                    outer.label(),
                    inner.label(),
                ),
            ));
        }
        Ok(())
    }

    /// An inbound SA is always inside the same one: there it is looked for.
    fn check_around(&mut self, section: &Section<'_>, sas: &[usize]) -> Result<(), ConfigError> {
        for (at, &sa) in sas.iter().enumerate() {
            let around = sas.get(at + 1).copied();
            match self.around[sa] {
                Some((line, other)) if other != around => {
                    return Err(section.error(
                        "sa",
                        format_args!(
                            "expected inbound SAs that are always inside the same one, found the \
                             SA {}, of which the policy of line {line} says otherwise",
                            self.sas[sa].label(),
                        ),
                    ));
                }
                _ => self.around[sa] = Some((section.line(), around)),
            }
        }
        Ok(())
    }

    /// A worker's own SA cannot be told from the shared one inside a bundle.
    fn check_resources(&self, section: &Section<'_>, sas: &[usize]) -> Result<(), ConfigError> {
        for &sa in sas {
            let group = &self.sas[sa].group;
            let own = self.sas.iter().find(|other| {
                other.resource.is_some() && other.group.is_some() && other.group == *group
            });
            if let Some(own) = own {
                return Err(section.error(
                    "sa",
                    format_args!(
                        "expected SAs of all workers in a bundle, found the group of the SA {}, \
                         which is one worker's",
                        own.label(),
                    ),
                ));
            }
        }
        Ok(())
    }
}
