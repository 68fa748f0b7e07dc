//! What happens by itself: lifetimes, keepalives, dummies (RFC 4301 section 4.4.2.1, RFC 3948
//! section 4, RFC 4303 section 2.6).

use std::time::Duration;

use culvert_sim::plain::Plain;
use serde_json::Value;

use crate::packets::Sa;
use crate::packets::config;
use crate::packets::unwrapped;
use crate::pcap::START;
use crate::pcap::Timed;
use crate::support::Run;
use crate::support::replay;
use crate::support::replay_at;

/// Packets of an SA, at these milliseconds.
fn at(sa: &Sa, times: &[u64]) -> Vec<Timed> {
    let packet = |&ms: &u64| (START + Duration::from_millis(ms), sa.plain(false, ms).packet());
    times.iter().map(packet).collect()
}

/// The lifetime events of a run: kind and cause.
fn expiries(run: &Run) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let of_lifetime = run.events.iter().filter(|event| event["event"] == "expire");
    of_lifetime.map(|event| (word(&event["kind"]), word(&event["cause"]))).collect()
}

fn expected(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|&(kind, cause)| (kind.to_owned(), cause.to_owned())).collect()
}

/// P15 P17: packets: the soft limit is told, the hard limit ends the SA, each once, in both
/// directions; a forged packet is not counted.
#[test]
fn packets_end_an_sa() {
    let lines = "soft_lifetime = { packets = 2 }\nhard_lifetime = { packets = 4 }";
    let sa = Sa::outbound().with(lines);
    let packets: Vec<_> = (0..7).map(|id| sa.plain(false, id).packet()).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    let (yes, no) = ("forward", "expired");
    assert_eq!(run.outcomes(), [yes, yes, yes, yes, no, no, no]);
    assert_eq!(expiries(&run), expected(&[("soft", "packets"), ("hard", "packets")]));
    assert_eq!(run.report.sas[0].packets, 4);

    let sa = Sa::inbound().with(lines);
    let packet = |seq| sa.packet(seq, &sa.plain(false, seq).packet());
    let mut forged = packet(9);
    *forged.last_mut().unwrap() ^= 1;
    let packets =
        [packet(1), forged.clone(), packet(1), packet(2), forged, packet(3), packet(4), packet(5)];
    let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
    assert_eq!(run.outcomes(), [yes, "icv", "replay", yes, "icv", yes, yes, no]);
    assert_eq!(expiries(&run), expected(&[("soft", "packets"), ("hard", "packets")]));
}

/// P15 P16: octets are those that are encrypted, padding included, and the first limit rules.
#[test]
fn octets_end_an_sa() {
    // 45 octets, with padding and trailer 48.
    let lines = "soft_lifetime = { bytes = 96, seconds = 60 }\n\
                 hard_lifetime = { bytes = 144, packets = 1000 }";
    let sa = Sa::outbound().with(lines);
    let packet = Plain { payload_len: 17, ..sa.plain(false, 1) }.packet();
    let run = replay(&config(std::slice::from_ref(&sa)), &vec![packet; 5], &[]);
    assert_eq!(run.outcomes(), ["forward", "forward", "forward", "expired", "expired"]);
    assert_eq!(run.report.sas[0].bytes, 144);
    assert_eq!(expiries(&run), expected(&[("soft", "bytes"), ("hard", "bytes")]));
}

/// P15 P17: time passes between packets: the events come when they are due, also without packets.
#[test]
fn time_ends_an_sa() {
    let sa =
        Sa::outbound().with("soft_lifetime = { seconds = 2 }\nhard_lifetime = { seconds = 5 }");
    let packets = at(&sa, &[0, 1_000, 3_000, 4_900, 5_100, 20_000]);
    let run = replay_at(&config(std::slice::from_ref(&sa)), &packets, &[]);
    let (yes, no) = ("forward", "expired");
    assert_eq!(run.outcomes(), [yes, yes, yes, yes, no, no]);
    assert_eq!(expiries(&run), expected(&[("soft", "time"), ("hard", "time")]));
    let start = u64::try_from(START.as_nanos()).unwrap();
    for (event, due) in run.events.iter().zip([2_000_000_000, 5_000_000_000]) {
        let after = event["time_ns"].as_u64().unwrap() - start;
        assert!((due..due + 200_000_000).contains(&after), "{event}");
    }
}

/// U06: behind a NAT a keepalive is sent after 20 seconds without a packet, one octet 0xFF on the
/// ports of the SA; elsewhere none.
#[test]
fn keepalives_keep_a_mapping() {
    for (lines, times) in [
        ("", vec![]),
        ("behind_nat = true", vec![20, 40, 60]),
        ("behind_nat = true\nkeepalive = 30", vec![30, 60]),
    ] {
        let sa = Sa { encapsulated: true, ..Sa::outbound() }.with(lines);
        let packets = at(&sa, &[0, 65_000]);
        let run = replay_at(&config(std::slice::from_ref(&sa)), &packets, &[]);
        let [first, kept @ .., last] = run.unprotected.as_slice() else { panic!("two packets") };
        assert!(first.1.len() > 60 && last.1.len() > 60);
        let seconds: Vec<u64> = kept.iter().map(|(time, _)| (*time - START).as_secs()).collect();
        assert_eq!(seconds, times, "{lines}");
        for (_, packet) in kept {
            let (outer, payload) = unwrapped(packet);
            assert_eq!((outer.source(), outer.destination()), sa.outer());
            assert_eq!(payload, [0xff]);
        }
    }
}

/// E11 I15: dummies are sent at their times and differ; the receiver drops them without an error,
/// and counts them for anti-replay and lifetime.
#[test]
fn dummies_are_sent_and_swallowed() {
    let sa = Sa::outbound().with("dummy_interval = 0.5");
    let packets = at(&sa, &[0, 2_050]);
    let run = replay_at(&config(std::slice::from_ref(&sa)), &packets, &[]);
    run.assert_all("forward");
    assert_eq!(run.report.more["forward"], 4);
    let sealed = run.sealed();
    assert_eq!(sealed.len(), 6);
    let mut texts = Vec::new();
    for (sealed, seq) in sealed.iter().zip(1..) {
        let text = sa.open(seq, unwrapped(sealed).1);
        let dummy = text[text.len() - 1] == 59;
        assert_eq!(dummy, (2..=5).contains(&seq));
        texts.extend(dummy.then_some(text));
    }
    assert_ne!(texts[0], texts[1]);

    let far = Sa { spi: sa.spi, ..Sa::inbound() };
    let key = |sa: &Sa| hex::encode(sa.keymat());
    let config = config(std::slice::from_ref(&far))
        .replace(&key(&far), &key(&sa))
        .replace("10.2.0.0/24", "10.9.9.0/24")
        .replace("10.1.0.0/24", "10.2.0.0/24")
        .replace("10.9.9.0/24", "10.1.0.0/24")
        .replace("192.0.2.1\"", "192.0.2.2\"");
    let run = replay(&config, &[], &sealed);
    let dummy = "dummy";
    assert_eq!(run.outcomes(), ["forward", dummy, dummy, dummy, dummy, "forward"]);
    assert!(run.audit.is_empty(), "not an error");
    assert_eq!((run.report.sas[0].packets, run.report.sas[0].sequence), (6, 6));
}
