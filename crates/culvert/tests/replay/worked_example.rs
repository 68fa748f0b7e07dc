//! The worked example of the project: one packet, spelled out.

use culvert_aead::Algorithm;
use culvert_sim::plain::ip_packet;
use culvert_wire::ip;

use crate::packets::INBOUND;
use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::forwarded;
use crate::packets::policy;
use crate::support::replay;

const SPI: u32 = 0xaabb_ccdd;

/// The SA of the example, in one direction.
fn sa(direction: &'static str) -> Sa {
    let base = if direction == OUTBOUND { Sa::outbound() } else { Sa::inbound() };
    Sa { spi: SPI, sequence: 41, algorithm: Algorithm::Aes128Gcm16, ..base }
}

fn config(direction: &'static str) -> String {
    let sa = sa(direction);
    let (ours, theirs) = sa.outer();
    let toml = sa.toml();
    let toml = toml.replace(&format!("source = \"{ours}\""), "source = \"192.168.1.1\"");
    let toml =
        toml.replace(&format!("destination = \"{theirs}\""), "destination = \"192.168.2.1\"");
    format!(
        "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\nstatic_keys = true\n\
         {toml}{}",
        policy(direction, "10.0.0.1", "10.0.0.2", "protect", Some(&sa.name())),
    )
}

/// E01 E10 E20 G01 P18 I16: tunnel 192.168.1.1 to 192.168.2.1, SPI 0xAABBCCDD, sequence number 42,
/// inner packet 10.0.0.1 to 10.0.0.2: every octet of the headers, and the peer gets the packet.
#[test]
fn the_worked_example() {
    let hosts = (([10, 0, 0, 1]).into(), ([10, 0, 0, 2]).into());
    let plain = ip_packet(hosts.0, hosts.1, ip::PROTOCOL_UDP, &[7; 30]);
    let run = replay(&config(OUTBOUND), std::slice::from_ref(&plain), &[]);
    run.assert_all("forward");
    assert_eq!((run.verdicts[0].spi, run.verdicts[0].seq), (Some(SPI), Some(42)));
    let sealed = &run.sealed()[0];

    let (outer, esp) = sealed.split_at(20);
    assert_eq!(outer[0], 0x45, "IPv4 without options");
    assert_eq!(usize::from(u16::from_be_bytes([outer[2], outer[3]])), sealed.len());
    assert_eq!((outer[8], outer[9]), (64, 50), "TTL, ESP");
    assert_eq!(outer[12..16], [192, 168, 1, 1]);
    assert_eq!(outer[16..20], [192, 168, 2, 1]);
    assert_eq!(esp[..4], [0xaa, 0xbb, 0xcc, 0xdd]);
    assert_eq!(esp[4..8], [0, 0, 0, 42]);
    assert_eq!(esp[8..16], [0, 0, 0, 0, 0, 0, 0, 42], "the IV");
    // 50 octets, no padding as 52 is a multiple of 4, pad length and next header, ICV.
    assert_eq!(plain.len(), 50);
    assert_eq!(esp.len(), 8 + 8 + 50 + 2 + 16);
    let text = sa(OUTBOUND).open(42, esp);
    assert_eq!(text, [&forwarded(&plain)[..], &[0, 4]].concat());

    // The far gateway has the same key under an inbound SA.
    let config = config(INBOUND)
        .replace(&hex::encode(sa(INBOUND).keymat()), &hex::encode(sa(OUTBOUND).keymat()));
    let run = replay(&config, &[], &[sealed.clone(), sealed.clone()]);
    assert_eq!(run.outcomes(), ["forward", "replay"]);
    assert_eq!(run.opened(), [forwarded(&forwarded(&plain))]);
}
