//! Forms of capture files and links, and the order in which packets are taken.

use std::time::Duration;

use culvert_wire::ethernet;

use crate::packets::Sa;
use crate::packets::config;
use crate::packets::forwarded;
use crate::packets::framed;
use crate::packets::unwrapped;
use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_ETHERNET;
use crate::pcap::LINK_RAW;
use crate::pcap::Timed;
use crate::support::Files;
use crate::support::Invocation;

const LINK_IPV4: u32 = 228;
const LINK_IPV6: u32 = 229;

/// Packets of both families for one outbound SA, at odd times.
fn plain(sa: &Sa) -> Vec<Timed> {
    let packets: Vec<_> = (0..6).map(|id| sa.plain(id % 3 == 2, id).packet()).collect();
    let odd = |(at, data): Timed| (at + Duration::from_nanos(123_456), data);
    pcap::timed(&packets).into_iter().map(odd).collect()
}

fn run(sa: &Sa, link: &'static str, file: &[u8]) -> Files {
    let mut invocation = Invocation::new(&config(std::slice::from_ref(sa)));
    invocation.link = Some(link);
    invocation.put("protected-in", file);
    invocation.checked();
    invocation.files()
}

/// Every form of input, pcap and pcapng, gives the same output, octet for octet; with microseconds
/// only the times are less exact.
#[test]
fn all_forms_of_input_are_read() {
    let sa = Sa::outbound();
    let packets = plain(&sa);
    let frame = |(at, packet): &Timed| (*at, framed(packet, None));
    let frames: Vec<_> = packets.iter().map(frame).collect();
    let microseconds = |(at, data): &Timed| {
        let at = Duration::new(at.as_secs(), at.subsec_micros() * 1000);
        (at, data.clone())
    };
    let rounded: Vec<_> = packets.iter().map(microseconds).collect();
    let exact = run(&sa, "raw", &Form::of(LINK_RAW).file(&packets));
    let inexact = run(&sa, "raw", &Form::of(LINK_RAW).file(&rounded));
    assert_ne!(exact, inexact, "the times differ");
    for (link, packets) in [(LINK_RAW, &packets), (12, &packets), (LINK_ETHERNET, &frames)] {
        for big_endian in [false, true] {
            for nanoseconds in [false, true] {
                let form = Form { big_endian, nanoseconds, ..Form::of(link) };
                let expected = if nanoseconds { &exact } else { &inexact };
                assert!(run(&sa, "raw", &form.file(packets)) == *expected, "{form:?}");
            }
        }
        let link = u16::try_from(link).unwrap();
        assert!(run(&sa, "raw", &pcap::pcapng(link, true, packets)) == exact, "pcapng {link}");
        assert!(run(&sa, "raw", &pcap::pcapng(link, false, packets)) == inexact, "pcapng {link}");
    }
    for (link, six) in [(LINK_IPV4, false), (LINK_IPV6, true)] {
        let of_family = |&(_, data): &&Timed| (data[0] >> 4 == 6) == six;
        let packets: Vec<_> = packets.iter().filter(of_family).cloned().collect();
        let expected = run(&sa, "raw", &Form::of(LINK_RAW).file(&packets));
        assert!(run(&sa, "raw", &Form::of(link).file(&packets)) == expected, "{link}");
    }
}

/// Outputs have the link type that was asked for, Ethernet without asking; frames differ from raw
/// packets by their header alone, and each has the time of the packet it came from.
#[test]
fn outputs_have_the_link_type_asked_for() {
    let sa = Sa::outbound();
    let packets = plain(&sa);
    let captured = |link| {
        let mut invocation = Invocation::new(&config(std::slice::from_ref(&sa)));
        invocation.link = link;
        invocation.put("protected-in", &Form::of(LINK_RAW).file(&packets));
        invocation.checked().unprotected
    };
    let (raw, frames) = (captured(Some("raw")), captured(Some("ethernet")));
    assert_eq!(frames, captured(None));
    assert_eq!(raw.len(), packets.len());
    for ((raw, frame), plain) in raw.iter().zip(&frames).zip(&packets) {
        assert_eq!((raw.0, frame.0), (plain.0, plain.0), "times");
        let link = ethernet::parse(&frame.1).unwrap();
        assert_eq!((link.ether_type, link.vlan), (ethernet::ETHER_TYPE_IPV4, None));
        assert_eq!(frame.1[link.payload_at..], raw.1);
    }
}

/// A VLAN tag on either side is looked through; what has two, or a service tag, is not ours.
#[test]
fn one_vlan_tag_is_looked_through() {
    let sas = [Sa::outbound(), Sa::inbound()];
    let invocation = Invocation::new(&config(&sas));
    let plain = sas[0].plain(false, 1).packet();
    let inner = sas[1].plain(true, 2).packet();
    let esp = sas[1].packet(1, &inner);
    let tagged = |packet: &[u8]| framed(packet, Some(7));
    let twice = |packet: &[u8]| {
        let frame = framed(packet, Some(7));
        [&frame[..12], &[0x81, 0x00, 0x00, 0x09], &frame[12..]].concat()
    };
    let service = |packet: &[u8]| {
        let mut frame = framed(packet, Some(7));
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame
    };
    let file = |packet: &[u8]| {
        let frames = [tagged(packet), twice(packet), service(packet), vec![]];
        Form::of(LINK_ETHERNET).file(&pcap::timed(&frames))
    };
    invocation.put("protected-in", &file(&plain));
    invocation.put("unprotected-in", &file(&esp));
    let run = invocation.checked();
    let (ours, not) = ("forward", "punt");
    assert_eq!(run.outcomes(), [ours, ours, not, not, not, not, not, not]);
    let (sent, received) = (&run.unprotected[0].1[14..], &run.protected[0].1[14..]);
    assert!(sas[0].open(1, unwrapped(sent).1).starts_with(&forwarded(&plain)));
    assert_eq!(received, forwarded(&inner));
}

/// The packets of both sides in the order of their times, the protected side first where times are
/// equal; within a file the order is that of the file, even when its times go back.
#[test]
fn inputs_are_merged_by_time() {
    let invocation = Invocation::new(&config(&[Sa::outbound(), Sa::inbound()]));
    let at = |times: &[u64]| -> Vec<Timed> {
        let packet = |&time: &u64| (Duration::from_nanos(time), vec![0x45]);
        times.iter().map(packet).collect()
    };
    let form = Form::of(LINK_RAW);
    invocation.put("protected-in", &form.file(&at(&[10, 20, 20, 30, 5, 50])));
    invocation.put("unprotected-in", &form.file(&at(&[1, 20, 21, 30, 40])));
    let run = invocation.checked();
    let order: Vec<_> =
        run.verdicts.iter().map(|v| format!("{}{}", &v.port[..1], v.index)).collect();
    let expected = ["u0", "p0", "p1", "p2", "u1", "u2", "p3", "p4", "u3", "u4", "p5"];
    assert_eq!(order, expected);
}

/// One input of two is enough, and captures may be empty.
#[test]
fn captures_may_be_absent_or_empty() {
    let config = config(&[Sa::outbound(), Sa::inbound()]);
    let empty = Form::of(LINK_ETHERNET).file(&[]);
    let inputs: [&[&str]; 3] =
        [&["protected-in"], &["unprotected-in"], &["protected-in", "unprotected-in"]];
    for inputs in inputs {
        for empty in [&empty, &pcap::pcapng(1, false, &[])] {
            let invocation = Invocation::new(&config);
            inputs.iter().for_each(|name| invocation.put(name, empty));
            let run = invocation.checked();
            assert!(run.verdicts.is_empty() && run.report.fates.is_empty());
            assert!(run.protected.is_empty() && run.unprotected.is_empty());
            assert_eq!((run.report.packets, run.report.sas.len()), (0, 2));
        }
    }
}

/// Lengths a capture states about itself do not matter; a packet that was cut short is malformed,
/// or not recognised at all, and a remark on standard error says so.
#[test]
fn packets_cut_short_are_not_taken_for_whole_ones() {
    let sas = [Sa::outbound(), Sa { encapsulated: true, ..Sa::inbound() }];
    let plain = sas[0].plain(false, 1).packet();
    let esp = sas[1].packet(1, &sas[1].plain(false, 1).packet());
    let file = |packet: &[u8], lengths: &[usize]| {
        let original = u32::try_from(packet.len()).unwrap();
        let cut = lengths.iter().map(|&len| (Duration::ZERO, original, &packet[..len]));
        // Less than the packets had on the wire, and than the longest that is there.
        Form { snaplen: 40, ..Form::of(LINK_RAW) }.file_cut(cut)
    };
    let invocation = Invocation::new(&config(&sas));
    let (p, u) = (plain.len(), esp.len());
    invocation.put("protected-in", &file(&plain, &[p, 0, 19, 20, 40, p - 1, p]));
    invocation.put("unprotected-in", &file(&esp, &[u, 0, 19, 27, 30, 40, u - 1, u]));
    let run = invocation.checked();
    let (short, bad, good) = ("punt", "malformed", "forward");
    let expected = [good, short, short, bad, bad, bad, good];
    assert_eq!(run.outcomes()[..7], expected);
    assert_eq!(run.outcomes()[7..], [good, short, short, short, short, bad, bad, "replay"]);
    let remarks: Vec<_> = run.stderr.lines().collect();
    assert!(remarks[0].contains("protected-in: 5 of 7 packets were longer"), "{remarks:?}");
    assert!(remarks[1].contains("unprotected-in: 6 of 8 packets were longer"), "{remarks:?}");
    assert_eq!(remarks.len(), 2);
}
