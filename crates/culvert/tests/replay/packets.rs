//! SAs in all their forms, and packets made by hand.

use std::net::IpAddr;

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::RustCrypto;
use culvert_aead::Status;
use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_sim::random::Random;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;
use culvert_wire::udp;

pub(crate) const OUTBOUND: &str = "outbound";
pub(crate) const INBOUND: &str = "inbound";

/// Authentication Header.
pub(crate) const PROTOCOL_AH: u8 = 51;

/// Low 32 bits.
pub(crate) const LOW: u64 = 0xffff_ffff;

/// One SA of the gateway, whose site is number 1; the peer's is number 2.
#[derive(Clone, Debug)]
pub(crate) struct Sa {
    pub(crate) direction: &'static str,
    /// Which of the networks of the sites it connects: `10.1.NET.0/24` and `fd01:0:0:NET::/64`
    /// here, `10.2.NET.0/24` and `fd02:0:0:NET::/64` there.
    pub(crate) net: u16,
    pub(crate) spi: u32,
    /// True for outer IPv6.
    pub(crate) six: bool,
    /// Transport mode, between the hosts of the networks.
    pub(crate) transport: bool,
    pub(crate) algorithm: Algorithm,
    pub(crate) esn: bool,
    pub(crate) sequence: u64,
    pub(crate) window: u32,
    pub(crate) encapsulated: bool,
    /// More lines of its section.
    pub(crate) lines: String,
}

impl Sa {
    fn new(direction: &'static str, spi: u32) -> Sa {
        Sa {
            direction,
            net: 0,
            spi,
            six: false,
            transport: false,
            algorithm: Algorithm::Aes128Gcm16,
            esn: false,
            sequence: 0,
            window: 64,
            encapsulated: false,
            lines: String::new(),
        }
    }

    pub(crate) fn outbound() -> Sa {
        Sa::new(OUTBOUND, 0x1001)
    }

    pub(crate) fn inbound() -> Sa {
        Sa::new(INBOUND, 0x2001)
    }

    /// By which policies call it.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.direction, self.net)
    }

    /// The SA with more lines in its section.
    pub(crate) fn with(self, lines: &str) -> Sa {
        Sa { lines: format!("{}{lines}\n", self.lines), ..self }
    }

    /// Source and destination of the outer header; in transport mode of the packets.
    pub(crate) fn outer(&self) -> (IpAddr, IpAddr) {
        if self.transport {
            return self.inner(self.six);
        }
        let us = if self.six { "2001:db8::1" } else { "192.0.2.1" }.parse().unwrap();
        let peer = if self.six { "2001:db8::2" } else { "192.0.2.2" }.parse().unwrap();
        if self.direction == OUTBOUND { (us, peer) } else { (peer, us) }
    }

    /// Source and destination of an inner packet.
    pub(crate) fn inner(&self, six: bool) -> (IpAddr, IpAddr) {
        let host = |site: u8| -> IpAddr {
            if six {
                [0xfd00 + u16::from(site), 0, 0, self.net, 0, 0, 0, 5].into()
            } else {
                let [high, low] = self.net.to_be_bytes();
                [10, site + 4 * high, low, 5].into()
            }
        };
        if self.direction == OUTBOUND { (host(1), host(2)) } else { (host(2), host(1)) }
    }

    /// Inner networks of a family: those of the source and of the destination.
    pub(crate) fn networks(&self, six: bool) -> (String, String) {
        if self.transport {
            let (source, destination) = self.inner(six);
            return (source.to_string(), destination.to_string());
        }
        let network = |site: u8| {
            if six {
                format!("fd0{site}:0:0:{:x}::/64", self.net)
            } else {
                let [high, low] = self.net.to_be_bytes();
                format!("10.{}.{low}.0/24", site + 4 * high)
            }
        };
        if self.direction == OUTBOUND { (network(1), network(2)) } else { (network(2), network(1)) }
    }

    /// A packet of a host that belongs into this SA.
    pub(crate) fn plain(&self, six: bool, id: u64) -> Plain {
        let (source, destination) = self.inner(six);
        Plain::new(source, destination, id)
    }

    /// Key and salt, which follow from the SPI and the networks.
    pub(crate) fn keymat(&self) -> Vec<u8> {
        let mut keymat = vec![0; self.algorithm.keymat_len()];
        Random::new(u64::from(self.spi) << 8 | u64::from(self.net)).fill(&mut keymat);
        keymat
    }

    /// Its section of a configuration.
    pub(crate) fn toml(&self) -> String {
        let (source, destination) = self.outer();
        let Sa { direction, spi, algorithm, esn, sequence, window, .. } = self;
        let (name, key) = (self.name(), hex::encode(self.keymat()));
        let mode = if self.transport { "transport" } else { "tunnel" };
        let protocol = algorithm.protocol().to_string().to_lowercase();
        let encapsulation = if self.encapsulated {
            "encapsulation = { source_port = 4500, destination_port = 4500 }\n"
        } else {
            ""
        };
        let short = algorithm.has_short_icv() && *direction == OUTBOUND;
        let short = if short { "allow_short_icv = true\n" } else { "" };
        let window = format!("replay_window = {window}\n");
        let lines = &self.lines;
        let window = if lines.contains("replay_window") { "" } else { &window };
        format!(
            "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = \"{spi:#x}\"\n\
             mode = \"{mode}\"\nprotocol = \"{protocol}\"\n\
             source = \"{source}\"\ndestination = \"{destination}\"\nalgorithm = \"{algorithm}\"\n\
             key = \"{key}\"\nesn = {esn}\nsequence = {sequence}\n\
             {window}{short}{encapsulation}{lines}"
        )
    }

    /// The policies that lead through it.
    pub(crate) fn policies(&self) -> String {
        let policy = |six| {
            let (source, destination) = self.networks(six);
            policy(self.direction, &source, &destination, "protect", Some(&self.name()))
        };
        if self.transport { policy(self.six) } else { policy(false) + &policy(true) }
    }

    /// The ESP packet with this number around any text. An IV of 8 octets is not the number: a
    /// receiver must take the one on the wire.
    pub(crate) fn seal(&self, seq: u64, text: &[u8]) -> Vec<u8> {
        let low = u32::try_from(seq & LOW).unwrap();
        let mut esp = [self.spi.to_be_bytes(), low.to_be_bytes()].concat();
        esp.extend([!seq; 2].map(u64::to_be_bytes).concat().iter().take(self.algorithm.iv_len()));
        esp.extend(text);
        esp.resize(esp.len() + self.algorithm.icv_len(), 0);
        let key = RustCrypto.key(self.algorithm, &Keymat::new(self.keymat())).unwrap();
        let esn_high = self.esn.then(|| u32::try_from(seq >> 32).unwrap());
        RustCrypto.seal(&mut [Op { key: &key, esn_high, esp: &mut esp }]);
        esp
    }

    /// The text of an ESP packet of this SA.
    #[track_caller]
    pub(crate) fn open(&self, seq: u64, esp: &[u8]) -> Vec<u8> {
        let mut esp = esp.to_vec();
        let key = RustCrypto.key(self.algorithm, &Keymat::new(self.keymat())).unwrap();
        let esn_high = self.esn.then(|| u32::try_from(seq >> 32).unwrap());
        let mut status = [Status::Pending];
        RustCrypto.open(&mut [Op { key: &key, esn_high, esp: &mut esp }], &mut status);
        assert!(matches!(status, [Status::Authentic(_)]), "number {seq} is not authentic");
        esp[self.algorithm.text_at()..esp.len() - self.algorithm.icv_len()].to_vec()
    }

    /// The text around a payload: default padding to the block of the algorithm, pad length, next
    /// header.
    pub(crate) fn text(&self, payload: &[u8], next_header: u8) -> Vec<u8> {
        padded(payload, next_header, self.algorithm.block_len())
    }

    /// A packet in transport mode, made of one without options or extension headers.
    pub(crate) fn transported(&self, seq: u64, packet: &[u8]) -> Vec<u8> {
        let (at, protocol_at) = if packet[0] >> 4 == 6 { (40, 6) } else { (20, 9) };
        let esp = self.seal(seq, &self.text(&packet[at..], packet[protocol_at]));
        if self.encapsulated {
            replaced(packet, ip::PROTOCOL_UDP, &datagram(4500, &esp))
        } else {
            replaced(packet, ip::PROTOCOL_ESP, &esp)
        }
    }

    /// Outer headers around an ESP packet.
    pub(crate) fn wrap(&self, esp: &[u8]) -> Vec<u8> {
        let (source, destination) = self.outer();
        if self.encapsulated {
            ip_packet(source, destination, ip::PROTOCOL_UDP, &datagram(4500, esp))
        } else {
            ip_packet(source, destination, ip::PROTOCOL_ESP, esp)
        }
    }

    /// A whole packet with any text.
    pub(crate) fn with_text(&self, seq: u64, text: &[u8]) -> Vec<u8> {
        self.wrap(&self.seal(seq, text))
    }

    /// A whole packet around an inner one.
    pub(crate) fn packet(&self, seq: u64, inner: &[u8]) -> Vec<u8> {
        self.with_text(seq, &self.text(inner, next_header(inner)))
    }
}

/// A section of a configuration.
pub(crate) fn policy(
    direction: &str,
    source: &str,
    destination: &str,
    action: &str,
    sa: Option<&str>,
) -> String {
    let sa = sa.map(|name| format!("sa = \"{name}\"\n")).unwrap_or_default();
    format!(
        "[[policy]]\ndirection = \"{direction}\"\nsource = \"{source}\"\n\
         destination = \"{destination}\"\naction = \"{action}\"\n{sa}"
    )
}

/// A configuration with SAs, and policies in front of theirs.
pub(crate) fn config_with(policies: &str, sas: &[Sa]) -> String {
    let head = "[interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\n\
                [lab]\nstatic_keys = true\n";
    let sections: String = sas.iter().map(Sa::toml).collect();
    let through: String = sas.iter().map(Sa::policies).collect();
    [head, &sections, policies, &through].concat()
}

/// A configuration with SAs and the policies that lead through them.
pub(crate) fn config(sas: &[Sa]) -> String {
    config_with("", sas)
}

/// A UDP datagram to port 4500 without a checksum.
pub(crate) fn datagram(source_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_LEN];
    let len = u16::try_from(udp::HEADER_LEN + payload.len()).unwrap();
    udp::emit(&mut datagram, source_port, 4500, len, 0);
    datagram.extend(payload);
    datagram
}

/// The text of an ESP packet: payload, default padding, pad length, next header.
pub(crate) fn text(payload: &[u8], next_header: u8) -> Vec<u8> {
    padded(payload, next_header, 4)
}

fn padded(payload: &[u8], next_header: u8, block: usize) -> Vec<u8> {
    let pad_len = u8::try_from(payload.len().wrapping_add(2).wrapping_neg() % block).unwrap();
    let mut text = payload.to_vec();
    text.extend(1..=pad_len);
    text.extend([pad_len, next_header]);
    text
}

/// A packet without options or extension headers that has another protocol and payload.
pub(crate) fn replaced(packet: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    if packet[0] >> 4 == 6 {
        let mut packet = [&packet[..40], payload].concat();
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet[6] = protocol;
        return packet;
    }
    changed(&[&packet[..20], payload].concat(), |packet| {
        packet[2..4].copy_from_slice(&(20 + len).to_be_bytes());
        packet[9] = protocol;
    })
}

/// The next header that names a packet.
pub(crate) fn next_header(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 6 { ip::PROTOCOL_IPV6 } else { ip::PROTOCOL_IPIP }
}

/// What is left of a packet after one hop.
pub(crate) fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        let header_len = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let sum = checksum::internet(&packet[..header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Changes octets of an IPv4 header and corrects its checksum.
pub(crate) fn changed(packet: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut packet = packet.to_vec();
    change(&mut packet);
    if packet[0] >> 4 == 4 {
        let header_len = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let sum = checksum::internet(&packet[..header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The same packet with another TOS or traffic class octet.
pub(crate) fn with_tos(packet: &[u8], tos: u8) -> Vec<u8> {
    let parsed = ip::parse(packet).unwrap();
    let mut packet = packet.to_vec();
    ip::set_tos(&mut packet, &parsed, tos);
    packet
}

/// An Ethernet frame around an IP packet, with a tag if one is given.
pub(crate) fn framed(packet: &[u8], vlan: Option<u16>) -> Vec<u8> {
    let ether_type = match packet.first() {
        Some(first) if first >> 4 == 6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    };
    let (to, from) = (Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 8]));
    culvert_sim::plain::link_frame(to, from, vlan, ether_type, packet)
}

/// Outer header and ESP packet apart.
#[track_caller]
pub(crate) fn unwrapped(packet: &[u8]) -> (ip::Packet, &[u8]) {
    let outer = ip::parse(packet).unwrap();
    assert_eq!(outer.total_len(), packet.len());
    let at = match outer.protocol() {
        ip::PROTOCOL_ESP | PROTOCOL_AH => outer.upper_at(),
        ip::PROTOCOL_UDP => outer.upper_at() + udp::HEADER_LEN,
        other => panic!("protocol {other}"),
    };
    (outer, &packet[at..])
}

/// An authentic packet with this number.
pub(crate) fn numbered(sa: &Sa, seq: u64) -> Vec<u8> {
    sa.packet(seq, &sa.plain(false, seq).packet())
}

/// The last octet of the ICV changed.
pub(crate) fn forged(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    *packet.last_mut().unwrap() ^= 0x10;
    packet
}
