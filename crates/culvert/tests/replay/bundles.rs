//! Transport mode, AH, and SA bundles: what one gateway makes, the other takes apart.

use culvert_aead::Algorithm;

use crate::packets::INBOUND;
use crate::packets::OUTBOUND;
use crate::packets::PROTOCOL_AH;
use crate::packets::Sa;
use crate::packets::changed;
use crate::packets::forwarded;
use crate::packets::policy;
use crate::packets::replaced;
use crate::support::Run;
use crate::support::replay;

/// A pair of SAs with one key: what the near gateway sends with and the far one receives with.
#[derive(Clone)]
struct Pair {
    name: &'static str,
    algorithm: Algorithm,
    transport: bool,
    /// Last octets of the ends; the hosts of the networks, where there is none.
    ends: Option<(u8, u8)>,
}

const ESP: Algorithm = Algorithm::Aes128Gcm16;
const AH: Algorithm = Algorithm::AhSha256;

impl Pair {
    fn tunnel(name: &'static str, algorithm: Algorithm, ends: (u8, u8)) -> Pair {
        Pair { name, algorithm, transport: false, ends: Some(ends) }
    }

    fn transport(name: &'static str, algorithm: Algorithm, ends: Option<(u8, u8)>) -> Pair {
        Pair { name, algorithm, transport: true, ends }
    }

    fn toml(&self, direction: &str, spi: u32) -> String {
        let base = Sa { spi, algorithm: self.algorithm, ..Sa::outbound() };
        let (source, destination) = match self.ends {
            Some((near, far)) => (format!("192.0.2.{near}"), format!("192.0.2.{far}")),
            None => ("10.1.0.5".to_owned(), "10.2.0.5".to_owned()),
        };
        let protocol = self.algorithm.protocol().to_string().to_lowercase();
        let mode = if self.transport { "transport" } else { "tunnel" };
        format!(
            "[[sa]]\nname = 'bound-{}'\ndirection = '{direction}'\nspi = {spi}\nmode = '{mode}'\n\
             protocol = '{protocol}'\nsource = '{source}'\ndestination = '{destination}'\n\
             algorithm = '{}'\nkey = '{}'\n",
            self.name,
            self.algorithm,
            hex::encode(base.keymat()),
        )
    }
}

/// A gateway with SAs of one direction and a policy through all of them, innermost first.
fn gateway(direction: &str, pairs: &[Pair]) -> String {
    let sas: String = (0x1001..).zip(pairs).map(|(spi, pair)| pair.toml(direction, spi)).collect();
    let names: Vec<String> = pairs.iter().map(|pair| format!("'bound-{}'", pair.name)).collect();
    let through = policy(direction, "10.1.0.5", "10.2.0.5", "protect", None);
    format!(
        "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\nstatic_keys = true\n\
         {sas}{through}sa = [{}]\n",
        names.join(", "),
    )
}

/// What is sealed comes out again; returns both runs.
#[track_caller]
fn there_and_back(pairs: &[Pair]) -> (Run, Run) {
    let plain: Vec<_> = (0..5).map(|id| Sa::outbound().plain(false, id).packet()).collect();
    let there = replay(&gateway(OUTBOUND, pairs), &plain, &[]);
    there.assert_all("forward");
    let mut sealed = there.sealed();
    let mut damaged = sealed[0].clone();
    *damaged.last_mut().unwrap() ^= 1;
    sealed.insert(0, damaged);
    let back = replay(&gateway(INBOUND, pairs), &[], &sealed);
    assert_eq!(back.outcomes()[0], "icv");
    assert_eq!(back.report.fates["forward"], 5, "{:?}", back.report);
    let expected: Vec<_> = plain.iter().map(|plain| forwarded(&forwarded(plain))).collect();
    assert_eq!(back.opened(), expected);
    (there, back)
}

/// P28: case 1 of RFC 2401 section 4.5, end to end: ESP, AH, and AH around ESP in transport mode.
#[test]
fn case_1_transport_end_to_end() {
    let esp = Pair::transport("esp", ESP, None);
    let ah = Pair::transport("ah", AH, None);
    there_and_back(std::slice::from_ref(&esp));
    there_and_back(std::slice::from_ref(&ah));
    let (there, _) = there_and_back(&[esp, ah]);
    for sealed in there.sealed() {
        assert_eq!(sealed[9], PROTOCOL_AH, "AH is outside");
        assert_eq!(sealed[20], 50, "and ESP inside");
    }
}

/// P28 A08: case 2, between gateways: ESP or AH in tunnel mode.
#[test]
fn case_2_tunnel_between_gateways() {
    there_and_back(&[Pair::tunnel("esp", ESP, (1, 2))]);
    there_and_back(&[Pair::tunnel("ah", AH, (1, 2))]);
}

/// P28: case 3, both: end to end inside a tunnel between gateways.
#[test]
fn case_3_transport_inside_a_tunnel() {
    let inner = Pair::transport("inner", ESP, None);
    for algorithm in [ESP, AH, Algorithm::Aes256CbcSha256] {
        there_and_back(&[inner.clone(), Pair::tunnel("outer", algorithm, (1, 2))]);
    }
}

/// P28: case 4, a remote host: a tunnel inside a tunnel, and AH in transport mode around ESP in
/// tunnel mode between the same ends.
#[test]
fn case_4_nested_tunnels() {
    let inner = Pair::tunnel("inner", ESP, (1, 2));
    there_and_back(&[inner.clone(), Pair::tunnel("outer", ESP, (3, 4))]);
    there_and_back(&[inner.clone(), Pair::tunnel("outer", AH, (1, 2))]);
    there_and_back(&[inner, Pair::transport("ah", AH, Some((1, 2)))]);
}

/// P09 P28: what comes through a part of the bundle only is dropped.
#[test]
fn a_bundle_has_to_be_whole() {
    let esp = Pair::transport("esp", ESP, None);
    let ah = Pair::transport("ah", AH, None);
    let plain = [Sa::outbound().plain(false, 1).packet()];
    let whole = gateway(INBOUND, &[esp.clone(), ah.clone()]);
    let only_esp = replay(&gateway(OUTBOUND, std::slice::from_ref(&esp)), &plain, &[]).sealed();
    let run = replay(&whole, &[], &only_esp);
    run.assert_all("bundle");
    // AH alone, with the SPI it has in the bundle.
    let only_ah = gateway(OUTBOUND, &[ah]).replace("spi = 4097", "spi = 4098").replace(
        &hex::encode(Sa { spi: 0x1001, algorithm: AH, ..Sa::outbound() }.keymat()),
        &hex::encode(Sa { spi: 0x1002, algorithm: AH, ..Sa::outbound() }.keymat()),
    );
    let only_ah = replay(&only_ah, &plain, &[]).sealed();
    let run = replay(&whole, &[], &only_ah);
    run.assert_all("selector");
}

/// The gateway with only the SA `index` of a bundle, with the SPI and key it has there.
fn only(direction: &str, pair: &Pair, index: u32) -> String {
    let key = |spi| hex::encode(Sa { spi, algorithm: pair.algorithm, ..Sa::outbound() }.keymat());
    let spi = 0x1001 + index;
    gateway(direction, std::slice::from_ref(pair))
        .replace("spi = 4097", &format!("spi = {spi}"))
        .replace(&key(0x1001), &key(spi))
}

/// E18 P28: IPv6 extension headers stay in front of AH and ESP, and hide neither.
#[test]
fn extension_headers_before_a_bundle() {
    let pairs = [Pair::transport("esp", ESP, None), Pair::transport("ah", AH, None)];
    let six = |text: String| text.replace("10.1.0.5", "fd01::5").replace("10.2.0.5", "fd02::5");
    let plain = Sa::outbound().plain(true, 1).packet();
    let options = [plain[6], 0, 1, 4, 0, 0, 0, 0];
    let plain = replaced(&plain, 0, &[&options, &plain[40..]].concat());
    let there = replay(&six(gateway(OUTBOUND, &pairs)), std::slice::from_ref(&plain), &[]);
    there.assert_all("forward");
    let sealed = there.sealed();
    assert_eq!((sealed[0][6], sealed[0][40]), (0, PROTOCOL_AH), "options, then AH");
    let back = replay(&six(gateway(INBOUND, &pairs)), &[], &sealed);
    back.assert_all("forward");
    assert_eq!(back.opened(), [forwarded(&forwarded(&plain))]);
}

/// I01: a fragment of ESP that comes out of a tunnel is dropped and recorded, and the whole packet
/// passes.
#[test]
fn fragments_out_of_a_tunnel_are_dropped() {
    let inner = Pair::tunnel("inner", ESP, (1, 2));
    let outer = Pair::tunnel("outer", ESP, (3, 4));
    let plain = [Sa::outbound().plain(false, 1).packet()];
    let sealed = replay(&only(OUTBOUND, &inner, 0), &plain, &[]).sealed().remove(0);
    let first = changed(&sealed[..20 + 32], |packet| {
        packet[2..4].copy_from_slice(&[0, 20 + 32]);
        packet[6] = 0x20;
    });
    let around = only(OUTBOUND, &outer, 1)
        .replace("\"10.1.0.5\"", "\"192.0.2.1\"")
        .replace("\"10.2.0.5\"", "\"192.0.2.2\"");
    let sent = replay(&around, &[first, sealed], &[]);
    sent.assert_all("forward");
    let run = replay(&gateway(INBOUND, &[inner, outer]), &[], &sent.sealed());
    assert_eq!(run.outcomes(), ["fragment", "forward"]);
    assert_eq!(run.audit.len(), 1);
    assert_eq!(run.audit[0]["reason"], "fragment");
}
