//! A whole gateway: packets sealed with valid keys around anything, packets of hosts, and frames of
//! anybody. Nothing stops it, every packet has one fate, no frame is lost, and what is delivered
//! was sent and lies within policy.

mod packets;

use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;

use culvert_aead::Aead;
use culvert_aead::AhOp;
use culvert_aead::Algorithm;
use culvert_aead::Audit;
use culvert_aead::Op;
use culvert_aead::RustCrypto;
use culvert_esp::Mode;
use culvert_frame::Port;
use culvert_fuzz::Draft;
use culvert_fuzz::changed;
use culvert_fuzz::repair;
use culvert_fuzz::target;
use culvert_sim::FramePool;
use culvert_sim::Gateway;
use culvert_sim::gateway::Room;
use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_sim::plain::link_frame;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;
use culvert_sim::tunnel::Tunnel;
use culvert_wire::ah;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::udp;

/// Who sends, and the gateway under test.
const A: usize = 0;
const B: usize = 1;

/// Packets of one input.
const PACKETS_MAX: usize = 8;

/// Frames of the gateway.
const FRAMES: usize = 64;

/// A time at which whatever waits has waited too long.
const LATE_NS: u64 = 3600 * 1_000_000_000;

/// Frames are leaked memory: all gateways take theirs from one pool.
static POOL: LazyLock<Mutex<FramePool>> = LazyLock::new(|| Mutex::new(FramePool::new(FRAMES)));

/// One algorithm of each shape of packet.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::Aes128Gcm16,
    Algorithm::Aes256Gcm16,
    Algorithm::Aes128Gcm8,
    Algorithm::ChaCha20Poly1305,
    Algorithm::Aes128CbcSha256,
    Algorithm::NullSha512,
    Algorithm::Aes128Gmac,
    Algorithm::Aes256Gcm16Iiv,
];

/// A tunnel of any of the forms that a fuzzer should see.
fn scenario(draft: &mut Draft<'_>) -> Scenario {
    let form = draft.octet();
    let mut tunnel = Tunnel::ordinary(0)
        .with_outer(form & 1 != 0)
        .with_algorithm(ALGORITHMS[usize::from(form >> 3) % ALGORITHMS.len()]);
    if form & 2 != 0 {
        tunnel = tunnel.with_udp();
    }
    tunnel.esn = form & 4 != 0;
    tunnel.window = [64; 2];
    Scenario { frames: FRAMES, ..Scenario::quiet(vec![tunnel]) }
}

/// AH of each shape.
const ALGORITHMS_AH: [Algorithm; 3] =
    [Algorithm::AhSha256, Algorithm::AhSha512, Algorithm::AhAes128Gmac];

/// The same, or in transport mode between two of the hosts, or AH, or both.
fn any_scenario(draft: &mut Draft<'_>) -> Scenario {
    let form = draft.octet();
    let mut scenario = scenario(&mut Draft(&[form & 0x3f]));
    let tunnel = &mut scenario.tunnels[0];
    let mut changed = tunnel.clone();
    if form & 0x40 != 0 {
        changed.mode = Mode::Transport;
        changed.outer = [A, B].map(|side| Scenario::host(side, 0, form & 1 != 0, 5));
    }
    if form & 0x80 != 0 {
        let picked = ALGORITHMS_AH[usize::from(form >> 3 & 7) % ALGORITHMS_AH.len()];
        changed = Tunnel { seen_at: None, ..changed.with_algorithm(picked) };
    } else if changed.seen_at.is_some() {
        changed = changed.with_udp();
    }
    *tunnel = changed;
    scenario
}

/// An AH packet of side A around `content`, in a frame.
fn sealed_ah(scenario: &Scenario, seq: u32, (next, content): (u8, &[u8])) -> Vec<u8> {
    let tunnel = &scenario.tunnels[0];
    let is_v4 = tunnel.outer[A].is_ipv4();
    let (ah_at, icv_len) = (if is_v4 { 20 } else { 40 }, tunnel.algorithm.ah_icv_field_len());
    let room = vec![0; ah::header_len(icv_len, is_v4) + content.len()];
    let mut packet = ip_packet(tunnel.outer[A], tunnel.outer[B], ip::PROTOCOL_AH, &room);
    let end = packet.len() - content.len();
    packet[end..].copy_from_slice(content);
    ah::emit(&mut packet[ah_at..end], next, tunnel.spi[A].value(), seq);
    let mut covered = [0; ah::MAX_HEADERS_LEN];
    let len = ah::immutable(&packet, ah_at, &mut covered).unwrap();
    let key = RustCrypto.key(tunnel.algorithm, &tunnel.keymat[A]).unwrap();
    let (header, esn_high) = (&covered[..len], tunnel.esn.then_some(0));
    RustCrypto.seal_ah(AhOp { key: &key, esn_high, header, ah: &mut packet[ah_at..] });
    link_frame(gateway_mac(B, WAN), gateway_mac(A, WAN), None, ether_type(&packet), &packet)
}

/// Gives the frames to gateway B, one turn for each or all in one, and returns what it sends to
/// hosts and to the wire.
fn deliver(
    scenario: &Scenario,
    port: Port,
    frames: &[Vec<u8>],
    at_once: bool,
) -> [Vec<Vec<u8>>; 2] {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.free_frames() < FRAMES {
        // A gateway failed with frames in it.
        *pool = FramePool::new(FRAMES);
    }
    let aead = Audit::new(RustCrypto);
    let next_hops = scenario.next_hops(B, [true; 4]);
    let config = scenario.gateway(B);
    let mut gateway =
        Gateway::in_pool(&config, &aead, next_hops, &mut pool, Room::default()).unwrap();
    let mut fates = 0;
    for (index, frame) in frames.iter().enumerate() {
        assert!(gateway.workers[0].io_mut().inject(port, frame), "room for a frame");
        if !at_once || index + 1 == frames.len() {
            gateway.workers[0].turn(0);
            fates += gateway.workers[0].last_verdicts().len();
        }
    }
    assert_eq!(fates, frames.len(), "each packet has one fate");
    let sent = [LAN, WAN].map(|port| {
        let io = gateway.workers[0].io_mut();
        std::iter::from_fn(|| io.take_sent_bytes(port)).collect()
    });
    // What waits for its neighbour or its other fragments does not wait forever.
    gateway.workers[0].turn(LATE_NS);
    assert_eq!(gateway.workers[0].frames_outside_io(), 0);
    for port in [LAN, WAN] {
        while gateway.workers[0].io_mut().take_sent_bytes(port).is_some() {}
    }
    gateway.dissolve(&mut pool);
    assert_eq!(pool.free_frames(), FRAMES, "no frame is lost");
    sent
}

/// The frame in which side A sends an ESP packet with a right ICV. The text grows to whole blocks.
fn sealed(scenario: &Scenario, seq: u64, text: &mut Vec<u8>) -> Vec<u8> {
    let tunnel = &scenario.tunnels[0];
    let (text_at, icv_len) = (tunnel.algorithm.text_at(), tunnel.algorithm.icv_len());
    if tunnel.algorithm.block_len() > 4 {
        text.resize(text.len().max(1).next_multiple_of(tunnel.algorithm.block_len()), 0);
    }
    let mut packet = vec![0; text_at + text.len() + icv_len];
    esp::emit(&mut packet, tunnel.spi[A].value(), (seq & 0xffff_ffff) as u32);
    if tunnel.algorithm.iv_len() == 8 {
        packet[8..16].copy_from_slice(&seq.to_be_bytes());
    }
    packet[text_at..text_at + text.len()].copy_from_slice(text);
    let key = RustCrypto.key(tunnel.algorithm, &tunnel.keymat[A]).unwrap();
    let esn_high = tunnel.esn.then_some((seq >> 32) as u32);
    RustCrypto.seal(&mut [Op { key: &key, esn_high, esp: &mut packet }]);
    let mut protocol = ip::PROTOCOL_ESP;
    if let Some([from, to]) = tunnel.seen_at {
        let mut datagram = vec![0; udp::HEADER_LEN];
        let len = u16::try_from(udp::HEADER_LEN + packet.len()).unwrap();
        udp::emit(&mut datagram, from.port, to.port, len, 0);
        datagram.append(&mut packet);
        (packet, protocol) = (datagram, ip::PROTOCOL_UDP);
    }
    let outer = ip_packet(tunnel.outer[A], tunnel.outer[B], protocol, &packet);
    link_frame(gateway_mac(B, WAN), gateway_mac(A, WAN), None, ether_type(&outer), &outer)
}

fn ether_type(packet: &[u8]) -> u16 {
    match packet[0] >> 4 {
        6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    }
}

/// Packets between hosts of the two sides, which policy lets through.
fn between_hosts(from: usize) -> Vec<Vec<u8>> {
    let host = |side, six, number| Scenario::host(side, 0, six, number);
    let plain = |six, id| Plain::new(host(from, six, 5), host(1 - from, six, 6), id);
    let small = Plain { payload_len: 17, dont_fragment: false, ..plain(false, 3) };
    let mut packets = [plain(false, 1), plain(true, 2), small].map(|plain| plain.packet()).to_vec();
    packets.push(ip_packet(host(from, false, 7), host(1 - from, false, 8), 1, &[8, 0, 1, 2]));
    packets.push(ip_packet(host(from, true, 7), host(1 - from, true, 8), 60, &[17, 0, 1, 4, 0, 0]));
    // Between the hosts that have transport mode: with options, and a fragment that is whole.
    let (here, there) = (|six| host(from, six, 5), |six| host(1 - from, six, 5));
    packets.push(ip_packet(here(false), there(false), 17, &[0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]));
    let udp = [0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4];
    for (first, next) in [(0, [44, 0, 1, 4, 0, 0, 0, 0]), (44, [60, 0, 0, 0, 0, 0, 0, 7])] {
        let second = if first == 0 { [17, 0, 0, 0, 0, 0, 0, 7] } else { [17, 0, 1, 4, 0, 0, 0, 0] };
        let payload = [&next[..], &second, &udp].concat();
        packets.push(ip_packet(here(true), there(true), first, &payload));
    }
    packets
}

/// A plaintext packet from a draft of up to 40 octets.
fn plaintext(draft: &mut Draft<'_>, genuine: &[Vec<u8>]) -> Vec<u8> {
    let repairs = draft.below(4) != 0;
    let len = usize::from(draft.below(40));
    let mut packet = changed(genuine, draft.octets(len));
    if repairs {
        repair(&mut packet, 0);
    }
    packet
}

/// The text of an ESP packet: padding that is mostly right, a next header that mostly is.
fn text(draft: &mut Draft<'_>, packet: &[u8]) -> Vec<u8> {
    let traffic_flow = usize::from(draft.below(4)) * usize::from(draft.below(40));
    let mut text = [packet, &vec![0; traffic_flow]].concat();
    let pad_len = (text.len() + 2).next_multiple_of(4) - text.len() - 2;
    text.extend(&[1, 2, 3][..pad_len]);
    let is_six = packet.first().is_some_and(|first| first >> 4 == 6);
    let next = if is_six { ip::PROTOCOL_IPV6 } else { ip::PROTOCOL_IPIP };
    text.extend([u8::try_from(pad_len).unwrap(), next]);
    let end = text.len();
    match draft.below(16) {
        0 => text[end - 1] = draft.octet(),
        1 => text[end - 2] = draft.octet(),
        2 => text[end - 3] ^= draft.octet(),
        3 => text.truncate(end - usize::from(draft.below(24)).min(end)),
        _ => {}
    }
    text
}

/// The host with this address, on the side of the tunnel's networks that it has to be on.
fn is_host(side: usize, address: IpAddr) -> bool {
    match (address, Scenario::host(side, 0, address.is_ipv6(), 1)) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        _ => false,
    }
}

/// P09, I06: what comes out went in, from and to where the SA's policy says, behind any trailer.
#[test]
fn inbound_with_valid_keys() {
    let genuine = [between_hosts(A), packets::ip().to_vec()].concat();
    target!().for_each(|input: &[u8]| {
        let mut draft = Draft(input);
        let (scenario, at_once) = (scenario(&mut draft), draft.flag());
        let (mut seq, mut frames, mut texts) = (0_u64, Vec::new(), Vec::new());
        while !draft.is_empty() && frames.len() < PACKETS_MAX {
            // Some come twice, some after a gap.
            seq += [1, 1, 1, 0, 2, 70, 1 << 16, 1 << 31][usize::from(draft.below(8))];
            let packet = plaintext(&mut draft, &genuine);
            let mut text = text(&mut draft, &packet);
            frames.push(sealed(&scenario, seq, &mut text));
            texts.push(text);
        }
        let [to_hosts, to_wire] = deliver(&scenario, WAN, &frames, at_once);
        assert_eq!(to_wire, Vec::<Vec<u8>>::new());
        for frame in to_hosts {
            let link = ethernet::parse(&frame).unwrap();
            let packet = &frame[link.payload_at..];
            let parsed = ip::parse(packet).unwrap();
            assert!(is_host(A, parsed.source()) && is_host(B, parsed.destination()));
            let payload = &packet[parsed.upper_at()..parsed.total_len()];
            let was_sent =
                |text: &Vec<u8>| text.get(parsed.upper_at()..parsed.total_len()) == Some(payload);
            assert!(texts.iter().any(was_sent), "{packet:02x?}");
        }
    });
}

/// Frames that nobody sealed, or that were changed after it, come to nothing worse than a drop.
#[test]
fn unprotected_frames() {
    let mut tunnel_frames = Vec::new();
    for form in 0..=255 {
        let scenario = any_scenario(&mut Draft(&[form]));
        let (next, inner) = match scenario.tunnels[0].mode {
            Mode::Tunnel => (4, between_hosts(A)[0].clone()),
            Mode::Transport => (17, vec![0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]),
        };
        let mut text = [&inner[..], &[1, 2, 2, next]].concat();
        tunnel_frames.push(match form & 0x80 {
            0 => sealed(&scenario, 1, &mut text),
            _ => sealed_ah(&scenario, 1, (next, &inner)),
        });
    }
    tunnel_frames.extend_from_slice(packets::frames());
    target!().for_each(|input: &[u8]| {
        let mut draft = Draft(input);
        let (scenario, at_once) = (any_scenario(&mut draft), draft.flag());
        let mut frames = Vec::new();
        while !draft.is_empty() && frames.len() < PACKETS_MAX {
            let (repairs, len) = (draft.below(4) != 0, usize::from(draft.below(40)));
            let mut frame = changed(&tunnel_frames, draft.octets(len));
            if repairs {
                repair(&mut frame, 14);
            }
            frames.push(frame);
        }
        deliver(&scenario, WAN, &frames, at_once);
    });
}

/// What hosts send leaves as ESP or AH of the tunnel, in the clear, or not at all, with the
/// right header.
#[test]
fn outbound_packets() {
    let genuine = [between_hosts(B), packets::ip().to_vec()].concat();
    target!().for_each(|input: &[u8]| {
        let mut draft = Draft(input);
        let (scenario, at_once) = (any_scenario(&mut draft), draft.flag());
        let mut frames = Vec::new();
        while !draft.is_empty() && frames.len() < PACKETS_MAX {
            let packet = plaintext(&mut draft, &genuine);
            let kind = if packet.is_empty() { 0x0800 } else { ether_type(&packet) };
            frames.push(link_frame(gateway_mac(B, LAN), host_mac(B), None, kind, &packet));
        }
        let [_, to_wire] = deliver(&scenario, LAN, &frames, at_once);
        let tunnel = &scenario.tunnels[0];
        let mut seq = 0;
        for frame in to_wire {
            let (Ok(Unprotected::Esp(outer)) | Ok(Unprotected::Ah(outer))) = esp::classify(&frame)
            else {
                continue;
            };
            assert_eq!(outer.spi, tunnel.spi[B].value());
            assert!(outer.seq > seq, "no number is used twice");
            seq = outer.seq;
            assert_eq!((outer.source, outer.destination), (tunnel.outer[B], tunnel.outer[A]));
            assert_eq!(outer.encapsulated, tunnel.seen_at.is_some());
        }
    });
}
