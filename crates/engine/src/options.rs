//! How an SA treats packets, beyond cryptography and numbers.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_esp::ecn::DscpPolicy;
use culvert_esp::tfc::TfcPadding;
use culvert_esp::trailer::PaddingCheck;
use culvert_spd::Group;

use crate::fate::DropReasons;

/// Which outer addresses take part in finding an inbound SA (RFC 4301 section 4.1): the longest
/// match wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lookup {
    /// The SPI alone: the peer's packets are accepted at whatever address they arrive.
    Spi,
    /// SPI and destination.
    #[default]
    SpiDestination,
    /// SPI, destination and source: source-specific multicast.
    SpiDestinationSource,
}

/// How an inbound SA treats what comes out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiving {
    /// The group of the SA that must have been applied just before: its place in a bundle.
    pub within: Option<Group>,
    /// How the padding is looked at (RFC 4303 section 2.4).
    pub padding: PaddingCheck,
    /// Where the DSCP of a packet from a tunnel comes from (RFC 4301 section 5.1.2.1).
    pub dscp: DscpPolicy,
    /// Whether an ICMP error that no policy names is admitted if what would answer the packet it
    /// encloses is (RFC 4301 section 6.2).
    pub enclosed_errors: bool,
    /// In transport mode through NAT: the source and destination addresses the sender computed
    /// checksums with (RFC 3948 section 3.1.2).
    pub original: Option<(IpAddr, IpAddr)>,
}

impl Default for Receiving {
    fn default() -> Receiving {
        Receiving {
            within: None,
            padding: PaddingCheck::Strict,
            dscp: DscpPolicy::default(),
            enclosed_errors: true,
            original: None,
        }
    }
}

/// How an outbound SA treats what goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Traffic flow confidentiality padding (RFC 4303 section 2.7); tunnel mode only.
    pub tfc: TfcPadding,
    /// Nanoseconds between dummy packets (RFC 4303 section 2.6).
    pub dummy_interval: Option<u64>,
    /// Nanoseconds without a packet after which a NAT keepalive is sent (RFC 3948 section 4).
    pub keepalive: Option<u64>,
    /// Which packets are fragmented when they do not fit.
    pub fragmentation: Fragmentation,
    /// Whether the MSS of TCP connections is lowered to what fits.
    pub mss: Mss,
    /// Whether an ICMP error that looks right is believed (RFC 4301 sections 6.1.1 and 8.2.1).
    pub trusts_icmp: bool,
    /// Least path MTU that is believed, in octets of the outer packet. Without one it is
    /// [`FLOOR_V4`](crate::path_mtu::FLOOR_V4) or [`FLOOR_V6`](crate::path_mtu::FLOOR_V6); over
    /// IPv6 it is never less (RFC 4301 section 6.1.1).
    pub path_mtu_floor: Option<u16>,
}

impl Default for Sending {
    fn default() -> Sending {
        Sending {
            tfc: TfcPadding::Off,
            dummy_interval: None,
            keepalive: None,
            fragmentation: Fragmentation::Before,
            mss: Mss::Off,
            trusts_icmp: true,
            path_mtu_floor: None,
        }
    }
}

/// What is fragmented when a packet does not fit the path (RFC 4303 section 3.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragmentation {
    /// The inner packet, if it is IPv4 without DF. The receiver has nothing to reassemble.
    #[default]
    Before,
    /// The outer packet, if its DF is clear or it is IPv6.
    After,
}

/// Clamping of the TCP maximum segment size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mss {
    /// Not touched.
    #[default]
    Off,
    /// To what fits the path with all headers of the SA.
    Auto,
    /// To a number of octets.
    To(u16),
}

/// What the gateway does beyond its SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Workers of the gateway: they share the IPv4 identifications among themselves.
    pub workers: u8,
    /// ICMP errors.
    pub icmp: IcmpOptions,
    /// Audit records.
    pub audit: AuditOptions,
    /// What IKE and the operator are told.
    pub notices: NoticeOptions,
    /// Packets that wait for the first SA of a group at most, each at most 3 seconds; 0 when none
    /// does.
    pub acquire_hold: u8,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            workers: 1,
            icmp: IcmpOptions::default(),
            audit: AuditOptions::default(),
            notices: NoticeOptions::default(),
            acquire_hold: 0,
        }
    }
}

/// Which refused packets audit records are written of (RFC 4303 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// Those refused for one of these reasons, as far as it is
    /// [auditable](crate::DropReason::is_auditable).
    pub reasons: DropReasons,
    /// Records each worker writes in a second at most, of packets from either side.
    pub rate: u32,
}

impl Default for AuditOptions {
    fn default() -> AuditOptions {
        AuditOptions { reasons: DropReasons::AUDITABLE, rate: crate::audit::RATE }
    }
}

/// What IKE is told of single packets, so that it may tell the peer, and what an operator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticeOptions {
    /// A packet came for no SA (INVALID_SPI, RFC 7296 section 1.5).
    pub invalid_spi: bool,
    /// A packet came out of an SA that does not admit it (INVALID_SELECTORS, RFC 4301 section 5.2).
    pub invalid_selectors: bool,
    /// Combinations of ECN fields that nobody should make (RFC 6040 section 4.2).
    pub unusual_ecn: bool,
    /// Notices of each of the first two kinds that each worker gives in a second at most.
    pub rate: u32,
}

impl Default for NoticeOptions {
    fn default() -> NoticeOptions {
        NoticeOptions { invalid_spi: true, invalid_selectors: true, unusual_ecn: true, rate: 10 }
    }
}

/// A kind of ICMP errors, in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IcmpKind {
    /// IPv4 type 3 code 4, IPv6 type 2.
    PacketTooBig,
    /// IPv4 type 3 with other codes, IPv6 type 1.
    DestinationUnreachable,
    /// IPv4 type 11, IPv6 type 3.
    TimeExceeded,
    /// IPv4 type 12, IPv6 type 4.
    ParameterProblem,
}

/// The kinds of unauthenticated ICMP errors that are accepted (RFC 4301 section 6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted(u8);

impl Accepted {
    /// No kind.
    pub const NONE: Accepted = Accepted(0);
    /// All kinds.
    pub const ALL: Accepted = Accepted::NONE
        .and(IcmpKind::PacketTooBig)
        .and(IcmpKind::DestinationUnreachable)
        .and(IcmpKind::TimeExceeded)
        .and(IcmpKind::ParameterProblem);

    /// These and another kind.
    #[must_use]
    pub const fn and(self, kind: IcmpKind) -> Accepted {
        Accepted(self.0 | 1 << kind as u8)
    }

    /// True for a kind that is accepted.
    #[must_use]
    pub const fn has(self, kind: IcmpKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

/// Which ICMP errors the gateway sends, and which it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpOptions {
    /// Source address over IPv4. Without one, 192.0.0.8 (RFC 7600 section 4.8).
    pub source_v4: Option<Ipv4Addr>,
    /// Source address over IPv6. Without one, no error is sent.
    pub source_v6: Option<Ipv6Addr>,
    /// Packet too big (RFC 4301 section 8.2).
    pub too_big: bool,
    /// Time exceeded (RFC 1812 section 5.3.1).
    pub time_exceeded: bool,
    /// Administratively prohibited, and peer unreachable (RFC 4301 section 5.1.1).
    pub prohibited: bool,
    /// Errors each worker sends in a second at most.
    pub rate: u32,
    /// Errors about packets of the gateway's own SAs that it takes note of.
    pub accepted: Accepted,
}

impl Default for IcmpOptions {
    fn default() -> IcmpOptions {
        IcmpOptions {
            source_v4: None,
            source_v6: None,
            too_big: true,
            time_exceeded: true,
            prohibited: false,
            rate: 100,
            accepted: Accepted::ALL,
        }
    }
}
