//! Audit records (RFC 4301 section 5, RFC 4303), and events for IKE.

use culvert_sim::plain::ip_packet;
use culvert_wire::ip;
use serde_json::Value;
use serde_json::json;

use crate::packets::LOW;
use crate::packets::Sa;
use crate::packets::config;
use crate::packets::datagram;
use crate::packets::forged;
use crate::packets::numbered;
use crate::packets::text;
use crate::packets::with_tos;
use crate::pcap::START;
use crate::support::replay;

/// I03 I11 I12 I17 I23: each refused packet has a record with its time, SPI, addresses, sequence
/// number and over IPv6 its flow label.
#[test]
fn refused_packets_are_recorded() {
    for six in [false, true] {
        let sa = Sa { six, ..Sa::inbound() };
        let stranger = Sa { spi: 0x0666, ..sa.clone() };
        let tcp = sa.with_text(3, &text(&sa.plain(false, 1).packet(), 6));
        let mut packets = vec![
            numbered(&sa, 2),
            numbered(&sa, 2),
            forged(&numbered(&sa, 5)),
            numbered(&stranger, 7),
            tcp,
        ];
        if six {
            packets.iter_mut().for_each(|packet| packet[1..4].copy_from_slice(&[0x0a, 0xbc, 0xde]));
        }
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
        let reasons = ["replay", "icv", "no_sa", "next_header"];
        assert_eq!(run.outcomes(), [&["forward"][..], &reasons].concat());
        let (source, destination) = sa.outer();
        let start = u64::try_from(START.as_nanos()).unwrap();
        let record = |index: usize, spi: u32, seq: u64| {
            json!({
                "time_ns": start + 100_000 * (u64::try_from(index).unwrap() + 1),
                "reason": reasons[index],
                "direction": "inbound",
                "protocol": "esp",
                "spi": spi,
                "seq": seq,
                "source": source,
                "destination": destination,
                "flow_label": six.then_some(0xabcde),
                "flow": null,
                "sa": (reasons[index] != "no_sa").then(|| sa.name()),
                "suppressed": 0,
            })
        };
        let expected = [
            record(0, sa.spi, 2),
            record(1, sa.spi, 5),
            record(2, 0x0666, 7),
            record(3, sa.spi, 3),
        ];
        assert_eq!(run.audit, expected);
    }
}

/// E03 E04: an attempt to cycle the sequence number is refused and recorded, with SPI, time,
/// addresses and over IPv6 the flow label of the packet.
#[test]
fn overflow_is_recorded() {
    for six in [false, true] {
        let sa = Sa { sequence: LOW - 1, ..Sa::outbound() };
        let mut packets: Vec<_> = (0..2).map(|id| sa.plain(six, id).packet()).collect();
        if six {
            packets.iter_mut().for_each(|packet| packet[1..4].copy_from_slice(&[0x0a, 0xbc, 0xde]));
        }
        let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
        assert_eq!(run.outcomes(), ["forward", "sequence_exhausted"]);
        let [record] = run.audit.as_slice() else { panic!("one record: {:?}", run.audit) };
        let (source, destination) = sa.inner(six);
        let time = u64::try_from(START.as_nanos()).unwrap() + 100_000;
        let expected = [
            ("time_ns", json!(time)),
            ("reason", json!("sequence_exhausted")),
            ("sa", json!(sa.name())),
            ("spi", json!(sa.spi)),
            ("seq", json!(LOW)),
            ("source", json!(source)),
            ("destination", json!(destination)),
            ("flow_label", json!(six.then_some(0xabcde))),
            ("suppressed", json!(0)),
        ];
        for (field, value) in expected {
            assert_eq!(record[field], value, "{field} of {record}");
        }
    }
}

/// I11: with ESN the record of a replay has the whole number, and so has the verdict.
#[test]
fn replays_are_recorded_with_the_whole_number() {
    let number = (7 << 32) + 3;
    let sa = Sa { esn: true, sequence: number - 1, ..Sa::inbound() };
    let packet = numbered(&sa, number);
    let run = replay(&config(std::slice::from_ref(&sa)), &[], &[packet.clone(), packet]);
    assert_eq!(run.outcomes(), ["forward", "replay"]);
    let [record] = run.audit.as_slice() else { panic!("one record: {:?}", run.audit) };
    assert_eq!((&record["reason"], &record["seq"]), (&"replay".into(), &number.into()));
}

/// P09 P29: what does not belong into its SA is recorded with what policy sees of it, and with what
/// the SA admits.
#[test]
fn mismatches_are_recorded_with_the_selectors() {
    for (lines, upper) in [
        ("", "any"),
        ("selectors = [{ protocol = 'udp', destination_ports = 53 }]", "ports any to 53-53"),
    ] {
        let sa = Sa { encapsulated: true, ..Sa::inbound().with(lines) };
        let (source, _) = sa.inner(false);
        let payload = [&7000u16.to_be_bytes()[..], &54u16.to_be_bytes(), &[0; 30]].concat();
        let inner = ip_packet(source, [10, 9, 9, 9].into(), ip::PROTOCOL_UDP, &payload);
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &[sa.packet(1, &inner)]);
        assert_eq!(run.outcomes(), ["selector"]);
        let [record] = run.audit.as_slice() else { panic!("one record: {:?}", run.audit) };
        let flow = json!({
            "source": source,
            "destination": "10.9.9.9",
            "protocol": 17,
            "source_port": 7000,
            "destination_port": 54,
        });
        assert_eq!((&record["flow"], &record["sa"]), (&flow, &sa.name().into()));
        assert_eq!(record["admitted"][0]["upper"], upper, "{record}");
        let [event] = run.events.as_slice() else { panic!("one event: {:?}", run.events) };
        let start: String = inner.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(
            (&event["event"], &event["packet"]),
            (&"invalid_selectors".into(), &start.into())
        );
    }
}

/// P29 P12: what policy keeps from being sent is recorded too.
#[test]
fn what_is_not_sent_is_recorded() {
    let sa = Sa::outbound();
    let stranger =
        ip_packet([10, 9, 9, 9].into(), [10, 2, 0, 5].into(), ip::PROTOCOL_UDP, &[7; 20]);
    let run = replay(&config(std::slice::from_ref(&sa)), &[stranger], &[]);
    assert_eq!(run.outcomes(), ["no_policy"]);
    let [record] = run.audit.as_slice() else { panic!("one record: {:?}", run.audit) };
    assert_eq!(
        (&record["reason"], &record["direction"]),
        (&"no_policy".into(), &"outbound".into())
    );
    assert_eq!((&record["spi"], &record["flow"]["protocol"]), (&Value::Null, &17.into()));
}

/// P29: the administrator turns audit on and off, and chooses what is recorded; what happens is
/// counted all the same.
#[test]
fn audit_is_the_administrators_choice() {
    let sa = Sa::inbound();
    let packets = [numbered(&sa, 2), numbered(&sa, 2), forged(&numbered(&sa, 5))];
    for (lines, expected) in [
        ("enabled = true", &["replay", "icv"][..]),
        ("enabled = false", &[]),
        ("reasons = ['icv', 'no_sa']", &["icv"]),
        ("rate = 0", &[]),
    ] {
        let text = config(std::slice::from_ref(&sa));
        let text = text.replace("[lab]", &format!("[audit]\n{lines}\n[lab]"));
        let run = replay(&text, &[], &packets);
        let reasons: Vec<_> = run.audit.iter().map(|record| record["reason"].clone()).collect();
        assert_eq!(reasons, expected, "{lines}");
        assert_eq!((run.report.drops["replay"], run.report.drops["icv"]), (1, 1));
    }
}

/// P10 U14 C07: each kind of notice has its switch, and those of IKE their rate.
#[test]
fn notices_have_switches_and_a_rate() {
    let sa = Sa::inbound();
    let stranger = Sa { spi: 0x0666, ..sa.clone() };
    let (source, _) = sa.inner(false);
    let foreign = ip_packet(source, [10, 9, 9, 9].into(), ip::PROTOCOL_UDP, &[0; 30]);
    let mut packets = vec![with_tos(&sa.packet(1, &sa.plain(false, 1).packet()), 1)];
    packets.extend((0..20).map(|seq| numbered(&stranger, seq)));
    packets.extend((2..22).map(|seq| sa.packet(seq, &foreign)));
    let kinds = ["unusual_ecn", "invalid_spi", "invalid_selectors"];
    for (lines, expected) in [
        ("", [1, 10, 10]),
        ("rate = 3", [1, 3, 3]),
        ("unusual_ecn = false", [0, 10, 10]),
        ("invalid_spi = false", [1, 0, 10]),
        ("invalid_selectors = false", [1, 10, 0]),
    ] {
        let text = config(std::slice::from_ref(&sa));
        let text = text.replace("[lab]", &format!("[notices]\n{lines}\n[lab]"));
        let run = replay(&text, &[], &packets);
        let count = |kind| run.events.iter().filter(|event| event["event"] == kind).count();
        assert_eq!(kinds.map(count), expected, "{lines}");
        assert_eq!(run.audit.len(), 40, "records do not depend on it");
    }
}

/// P29 U14: a flood is recorded at the configured rate, counted exactly, and IKE is told no more
/// often.
#[test]
fn floods_are_counted_and_not_recorded() {
    let sa = Sa::inbound();
    let stranger = Sa { spi: 0x0666, ..sa.clone() };
    let text = config(std::slice::from_ref(&sa)).replace("[lab]", "[audit]\nrate = 10\n[lab]");
    let packets: Vec<_> = (1..=1000).map(|seq| numbered(&stranger, seq)).collect();
    let run = replay(&text, &[], &packets);
    assert_eq!(run.report.drops["no_sa"], 1000);
    // A tenth of a second passes.
    assert!((10..=11).contains(&run.audit.len()), "{}", run.audit.len());
    let told = run.events.iter().filter(|event| event["event"] == "invalid_spi");
    assert_eq!(told.count(), run.audit.len());
}

/// U10 U11: a new address and port of the peer is told after an authentic and newest packet, and
/// never after a replay, a forgery or an older packet.
#[test]
fn a_peers_mapping_is_followed_by_authentic_packets_only() {
    let sa = Sa { encapsulated: true, ..Sa::inbound() };
    let (_, us) = sa.outer();
    let from = |last: u8, port: u16, seq: u64| {
        let esp = sa.seal(seq, &text(&sa.plain(false, seq).packet(), 4));
        ip_packet([192, 0, 2, last].into(), us, ip::PROTOCOL_UDP, &datagram(port, &esp))
    };
    let packets = [
        from(2, 4500, 1),
        from(2, 4500, 10),
        from(66, 666, 10),
        forged(&from(66, 666, 11)),
        from(66, 666, 5),
        from(2, 61000, 12),
        from(7, 61000, 13),
    ];
    let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
    let (yes, no) = ("forward", "replay");
    assert_eq!(run.outcomes(), [yes, yes, no, "icv", yes, yes, yes]);
    let mapping = |event: &&Value| event["event"] == "mapping";
    let told: Vec<_> = run.events.iter().filter(mapping).collect();
    let new: Vec<_> = told.iter().map(|event| event["new"].as_str().unwrap()).collect();
    assert_eq!(new, ["192.0.2.2:61000", "192.0.2.7:61000"], "{told:?}");
    assert_eq!(told[0]["old"], "192.0.2.2:4500");
}

/// I21: without anti-replay, and with numbers that say nothing, every authentic packet is
/// accepted as often as it comes, zero included.
#[test]
fn without_a_window_nothing_is_a_replay() {
    for option in ["replay_window = 0", "sequence_unspecified = true"] {
        let sa = Sa::inbound().with(option);
        let sa = Sa { lines: sa.lines.clone() + "# replay_window\n", ..sa };
        let packets = [5, 5, 0, 1, 5].map(|seq| numbered(&sa, seq));
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
        run.assert_all("forward");
    }
}
