//! What depends on how many there are of something, in a worker's turn of 64 packets: flows, and
//! workers between arrival and owner.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Provider;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::NextHop;
use culvert_engine::NextHops;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_esp::Spi;
use culvert_frame::BATCH;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::udp;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const NOW: u64 = 1;
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const SIZE: u16 = 64;

/// A gateway with one outbound SA, which worker 0 owns, and `policies` policies that name it.
fn gateway(workers: usize, policies: u32) -> Gateway<Provider> {
    let protect = |number| {
        let host = |address| ipnet::IpNet::from(IpAddr::from(address));
        let selector = Selector::between(host(SOURCE), host(destination(number)));
        Policy::new(selector.expect("one family"), Action::Protect(Group(0)))
    };
    let key = (Algorithm::Aes128Gcm16, Keymat::new((0..20).collect()));
    let ends = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into());
    let spi = Spi::new(0x1000).expect("in range");
    let port = |side| PortConfig { side, mac: None, completes_checksums: false };
    let config = GatewayConfig {
        workers,
        frames: 512,
        ports: vec![port(Side::Protected), port(Side::Unprotected)],
        sas: vec![SaSpec::new(Direction::Outbound, spi, ends, key, Group(0))],
        spd: Spd { outbound: (0..policies).map(protect).collect(), ..Spd::default() },
        ..GatewayConfig::default()
    };
    let hop = NextHop { port: UNPROTECTED, vlan: None, source: MAC, destination: MAC, mtu: 1500 };
    let next_hops = NextHops::fixed([("192.0.2.0/24".parse().expect("a prefix"), hop)]);
    Gateway::new(&config, &Provider::best().provider, next_hops).expect("a gateway")
}

fn destination(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + number)
}

fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0x5a; ethernet::HEADER_LEN + usize::from(SIZE)];
    let (link, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    ethernet::emit(link, MAC, MAC, None, ethernet::ETHER_TYPE_IPV4);
    let header = ipv4::Header {
        tos: 0,
        total_len: SIZE,
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol: ip::PROTOCOL_UDP,
        source: SOURCE,
        destination: destination(number),
    };
    ipv4::emit(packet, &header);
    udp::emit(&mut packet[ipv4::HEADER_LEN..], 1000, 2000, SIZE - 20, 0);
    debug_assert_eq!(checksum::internet(&packet[..ipv4::HEADER_LEN]), 0);
    frame
}

/// 64 packets arrive at worker `at`, all workers turn, and worker 0 has sent them.
fn turn(gateway: &mut Gateway<Provider>, at: usize, frames: &mut dyn Iterator<Item = &Vec<u8>>) {
    for frame in frames.take(BATCH) {
        assert!(gateway.workers[at].io_mut().inject(PROTECTED, frame), "a frame is free");
    }
    gateway.workers.iter_mut().rev().for_each(|worker| _ = worker.turn(NOW));
    let io = gateway.workers[0].io_mut();
    let mut sent = 0;
    while let Some(packet) = io.take_sent(UNPROTECTED) {
        io.recycle(packet.into_free());
        sent += 1;
    }
    assert_eq!(sent, BATCH, "all came out");
}

/// Flows that packets go round, each of a policy of its own: what remembers flows, and the policies
/// behind it. Making packets and taking them out is measured as well.
fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flows");
    group.throughput(Throughput::Elements(BATCH as u64));
    for count in [1u32, 1000, 100_000] {
        let mut gateway = gateway(1, count);
        let frames: Vec<_> = (0..count).map(frame).collect();
        let mut round = frames.iter().cycle();
        group.bench_function(BenchmarkId::new("outbound", count), |bencher| {
            bencher.iter(|| turn(&mut gateway, 0, &mut round));
        });
    }
}

/// The rings between workers: packets that arrive at their owner, and at another worker.
fn handoff(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handoff");
    group.throughput(Throughput::Elements(BATCH as u64));
    let frames = [frame(0)];
    for (name, at) in [("at the owner", 0), ("at another worker", 1)] {
        let mut gateway = gateway(2, 1);
        let mut round = frames.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| turn(&mut gateway, at, &mut round));
        });
    }
}

criterion_group!(gateways, flows, handoff);
criterion_main!(gateways);
