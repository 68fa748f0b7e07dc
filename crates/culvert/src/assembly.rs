//! From a configuration to what the engine and control are made of.

use std::net::IpAddr;

use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::Side;
use culvert_esp::Encapsulation;
use culvert_esp::Spi;
use culvert_esp::spi::ReservedSpi;
use culvert_spd::Action;
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

/// The ports of a configuration: protected ones first.
#[must_use]
pub fn ports(config: &Config) -> Vec<PortName> {
    let on = |side| move |name: &String| PortName { interface: name.clone(), side };
    let protected = config.interfaces.protected.iter().map(on(Side::Protected));
    let unprotected = config.interfaces.unprotected.iter().map(on(Side::Unprotected));
    protected.chain(unprotected).collect()
}

/// The SAs of a configuration, in its order. Each is a group of its own.
///
/// # Errors
/// For a reserved SPI, which a parsed configuration does not have.
pub fn sas(config: &Config) -> Result<Vec<SaSpec>, ReservedSpi> {
    config.sas.iter().enumerate().map(|(index, sa)| spec(index, sa)).collect()
}

fn spec(index: usize, sa: &config::Sa) -> Result<SaSpec, ReservedSpi> {
    Ok(SaSpec {
        direction: direction(sa.direction),
        spi: Spi::new(sa.spi)?,
        source: sa.source,
        destination: sa.destination,
        algorithm: sa.algorithm,
        keymat: sa.keymat.clone(),
        esn: sa.esn,
        sequence: sa.sequence,
        replay_window: sa.replay_window,
        encapsulation: sa.encapsulation.map(|ports| Encapsulation {
            source_port: ports.source_port,
            destination_port: ports.destination_port,
        }),
        group: group(index),
    })
}

fn direction(direction: config::Direction) -> Direction {
    match direction {
        config::Direction::Inbound => Direction::Inbound,
        config::Direction::Outbound => Direction::Outbound,
    }
}

fn group(sa: usize) -> Group {
    Group(u32::try_from(sa).expect("fewer SAs than 2^32"))
}

/// The policies of a configuration.
#[must_use]
pub fn spd(config: &Config) -> Spd {
    let mut spd = Spd::default();
    for policy in &config.policies {
        let action = match policy.action {
            config::Action::Protect { sa } => Action::Protect(group(sa)),
            config::Action::Bypass => Action::Bypass,
            config::Action::Discard => Action::Discard,
        };
        let selector = Selector { source: policy.source, destination: policy.destination };
        let list = match policy.direction {
            config::Direction::Inbound => &mut spd.inbound,
            config::Direction::Outbound => &mut spd.outbound,
        };
        list.push(Policy { selector, action });
    }
    spd
}

/// The destinations that the XDP program takes from the protected side: those of every outbound
/// policy that does not say BYPASS. Whatever goes there meets the policies in order.
#[must_use]
pub fn protected_prefixes(spd: &Spd) -> Vec<(IpAddr, u8)> {
    let taken = spd.outbound.iter().filter(|policy| policy.action != Action::Bypass);
    let mut prefixes: Vec<(IpAddr, u8)> = taken
        .map(|policy| policy.selector.destination)
        .map(|destination| (destination.network(), destination.prefix_len()))
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// Inbound SAs that no inbound policy names: nothing will come out of them.
#[must_use]
pub fn mute_sas(config: &Config) -> Vec<&config::Sa> {
    let named = |index: usize| {
        config.policies.iter().any(|policy| policy.action == config::Action::Protect { sa: index })
    };
    let inbound = |sa: &config::Sa| sa.direction == config::Direction::Inbound;
    let all = config.sas.iter().enumerate();
    all.filter(|&(index, sa)| inbound(sa) && !named(index)).map(|(_, sa)| sa).collect()
}
