//! The cases: forms of SAs, and what both ends are configured with.

use std::fmt::Write as _;
use std::path::Path;

use sha2::Digest;
use sha2::Sha256;

/// Addresses of the guest behind its end of the tunnel, IPv4 and IPv6.
pub(crate) const INNER: [&str; 2] = ["192.168.100.1", "fd0a::1"];
/// Addresses of the host behind culvert.
pub(crate) const HOST: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Its networks.
pub(crate) const HOST_NETS: [&str; 2] = ["10.1.0.0/24", "fd01::/64"];
/// On the wire: the gateway, the guest.
pub(crate) const ENDS: [[&str; 2]; 2] = [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]];
/// With ESN, the last number used: the second packet is beyond 2^32 - 1.
pub(crate) const LAST: u32 = 0xffff_fffe;

/// What protects a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    EspTunnel,
    EspTransport,
    AhTunnel,
    AhTransport,
    /// AH around ESP, both in transport mode.
    AhAroundEsp,
}

/// An algorithm in the words of both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Algorithm {
    keyword: &'static str,
    /// Octets of key for each of `linux`.
    octets: &'static [usize],
    /// What stands before and behind each key.
    linux: &'static [(&'static str, &'static str)],
}

const fn gcm(keyword: &'static str, octets: &'static [usize]) -> Algorithm {
    Algorithm { keyword, octets, linux: &[("aead 'rfc4106(gcm(aes))'", "128")] }
}

/// The algorithms.
pub(crate) const GCM_128: Algorithm = gcm("aes128gcm16", &[20]);
pub(crate) const GCM_256: Algorithm = gcm("aes256gcm16", &[36]);
pub(crate) const CHACHA: Algorithm = Algorithm {
    keyword: "chacha20poly1305",
    octets: &[36],
    linux: &[("aead 'rfc7539esp(chacha20,poly1305)'", "128")],
};
pub(crate) const CBC: Algorithm = Algorithm {
    keyword: "aes128-sha256",
    octets: &[16, 32],
    linux: &[("enc 'cbc(aes)'", ""), ("auth-trunc 'hmac(sha256)'", "128")],
};
pub(crate) const NULL: Algorithm = Algorithm {
    keyword: "null-sha256",
    octets: &[0, 32],
    linux: &[("enc 'ecb(cipher_null)'", ""), ("auth-trunc 'hmac(sha256)'", "128")],
};
pub(crate) const SHA_256: Algorithm =
    Algorithm { keyword: "sha256", octets: &[32], linux: &[("auth-trunc 'hmac(sha256)'", "128")] };

/// Every algorithm of ESP.
pub(crate) const ESP: [Algorithm; 5] = [GCM_128, GCM_256, CHACHA, CBC, NULL];

/// A case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Makes its keys different from those of other cases.
    pub(crate) number: u8,
    pub(crate) form: Form,
    /// Of ESP.
    pub(crate) algorithm: Algorithm,
    /// The ends of a tunnel are IPv6.
    pub(crate) outer_v6: bool,
    pub(crate) encapsulated: bool,
    pub(crate) esn: bool,
}

/// An SA, the same at both ends.
#[derive(Clone, Debug)]
pub(crate) struct Sa {
    pub(crate) protocol: &'static str,
    pub(crate) source: &'static str,
    pub(crate) destination: &'static str,
    pub(crate) spi: u32,
    /// From culvert to the guest.
    pub(crate) to_guest: bool,
    /// Families of the packets in it.
    pub(crate) families: Vec<usize>,
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl Case {
    /// Packets are those of host and guest themselves.
    pub(crate) fn is_transport(&self) -> bool {
        !matches!(self.form, Form::EspTunnel | Form::AhTunnel)
    }

    pub(crate) fn mode(&self) -> &'static str {
        if self.is_transport() { "transport" } else { "tunnel" }
    }

    /// Families of the packets of hosts; what Linux cannot do is left out.
    pub(crate) fn families(&self) -> std::ops::Range<usize> {
        0..2
    }

    /// The protocols of what crosses the wire.
    pub(crate) fn outer_protocol(&self) -> u8 {
        match self.form {
            _ if self.encapsulated => 17,
            Form::EspTunnel | Form::EspTransport => 50,
            Form::AhTunnel | Form::AhTransport | Form::AhAroundEsp => 51,
        }
    }

    /// Where the guest answers.
    pub(crate) fn guest_address(&self, family: usize) -> &'static str {
        if self.is_transport() { ENDS[family][1] } else { INNER[family] }
    }

    /// Protocols and algorithms around a packet, the innermost first.
    fn layers(&self) -> Vec<(&'static str, Algorithm)> {
        let (esp, ah) = (("esp", self.algorithm), ("ah", SHA_256));
        match self.form {
            Form::EspTunnel | Form::EspTransport => vec![esp],
            Form::AhTunnel | Form::AhTransport => vec![ah],
            Form::AhAroundEsp => vec![esp, ah],
        }
    }

    /// Its SAs, of each path and direction the innermost first.
    pub(crate) fn sas(&self) -> Vec<Sa> {
        let paths = match (self.is_transport(), self.outer_v6) {
            (true, _) => vec![([HOST[0], ENDS[0][1]], vec![0]), ([HOST[1], ENDS[1][1]], vec![1])],
            (false, v6) => vec![(ENDS[usize::from(v6)], vec![0, 1])],
        };
        let mut sas: Vec<Sa> = Vec::new();
        for (ends, families) in paths {
            for to_guest in [true, false] {
                for (protocol, algorithm) in self.layers() {
                    let [source, destination] = if to_guest { ends } else { [ends[1], ends[0]] };
                    let index = u8::try_from(sas.len()).expect("few");
                    let spi = 0x1001 + 0x1000 * u32::from(!to_guest) + u32::from(index);
                    let octets = algorithm.octets.iter().sum::<usize>();
                    let octets = u8::try_from(octets).expect("few");
                    let octet = |at| Sha256::digest([self.number, index, at])[0];
                    let key = (0..octets).map(octet).collect();
                    let families = families.clone();
                    sas.push(Sa {
                        protocol,
                        source,
                        destination,
                        spi,
                        to_guest,
                        families,
                        algorithm,
                        key,
                    });
                }
            }
        }
        sas
    }

    /// Configuration of the gateway.
    pub(crate) fn config(&self, directory: &Path, sas: &[Sa]) -> String {
        let mut text = format!(
            "state_directory = \"{}\"\n[interfaces]\nprotected = [\"lan0\"]\n\
             unprotected = [\"wan0\"]\nmode = \"native\"\n[lab]\nstatic_keys = true\n",
            directory.join("state").display()
        );
        for sa in sas {
            write!(
                text,
                "[[sa]]\nname = \"{}\"\ndirection = \"{}\"\nspi = {}\nprotocol = \"{}\"\n\
                 mode = \"{}\"\nsource = \"{}\"\ndestination = \"{}\"\n\
                 algorithm = \"{}\"\nkey = \"{}\"\nesn = {}\nsequence = {}\n",
                sa.name(),
                if sa.to_guest { "outbound" } else { "inbound" },
                sa.spi,
                sa.protocol,
                self.mode(),
                sa.source,
                sa.destination,
                sa.algorithm.keyword,
                hex::encode(&sa.key),
                self.esn,
                if self.esn { LAST } else { 0 },
            )
            .expect("text");
            if self.encapsulated {
                text += "encapsulation = { source_port = 4500, destination_port = 4500 }\n";
            }
        }
        for family in self.families() {
            for to_guest in [true, false] {
                self.write_policy(&mut text, family, to_guest, sas);
            }
        }
        text
    }

    fn write_policy(&self, text: &mut String, family: usize, to_guest: bool, sas: &[Sa]) {
        let of = sas.iter().filter(|sa| sa.to_guest == to_guest && sa.families.contains(&family));
        let names: Vec<String> = of.map(|sa| format!("\"{}\"", sa.name())).collect();
        let (host, guest) = (HOST_NETS[family], self.guest_address(family));
        let (source, destination) = if to_guest { (host, guest) } else { (guest, host) };
        write!(
            text,
            "[[policy]]\ndirection = \"{}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\naction = \"protect\"\nsa = [{}]\n",
            if to_guest { "outbound" } else { "inbound" },
            names.join(", "),
        )
        .expect("text");
    }
}

impl Sa {
    pub(crate) fn name(&self) -> String {
        format!("sa-{:x}", self.spi)
    }

    /// Algorithms and keys as `ip xfrm state` wants them.
    pub(crate) fn linux_algorithm(&self) -> String {
        let mut rest = &self.key[..];
        let mut text = String::new();
        for (&octets, (before, behind)) in self.algorithm.octets.iter().zip(self.algorithm.linux) {
            let (key, others) = rest.split_at(octets);
            rest = others;
            let key = if key.is_empty() { "''".into() } else { format!("0x{}", hex::encode(key)) };
            write!(text, "{before} {key} {behind} ").expect("text");
        }
        text
    }
}
