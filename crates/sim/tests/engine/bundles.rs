//! SA bundles: AH and ESP on one packet, tunnels in tunnels, in the order that policy asks for.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_esp::Mode;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;

use crate::packets;
use crate::packets::hmac_sha256;
use crate::packets::hop;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::changed;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::through;

/// The group that policies name.
const BUNDLE: Group = Group(90);

/// What is put around packets between the hosts: SAs with groups 0, 1, .., innermost first.
#[derive(Clone)]
pub(crate) struct Nest {
    pub(crate) scenario: Scenario,
    pub(crate) hosts: (IpAddr, IpAddr),
}

/// An SA between the hosts (true) or the gateways, its mode and algorithm.
pub(crate) type Layer = (bool, Mode, Algorithm);

pub(crate) fn nest(layers: &[Layer], six: bool) -> Nest {
    let hosts = [A, B].map(|side| Scenario::host(side, 0, six, 5));
    let tunnels = (0u8..).zip(layers).map(|(index, &(of_hosts, mode, algorithm))| {
        let tunnel = Tunnel::ordinary(index).with_algorithm(algorithm).with_mode(mode);
        let gateways = Tunnel::ordinary(7).with_outer(six).outer;
        Tunnel { outer: if of_hosts { hosts } else { gateways }, ..tunnel }
    });
    Nest { scenario: Scenario::quiet(tunnels.collect()), hosts: (hosts[A], hosts[B]) }
}

impl Nest {
    fn layers(&self) -> u32 {
        u32::try_from(self.scenario.tunnels.len()).unwrap()
    }

    /// What a gateway has to know: the bundle, that inbound SAs are nested so, and one policy each
    /// way. Inbound the policy names the innermost SA, which comes last.
    pub(crate) fn configure(&self, config: &mut GatewayConfig) {
        let groups: Vec<Group> = (0..self.layers()).map(Group).collect();
        config.bundles = vec![(BUNDLE, groups)];
        for sa in &mut config.sas {
            let around = sa.group.0 + 1;
            sa.receiving.within = (around < self.layers()).then_some(Group(around));
        }
        let any = |action| vec![Policy::new(Selector::ANY, action)];
        config.spd.outbound = any(Action::Protect(BUNDLE));
        config.spd.inbound = any(Action::Protect(Group(0)));
    }

    pub(crate) fn gateway(&self, side: usize) -> TestGateway {
        changed(&self.scenario, side, |config| self.configure(config))
    }

    pub(crate) fn plain(&self) -> Vec<u8> {
        packet(self.hosts, 17, &packets::udp(self.hosts, 61))
    }
}

/// Sends a few packets from A to B, which must come out as they went in; the first as it is on the
/// wire.
fn check(nest: &Nest) -> Vec<u8> {
    let (mut a, mut b) = (nest.gateway(A), nest.gateway(B));
    let mut first = None;
    for _ in 0..3 {
        let plain = nest.plain();
        let sent = one(&mut a, (A, LAN), &plain);
        assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)));
        first.get_or_insert(sent);
    }
    for sample in b.samples().filter(|sample| sample.inbound) {
        assert_eq!((sample.packets, sample.sequence), (3, 3), "each SA counts");
    }
    first.unwrap()
}

const ESP: Algorithm = Algorithm::NullSha256;
const AH: Algorithm = Algorithm::AhSha256;

/// P28, A08: AH around ESP in transport mode, octet by octet: the ICV of AH covers the ICV of ESP.
#[test]
fn ah_around_esp() {
    let nest = nest(&[(true, Mode::Transport, ESP), (true, Mode::Transport, AH)], false);
    let sent = check(&nest);
    let [inner, outer] = &nest.scenario.tunnels[..] else { unreachable!("two SAs") };
    let segment = packets::udp(nest.hosts, 61);
    let sa = (inner.spi[A].value(), &inner.keymat[A]);
    let esp = null_esp(sa, 1, None, (&segment, 17));
    let mut ah = vec![50, 5, 0, 0];
    ah.extend(outer.spi[A].value().to_be_bytes());
    ah.extend([0, 0, 0, 1]);
    ah.extend([0; 16]);
    let expected = hop(&packet(nest.hosts, 51, &[&ah[..], &esp].concat()));
    let mut covered = expected.clone();
    covered[1] = 0;
    covered[6..9].fill(0);
    covered[10..12].fill(0);
    let icv = hmac_sha256(&outer.keymat[A], &[&covered]);
    let expected = [&expected[..20 + 12], &icv, &expected[20 + 28..]].concat();
    assert_eq!(sent, expected);
}

/// P28: RFC 2401 section 4.5, case 1: end to end, in transport mode AH, ESP, or AH around ESP; in
/// tunnel mode AH or ESP.
#[test]
fn case_1_end_to_end() {
    let (transport, tunnel) = (Mode::Transport, Mode::Tunnel);
    for six in [false, true] {
        check(&nest(&[(true, transport, AH)], six));
        check(&nest(&[(true, transport, ESP)], six));
        check(&nest(&[(true, transport, ESP), (true, transport, AH)], six));
        check(&nest(&[(true, tunnel, AH)], six));
        check(&nest(&[(true, tunnel, ESP)], six));
    }
}

/// C04, C05, P28: congestion that was marked on the outermost header of a bundle is marked on the
/// packet that comes out of its last SA, and one that cannot carry the mark is dropped.
#[test]
fn congestion_comes_through_all_layers() {
    let tos = |packet: &[u8], tos: u8| match packet[0] >> 4 {
        4 => with(packet, 1, &[tos]),
        _ => with(packet, 0, &[0x60 | tos >> 4, tos << 4 | packet[1] & 15]),
    };
    let (transport, tunnel) = (Mode::Transport, Mode::Tunnel);
    for six in [false, true] {
        for layers in [
            vec![(true, transport, ESP), (false, tunnel, ESP)],
            vec![(true, transport, AH), (false, tunnel, AH)],
            vec![(true, tunnel, ESP), (false, tunnel, ESP)],
            vec![(true, tunnel, AH), (false, tunnel, ESP), (false, transport, AH)],
        ] {
            let nest = nest(&layers, six);
            let (mut a, mut b) = (nest.gateway(A), nest.gateway(B));
            let capable = tos(&nest.plain(), 0b10);
            let sent = one(&mut a, (A, LAN), &capable);
            let came = one(&mut b, (B, WAN), &tos(&sent, 0b11));
            assert_eq!(came, tos(&hop(&hop(&capable)), 0b11), "{layers:?}");
            let sent = one(&mut a, (A, LAN), &nest.plain());
            let fate = none(&mut b, (B, WAN), &tos(&sent, 0b11));
            assert_eq!(fate, Fate::Drop(DropReason::Ecn), "{layers:?}");
        }
    }
}

/// P28: case 2: between gateways, a tunnel of AH or of ESP.
#[test]
fn case_2_gateway_to_gateway() {
    for six in [false, true] {
        check(&nest(&[(false, Mode::Tunnel, AH)], six));
        check(&nest(&[(false, Mode::Tunnel, Algorithm::Aes256Gcm16)], six));
    }
}

/// P28: case 3: case 1 inside case 2.
#[test]
fn case_3_both() {
    for six in [false, true] {
        for outer in [ESP, AH, Algorithm::Aes128CbcSha256] {
            let outer = (false, Mode::Tunnel, outer);
            check(&nest(&[(true, Mode::Transport, Algorithm::ChaCha20Poly1305), outer], six));
            check(&nest(&[(true, Mode::Transport, AH), outer], six));
            check(&nest(&[(true, Mode::Transport, ESP), (true, Mode::Transport, AH), outer], six));
        }
    }
}

/// P28: case 4: a host and the gateway before the other one: end to end, in a tunnel of its own;
/// and tunnels in tunnels, four deep.
#[test]
fn case_4_tunnels_in_tunnels() {
    let tunnel = |of_hosts, algorithm| (of_hosts, Mode::Tunnel, algorithm);
    for six in [false, true] {
        check(&nest(&[tunnel(true, Algorithm::Aes128Gcm16), tunnel(false, ESP)], six));
        check(&nest(&[tunnel(true, ESP), tunnel(false, AH)], six));
        check(&nest(&[tunnel(true, AH), tunnel(false, Algorithm::Aes128Gcm16Iiv)], six));
        let four = [tunnel(true, ESP), tunnel(true, AH), tunnel(false, AH), tunnel(false, ESP)];
        check(&nest(&four, six));
    }
}

/// E18, P28: IPv6 extension headers stay in front of both headers of a bundle in transport mode,
/// and hide neither from the receiver.
#[test]
fn extension_headers_before_a_bundle() {
    let nest = nest(&[(true, Mode::Transport, ESP), (true, Mode::Transport, AH)], true);
    let (mut a, mut b) = (nest.gateway(A), nest.gateway(B));
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let routing = |next: u8| [&[next, 2, 4, 0][..], &[0; 20]].concat();
    let udp = packets::udp(nest.hosts, 61);
    for (first, headers) in [
        (0, options(17).to_vec()),
        (43, routing(17)),
        (0, [&options(43)[..], &routing(17)].concat()),
        (60, options(17).to_vec()),
        (0, [&options(60)[..], &options(17)].concat()),
    ] {
        let plain = packet_with(nest.hosts, &headers, first, &udp);
        let sent = one(&mut a, (A, LAN), &plain);
        let received = one(&mut b, (B, WAN), &sent);
        assert_eq!(received, hop(&hop(&plain)), "{first} {headers:?}");
    }
}

/// The first fragment of a packet: 48 octets of what follows its header.
fn first_fragment(packet: &[u8], addresses: (IpAddr, IpAddr)) -> Vec<u8> {
    if addresses.0.is_ipv4() {
        return with(&packet[..20 + 48], 2, &[0, 20 + 48, 0x12, 0x34, 0x20, 0]);
    }
    let header = [packet[6], 0, 0, 1, 0, 0, 0x12, 0x34];
    packet_with(addresses, &header, 44, &packet[40..40 + 48])
}

/// I01, A07: a fragment of ESP or AH that comes out of one SA is never given to another, nor passed
/// on: it is dropped, with an audit record. The whole packet passes.
#[test]
fn fragments_out_of_an_sa() {
    for (six, algorithm, bundled) in [
        (false, ESP, true),
        (false, AH, true),
        (true, ESP, true),
        (true, AH, true),
        (false, ESP, false),
        (true, AH, false),
    ] {
        let inner = (true, Mode::Tunnel, algorithm);
        let nest = nest(&[inner, (false, Mode::Tunnel, ESP)], six);
        let mut inner_only = changed(&nest.scenario, A, |config| {
            nest.configure(config);
            config.bundles[0].1 = vec![Group(0)];
        });
        let mut b = changed(&nest.scenario, B, |config| {
            nest.configure(config);
            if !bundled {
                // What comes out of the outer tunnel may be anything, and is no bundle.
                config.sas.iter_mut().for_each(|sa| sa.receiving.within = None);
                config.spd.inbound = vec![Policy::new(Selector::ANY, Action::Protect(Group(1)))];
            }
        });
        let around = &nest.scenario.tunnels[1];
        let outer = |seq: u32, inner: &[u8]| {
            let next = if six { 41 } else { 4 };
            let sa = (around.spi[A].value(), &around.keymat[A]);
            let esp = null_esp(sa, seq, None, (inner, next));
            packet((around.outer[A], around.outer[B]), 50, &esp)
        };
        let sealed = one(&mut inner_only, (A, LAN), &nest.plain());
        let fragment = outer(1, &first_fragment(&sealed, nest.hosts));
        let fate = none(&mut b, (B, WAN), &fragment);
        assert_eq!(fate, Fate::Drop(DropReason::Fragment), "{six} {algorithm} {bundled}");
        let [Notice::Audit(record)] = notices(&mut b)[..] else { panic!("one record") };
        assert_eq!((record.reason, record.seq), (DropReason::Fragment, Some(1)));
        if bundled {
            assert_eq!(one(&mut b, (B, WAN), &outer(2, &sealed)), hop(&hop(&nest.plain())));
        }
    }
}

/// P28: what lacks an SA of its bundle, or has them in the other order, or has one too many, is
/// dropped, and the right one still passes.
#[test]
fn order_is_enforced() {
    let (esp, ah) = ((true, Mode::Transport, ESP), (true, Mode::Transport, AH));
    let right = nest(&[esp, ah], false);
    let mut b = right.gateway(B);
    let bundle = Fate::Drop(DropReason::Bundle);
    let sender = |groups: &[u32]| {
        changed(&right.scenario, A, |config| {
            right.configure(config);
            config.bundles[0].1 = groups.iter().map(|&group| Group(group)).collect();
        })
    };
    let plain = right.plain();
    let mut inner_only = sender(&[0]);
    let sent = one(&mut inner_only, (A, LAN), &plain);
    assert_eq!(none(&mut b, (B, WAN), &sent), bundle);
    // The outer one alone: nothing of the kind is admitted out of it.
    let mut outer_only = sender(&[1]);
    let sent = one(&mut outer_only, (A, LAN), &plain);
    assert_eq!(none(&mut b, (B, WAN), &sent), Fate::Drop(DropReason::Selector));
    let mut reversed = sender(&[1, 0]);
    let sent = one(&mut reversed, (A, LAN), &plain);
    assert_eq!(sent[9], 50, "ESP is outside");
    assert_eq!(none(&mut b, (B, WAN), &sent), bundle);
    let mut genuine = sender(&[0, 1]);
    // Its first numbers are those that were seen already.
    one(&mut genuine, (A, LAN), &plain);
    let sent = one(&mut genuine, (A, LAN), &plain);
    assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)));
}

/// P28: the packet of a bundle whose inner ICV is wrong is dropped by the inner SA, and counted
/// there; the outer one has accepted its number.
#[test]
fn each_layer_verifies() {
    let nest = nest(&[(true, Mode::Tunnel, ESP), (false, Mode::Tunnel, ESP)], false);
    let (mut a, mut b) = (nest.gateway(A), nest.gateway(B));
    // B's inner SA has another key than A's.
    let mut other = nest.clone();
    other.scenario.tunnels[0].keymat.swap(0, 1);
    let mut stranger = other.gateway(B);
    let sent = one(&mut a, (A, LAN), &nest.plain());
    assert_eq!(none(&mut stranger, (B, WAN), &sent), Fate::Drop(DropReason::Icv));
    for sample in stranger.samples().filter(|sample| sample.inbound) {
        let is_inner = sample.spi == nest.scenario.tunnels[0].spi[A].value();
        assert_eq!(sample.packets, u64::from(!is_inner));
        assert_eq!(sample.dropped[DropReason::Icv as usize], u64::from(is_inner));
    }
    one(&mut b, (B, WAN), &sent);
    assert_eq!(none(&mut b, (B, WAN), &sent), Fate::Drop(DropReason::Replay));
}

/// P28: a tunnel inside a tunnel whose SAs live on different workers: packets move between them.
#[test]
fn nested_on_two_workers() {
    // B alone has two workers and knows no bundle: two tunnels, one of which carries the other.
    let nest = nest(&[(true, Mode::Tunnel, ESP), (false, Mode::Tunnel, ESP)], false);
    let mut a = nest.gateway(A);
    let scenario = Scenario { workers: vec![1, 2], ..nest.scenario.clone() };
    let mut b = changed(&scenario, B, |config| {
        let hosts = |here: IpAddr, there: IpAddr| Selector::between(here.into(), there.into());
        let (source, destination) = nest.hosts;
        let between = Selector::new(
            hosts(source, destination).unwrap().source().clone(),
            hosts(source, destination).unwrap().destination().clone(),
            Some(50),
            Default::default(),
        );
        // ESP between the hosts comes out of the outer tunnel, all else out of the inner one.
        let outer = Policy::new(between.unwrap(), Action::Protect(Group(1)));
        config.spd.inbound = vec![outer, Policy::new(Selector::ANY, Action::Protect(Group(0)))];
    });
    let workers = |b: &TestGateway| -> Vec<usize> {
        let owns = |worker: &usize| b.workers[*worker].samples().any(|sample| sample.inbound);
        (0..2).filter(owns).collect()
    };
    assert_eq!(workers(&b), [0, 1], "one inbound SA each");
    let plain = nest.plain();
    let mut delivered = Vec::new();
    for _ in 0..4 {
        let sent = one(&mut a, (A, LAN), &plain);
        delivered.extend(through(&mut b, (B, WAN), &[&sent]));
        delivered.extend(through(&mut b, (B, WAN), &[]));
        delivered.extend(through(&mut b, (B, WAN), &[]));
    }
    assert_eq!(delivered, vec![hop(&hop(&plain)); 4], "{:?}", b.counters());
    assert!(b.counters().handed_off >= 4 && b.counters().dropped_total() == 0);
}
