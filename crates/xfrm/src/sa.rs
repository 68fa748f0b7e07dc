//! SAs, their names, and requests for an SPI.

use crate::address::Address;
use crate::address::Family;
use crate::address::Port;
use crate::address::Spi;
use crate::attribute::Fault;
use crate::attribute::Payload;
use crate::error::Errno;
use crate::lifetime::Limits;
use crate::lifetime::Usage;
use crate::octets::Writer;
use crate::octets::code;
use crate::octets::record;
use crate::secret::Secret;
use crate::selector::Selector;

/// Protocol number of IPv6's routing header, which Mobile IPv6 has SAs for.
pub const ROUTING: u8 = 43;
/// Protocol number of ESP.
pub const ESP: u8 = 50;
/// Protocol number of AH.
pub const AH: u8 = 51;
/// Protocol number of IPv6's destination options, which Mobile IPv6 has SAs for.
pub const DESTINATION_OPTIONS: u8 = 60;
/// Protocol number of IPComp.
pub const IPCOMP: u8 = 108;
/// Every protocol of IPsec, where a request is about many.
pub const ANY_PROTO: u8 = 255;

code! {
    /// How packets are put into an SA.
    pub struct Mode(u8) {
        /// Transport mode.
        TRANSPORT = 0,
        /// Tunnel mode.
        TUNNEL = 1,
        /// Mobile IPv6.
        ROUTE_OPTIMIZATION = 2,
        /// Mobile IPv6, never on the wire.
        IN_TRIGGER = 3,
        /// Bound end-to-end tunnels.
        BEET = 4,
        /// IP-TFS (RFC 9347).
        IPTFS = 5,
    }
}

code! {
    /// Whether an SA receives or sends.
    pub struct SaDirection(u8) {
        /// It receives.
        IN = 1,
        /// It sends.
        OUT = 2,
    }
}

/// Bits of [`SaInfo::flags`].
#[derive(Clone, Copy, Debug)]
pub struct SaFlags;

impl SaFlags {
    /// No congestion marks are copied inwards.
    pub const NO_ECN: u8 = 1;
    /// DSCP is copied inwards.
    pub const DECAP_DSCP: u8 = 2;
    /// Outer headers do not take over DF.
    pub const NO_PMTU_DISCOVERY: u8 = 4;
    /// Packets to any address.
    pub const WILD_RECEIVE: u8 = 8;
    /// ICMP errors that no policy names.
    pub const ICMP: u8 = 16;
    /// Both families inside.
    pub const AF_UNSPEC: u8 = 32;
    /// AH is aligned to four octets in IPv6.
    pub const ALIGN4: u8 = 64;
    /// 64-bit sequence numbers.
    pub const ESN: u8 = 128;
}

/// Bits of [`crate::Attribute::ExtraFlags`].
#[derive(Clone, Copy, Debug)]
pub struct ExtraFlags;

impl ExtraFlags {
    /// DSCP is not copied outwards.
    pub const DONT_ENCAP_DSCP: u32 = 1;
    /// Sequence numbers may begin again.
    pub const OSEQ_MAY_WRAP: u32 = 2;
}

record! {
    /// `struct xfrm_id`: how packets name an SA.
    pub struct XfrmId: 24 {
        /// Destination of the SA.
        pub daddr: Address,
        /// Its SPI.
        pub spi: Spi,
        /// Its protocol.
        pub proto: u8,
    }
}

record! {
    /// `struct xfrm_usersa_id`: how requests name an SA.
    pub struct SaId: 24 {
        /// Destination of the SA.
        pub daddr: Address,
        /// Its SPI.
        pub spi: Spi,
        /// Family of the address.
        pub family: Family,
        /// Its protocol.
        pub proto: u8,
    }
}

record! {
    /// `struct xfrm_stats`: what was dropped.
    pub struct Drops: 12 {
        /// Packets below the replay window.
        pub replay_window: u32,
        /// Packets seen before.
        pub replay: u32,
        /// Packets that were not authentic.
        pub integrity_failed: u32,
    }
}

record! {
    /// `struct xfrm_usersa_info`: an SA but for what attributes say.
    pub struct SaInfo: 224 {
        /// Packets that it is for.
        pub sel: Selector,
        /// Its name.
        pub id: XfrmId,
        /// Its source.
        pub saddr: Address,
        /// What may be used.
        pub limits: Limits,
        /// What was used.
        pub usage: Usage,
        /// What was dropped.
        pub drops: Drops,
        /// Number of the ACQUIRE that asked for it.
        pub seq: u32,
        /// Number that templates and SAs have in common.
        pub reqid: u32,
        /// Family of its addresses.
        pub family: Family,
        /// Its mode.
        pub mode: Mode,
        /// Numbers that the replay window holds, at most 32; 0 where an attribute says it.
        pub replay_window: u8,
        /// Bits of [`SaFlags`].
        pub flags: u8,
    }
}

record! {
    /// `struct xfrm_userspi_info`: a request for an SPI.
    pub struct SpiRequest: 232 {
        /// The SA that it is for.
        pub info: SaInfo,
        /// Lowest SPI, in the order of the machine.
        pub min: u32,
        /// Highest SPI, in the order of the machine.
        pub max: u32,
    }
}

record! {
    /// `struct xfrm_usersa_flush`: which SAs to delete.
    pub struct SaFlush: 1 {
        /// Their protocol; 0 or [`ANY_PROTO`] for all.
        pub proto: u8,
    }
}

code! {
    /// What is between UDP and ESP.
    pub struct EncapType(u16) {
        /// Of RFC 3948's drafts.
        NON_IKE = 1,
        /// RFC 3948.
        ESP_IN_UDP = 2,
        /// RFC 8229.
        ESP_IN_TCP = 7,
    }
}

record! {
    /// `struct xfrm_encap_tmpl`: UDP around ESP.
    pub struct Encap: 24 {
        /// What kind.
        pub kind: EncapType,
        /// Source port.
        pub sport: Port,
        /// Destination port.
        pub dport: Port,
        /// Original address of the peer (RFC 3947 section 5.2).
        pub original: Address,
    }
}

record! {
    /// `struct xfrm_mark`: marks that match.
    pub struct Mark: 8 {
        /// What the mark is.
        pub value: u32,
        /// Which of its bits count.
        pub mask: u32,
    }
}

record! {
    /// `struct xfrm_address_filter`: addresses of the SAs that a dump is to list.
    pub struct AddressFilter: 36 {
        /// Source network.
        pub saddr: Address,
        /// Destination network.
        pub daddr: Address,
        /// Family of both.
        pub family: Family,
        /// Bits of the source network.
        pub prefixlen_s: u8,
        /// Bits of the destination network.
        pub prefixlen_d: u8,
    }
}

record! {
    /// `struct xfrm_user_offload`: an interface that is to do the work.
    pub struct Offload: 8 {
        /// Which.
        pub ifindex: i32,
        /// 2 for inbound, 4 for whole packets.
        pub flags: u8,
    }
}

record! {
    /// `struct xfrm_user_sec_ctx` without its text.
    pub struct SecurityContextFixed: 8 {
        /// Octets, the text included.
        pub len: u16,
        /// `XFRMA_SEC_CTX`.
        pub exttype: u16,
        /// Who understands the text; 1 is SELinux.
        pub alg: u8,
        /// Domain of interpretation; 1 is that of Linux.
        pub doi: u8,
        /// Octets of the text.
        pub text_len: u16,
    }
}

/// `struct xfrm_user_sec_ctx`: a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityContext {
    /// `XFRMA_SEC_CTX`, or 0.
    pub exttype: u16,
    /// Who understands the text; 1 is SELinux.
    pub alg: u8,
    /// Domain of interpretation; 1 is that of Linux.
    pub doi: u8,
    /// The label, mostly with a zero at its end.
    pub text: Secret,
}

impl Payload for SecurityContext {
    fn parse(octets: &[u8]) -> Result<SecurityContext, Fault> {
        const LEN: usize = SecurityContextFixed::LEN;
        let fixed = SecurityContextFixed::read(octets).ok_or(Fault::short(LEN))?;
        let lens = Fault::value("lengths that agree and lie inside", Errno::EINVAL);
        let len = LEN + usize::from(fixed.text_len);
        let text = octets.get(LEN..len).ok_or(lens)?;
        if usize::from(fixed.len) != len {
            return Err(lens);
        }
        let SecurityContextFixed { exttype, alg, doi, .. } = fixed;
        Ok(SecurityContext { exttype, alg, doi, text: text.into() })
    }

    fn write(&self, writer: &mut Writer) {
        let SecurityContext { exttype, alg, doi, ref text } = *self;
        let text_len = u16::try_from(text.octets().len()).ok();
        let len = text_len.and_then(|len| len.checked_add(8)).expect("a label of less than 64 KiB");
        let text_len = len - 8;
        writer.record(&SecurityContextFixed { len, exttype, alg, doi, text_len });
        writer.put(text.octets());
    }
}
