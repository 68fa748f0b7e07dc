//! Why bytes are not the header they claim to be.

use thiserror::Error;

/// A peer's error: the field that is wrong and what was expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Malformed {
    /// The bytes end before the header does.
    #[error("packet: expected all octets of its header, but it ends before")]
    Truncated,
    /// The version nibble is not that of the family.
    #[error("IP version: expected 4 or 6, as the Ethernet type says")]
    Version,
    /// The IPv4 header length is below its minimum.
    #[error("IPv4 header length: expected 5 words or more")]
    HeaderLength,
    /// The IP length field contradicts the header or the bytes that arrived.
    #[error("IP total length: expected at least the header and at most the octets received")]
    TotalLength,
    /// The IPv4 header checksum is wrong.
    #[error("IPv4 header checksum: expected the header to sum to zero")]
    Checksum,
    /// The UDP length field contradicts the header or the bytes that arrived.
    #[error("UDP length: expected at least 8 and at most the octets of the IP payload")]
    UdpLength,
    /// An IPv6 extension header ends behind the packet, stands where it must not, or there are too
    /// many.
    #[error("IPv6 extension headers: expected few, in the packet, hop-by-hop options first")]
    Extension,
    /// A fragment's length or place is impossible.
    #[error(
        "fragment: expected a multiple of 8 octets, but for the last, and 65535 in all at most"
    )]
    Fragment,
    /// The AH length field contradicts the header or the bytes that arrived.
    #[error("AH payload length: expected at least the fixed header and at most the IP payload")]
    AhLength,
    /// An IPv4 or IPv6 option ends behind the header that holds it.
    #[error("IP options: expected every option to end inside its header")]
    Options,
}
