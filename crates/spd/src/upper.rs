//! What a selector asks of the layer above IP (RFC 4301 section 4.4.1.1): ports, the type and code
//! of ICMP, the type of a mobility header.
//!
//! ANY admits everything, also what cannot be seen. A range admits only what the packet shows.
//! OPAQUE admits only what the packet has but does not show, as a non-initial fragment.

use std::ops::RangeInclusive;

use culvert_wire::ip;

use crate::Upper;
use crate::selector::Field;
use crate::selector::SelectorError;

/// Protocols that have two ports: TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [
    ip::PROTOCOL_TCP,
    ip::PROTOCOL_UDP,
    ip::PROTOCOL_DCCP,
    ip::PROTOCOL_SCTP,
    ip::PROTOCOL_UDP_LITE,
];
/// ICMP of IPv4 and of IPv6.
const WITH_TYPE_AND_CODE: [u8; 2] = [ip::PROTOCOL_ICMP, ip::PROTOCOL_ICMPV6];
/// The mobility header of IPv6.
const WITH_MOBILITY_TYPE: [u8; 1] = [ip::PROTOCOL_MOBILITY];

/// Which ports a selector admits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortSelector {
    /// ANY.
    #[default]
    Any,
    /// Those in one of the ranges.
    Ranges(Vec<RangeInclusive<u16>>),
}

/// What a selector asks of the layer above IP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpperSelector {
    /// ANY: whatever it is, shown or not.
    #[default]
    Any,
    /// OPAQUE: the packet has such a field and does not show it.
    Opaque,
    /// Shown ports, both of them.
    Ports {
        /// Source ports.
        source: PortSelector,
        /// Destination ports.
        destination: PortSelector,
    },
    /// Shown ICMP type and code, as the number type * 256 + code.
    Icmp(RangeInclusive<u16>),
    /// Shown type of a mobility header.
    Mobility(RangeInclusive<u8>),
}

impl PortSelector {
    /// True when it admits the port.
    #[inline]
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            PortSelector::Any => true,
            PortSelector::Ranges(ranges) => ranges.iter().any(|range| range.contains(&port)),
        }
    }

    /// Checked, and a range of all ports made ANY, as on the wire of IKE (RFC 7296 section 3.13.1).
    fn checked(self, field: Field) -> Result<PortSelector, SelectorError> {
        let PortSelector::Ranges(ranges) = self else { return Ok(PortSelector::Any) };
        if ranges.is_empty() {
            return Err(SelectorError::Empty { field });
        }
        if ranges.iter().any(RangeInclusive::is_empty) {
            return Err(SelectorError::Inverted { field });
        }
        if ranges.contains(&(0..=u16::MAX)) {
            return Ok(PortSelector::Any);
        }
        Ok(PortSelector::Ranges(ranges))
    }
}

impl From<u16> for PortSelector {
    fn from(port: u16) -> PortSelector {
        PortSelector::Ranges(vec![port..=port])
    }
}

impl From<RangeInclusive<u16>> for PortSelector {
    fn from(ports: RangeInclusive<u16>) -> PortSelector {
        PortSelector::Ranges(vec![ports])
    }
}

impl UpperSelector {
    /// The ICMP messages of types and codes from the pair `start` to the pair `end`, compared as
    /// numbers of 16 bits: (type * 256 + code), RFC 4301 section 4.4.1.1.
    #[must_use]
    pub fn icmp(start: (u8, u8), end: (u8, u8)) -> UpperSelector {
        UpperSelector::Icmp(u16::from_be_bytes(start.into())..=u16::from_be_bytes(end.into()))
    }

    /// True when it admits what the packet shows; `fragments_too`: a range also admits what is
    /// not shown.
    #[inline]
    #[must_use]
    pub(crate) fn matches(&self, upper: Upper, fragments_too: bool) -> bool {
        match (self, upper) {
            (UpperSelector::Any, _) | (UpperSelector::Opaque, Upper::Opaque) => true,
            (UpperSelector::Opaque, _) => false,
            (_, Upper::Opaque) => fragments_too,
            (
                UpperSelector::Ports { source, destination },
                Upper::Ports { source: from, destination: to },
            ) => source.contains(from) && destination.contains(to),
            (UpperSelector::Icmp(range), Upper::Icmp(number)) => range.contains(&number),
            (UpperSelector::Mobility(range), Upper::Mobility(number)) => range.contains(&number),
            _ => false,
        }
    }

    /// Checked against the protocol, and what admits all values made ANY.
    pub(crate) fn checked(self, protocol: Option<u8>) -> Result<UpperSelector, SelectorError> {
        let fits = |of: &[u8], field| match protocol {
            Some(protocol) if of.contains(&protocol) => Ok(()),
            _ => Err(SelectorError::Protocol { field, protocol }),
        };
        match self {
            UpperSelector::Any | UpperSelector::Opaque => Ok(self),
            UpperSelector::Ports { source, destination } => {
                let source = source.checked(Field::SourcePort)?;
                let destination = destination.checked(Field::DestinationPort)?;
                match (&source, &destination) {
                    (PortSelector::Any, PortSelector::Any) => return Ok(UpperSelector::Any),
                    (PortSelector::Any, _) => fits(&WITH_PORTS, Field::DestinationPort)?,
                    _ => fits(&WITH_PORTS, Field::SourcePort)?,
                }
                Ok(UpperSelector::Ports { source, destination })
            }
            UpperSelector::Icmp(range) => {
                check(&range, Field::IcmpType)?;
                fits(&WITH_TYPE_AND_CODE, Field::IcmpType)?;
                let all = range == (0..=u16::MAX);
                Ok(if all { UpperSelector::Any } else { UpperSelector::Icmp(range) })
            }
            UpperSelector::Mobility(range) => {
                check(&range, Field::MobilityType)?;
                fits(&WITH_MOBILITY_TYPE, Field::MobilityType)?;
                let all = range == (0..=u8::MAX);
                Ok(if all { UpperSelector::Any } else { UpperSelector::Mobility(range) })
            }
        }
    }
}

fn check<T: PartialOrd>(range: &RangeInclusive<T>, field: Field) -> Result<(), SelectorError> {
    if range.is_empty() { Err(SelectorError::Inverted { field }) } else { Ok(()) }
}
