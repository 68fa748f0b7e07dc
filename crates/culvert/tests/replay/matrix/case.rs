//! The cases: every form of an SA, counted, each with addresses, SPIs and keys of its own.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_sim::random::Random;
use serde_json::Value;
use serde_json::json;

use crate::packets::policy;

/// Last number used before an SA with ESN starts, so that the high half changes in it.
const NEAR_BOUNDARY: u64 = (5 << 32) - 2;

/// Which way a case is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// culvert seals, the witness opens.
    Out,
    /// The witness seals, culvert opens.
    In,
}

/// One form of an SA.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// From 1; addresses, SPI and key follow from it.
    pub(super) number: u16,
    pub(super) is_tunnel: bool,
    /// IPv6 outside; in transport mode the same as inside.
    pub(super) outer_six: bool,
    pub(super) inner_six: bool,
    pub(super) algorithm: Algorithm,
    pub(super) encapsulated: bool,
    pub(super) esn: bool,
    /// Last number used, or highest seen.
    pub(super) sequence: u64,
    /// Transport mode between the gateways, around another SA of theirs.
    pub(super) is_around: bool,
}

impl Case {
    /// A case in transport mode without ESN.
    pub(super) fn transport(number: u16, algorithm: Algorithm, six: bool) -> Case {
        Case {
            number,
            is_tunnel: false,
            outer_six: six,
            inner_six: six,
            algorithm,
            encapsulated: false,
            esn: false,
            sequence: 0,
            is_around: false,
        }
    }

    /// A case in tunnel mode without ESN, of one family.
    pub(super) fn tunnel(number: u16, algorithm: Algorithm, six: bool) -> Case {
        Case { is_tunnel: true, ..Case::transport(number, algorithm, six) }
    }

    /// An SA of AH around the packets of this one, in transport mode.
    pub(super) fn within_ah(&self) -> Case {
        let number = self.number + 0x1000;
        let (mode, outer_six) = (self.is_tunnel, self.outer_six);
        let ah = Case::transport(number, Algorithm::AhSha256, outer_six);
        Case { is_around: mode, ..ah }
    }

    /// An SA of ESP around the packets of this one, a tunnel between the same gateways.
    pub(super) fn within_a_tunnel(&self) -> Case {
        Case::tunnel(self.number + 0x1000, Algorithm::ChaCha20Poly1305, self.outer_six)
    }

    /// "ESP tunnel 4in6 aes128gcm16 UDP ESN".
    pub(super) fn name(&self) -> String {
        let family = |six| if six { '6' } else { '4' };
        let mode = if self.is_tunnel { "tunnel" } else { "transport" };
        let families = match self.is_tunnel {
            true => format!("{}in{}", family(self.inner_six), family(self.outer_six)),
            false => family(self.inner_six).to_string(),
        };
        let udp = if self.encapsulated { " UDP" } else { "" };
        let esn = if self.esn { " ESN" } else { "" };
        let protocol = self.algorithm.protocol();
        format!("{protocol} {mode} {families} {}{udp}{esn}", self.algorithm)
    }

    pub(super) fn spi(&self, way: Way) -> u32 {
        u32::from(self.number) + if way == Way::Out { 0x1_0000 } else { 0x2_0000 }
    }

    /// Which hosts and gateways: an SA around another has those of that one.
    fn pair(&self) -> u16 {
        self.number & 0xfff
    }

    /// Source and destination of the packets inside.
    pub(super) fn inner(&self, way: Way) -> (IpAddr, IpAddr) {
        let [high, low] = self.pair().to_be_bytes();
        let host = |site: u8| -> IpAddr {
            match self.inner_six {
                true => [0xfd00 + u16::from(site), 0, 0, 0, 0, 0, 0, self.pair()].into(),
                false => [10, site, high, low].into(),
            }
        };
        ordered(way, host(1), host(2))
    }

    /// Source and destination of the packets outside.
    pub(super) fn outer(&self, way: Way) -> (IpAddr, IpAddr) {
        if !self.is_tunnel && !self.is_around {
            return self.inner(way);
        }
        let [high, low] = self.pair().to_be_bytes();
        let gateway = |site: u8| -> IpAddr {
            match self.outer_six {
                true => [0x2001, 0xdb8, u16::from(site), 0, 0, 0, 0, self.pair()].into(),
                false => [172, 16 + site, high, low].into(),
            }
        };
        ordered(way, gateway(1), gateway(2))
    }

    fn key(&self, way: Way) -> String {
        let mut key = vec![0; self.algorithm.keymat_len()];
        Random::new(u64::from(self.spi(way))).fill(&mut key);
        hex::encode(key)
    }

    fn protocol(&self) -> &'static str {
        match self.algorithm.protocol() {
            Protocol::Esp => "esp",
            Protocol::Ah => "ah",
        }
    }

    fn mode(&self) -> &'static str {
        if self.is_tunnel { "tunnel" } else { "transport" }
    }

    /// The numbers of its packets.
    pub(super) fn numbers(&self, count: usize) -> Vec<u64> {
        (self.sequence + 1..).take(count).collect()
    }

    /// What the witness has to know.
    pub(super) fn description(&self, way: Way) -> Value {
        let (source, destination) = self.outer(way);
        json!({
            "name": self.name(),
            "protocol": self.protocol(),
            "mode": self.mode(),
            "algorithm": self.algorithm.keyword(),
            "key": self.key(way),
            "spi": self.spi(way),
            "source": source,
            "destination": destination,
            "encapsulated": self.encapsulated,
            "esn": self.esn,
        })
    }

    /// By which policies call it.
    pub(super) fn label(&self) -> String {
        format!("sa-{}", self.number)
    }

    fn direction(way: Way) -> &'static str {
        if way == Way::Out { "outbound" } else { "inbound" }
    }

    /// Its SA in a configuration.
    pub(super) fn sa(&self, way: Way) -> String {
        let (source, destination) = self.outer(way);
        let Case { number, algorithm, esn, sequence, .. } = self;
        let (direction, spi, key) = (Case::direction(way), self.spi(way), self.key(way));
        let (protocol, mode) = (self.protocol(), self.mode());
        let encapsulation = if self.encapsulated { "encapsulation = {}\n" } else { "" };
        let short = if way == Way::Out { "allow_short_icv = true\n" } else { "" };
        format!(
            "[[sa]]\nname = \"sa-{number}\"\ndirection = \"{direction}\"\nspi = {spi}\n\
             protocol = \"{protocol}\"\nmode = \"{mode}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\nalgorithm = \"{algorithm}\"\nkey = \"{key}\"\n\
             esn = {esn}\nsequence = {sequence}\n{encapsulation}{short}"
        )
    }

    /// Its SA, and the policy that leads through it.
    pub(super) fn sections(&self, way: Way) -> (String, String) {
        let (source, destination) = self.inner(way);
        let (source, destination) = (source.to_string(), destination.to_string());
        let name = self.label();
        let direction = Case::direction(way);
        (self.sa(way), policy(direction, &source, &destination, "protect", Some(&name)))
    }
}

fn ordered(way: Way, here: IpAddr, there: IpAddr) -> (IpAddr, IpAddr) {
    if way == Way::Out { (here, there) } else { (there, here) }
}

/// Every case of a protocol and mode, in a fixed order.
pub(super) fn all(protocol: Protocol, is_tunnel: bool) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let encapsulations: &[bool] = if protocol == Protocol::Esp { &[false, true] } else { &[false] };
    for &algorithm in Algorithm::all_of(protocol) {
        for (outer_six, inner_six) in [(false, false), (false, true), (true, false), (true, true)] {
            if !is_tunnel && outer_six != inner_six {
                continue;
            }
            for &encapsulated in encapsulations {
                for (esn, sequence) in [(false, 0), (true, NEAR_BOUNDARY)] {
                    let number = u16::try_from(cases.len() + 1).unwrap();
                    cases.push(Case {
                        number,
                        is_tunnel,
                        outer_six,
                        inner_six,
                        algorithm,
                        encapsulated,
                        esn,
                        sequence,
                        is_around: false,
                    });
                }
            }
        }
    }
    cases
}

/// A configuration with these SAs, and with policies for each.
pub(super) fn config(cases: &[Case], way: Way) -> String {
    let sections = cases.iter().map(|case| case.sections(way));
    let (sas, policies): (Vec<String>, Vec<String>) = sections.unzip();
    [HEAD, &sas.concat(), &policies.concat()].concat()
}

/// How every configuration here starts.
pub(super) const HEAD: &str = "[interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\n\
                               [lab]\nstatic_keys = true\n";
