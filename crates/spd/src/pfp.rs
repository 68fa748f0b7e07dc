//! "Populate from packet" (RFC 4301 section 4.4.1.2): parts of an SA's selector that come from the
//! packet which asked for the SA, and not from the policy. So each host, or each connection, that a
//! policy admits can have an SA of its own.

use culvert_wire::ip;

use crate::Flow;
use crate::Selector;
use crate::Upper;
use crate::address::AddressRange;
use crate::address::AddressSelector;
use crate::upper::PortSelector;
use crate::upper::UpperSelector;

/// Which parts of an SA's selector come from the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pfp {
    /// The source address.
    pub source: bool,
    /// The destination address.
    pub destination: bool,
    /// The next layer protocol.
    pub protocol: bool,
    /// The source port; or type and code of ICMP, or the type of a mobility header.
    pub source_port: bool,
    /// The destination port; or type and code of ICMP, or the type of a mobility header.
    pub destination_port: bool,
}

impl Pfp {
    /// Nothing comes from the packet.
    pub const NONE: Pfp = Pfp {
        source: false,
        destination: false,
        protocol: false,
        source_port: false,
        destination_port: false,
    };

    /// True when no part but addresses comes from the packet.
    #[must_use]
    pub fn is_address_only(self) -> bool {
        !self.protocol && !self.takes_ports()
    }

    /// True when ports, an ICMP or a mobility type come from the packet.
    #[must_use]
    pub fn takes_ports(self) -> bool {
        self.source_port || self.destination_port
    }
}

impl Selector {
    /// The selector of the SA that `flow` asks for, a packet of a policy with this selector: parts
    /// with a flag are the packet's, the others are the policy's (RFC 4301 section 4.4.1.2).
    ///
    /// A port means nothing without its protocol, so a flag on a port also takes the protocol.
    /// `None`, which means DISCARD, when a flag asks for what the packet does not show, or when the
    /// selector does not admit the packet at all.
    #[must_use]
    pub fn narrowed(&self, pfp: Pfp, flow: &Flow) -> Option<Selector> {
        if !self.matches(flow) {
            return None;
        }
        let is_v4 = flow.addresses.is_v4;
        let addresses = |flag, address, policy: &AddressSelector| {
            let one = AddressRange { is_v4, start: address, end: address };
            if flag { AddressSelector::from(one) } else { policy.clone() }
        };
        let takes_protocol = pfp.protocol || pfp.takes_ports() || self.protocol.is_some();
        Some(Selector {
            source: addresses(pfp.source, flow.addresses.source, &self.source),
            destination: addresses(pfp.destination, flow.addresses.destination, &self.destination),
            protocol: takes_protocol.then_some(flow.protocol),
            upper: if pfp.takes_ports() {
                self.narrowed_upper(pfp, flow)?
            } else {
                self.upper.clone()
            },
            fragments_too: self.fragments_too,
        })
    }

    /// What remains above IP when at least one flag on a port is set.
    fn narrowed_upper(&self, pfp: Pfp, flow: &Flow) -> Option<UpperSelector> {
        match (flow.upper, &self.upper) {
            // OPAQUE is what this packet has: there is nothing narrower.
            (Upper::Opaque, UpperSelector::Opaque) => Some(UpperSelector::Opaque),
            (Upper::Opaque, _) => None,
            (Upper::None, _) if flow.protocol == ip::PROTOCOL_TCP => None,
            (Upper::None, upper) => Some(upper.clone()),
            (Upper::Icmp(number), _) => Some(UpperSelector::Icmp(number..=number)),
            (Upper::Mobility(number), _) => Some(UpperSelector::Mobility(number..=number)),
            (Upper::Ports { source, destination }, upper) => {
                let (from, to) = match upper {
                    UpperSelector::Ports { source, destination } => (source, destination),
                    _ => (&PortSelector::Any, &PortSelector::Any),
                };
                let port = |flag, port: u16, policy: &PortSelector| {
                    if flag { PortSelector::from(port) } else { policy.clone() }
                };
                Some(UpperSelector::Ports {
                    source: port(pfp.source_port, source, from),
                    destination: port(pfp.destination_port, destination, to),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use culvert_wire::ip::Addresses;

    use super::*;

    fn selector(protocol: Option<u8>, upper: UpperSelector) -> Selector {
        let net = |text: &str| AddressSelector::from(text.parse::<AddressRange>().unwrap());
        Selector::new(net("10.1.0.0/16"), net("10.2.0.0/16"), protocol, upper).unwrap()
    }

    fn flow(protocol: u8, upper: Upper) -> Flow {
        let addresses = Addresses { is_v4: true, source: 0x0a01_0005, destination: 0x0a02_0007 };
        Flow { addresses, protocol, upper }
    }

    fn tcp() -> Flow {
        flow(6, Upper::Ports { source: 40_000, destination: 80 })
    }

    fn texts(addresses: &AddressSelector) -> Vec<String> {
        addresses.prefixes().iter().map(ToString::to_string).collect()
    }

    fn ports(source: PortSelector, destination: PortSelector) -> UpperSelector {
        UpperSelector::Ports { source, destination }
    }

    const ALL: Pfp = Pfp {
        source: true,
        destination: true,
        protocol: true,
        source_port: true,
        destination_port: true,
    };

    /// P07: without flags the SA has the selector of the policy.
    #[test]
    fn no_flags_change_nothing() {
        let policy = selector(Some(6), ports(PortSelector::Any, (80..=90).into()));
        assert_eq!(policy.narrowed(Pfp::NONE, &tcp()), Some(policy.clone()));
        let fragments = policy.with_fragments_too(true);
        let opaque = flow(6, Upper::Opaque);
        assert_eq!(fragments.narrowed(Pfp::NONE, &opaque), Some(fragments.clone()));
    }

    /// P07: each flag takes its own part from the packet and leaves the others to the policy.
    #[test]
    fn each_flag_takes_its_part() {
        let policy = selector(Some(6), ports((1024..=65535).into(), (80..=90).into()));
        let narrowed = |pfp| policy.narrowed(pfp, &tcp()).unwrap();
        let source = narrowed(Pfp { source: true, ..Pfp::NONE });
        assert_eq!(texts(source.source()), ["10.1.0.5/32"]);
        assert_eq!(source.destination(), policy.destination());
        assert_eq!(source.upper(), policy.upper());
        let destination = narrowed(Pfp { destination: true, ..Pfp::NONE });
        assert_eq!(texts(destination.destination()), ["10.2.0.7/32"]);
        assert_eq!(destination.source(), policy.source());
        let from = narrowed(Pfp { source_port: true, ..Pfp::NONE });
        assert_eq!(from.upper(), &ports(40_000.into(), (80..=90).into()));
        let to = narrowed(Pfp { destination_port: true, ..Pfp::NONE });
        assert_eq!(to.upper(), &ports((1024..=65535).into(), 80.into()));
        assert_eq!((to.source(), to.destination()), (policy.source(), policy.destination()));
        let protocol = selector(None, UpperSelector::Any);
        let protocol = protocol.narrowed(Pfp { protocol: true, ..Pfp::NONE }, &tcp()).unwrap();
        assert_eq!((protocol.protocol(), protocol.upper()), (Some(6), &UpperSelector::Any));
    }

    /// P07: with all flags the SA is for this connection, and a port takes its protocol with it.
    #[test]
    fn all_flags_make_a_connection() {
        let policy = selector(None, UpperSelector::Any);
        let ports_only = Pfp { source_port: true, destination_port: true, ..Pfp::NONE };
        for pfp in [ALL, ports_only] {
            let narrowed = policy.narrowed(pfp, &tcp()).unwrap();
            assert_eq!(narrowed.protocol(), Some(6));
            assert_eq!(narrowed.upper(), &ports(40_000.into(), 80.into()));
            assert!(narrowed.matches(&tcp()));
            let other = Flow { upper: Upper::Ports { source: 40_000, destination: 81 }, ..tcp() };
            assert!(!narrowed.matches(&other));
        }
    }

    /// P07: ICMP and mobility types are taken by either flag on a port; without one, nothing is.
    #[test]
    fn types_are_taken_as_ports_are() {
        let policy = selector(None, UpperSelector::Any);
        for pfp in
            [Pfp { source_port: true, ..Pfp::NONE }, Pfp { destination_port: true, ..Pfp::NONE }]
        {
            let upper = |flow| policy.narrowed(pfp, &flow).unwrap().upper().clone();
            let echo = flow(1, Upper::Icmp(0x0800));
            assert_eq!(upper(echo), UpperSelector::icmp((8, 0), (8, 0)));
            assert_eq!(upper(flow(135, Upper::Mobility(5))), UpperSelector::Mobility(5..=5));
            assert_eq!(upper(flow(50, Upper::None)), UpperSelector::Any);
        }
    }

    /// P07, P08: a flag that asks for ports which the packet does not show means DISCARD, and so
    /// does a packet that is not of the policy; OPAQUE stays OPAQUE.
    #[test]
    fn what_is_not_shown_cannot_be_taken() {
        let fragment = flow(6, Upper::Opaque);
        let any = selector(Some(6), UpperSelector::Any);
        assert_eq!(any.narrowed(ALL, &fragment), None);
        assert_eq!(any.narrowed(ALL, &flow(6, Upper::None)), None, "TCP without its ports");
        let too = selector(Some(6), ports(PortSelector::Any, 80.into())).with_fragments_too(true);
        assert_eq!(too.narrowed(ALL, &fragment), None);
        let opaque = selector(Some(6), UpperSelector::Opaque);
        assert_eq!(opaque.narrowed(ALL, &fragment).unwrap().upper(), &UpperSelector::Opaque);
        assert_eq!(opaque.narrowed(ALL, &tcp()), None);
    }
}
