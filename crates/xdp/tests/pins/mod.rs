//! Programs that stay on their interfaces when the gateway ends.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use culvert_steer::Counter;
use culvert_xdp::Config;
use culvert_xdp::Control;
use culvert_xdp::Error;
use culvert_xdp::Gateway;
use culvert_xdp::Mode;
use culvert_xdp::ModeChoice;
use culvert_xdp::Released;
use culvert_xdp::SidePrefixes;
use culvert_xdp::open;
use culvert_xdp::prepare;
use culvert_xdp::release;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;

use super::LAN;
use super::config;
use super::lab;
use super::lab::Lab;
use super::lab::esp_frame;
use super::lab::udp_frame;
use super::lab::until;
use super::offloads;
use super::receive;
use super::recycle;

/// A BPF file system of its own, and a directory for pins in it.
struct BpfFs {
    root: PathBuf,
    pins: PathBuf,
}

impl BpfFs {
    fn new() -> BpfFs {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("culvert-bpf-{}-{count}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        let (kind, none) = (Some("bpf"), None::<&str>);
        mount(kind, &root, kind, MsFlags::empty(), none).unwrap();
        let pins = root.join("gateway");
        BpfFs { root, pins }
    }

    fn config(&self) -> Config {
        let prefix = ("10.2.0.0".parse().unwrap(), 16);
        Config {
            pin: Some(self.pins.clone()),
            prefixes: SidePrefixes { protected: vec![prefix], unprotected: vec![prefix] },
            ..config(1)
        }
    }

    /// Names of the pins, without the network namespace in front.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.pins) else { return Vec::new() };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry.unwrap()).split_once('-').unwrap().1.to_owned())
            .collect();
        names.sort_unstable();
        names
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}

/// Number and id of the program on an interface, as the kernel shows it; none without.
fn program(lab: &Lab, interface: &str) -> Option<String> {
    let shown = lab.gateway_runs(&format!("ip link show dev {interface}"));
    let id = shown.split("prog/xdp").nth(1)?.split_whitespace().nth(1)?;
    Some(id.to_owned())
}

fn programs(lab: &Lab) -> [Option<String>; 2] {
    ["lan0", "wan0"].map(|interface| program(lab, interface))
}

fn until_free(lab: &Lab) {
    until("the programs to go", || programs(lab) == [None, None]);
}

fn dropped(control: &Control, port: usize) -> u64 {
    control.ports()[port].steer().counters(1).unwrap()[0][Counter::NoSocket]
}

/// From the moment it is attached, the program drops what is for the engine, on both sides, and
/// nothing of it reaches the kernel; with the sockets packets arrive.
#[test]
fn what_is_taken_is_dropped_until_packets_may_arrive() {
    if lab::skip() {
        return;
    }
    let lab = Lab::new(1);
    let (a, b) = (lab.host_a(), lab.host_b());
    lab.at_gateway(|| {
        let prefix = ("10.2.0.0".parse().unwrap(), 16);
        let prefixes = SidePrefixes { protected: vec![prefix], unprotected: Vec::new() };
        let config = Config { prefixes, ..config(1) };
        let Gateway { mut control, mut workers } = prepare(&config).unwrap();
        for number in 0..10 {
            a.send(&udp_frame(1000, number, 100));
            b.send(&esp_frame(number, 100));
        }
        until("dropped frames", || dropped(&control, 0) == 10 && dropped(&control, 1) == 10);
        control.connect().unwrap();
        a.send(&udp_frame(1000, 77, 100));
        let packets = receive(&mut workers[0], LAN, 1);
        assert_eq!(packets[0].data(), udp_frame(1000, 77, 100));
        recycle(&mut workers[0], packets);
        assert_eq!((dropped(&control, 0), dropped(&control, 1)), (10, 10));
    });
}

/// A gateway that ends leaves its programs, which drop; the next one replaces them, with its own
/// prefixes, while the interfaces never are without. A stop may open them, and so does `release`.
#[test]
fn a_gateway_takes_over_what_is_pinned() {
    if lab::skip() {
        return;
    }
    let (lab, bpf) = (Lab::new(1), BpfFs::new());
    let a = lab.host_a();
    lab.at_gateway(|| {
        drop(open(&bpf.config()).unwrap());
        let first = programs(&lab);
        assert!(first.iter().all(Option::is_some), "{first:?}");
        for number in 0..10 {
            a.send(&udp_frame(1000, number, 100));
        }
        let Gateway { control, mut workers } = open(&bpf.config()).unwrap();
        let second = programs(&lab);
        assert!(second.iter().all(Option::is_some) && second != first, "{first:?} {second:?}");
        a.send(&udp_frame(1000, 77, 100));
        let packets = receive(&mut workers[0], LAN, 1);
        assert_eq!(packets[0].data(), udp_frame(1000, 77, 100), "the others were dropped");
        recycle(&mut workers[0], packets);
        drop((workers, control));
        assert_eq!(programs(&lab), second);

        let Gateway { mut control, workers } = open(&bpf.config()).unwrap();
        control.stay_closed(false);
        drop((workers, control));
        until_free(&lab);
        assert_eq!(bpf.names(), [""; 0]);

        drop(open(&bpf.config()).unwrap());
        for number in 0..10 {
            a.send(&udp_frame(1000, number, 100));
        }
        thread::sleep(Duration::from_millis(200));
        let mut released = release(&bpf.pins).unwrap();
        released.sort_unstable_by_key(|released| released.dropped);
        let [wan, lan] = ["wan0", "lan0"].map(str::to_owned);
        let expected = [(wan, 0), (lan, 10)];
        let expected = expected.map(|(interface, dropped)| Released { interface, dropped });
        assert_eq!(released, expected);
        until_free(&lab);
        assert!(!bpf.pins.exists() && release(&bpf.pins).unwrap().is_empty());
    });
}

/// A first start that fails leaves nothing behind; one over closed interfaces leaves them closed.
#[test]
fn a_failed_start_leaves_interfaces_as_they_were() {
    if lab::skip() {
        return;
    }
    let (lab, bpf) = (Lab::new(1), BpfFs::new());
    lab.at_gateway(|| {
        let mut holder = config(1);
        holder.ports.remove(0);
        let held = open(&holder).unwrap();
        open(&bpf.config()).unwrap_err();
        until("the program to go", || program(&lab, "lan0").is_none());
        assert_eq!(bpf.names(), [""; 0]);
        drop(held);
        until_free(&lab);

        drop(prepare(&bpf.config()).unwrap());
        until_free(&lab);
        drop(open(&bpf.config()).unwrap());
        drop(prepare(&bpf.config()).unwrap());
        assert!(programs(&lab).iter().all(Option::is_some), "they were closed before");
        let generic = Config { mode: ModeChoice::Generic, ..bpf.config() };
        let refused = prepare(&generic).unwrap_err();
        assert!(matches!(refused, Error::PinnedMode { mode: Mode::Native, .. }), "{refused}");
        assert!(refused.to_string().contains("culvert release"), "{refused}");
        assert!(programs(&lab).iter().all(Option::is_some));
    });
}

/// The pin of an interface that is gone is removed, and one of the same name gets a new one.
#[test]
fn pins_of_interfaces_that_are_gone_are_removed() {
    if lab::skip() {
        return;
    }
    let (lab, bpf) = (Lab::new(1), BpfFs::new());
    lab.at_gateway(|| {
        drop(open(&bpf.config()).unwrap());
        let before = bpf.names();
        assert_eq!(before.len(), 2);
        lab.gateway_runs("ip link del lan0");
        lab.gateway_runs("ip link add lan0 type veth peer name lan1");
        lab.gateway_runs("ip link set lan0 up");
        drop(open(&bpf.config()).unwrap());
        let after = bpf.names();
        assert_eq!(after.len(), 2);
        assert!(after != before && after.iter().any(|name| before.contains(name)), "{after:?}");
        lab.gateway_runs("ip link del lan0");
        let released = release(&bpf.pins).unwrap();
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].interface, "wan0");
        assert!(!bpf.pins.exists());
    });
}

/// The directory belongs to one gateway while it runs: neither another one nor `release` gets in.
#[test]
fn pins_are_one_gateways() {
    if lab::skip() {
        return;
    }
    let (lab, bpf) = (Lab::new(1), BpfFs::new());
    lab.at_gateway(|| {
        let gateway = open(&bpf.config()).unwrap();
        for refused in [release(&bpf.pins).map(drop), open(&bpf.config()).map(drop)] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, Error::PinsInUse { .. }), "{refused}");
        }
        drop(gateway);
        let elsewhere = Config { pin: Some(Path::new("/tmp/pins").to_owned()), ..bpf.config() };
        let refused = open(&elsewhere).unwrap_err();
        assert!(matches!(refused, Error::NotPinnable { .. }), "{refused}");
        assert_eq!(release(&bpf.pins).unwrap().len(), 2);
    });
}

/// Offloads that were turned off stay off while interfaces are closed, through a next gateway, and
/// `release` sets them back as the first one found them.
#[test]
fn release_restores_offloads() {
    if lab::skip() {
        return;
    }
    if std::process::Command::new("ethtool").arg("--version").output().is_err() {
        eprintln!("SKIPPED: this test looks at offloads and needs ethtool");
        return;
    }
    let (lab, bpf) = (Lab::new(1), BpfFs::new());
    lab.gateway_runs("ethtool -K lan0 gro on rxvlan on");
    lab.at_gateway(|| {
        let before = offloads(&lab);
        for _ in 0..2 {
            drop(open(&Config { mode: ModeChoice::Generic, ..bpf.config() }).unwrap());
            let closed = offloads(&lab);
            assert!(closed.contains(&"generic-receive-offload: off".to_owned()), "{closed:?}");
        }
        assert!(bpf.names().iter().all(|name| name.contains("-g")), "{:?}", bpf.names());
        // As it was found, native or not, is good enough for who does not mind.
        drop(open(&bpf.config()).unwrap());
        release(&bpf.pins).unwrap();
        assert_eq!(offloads(&lab), before);
    });
}
