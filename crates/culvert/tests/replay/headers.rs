//! What a tunnel does to the fields of IP headers (RFC 4301 section 5.1.2), beyond the defaults.

use culvert_sim::plain::Plain;
use culvert_wire::ip;

use crate::packets::Sa;
use crate::packets::config;
use crate::packets::forwarded;
use crate::packets::unwrapped;
use crate::packets::with_tos;
use crate::support::Run;
use crate::support::replay;
use crate::support::replay_over;

/// Packets with every TOS through an SA with these options; returns the outer TOS of each.
fn outer_tos(options: &str) -> Vec<u8> {
    let sa = Sa::outbound().with(options);
    let plain = |tos| Plain { tos, ..sa.plain(false, 1) }.packet();
    let packets: Vec<_> = (0..=255).map(plain).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    run.assert_all("forward");
    run.sealed().iter().map(|sealed| unwrapped(sealed).0.tos()).collect()
}

/// P18: the outer DSCP is copied, or set, or mapped where a table says so; ECN is not concerned.
#[test]
fn dscp_is_copied_set_or_mapped() {
    assert_eq!(outer_tos("dscp = 'copy'"), (0..=255).collect::<Vec<_>>());
    let set = |tos: u8| 46 << 2 | tos & 3;
    assert_eq!(outer_tos("dscp = 46"), (0..=255).map(set).collect::<Vec<_>>());
    let mapped = |tos: u8| match tos >> 2 {
        10 => 46 << 2 | tos & 3,
        46 => tos & 3,
        _ => tos,
    };
    let table = outer_tos("dscp = { \"10\" = 46, \"46\" = 0 }");
    assert_eq!(table, (0..=255).map(mapped).collect::<Vec<_>>());
}

/// C01 C02: in normal mode the outer ECN is the inner one, in compatibility mode Not-ECT.
#[test]
fn ecn_is_copied_or_not() {
    assert_eq!(outer_tos("ecn = 'normal'"), (0..=255).collect::<Vec<_>>());
    let without = |tos: u8| tos & !3;
    assert_eq!(outer_tos("ecn = 'compatibility'"), (0..=255).map(without).collect::<Vec<_>>());
}

/// P18: DF is copied, set or cleared, and the TTL is fixed or copied from the packet as it is
/// forwarded.
#[test]
fn df_and_ttl_are_what_they_should_be() {
    let cases = [
        ("df = 'copy'", [false, true], [64, 64]),
        ("df = 'set'", [true, true], [64, 64]),
        ("df = 'clear'", [false, false], [64, 64]),
        ("ttl = 17", [false, true], [17, 17]),
        ("ttl = 'copy'", [false, true], [8, 199]),
    ];
    for (option, dont_fragment, ttl) in cases {
        let sa = Sa::outbound().with(option);
        let plain =
            |dont_fragment, ttl| Plain { dont_fragment, ttl, ..sa.plain(false, 1) }.packet();
        let packets = [plain(false, 9), plain(true, 200)];
        let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
        run.assert_all("forward");
        for ((sealed, df), ttl) in run.sealed().iter().zip(dont_fragment).zip(ttl) {
            let ip::Packet::V4(outer) = unwrapped(sealed).0 else { panic!("IPv4") };
            assert_eq!((outer.dont_fragment, outer.ttl), (df, ttl), "{option}");
        }
    }
}

/// P20: the outer flow label is zero, or what the configuration says; never the inner one.
#[test]
fn the_flow_label_is_its_own() {
    for (options, label) in [("", 0), ("flow_label = 0xabcde", 0xabcde)] {
        let sa = Sa { six: true, ..Sa::outbound() }.with(options);
        let mut plain = sa.plain(true, 1).packet();
        plain[1..4].copy_from_slice(&[0x01, 0x23, 0x45]);
        let run = replay(&config(std::slice::from_ref(&sa)), &[plain], &[]);
        let sealed = &run.sealed()[0];
        assert_eq!(u32::from_be_bytes(sealed[..4].try_into().unwrap()) & 0xf_ffff, label);
    }
}

/// Authentic packets with an outer TOS through an inbound SA with these options.
fn receive(options: &str, packets: &[(u8, u8)]) -> Run {
    let sa = Sa::inbound().with(options);
    let packet = |((inner, outer), seq): (&(u8, u8), u64)| {
        let plain = Plain { tos: *inner, ..sa.plain(false, 1) }.packet();
        with_tos(&sa.packet(seq, &plain), *outer)
    };
    let packets: Vec<_> = packets.iter().zip(1..).map(packet).collect();
    replay(&config(std::slice::from_ref(&sa)), &[], &packets)
}

/// P21: the DSCP of what comes out is its own, or if so configured that of the outer header.
#[test]
fn the_inner_dscp_is_kept_or_replaced() {
    let tos = [(0x28, 0xb8), (0, 0xb8), (0xb8, 0)];
    for (options, expected) in [
        ("", [0x28, 0, 0xb8]),
        ("decap_dscp = 'keep'", [0x28, 0, 0xb8]),
        ("decap_dscp = 'copy'", [0xb8, 0xb8, 0]),
    ] {
        let run = receive(options, &tos);
        let forwarded: Vec<u8> = run.opened().iter().map(|packet| packet[1]).collect();
        assert_eq!(forwarded, expected, "{options}");
    }
}

/// C04: a mark that cannot be carried inside drops the packet.
#[test]
fn marks_that_cannot_be_carried() {
    assert_eq!(receive("", &[(0, 3)]).outcomes(), ["ecn"]);
}

/// C07: an unusual combination is told once for each SA.
#[test]
fn unusual_combinations_are_told_once() {
    let run = receive("", &[(0, 1), (0, 2), (0, 1), (3, 1)]);
    run.assert_all("forward");
    let told: Vec<_> = run.events.iter().filter(|event| event["event"] == "unusual_ecn").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["spi"], 0x2001);
}

/// E12 E13: packets are padded to a length, behind the packet and before the ESP padding, and the
/// inner length stays.
#[test]
fn packets_are_padded_against_traffic_analysis() {
    // 1400 octets less 20 + 8 + 8 of headers, trailer of 2 and ICV, whole words: 1346.
    for (option, len) in [("tfc = 'off'", 0), ("tfc = 600", 600), ("tfc = 'mtu'", 1346)] {
        let sa = Sa::outbound().with(option);
        let plain: Vec<_> = [16, 100, 800]
            .map(|payload_len| Plain { payload_len, ..sa.plain(false, 1) }.packet())
            .to_vec();
        let run = replay_over(Some(1400), &config(std::slice::from_ref(&sa)), &plain, &[]);
        run.assert_all("forward");
        for ((sealed, plain), seq) in run.sealed().iter().zip(&plain).zip(1..) {
            let text = sa.open(seq, unwrapped(sealed).1);
            let pad_len = usize::from(text[text.len() - 2]);
            let payload = &text[..text.len() - 2 - pad_len];
            assert!(payload.starts_with(&forwarded(plain)));
            assert_eq!(payload.len(), len.max(plain.len()), "{option}");
        }
    }
}

/// I13: padding that is not 1, 2, 3, .. is dropped, counted, or not looked at.
#[test]
fn padding_is_looked_at_as_configured() {
    for (padding, outcome, counted) in
        [("strict", "padding", 0), ("count", "forward", 1), ("off", "forward", 0)]
    {
        let sa = Sa::inbound().with(&format!("padding = '{padding}'"));
        let inner = sa.plain(false, 1).packet();
        let wrong = sa.with_text(1, &[&inner[..], &[9, 9, 2, 4]].concat());
        let right = sa.packet(2, &inner);
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &[wrong, right]);
        assert_eq!(run.outcomes(), [outcome, "forward"]);
        assert_eq!(run.report.sas[0].padding_wrong, counted);
    }
}
