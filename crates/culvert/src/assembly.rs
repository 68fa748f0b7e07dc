//! From a configuration to what the engine and control are made of.
//!
//! *Groups.* Policies name groups of SAs. An SA without `group` in the file is one of its own, SAs
//! with the same `group` are one together; its number is the place of its first SA in the file.
//! Behind those come the groups of outbound bundles, one for each distinct list, and then one for
//! each policy that asks for an SA. An inbound bundle needs no group: the group of its innermost SA
//! is what policies name, and each SA knows which one is around it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;

use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::Options;
use culvert_engine::Side;
use culvert_engine::options::Receiving;
use culvert_esp::Mode;
use culvert_esp::Spi;
use culvert_esp::spi::ReservedSpi;
use culvert_spd::Action;
use culvert_spd::AddressRange;
use culvert_spd::AddressSelector;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;

use crate::config;
use crate::config::Config;

/// An interface and the side it lies on; its index is the port number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// Name of the interface.
    pub interface: String,
    /// Its side.
    pub side: Side,
}

/// An address and the number of its bits that count.
pub type Prefix = (IpAddr, u8);

/// The ports of a configuration: protected ones first.
#[must_use]
pub fn ports(config: &Config) -> Vec<PortName> {
    let on = |side| move |name: &String| PortName { interface: name.clone(), side };
    let protected = config.interfaces.protected.iter().map(on(Side::Protected));
    let unprotected = config.interfaces.unprotected.iter().map(on(Side::Unprotected));
    protected.chain(unprotected).collect()
}

/// What the gateway does beyond its SAs; how many workers it has is for others to say.
#[must_use]
pub fn options(config: &Config) -> Options {
    let (icmp, audit, notices) = (config.icmp, config.audit, config.notices);
    Options { icmp, audit, notices, ..Options::default() }
}

/// The SAs of a configuration, in its order.
///
/// # Errors
/// For a reserved SPI, which a parsed configuration does not have.
pub fn sas(config: &Config) -> Result<Vec<SaSpec>, ReservedSpi> {
    let plan = Plan::new(config);
    config.sas.iter().enumerate().map(|(index, sa)| spec(&plan, index, sa)).collect()
}

fn spec(plan: &Plan, index: usize, sa: &config::Sa) -> Result<SaSpec, ReservedSpi> {
    let (spi, addresses) = (Spi::new(sa.spi)?, (sa.source, sa.destination));
    let key = (sa.algorithm, sa.keymat.clone());
    Ok(SaSpec {
        mode: sa.mode,
        esn: sa.esn,
        sequence: sa.sequence,
        replay_window: sa.replay_window,
        encapsulation: sa.encapsulation,
        lifetime: sa.lifetime,
        resource: sa.resource,
        lookup: sa.lookup,
        selectors: sa.selectors.clone(),
        receiving: Receiving { within: plan.within(index), ..sa.receiving.clone() },
        sending: sa.sending,
        header: sa.header.clone(),
        ..SaSpec::new(sa.direction, spi, addresses, key, plan.groups[index])
    })
}

fn numbered(group: usize) -> Group {
    Group(u32::try_from(group).expect("fewer SAs and policies than 2^32"))
}

/// An outbound bundle: the group that policies name, and the groups of its SAs, innermost first.
pub type Bundle = (Group, Vec<Group>);

/// What SAs and policies mean to one another.
struct Plan {
    /// The group of each SA.
    groups: Vec<Group>,
    /// The group around the SAs of an inbound group.
    around: HashMap<Group, Group>,
    /// The groups of outbound bundles, by their parts.
    bundles: BTreeMap<Vec<Group>, Group>,
}

impl Plan {
    fn new(config: &Config) -> Plan {
        let mut first = HashMap::new();
        let group = |(index, sa): (usize, &config::Sa)| match &sa.group {
            Some(name) => *first.entry(name.clone()).or_insert(numbered(index)),
            None => numbered(index),
        };
        let groups = config.sas.iter().enumerate().map(group).collect();
        let mut plan = Plan { groups, around: HashMap::new(), bundles: BTreeMap::new() };
        for policy in &config.policies {
            let config::Action::Protect { sas } = &policy.action else { continue };
            let parts = plan.parts(sas);
            match policy.direction {
                Direction::Inbound => {
                    let pairs = parts.windows(2).map(|pair| (pair[0], pair[1]));
                    plan.around.extend(pairs);
                }
                Direction::Outbound if parts.len() > 1 => {
                    let next = numbered(config.sas.len() + plan.bundles.len());
                    plan.bundles.entry(parts).or_insert(next);
                }
                Direction::Outbound => {}
            }
        }
        plan
    }

    /// The groups of SAs.
    fn parts(&self, sas: &[usize]) -> Vec<Group> {
        sas.iter().map(|&sa| self.groups[sa]).collect()
    }

    /// The group around an SA.
    fn within(&self, sa: usize) -> Option<Group> {
        self.around.get(&self.groups[sa]).copied()
    }

    /// The group that a policy with these SAs names: that of the bundle, or of the innermost SA.
    fn named(&self, sas: &[usize]) -> Group {
        match sas {
            [sa] => self.groups[*sa],
            sas => {
                let parts = self.parts(sas);
                self.bundles.get(&parts).copied().unwrap_or(parts[0])
            }
        }
    }
}

/// What a log says of an SA beside its SPI.
#[derive(Clone, Debug, Default)]
pub struct SaWords {
    /// Its name in the file.
    pub name: Option<String>,
    /// What may come out of an inbound SA: its own selectors, or else those of the policies that
    /// name its group.
    pub admitted: Vec<Selector>,
}

/// What a log says of the SAs, in their order.
#[must_use]
pub fn words(config: &Config) -> Vec<SaWords> {
    let plan = Plan::new(config);
    let mut of_group: HashMap<Group, Vec<Selector>> = HashMap::new();
    for policy in &config.policies {
        if let (Direction::Inbound, config::Action::Protect { sas }) =
            (policy.direction, &policy.action)
        {
            of_group.entry(plan.named(sas)).or_default().push(policy.selector.clone());
        }
    }
    let words = |(sa, group): (&config::Sa, &Group)| SaWords {
        name: sa.name.clone(),
        admitted: match sa.selectors.as_slice() {
            [] => of_group.get(group).cloned().unwrap_or_default(),
            selectors => selectors.to_vec(),
        },
    };
    config.sas.iter().zip(&plan.groups).map(words).collect()
}

/// The outbound SA bundles of a configuration, each once.
#[must_use]
pub fn bundles(config: &Config) -> Vec<Bundle> {
    let plan = Plan::new(config);
    plan.bundles.into_iter().map(|(parts, group)| (group, parts)).collect()
}

/// The policies of a configuration.
#[must_use]
pub fn spd(config: &Config) -> Spd {
    let plan = Plan::new(config);
    let mut free = config.sas.len() + plan.bundles.len();
    let mut spd = Spd { default: config.default, ..Spd::default() };
    for policy in &config.policies {
        let action = match &policy.action {
            config::Action::Protect { sas } => Action::Protect(plan.named(sas)),
            config::Action::Acquire => {
                free += 1;
                Action::Protect(numbered(free - 1))
            }
            config::Action::Bypass => Action::Bypass,
            config::Action::Discard => Action::Discard,
        };
        let list = match policy.direction {
            Direction::Inbound => &mut spd.inbound,
            Direction::Outbound => &mut spd.outbound,
        };
        list.push(Policy { selector: policy.selector.clone(), action, pfp: policy.pfp });
    }
    spd
}

/// The destinations that the XDP program takes from the protected side: those of every outbound
/// policy that does not say BYPASS. Whatever goes there meets the policies in order.
#[must_use]
pub fn protected_prefixes(spd: &Spd) -> Vec<Prefix> {
    destinations(&spd.outbound)
}

/// The destinations that the XDP program takes from the unprotected side when packets come in
/// clear: those of every inbound policy that does not say BYPASS.
#[must_use]
pub fn unprotected_prefixes(spd: &Spd) -> Vec<Prefix> {
    destinations(&spd.inbound)
}

fn destinations(policies: &[Policy]) -> Vec<Prefix> {
    let taken = policies.iter().filter(|policy| policy.action != Action::Bypass);
    let mut prefixes: Vec<Prefix> = taken
        .flat_map(|policy| prefixes(&policy.selector))
        .map(|destination| (destination.network(), destination.prefix_len()))
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// The prefixes of a selector's destinations: of its family only, where its source says which.
fn prefixes(selector: &Selector) -> impl Iterator<Item = ipnet::IpNet> {
    let family = match selector.source() {
        AddressSelector::Any => None,
        AddressSelector::Ranges(ranges) => ranges.first().map(AddressRange::is_v4),
    };
    let all = selector.destination().prefixes().into_iter();
    all.filter(move |net| family.is_none_or(|is_v4| net.addr().is_ipv4() == is_v4))
}

/// The addresses at which the SAs say that the gateway is: the near ends of their tunnels.
#[must_use]
pub fn own_addresses(sas: &[SaSpec]) -> Vec<IpAddr> {
    let tunnels = sas.iter().filter(|sa| sa.mode == Mode::Tunnel);
    let mut own: Vec<IpAddr> = tunnels
        .map(|sa| match sa.direction {
            Direction::Inbound => sa.destination,
            Direction::Outbound => sa.source,
        })
        .filter(|address| !address.is_multicast())
        .collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// Inbound SAs that no inbound policy names: nothing will come out of them.
#[must_use]
pub fn mute_sas(config: &Config) -> Vec<&config::Sa> {
    let plan = Plan::new(config);
    let mut named = HashSet::new();
    for policy in &config.policies {
        if let config::Action::Protect { sas } = &policy.action {
            named.extend(plan.parts(sas));
        }
    }
    let inbound = |sa: &config::Sa| sa.direction == Direction::Inbound;
    let all = config.sas.iter().zip(&plan.groups);
    all.filter(|(sa, group)| inbound(sa) && !named.contains(group)).map(|(sa, _)| sa).collect()
}

#[cfg(test)]
mod tests;
