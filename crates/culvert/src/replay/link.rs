//! The synthetic Ethernet around packets of raw captures.
//!
//! The engine sees Ethernet frames only. Raw IP packets get a header between two made-up stations
//! when they come in, and lose it when they go out.

use culvert_wire::Malformed;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use pcap_file::DataLink;

use crate::cli::LinkType;

/// Stations on the synthetic links.
pub(super) const OUR_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
pub(super) const THEIR_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x02]);

/// What programs write that take the BPF type of a raw link for its type in a file.
const BPF_RAW: u32 = 12;

/// The form of packets under a link type of a capture; `None` when the engine cannot have them.
pub(super) fn link_type(link: DataLink) -> Option<LinkType> {
    match link {
        DataLink::ETHERNET => Some(LinkType::Ethernet),
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 | DataLink::Unknown(BPF_RAW) => {
            Some(LinkType::Raw)
        }
        _ => None,
    }
}

/// The frame of a captured packet.
pub(super) fn frame(link: LinkType, packet: &[u8]) -> Vec<u8> {
    match link {
        LinkType::Ethernet => packet.to_vec(),
        LinkType::Raw => {
            let ether_type = match packet.first() {
                Some(first) if first >> 4 == 6 => ethernet::ETHER_TYPE_IPV6,
                _ => ethernet::ETHER_TYPE_IPV4,
            };
            let mut frame = vec![0; ethernet::HEADER_LEN + packet.len()];
            let (header, payload) = frame.split_at_mut(ethernet::HEADER_LEN);
            ethernet::emit(header, OUR_MAC, THEIR_MAC, None, ether_type);
            payload.copy_from_slice(packet);
            frame
        }
    }
}

/// The packet to write for a frame.
///
/// # Errors
/// When the frame has no whole Ethernet header.
pub(super) fn packet(link: LinkType, frame: &[u8]) -> Result<&[u8], Malformed> {
    match link {
        LinkType::Ethernet => Ok(frame),
        LinkType::Raw => Ok(&frame[ethernet::parse(frame)?.payload_at..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A raw packet gets the header of its family, and comes back as it was; nothing and nonsense
    /// get one too, for the engine to judge.
    #[test]
    fn raw_packets_there_and_back() {
        let cases: [(&[u8], u16); 4] = [
            (&[0x45, 1, 2], ethernet::ETHER_TYPE_IPV4),
            (&[0x60, 1, 2], ethernet::ETHER_TYPE_IPV6),
            (&[0xff], ethernet::ETHER_TYPE_IPV4),
            (&[], ethernet::ETHER_TYPE_IPV4),
        ];
        for (bytes, ether_type) in cases {
            let framed = frame(LinkType::Raw, bytes);
            assert_eq!(ethernet::parse(&framed).unwrap().ether_type, ether_type);
            assert_eq!(packet(LinkType::Raw, &framed), Ok(bytes));
            assert_eq!(packet(LinkType::Ethernet, &framed), Ok(&framed[..]));
            assert_eq!(frame(LinkType::Ethernet, bytes), bytes);
        }
    }

    /// Raw links have more than one number; what is neither raw nor Ethernet is refused.
    #[test]
    fn link_types() {
        for raw in [12, 101, 228, 229] {
            assert_eq!(link_type(DataLink::from(raw)), Some(LinkType::Raw), "{raw}");
        }
        assert_eq!(link_type(DataLink::from(1)), Some(LinkType::Ethernet));
        for other in [0, 105, 113, 276, 9999] {
            assert_eq!(link_type(DataLink::from(other)), None, "{other}");
        }
    }
}
