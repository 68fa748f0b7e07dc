//! Selectors of XFRM as selectors of the engine, for the packets that the kernel's
//! `xfrm_selector_match` admits.
//!
//! - Prefixes count as far as their lengths go; bits behind are ignored.
//! - Ports are compared under a mask. Values under a mask are ranges, one for each combination of
//!   bits that are 0 in the mask above one that is 1; there may be [`RANGES_MAX`]. What needs more
//!   is refused.
//! - The kernel has the type of ICMP and of mobility headers in place of the source port, the code
//!   of ICMP in place of the destination port. Since a range of the engine is one of type and code
//!   together, a selector may become several; a packet is admitted if one of them does.
//! - Protocols without ports have ports 0 in the kernel: they are admitted if that fits, and no
//!   packet is otherwise. The ports of GRE are its key there, which the engine does not look at;
//!   nor does it know ports of no protocol in particular. Both are refused.
//! - Fragments but the first have ports 0 in the kernel. They are admitted if that fits. A first
//!   fragment shows its ports here, and has ports 0 in the kernel as well.
//! - An interface is refused: the engine could only ignore it, and would admit too much. The user
//!   is ignored, as by the kernel.
//! - A selector of no family, which an SA may have, admits both, and has no prefixes.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use culvert_spd::AddressSelector;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::UpperSelector;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Port;
use culvert_xfrm::selector::Selector as XfrmSelector;
use ipnet::IpNet;
use thiserror::Error;

/// Most ranges, of ports or of types, that a selector may need.
pub const RANGES_MAX: usize = 256;

/// Protocols whose ports the kernel and the engine look at: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// ICMP of IPv4 and of IPv6.
const ICMP: [u8; 2] = [1, 58];
/// The mobility header of IPv6.
const MOBILITY: u8 = 135;
/// Generic routing encapsulation.
const GRE: u8 = 47;

/// Why the engine has no such selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// Neither IPv4 nor IPv6, or a prefix of no family.
    #[error("xfrm_selector.family: expected AF_INET, AF_INET6, or no prefixes")]
    Family,
    /// A prefix has more bits than an address.
    #[error("xfrm_selector.prefixlen: expected at most the bits of an address")]
    Prefix,
    /// It is bound to an interface.
    #[error("xfrm_selector.ifindex: policies for one interface are not supported")]
    Interface,
    /// Ports, and no protocol to have them.
    #[error("xfrm_selector.proto: ports of any protocol are not supported")]
    Protocol,
    /// The key of GRE.
    #[error("xfrm_selector.sport: keys of GRE are not supported")]
    Key,
    /// The masks ask for too many ranges.
    #[error("xfrm_selector.sport_mask: masks of more than 256 ranges are not supported")]
    Ranges,
}

impl Unsupported {
    /// What to answer.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Unsupported::Family | Unsupported::Prefix => Errno::EINVAL,
            _ => Errno::EOPNOTSUPP,
        }
    }
}

/// The selectors that together admit what `selector` does. None admit nothing.
///
/// # Errors
/// [`Unsupported`]: it is no selector, or the engine has none that admits the same.
pub fn convert(selector: &XfrmSelector) -> Result<Vec<Selector>, Unsupported> {
    if selector.ifindex != 0 {
        return Err(Unsupported::Interface);
    }
    let source = network(selector.saddr, selector.prefixlen_s, selector.family)?;
    let destination = network(selector.daddr, selector.prefixlen_d, selector.family)?;
    let protocol = Some(selector.proto).filter(|protocol| *protocol != 0);
    let (uppers, fragments_too) = uppers(selector)?;
    let whole = |upper| {
        Selector::new(source.clone(), destination.clone(), protocol, upper)
            .expect("one family, and ranges of a protocol that has them")
            .with_fragments_too(fragments_too)
    };
    Ok(uppers.into_iter().map(whole).collect())
}

fn network(address: Address, bits: u8, family: Family) -> Result<AddressSelector, Unsupported> {
    if family == Family::UNSPEC {
        return if bits == 0 { Ok(AddressSelector::Any) } else { Err(Unsupported::Family) };
    }
    let address: IpAddr = address.ip(family).ok_or(Unsupported::Family)?;
    let net = IpNet::new(address, bits).map_err(|_| Unsupported::Prefix)?;
    Ok(net.into())
}

/// What is asked of the layer above IP, one of which must agree; and whether fragments do.
fn uppers(selector: &XfrmSelector) -> Result<(Vec<UpperSelector>, bool), Unsupported> {
    let source = Masked::new(selector.sport, selector.sport_mask);
    let destination = Masked::new(selector.dport, selector.dport_mask);
    let fragments_too = source.admits(0) && destination.admits(0);
    if source.mask == 0 && destination.mask == 0 {
        return Ok((vec![UpperSelector::Any], false));
    }
    let uppers = match selector.proto {
        0 => return Err(Unsupported::Protocol),
        GRE => return Err(Unsupported::Key),
        protocol if WITH_PORTS.contains(&protocol) => {
            let source = source.ports()?;
            vec![UpperSelector::Ports { source, destination: destination.ports()? }]
        }
        protocol if ICMP.contains(&protocol) => icmp(source, destination)?,
        // Its other port is 0.
        MOBILITY if destination.admits(0) => {
            source.octets()?.into_iter().map(UpperSelector::Mobility).collect()
        }
        MOBILITY => Vec::new(),
        _ if fragments_too => return Ok((vec![UpperSelector::Any], false)),
        _ => Vec::new(),
    };
    Ok((uppers, fragments_too))
}

/// Types and codes: ranges of types with all codes, or of codes for each type.
fn icmp(kind: Masked, code: Masked) -> Result<Vec<UpperSelector>, Unsupported> {
    let codes = code.octets()?;
    let kinds = kind.octets()?;
    if codes == [0..=u8::MAX] {
        let whole = |kinds: RangeInclusive<u8>| {
            UpperSelector::icmp((*kinds.start(), 0), (*kinds.end(), u8::MAX))
        };
        return Ok(kinds.into_iter().map(whole).collect());
    }
    let kinds: Vec<u8> = kinds.into_iter().flatten().collect();
    if kinds.len() * codes.len() > RANGES_MAX {
        return Err(Unsupported::Ranges);
    }
    let each = |kind: u8| {
        let range = move |codes: &RangeInclusive<u8>| {
            UpperSelector::icmp((kind, *codes.start()), (kind, *codes.end()))
        };
        codes.iter().map(range)
    };
    Ok(kinds.into_iter().flat_map(each).collect())
}

/// Numbers whose bits under a mask are given.
#[derive(Clone, Copy, Debug)]
struct Masked {
    value: u16,
    mask: u16,
}

impl Masked {
    fn new(value: Port, mask: Port) -> Masked {
        Masked { value: value.0 & mask.0, mask: mask.0 }
    }

    fn admits(self, number: u16) -> bool {
        number & self.mask == self.value
    }

    /// The fewest ranges that hold the numbers, in order.
    fn ranges(self) -> Result<Vec<RangeInclusive<u16>>, Unsupported> {
        // The bits below the lowest that counts make up a range, and those above it its place.
        let low = self.mask.trailing_zeros().min(16);
        let last = u16::try_from((1u32 << low) - 1).expect("at most 16 bits");
        let free = !self.mask & !last;
        let combinations = 1usize << free.count_ones();
        if combinations > RANGES_MAX {
            return Err(Unsupported::Ranges);
        }
        let mut ranges = Vec::with_capacity(combinations);
        let mut above = 0u16;
        loop {
            let start = self.value | above;
            ranges.push(start..=start | last);
            if above == free {
                return Ok(ranges);
            }
            // The next combination of the free bits, in their order as numbers.
            above = (above | !free).wrapping_add(1) & free;
        }
    }

    fn ports(self) -> Result<PortSelector, Unsupported> {
        if self.mask == 0 {
            return Ok(PortSelector::Any);
        }
        Ok(PortSelector::Ranges(self.ranges()?))
    }

    /// The same of numbers of eight bits.
    fn octets(self) -> Result<Vec<RangeInclusive<u8>>, Unsupported> {
        if self.value > u16::from(u8::MAX) {
            return Ok(Vec::new());
        }
        // The bits above are 0, so they may as well count.
        let ranges = Masked { mask: self.mask | 0xff00, ..self }.ranges()?;
        let octet = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(ranges.into_iter().map(|range| octet(*range.start())..=octet(*range.end())).collect())
    }
}

#[cfg(test)]
mod tests;
