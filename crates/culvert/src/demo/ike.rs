//! `culvert demo --ike`: two networks whose gateways run stock strongSwan, over culvert.
//!
//! strongSwan is as its distribution ships it. It negotiates the SAs, and `culvert exec` has it
//! hand them to culvert instead of the kernel.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::address;
use super::gateway_lines;
use super::micros;
use crate::cli::DemoArgs;
use crate::lab::Cancel;
use crate::lab::Capture;
use crate::lab::Captured;
use crate::lab::Class;
use crate::lab::Namespaces;
use crate::lab::Ping;
use crate::lab::TcpTransfer;
use crate::lab::UdpReport;
use crate::lab::ike::Auth;
use crate::lab::ike::Authority;
use crate::lab::ike::Backend;
use crate::lab::ike::Charon;
use crate::lab::ike::ChildSa;
use crate::lab::ike::Connection;
use crate::lab::ike::Engine;
use crate::lab::ike::Networks;
use crate::lab::ike::Station;
use crate::lab::ike::charon;
use crate::lab::ike::networks::IDS;
use crate::lab::sites::HOST_A;
use crate::lab::sites::HOST_B;

/// How long a negotiation may take.
const NEGOTIATION: Duration = Duration::from_secs(10);

/// How often the Child SA is rekeyed under load.
const REKEYS: usize = 5;

/// Runs the demonstration with who does the work of IPsec at gateway a and at gateway b; the
/// program `culvert` lies at a path.
///
/// # Errors
/// When it cannot be set up, or when something is not as it should be.
pub fn demo(args: &DemoArgs, ends: [Backend; 2], culvert: &Path) -> Result<()> {
    if let Some(package) = charon::missing() {
        bail!("strongSwan is not installed here: package {package} (scripts/demo --ike does it)");
    }
    let start = Instant::now();
    let cancel = Cancel::on_signals()?;
    let mut namespaces = Namespaces::new(&cancel)?;
    println!("Two networks; each gateway runs stock strongSwan, and culvert for its packets:");
    println!();
    println!("  host-a ---- gw-a ==== IKEv2, ESP ==== gw-b ---- host-b");
    println!("  10.1.0.2    192.0.2.1         192.0.2.2         10.2.0.2");
    println!("  fd01::2                                         fd02::2");
    println!();
    let networks = Networks::new(&mut namespaces, args.workers)?;
    let capture = Capture::start(&networks.wire.ns, networks.wire.right, 0)?;
    let engine = Engine { workers: args.workers, ..Engine::new(culvert) };
    let [first, second] = connections(&networks)?;
    let mut station = |site: usize, connection: Connection| {
        let how = (ends[site], &engine);
        Station::start(&mut namespaces, &networks, site, how, &[connection])
    };
    let stations = [station(0, first)?, station(1, second)?];
    let shown = show(args, &networks, &stations);
    let [a, b] = stations;
    let reports = [("gw-a", a.stop()?), ("gw-b", b.stop()?)];
    let captured = capture.stop()?;
    shown?;
    wire(&captured)?;
    for (name, report) in reports {
        gateway_lines(&report.map(|report| (name, report)).into_iter().collect::<Vec<_>>());
    }
    drop(networks);
    drop(namespaces);
    println!();
    println!(
        "Everything arrived, nothing crossed the wire in clear, nothing is left behind. {:.1} s.",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A tunnel for both families, with certificates made for it.
fn connections(networks: &Networks) -> Result<[Connection; 2]> {
    let authority = Authority::new(networks.directory())?;
    let certificate =
        |id: &str| Ok::<_, anyhow::Error>(Auth::Certificate(Box::new(authority.certify(id)?)));
    let connection = Connection { auth: certificate(IDS[0])?, ..networks.tunnel(false) };
    let peer = networks.peer_of(&connection, Some(certificate(IDS[1])?));
    Ok([connection, peer])
}

fn show(args: &DemoArgs, networks: &Networks, stations: &[Station; 2]) -> Result<()> {
    let [a, b] = [&stations[0].charon, &stations[1].charon];
    let start = Instant::now();
    a.initiate("net", NEGOTIATION)?;
    negotiated(a, start.elapsed())?;
    pings(networks)?;
    tcp(args, networks)?;
    rekeys(networks, [a, b])?;
    pings(networks)
}

/// What was negotiated, as strongSwan says it.
fn negotiated(charon: &Charon, took: Duration) -> Result<()> {
    let sas = charon.list_sas()?;
    let sa = sas.first().context("no IKE SA")?;
    println!(
        "IKE SA    IKEv{} {}, {} with a certificate, in {} ms",
        sa.version,
        sa.algorithms,
        sa.remote_id,
        took.as_millis()
    );
    let child = sa.children.first().context("no Child SA")?;
    println!(
        "Child SA  {} {} {}, SPIs {} in and {} out",
        child.protocol,
        child.mode.to_lowercase(),
        child.algorithms,
        child.spis.0,
        child.spis.1
    );
    println!("          {} === {}", child.local_ts.join(" "), child.remote_ts.join(" "));
    Ok(())
}

fn pings(networks: &Networks) -> Result<()> {
    let [a, b] = &networks.hosts;
    let ways = [(a, "host-a -> host-b", HOST_B), (b, "host-b -> host-a", HOST_A)];
    for (host, way, destinations) in ways {
        for destination in destinations {
            let report = Ping::new(address(destination)?).run(host)?;
            ensure!(report.received == report.sent, "ping {destination}: {report:?}");
            let median = micros(report.rtt.value_at_quantile(0.5));
            println!(
                "ping      {way} {destination}: {}/{} answered, round trip p50 {median}",
                report.received, report.sent
            );
        }
    }
    Ok(())
}

fn tcp(args: &DemoArgs, networks: &Networks) -> Result<()> {
    let [a, b] = &networks.hosts;
    let bytes = u64::from(args.tcp_megabytes) * 1_000_000;
    let destination = std::net::SocketAddr::new(address(HOST_B[1])?, 7001);
    let report = TcpTransfer::new(destination, bytes).run(a, b)?;
    ensure!(report.is_intact() && report.bytes == bytes, "TCP: {report:?}");
    println!(
        "TCP       {} MB over IPv6 in {:.2} s, SHA-256 equal at both ends",
        args.tcp_megabytes,
        report.duration.as_secs_f64()
    );
    Ok(())
}

/// Rekeys under a stream both ways, in turn from either end.
fn rekeys(networks: &Networks, charons: [&Charon; 2]) -> Result<()> {
    let rate_pps = 1000;
    let (outcome, reports) = networks.under_load(rate_pps, || -> Result<Vec<ChildSa>> {
        (0..REKEYS).map(|number| rekey(charons[number % 2])).collect()
    })?;
    let children = outcome?;
    let lost = |report: &UdpReport| report.sent - report.received;
    let [to_b, to_a] = &reports;
    println!(
        "rekey     {} times while {rate_pps} datagrams a second went each way; the last SPIs are \
         {} and {}",
        children.len(),
        children.last().map_or("", |child| &child.spis.0),
        children.last().map_or("", |child| &child.spis.1),
    );
    println!(
        "          {} of {} lost to host-b, {} of {} lost to host-a",
        lost(to_b),
        to_b.sent,
        lost(to_a),
        to_a.sent
    );
    ensure!(lost(to_b) == 0 && lost(to_a) == 0, "a rekey lost packets");
    Ok(())
}

/// Has a daemon rekey the Child SA; returns the new one.
fn rekey(charon: &Charon) -> Result<ChildSa> {
    let newest = || -> Result<ChildSa> { charon.installed("net")?.pop().context("no Child SA") };
    let before = newest()?;
    charon.rekey_child("net")?;
    charon.wait_sas("new Child SA", NEGOTIATION, |sas| {
        let children = sas.iter().flat_map(|sa| sa.installed("net"));
        children.map(|child| child.unique_id).max() > Some(before.unique_id)
    })?;
    newest()
}

fn wire(captured: &Captured) -> Result<()> {
    let mut seen = Vec::new();
    for (class, count) in captured.counts.iter() {
        ensure!(class != Class::Other, "{count} frames of class {} crossed the wire", class.name());
        seen.push(format!("{count} {}", class.name()));
    }
    println!("wire      capture between the gateways saw only: {}", seen.join(", "));
    Ok(())
}
