//! A pair of SAs between two gateways, and what replaces it when it is rekeyed.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Protocol;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Peer;
use culvert_engine::options::Fragmentation;
use culvert_engine::options::Lookup;
use culvert_engine::options::Receiving;
use culvert_engine::options::Sending;
use culvert_esp::Encapsulation;
use culvert_esp::Lifetime;
use culvert_esp::Limits;
use culvert_esp::Mode;
use culvert_esp::Spi;
use culvert_esp::outbound::EPOCH_SEQUENCE_MAX;
use culvert_esp::replay;
use culvert_esp::tfc::TfcPadding;
use culvert_spd::Group;
use culvert_wire::esp::NAT_TRAVERSAL_PORT;

use crate::random::Random;

/// One pair of SAs. Arrays are indexed by the side that *sends* with the SA, or owns the address.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Its group, and part of its networks.
    pub index: u8,
    /// Which pair of the run it is: no two have the same.
    pub serial: u32,
    /// The gateways of the two sides.
    pub ends: [usize; 2],
    /// What of a packet it protects. In transport mode hosts have the addresses of the endpoints.
    pub mode: Mode,
    /// Tunnel endpoints.
    pub outer: [IpAddr; 2],
    /// With UDP encapsulation: where the other side sees each side, behind its NAT if it has one.
    pub seen_at: Option<[Peer; 2]>,
    /// Algorithm of both SAs, and with it the protocol.
    pub algorithm: Algorithm,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay window of the receiver.
    pub window: [u32; 2],
    /// SPIs; sometimes the same number both ways.
    pub spi: [Spi; 2],
    /// Key and salt.
    pub keymat: [Keymat; 2],
    /// Last number used before the run.
    pub start: [u64; 2],
    /// The epoch of each side's IVs, if its keys were negotiated; its numbers are not leased then.
    pub epoch: [Option<u64>; 2],
    /// Packets after which the SAs end.
    pub packets_max: Option<u64>,
    /// The worker that has the SA for its own packets (RFC 9611).
    pub resource: [Option<WorkerId>; 2],
    /// Octets after which each SA ends.
    pub bytes_max: Option<u64>,
    /// Seconds after which each SA ends; at least 2.
    pub seconds_max: Option<u64>,
    /// Which outer addresses take part in finding an SA.
    pub lookup: Lookup,
    /// What does not fit is fragmented after it was sealed, if it may be.
    pub fragments_after: bool,
    /// Padding for traffic flow confidentiality.
    pub tfc: TfcPadding,
    /// Nanoseconds between dummy packets.
    pub dummy_interval: Option<u64>,
    /// Nanoseconds without a packet after which a NAT keepalive is sent.
    pub keepalive: Option<u64>,
}

impl Tunnel {
    /// A fresh pair of SAs between gateways 0 and 1: AES-128-GCM, raw ESP over IPv4, no ESN.
    ///
    /// # Panics
    /// When the index leaves no room for its SPIs or addresses.
    #[must_use]
    pub fn ordinary(index: u8) -> Tunnel {
        let algorithm = Algorithm::Aes128Gcm16;
        let spi = 0x1000 + 16 * u32::from(index);
        Tunnel {
            index,
            serial: index.into(),
            ends: [0, 1],
            mode: Mode::Tunnel,
            outer: endpoints(index, [0, 1], false),
            seen_at: None,
            algorithm,
            esn: false,
            window: [1024; 2],
            spi: [0, 1].map(|side| Spi::new(spi + side).expect("above 255")),
            keymat: [0x11, 0x22].map(|octet| key(algorithm, octet ^ index)),
            start: [0; 2],
            epoch: [None; 2],
            packets_max: None,
            bytes_max: None,
            seconds_max: None,
            lookup: Lookup::default(),
            fragments_after: false,
            tfc: TfcPadding::Off,
            dummy_interval: None,
            keepalive: None,
            resource: [None; 2],
        }
    }

    /// The same with tunnel endpoints of the other family.
    #[must_use]
    pub fn with_outer(self, six: bool) -> Tunnel {
        let outer = endpoints(self.index, self.ends, six);
        Tunnel { outer, ..self }
    }

    /// The same with another algorithm, and other keys.
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Tunnel {
        let keymat = [0x33, 0x44].map(|octet| key(algorithm, octet ^ self.index));
        Tunnel { algorithm, keymat, ..self }
    }

    /// The same, encapsulated in UDP.
    #[must_use]
    pub fn with_udp(self) -> Tunnel {
        let seen_at = self.outer.map(|address| Peer { address, port: NAT_TRAVERSAL_PORT });
        Tunnel { seen_at: Some(seen_at), ..self }
    }

    /// The same in the other mode.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Tunnel {
        Tunnel { mode, ..self }
    }

    /// A pair of SAs with a group of its own.
    pub(crate) fn draw(random: &mut Random, index: u8, ends: [usize; 2]) -> Tunnel {
        let mode = match index > 0 && random.chance(200) {
            true => Mode::Transport,
            false => Mode::Tunnel,
        };
        let is_ah = random.chance(200);
        let algorithm = match is_ah {
            true => random.pick(&Algorithm::ALL_AH),
            false => random.pick(&Algorithm::ALL),
        };
        let esn = random.chance(500);
        let outer = endpoints(index, ends, random.chance(500));
        let udp = !is_ah && random.chance(400);
        let ports = [0, 1].map(|_| random.pick(&[NAT_TRAVERSAL_PORT, 1024, 61234]));
        let is_v4 = outer[0].is_ipv4();
        let translated = is_v4 && random.chance(500);
        let seen_at = [0, 1].map(|side| Peer {
            address: if translated { public_address(index, side) } else { outer[side] },
            port: if is_v4 { ports[side] } else { NAT_TRAVERSAL_PORT },
        });
        let is_plain = mode == Mode::Transport || is_ah;
        let tfc = match random.below(10) {
            0 if !is_plain => TfcPadding::To(600),
            1 if !is_plain => TfcPadding::Mtu,
            _ => TfcPadding::Off,
        };
        let second = 1_000_000_000;
        let dummies = !is_plain && random.chance(150);
        let dummy_interval = dummies.then(|| random.between(second / 2, 3 * second));
        let has_plain_lengths = tfc == TfcPadding::Off && dummy_interval.is_none();
        let tunnel = Tunnel {
            mode,
            outer,
            ends,
            seen_at: udp.then_some(seen_at),
            esn,
            window: [0, 1].map(|_| draw_window(random)),
            start: [0, 1].map(|_| draw_start(random, esn)),
            packets_max: random.chance(150).then(|| random.between(20, 300)),
            bytes_max: (has_plain_lengths && random.chance(150))
                .then(|| random.between(20_000, 200_000)),
            seconds_max: random.chance(150).then(|| random.between(2, 20)),
            lookup: match random.below(10) {
                0 | 1 => Lookup::Spi,
                // A peer that may be seen elsewhere has no source to be found by.
                2 | 3 if !udp => Lookup::SpiDestinationSource,
                _ => Lookup::SpiDestination,
            },
            fragments_after: random.chance(300),
            tfc,
            dummy_interval,
            keepalive: (udp && random.chance(300)).then(|| random.between(second, 20 * second)),
            ..Tunnel::ordinary(index)
        };
        let tunnel = Tunnel { algorithm, ..tunnel };
        tunnel.with_fresh_secrets(random, index.into())
    }

    /// The pair that replaces this one: other SPIs and keys, the first number is 1, the window
    /// empty. The peers are where they are seen now.
    pub(crate) fn successor(
        &self,
        random: &mut Random,
        serial: u32,
        seen_at: Option<[Peer; 2]>,
    ) -> Tunnel {
        let start = [0; 2];
        Tunnel { start, seen_at, ..self.clone() }.with_fresh_secrets(random, serial)
    }

    /// A pair of the same group that only some worker of each side has for its own packets.
    pub(crate) fn of_workers(
        &self,
        random: &mut Random,
        serial: u32,
        workers: [WorkerId; 2],
    ) -> Tunnel {
        let resource = workers.map(Some);
        Tunnel { resource, ..self.clone() }.with_fresh_secrets(random, serial)
    }

    fn with_fresh_secrets(self, random: &mut Random, serial: u32) -> Tunnel {
        let spi = 0x1000 + (u32::from(random.octet()) << 24) + 2 * serial;
        let same_spi = random.chance(300);
        let len = self.algorithm.keymat_len();
        let keymat = [0, 1].map(|_| {
            let mut octets = vec![0; len];
            random.fill(&mut octets);
            Keymat::new(octets)
        });
        let spi = [0, u32::from(!same_spi)].map(|add| Spi::new(spi + add).expect("above 255"));
        Tunnel { serial, spi, keymat, ..self }
    }

    /// Gives a side an epoch, if its IVs have room for one and its numbers leave it.
    pub(crate) fn set_epoch(&mut self, side: usize, epoch: u64) {
        if !self.algorithm.has_implicit_iv() && self.start[side] < EPOCH_SEQUENCE_MAX / 2 {
            self.epoch[side] = Some(epoch);
        }
    }

    /// The last sequence number of a side.
    #[must_use]
    pub fn last_number(&self, side: usize) -> u64 {
        match (self.esn, self.epoch[side]) {
            (false, _) => u32::MAX.into(),
            (true, Some(_)) => EPOCH_SEQUENCE_MAX,
            (true, None) => u64::MAX,
        }
    }

    /// The side that a gateway is, if it is one.
    #[must_use]
    pub fn side_of(&self, gateway: usize) -> Option<usize> {
        self.ends.iter().position(|&end| end == gateway)
    }

    /// Where `side` sends: the other side's address as it is seen from there at first.
    #[must_use]
    pub fn peer_address(&self, side: usize) -> IpAddr {
        let other = 1 - side;
        self.seen_at.map_or(self.outer[other], |seen_at| seen_at[other].address)
    }

    /// Makes replay windows, where there are any, at least `least` packets wide.
    pub(crate) fn widen(&mut self, least: u32) {
        for window in self.window.iter_mut().filter(|window| **window > 0) {
            *window = least.max(*window);
        }
    }

    /// The soft and hard limits of its SAs.
    #[must_use]
    pub fn limits(&self) -> (Limits, Limits) {
        let hard = Limits {
            seconds: self.seconds_max,
            bytes: self.bytes_max,
            packets: self.packets_max,
            ..Limits::default()
        };
        let half = |limit: Option<u64>| limit.map(|limit| limit / 2);
        let soft = Limits {
            seconds: half(hard.seconds),
            bytes: half(hard.bytes),
            packets: half(hard.packets),
            ..Limits::default()
        };
        (soft, hard)
    }

    /// Its SAs come to an end some time.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.limits().1 != Limits::default()
    }

    /// The length of every packet follows from what is in it.
    #[must_use]
    pub fn has_plain_lengths(&self) -> bool {
        self.tfc == TfcPadding::Off && self.dummy_interval.is_none()
    }

    /// ESP or AH.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.algorithm.protocol()
    }

    /// The SA that side `sender` sends with, as `side` knows it.
    ///
    /// # Panics
    /// When the limits contradict each other: our own error.
    #[must_use]
    pub fn sa(&self, side: usize, sender: usize) -> SaSpec {
        let direction = match side == sender {
            true => Direction::Outbound,
            false => Direction::Inbound,
        };
        // Each side knows its own address, and sees the other behind its NAT.
        let mut addresses = self.outer;
        let mut ports = [NAT_TRAVERSAL_PORT; 2];
        if let Some(seen_at) = self.seen_at {
            addresses[1 - side] = seen_at[1 - side].address;
            ports[1 - side] = seen_at[1 - side].port;
        }
        let outer = (addresses[sender], addresses[1 - sender]);
        let crypto = (self.algorithm, self.keymat[sender].clone());
        let (soft, hard) = self.limits();
        let lifetime = Lifetime::new(soft, hard);
        // Checksums are those that the sender made, for the addresses that it knows.
        let original = self.seen_at.filter(|_| self.mode == Mode::Transport);
        let original = original.map(|seen_at| (self.outer[sender], seen_at[1 - sender].address));
        SaSpec {
            mode: self.mode,
            esn: self.esn,
            sequence: self.start[sender],
            epoch: self.epoch[side],
            replay_window: self.window[sender],
            encapsulation: self.seen_at.map(|_| Encapsulation {
                source_port: ports[sender],
                destination_port: ports[1 - sender],
            }),
            lifetime: lifetime.expect("half is less"),
            resource: self.resource[sender].filter(|_| direction == Direction::Outbound),
            lookup: self.lookup,
            receiving: Receiving { original, ..Receiving::default() },
            sending: Sending {
                tfc: self.tfc,
                dummy_interval: self.dummy_interval,
                keepalive: self.keepalive,
                fragmentation: match self.fragments_after {
                    true => Fragmentation::After,
                    false => Fragmentation::Before,
                },
                ..Sending::default()
            },
            ..SaSpec::new(direction, self.spi[sender], outer, crypto, Group(self.index.into()))
        }
    }
}

/// The endpoints of tunnel `index` between two gateways.
fn endpoints(index: u8, ends: [usize; 2], six: bool) -> [IpAddr; 2] {
    ends.map(|gateway| {
        let gateway = u8::try_from(gateway).expect("few");
        match six {
            false => Ipv4Addr::new(192, 0, 2 + gateway, 10 + index).into(),
            true => {
                let host = 0x10 + u16::from(index);
                Ipv6Addr::new(0x2001, 0xdb8, 0xff, gateway.into(), 0, 0, 0, host).into()
            }
        }
    })
}

/// Where a NAT shows the endpoint of tunnel `index` to the other side.
fn public_address(index: u8, side: usize) -> IpAddr {
    let side = u8::try_from(side).expect("two sides");
    Ipv4Addr::new(203, 0, 115, 2 * index + side).into()
}

/// A key of equal octets.
fn key(algorithm: Algorithm, octet: u8) -> Keymat {
    Keymat::new(vec![octet; algorithm.keymat_len()])
}

/// A window size: mostly an ordinary one, sometimes an odd one.
fn draw_window(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => replay::SIZE_MAX,
        1 => 64 + u32::from(random.octet()),
        2 => 1024,
        3 => 4096,
        _ => random.pick(&[64, 128, 256]),
    }
}

/// The number before the first: a fresh SA, one anywhere, or one close to a boundary.
fn draw_start(random: &mut Random, esn: bool) -> u64 {
    const BOUNDARY: u64 = 1 << 32;
    match random.below(8) {
        0..4 => 0,
        4 => random.below(BOUNDARY - 10_000),
        5 | 6 => BOUNDARY - 1 - random.below(200),
        _ if esn => u64::MAX - random.below(200),
        _ => 1,
    }
}
