//! Path MTU, fragments and reassembly (RFC 4301 section 8, RFC 4303 sections 3.3.4 and 3.4.1).

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_wire::ip;

use crate::packets::Sa;
use crate::packets::changed;
use crate::packets::config;
use crate::packets::forwarded;
use crate::packets::unwrapped;
use crate::support::Run;
use crate::support::replay;
use crate::support::replay_over;

const MTU: u16 = 1400;

fn of_len(sa: &Sa, six: bool, len: usize, dont_fragment: bool) -> Vec<u8> {
    let plain = Plain { dont_fragment, ..sa.plain(six, 1) };
    let payload_len = len - (plain.len() - plain.payload_len);
    Plain { payload_len, ..plain }.packet()
}

#[track_caller]
fn send(sa: &Sa, packets: &[Vec<u8>]) -> Run {
    let text = config(std::slice::from_ref(sa));
    let text = text.replace("[lab]", "[icmp]\naddresses = ['10.1.0.1', 'fd01::1']\n[lab]");
    replay_over(Some(MTU), &text, packets, &[])
}

/// P23: a packet that does not fit and may not be fragmented is answered with what does fit: IPv4
/// "fragmentation needed", IPv6 "packet too big".
#[test]
fn packets_that_do_not_fit_are_answered() {
    let sa = Sa::outbound();
    // 1400 octets less 20 + 8 + 8 of headers, trailer of 2 and ICV, whole words: 1346.
    let fits = 1346;
    for six in [false, true] {
        let packets = [of_len(&sa, six, fits + 1, true), of_len(&sa, six, fits, true)];
        let run = send(&sa, &packets);
        assert_eq!(run.outcomes(), ["too_big", "forward"]);
        assert_eq!(run.verdicts[0].more["answer"], 1);
        let [answer] = &run.opened()[..] else { panic!("one answer") };
        let parsed = ip::parse(answer).unwrap();
        assert_eq!(parsed.destination(), sa.inner(six).0);
        let icmp = &answer[parsed.upper_at()..];
        let mtu = u16::try_from(fits).unwrap().to_be_bytes();
        if six {
            assert_eq!((parsed.protocol(), icmp[0], icmp[1]), (58, 2, 0));
            assert_eq!(icmp[4..8], [0, 0, mtu[0], mtu[1]]);
            assert_eq!(icmp[8..28], packets[0][..20]);
        } else {
            assert_eq!((parsed.protocol(), icmp[0], icmp[1]), (1, 3, 4));
            assert_eq!(icmp[6..8], mtu);
            assert_eq!(icmp[8..28], packets[0][..20]);
        }
    }
}

/// P12: what policy discards is answered only where that is asked for.
#[test]
fn discarded_packets_are_answered_if_asked() {
    let sa = Sa::outbound();
    let discard = crate::packets::policy("outbound", "10.1.0.0/24", "10.2.0.9", "discard", None);
    let text = crate::packets::config_with(&discard, std::slice::from_ref(&sa));
    let packet = ip_packet([10, 1, 0, 5].into(), [10, 2, 0, 9].into(), 17, &[7; 30]);
    let run = replay(&text, std::slice::from_ref(&packet), &[]);
    assert_eq!((run.outcomes(), run.protected.len()), (vec!["discard"], 0));
    let icmp = "[icmp]\nprohibited = true\naddresses = ['10.1.0.1']\n[lab]";
    let run = replay(&text.replace("[lab]", icmp), &[packet], &[]);
    assert_eq!((run.outcomes(), run.protected.len()), (vec!["discard"], 1));
    let answer = &run.opened()[0];
    assert_eq!(answer[12..20], [10, 1, 0, 1, 10, 1, 0, 5]);
    assert_eq!(answer[20..22], [3, 13]);
}

/// The payloads of IPv4 fragments put together; each starts where the one before ended.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        let field = u16::from_be_bytes([fragment[6], fragment[7]]);
        assert_eq!(usize::from(field & 0x1fff) * 8, payload.len());
        assert_eq!(field & 0x2000 != 0, index + 1 < fragments.len(), "more fragments");
        payload.extend(&fragment[20..]);
    }
    payload
}

/// E16 P22: a packet without DF that does not fit is fragmented before it is sealed, and the
/// fragments travel as packets of their own.
#[test]
fn packets_are_fragmented_before() {
    let sa = Sa::outbound();
    let plain = of_len(&sa, false, 1500, false);
    let run = send(&sa, std::slice::from_ref(&plain));
    assert_eq!(run.outcomes(), ["split"]);
    assert_eq!(run.verdicts[0].more["forward"], 2);
    let inner = |(sealed, seq): (&Vec<u8>, u64)| {
        assert!(sealed.len() <= usize::from(MTU));
        let text = sa.open(seq, unwrapped(sealed).1);
        let len = usize::from(u16::from_be_bytes([text[2], text[3]]));
        text[..len].to_vec()
    };
    let fragments: Vec<_> = run.sealed().iter().zip(1..).map(inner).collect();
    assert_eq!(reassembled(&fragments), plain[20..]);
}

/// E16 I01 I02: or it is sealed and then fragmented; the receiver puts the fragments together
/// before ESP, in any order, and without all of them nothing comes.
#[test]
fn packets_are_fragmented_after_and_put_together() {
    for encapsulated in [false, true] {
        let sa = Sa { encapsulated, ..Sa::outbound() }.with("fragmentation = 'after'");
        let plain = of_len(&sa, false, 1500, false);
        let run = send(&sa, std::slice::from_ref(&plain));
        assert_eq!(run.outcomes(), ["split"]);
        let mut fragments = run.sealed();
        assert_eq!(fragments.len(), 2);
        let whole = reassembled(&fragments);
        let esp = if encapsulated { &whole[8..] } else { &whole[..] };
        assert!(sa.open(1, esp).starts_with(&forwarded(&plain)));

        let far = Sa { spi: sa.spi, encapsulated, ..Sa::inbound() };
        let esp = far.packet(1, &of_len(&far, false, 1500, false));
        let near = |from: usize, to: usize, more: bool| {
            changed(&[&esp[..20], &esp[20 + from..20 + to]].concat(), |packet| {
                let field = u16::try_from(from / 8).unwrap() | if more { 0x2000 } else { 0 };
                let len = u16::try_from(packet.len()).unwrap();
                packet[2..4].copy_from_slice(&len.to_be_bytes());
                packet[4..6].copy_from_slice(&[0x12, 0x34]);
                packet[6..8].copy_from_slice(&field.to_be_bytes());
            })
        };
        let end = esp.len() - 20;
        fragments = vec![near(0, 800, true), near(800, 1200, true), near(1200, end, false)];
        let text = config(std::slice::from_ref(&far));
        let run = replay(&text, &[], &fragments);
        assert_eq!(run.outcomes(), ["reassembling"; 3]);
        assert_eq!(run.verdicts[2].more["forward"], 1);
        assert_eq!(run.opened(), [forwarded(&of_len(&far, false, 1500, false))]);
        if !encapsulated {
            fragments.swap(0, 2);
            assert_eq!(replay(&text, &[], &fragments).protected.len(), 1, "any order");
        }
        assert_eq!(replay(&text, &[], &fragments[..2]).protected.len(), 0);
    }
}

/// E17 A07: transport mode, of ESP raw and in UDP and of AH, is never applied to a fragment of
/// either family; each is recorded.
#[test]
fn fragments_do_not_get_transport_mode() {
    let esp = Sa { transport: true, ..Sa::outbound() };
    let udp = Sa { encapsulated: true, ..esp.clone() };
    let ah = Sa { algorithm: Algorithm::AhSha256, ..esp.clone() };
    for (sa, six) in [esp, udp, ah].into_iter().flat_map(|sa| [(sa.clone(), false), (sa, true)]) {
        let sa = Sa { six, ..sa };
        let plain = sa.plain(six, 1).packet();
        let fragment = |v4: [u8; 2], v6: [u8; 2]| match six {
            true => {
                let header = [17, 0, v6[0], v6[1], 0, 0, 0, 7];
                crate::packets::replaced(&plain, 44, &[&header, &plain[40..]].concat())
            }
            false => changed(&plain, |packet| packet[6..8].copy_from_slice(&v4)),
        };
        let packets = [
            fragment([0x20, 0], [0, 1]),
            fragment([0, 9], [0, 72]),
            fragment([0x20, 9], [0, 73]),
            plain.clone(),
        ];
        let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
        assert_eq!(run.outcomes(), ["fragment", "fragment", "fragment", "forward"], "{sa:?}");
        assert_eq!((run.audit.len(), run.report.sas[0].sequence), (3, 1), "no number is spent");
    }
}

/// An ICMP error of a router on the path about a packet that was sent.
fn too_big(about: &[u8], mtu: u16) -> Vec<u8> {
    path_error(about, [3, 4], mtu)
}

fn path_error(about: &[u8], [kind, code]: [u8; 2], mtu: u16) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&about[..about.len().min(60)]);
    let sum = culvert_wire::checksum::internet(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let router: IpAddr = [198, 51, 100, 1].into();
    ip_packet(router, [192, 0, 2, 1].into(), 1, &icmp)
}

/// P23 P24: an error that names the SA and a packet just sent lowers the path MTU, which the next
/// packet that does not fit is told; one with another SPI, or about nothing we sent, does not.
#[test]
fn plausible_errors_lower_the_path_mtu() {
    let sa = Sa::outbound();
    let text = config(std::slice::from_ref(&sa));
    let small = sa.plain(false, 1).packet();
    let sent = replay(&text, std::slice::from_ref(&small), &[]).sealed().remove(0);
    let mut wrong_spi = sent.clone();
    wrong_spi[20] ^= 1;
    let mut unsent = sent.clone();
    unsent[24..28].copy_from_slice(&77_u32.to_be_bytes());
    for (error, believed) in [
        (too_big(&sent, 1000), true),
        (too_big(&wrong_spi, 1000), false),
        (too_big(&unsent, 1000), false),
    ] {
        let times = |packets: &[Vec<u8>]| crate::pcap::timed(packets);
        let [first, second, third] =
            &times(&[small.clone(), error, of_len(&sa, false, 1300, true)])[..]
        else {
            panic!("three packets")
        };
        let protected = [first.clone(), third.clone()];
        let run = crate::support::replay_at(&text, &protected, std::slice::from_ref(second));
        let (note, next) =
            if believed { ("path_mtu", "too_big") } else { ("icmp_error", "forward") };
        assert_eq!(run.outcomes(), ["forward", note, next]);
        assert_eq!(run.report.sas[0].path_mtu, believed.then_some(1000));
        let told = run.events.iter().filter(|event| event["event"] == "path_mtu").count();
        assert_eq!(told, usize::from(believed));
    }
}

/// P24: errors of other kinds are news, at most, and each kind can be switched off by itself: what
/// is not accepted is dropped.
#[test]
fn kinds_of_errors_are_accepted_or_not() {
    let sa = Sa::outbound();
    let text = config(std::slice::from_ref(&sa));
    let small = sa.plain(false, 1).packet();
    let sent = replay(&text, std::slice::from_ref(&small), &[]).sealed().remove(0);
    let kinds = [[3, 4], [3, 1], [11, 0], [12, 0]];
    let errors = kinds.map(|kind| path_error(&sent, kind, 1000));
    let all = ["path_mtu", "icmp_noted", "icmp_noted", "icmp_noted"];
    let none = ["icmp_error"; 4];
    let times = ["icmp_error", "icmp_error", "icmp_noted", "icmp_error"];
    for (accept, outcomes) in
        [("", all), ("accept = 'none'", none), ("accept = ['time-exceeded']", times)]
    {
        let text = text.replace("[lab]", &format!("[icmp]\n{accept}\n[lab]"));
        let run = replay(&text, std::slice::from_ref(&small), &errors);
        assert_eq!(run.outcomes()[1..], outcomes, "{accept}");
        let told = run.events.iter().filter(|event| event["event"] == "icmp_error");
        let told: Vec<_> = told.map(|event| event["icmp"].as_str().unwrap()).collect();
        let expected = outcomes.iter().zip(["3/4", "3/1", "11/0", "12/0"]);
        let expected = expected.filter(|(outcome, _)| **outcome == "icmp_noted");
        assert_eq!(told, expected.map(|(_, icmp)| icmp).collect::<Vec<_>>(), "{accept}");
    }
}

/// P24: the least path MTU that is believed is 576 octets, or what the SA says.
#[test]
fn the_floor_of_the_path_mtu_is_configured() {
    for (option, mtu) in [("", 576), ("path_mtu_floor = 800", 800), ("path_mtu_floor = 296", 296)] {
        let sa = Sa::outbound().with(option);
        let text = config(std::slice::from_ref(&sa));
        let small = sa.plain(false, 1).packet();
        let sent = replay(&text, std::slice::from_ref(&small), &[]).sealed().remove(0);
        let run = replay(&text, &[small], &[too_big(&sent, 68)]);
        assert_eq!(run.outcomes(), ["forward", "path_mtu"]);
        assert_eq!(run.report.sas[0].path_mtu, Some(mtu), "{option}");
    }
}

/// P24: an SA that does not trust ICMP is not moved by a plausible error.
#[test]
fn errors_may_be_distrusted() {
    let sa = Sa::outbound().with("trust_icmp = false");
    let text = config(std::slice::from_ref(&sa));
    let small = sa.plain(false, 1).packet();
    let sent = replay(&text, std::slice::from_ref(&small), &[]).sealed().remove(0);
    let run = replay(&text, &[small], &[too_big(&sent, 1000)]);
    assert_eq!(run.outcomes(), ["forward", "icmp_error"]);
    assert_eq!(run.report.sas[0].path_mtu, None);
}

/// The MSS of connections is lowered to what fits, or to a number, with a right checksum; and never
/// raised.
#[test]
fn the_mss_is_clamped() {
    let sa = Sa::outbound();
    let (source, destination) = sa.inner(false);
    let syn = |mss: u16| {
        let mut tcp =
            vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0];
        tcp.extend([2, 4]);
        tcp.extend(mss.to_be_bytes());
        let sum = tcp_checksum(source, destination, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        ip_packet(source, destination, 6, &tcp)
    };
    // 1346 octets fit, 40 of them headers of IPv4 and TCP.
    for (option, mss) in [
        ("mss_clamp = 'off'", [1460, 1000]),
        ("mss_clamp = 'auto'", [1306, 1000]),
        ("mss_clamp = 1200", [1200, 1000]),
    ] {
        let sa = sa.clone().with(option);
        let run = send(&sa, &[syn(1460), syn(1000)]);
        run.assert_all("forward");
        for ((sealed, seq), mss) in run.sealed().iter().zip(1..).zip(mss) {
            let text = sa.open(seq, unwrapped(sealed).1);
            let tcp = &text[20..44];
            assert_eq!(u16::from_be_bytes([tcp[22], tcp[23]]), mss, "{option}");
            assert_eq!(tcp_checksum(source, destination, tcp), 0, "{option}");
        }
    }
}

fn tcp_checksum(source: IpAddr, destination: IpAddr, tcp: &[u8]) -> u16 {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        panic!("IPv4")
    };
    let len = u16::try_from(tcp.len()).unwrap();
    let pseudo = culvert_wire::checksum::pseudo_header_v4(source, destination, 6, len);
    !culvert_wire::checksum::add(pseudo, culvert_wire::checksum::sum(tcp))
}

/// I02: with `jumbo = true` packets of up to 9000 octets are sealed and opened in one piece, and
/// ESP of that size is put together from fragments; without it, what is larger than a buffer is
/// dropped.
#[test]
fn jumbo_packets_pass_where_configured() {
    let (sending, receiving) = (Sa::outbound(), Sa::inbound());
    let jumbo = |text: String| text.replace("[interfaces]\n", "[interfaces]\njumbo = true\n");
    for len in [1500, 1770, 1800, 8900] {
        for six in [false, true] {
            let plain = of_len(&sending, six, len, true);
            let text = jumbo(config(std::slice::from_ref(&sending)));
            let run = replay_over(Some(9000), &text, std::slice::from_ref(&plain), &[]);
            assert_eq!(run.outcomes(), ["forward"], "{len}");
            let sealed = run.sealed();
            let text = sending.open(1, unwrapped(&sealed[0]).1);
            assert_eq!(text[..len], forwarded(&plain), "{len}");

            let plain = of_len(&receiving, six, len, true);
            let sealed = receiving.packet(1, &plain);
            let text = jumbo(config(std::slice::from_ref(&receiving)));
            let run = replay_over(Some(9000), &text, &[], std::slice::from_ref(&sealed));
            assert_eq!(run.outcomes(), ["forward"], "{len}");
            assert_eq!(run.opened(), [forwarded(&plain)], "{len}");
        }
    }
    let plain = of_len(&receiving, false, 8900, true);
    let sealed = receiving.packet(1, &plain);
    let starts: Vec<usize> = (0..sealed.len() - 20).step_by(1400).collect();
    let piece = |from: usize| {
        let end = sealed.len().min(20 + from + 1400);
        let more = if end < sealed.len() { 0x2000 } else { 0 };
        changed(&[&sealed[..20], &sealed[20 + from..end]].concat(), |packet| {
            let len = u16::try_from(packet.len()).unwrap();
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            let field = u16::try_from(from / 8).unwrap() | more;
            packet[6..8].copy_from_slice(&field.to_be_bytes());
        })
    };
    let fragments: Vec<Vec<u8>> = starts.into_iter().map(piece).collect();
    let text = config(std::slice::from_ref(&receiving));
    let run = replay_over(Some(9000), &jumbo(text.clone()), &[], &fragments);
    assert_eq!((run.outcomes(), run.opened()), (vec!["reassembling"; 7], vec![forwarded(&plain)]));
    let run = replay_over(Some(9000), &text, &[], &fragments);
    assert_eq!((run.outcomes()[6], run.protected.len()), ("reassembly", 0));

    let large = of_len(&sending, false, 1800, true);
    let text = config(std::slice::from_ref(&sending));
    let run = replay_over(Some(9000), &text, std::slice::from_ref(&large), &[]);
    assert_eq!(run.outcomes(), ["too_big"]);
}
