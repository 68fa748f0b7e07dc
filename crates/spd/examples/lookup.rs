//! Prints how long lists take to compile and packets to look up.
//!
//! ```sh
//! cargo run --release -p culvert-spd --example lookup
//! ```
//!
//! Each packet is another one of a million flows, so nothing a cache in front of the lookup could
//! keep is asked twice. In brackets: how many of them a policy other than the last admits.

use std::hint::black_box;
use std::time::Instant;

use culvert_spd::Action;
use culvert_spd::AddressRange;
use culvert_spd::Compiled;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_spd::Upper;
use culvert_spd::UpperSelector;
use culvert_wire::ip::Addresses;

const POLICIES: u32 = 100_000;
const FLOWS: usize = 1 << 20;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).expect("below a u32")
    }

    fn port(&mut self) -> u16 {
        u16::try_from(self.next() >> 48).expect("16 bits")
    }
}

/// A policy for TCP between ranges and ports.
fn tcp(source: AddressRange, destination: AddressRange, ports: [PortSelector; 2]) -> Policy {
    let [from, to] = ports;
    let upper = UpperSelector::Ports { source: from, destination: to };
    let selector = Selector::new(source.into(), destination.into(), Some(6), upper);
    Policy::new(selector.expect("a selector"), Action::Protect(Group(1)))
}

/// A prefix of IPv4, or of 2001:db8::/32 with its `len` + 32.
fn prefix(is_v4: bool, number: u32, len: u32) -> AddressRange {
    let number = u128::from(number & u32::MAX.checked_shl(32 - len).unwrap_or(0));
    let text = if is_v4 {
        format!("{}/{len}", std::net::Ipv4Addr::from_bits(u32::try_from(number).expect("32 bits")))
    } else {
        let number = 0x2001_0db8 << 96 | number << 64;
        format!("{}/{}", std::net::Ipv6Addr::from_bits(number), len + 32)
    };
    text.parse().expect("a prefix")
}

fn some_ports(random: &mut Random) -> PortSelector {
    let (a, b) = (random.port(), random.port());
    (a.min(b)..=a.max(b)).into()
}

/// Policies between random networks; most flows are between networks of a policy.
fn networks(random: &mut Random, is_v4: bool, lens: &[u32]) -> Vec<Policy> {
    let mut policy = |_| {
        let mut net = || {
            let len = lens[random.below(u32::try_from(lens.len()).expect("few")) as usize];
            prefix(is_v4, random.below(u32::MAX), len)
        };
        let (source, destination) = (net(), net());
        tcp(source, destination, [PortSelector::Any, some_ports(random)])
    };
    (0..POLICIES).map(&mut policy).collect()
}

/// Policies for random ports of one network.
fn ports(random: &mut Random) -> Vec<Policy> {
    let net = prefix(true, 0x0a00_0000, 8);
    (0..POLICIES).map(|_| tcp(net, net, [PortSelector::Any, random.port().into()])).collect()
}

/// Policies between ranges that are no prefixes, of up to 4096 addresses.
fn ranges(random: &mut Random) -> Vec<Policy> {
    let mut range = || {
        let start = random.below(u32::MAX - 4096);
        let end = start + random.below(4096);
        let address = |number| std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(number));
        AddressRange::new(address(start), address(end)).expect("in order")
    };
    (0..POLICIES).map(|_| tcp(range(), range(), [PortSelector::Any, PortSelector::Any])).collect()
}

/// Half of them random packets, half such that a random policy admits their addresses.
fn flows(random: &mut Random, policies: &[Policy]) -> Vec<Flow> {
    let mut within = |net: ipnet::IpNet| {
        let host = u128::from(random.next()) << 64 | u128::from(random.next());
        match net {
            ipnet::IpNet::V4(net) => {
                let host = u32::try_from(host >> 96).expect("32 bits");
                u128::from(net.network().to_bits() | host & net.hostmask().to_bits())
            }
            ipnet::IpNet::V6(net) => net.network().to_bits() | host & net.hostmask().to_bits(),
        }
    };
    let mut at = Random(7);
    let count = u32::try_from(policies.len()).expect("few");
    (0..FLOWS)
        .map(|index| {
            let one = &policies[at.below(count) as usize].selector;
            let other = &policies[at.below(count) as usize].selector;
            let source = one.source().prefixes()[0];
            let to = if index % 2 == 0 { one } else { other };
            let addresses = Addresses {
                is_v4: source.addr().is_ipv4(),
                source: within(source),
                destination: within(to.destination().prefixes()[0]),
            };
            let upper = Upper::Ports { source: at.port(), destination: at.port() };
            Flow { addresses, protocol: 6, upper }
        })
        .collect()
}

/// Nanoseconds for a lookup, and how many flows were found. The flows are looked up in short runs,
/// and the median run counts, so that it does not matter if the machine has other work to do.
fn lookup(compiled: &Compiled, flows: &[Flow], last: u32) -> (f64, usize) {
    const RUN: usize = 1 << 8;
    let mut runs = Vec::new();
    for _ in 0..4 {
        for run in flows.chunks_exact(RUN) {
            let start = Instant::now();
            for flow in run {
                black_box(compiled.outbound(black_box(flow)));
            }
            runs.push(start.elapsed().as_secs_f64() * 1e9 / RUN as f64);
        }
    }
    runs.sort_by(f64::total_cmp);
    let found = |flow: &&Flow| compiled.outbound(flow).policy.is_some_and(|index| index != last);
    (runs[runs.len() / 2], flows.iter().filter(found).count())
}

/// Milliseconds that this thread has run, by the kernel's account.
fn cpu_time() -> f64 {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let run = account.split_whitespace().next().expect("three numbers");
    run.parse::<f64>().expect("nanoseconds") / 1e6
}

fn report(name: &str, mut policies: Vec<Policy>) {
    let flows = flows(&mut Random(3), &policies);
    policies.push(Policy::new(Selector::ANY, Action::Discard));
    let last = u32::try_from(policies.len() - 1).expect("few");
    let spd = Spd { outbound: policies, ..Spd::default() };
    let start = cpu_time();
    let compiled = spd.compile();
    let compile = cpu_time() - start;
    let (all, found) = lookup(&compiled, &flows, last);
    for flow in flows.iter().step_by(10_007) {
        assert_eq!(compiled.outbound(flow), spd.search_outbound(flow));
    }
    let one = Spd { outbound: spd.outbound[last as usize..].to_vec(), ..Spd::default() };
    let (single, _) = lookup(&one.compile(), &flows, 0);
    println!(
        "{name:<20} compile {compile:5.1} ms, lookup {all:5.1} ns ({:4.1} %), one {single:.1} ns",
        100.0 * found as f64 / FLOWS as f64,
    );
}

fn main() {
    println!("{POLICIES} policies and a last one for ANY, or that one alone; {FLOWS} flows");
    let random = &mut Random(1);
    report("v4 /24 to /24, ports", networks(random, true, &[24]));
    report("v6 /56 to /56, ports", networks(random, false, &[24]));
    report("v4 hosts, ports", networks(random, true, &[32]));
    report("v4 /8 to /32, ports", networks(random, true, &[8, 12, 16, 20, 22, 24, 28, 32]));
    report("v4 ranges", ranges(random));
    report("ports of one network", ports(random));
}
