//! `[[policy]]`: what happens to which packets, in the order of the file.

use std::collections::BTreeMap;

use culvert_spd::Pfp;
use culvert_spd::Selector;
use culvert_spd::UpperSelector;

use super::bundle::Bundles;
use super::error::ConfigError;
use super::error::shown;
use super::reader::Field;
use super::reader::Section;
use super::sa::DIRECTIONS;
use super::sa::Direction;
use super::sa::Sa;
use super::selector;
use super::selector::Addresses;

/// Keys of `[[policy]]`.
pub(super) const KEYS: [&str; 13] = [
    "direction",
    "source",
    "destination",
    "protocol",
    "source_ports",
    "destination_ports",
    "icmp",
    "mobility",
    "fragments_too",
    "action",
    "sa",
    "acquire",
    "pfp",
];

/// One policy. The first whose selector a packet matches decides (RFC 4301 section 4.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which way the packets go that it is for.
    pub direction: Direction,
    /// Which packets; in a tunnel, the inner ones.
    pub selector: Selector,
    /// What happens to a packet that matches.
    pub action: Action,
    /// Selectors that an SA made for a packet takes from the packet.
    pub pfp: Pfp,
    /// Line of its header in the file.
    pub line: usize,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Outbound: it is sent through the SAs, one after the other. Inbound: it is let out if it
    /// came through them.
    Protect {
        /// Indices into [`Config::sas`](super::Config::sas), innermost first: one, or those of an
        /// SA bundle. Of a group it is the first in the file.
        sas: Vec<usize>,
    },
    /// Outbound: an SA is asked for, and until there is one the packet is dropped.
    Acquire,
    /// It is forwarded as it is.
    Bypass,
    /// It is dropped.
    Discard,
}

/// Reads the policies, and what they say about the order of SAs.
pub(super) fn read(sections: &[Section<'_>], sas: &[Sa]) -> Result<Vec<Policy>, ConfigError> {
    let names = Names::new(sas);
    let mut bundles = Bundles::new(sas);
    let mut policies = Vec::with_capacity(sections.len());
    for section in sections {
        let direction =
            section.required("direction", "\"inbound\" or \"outbound\"")?.word(&DIRECTIONS)?;
        let selectors = selector::read(section, Addresses::Required)?;
        let action = action(section, direction, &names)?;
        if let Action::Protect { sas } = &action {
            bundles.check(section, direction, sas)?;
        }
        if action == Action::Bypass && selectors.iter().any(Selector::fragments_too) {
            return Err(section.error(
                "fragments_too",
                "expected without action = \"bypass\": fragments are not tracked, and in clear \
                 one that hides its ports could be part of a packet that policy protects (RFC \
                 4301 section 7.4)",
            ));
        }
        let pfp = pfp(section, &action, &selectors)?;
        let line = section.line();
        policies.extend(selectors.into_iter().map(|selector| Policy {
            direction,
            selector,
            action: action.clone(),
            pfp,
            line,
        }));
    }
    Ok(policies)
}

/// SAs by the names that policies use: of groups, and of SAs without one.
struct Names<'a> {
    sas: &'a [Sa],
    names: BTreeMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn new(sas: &'a [Sa]) -> Names<'a> {
        let mut names = BTreeMap::new();
        for (index, sa) in sas.iter().enumerate() {
            if let Some(name) = sa.group.as_deref().or(sa.name.as_deref()) {
                names.entry(name).or_insert(index);
            }
        }
        Names { sas, names }
    }

    fn find(
        &self,
        field: &Field<'_>,
        expected: &str,
        direction: Direction,
    ) -> Result<usize, ConfigError> {
        let name = field.text(expected)?;
        let Some(&sa) = self.names.get(name) else {
            let member = self.sas.iter().find(|sa| sa.name.as_deref() == Some(name));
            let group = member.and_then(|sa| sa.group.as_deref());
            return Err(field.error(match group {
                Some(group) => format!(
                    "expected {expected}, found {}, which is in the group {}",
                    shown(name),
                    shown(group),
                ),
                None => format!("expected {expected}, found no SA {}", shown(name)),
            }));
        };
        if self.sas[sa].direction != direction {
            return Err(field.error(format_args!(
                "expected {expected}, found the {} SA {}",
                self.sas[sa].direction,
                self.sas[sa].label(),
            )));
        }
        Ok(sa)
    }
}

/// The word of `action`, before its SA is known.
#[derive(Clone, Copy)]
enum Verb {
    Protect,
    Bypass,
    Discard,
}

fn action(
    section: &Section<'_>,
    direction: Direction,
    names: &Names<'_>,
) -> Result<Action, ConfigError> {
    const VERBS: [(&str, Verb); 3] =
        [("protect", Verb::Protect), ("bypass", Verb::Bypass), ("discard", Verb::Discard)];
    let verb =
        section.required("action", "\"protect\", \"bypass\" or \"discard\"")?.word(&VERBS)?;
    let unused = match verb {
        Verb::Protect => return protect(section, direction, names),
        Verb::Bypass => Action::Bypass,
        Verb::Discard => Action::Discard,
    };
    section.refuse(&["sa"], "expected no SA but for action = \"protect\"")?;
    section.refuse(&["acquire"], "expected with action = \"protect\" only")?;
    Ok(unused)
}

fn protect(
    section: &Section<'_>,
    direction: Direction,
    names: &Names<'_>,
) -> Result<Action, ConfigError> {
    let acquire = section.optional("acquire");
    if acquire.map_or(Ok(false), |field| field.flag())? {
        section.refuse(&["sa"], "expected no SA with acquire = true, which asks for one")?;
        if direction == Direction::Inbound {
            return Err(section.error("acquire", "expected in outbound policies only"));
        }
        return Ok(Action::Acquire);
    }
    let expected = format!("the name of an {direction} SA for action = \"protect\"");
    let fields = section.required("sa", &expected)?.one_or_list(&expected)?;
    let sas = fields.iter().map(|field| names.find(field, &expected, direction));
    let sas = sas.collect::<Result<Vec<usize>, ConfigError>>()?;
    Ok(Action::Protect { sas })
}

/// Selectors from the packet are for SAs that are asked for; those of the file have theirs.
fn pfp(section: &Section<'_>, action: &Action, selectors: &[Selector]) -> Result<Pfp, ConfigError> {
    const WORDS: [(&str, usize); 5] = [
        ("source", 0),
        ("destination", 1),
        ("protocol", 2),
        ("source_port", 3),
        ("destination_port", 4),
    ];
    let Some(field) = section.optional("pfp") else {
        return Ok(Pfp::NONE);
    };
    if *action != Action::Acquire {
        return Err(field.error(
            "expected with acquire = true only: SAs of the file have their selectors already (RFC \
             4301 section 4.4.1.2)",
        ));
    }
    let mut chosen = [false; WORDS.len()];
    let hides_protocol = selectors.iter().any(selector::hides_protocol);
    let hides_ports = selectors.iter().any(|one| *one.upper() == UpperSelector::Opaque);
    let hidden = [false, false, hides_protocol, hides_ports, hides_ports];
    for field in field.list("a list such as [\"source\", \"destination\"]")? {
        let word = field.word(&WORDS)?;
        if hidden[word] {
            return Err(field.error(
                "expected what packets show: they cannot be asked for what the policy says is \
                 opaque (RFC 4301 section 4.4.2.2)",
            ));
        }
        chosen[word] = true;
    }
    let [source, destination, protocol, source_port, destination_port] = chosen;
    Ok(Pfp { source, destination, protocol, source_port, destination_port })
}
