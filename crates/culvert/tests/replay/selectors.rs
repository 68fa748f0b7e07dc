//! Which packets policies and SAs are about (RFC 4301 section 4.4.1), and SAs that are asked for.

use std::net::IpAddr;

use culvert_sim::plain::ip_packet;

use crate::packets::INBOUND;
use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::changed;
use crate::packets::config;
use crate::packets::config_with;
use crate::packets::policy;
use crate::support::count;
use crate::support::replay;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// An IPv4 packet between the hosts of the first networks whose payload starts with these octets.
fn packet(protocol: u8, start: &[u8]) -> Vec<u8> {
    let (source, destination) = Sa::outbound().inner(false);
    let mut payload = start.to_vec();
    payload.resize(40, 0x77);
    ip_packet(source, destination, protocol, &payload)
}

fn with_ports(protocol: u8, source: u16, destination: u16) -> Vec<u8> {
    packet(protocol, &[source.to_be_bytes(), destination.to_be_bytes()].concat())
}

/// The same packet as a fragment that is not the first.
fn later(packet: &[u8]) -> Vec<u8> {
    changed(packet, |packet| packet[6..8].copy_from_slice(&[0, 9]))
}

/// A gateway that protects what these lines of a selector admit, and discards all else.
fn outcomes(lines: &str, packets: &[Vec<u8>]) -> Vec<String> {
    let sa = Sa::outbound();
    let through =
        policy(OUTBOUND, "any", "10.2.0.0/16", "protect", Some(&sa.name())) + lines + "\n";
    let rest = policy(OUTBOUND, "any", "any", "discard", None);
    let head = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\n\
                static_keys = true\n";
    let run = replay(&[head, &sa.toml(), &through, &rest].concat(), packets, &[]);
    run.outcomes().into_iter().map(str::to_owned).collect()
}

const YES: &str = "forward";
const NO: &str = "discard";

/// P05: protocols and ports, in lists and ranges; what has no ports never matches them.
#[test]
fn protocols_and_ports() {
    let packets = [
        with_ports(TCP, 1024, 80),
        with_ports(TCP, 1024, 443),
        with_ports(TCP, 80, 1024),
        with_ports(UDP, 1024, 80),
        packet(ICMP, &[8, 0]),
        packet(47, &[0, 0]),
    ];
    assert_eq!(outcomes("", &packets), [YES; 6]);
    assert_eq!(outcomes("protocol = 'tcp'", &packets), [YES, YES, YES, NO, NO, NO]);
    assert_eq!(outcomes("protocol = 47", &packets), [NO, NO, NO, NO, NO, YES]);
    let http = "protocol = 'tcp'\ndestination_ports = [80, '8000-8080']";
    assert_eq!(outcomes(http, &packets), [YES, NO, NO, NO, NO, NO]);
    let from = "protocol = 'tcp'\nsource_ports = '1000-1100'\ndestination_ports = 'any'";
    assert_eq!(outcomes(from, &packets), [YES, YES, NO, NO, NO, NO]);
}

/// P06: ICMP types and codes are compared as one number.
#[test]
fn icmp_types_and_codes() {
    let packets =
        [(3, 0), (3, 4), (3, 13), (8, 0), (11, 1)].map(|(kind, code)| packet(ICMP, &[kind, code]));
    let icmp = |value: &str| outcomes(&format!("protocol = 'icmp'\nicmp = {value}"), &packets);
    assert_eq!(icmp("8"), [NO, NO, NO, YES, NO]);
    assert_eq!(icmp("'3/4'"), [NO, YES, NO, NO, NO]);
    assert_eq!(icmp("'3/1-8/0'"), [NO, YES, YES, YES, NO]);
    assert_eq!(icmp("'3-11'"), [YES; 5]);
    assert_eq!(icmp("[8, '11/1']"), [NO, NO, NO, YES, YES]);
}

/// P08 P22 U15: a fragment that does not show its ports matches ANY and OPAQUE, and ports only
/// where fragments are meant, too.
#[test]
fn fragments_match_what_they_show() {
    let first = changed(&with_ports(UDP, 5, 53), |packet| packet[6] = 0x20);
    let packets = [first, later(&with_ports(UDP, 5, 53)), later(&with_ports(UDP, 5, 99))];
    assert_eq!(outcomes("protocol = 'udp'", &packets), [YES, YES, YES]);
    let dns = "protocol = 'udp'\ndestination_ports = 53";
    assert_eq!(outcomes(dns, &packets), [YES, NO, NO]);
    assert_eq!(outcomes(&format!("{dns}\nfragments_too = true"), &packets), [YES, YES, YES]);
    let opaque = "protocol = 'udp'\nsource_ports = 'opaque'\ndestination_ports = 'opaque'";
    assert_eq!(outcomes(opaque, &packets), [NO, YES, YES]);
}

/// P05: addresses are true ranges and lists of them, and the XDP program takes just those.
#[test]
fn addresses_are_ranges() {
    let sa = Sa::outbound();
    let list = "['10.2.0.5-10.2.0.9', '10.2.1.0/24']";
    let through = policy(OUTBOUND, "10.1.0.1-10.1.0.6", "@", "protect", Some(&sa.name()));
    let head = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\n\
                static_keys = true\n";
    let config = [head, &sa.toml(), &through.replace("\"@\"", list)].concat();
    let from: [IpAddr; 2] = [[10, 1, 0, 6].into(), [10, 1, 0, 7].into()];
    let to = [[10, 2, 0, 4], [10, 2, 0, 5], [10, 2, 0, 9], [10, 2, 0, 10], [10, 2, 1, 255]];
    let mut packets = Vec::new();
    for source in from {
        packets.extend(to.map(|to| ip_packet(source, IpAddr::from(to), UDP, &[7; 20])));
    }
    let run = replay(&config, &packets, &[]);
    let expected = ["punt", "forward", "forward", "punt", "forward"];
    let other = ["punt", "no_policy", "no_policy", "punt", "no_policy"];
    assert_eq!(run.outcomes(), [expected, other].concat());
}

/// P02 P03: what no policy matches is discarded, or bypassed where the default says so.
#[test]
fn the_default_can_be_bypass() {
    let sa = Sa::outbound();
    let text = config(std::slice::from_ref(&sa));
    let stranger = ip_packet([10, 9, 9, 9].into(), [10, 2, 0, 5].into(), UDP, &[7; 20]);
    let packets = [sa.plain(false, 1).packet(), stranger];
    assert_eq!(replay(&text, &packets, &[]).outcomes(), ["forward", "no_policy"]);
    let bypass = text.replace("[lab]", "[spd]\ndefault = \"bypass\"\n[lab]");
    assert_eq!(replay(&bypass, &packets, &[]).outcomes(), ["forward", "bypass"]);
}

/// P09 P10: what comes out of an SA must be what the selectors of that very SA admit, whatever
/// policies say; if not it is dropped, recorded, and IKE is told.
#[test]
fn an_sa_has_selectors_of_its_own() {
    let selectors =
        "selectors = [{ protocol = 'udp', destination_ports = 53 }, { protocol = 'icmp' }]";
    let sa = Sa::inbound().with(selectors);
    let (source, destination) = sa.inner(false);
    let inner = |protocol, start: &[u8]| {
        let payload = [start, &[0; 30]].concat();
        ip_packet(source, destination, protocol, &payload)
    };
    let packets = [
        sa.packet(1, &inner(UDP, &[0, 9, 0, 53])),
        sa.packet(2, &inner(UDP, &[0, 9, 0, 54])),
        sa.packet(3, &inner(ICMP, &[8, 0])),
        sa.packet(4, &inner(TCP, &[0, 9, 0, 53])),
    ];
    let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
    assert_eq!(run.outcomes(), ["forward", "selector", "forward", "selector"]);
    let told = run.events.iter().filter(|event| event["event"] == "invalid_selectors");
    assert_eq!(told.count(), 2);
    let audited: Vec<_> = run.audit.iter().map(|record| record["reason"].as_str()).collect();
    assert_eq!(audited, [Some("selector"); 2]);
}

/// P11: plaintext from the unprotected side that policy protects is dropped; what it bypasses is
/// let through.
#[test]
fn plaintext_that_policy_protects_is_dropped() {
    let sa = Sa::inbound();
    let bypass = policy(INBOUND, "10.2.0.67", "10.1.0.0/24", "bypass", None);
    let text = config_with(&bypass, std::slice::from_ref(&sa));
    let from = |last| ip_packet([10, 2, 0, last].into(), [10, 1, 0, 5].into(), UDP, &[7; 20]);
    let run = replay(&text, &[], &[from(5), from(67)]);
    assert_eq!(run.outcomes(), ["plaintext", "bypass"]);
    assert_eq!(run.protected.len(), 1);
}

/// P04: IKE of the gateway passes, even where policy discards everything; that of others does not.
#[test]
fn ike_of_the_gateway_passes() {
    let sa = Sa::inbound();
    let all = policy(INBOUND, "any", "any", "discard", None);
    let text = config_with(&all, std::slice::from_ref(&sa));
    let (peer, us) = sa.outer();
    let ports = |source: u16, destination: u16, marker: &[u8]| {
        let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        datagram.extend([0, 36, 0, 0]);
        datagram.extend(marker);
        datagram.resize(36, 0x11);
        datagram
    };
    let ike = ports(500, 500, &[]);
    let floated = ports(4500, 4500, &[0; 4]);
    let other = ports(500, 501, &[]);
    let elsewhere: IpAddr = [10, 1, 0, 5].into();
    let packets = [
        ip_packet(peer, us, UDP, &ike),
        ip_packet(peer, us, UDP, &floated),
        ip_packet(peer, us, UDP, &other),
        ip_packet(peer, elsewhere, UDP, &ike),
    ];
    let run = replay(&text, &[], &packets);
    assert_eq!(run.outcomes(), ["punt", "punt", "discard", "discard"]);
}

/// P07: a policy without an SA asks for one, with the selectors of the policy but for those that
/// are taken from the packet.
#[test]
fn an_sa_is_asked_for() {
    let head = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n";
    let asking = policy(OUTBOUND, "10.1.0.0/16", "10.2.0.0/16", "protect", None);
    let packet = with_ports(TCP, 1234, 80);
    let run =
        replay(&format!("{head}{asking}acquire = true\n"), std::slice::from_ref(&packet), &[]);
    assert_eq!(run.outcomes(), ["no_outbound_sa"]);
    let [event] = run.events.as_slice() else { panic!("one event: {:?}", run.events) };
    assert_eq!((&event["event"], &event["policy"]), (&"acquire".into(), &0.into()));
    assert_eq!(event["selector"]["source"][0], "10.1.0.0/16");
    assert_eq!(event["selector"]["destination"][0], "10.2.0.0/16");
    assert_eq!(event["flow"]["destination_port"], 80);

    let pfp = "pfp = ['source', 'protocol', 'destination_port']\n";
    let run = replay(&format!("{head}{asking}acquire = true\n{pfp}"), &[packet], &[]);
    let selector = &run.events[0]["selector"];
    assert_eq!(selector["source"][0], "10.1.0.5/32");
    assert_eq!(selector["destination"][0], "10.2.0.0/16");
    assert_eq!(
        (&selector["protocol"], &selector["upper"]),
        (&6.into(), &"ports any to 80-80".into())
    );
}

/// I04: several SAs with one SPI are told apart by their addresses, the longest match first.
#[test]
fn the_longest_match_finds_the_sa() {
    let spi_only = Sa { net: 1, ..Sa::inbound() }.with("lookup = 'spi'");
    let destination = Sa { net: 2, ..Sa::inbound() };
    let source = Sa { net: 3, ..Sa::inbound() }.with("lookup = 'source'");
    let run = |sealed_by: &Sa, from: [u8; 4], to: [u8; 4]| {
        let esp = sealed_by.seal(1, &sealed_by.text(&sealed_by.plain(false, 1).packet(), 4));
        let packet = ip_packet(from.into(), to.into(), 50, &esp);
        let sas = [spi_only.clone(), destination.clone(), source.clone()];
        replay(&config(&sas), &[], &[packet]).outcomes()[0].to_owned()
    };
    let (peer, us) = ([192, 0, 2, 2], [192, 0, 2, 1]);
    assert_eq!(run(&source, peer, us), "forward");
    assert_eq!(run(&destination, peer, us), "icv", "the SA of this very source is found");
    assert_eq!(run(&destination, [192, 0, 2, 9], us), "forward");
    assert_eq!(run(&spi_only, peer, [192, 0, 2, 9]), "forward");
    assert_eq!(run(&spi_only, [192, 0, 2, 9], us), "icv");
}

/// P13 M01 U12: several SAs between the same peers with the same selectors, as in a rekey too:
/// packets of any of them are let out.
#[test]
fn parallel_sas_serve_one_policy() {
    let sas: Vec<Sa> = (0..8)
        .map(|index| Sa { spi: 0x2001 + index, ..Sa::inbound() }.with("group = 'all'"))
        .collect();
    let toml: String = sas
        .iter()
        .zip(0..)
        .map(|(sa, index)| sa.toml().replace("inbound-0", &format!("sa{index}")))
        .collect();
    let head = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\n\
                static_keys = true\n";
    let through = policy(INBOUND, "10.2.0.0/24", "10.1.0.0/24", "protect", Some("all"));
    let packets: Vec<_> = sas.iter().map(|sa| sa.packet(1, &sa.plain(false, 1).packet())).collect();
    let run = replay(&[head, &toml, &through].concat(), &[], &packets);
    run.assert_all("forward");
    assert!(run.report.sas.iter().all(|sa| sa.packets == 1));
}

/// P25: an ICMP error from a router whose address no policy admits is let out only when the packet
/// it encloses could have been sent through the SA's policy, and not where that is switched off.
#[test]
fn icmp_errors_are_admitted_by_what_they_enclose() {
    let sa = Sa::inbound();
    let (far, near) = sa.inner(false);
    let error = |about: &[u8]| {
        let mut icmp = vec![11, 0, 0, 0, 0, 0, 0, 0];
        icmp.extend(&about[..28]);
        let sum = culvert_wire::checksum::internet(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        ip_packet([172, 16, 0, 1].into(), near, ICMP, &icmp)
    };
    let ours = ip_packet(near, far, UDP, &[7; 20]);
    let others = ip_packet(near, [10, 77, 0, 1].into(), UDP, &[7; 20]);
    for (option, outcomes) in [
        ("icmp_errors = 'policy'", ["selector", "selector", "forward"]),
        ("icmp_errors = 'enclosed'", ["forward", "selector", "forward"]),
        ("", ["forward", "selector", "forward"]),
    ] {
        let sa = sa.clone().with(option);
        let packets = [
            sa.packet(1, &error(&ours)),
            sa.packet(2, &error(&others)),
            sa.packet(3, &sa.plain(false, 1).packet()),
        ];
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
        assert_eq!(run.outcomes(), outcomes, "{option}");
    }
}

/// P25: an ICMP error from a router behind the gateway that no policy names goes by the SA of the
/// return traffic of the packet it encloses; without such an SA it is dropped and recorded, and
/// none is asked for; what policy discards by name stays discarded.
#[test]
fn icmp_errors_go_by_what_they_enclose() {
    let sa = Sa::outbound();
    let (near, far) = sa.inner(false);
    let error = |about: &[u8]| {
        let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
        icmp.extend(&about[..28]);
        let sum = culvert_wire::checksum::internet(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        ip_packet([172, 16, 0, 1].into(), far, ICMP, &icmp)
    };
    let ours = error(&ip_packet(far, near, UDP, &[7; 20]));
    let others = error(&ip_packet(far, [10, 77, 0, 1].into(), UDP, &[7; 20]));
    let packets = [ours.clone(), others];
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    assert_eq!(run.outcomes(), ["forward", "icmp_unmapped"]);
    let [sealed] = &run.sealed()[..] else { panic!("one packet") };
    let text = sa.open(1, crate::packets::unwrapped(sealed).1);
    assert!(text.starts_with(&crate::packets::forwarded(&ours)));
    let [record] = &run.audit[..] else { panic!("one record") };
    assert_eq!(
        (&record["reason"], &record["source"]),
        (&"icmp_unmapped".into(), &"172.16.0.1".into())
    );
    assert!(run.events.is_empty(), "nothing is asked for: {:?}", run.events);
    let discard = policy(OUTBOUND, "172.16.0.0/16", "any", "discard", None);
    let text = config_with(&discard, std::slice::from_ref(&sa));
    assert_eq!(replay(&text, &packets, &[]).outcomes(), ["discard"; 2]);
}

/// P08 U15: an SA for some ports lets no fragment out that does not show them, unless that was
/// agreed; it is recorded.
#[test]
fn an_sa_takes_fragments_only_if_agreed() {
    let (source, destination) = Sa::inbound().inner(false);
    let whole = ip_packet(source, destination, UDP, &[&[0, 9, 0, 53][..], &[0; 40]].concat());
    let first = changed(&whole, |packet| packet[6] = 0x20);
    let icmp = later(&ip_packet(source, destination, ICMP, &[0; 40]));
    let inner = [whole.clone(), first, later(&whole), icmp];
    for (also, outcome) in [("", "selector"), (", fragments_too = true", "forward")] {
        let dns = format!("selectors = [{{ protocol = 'udp', destination_ports = 53{also} }}]");
        let sa = Sa::inbound().with(&dns);
        let packets: Vec<_> = inner.iter().zip(1..).map(|(one, seq)| sa.packet(seq, one)).collect();
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
        assert_eq!(run.outcomes(), ["forward", "forward", outcome, "selector"], "{also}");
        assert_eq!(count(run.audit.len()), run.report.drops["selector"]);
    }
}

/// P05 P08: OPAQUE is what a packet does not show: its ports, its ICMP type, and in IPv6 even its
/// protocol, which a fragment behind an extension header hides.
#[test]
fn what_is_not_shown_is_opaque() {
    let (source, destination) = Sa::outbound().inner(true);
    let options = [UDP, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |next: u8| [next, 0, 0, 40, 0, 0, 0, 9];
    let six = |first: u8, headers: &[u8]| {
        ip_packet(source, destination, first, &[headers, &[0x11; 40]].concat())
    };
    let packets = [
        six(UDP, &[]),
        six(60, &options),
        six(44, &fragment(UDP)),
        six(44, &fragment(60)),
        six(44, &fragment(58)),
        packet(60, &[]),
        packet(ICMP, &[8, 0]),
        later(&packet(ICMP, &[8, 0])),
    ];
    let outcomes = |lines: &str| -> Vec<bool> {
        let sas = [Sa::outbound()];
        let through = policy(OUTBOUND, "any", "any", "protect", Some(&sas[0].name())) + lines;
        let rest = policy(OUTBOUND, "any", "any", "discard", None);
        let text = config_with(&format!("{through}\n{rest}"), &sas);
        replay(&text, &packets, &[]).outcomes().iter().map(|&outcome| outcome == YES).collect()
    };
    let admitted = |lines: &str| -> Vec<usize> {
        let outcomes = outcomes(lines).into_iter().enumerate();
        outcomes.filter_map(|(index, admitted)| admitted.then_some(index)).collect()
    };
    assert_eq!(admitted(""), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(admitted("protocol = 'udp'"), [0, 1, 2]);
    assert_eq!(admitted("protocol = 'opaque'"), [3]);
    assert_eq!(admitted("protocol = 60"), [3, 5]);
    assert_eq!(admitted("protocol = 'icmp'\nicmp = 'opaque'"), [7]);
    assert_eq!(admitted("protocol = 'icmpv6'\nicmp = 'opaque'"), [4]);
    let ports = "protocol = 'udp'\nsource_ports = 'opaque'\ndestination_ports = 'opaque'";
    assert_eq!(admitted(ports), [2]);
}

/// P08: where fragments are admitted without their ports, those that begin inside the TCP header
/// are not (RFC 4301 section 7.2, RFC 1858): they would replace its flags.
#[test]
fn fragments_do_not_replace_flags() {
    let at = |protocol, offset| {
        changed(&packet(protocol, &[0; 4]), |packet| packet[6..8].copy_from_slice(&[0, offset]))
    };
    let packets = [at(TCP, 1), at(TCP, 2), at(UDP, 1)];
    let opaque = "source_ports = 'opaque'\ndestination_ports = 'opaque'";
    let tcp = |lines: &str| outcomes(&format!("protocol = 'tcp'\n{lines}"), &packets);
    assert_eq!(tcp(opaque), [NO, YES, NO]);
    assert_eq!(tcp("destination_ports = 80\nfragments_too = true"), [NO, YES, NO]);
    let udp = format!("protocol = 'udp'\n{opaque}");
    assert_eq!(outcomes(&udp, &packets), [NO, NO, YES]);
}

/// P01 P03: what no entry's destination covers stays with the kernel; a last entry for all leaves
/// it nothing.
#[test]
fn a_last_entry_leaves_nothing_to_the_kernel() {
    let sas = [Sa::outbound(), Sa::inbound()];
    let there = ip_packet([10, 1, 0, 5].into(), [198, 51, 100, 9].into(), UDP, &[7; 20]);
    let here = ip_packet([198, 51, 100, 9].into(), [10, 77, 0, 5].into(), UDP, &[7; 20]);
    let run = |text: &str| {
        let run = replay(text, std::slice::from_ref(&there), std::slice::from_ref(&here));
        run.outcomes().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run(&config(&sas)), ["punt", "punt"]);
    let last = |direction| policy(direction, "any", "any", "discard", None);
    let text = config(&sas) + &last(OUTBOUND) + &last(INBOUND);
    assert_eq!(run(&text), ["discard", "discard"]);
    // One that the last does not match is dropped all the same.
    let last = |direction| policy(direction, "10.99.0.0/16", "any", "discard", None);
    let text = config(&sas) + &last(OUTBOUND) + &last(INBOUND);
    assert_eq!(run(&text), ["no_policy", "no_policy"]);
}

/// P01 P03: with `take = "all"` nothing but what is for the machine itself, and what no router
/// forwards, stays with the kernel: what no entry covers meets the default action, without any
/// entry at all, too.
#[test]
fn the_default_rules_everything_that_is_taken() {
    let sas = [Sa::outbound(), Sa::inbound()];
    let to = |destination: [u8; 4]| {
        ip_packet([198, 51, 100, 9].into(), destination.into(), UDP, &[7; 20])
    };
    let six = |destination: &str| {
        let source = "2001:db8:99::9".parse().unwrap();
        ip_packet(source, destination.parse().unwrap(), UDP, &[7; 20])
    };
    let taken = [to([203, 0, 113, 9]), to([169, 254, 7, 7]), six("2001:db8:77::7")];
    let left = [to([224, 0, 0, 5]), to([255; 4]), six("ff02::5"), six("fe80::7")];
    let packets = [taken, [left[0].clone(), left[1].clone(), left[2].clone()]].concat();
    let run = |text: &str| {
        let run = replay(text, &packets, &packets);
        run.outcomes().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = |outcome: &'static str| {
        let one = [[outcome; 3], ["punt"; 3]].concat();
        [one.clone(), one].concat()
    };
    let text = config(&sas);
    assert_eq!(run(&text), all("punt"));
    let text = text.replace("[interfaces]\n", "[interfaces]\ntake = \"all\"\n");
    assert_eq!(run(&text), all("no_policy"));
    let empty = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\ntake = 'all'\n";
    assert_eq!(run(empty), all("no_policy"));
    assert_eq!(run(&format!("{empty}[spd]\ndefault = 'bypass'\n"))[..3], ["bypass"; 3]);
    // The near ends of tunnels are the gateway's own addresses.
    let own = [to([192, 0, 2, 1]), left[3].clone()];
    assert_eq!(replay(&text, &own, &own).outcomes(), ["punt"; 4]);
}
