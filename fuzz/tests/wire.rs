//! Every parser of `culvert-wire`: what it accepts lies inside the octets it was given, and is what
//! a plain reading of them says.

mod packets;

use culvert_fuzz::changed;
use culvert_fuzz::repair;
use culvert_fuzz::target;
use culvert_wire::ah;
use culvert_wire::checksum;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::extension;
use culvert_wire::flow::Flow;
use culvert_wire::flow::Upper;
use culvert_wire::fragment;
use culvert_wire::icmp;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::tcp;
use culvert_wire::udp;

/// An IP packet of either family, mostly one whose header still holds.
fn ip_packet(input: &[u8]) -> Vec<u8> {
    let mut packet = changed(packets::ip(), input);
    if input.last().is_none_or(|octet| octet % 4 != 0) {
        repair(&mut packet, 0);
    }
    packet
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The payload begins behind one tag at most, and its type stands in front of it.
#[test]
fn ethernet_header() {
    target!().for_each(|input: &[u8]| {
        let frame = changed(packets::frames(), input);
        if let Ok(link) = ethernet::parse(&frame) {
            assert!(link.payload_at == 14 || link.payload_at == 18);
            assert!(link.payload_at <= frame.len());
            assert_eq!(word(&frame, link.payload_at - 2), usize::from(link.ether_type));
        }
    });
}

/// Lengths lie in each other, the header sums to zero, and still does after what forwarding does.
#[test]
fn ipv4_header() {
    target!().for_each(|input: &[u8]| {
        let mut packet = ip_packet(input);
        let Ok(header) = ipv4::parse(&packet) else {
            return;
        };
        assert!(20 <= header.header_len && header.header_len <= header.total_len);
        assert!(header.total_len <= packet.len());
        assert_eq!(header.total_len, word(&packet, 2));
        assert_eq!(checksum::internet(&packet[..header.header_len]), 0);
        let parsed = ip::Packet::V4(header);
        ip::set_tos(&mut packet, &parsed, !header.tos);
        if header.ttl > 0 {
            ip::decrement_ttl(&mut packet, &parsed);
        }
        let after = ipv4::parse(&packet).expect("still a header");
        let ttl = header.ttl.saturating_sub(1);
        assert_eq!(after, ipv4::Ipv4 { tos: !header.tos, ttl, ..header });
    });
}

/// Lengths lie in each other, and what forwarding does changes nothing else.
#[test]
fn ipv6_header() {
    target!().for_each(|input: &[u8]| {
        let mut packet = ip_packet(input);
        let Ok(header) = ipv6::parse(&packet) else {
            return;
        };
        let parsed = ip::Packet::V6(header);
        assert_eq!(parsed.total_len(), 40 + word(&packet, 4));
        assert!(parsed.total_len() <= packet.len());
        let (before, tos) = (packet.clone(), parsed.tos());
        ip::set_tos(&mut packet, &parsed, !tos);
        assert_eq!(ip::parse(&packet).map(|packet| packet.tos()), Ok(!tos));
        ip::set_tos(&mut packet, &parsed, tos);
        if parsed.ttl() > 0 {
            ip::decrement_ttl(&mut packet, &parsed);
            assert_eq!(packet[7], parsed.ttl() - 1);
            packet[7] += 1;
        }
        assert_eq!(packet, before);
    });
}

/// A datagram lies inside its segment.
#[test]
fn udp_header() {
    target!().for_each(|input: &[u8]| {
        let segment = changed(packets::datagrams(), input);
        if let Ok(header) = udp::parse(&segment) {
            assert!(segment.len() >= 8);
            assert_eq!(usize::from(header.source_port), word(&segment, 0));
            assert_eq!(usize::from(header.destination_port), word(&segment, 2));
        }
    });
}

/// A checksum left for the network card is completed inside the packet, or nothing is touched.
#[test]
fn partial_checksum() {
    target!().for_each(|input: &[u8]| {
        let mut packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let before = packet.clone();
        let done = checksum::complete_partial(&mut packet, &parsed);
        assert!(done || packet == before);
        let changed = packet.iter().zip(&before).filter(|(after, before)| after != before).count();
        assert!(changed <= 2, "only a checksum changes");
    });
}

/// Extension headers lie behind each other inside the packet, and each place says what it says.
#[test]
fn extension_headers() {
    target!().for_each(|input: &[u8]| {
        let packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let packet = &packet[..parsed.total_len()];
        if let Ok(place) = extension::insertion(packet, &parsed) {
            assert!(place.announced_at < place.insert_at && place.insert_at <= packet.len());
            assert_eq!(packet[place.announced_at], place.insert_protocol);
        }
        if let ip::Packet::V6(header) = &parsed
            && let Ok(chain) = extension::walk(packet, header)
        {
            assert!(chain.announced_at < chain.upper_at && chain.upper_at <= packet.len());
            assert_eq!(packet[chain.announced_at], chain.protocol);
            assert!(chain.insertion.insert_at <= chain.upper_at);
            if let Some(fragment) = chain.fragment {
                assert!(fragment.at + 8 <= chain.upper_at);
                assert_eq!(
                    (packet[fragment.announced_at], packet[fragment.at]),
                    (44, fragment.protocol)
                );
            }
        }
        let (_, upper_at) = extension::next_layer(packet, &parsed);
        assert!(upper_at.is_none_or(|at| at <= packet.len()));
    });
}

/// P06, P08: ports and types are those at the start of the next layer, or are not shown; the way
/// back has them the other way round.
#[test]
fn flow_of_packet() {
    target!().for_each(|input: &[u8]| {
        let packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let flow = Flow::of(&packet, &parsed);
        assert_eq!(flow.reversed().reversed(), flow);
        let (protocol, at) = extension::next_layer(&packet, &parsed);
        assert_eq!((flow.protocol, flow.addresses), (protocol, parsed.addresses()));
        match (flow.upper, at) {
            (Upper::Ports { source, destination }, Some(at)) => {
                let ports = [source, destination].map(usize::from);
                assert_eq!(ports, [word(&packet, at), word(&packet, at + 2)]);
            }
            (Upper::Icmp(number), Some(at)) => assert_eq!(usize::from(number), word(&packet, at)),
            (Upper::Mobility(kind), Some(at)) => assert_eq!(kind, packet[at + 2]),
            (Upper::None | Upper::Opaque, _) => {}
            (upper, None) => panic!("{upper:?} of a packet that does not show it"),
        }
    });
}

/// A01: a header has the length it says, and lies inside its octets.
#[test]
fn ah_header() {
    target!().for_each(|input: &[u8]| {
        let packet = ip_packet(input);
        let upper = ip::parse(&packet).map_or(0, |parsed| parsed.upper_at());
        if let Ok(header) = ah::parse(&packet[upper..]) {
            let octets = &packet[upper..];
            assert_eq!(header.len, (usize::from(octets[1]) + 2) * 4);
            assert_eq!((header.icv().start, header.icv().end), (12, header.len));
            assert!(header.len <= octets.len());
        }
    });
}

/// A03, A04: what the ICV covers of the headers does not change with what routers change.
#[test]
fn ah_covered_headers() {
    target!().for_each(|input: &[u8]| {
        let mut packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let Ok(place) = extension::insertion(&packet, &parsed) else {
            return;
        };
        let (mut before, mut after) = ([0; ah::MAX_HEADERS_LEN], [0; ah::MAX_HEADERS_LEN]);
        let covered = ah::immutable(&packet, place.insert_at, &mut before);
        ip::set_tos(&mut packet, &parsed, !parsed.tos());
        if parsed.ttl() > 0 {
            ip::decrement_ttl(&mut packet, &parsed);
        }
        assert_eq!(ah::immutable(&packet, place.insert_at, &mut after), covered);
        assert!(covered.is_err() || before == after);
        assert!(covered.is_err() || covered == Ok(place.insert_at));
    });
}

/// What an error encloses lies inside it, and an error we write encloses the packet it is about.
#[test]
fn icmp_errors() {
    target!().for_each(|input: &[u8]| {
        let packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        if let Some(enclosed) = icmp::enclosed(&packet, &parsed) {
            assert!(parsed.upper_at() + 8 <= enclosed.at && enclosed.at < enclosed.end);
            assert!(enclosed.end <= parsed.total_len());
        }
        let kind = match input.first().map(|first| first % 4) {
            Some(0) => icmp::ErrorKind::Prohibited,
            Some(1) => icmp::ErrorKind::Unreachable,
            Some(2) => icmp::ErrorKind::TimeExceeded,
            _ => icmp::ErrorKind::TooBig { mtu: 1400 },
        };
        let mut out = [0; 1280];
        let Some(len) = icmp::error(&mut out, kind, parsed.destination(), &packet) else {
            return;
        };
        let error = ip::parse(&out[..len]).expect("a packet");
        assert!(len <= if error.source().is_ipv4() { 576 } else { 1280 });
        assert_eq!((error.total_len(), error.destination()), (len, parsed.source()));
        let enclosed = icmp::enclosed(&out[..len], &error).expect("an error");
        assert_eq!(enclosed.packet.addresses(), parsed.addresses());
        assert!(packet.starts_with(&out[enclosed.at..enclosed.end]));
    });
}

/// Fragments fit the link, have the packet's octets in order, and are the packet again together.
#[test]
fn fragments_of_packet() {
    target!().for_each(|input: &[u8]| {
        let packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let mtu = 28 + 8 * usize::from(input.first().map_or(9, |first| first % 32));
        let Ok(pieces) = fragment::pieces(&packet, &parsed, mtu, 7) else {
            return;
        };
        let insert_at = extension::insertion(&packet, &parsed).expect("walked before").insert_at;
        let mut whole = Vec::new();
        for (index, piece) in pieces.enumerate() {
            let mut out = vec![0; piece.total_len()];
            assert_eq!(fragment::write_piece(&mut out, &packet, &piece), out.len());
            assert!(out.len() <= mtu);
            let part = ip::parse(&out).expect("a fragment");
            assert_eq!((part.total_len(), part.addresses()), (out.len(), parsed.addresses()));
            // A first fragment may be too small for all extension headers, so they are not walked.
            let headers_len = match &part {
                ip::Packet::V4(header) => header.header_len,
                ip::Packet::V6(_) => insert_at + 8,
            };
            whole.extend_from_slice(if index == 0 { &out } else { &out[headers_len..] });
        }
        if fragment::finish_reassembly(&mut whole).is_ok() {
            assert!(whole.ends_with(&packet[insert_at..parsed.total_len()]));
        }
    });
}

/// A clamped SYN announces what fits, has a right checksum if it had one, and is not clamped twice.
#[test]
fn tcp_segment_size() {
    target!().for_each(|input: &[u8]| {
        let mut packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let before = packet.clone();
        let clamped = tcp::clamp_mss(&mut packet, &parsed, 1300);
        let changed = packet.iter().zip(&before).filter(|(after, before)| after != before).count();
        assert!(if clamped { changed <= 4 } else { changed == 0 });
        assert!(!tcp::clamp_mss(&mut packet, &parsed, 1300));
    });
}

/// U08: a checksum follows the addresses there and back.
#[test]
fn checksum_follows_addresses() {
    target!().for_each(|input: &[u8]| {
        let mut packet = ip_packet(input);
        let Ok(parsed) = ip::parse(&packet) else {
            return;
        };
        let before = packet.clone();
        let (source, destination) = (parsed.destination(), parsed.source());
        let changed = checksum::follow_addresses(&mut packet, &parsed, source, destination);
        assert!(changed || packet == before);
        let octets = packet.iter().zip(&before).filter(|(after, before)| after != before).count();
        assert!(octets <= 2, "only a checksum changes");
    });
}

/// What is ESP or AH is all inside the frame, has the numbers that stand there, and no padding;
/// so does a fragment. Without its link a packet is the same.
#[test]
fn unprotected_frame() {
    target!().for_each(|input: &[u8]| {
        let mut frame = changed(packets::frames(), input);
        if input.last().is_none_or(|octet| octet % 4 != 0) {
            repair(&mut frame, 14);
        }
        let Ok(class) = esp::classify(&frame) else {
            return;
        };
        if class != Unprotected::Other {
            let at = ethernet::parse(&frame).expect("was parsed").payload_at;
            assert_eq!(esp::classify_packet(&frame, at), Ok(class));
        }
        let number = |at: usize| u32::try_from(word(&frame, at) << 16 | word(&frame, at + 2));
        match class {
            Unprotected::Esp(outer) => {
                assert!(outer.ip_at + 20 <= outer.esp_at && outer.esp_at + 8 <= outer.end);
                assert!(outer.end <= frame.len());
                assert_eq!(Ok(outer.spi), number(outer.esp_at));
                assert_eq!(Ok(outer.seq), number(outer.esp_at + 4));
                assert!(!outer.encapsulated || outer.spi != 0, "a zero SPI in UDP is IKE's marker");
            }
            Unprotected::Ah(outer) => {
                assert!(outer.ip_at + 20 <= outer.esp_at && outer.esp_at + 12 <= outer.end);
                assert!(outer.end <= frame.len() && !outer.encapsulated);
                assert_eq!(Ok(outer.spi), number(outer.esp_at + 4));
                assert_eq!(Ok(outer.seq), number(outer.esp_at + 8));
            }
            Unprotected::Fragment(part) => {
                assert!(part.ip_at + 20 <= part.payload_at && part.payload_at < part.end);
                assert!(part.end <= frame.len());
                assert!(part.offset + part.len() <= 65535);
                assert!(!part.more || part.len().is_multiple_of(8));
            }
            _ => {}
        }
    });
}
