//! Random and damaged frames, and damaged files: nothing stops the program.

use std::process::Output;

use culvert_sim::random::Random;

use crate::packets::INBOUND;
use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::config_with;
use crate::packets::framed;
use crate::packets::policy;
use crate::packets::text;
use crate::packets::with_tos;
use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_ETHERNET;
use crate::support::Invocation;

/// Frames of each side in a run.
const FRAMES: usize = 10_000;
/// Damaged files of each kind.
const FILES: usize = 60;

fn sas() -> Vec<Sa> {
    let out = Sa::outbound();
    let back = Sa { window: 1024, ..Sa::inbound() };
    vec![
        Sa { net: 1, spi: 0x1002, six: true, encapsulated: true, esn: true, ..out.clone() },
        Sa { net: 1, spi: 0x2002, six: true, encapsulated: true, esn: true, ..back.clone() },
        out,
        back,
    ]
}

fn configuration() -> String {
    let bypass = policy("outbound", "10.1.0.9", "10.2.0.0/24", "bypass", None);
    let discard = policy("outbound", "10.1.0.0/16", "10.2.7.0/24", "discard", None);
    config_with(&(bypass + &discard), &sas())
}

/// A seed, from the environment or a fixed one, and the generator it makes.
fn random() -> Random {
    let seed = std::env::var("CULVERT_TEST_SEED").ok();
    let seed = seed.map_or(0xc01_7e57, |seed| seed.parse().expect("a number"));
    eprintln!("CULVERT_TEST_SEED={seed}");
    Random::new(seed)
}

/// A packet that is well-formed outside, mostly of the side it arrives on.
fn genuine(random: &mut Random, side: &str, sas: &[Sa], sealed: &mut u64) -> Vec<u8> {
    let other_side = random.chance(50);
    let of_side: Vec<&Sa> = sas.iter().filter(|sa| (sa.direction == side) != other_side).collect();
    let sa = of_side[random.index(of_side.len())];
    let mut plain = sa.plain(random.chance(500), random.next());
    plain.payload_len = random.index(1500).max(16);
    plain.tos = random.octet();
    plain.ttl = random.octet();
    let packet = plain.packet();
    if sa.direction == OUTBOUND {
        return packet;
    }
    // Some numbers come twice, and some are skipped.
    *sealed += random.below(3);
    let cut = random.index(packet.len());
    let packet = match random.below(8) {
        0 => sa.with_text(*sealed, &packet[..cut]),
        1 => sa.with_text(*sealed, &text(&packet, random.pick(&[4, 6, 17, 41, 50, 59, 255]))),
        2 => sa.wrap(&packet[..cut % 40]),
        _ => sa.packet(*sealed, &packet),
    };
    with_tos(&packet, random.octet())
}

/// Damages octets: flips, cuts, grows, moves a part, or overwrites where headers have their
/// lengths and types.
fn damage(random: &mut Random, octets: &mut Vec<u8>) {
    for _ in 0..random.between(1, 4) {
        if octets.is_empty() {
            return;
        }
        let at = random.index(octets.len());
        match random.below(7) {
            0 => octets[at] ^= 1 << random.below(8),
            1 => {
                octets[at] = random.pick(&[0, 1, 4, 6, 17, 41, 44, 50, 59, 0x45, 0x7f, 0x80, 0xff])
            }
            2 => octets.truncate(at),
            3 => octets.resize(octets.len() + random.index(2000), random.octet()),
            4 => {
                let end = octets.len().min(at + 8);
                random.fill(&mut octets[at..end]);
            }
            5 => octets.rotate_left(at),
            _ => {
                let header = random.index(octets.len().min(80));
                octets[header] = random.octet();
            }
        }
    }
}

fn frame(random: &mut Random, side: &str, sas: &[Sa], sealed: &mut u64) -> Vec<u8> {
    if random.chance(100) {
        let mut frame = vec![0; random.index(3000)];
        random.fill(&mut frame);
        return frame;
    }
    let mut packet = genuine(random, side, sas, sealed);
    if random.chance(300) {
        damage(random, &mut packet);
    }
    let vlan = random.chance(200).then_some(5);
    let mut frame = framed(&packet, vlan);
    if random.chance(300) {
        damage(random, &mut frame);
    }
    frame
}

/// Every frame gets exactly one verdict, whatever it is, and all kinds of verdict occur.
#[test]
fn any_frame_gets_one_verdict() {
    let mut random = random();
    let (sas, mut sealed) = (sas(), 0);
    let mut file = |side| {
        let mut one = || frame(&mut random, side, &sas, &mut sealed);
        let frames: Vec<_> = (0..FRAMES).map(|_| one()).collect();
        Form::of(LINK_ETHERNET).file(&pcap::timed(&frames))
    };
    let invocation = Invocation::new(&configuration());
    invocation.put("protected-in", &file(OUTBOUND));
    invocation.put("unprotected-in", &file(INBOUND));
    let run = invocation.checked();
    for port in ["protected", "unprotected"] {
        let of_port = run.verdicts.iter().filter(|verdict| verdict.port == port);
        assert!(of_port.map(|verdict| verdict.index).eq(0..FRAMES), "{port}");
    }
    let reasons = [
        "malformed",
        "runt",
        "no_sa",
        "truncated",
        "replay",
        "icv",
        "trailer",
        "padding",
        "dummy",
        "next_header",
        "inner_malformed",
        "ecn",
        "ttl",
        "too_big",
    ];
    for reason in reasons {
        assert!(run.report.drops.contains_key(reason), "{reason}: {:?}", run.report);
    }
    assert!(run.report.fates["forward"] > 1000 && run.report.fates["punt"] > 1000);
}

/// A damaged file is read or refused with one line, and never more than that.
#[test]
fn any_file_is_read_or_refused() {
    let mut random = random();
    let (sas, mut sealed) = (sas(), 0);
    let frames: Vec<_> = (0..20).map(|_| frame(&mut random, INBOUND, &sas, &mut sealed)).collect();
    let frames = pcap::timed(&frames);
    let files = [Form::of(LINK_ETHERNET).file(&frames), pcap::pcapng(1, true, &frames)];
    let invocation = Invocation::new(&configuration());
    let mut refused = 0;
    for file in files {
        for _ in 0..FILES {
            let mut file = file.clone();
            // Headers of the file and of its first packets more often than what they hold.
            let end = random.pick(&[48, 200, file.len()]).min(file.len());
            let mut head = file[..end].to_vec();
            damage(&mut random, &mut head);
            file.splice(..end, head);
            invocation.put("unprotected-in", &file);
            let Output { status, stderr, .. } = invocation.run();
            let stderr = String::from_utf8(stderr).unwrap();
            assert!(matches!(status.code(), Some(0 | 1)), "{status}: {stderr}");
            assert!(stderr.lines().count() <= 1 && !stderr.contains("panicked"), "{stderr}");
            refused += usize::from(!status.success());
        }
    }
    assert!((20..2 * FILES).contains(&refused), "{refused} refused");
}
