//! Two gateways to play with, and packets nobody would send.

use culvert_aead::Aead;
use culvert_aead::Audit;
use culvert_aead::ICV_LEN;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::RustCrypto;
use culvert_aead::TEXT_AT;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::NextHops;
use culvert_engine::Notice;
use culvert_engine::tables::SaSample;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_sim::FramePool;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_sim::plain::link_frame;
use culvert_sim::provider::provider;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;
use culvert_wire::esp;
use culvert_wire::ethernet;
use culvert_wire::ip;

/// Octets of an untagged Ethernet header.
pub(crate) const LINK: usize = 14;

/// Side 0 and side 1 of a tunnel.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// All neighbours are known.
pub(crate) const KNOWN: [bool; 4] = [true; 4];

/// A gateway whose provider panics on nonce reuse.
pub(crate) type TestGateway = Gateway<Audit<Provider>>;

/// One gateway of a scenario.
pub(crate) fn gateway(scenario: &Scenario, side: usize) -> TestGateway {
    gateway_with(scenario, side, scenario.next_hops(side, KNOWN), |_| {})
}

/// One gateway of a scenario with other next hops, or something changed.
pub(crate) fn gateway_with(
    scenario: &Scenario,
    side: usize,
    next_hops: NextHops,
    change: impl FnOnce(&mut GatewayConfig),
) -> TestGateway {
    let mut config = scenario.gateway(side);
    change(&mut config);
    let mut pool = FramePool::of(&config);
    let aead = Audit::new(provider());
    let room = scenario.room;
    Gateway::in_pool(&config, &aead, next_hops, &mut pool, room).unwrap()
}

/// A scenario with one ordinary tunnel.
pub(crate) fn ordinary() -> Scenario {
    Scenario::quiet(vec![Tunnel::ordinary(0)])
}

/// A packet from a host of `side` to one of the other through tunnel 0.
pub(crate) fn plain(side: usize, six: bool, id: u64) -> Plain {
    let host = |side| Scenario::host(side, 0, six, 5);
    Plain::new(host(side), host(1 - side), id)
}

/// The frame in which a gateway of `side` gets a packet from a host.
pub(crate) fn from_host(side: usize, plain: &Plain) -> Vec<u8> {
    plain.frame(gateway_mac(side, LAN), host_mac(side), None)
}

/// The frame in which a gateway of `side` gives a packet, forwarded by two gateways, to a host.
pub(crate) fn to_host(side: usize, sent: &Plain) -> Vec<u8> {
    let ttl = sent.ttl - 2;
    let packet = Plain { ttl, ..*sent }.packet();
    link_frame(host_mac(side), gateway_mac(side, LAN), None, ether_type(&packet), &packet)
}

/// Ethernet type of an IP packet.
pub(crate) fn ether_type(packet: &[u8]) -> u16 {
    match packet[0] >> 4 {
        6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    }
}

/// Puts frames into a queue of one worker, lets all workers turn once, and returns what they sent.
pub(crate) fn turn(
    gateway: &mut TestGateway,
    worker: usize,
    port: Port,
    frames: &[&[u8]],
) -> Vec<Vec<u8>> {
    for frame in frames {
        assert!(gateway.workers[worker].io_mut().inject(port, frame), "room for a frame");
    }
    turn_all(gateway, 0)
}

/// Lets all workers turn once, and returns what they sent, by worker and port.
pub(crate) fn turn_all(gateway: &mut TestGateway, now: u64) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for worker in &mut gateway.workers {
        worker.turn(now);
        for port in [LAN, WAN] {
            sent.extend(std::iter::from_fn(|| worker.io_mut().take_sent_bytes(port)));
        }
    }
    sent
}

/// Makes a gateway of `side` encapsulate a packet, and returns the one frame it sends.
pub(crate) fn encapsulate(gateway: &mut TestGateway, side: usize, plain: &Plain) -> Vec<u8> {
    let mut sent = turn(gateway, 0, LAN, &[&from_host(side, plain)]);
    assert_eq!(sent.len(), 1, "one packet in, one out: {:?}", gateway.counters());
    sent.remove(0)
}

/// The text of an ESP packet around `payload`: default padding, pad length, next header.
pub(crate) fn text(payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut text = payload.to_vec();
    let pad_len = (payload.len() + 2).next_multiple_of(4) - payload.len() - 2;
    text.extend(&[1, 2, 3][..pad_len]);
    text.extend([u8::try_from(pad_len).unwrap(), next_header]);
    text
}

/// An authentic frame of tunnel 0 from `sender`, with any number and any text.
pub(crate) fn sealed(scenario: &Scenario, sender: usize, seq: u64, text: &[u8]) -> Vec<u8> {
    let tunnel = &scenario.tunnels[0];
    let mut packet = vec![0; TEXT_AT + text.len() + ICV_LEN];
    let low = u32::try_from(seq & 0xffff_ffff).unwrap();
    esp::emit(&mut packet, tunnel.spi[sender].value(), low);
    packet[8..TEXT_AT].copy_from_slice(&seq.to_be_bytes());
    packet[TEXT_AT..TEXT_AT + text.len()].copy_from_slice(text);
    let key = RustCrypto.key(tunnel.algorithm, &tunnel.keymat[sender]).unwrap();
    let esn_high = tunnel.esn.then_some((seq >> 32) as u32);
    RustCrypto.seal(&mut [Op { key: &key, esn_high, esp: &mut packet }]);
    from_wire(scenario, sender, ip::PROTOCOL_ESP, &packet)
}

/// A frame from the gateway of `sender` to the other with any payload.
pub(crate) fn from_wire(
    scenario: &Scenario,
    sender: usize,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let outer = scenario.tunnels[0].outer;
    let packet = ip_packet(outer[sender], outer[1 - sender], protocol, payload);
    on_wire(sender, &packet)
}

/// An IP packet in a frame from the gateway of `sender` to the other.
pub(crate) fn on_wire(sender: usize, packet: &[u8]) -> Vec<u8> {
    let (to, from) = (gateway_mac(1 - sender, WAN), gateway_mac(sender, WAN));
    link_frame(to, from, None, ether_type(packet), packet)
}

/// The fates of the last batch of worker 0.
pub(crate) fn fates(gateway: &TestGateway) -> Vec<Fate> {
    let verdicts = gateway.workers[0].last_verdicts().iter();
    verdicts.map(|verdict| verdict.fate).collect()
}

/// `count` packets were dropped for `reason` and none for any other.
#[track_caller]
pub(crate) fn assert_dropped_only(counters: &Counters, reason: DropReason, count: u64) {
    let dropped: Vec<_> = DropReason::ALL
        .iter()
        .map(|&reason| (reason, counters.dropped(reason)))
        .filter(|&(_, count)| count > 0)
        .collect();
    assert_eq!(dropped, [(reason, count)]);
}

/// Every worker has as many frames as at the start.
#[track_caller]
pub(crate) fn assert_frames_conserved(gateway: &mut TestGateway, scenario: &Scenario) {
    for worker in &mut gateway.workers {
        let frames = worker.frames_outside_io() + worker.io_mut().held_frames();
        assert_eq!(frames, scenario.frames + scenario.runs);
    }
}

/// Gives the frame of a packet taken from a gateway back.
pub(crate) fn recycle(gateway: &mut TestGateway, packet: culvert_frame::Packet) {
    gateway.workers[0].io_mut().recycle(packet.into_free());
}

/// One gateway of a scenario with something changed; all neighbours are known.
pub(crate) fn changed(
    scenario: &Scenario,
    side: usize,
    change: impl FnOnce(&mut GatewayConfig),
) -> TestGateway {
    gateway_with(scenario, side, scenario.next_hops(side, KNOWN), change)
}

/// The frame in which a gateway of `side` gets an IP packet from a host, or from the wire.
pub(crate) fn arriving(side: usize, port: Port, packet: &[u8]) -> Vec<u8> {
    match port {
        LAN => {
            let (to, from) = (gateway_mac(side, LAN), host_mac(side));
            link_frame(to, from, None, ether_type(packet), packet)
        }
        _ => on_wire(1 - side, packet),
    }
}

/// Lets worker 0 take IP packets from a port at time `now`; the IP packets that all send then, in
/// order and without their Ethernet headers.
pub(crate) fn through_at(
    gateway: &mut TestGateway,
    (side, port): (usize, Port),
    packets: &[&[u8]],
    now: u64,
) -> Vec<Vec<u8>> {
    for packet in packets {
        let frame = arriving(side, port, packet);
        assert!(gateway.workers[0].io_mut().inject(port, &frame), "room for a frame");
    }
    turn_all(gateway, now).into_iter().map(|frame| frame[LINK..].to_vec()).collect()
}

/// The same at time 0.
pub(crate) fn through(
    gateway: &mut TestGateway,
    from: (usize, Port),
    packets: &[&[u8]],
) -> Vec<Vec<u8>> {
    through_at(gateway, from, packets, 0)
}

/// The one packet that comes of one packet.
#[track_caller]
pub(crate) fn one(gateway: &mut TestGateway, from: (usize, Port), packet: &[u8]) -> Vec<u8> {
    let mut sent = through(gateway, from, &[packet]);
    assert_eq!(sent.len(), 1, "one in, one out: {:?}", fates(gateway));
    sent.remove(0)
}

/// What became of one packet of which nothing came.
#[track_caller]
pub(crate) fn none(gateway: &mut TestGateway, from: (usize, Port), packet: &[u8]) -> Fate {
    let sent = through(gateway, from, &[packet]);
    assert_eq!(sent, [[0; 0]; 0], "nothing comes of it");
    fates(gateway)[0]
}

/// What workers told control since the last time.
pub(crate) fn notices(gateway: &mut TestGateway) -> Vec<Notice> {
    gateway.controller.poll().unwrap();
    let (news, lost) = gateway.controller.take_news();
    assert_eq!(lost, 0);
    news.into_iter().map(|news| news.notice).collect()
}

/// The sample of the only SA of a direction.
pub(crate) fn sample(gateway: &TestGateway, inbound: bool) -> SaSample {
    let mut samples = gateway.samples().filter(|sample| sample.inbound == inbound);
    let sample = samples.next().unwrap();
    assert!(samples.next().is_none(), "one SA");
    sample
}
