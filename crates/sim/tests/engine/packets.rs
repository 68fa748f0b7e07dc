//! Packets made octet by octet, and the arithmetic to check others with: nothing here is shared
//! with the code under test.

use std::net::IpAddr;

use culvert_aead::Keymat;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Sha256;

/// The Internet checksum of octets (RFC 1071).
pub(crate) fn internet(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Writes the checksum of an IPv4 header.
pub(crate) fn fix_v4(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = internet(&packet[..len]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
}

/// The packet with other octets at an offset, and its IPv4 header checksum right again.
pub(crate) fn with(packet: &[u8], at: usize, octets: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + octets.len()].copy_from_slice(octets);
    if packet[0] >> 4 == 4 {
        fix_v4(&mut packet);
    }
    packet
}

/// The packet as the next router sends it: TTL or hop limit one lower.
pub(crate) fn hop(packet: &[u8]) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    with(packet, at, &[packet[at] - 1])
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An IPv4 packet with options, or an IPv6 packet with extension headers: TTL 64, DF clear, TOS and
/// flow label 0, identification 0x1234.
pub(crate) fn packet_with(
    (source, destination): (IpAddr, IpAddr),
    headers: &[u8],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = match source {
        IpAddr::V4(_) => {
            let total = u16::try_from(20 + headers.len() + payload.len()).unwrap().to_be_bytes();
            let words = 0x45 + u8::try_from(headers.len() / 4).unwrap();
            vec![words, 0, total[0], total[1], 0x12, 0x34, 0, 0, 64, protocol, 0, 0]
        }
        IpAddr::V6(_) => {
            let len = u16::try_from(headers.len() + payload.len()).unwrap().to_be_bytes();
            vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64]
        }
    };
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(headers);
    packet.extend(payload);
    if source.is_ipv4() {
        fix_v4(&mut packet);
    }
    packet
}

/// The same without options or extension headers.
pub(crate) fn packet(addresses: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    packet_with(addresses, &[], protocol, payload)
}

/// The transport checksum of a segment whose checksum field is zero.
pub(crate) fn transport_sum(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    segment: &[u8],
) -> u16 {
    let len = u32::try_from(segment.len()).unwrap().to_be_bytes();
    let all =
        [&octets(source)[..], &octets(destination), &len, &[0, 0, 0, protocol], segment].concat();
    internet(&all)
}

/// UDP from port 4000 to port 4001 with `len` octets of payload, and a right checksum.
pub(crate) fn udp(addresses: (IpAddr, IpAddr), len: usize) -> Vec<u8> {
    let total = u16::try_from(8 + len).unwrap().to_be_bytes();
    let mut datagram = vec![0x0f, 0xa0, 0x0f, 0xa1, total[0], total[1], 0, 0];
    datagram.extend((0..len).map(|at| u8::try_from(at % 251).unwrap()));
    let sum = transport_sum(addresses, 17, &datagram).to_be_bytes();
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// TCP with `options`, from port 5000 to port 80, and a right checksum.
pub(crate) fn tcp(
    addresses: (IpAddr, IpAddr),
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap() << 4;
    let mut segment =
        vec![0x13, 0x88, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, words, flags, 0x20, 0, 0, 0, 0, 0];
    segment.extend(options);
    segment.extend(payload);
    let sum = transport_sum(addresses, 6, &segment).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// An ICMP message of a family with a right checksum.
pub(crate) fn icmp(addresses: (IpAddr, IpAddr), kind: [u8; 2], word: u32, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(rest);
    let sum = match addresses.0 {
        IpAddr::V4(_) => internet(&message),
        IpAddr::V6(_) => transport_sum(addresses, 58, &message),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// HMAC-SHA-256-128 (RFC 4868) under the whole keying material of an SA.
pub(crate) fn hmac_sha256(keymat: &Keymat, parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(keymat.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    *mac.finalize().into_bytes().first_chunk().unwrap()
}

/// ESP of `null-sha256`: SPI, number, payload, padding 1, 2, 3, .., ICV (RFC 4303 section 2). With
/// ESN the high half of the number is covered and not sent.
pub(crate) fn null_esp(
    (spi, keymat): (u32, &Keymat),
    seq: u32,
    esn_high: Option<u32>,
    (payload, next_header): (&[u8], u8),
) -> Vec<u8> {
    let mut esp = [&spi.to_be_bytes()[..], &seq.to_be_bytes(), payload].concat();
    let mut pad_len = 0;
    while (payload.len() + usize::from(pad_len) + 2) % 4 != 0 {
        pad_len += 1;
        esp.push(pad_len);
    }
    esp.extend([pad_len, next_header]);
    let high = esn_high.map(u32::to_be_bytes);
    let icv = hmac_sha256(keymat, &[&esp, high.as_ref().map_or(&[], |high| high)]);
    esp.extend(icv);
    esp
}
