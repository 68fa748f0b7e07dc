//! `culvert demo`: two sites, two gateways, real traffic, and proof of what crossed the wire.

pub mod ike;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use hdrhistogram::Histogram;

use crate::cli::DemoArgs;
use crate::lab::Cancel;
use crate::lab::Capture;
use crate::lab::Class;
use crate::lab::Counts;
use crate::lab::Namespaces;
use crate::lab::Ping;
use crate::lab::TcpTransfer;
use crate::lab::UdpStream;
use crate::lab::ike::Backend;
use crate::lab::sites::HOST_A;
use crate::lab::sites::HOST_B;
use crate::lab::sites::Plan;
use crate::lab::sites::Sites;
use crate::report::CounterReport;
use crate::run::RunReport;

/// Frames of the wire that are kept, to tamper with and to replay.
const KEEP: usize = 64;

/// How long packets may be under way.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs the demonstration.
///
/// # Errors
/// When it cannot be set up, or when something is not as it should be.
pub fn demo(args: &DemoArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the demonstration needs root: try sudo");
    let program = std::env::current_exe().context("cannot find this program")?;
    if args.ike {
        return ike::demo(args, [Backend::Culvert; 2], &program);
    }
    let start = Instant::now();
    let cancel = Cancel::on_signals()?;
    let mut namespaces = Namespaces::new(&cancel)?;
    let plan = Plan { workers: args.workers, ..Plan::default() };
    println!("Two sites, two culvert gateways, a wire between them (network namespaces and veth):");
    println!();
    println!("  host-a ---- gw-a ==== ESP ==== gw-b ---- host-b");
    println!("  10.1.0.2    192.0.2.1    192.0.2.2       10.2.0.2");
    println!("  fd01::2                                  fd02::2");
    println!();
    let sites = Sites::new(&mut namespaces, &plan)?;
    let gateways = sites.start(&mut namespaces, &program)?;
    println!(
        "SAs       {} tunnels with random keys, extended sequence numbers, window 1024",
        plan.algorithm.0
    );

    let mut capture = Capture::start(&sites.wire.ns, sites.wire.right, KEEP)?;
    let traffic = traffic(&sites, args, &mut capture, &cancel);
    let captured = capture.stop()?;
    let [a, b] = gateways;
    let reports = [("gw-a", a.stop()?), ("gw-b", b.stop()?)];
    if traffic.is_ok() {
        wire(&captured.counts)?;
    }
    gateway_lines(&reports);
    traffic?;
    attacks_were_counted(&reports[1].1)?;
    drop(sites);
    drop(namespaces);
    println!();
    println!(
        "Everything arrived, only ESP crossed the wire, and the attacks were counted. Nothing is \
         left behind. {:.1} s.",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn traffic(sites: &Sites, args: &DemoArgs, capture: &mut Capture, cancel: &Cancel) -> Result<()> {
    pings(sites)?;
    udp(sites, args)?;
    tcp(sites, args)?;
    attack(sites, capture, cancel)?;
    pings_again(sites)
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().with_context(|| format!("address {text}"))
}

fn pings(sites: &Sites) -> Result<()> {
    for (family, destination) in ["IPv4", "IPv6"].iter().zip(HOST_B) {
        let ping = Ping { count: 20, ..Ping::new(address(destination)?) };
        let report = ping.run(&sites.host_a)?;
        ensure!(
            report.received == report.sent && report.corrupt == 0,
            "ping {destination}: {} of {} came back",
            report.received,
            report.sent
        );
        println!(
            "ping      {family} host-a -> host-b: {}/{} answered, round trip p50 {}",
            report.received,
            report.sent,
            micros(report.rtt.value_at_quantile(0.5))
        );
    }
    Ok(())
}

/// After the attacks everything must still work, in the other direction as well.
fn pings_again(sites: &Sites) -> Result<()> {
    for destination in HOST_A {
        let report = Ping::new(address(destination)?).run(&sites.host_b)?;
        ensure!(report.received == report.sent, "ping {destination} after the attacks");
    }
    println!("ping      host-b -> host-a, both families, after the attacks: 0 lost");
    Ok(())
}

fn udp(sites: &Sites, args: &DemoArgs) -> Result<()> {
    let stream = UdpStream {
        rate_pps: args.udp_rate,
        count: u64::from(args.udp_rate) * 2,
        size: 1000,
        ..UdpStream::new(SocketAddr::new(address(HOST_B[0])?, 7000))
    };
    let report = stream.run(&sites.host_a, &sites.host_b)?;
    ensure!(report.corrupt == 0 && report.duplicates == 0, "UDP: {report:?}");
    ensure!(report.received > 0, "UDP: nothing arrived");
    println!(
        "UDP       {} datagrams of 1000 octets at {}/s: {} arrived ({:.2} % lost)",
        report.sent,
        args.udp_rate,
        report.received,
        100.0 * report.loss()
    );
    println!("latency   one way, host to host: {}", quantiles(&report.latency));
    Ok(())
}

fn tcp(sites: &Sites, args: &DemoArgs) -> Result<()> {
    let bytes = u64::from(args.tcp_megabytes) * 1_000_000;
    let destination = SocketAddr::new(address(HOST_B[1])?, 7001);
    let report = TcpTransfer::new(destination, bytes).run(&sites.host_a, &sites.host_b)?;
    ensure!(report.is_intact() && report.bytes == bytes, "TCP: {report:?}");
    println!(
        "TCP       {} MB over IPv6 in {:.2} s, {:.2} Gbit/s, SHA-256 equal at both ends",
        args.tcp_megabytes,
        report.duration.as_secs_f64(),
        report.bits_per_second() / 1e9
    );
    Ok(())
}

/// Sends a copy of a packet from the wire again, and one with a flipped bit.
///
/// The copy is of a packet that is still inside the replay window. An older one would be counted as
/// `icv`: with extended sequence numbers it is taken for one of the next 2^32 (RFC 4303 A2.2).
fn attack(sites: &Sites, capture: &mut Capture, cancel: &Cancel) -> Result<()> {
    capture.forget();
    Ping::new(address(HOST_B[0])?).run(&sites.host_a)?;
    cancel.sleep(SETTLE)?;
    let frames = capture.frames(Class::Esp4);
    // Frames towards gw-b carry its SPI.
    let to_b = |frame: &&Vec<u8>| frame.get(34..38) == Some(&[0, 0, 0x10, 0x01]);
    let Some(frame) = frames.iter().find(to_b) else {
        bail!("no ESP packet was captured on the wire");
    };
    let mut tampered = frame.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    // A forged packet must look new to get as far as the integrity check.
    tampered[38..42].copy_from_slice(&0x7fff_0000u32.to_be_bytes());
    capture.inject(&tampered)?;
    capture.inject(frame)?;
    cancel.sleep(SETTLE)?;
    println!("attack    one tampered and one replayed ESP packet injected towards gw-b");
    Ok(())
}

fn wire(counts: &Counts) -> Result<()> {
    let mut seen: Vec<String> = Vec::new();
    for (class, count) in counts.iter() {
        seen.push(format!("{count} {}", class.name()));
        let harmless = !matches!(class, Class::Udp4500 | Class::Ike | Class::Other);
        ensure!(harmless, "{count} frames of class {} crossed the wire", class.name());
    }
    ensure!(counts.esp() > 0, "no ESP crossed the wire");
    println!("wire      capture between the gateways saw only: {}", seen.join(", "));
    Ok(())
}

fn gateway_lines(reports: &[(&str, RunReport)]) {
    for (name, report) in reports {
        let modes: Vec<String> = report
            .ports
            .iter()
            .map(|port| {
                let copy = if port.zero_copy { "zero-copy" } else { "copy" };
                format!("{} {} XDP, {copy} AF_XDP", port.interface, port.mode)
            })
            .collect();
        let totals = &report.totals;
        println!(
            "{name}      {}; {} received, {} forwarded, dropped: {}",
            modes.join("; "),
            totals.received,
            totals.forwarded,
            drops(totals)
        );
    }
}

fn attacks_were_counted(report: &RunReport) -> Result<()> {
    let attacked = &report.totals.drops;
    for reason in ["icv", "replay"] {
        ensure!(attacked.get(reason) == Some(&1), "gw-b dropped {attacked:?}, expected 1 {reason}");
    }
    Ok(())
}

fn drops(totals: &CounterReport) -> String {
    if totals.drops.is_empty() {
        return "none".to_owned();
    }
    let each: Vec<String> =
        totals.drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    each.join(", ")
}

fn quantiles(histogram: &Histogram<u64>) -> String {
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    format!("p50 {}, p99 {}, p99.9 {}", at(0.5), at(0.99), at(0.999))
}

fn micros(nanoseconds: u64) -> String {
    format!("{} us", nanoseconds / 1000)
}
