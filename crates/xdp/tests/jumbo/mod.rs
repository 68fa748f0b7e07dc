//! Frames larger than one buffer, over veth pairs with an MTU of 9000.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use culvert_frame::Batch;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use culvert_xdp::Config;
use culvert_xdp::FrameCount;
use culvert_xdp::Mode;
use culvert_xdp::ModeChoice;

use super::KernelStatisticsOf;
use super::LAN;
use super::LONG;
use super::WAN;
use super::forward;
use super::lab;
use super::lab::Host;
use super::lab::Lab;
use super::lab::esp_frame;
use super::lab::number_of;
use super::lab::udp_frame;
use super::lab::until;
use super::open_one;
use super::receive;
use super::recycle;
use super::refusal;

const FRAMES: usize = 4096;

fn config() -> Config {
    Config { jumbo: true, runs_per_worker: 64, ..super::config(1) }
}

/// A laboratory whose links have an MTU of `mtu`.
fn lab_of(mtu: usize) -> (Lab, Host, Host) {
    let lab = Lab::new(1);
    for interface in ["lan0", "wan0"] {
        lab.gateway_runs(&format!("ip link set dev {interface} mtu {mtu}"));
    }
    lab.host_a_runs(&format!("ip link set dev lan1 mtu {mtu}"));
    lab.host_b_runs(&format!("ip link set dev wan1 mtu {mtu}"));
    let (a, b) = (lab.host_a(), lab.host_b());
    (lab, a, b)
}

fn passes_all_sizes(choice: ModeChoice, mode: Mode) {
    if lab::skip() {
        return;
    }
    let (lab, a, b) = lab_of(9000);
    lab.at_gateway(|| {
        let (control, mut io) = open_one(&Config { mode: choice, ..config() });
        assert!(control.ports().iter().all(|port| port.mode() == mode));
        let sizes = [60, 1514, 1536, 1537, 1792, 1793, 1794, 3584, 3585, 4096, 8950, 8978];
        for (number, size) in (0..).zip(sizes) {
            let frame = udp_frame(1000, number, size);
            a.send(&frame);
            let mut packet = receive(&mut io, LAN, 1).remove(0);
            assert_eq!(packet.data(), frame, "{size}");
            assert_eq!(packet.is_run(), size > 1536, "{size}");
            assert!(packet.headroom() == 256 && packet.tailroom() >= 256);
            packet.prepend(36).unwrap().copy_from_slice(&[7; 36]);
            let mut batch = Batch::new();
            batch.push(packet);
            io.send(WAN, &mut batch);
            let arrived = b.receive(LONG).unwrap();
            assert!(arrived[..36] == [7; 36] && arrived[36..] == frame, "{size}");
        }
        for number in 0..20 {
            b.send(&esp_frame(number, 9014 - number as usize));
        }
        let packets = receive(&mut io, WAN, 20);
        for (number, packet) in (0..).zip(&packets) {
            assert_eq!(packet.data(), esp_frame(number, 9014 - number as usize));
        }
        let mut batch: Batch = packets.into_iter().collect();
        io.send(LAN, &mut batch);
        for number in 0..20 {
            assert_eq!(a.receive(LONG).unwrap(), esp_frame(number, 9014 - number as usize));
        }
        until("completions", || {
            io.service();
            io.frames().sending + io.runs().sending == 0
        });
        assert_eq!(io.frames().total(), FRAMES);
        assert_eq!(io.runs(), FrameCount { free: 64, receiving: 0, sending: 0 });
        let counters = io.counters();
        assert_eq!((counters.no_run, counters.too_long, counters.bad_descriptors), (0, 0, 0));
        for port in [LAN, WAN] {
            let kernel = control.kernel_statistics_of(port);
            let invalid = (kernel.tx_invalid_descriptors, kernel.rx_invalid_descriptors);
            assert_eq!((invalid, kernel.rx_dropped), ((0, 0), 0));
        }
    });
}

/// Frames of every size up to the MTU of 9000 arrive whole, with room on both sides, and leave
/// with their start moved; no buffer and no run is lost, and the kernel had no complaint.
#[test]
fn jumbo_frames_pass_native() {
    passes_all_sizes(ModeChoice::Native, Mode::Native);
}

/// The same over generic XDP.
#[test]
fn jumbo_frames_pass_generic() {
    passes_all_sizes(ModeChoice::Generic, Mode::Generic);
}

/// With no run left a large frame is dropped and counted, and small ones pass; runs that come back
/// carry large frames again.
#[test]
fn without_a_run_large_frames_are_counted() {
    if lab::skip() {
        return;
    }
    let (lab, a, _b) = lab_of(9000);
    lab.at_gateway(|| {
        let (_control, mut io) = open_one(&Config { runs_per_worker: 2, ..config() });
        for number in 0..5 {
            a.send(&udp_frame(1000, number, 8000));
            a.send(&udp_frame(1000, 100 + number, 200));
        }
        let packets = receive(&mut io, LAN, 7);
        let numbers: Vec<u32> = packets.iter().map(|packet| number_of(packet.data())).collect();
        assert_eq!(numbers, [0, 100, 1, 101, 102, 103, 104]);
        assert_eq!((io.counters().no_run, io.counters().received), (3, 7));
        assert_eq!(io.runs().total(), 0, "both are held");
        assert_eq!(io.frames().total(), FRAMES - 5);
        recycle(&mut io, packets);
        a.send(&udp_frame(1000, 5, 8000));
        let packets = receive(&mut io, LAN, 1);
        assert_eq!(packets[0].data(), udp_frame(1000, 5, 8000));
        recycle(&mut io, packets);
        assert_eq!((io.frames().total(), io.runs().free), (FRAMES, 2));
    });
}

/// Small and large frames mixed, more than any ring holds, are forwarded in order; what finds no
/// run is counted, and everything is accounted for in the end.
#[test]
fn jumbo_frames_are_conserved() {
    if lab::skip() {
        return;
    }
    const PACKETS: u32 = 6000;
    let (lab, a, b) = lab_of(9000);
    lab.at_gateway(|| {
        let (control, mut io) = open_one(&config());
        let size = |number: u32| {
            if number.is_multiple_of(3) { 9000 } else { 100 + number as usize % 1300 }
        };
        let stop = AtomicBool::new(false);
        let (sent, arrived) = thread::scope(|scope| {
            let forwarder = scope.spawn(|| forward(&mut io, &stop));
            for number in 0..PACKETS {
                a.send(&udp_frame(1000, number, size(number)));
                // Slow enough for the fill rings whatever else the machine does.
                if number % 64 == 63 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
            let arrived = b.receive_all(PACKETS as usize);
            stop.store(true, Ordering::Relaxed);
            (forwarder.join().unwrap(), arrived)
        });
        let numbers: Vec<u32> = arrived.iter().map(|frame| number_of(frame)).collect();
        assert!(numbers.is_sorted(), "in order");
        for (frame, &number) in arrived.iter().zip(&numbers) {
            assert_eq!(*frame, udp_frame(1000, number, size(number)));
        }
        until("completions", || {
            io.service();
            io.frames().sending + io.runs().sending == 0
        });
        assert_eq!((io.frames().total(), io.runs().free), (FRAMES, 64));
        let counters = io.counters();
        let kernel = control.kernel_statistics_of(LAN);
        let lost = kernel.rx_ring_full + kernel.fill_ring_empty + kernel.rx_dropped;
        assert_eq!(sent, arrived.len() as u64);
        assert_eq!(sent + counters.no_run + lost, u64::from(PACKETS), "{counters:?} {kernel:?}");
        assert!(numbers.iter().filter(|number| number.is_multiple_of(3)).count() > 1000);
        assert_eq!(counters.bad_descriptors, 0);
    });
}

/// The largest MTU that a run has room for is accepted, a larger one refused with the reason.
#[test]
fn a_run_bounds_the_mtu() {
    if lab::skip() {
        return;
    }
    let (lab, a, _b) = lab_of(9945);
    lab.at_gateway(|| {
        let (_control, mut io) = open_one(&config());
        a.send(&udp_frame(1, 2, 9945 + 14));
        let packets: Vec<Packet> = receive(&mut io, LAN, 1);
        assert_eq!(packets[0].data(), udp_frame(1, 2, 9945 + 14));
        recycle(&mut io, packets);
    });
    lab.gateway_runs("ip link set dev wan0 mtu 9946");
    let expected = "interface wan0: its MTU is 9946, but a packet takes at most 5 buffers, which \
                    is an MTU of 9945; run: ip link set dev wan0 mtu 9000";
    assert_eq!(refusal(&lab, &config()), expected);
}
