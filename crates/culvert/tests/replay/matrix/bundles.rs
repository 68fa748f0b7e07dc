//! Two SAs around one packet, and the worked example.

use culvert_aead::Algorithm;
use serde_json::Value;

use super::case;
use super::case::Case;
use super::case::Way;
use super::run;
use super::witness::Witness;
use super::witness::octets;
use crate::packets::forwarded;
use crate::packets::policy;
use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_RAW;
use crate::support::Invocation;

/// ESP in both modes and all families, each inside an SA of AH in transport mode.
fn pairs() -> Vec<(Case, Case)> {
    let algorithm = Algorithm::Aes128CbcSha256;
    let mut found = Vec::new();
    for six in [false, true] {
        found.push(Case::transport(u16::from(six) + 1, algorithm, six));
        for outer_six in [false, true] {
            let number = 3 + 2 * u16::from(six) + u16::from(outer_six);
            found.push(Case { outer_six, ..Case::tunnel(number, algorithm, six) });
        }
    }
    found.into_iter().map(|esp| (esp.clone(), esp.within_ah())).collect()
}

/// AH between hosts, and ESP between gateways, each inside a tunnel of ESP.
fn pairs_in_a_tunnel() -> Vec<(Case, Case)> {
    let mut found = Vec::new();
    for six in [false, true] {
        let first = 1 + 4 * u16::from(six);
        found.push(Case::transport(first, Algorithm::AhSha512, six));
        found.push(Case::transport(first + 1, Algorithm::Aes128Gmac, six));
        for outer_six in [false, true] {
            let number = first + 2 + u16::from(outer_six);
            found.push(Case { outer_six, ..Case::tunnel(number, Algorithm::AhSha256, six) });
        }
    }
    found.into_iter().map(|inner| (inner.clone(), inner.within_a_tunnel())).collect()
}

fn config(pairs: &[(Case, Case)], way: Way) -> String {
    let direction = if way == Way::Out { "outbound" } else { "inbound" };
    let (mut sas, mut policies) = (String::new(), String::new());
    for (inner, outer) in pairs {
        sas += &(inner.sa(way) + &outer.sa(way));
        let (source, destination) = inner.inner(way);
        let (source, destination) = (source.to_string(), destination.to_string());
        policies += &policy(direction, &source, &destination, "protect", None);
        policies += &format!("sa = [\"{}\", \"{}\"]\n", inner.label(), outer.label());
    }
    [case::HEAD, &sas, &policies].concat()
}

/// Runs the program; what came out on the other side, and the outcomes. A packet went through two
/// SAs, so its verdict is that of one of them only.
fn packets_of(config: &str, way: Way, packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut invocation = Invocation::new(config);
    invocation.link = Some("raw");
    let input = if way == Way::Out { "protected-in" } else { "unprotected-in" };
    invocation.put(input, &Form::of(LINK_RAW).file(&pcap::timed(packets)));
    let files = invocation.files();
    let out = if way == Way::Out { &files.unprotected_out } else { &files.protected_out };
    let verdicts = std::str::from_utf8(&files.verdicts).unwrap().lines();
    let outcome = |line: &str| {
        let verdict: Value = serde_json::from_str(line).unwrap();
        let outcome = verdict["reason"].as_str().or(verdict["fate"].as_str());
        outcome.unwrap().to_owned()
    };
    (pcap::untimed(&pcap::read(out).1), verdicts.map(outcome).collect())
}

/// culvert seals with both SAs, scapy opens one after the other.
fn sealed_by_culvert(pairs: &[(Case, Case)]) {
    let Some(mut witness) = Witness::start() else { return };
    let inner: Vec<Case> = pairs.iter().map(|(inner, _)| inner.clone()).collect();
    let plain = witness.plain(&inner, Way::Out, |_| vec![40]).concat();
    let (packets, outcomes) = packets_of(&config(pairs, Way::Out), Way::Out, &plain);
    assert_eq!(outcomes, vec!["forward"; pairs.len()]);
    for (((inner, outer), plain), packet) in pairs.iter().zip(&plain).zip(packets) {
        let name = format!("{} in {}", inner.name(), outer.name());
        let inside = witness.judge(outer, Way::Out, &[packet], &[1]).remove(0);
        let inside = inside.unwrap_or_else(|| panic!("{name}: the outer SA"));
        let opened = witness.judge(inner, Way::Out, &[inside], &[1]).remove(0);
        assert_eq!(opened, Some(forwarded(plain)), "{name}");
    }
}

/// scapy seals with one SA after the other, culvert opens both. Damage that came last is noticed by
/// the outer SA, damage that was there before by the inner one.
fn sealed_by_scapy(pairs: &[(Case, Case)]) {
    let Some(mut witness) = Witness::start() else { return };
    let (inner, outer): (Vec<Case>, Vec<Case>) = pairs.iter().cloned().unzip();
    let plain = witness.plain(&inner, Way::In, |_| vec![40]);
    let damaged = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        *packet.last_mut().unwrap() ^= 1;
        packet
    };
    let inside = witness.seal(&inner, &plain).into_iter().map(|sealed| {
        let genuine = octets(sealed.sealed).remove(0);
        vec![damaged(&genuine), genuine]
    });
    let outside = witness.seal(&outer, &inside.collect::<Vec<_>>());
    let mut input = Vec::new();
    for sealed in outside {
        let [damaged_inside, genuine] = octets(sealed.sealed).try_into().unwrap();
        input.extend([damaged(&genuine), damaged_inside, genuine]);
    }
    let (packets, outcomes) = packets_of(&config(pairs, Way::In), Way::In, &input);
    assert_eq!(outcomes, ["icv", "icv", "forward"].repeat(pairs.len()));
    let expected: Vec<Vec<u8>> = plain.concat().iter().map(|packet| forwarded(packet)).collect();
    assert_eq!(packets, expected);
}

/// P28, A03, A04: AH around ESP in one packet, ESP in both modes and all families.
#[test]
fn ah_around_esp_sealed_by_culvert() {
    sealed_by_culvert(&pairs());
}

/// P28, I06, I12, A03, A04: the other way.
#[test]
fn ah_around_esp_sealed_by_scapy() {
    sealed_by_scapy(&pairs());
}

/// P28: SAs between hosts and tunnels of AH, each inside a tunnel of ESP (RFC 4301 section 4.2).
#[test]
fn sas_in_an_esp_tunnel_sealed_by_culvert() {
    sealed_by_culvert(&pairs_in_a_tunnel());
}

/// P28, I06, I12: the other way.
#[test]
fn sas_in_an_esp_tunnel_sealed_by_scapy() {
    sealed_by_scapy(&pairs_in_a_tunnel());
}

/// An ICMP echo request from 10.0.0.1 to 10.0.0.2.
const WORKED_INNER: &str = "4500002800010000400166d20a0000010a000002\
                            08009191000100016162636465666768696a6b6c";

/// S18, E01, E10, E20, P18: the worked example, literally: a tunnel from 192.168.1.1 to 192.168.2.1
/// with SPI 0xAABBCCDD and sequence number 42 carries a packet from 10.0.0.1 to 10.0.0.2. Gateway A
/// seals it and scapy opens it; scapy seals it and gateway B opens it.
#[test]
fn worked_example_with_scapy() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case { sequence: 41, ..Case::tunnel(1, Algorithm::Aes128Gcm16, false) };
    let mut description = case.description(Way::Out);
    description["source"] = "192.168.1.1".into();
    description["destination"] = "192.168.2.1".into();
    description["spi"] = 0xaabb_ccdd_u32.into();
    let config = |direction: &str| {
        format!(
            "{}[[sa]]\nname = \"worked\"\ndirection = \"{direction}\"\nspi = \"0xAABBCCDD\"\n\
             source = \"192.168.1.1\"\ndestination = \"192.168.2.1\"\n\
             algorithm = \"aes128gcm16\"\nkey = {}\nsequence = 41\n{}",
            case::HEAD,
            description["key"],
            policy(direction, "10.0.0.1", "10.0.0.2", "protect", Some("worked")),
        )
    };
    let inner = hex::decode(WORKED_INNER).unwrap();
    let sealed = run(&config("outbound"), "protected-in", std::slice::from_ref(&inner));
    sealed.assert_all("forward");
    let packet = &sealed.unprotected[0].1;
    assert_eq!(packet[12..20], [192, 168, 1, 1, 192, 168, 2, 1]);
    assert_eq!((packet[9], &packet[20..28]), (50, &[0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 42][..]));
    assert_eq!((sealed.verdicts[0].spi, sealed.verdicts[0].seq), (Some(0xaabb_ccdd), Some(42)));
    let opened = witness.judge_as(&description, std::slice::from_ref(packet), &[42]);
    assert_eq!(opened, [Some(forwarded(&inner))]);

    let packets = witness.seal_as(&description, std::slice::from_ref(&inner), &[42]);
    assert_eq!(packets[0][20..28], [0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 42]);
    let opened = run(&config("inbound"), "unprotected-in", &packets);
    opened.assert_all("forward");
    assert_eq!((opened.verdicts[0].spi, opened.verdicts[0].seq), (Some(0xaabb_ccdd), Some(42)));
    assert_eq!(pcap::untimed(&opened.protected), [forwarded(&inner)]);
}
