//! The maximum segment size of TCP (RFC 9293 section 3.7.1).

use crate::checksum;
use crate::extension;
use crate::ip;
use crate::ipv4;
use crate::ipv6;

/// Lowers the maximum segment size that a SYN announces to what `mtu`, octets of the largest IP
/// packet, has room for: the IP header without options or extension headers and the TCP header
/// without options are subtracted (RFC 6691 section 2). True when `packet`, which was parsed as
/// `parsed`, was changed; its checksum then follows.
///
/// The checksum has to be whole: one that was left to hardware is completed first
/// ([`checksum::complete_partial`]). Whatever is no SYN, or announces no size or a lower one, is
/// left alone.
pub fn clamp_mss(packet: &mut [u8], parsed: &ip::Packet, mtu: usize) -> bool {
    let (ip::PROTOCOL_TCP, Some(at)) = extension::next_layer(packet, parsed) else {
        return false;
    };
    let ip_header_len = match parsed {
        ip::Packet::V4(_) => ipv4::HEADER_LEN,
        ip::Packet::V6(_) => ipv6::HEADER_LEN,
    };
    let room = mtu.saturating_sub(ip_header_len + HEADER_LEN);
    let mss = u16::try_from(room).unwrap_or(u16::MAX);
    let segment = packet.get_mut(at..parsed.total_len()).unwrap_or_default();
    let Some(at) = find_mss(segment).filter(|_| mss > 0) else {
        return false;
    };
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= mss {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&mss.to_be_bytes());
    // Behind an odd number of octets the two are halves of two words of the sum, swapped.
    let (old, new) =
        if at.is_multiple_of(2) { (old, mss) } else { (old.swap_bytes(), mss.swap_bytes()) };
    let sum = u16::from_be_bytes([segment[CHECKSUM_AT], segment[CHECKSUM_AT + 1]]);
    let sum = checksum::update(sum, old, new);
    segment[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Octets of a header without options.
const HEADER_LEN: usize = 20;
const CHECKSUM_AT: usize = 16;
const SYN: u8 = 0x02;

const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

/// The offset of the maximum segment size in `segment`, if that is a SYN with the option.
fn find_mss(segment: &[u8]) -> Option<usize> {
    let header: &[u8; HEADER_LEN] = segment.first_chunk()?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header[13] & SYN == 0 || header_len > segment.len() {
        return None;
    }
    let mut at = HEADER_LEN;
    while let Some([kind, rest @ ..]) = segment.get(at..header_len) {
        match (*kind, rest) {
            (OPTION_END, _) => return None,
            (OPTION_NO_OPERATION, _) => at += 1,
            (OPTION_MSS, [OPTION_MSS_LEN, _, _, ..]) => return Some(at + 2),
            (_, [len @ 2..=u8::MAX, ..]) => at += usize::from(*len),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    const NONE: [u8; 0] = [];

    /// A SYN with `options`, which fill whole words, and a right checksum.
    fn syn(six: bool, options: &[u8]) -> Vec<u8> {
        segment(six, 0x02, options)
    }

    fn segment(six: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        let mut tcp = Vec::from([0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0]);
        tcp.extend_from_slice(&[words << 4, flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend_from_slice(options);
        let mut packet = testing::packet(six, 6, &tcp);
        let at = packet.len() - tcp.len();
        let sum = testing::naive_checksum(&testing::with_pseudo_header(&packet, 6, &tcp));
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn has_right_checksum(packet: &[u8]) -> bool {
        let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
        testing::naive_checksum(&testing::with_pseudo_header(packet, 6, &packet[at..])) == 0
    }

    fn clamped(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
        let mut packet = packet.to_vec();
        let parsed = testing::parse(&packet);
        clamp_mss(&mut packet, &parsed, mtu).then_some(packet)
    }

    /// The size is lowered to MTU - 40 or MTU - 60 (RFC 6691 section 2), and the checksum is that
    /// which scapy computes for the segment with the new size: 0xc7e6 over IPv4, 0xf075 over IPv6.
    #[test]
    fn clamp_lowers_the_size() {
        for (six, mtu, sums) in
            [(false, 1420, [0xc796_u16, 0xc7e6]), (true, 1440, [0xf025, 0xf075])]
        {
            let packet = syn(six, &[2, 4, 0x05, 0xb4, 3, 3, 7, 0]);
            let at = packet.len() - 28;
            assert_eq!(packet[at + 16..at + 18], sums[0].to_be_bytes());
            let changed = clamped(&packet, mtu).unwrap();
            let mut expected = packet;
            expected[at + 22..at + 24].copy_from_slice(&1380_u16.to_be_bytes());
            expected[at + 16..at + 18].copy_from_slice(&sums[1].to_be_bytes());
            assert_eq!(changed, expected);
        }
    }

    /// At an odd offset too: scapy has 0x704a and 0x98d9.
    #[test]
    fn clamp_at_an_odd_offset() {
        for (six, mtu, sum) in [(false, 1420, 0x704a_u16), (true, 1440, 0x98d9)] {
            let changed = clamped(&syn(six, &[1, 2, 4, 0x05, 0xb4, 0, 0, 0]), mtu).unwrap();
            let at = changed.len() - 28;
            assert_eq!(changed[at + 23..at + 25], 1380_u16.to_be_bytes());
            assert_eq!(changed[at + 16..at + 18], sum.to_be_bytes());
        }
    }

    /// A size that fits is left alone, and the first that does not is not.
    #[test]
    fn clamp_leaves_what_fits() {
        let packet = syn(false, &[2, 4, 0x05, 0xb4]);
        assert_eq!(clamped(&packet, 1500), None);
        assert_eq!(clamped(&packet, 9000), None);
        assert!(clamped(&packet, 1499).is_some());
        assert_eq!(clamped(&packet, 40), None, "no room at all");
    }

    /// What is no SYN, has no such option, or a broken one, is left alone.
    #[test]
    fn clamp_leaves_everything_else() {
        let mss = [2, 4, 0xff, 0xff];
        for flags in (0..=255).filter(|flags| flags & 2 == 0) {
            assert_eq!(clamped(&segment(false, flags, &mss), 1000), None, "{flags:x}");
        }
        assert!(clamped(&segment(false, 0x12, &mss), 1000).is_some(), "SYN and ACK");
        for options in [
            &NONE[..],
            &[0, 2, 4, 0xff, 0xff, 0, 0, 0],
            &[2, 3, 0xff, 0xff],
            &[2, 5, 0xff, 0xff],
            &[3, 0, 2, 4, 0xff, 0xff, 0, 0],
            &[3, 1, 2, 4, 0xff, 0xff, 0, 0],
            &[1, 1, 1, 2],
            &[1, 2, 4, 0xff],
        ] {
            assert_eq!(clamped(&syn(false, options), 1000), None, "{options:?}");
        }
        let mut udp = syn(false, &mss);
        udp[9] = 17;
        testing::repair(&mut udp);
        assert_eq!(clamped(&udp, 1000), None);
        let mut later = syn(false, &mss);
        later[7] = 1;
        testing::repair(&mut later);
        assert_eq!(clamped(&later, 1000), None, "no first fragment");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// No packet makes it panic; a right checksum stays right, and only the option changes.
        #[test]
        fn clamp_never_panics(
            six: bool,
            options in proptest::collection::vec(
                prop_oneof![Just(1), Just(2), Just(4), any::<u8>()],
                0..40,
            ),
            mtu in 0..2000_usize,
            words: Option<u8>,
        ) {
            let len = options.len() / 4 * 4;
            let mut packet = syn(six, &options[..len]);
            let at = packet.len() - len - 20;
            if let Some(words) = words {
                packet[at + 12] = words << 4;
            } else if let Some(changed) = clamped(&packet, mtu) {
                prop_assert!(has_right_checksum(&changed));
                let differing = changed.iter().zip(&packet).skip(at + 20).filter(|(a, b)| a != b);
                prop_assert!(differing.count() <= 2);
            }
            _ = clamped(&packet, mtu);
        }
    }
}
