//! The decision once more: the octets are taken off the front, one header after the other, and
//! each header is looked at as its RFC draws it.

use std::collections::BTreeSet;

use culvert_steer::Class;
use culvert_steer::PrefixValue;

use crate::fixtures::Side;

/// Datagrams whose fragments go to the engine: addresses and identification.
pub(crate) type Known = BTreeSet<(Vec<u8>, u32)>;

pub(crate) fn class(side: Side, frame: &[u8], known: &mut Known) -> Class {
    class_or_short(side, frame, known).unwrap_or(Class::Short)
}

fn class_or_short(side: Side, frame: &[u8], known: &mut Known) -> Option<Class> {
    let (mac_and_type, mut rest) = frame.split_at_checked(14)?;
    let mut kind = [mac_and_type[12], mac_and_type[13]];
    if kind == [0x81, 0x00] {
        let (tag, behind) = rest.split_at_checked(4)?;
        kind = [tag[2], tag[3]];
        rest = behind;
    }
    let is_v4 = match kind {
        [0x08, 0x00] => true,
        [0x86, 0xdd] => false,
        _ => return Some(Class::Other),
    };
    let first = *rest.first()?;
    let valid = if is_v4 { (0x45..=0x4f).contains(&first) } else { first & 0xf0 == 0x60 };
    if !valid {
        return Some(Class::Malformed);
    }
    let destination = if is_v4 { rest.get(16..20) } else { rest.get(24..40) };
    if side.is_protected() {
        return Some(match (guard(side, destination?), is_v4) {
            (None, _) => Class::NotProtected,
            (Some(_), true) => Class::Protected4,
            (Some(_), false) => Class::Protected6,
        });
    }
    let found = if is_v4 { packet4(rest, known) } else { packet6(rest, known) };
    let (class, for_ipsec) = found.unwrap_or((Class::Short, false));
    if ENGINE.contains(&class) {
        return Some(class);
    }
    Some(match guard(side, destination?) {
        None => class,
        Some(value) if value.is_own() && for_ipsec => class,
        Some(_) if is_v4 => Class::Plain4,
        Some(_) => Class::Plain6,
    })
}

const ENGINE: [Class; 9] = [
    Class::Esp4,
    Class::Esp6,
    Class::Ah4,
    Class::Ah6,
    Class::UdpEsp4,
    Class::UdpEsp6,
    Class::Runt,
    Class::IpsecFragment,
    Class::IcmpError,
];

/// A class, and whether IPsec at this machine's own address needs the packet.
type Found = (Class, bool);

fn number(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |sum, &octet| sum * 256 + u32::from(octet))
}

fn packet4(packet: &[u8], known: &mut Known) -> Option<Found> {
    let word = number(packet.get(6..8)?);
    let (more, offset) = (word & 0x2000 != 0, word & 0x1fff);
    let protocol = *packet.get(9)?;
    let header = usize::from(packet[0] - 0x40) * 4;
    if !more && offset == 0 {
        return match protocol {
            50 => Some((Class::Esp4, false)),
            51 => Some((Class::Ah4, false)),
            17 => datagram(packet.get(header..)?, Class::UdpEsp4),
            1 => message4(packet.get(header..)?),
            _ => Some((Class::Other, false)),
        };
    }
    match protocol {
        50 | 51 => return Some((Class::IpsecFragment, false)),
        17 => {}
        _ => return Some((Class::Fragment, false)),
    }
    let key = (packet.get(12..20)?.to_vec(), number(&packet[4..6]));
    if offset > 0 {
        return Some(later(known.contains(&key), true));
    }
    let length = (number(&packet[2..4]) as usize).saturating_sub(header);
    let found = first(packet.get(header..), length)?;
    learn(known, key, found);
    Some(found)
}

fn packet6(packet: &[u8], known: &mut Known) -> Option<Found> {
    let (mut protocol, mut at) = (*packet.get(6)?, 40_usize);
    let mut fragment: Option<(u8, u32, u32)> = None;
    for _ in 0..8 {
        let header = packet.get(at..);
        match protocol {
            0 | 43 | 60 => {
                let header = header?;
                protocol = *header.first()?;
                at += 8 * (1 + usize::from(*header.get(1)?));
            }
            44 if fragment.is_none() => {
                let header = header?.get(..8)?;
                protocol = header[0];
                at += 8;
                fragment = Some((protocol, number(&header[2..4]), number(&header[4..8])));
                if number(&header[2..4]) >= 8 {
                    break;
                }
            }
            _ => break,
        }
    }
    let Some((declared, word, id)) = fragment else {
        return match protocol {
            50 => Some((Class::Esp6, false)),
            51 => Some((Class::Ah6, false)),
            17 => datagram(packet.get(at..)?, Class::UdpEsp6),
            58 => message6(packet.get(at..)?, packet[7]),
            _ => Some((Class::Other, false)),
        };
    };
    if matches!(declared, 50 | 51) {
        return Some((Class::IpsecFragment, false));
    }
    let key = (packet.get(8..40)?.to_vec(), id);
    if word >= 8 {
        return Some(later(known.contains(&key), declared == 17));
    }
    let found = match protocol {
        50 | 51 => (Class::IpsecFragment, false),
        17 => first(packet.get(at..), (number(&packet[4..6]) as usize + 40).saturating_sub(at))?,
        _ => (Class::Fragment, false),
    };
    if word & 1 == 1 {
        learn(known, key, found);
    }
    Some(found)
}

fn later(is_known: bool, is_udp: bool) -> Found {
    if is_known { (Class::IpsecFragment, false) } else { (Class::Fragment, is_udp) }
}

fn learn(known: &mut Known, key: (Vec<u8>, u32), (class, _): Found) {
    if class == Class::IpsecFragment {
        known.insert(key);
    } else {
        known.remove(&key);
    }
}

/// The first fragment of a UDP datagram, of which `length` octets are in the packet.
fn first(octets: Option<&[u8]>, length: usize) -> Option<Found> {
    if length < 12 {
        return Some((Class::Fragment, true));
    }
    Some(match datagram(octets?, Class::IpsecFragment)? {
        (Class::IpsecFragment, _) => (Class::IpsecFragment, false),
        (_, for_ipsec) => (Class::Fragment, for_ipsec),
    })
}

fn datagram(datagram: &[u8], esp: Class) -> Option<Found> {
    match number(datagram.get(2..4)?) {
        4500 => {}
        500 => return Some((Class::Other, true)),
        _ => return Some((Class::Other, false)),
    }
    let payload = |count: usize| datagram.get(8..8 + count);
    Some(match number(datagram.get(4..6)?) {
        0..8 => (Class::Malformed, false),
        8 => (Class::Runt, false),
        9 if payload(1)? == [0xff] => (Class::Keepalive, true),
        9..12 => (Class::Runt, false),
        _ if payload(4)? == [0; 4] => (Class::Ike, true),
        12..16 => (Class::Runt, false),
        _ => (esp, false),
    })
}

/// Who sent the packet that an error quotes.
#[derive(PartialEq, Eq)]
enum Sender {
    Ipsec,
    Ike,
    SomebodyElse,
}

fn message4(message: &[u8]) -> Option<Found> {
    let kind = *message.first()?;
    if !matches!(kind, 3 | 11 | 12) {
        return Some((Class::Other, false));
    }
    let packet = message.get(8..)?;
    let first = *packet.first()?;
    if !(0x45..=0x4f).contains(&first) {
        return Some((Class::Other, false));
    }
    let offset = number(packet.get(6..8)?) & 0x1fff;
    let protocol = *packet.get(9)?;
    let behind = packet.get(usize::from(first - 0x40) * 4..);
    Some(told(sender(protocol, offset > 0, behind)?))
}

fn message6(message: &[u8], hop_limit: u8) -> Option<Found> {
    let kind = *message.first()?;
    if matches!(kind, 133..=137) && hop_limit == 255 {
        return Some((Class::Other, true));
    }
    if !matches!(kind, 1..=4) {
        return Some((Class::Other, false));
    }
    let packet = message.get(8..)?;
    if packet.first()? & 0xf0 != 0x60 {
        return Some((Class::Other, false));
    }
    let (mut protocol, mut at) = (*packet.get(6)?, 40_usize);
    let (mut is_fragment, mut is_later) = (false, false);
    for _ in 0..8 {
        let header = packet.get(at..);
        match protocol {
            0 | 43 | 60 => {
                protocol = *header?.first()?;
                at += 8 * (1 + usize::from(*header?.get(1)?));
            }
            44 if !is_fragment => {
                let header = header?.get(..8)?;
                (protocol, is_fragment) = (header[0], true);
                is_later = number(&header[2..4]) >= 8;
                at += 8;
                if is_later {
                    break;
                }
            }
            _ => break,
        }
    }
    Some(told(sender(protocol, is_later, packet.get(at..))?))
}

fn sender(protocol: u8, is_later: bool, behind: Option<&[u8]>) -> Option<Sender> {
    Some(match protocol {
        50 | 51 => Sender::Ipsec,
        17 if !is_later => match number(behind?.get(..2)?) {
            500 => Sender::Ike,
            4500 if behind?.get(8..12) == Some(&[0; 4]) => Sender::Ike,
            4500 if behind?.get(4..6).is_none_or(|len| number(len) < 16) => Sender::Ike,
            4500 => Sender::Ipsec,
            _ => Sender::SomebodyElse,
        },
        _ => Sender::SomebodyElse,
    })
}

fn told(sender: Sender) -> Found {
    match sender {
        Sender::Ipsec => (Class::IcmpError, false),
        Sender::Ike => (Class::Other, true),
        Sender::SomebodyElse => (Class::Other, false),
    }
}

/// The prefix that protects a destination.
fn guard(side: Side, destination: &[u8]) -> Option<PrefixValue> {
    let special = match destination {
        [255, 255, 255, 255] => 32,
        [first, _, _, _] if first & 0xf0 == 0xe0 => 4,
        [169, 254, _, _] => 16,
        [0xff, _, _, _, _, ..] => 8,
        [0xfe, 0x80..=0xbf, _, _, _, ..] => 10,
        _ => 0,
    };
    let value = side.table().longest(destination)?;
    (!value.is_exception() && value.bits() >= special).then_some(value)
}
