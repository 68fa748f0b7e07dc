//! What one packet costs in each piece of the path.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::ICV_LEN;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Protocol;
use culvert_aead::Provider;
use culvert_aead::Status;
use culvert_aead::TEXT_AT;
use culvert_engine::Location;
use culvert_engine::WorkerId;
use culvert_engine::directory::Directory;
use culvert_engine::options::Lookup;
use culvert_esp::Window;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_spd::Upper;
use culvert_wire::esp;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;
use culvert_wire::ipv4;

const BATCH: usize = 64;
const FIRST_SPI: u32 = 0x1000;

/// Seals and opens a batch of packets of one SA.
fn aead(criterion: &mut Criterion) {
    let mut provider = Provider::best().provider;
    let keymat = Keymat::new((0..20).collect());
    let key = provider.key(Algorithm::Aes128Gcm16, &keymat).expect("20 octets");
    let mut group = criterion.benchmark_group("aead");
    for size in [64, 1420] {
        group.throughput(Throughput::Elements(BATCH as u64));
        let packet = vec![0x5a; TEXT_AT + size + ICV_LEN];
        let plain = vec![packet; BATCH];
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter_batched_ref(
                || plain.clone(),
                |packets| provider.seal(&mut ops(&key, packets)),
                BatchSize::SmallInput,
            );
        });
        let mut sealed = plain.clone();
        provider.seal(&mut ops(&key, &mut sealed));
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            bencher.iter_batched_ref(
                || sealed.clone(),
                |packets| {
                    let mut statuses = [const { Status::Pending }; BATCH];
                    provider.open(&mut ops(&key, packets), &mut statuses);
                    statuses
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn ops<'a, K>(key: &'a K, packets: &'a mut [Vec<u8>]) -> Vec<Op<'a, K>> {
    packets.iter_mut().map(|packet| Op { key, esn_high: None, esp: packet }).collect()
}

/// The check of a number that is one ahead, before decryption.
fn replay(criterion: &mut Criterion) {
    let window = Window::new(1024, true, 1 << 20).expect("a size in range");
    criterion.bench_function("replay/check", |bencher| {
        bencher.iter(|| window.check(black_box((1 << 20) + 1)));
    });
}

/// A lookup among host policies.
fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spd");
    for count in [1u32, 10_000] {
        let host = |number: u32| Ipv4Addr::from(0x0a80_0000 + number);
        let source = Ipv4Addr::new(10, 0, 0, 1);
        let policy = |number| {
            let selector = Selector::between(ipnet(source), ipnet(host(number)));
            Policy::new(selector.expect("one family"), Action::Protect(Group(number)))
        };
        let spd = Spd { outbound: (0..count).map(policy).collect(), ..Spd::default() };
        let compiled = spd.compile();
        let addresses = ip::Addresses {
            is_v4: true,
            source: source.to_bits().into(),
            destination: host(count - 1).to_bits().into(),
        };
        let upper = Upper::Ports { source: 1, destination: 2 };
        let flow = Flow { addresses, protocol: ip::PROTOCOL_UDP, upper };
        group.bench_function(BenchmarkId::new("outbound", count), |bencher| {
            bencher.iter(|| compiled.outbound(black_box(&flow)));
        });
    }
}

fn ipnet(address: Ipv4Addr) -> ipnet::IpNet {
    std::net::IpAddr::from(address).into()
}

/// The SA of a packet by its SPI, among many: SPIs in an order without a pattern.
fn directory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("directory");
    let ends = (Ipv4Addr::new(192, 0, 2, 2).into(), Ipv4Addr::new(192, 0, 2, 1).into());
    for count in [1u32, 10_000, 100_000] {
        let mut directory = Directory::default();
        for slot in 0..count {
            let location = Location { worker: WorkerId(0), slot };
            let name = (Protocol::Esp, FIRST_SPI + slot);
            directory.insert(name, Lookup::Spi, ends, location).expect("SPIs differ");
        }
        let mut number = 0u32;
        group.bench_function(BenchmarkId::new("find", count), |bencher| {
            bencher.iter(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let spi = FIRST_SPI + number % count;
                directory.find(Protocol::Esp, black_box(spi), ends.0, ends.1)
            });
        });
    }
}

/// The outer headers of an ESP packet.
fn classify(criterion: &mut Criterion) {
    let mut frame = vec![0x5a; 14 + 20 + 100];
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    ethernet::emit(&mut frame[..14], mac, mac, None, ethernet::ETHER_TYPE_IPV4);
    let header = ipv4::Header {
        tos: 0,
        total_len: 120,
        id: 0,
        dont_fragment: false,
        ttl: 64,
        protocol: ip::PROTOCOL_ESP,
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(192, 0, 2, 2),
    };
    ipv4::emit(&mut frame[14..], &header);
    criterion.bench_function("wire/classify", |bencher| {
        bencher.iter(|| esp::classify(black_box(&frame)));
    });
}

criterion_group!(pieces, aead, replay, policy, directory, classify);
criterion_main!(pieces);
