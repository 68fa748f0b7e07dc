//! Live tests of AF_XDP I/O over veth pairs, in network namespaces of their own.

mod jumbo;
mod lab;
mod pins;

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use culvert_frame::Batch;
use culvert_frame::FRAME_SIZE;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_steer::Class;
use culvert_steer::Counter;
use culvert_xdp::Config;
use culvert_xdp::Control;
use culvert_xdp::CopyChoice;
use culvert_xdp::Error;
use culvert_xdp::Gateway;
use culvert_xdp::Mode;
use culvert_xdp::ModeChoice;
use culvert_xdp::PortConfig;
use culvert_xdp::Side;
use culvert_xdp::SidePrefixes;
use culvert_xdp::XdpIo;
use culvert_xdp::open;
use lab::Lab;
use lab::esp_frame;
use lab::number_of;
use lab::tagged;
use lab::udp_frame;
use lab::until;

const LAN: Port = Port(0);
const WAN: Port = Port(1);
const LONG: Duration = Duration::from_secs(10);

fn config(workers: usize) -> Config {
    let port = |interface: &str, side| PortConfig { interface: interface.to_owned(), side };
    let ports = vec![port("lan0", Side::Protected), port("wan0", Side::Unprotected)];
    Config {
        frames_per_worker: 4096,
        ring_size: 1024,
        tx_budget: 1024,
        ..Config::new(ports, workers)
    }
}

/// Opens a gateway that gets all of 10.2.0.0/16 from `lan0`.
fn open_protecting(config: &Config) -> Gateway {
    let mut gateway = open(config).unwrap();
    let prefix = (IpAddr::V4(Ipv4Addr::new(10, 2, 0, 0)), 16);
    gateway.control.ports_mut()[0].steer_mut().set_prefixes(&[prefix]).unwrap();
    gateway
}

fn open_one(config: &Config) -> (Control, XdpIo) {
    let mut gateway = open_protecting(config);
    assert_eq!(gateway.workers.len(), 1);
    (gateway.control, gateway.workers.remove(0))
}

/// Waits until `count` packets were received from `port`.
fn receive(io: &mut XdpIo, port: Port, count: usize) -> Vec<Packet> {
    let mut packets = Vec::new();
    until("packets from a peer", || {
        let mut batch = Batch::new();
        io.recv(port, &mut batch);
        packets.extend(batch);
        io.service();
        packets.len() >= count
    });
    packets
}

fn recycle(io: &mut XdpIo, packets: impl IntoIterator<Item = Packet>) {
    for packet in packets {
        io.recycle(packet.into_free());
    }
}

/// Sends frames out of `port` in batches, like a worker that does not drop.
fn send_all(io: &mut XdpIo, port: Port, frames: impl IntoIterator<Item = Vec<u8>>) {
    let mut frames = frames.into_iter().peekable();
    let mut batch = Batch::new();
    until("a peer that takes packets", || {
        io.service();
        while !batch.is_full() && frames.peek().is_some() {
            let Some(free) = io.take_free() else { break };
            let contents = frames.next().unwrap();
            batch.push(free.with_contents(port, &contents).unwrap());
        }
        io.send(port, &mut batch);
        batch.is_empty() && frames.peek().is_none()
    });
}

fn receives_and_sends(choice: ModeChoice, mode: Mode) {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let (control, mut io) = open_one(&Config { mode: choice, ..config(1) });
        assert!(control.ports().iter().all(|port| port.mode() == mode));
        let from_a = |number: u32| {
            let frame = udp_frame(1000, number, 60 + number as usize);
            if number.is_multiple_of(2) { frame } else { tagged(frame) }
        };
        for number in 0..100 {
            a.send(&from_a(number));
            b.send(&esp_frame(number, 1514 - number as usize));
        }
        let lan = receive(&mut io, LAN, 100);
        for (number, packet) in (0..).zip(&lan) {
            assert_eq!(packet.data(), from_a(number));
            assert_eq!(packet.port(), LAN);
        }
        let wan = receive(&mut io, WAN, 100);
        for (number, packet) in (0..).zip(&wan) {
            assert_eq!(packet.data(), esp_frame(number, 1514 - number as usize));
            assert_eq!(packet.port(), WAN);
        }
        recycle(&mut io, lan.into_iter().chain(wan));
        send_all(&mut io, WAN, (0..100).map(|number| esp_frame(number, 1514)));
        send_all(&mut io, LAN, (0..100).map(|number| udp_frame(1, number, 60)));
        for number in 0..100 {
            assert_eq!(b.receive(LONG).unwrap(), esp_frame(number, 1514));
            assert_eq!(a.receive(LONG).unwrap(), udp_frame(1, number, 60));
        }
    });
}

/// Packets of every length, with and without a VLAN tag, arrive and leave unchanged and in order
/// over native XDP.
#[test]
fn receives_and_sends_native() {
    receives_and_sends(ModeChoice::Auto, Mode::Native);
}

/// The same over generic XDP.
#[test]
fn receives_and_sends_generic() {
    receives_and_sends(ModeChoice::Generic, Mode::Generic);
}

/// P11: what arrives in clear on the unprotected side, for a prefix of inbound policy, is the
/// worker's from the first packet on, as are AH and fragments of ESP. IKE to an own address is
/// not, nor is anything in clear once no prefix holds its destination.
#[test]
fn plaintext_from_the_unprotected_side_arrives() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let b = lab.host_b();
    let own = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));
    let inside = (IpAddr::V4(Ipv4Addr::new(10, 2, 0, 0)), 16);
    let prefixes = SidePrefixes { protected: Vec::new(), unprotected: vec![inside] };
    let changed = |mut frame: Vec<u8>, at: usize, octets: &[u8]| {
        frame[at..at + octets.len()].copy_from_slice(octets);
        frame
    };
    let plain = udp_frame(1000, 1, 100);
    let ike = changed(plain.clone(), 36, &4500_u16.to_be_bytes());
    let ah = changed(esp_frame(2, 100), 23, &[51]);
    let fragment = changed(esp_frame(3, 100), 20, &[0x20]);
    lab.at_gateway(|| {
        let config = Config { prefixes, own_addresses: vec![own], ..config(1) };
        let Gateway { mut control, mut workers } = open(&config).unwrap();
        for frame in [&ike, &plain, &ah, &fragment] {
            b.send(frame);
        }
        let packets = receive(&mut workers[0], WAN, 3);
        for (packet, frame) in packets.iter().zip([&plain, &ah, &fragment]) {
            assert_eq!(packet.data(), frame);
        }
        recycle(&mut workers[0], packets);
        control.set_prefixes(&SidePrefixes::default()).unwrap();
        let counted = |class| {
            let row = control.ports()[1].steer().counters(1).unwrap()[0];
            row[Counter::Class(class)]
        };
        b.send(&plain);
        until("a packet that is left to the kernel", || counted(Class::Other) == 1);
        assert_eq!((counted(Class::Plain4), counted(Class::Ike)), (1, 1));
    });
}

/// A packet leaves another port out of the buffer it arrived in, with its start moved: the frame
/// that comes back by the completion ring is the one that was received, and its bytes never moved.
#[test]
fn forwards_in_the_same_buffer() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let (_control, mut io) = open_one(&config(1));
        a.send(&udp_frame(1000, 77, 1400));
        let mut packet = receive(&mut io, LAN, 1).remove(0);
        let address = packet.data().as_ptr();
        packet.prepend(36).unwrap().copy_from_slice(&[7; 36]);
        assert_eq!(packet.data()[36..].as_ptr(), address);
        let mut batch = Batch::new();
        batch.push(packet);
        io.send(WAN, &mut batch);
        let arrived = b.receive(LONG).unwrap();
        assert_eq!(arrived[..36], [7; 36]);
        assert_eq!(arrived[36..], udp_frame(1000, 77, 1400));
        until("the completion", || {
            io.service();
            io.frames().sending == 0
        });
        let frame = io.take_free().unwrap().into_packet(0, 0, LAN);
        assert_eq!(frame.data().as_ptr() as usize, address as usize / FRAME_SIZE * FRAME_SIZE);
        recycle(&mut io, [frame]);
    });
}

/// All of 10,000 packets in batches of 64 arrive although one system call sends 32 of them.
#[test]
fn sends_more_than_the_kernel_takes_at_once() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let b = lab.host_b();
    lab.at_gateway(|| {
        let (control, mut io) = open_one(&Config { tx_budget: 32, ..config(1) });
        let mut batch = Batch::new();
        while !batch.is_full() {
            let frame = io.take_free().unwrap();
            batch.push(frame.with_contents(WAN, &esp_frame(0, 200)).unwrap());
        }
        io.send(WAN, &mut batch);
        assert_eq!(b.receive_all(64).len(), 64, "gone before the next turn");
        thread::scope(|scope| {
            let receiver = scope.spawn(|| b.receive_all(10_000));
            send_all(&mut io, WAN, (0..10_000).map(|number| esp_frame(number, 200)));
            let arrived = receiver.join().unwrap();
            assert_eq!(arrived.len(), 10_000);
            for (number, frame) in (0..).zip(&arrived) {
                assert_eq!(number_of(frame), number);
            }
        });
        let counters = io.counters();
        assert_eq!((counters.sent, counters.not_accepted), (10_064, 0));
        assert!(counters.tx_kicks >= 10_000 / 32, "{counters:?}");
        assert_eq!(control.kernel_statistics_of(WAN).tx_invalid_descriptors, 0);
    });
}

/// With a budget of the whole ring a batch costs one system call (Linux 6.17 and later).
#[test]
fn one_kick_a_batch() {
    if lab::skip() {
        return;
    }
    let release = lab::run("uname -r");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(17)) {
        eprintln!("SKIPPED: XDP_MAX_TX_SKB_BUDGET needs Linux 6.17, this is {release}");
        return;
    }
    let lab = Lab::new(1);
    lab.at_gateway(|| {
        let (_control, mut io) = open_one(&config(1));
        send_all(&mut io, WAN, (0..640).map(|number| esp_frame(number, 200)));
        assert_eq!(io.counters().tx_kicks, 10);
    });
}

trait KernelStatisticsOf {
    fn kernel_statistics_of(&self, port: Port) -> culvert_xdp::KernelStatistics;
}

impl KernelStatisticsOf for Control {
    fn kernel_statistics_of(&self, port: Port) -> culvert_xdp::KernelStatistics {
        self.ports()[usize::from(port.0)].kernel_statistics(0).unwrap()
    }
}

/// Forwards from `lan0` to `wan0` until told to stop; returns the packets forwarded.
fn forward(io: &mut XdpIo, stop: &AtomicBool) -> u64 {
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        io.service();
        io.recv(LAN, &mut batch);
        if batch.is_empty() {
            io.wait(Duration::from_millis(20), &|| stop.load(Ordering::Relaxed));
        }
        io.send(WAN, &mut batch);
    }
    recycle(io, batch.drain(..));
    io.counters().sent
}

/// Two workers, each with its queue of both ports, share the UMEM: every packet of many flows is
/// forwarded by one of them, and both have work.
#[test]
fn two_workers_forward() {
    if lab::skip() {
        return;
    }
    const PACKETS: u32 = 4000;
    let lab = Lab::new(2);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let Gateway { control, mut workers } = open_protecting(&config(2));
        let stop = AtomicBool::new(false);
        let arrived = thread::scope(|scope| {
            let forwarders: Vec<_> =
                workers.iter_mut().map(|io| scope.spawn(|| forward(io, &stop))).collect();
            for number in 0..PACKETS {
                a.send(&udp_frame(1000 + u16::try_from(number % 32).unwrap(), number, 300));
                // Slow enough for the fill rings whatever else the machine does.
                if number % 256 == 255 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
            let arrived = b.receive_all(PACKETS as usize);
            stop.store(true, Ordering::Relaxed);
            let sent: Vec<u64> = forwarders.into_iter().map(|f| f.join().unwrap()).collect();
            assert_eq!(sent.iter().sum::<u64>(), u64::from(PACKETS), "{sent:?}");
            assert!(sent.iter().all(|&sent| sent > 0), "{sent:?}");
            arrived
        });
        let mut numbers: Vec<u32> = arrived.iter().map(|frame| number_of(frame)).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..PACKETS), "{} of {PACKETS}", arrived.len());
        for (worker, io) in workers.iter_mut().enumerate() {
            io.service();
            assert_eq!(io.frames().total(), 4096);
            assert_eq!(control.io_counters(worker), Some(io.counters()));
        }
    });
}

/// A packet handed to another worker, for a free frame in return, leaves by that worker's queue.
#[test]
fn hands_over_between_workers() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(2);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let Gateway { control: _control, mut workers } = open_protecting(&config(2));
        let [first, second] = &mut workers[..] else { panic!("two workers") };
        let (to_second, from_first) = mpsc::channel::<Packet>();
        let (to_first, from_second) = mpsc::channel();
        for flow in 0..64 {
            a.send(&udp_frame(2000 + flow, u32::from(flow), 300));
        }
        let mut received = 0;
        until("packets on both queues", || {
            let mut batch = Batch::new();
            first.recv(LAN, &mut batch);
            second.recv(LAN, &mut batch);
            received += batch.len();
            batch.into_iter().for_each(|packet| to_second.send(packet).unwrap());
            received == 64
        });
        let mut batch = Batch::new();
        for packet in from_first.try_iter() {
            to_first.send(second.take_free().unwrap()).unwrap();
            batch.push(packet);
        }
        second.send(WAN, &mut batch);
        assert!(batch.is_empty());
        from_second.try_iter().for_each(|frame| first.recycle(frame));
        // What came as a full batch may wait for the next ones, some turns at most.
        until("completions", || {
            second.service();
            second.frames().sending == 0
        });
        assert_eq!(b.receive_all(64).len(), 64);
        assert_eq!((first.counters().sent, second.counters().sent), (0, 64));
        assert_eq!(first.frames().total() + second.frames().total(), 2 * 4096);
    });
}

/// What the kernel does not take fills the TX ring, then stays in the batch; it is sent, in order
/// and complete, once the interface is up again.
#[test]
fn a_full_ring_leaves_packets_in_the_batch() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let b = lab.host_b();
    lab.at_gateway(|| {
        let small = Config { ring_size: 64, tx_budget: 64, ..config(1) };
        let (_control, mut io) = open_one(&small);
        lab.gateway_runs("ip link set wan0 down");
        let mut batch = Batch::new();
        for number in 0..100 {
            let free = io.take_free().unwrap();
            batch.push(free.with_contents(WAN, &esp_frame(number, 100)).unwrap());
            if batch.len() == 50 {
                io.send(WAN, &mut batch);
            }
        }
        assert_eq!(batch.len(), 36, "64 fit into the ring");
        assert_eq!(number_of(batch[0].data()), 64);
        assert_eq!((io.counters().sent, io.counters().not_accepted), (64, 36));
        assert_eq!(io.frames().sending, 64);
        lab.gateway_runs("ip link set wan0 up");
        until("the interface", || {
            io.service();
            io.send(WAN, &mut batch);
            batch.is_empty() && io.frames().sending == 0
        });
        let arrived = b.receive_all(100);
        assert!(arrived.iter().map(|frame| number_of(frame)).eq(0..100), "{}", arrived.len());
        assert_eq!(io.frames().total(), 4096);
    });
}

/// Frames are conserved through traffic both ways and through packets that cannot be sent; the
/// kernel had no complaint.
#[test]
fn conserves_frames() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let (control, mut io) = open_one(&config(1));
        assert_eq!(control.region().frames(), 4096);
        assert_eq!(io.frames().total(), 4096);
        assert_eq!(io.frames().receiving, 2 * 1024, "fill rings are full from the start");
        for round in 0..20 {
            for number in 0..100 {
                a.send(&udp_frame(1000, number, 100));
                b.send(&esp_frame(number, 100));
            }
            let held = receive(&mut io, LAN, 100);
            assert_eq!(io.frames().total() + held.len(), 4096, "round {round}");
            recycle(&mut io, held);
            let held = receive(&mut io, WAN, 100);
            recycle(&mut io, held);
            send_all(&mut io, LAN, (0..100).map(|number| udp_frame(1, number, 60)));
        }
        let mut batch = Batch::new();
        batch.push(io.take_free().unwrap().with_contents(WAN, b"too short").unwrap());
        batch.push(io.take_free().unwrap().with_contents(WAN, &[]).unwrap());
        batch.push(io.take_free().unwrap().with_contents(WAN, &esp_frame(9, 60)).unwrap());
        io.send(WAN, &mut batch);
        assert!(batch.is_empty());
        until("completions", || {
            io.service();
            io.frames().sending == 0
        });
        assert_eq!(io.frames().total(), 4096);
        let counters = io.counters();
        assert_eq!((counters.received, counters.sent, counters.unsendable), (4000, 2001, 2));
        assert_eq!((counters.bad_descriptors, counters.not_accepted), (0, 0));
        for port in [LAN, WAN] {
            let kernel = control.kernel_statistics_of(port);
            assert_eq!((kernel.tx_invalid_descriptors, kernel.rx_invalid_descriptors), (0, 0));
        }
        drop(io);
        assert_eq!(control.ports()[0].kernel_statistics(0), None, "its socket is closed");
    });
}

/// A sleeping worker wakes for a packet on any port and for its waker, not before.
#[test]
fn sleeps_until_a_packet_or_a_waker() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let (_control, mut io) = open_one(&config(1));
        let waker = io.waker();
        let start = Instant::now();
        io.wait(Duration::from_millis(50), &|| false);
        assert!(start.elapsed() >= Duration::from_millis(50));
        let later = || thread::sleep(Duration::from_millis(30));
        for (port, host, frame) in [(LAN, &a, udp_frame(1, 2, 100)), (WAN, &b, esp_frame(3, 100))] {
            thread::scope(|scope| {
                scope.spawn(|| {
                    later();
                    host.send(&frame);
                });
                io.wait(LONG, &|| false);
            });
            let packets = receive(&mut io, port, 1);
            recycle(&mut io, packets);
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                later();
                waker.wake();
            });
            io.wait(LONG, &|| false);
        });
        assert!(start.elapsed() < LONG, "no wait ran into its timeout");
    });
}

/// With busy polling packets are received and sent, and a wait returns at once.
#[test]
fn polls_busily() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let (_control, mut io) = open_one(&Config { busy_poll: Some(48), ..config(1) });
        let start = Instant::now();
        io.wait(LONG, &|| false);
        assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
        for number in 0..200 {
            a.send(&udp_frame(1, number, 200));
            b.send(&esp_frame(number, 200));
        }
        for (from, to) in [(LAN, WAN), (WAN, LAN)] {
            let mut packets = Batch::new();
            for packet in receive(&mut io, from, 200) {
                packets.push(packet);
                io.send(to, &mut packets);
            }
        }
        for (host, frame) in
            [(&b, udp_frame as fn(u16, u32, usize) -> Vec<u8>), (&a, |_, n, s| esp_frame(n, s))]
        {
            let frames = host.receive_all(200);
            assert!((0..200).map(|n| frame(1, n, 200)).eq(frames));
        }
        assert_eq!(io.counters().polls, 0, "it does not sleep");
    });
}

fn refusal(lab: &Lab, config: &Config) -> String {
    lab.at_gateway(|| open(config).unwrap_err().to_string())
}

/// What cannot work is refused with the interface, the reason, and the command that helps.
#[test]
fn refuses_what_cannot_work() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(2);
    let mut missing = config(2);
    missing.ports[1].interface = "wan9".to_owned();
    assert!(refusal(&lab, &missing).starts_with("interface wan9: no such network interface"));

    let many = refusal(&lab, &config(3));
    assert!(many.contains("interface lan0: 3 workers need as many queues, but it has 2"), "{many}");
    assert!(many.ends_with("run: ethtool -L lan0 rx 3 tx 3"), "{many}");

    let few = refusal(&lab, &config(1));
    assert!(few.contains("interface lan0: it has 2 receive queues for 1 workers"), "{few}");
    assert!(few.ends_with("run: ethtool -L lan0 rx 1 tx 1"), "{few}");

    let zero_copy = refusal(&lab, &Config { copy: CopyChoice::ZeroCopy, ..config(2) });
    assert!(zero_copy.starts_with("interface lan0, queue 0: AF_XDP bind failed"), "{zero_copy}");
    assert!(zero_copy.ends_with("; the driver cannot: use copy mode"), "{zero_copy}");

    lab.gateway_runs("ip link set dev wan0 mtu 9000");
    let mtu = refusal(&lab, &config(2));
    let expected = "interface wan0: its MTU is 9000, but a packet buffer of 2048 bytes takes at \
                    most 1753; run: ip link set dev wan0 mtu 1500, or set jumbo = true";
    assert_eq!(mtu, expected);
    lab.gateway_runs("ip link set dev wan0 mtu 1500");

    lab.host_a_runs("ip link set dev lan1 mtu 9000");
    let peer = refusal(&lab, &config(2));
    assert!(peer.contains("MTU of lan0, or of its veth peer"), "{peer}");
    lab.host_a_runs("ip link set dev lan1 mtu 1500");

    lab.at_gateway(|| {
        let gateway = open(&config(2)).unwrap();
        let taken = open(&config(2)).unwrap_err();
        assert!(matches!(taken, Error::Program(_)), "{taken}");
        assert!(taken.to_string().contains("another XDP program is attached to lan0"), "{taken}");
        drop(gateway);
    });
}

/// After a failure half way (the second interface is taken) the first one is as it was found.
#[test]
fn a_failed_open_leaves_nothing_behind() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    lab.at_gateway(|| {
        let mut holder = config(1);
        let wan = holder.ports.remove(1);
        let lan = std::mem::replace(&mut holder.ports[0], wan);
        let held = open(&holder).unwrap();
        open(&config(1)).unwrap_err();
        until("the program to go", || !lab.gateway_runs("ip link show lan0").contains("xdp"));
        drop(held);
        let mut both = config(1);
        both.ports[0] = lan;
        open(&both).unwrap();
    });
}

/// A gateway that was just closed opens again, though the kernel releases queues a little later.
#[test]
fn reopens_at_once() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(2);
    lab.at_gateway(|| {
        for _ in 0..10 {
            drop(open(&config(2)).unwrap());
        }
    });
}

fn offloads(lab: &Lab) -> Vec<String> {
    let listed = lab.gateway_runs("ethtool -k lan0");
    let wanted = ["generic-receive-offload:", "rx-vlan-offload:", "large-receive-offload:"];
    let lines = listed.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.map(str::to_owned).collect()
}

/// Programs and offloads are as found after a drop, and in between as they must be; the gateway
/// opens again at once.
#[test]
fn restores_interfaces() {
    if lab::skip() {
        return;
    }
    if std::process::Command::new("ethtool").arg("--version").output().is_err() {
        eprintln!("SKIPPED: this test looks at offloads and needs ethtool");
        return;
    }
    let lab = Lab::new(1);
    for (choice, gro_when_open) in [(ModeChoice::Native, "on"), (ModeChoice::Generic, "off")] {
        lab.gateway_runs("ethtool -K lan0 gro on rxvlan on");
        let before = offloads(&lab);
        assert!(before.contains(&"generic-receive-offload: on".to_owned()), "{before:?}");
        let gateway = lab.at_gateway(|| open(&Config { mode: choice, ..config(1) }).unwrap());
        assert!(lab.gateway_runs("ip link show lan0").contains("prog/xdp"));
        let during = offloads(&lab);
        assert!(during.contains(&"rx-vlan-offload: off".to_owned()), "{during:?}");
        assert!(during.contains(&format!("generic-receive-offload: {gro_when_open}")));
        // Dropped on a thread of another namespace: neither half depends on where it is dropped.
        drop(gateway);
        assert_eq!(offloads(&lab), before, "{choice:?}");
        until("the program to go", || !lab.gateway_runs("ip link show lan0").contains("xdp"));
    }
}

/// The interface tells what the engine needs to know about it.
#[test]
fn describes_interfaces() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    lab.at_gateway(|| {
        let (control, _io) = open_one(&config(1));
        let lan = control.ports()[0].interface();
        assert_eq!((lan.name(), lan.driver(), lan.mtu()), ("lan0", "veth", 1500));
        assert_eq!((lan.rx_queues(), lan.tx_queues()), (1, 1));
        assert!(lan.needs_checksum_completion() && lan.is_veth());
        let mac = lan.mac().map(|octet| format!("{octet:02x}")).join(":");
        assert!(lab.gateway_runs("ip link show lan0").contains(&mac), "{mac}");
        assert!(!control.ports()[0].zero_copy(), "veth has no zero-copy");
        assert_eq!(control.ports()[1].side(), Side::Unprotected);
    });
}
