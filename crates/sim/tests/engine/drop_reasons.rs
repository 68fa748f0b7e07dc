//! One test for each reason to drop a packet. Each shows the packet dropped for that reason, for no
//! other, and a well-formed one beside it that is not.

use std::net::IpAddr;

use culvert_aead::Aead;
use culvert_aead::Audit;
use culvert_engine::Change;
use culvert_engine::Command;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::Event;
use culvert_engine::Handoff;
use culvert_engine::Location;
use culvert_engine::Members;
use culvert_engine::NextHops;
use culvert_engine::Options;
use culvert_engine::OutboundEntry;
use culvert_engine::Worker;
use culvert_engine::WorkerConfig;
use culvert_engine::WorkerId;
use culvert_engine::hold::HELD_NS_MAX;
use culvert_engine::hold::HELD_PER_TARGET_MAX;
use culvert_engine::mailbox::mailbox;
use culvert_engine::next_hop::Route;
use culvert_engine::reassembly;
use culvert_engine::reassembly::DATAGRAMS_MAX;
use culvert_esp::Layout;
use culvert_esp::Lifetime;
use culvert_esp::Mode;
use culvert_esp::OutboundSa;
use culvert_esp::Template;
use culvert_esp::lifetime::Limits;
use culvert_esp::lifetime::Usage;
use culvert_frame::FRAME_SIZE;
use culvert_frame::HEADROOM;
use culvert_frame::MemIo;
use culvert_frame::SlabBox;
use culvert_sim::gateway::Room;
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
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_wire::ip;
use culvert_wire::ipv4;

use crate::support::A;
use crate::support::B;
use crate::support::KNOWN;
use crate::support::TestGateway;
use crate::support::assert_dropped_only;
use crate::support::assert_frames_conserved;
use crate::support::encapsulate;
use crate::support::from_host;
use crate::support::from_wire;
use crate::support::gateway;
use crate::support::gateway_with;
use crate::support::on_wire;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::sealed;
use crate::support::text;
use crate::support::turn;
use crate::support::turn_all;

/// Makes a test of each function, and sees to it that no reason is left out.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $reason:ident, $count:literal;)*) => {
        mod each {
            use super::*;

            $($(#[$doc])*
            #[test]
            fn $name() {
                assert_dropped_only(&super::$name(), DropReason::$reason, $count);
            })*
        }

        /// Every reason there is has its test.
        #[test]
        fn none_is_left_out() {
            assert_eq!(DropReason::ALL, [$(DropReason::$reason),*]);
        }
    };
}

reasons! {
    /// Headers that contradict themselves, on either side.
    malformed => Malformed, 2;
    /// Frames for other stations, on either side.
    other_host => OtherHost, 2;
    /// U07: a datagram to port 4500 too short for ESP that is no keepalive.
    runt => Runt, 1;
    /// U05: a NAT keepalive.
    keepalive => Keepalive, 1;
    /// I03: an SPI nobody has, and one of ours at another address.
    no_sa => NoSa, 2;
    /// ESP too short for IV and ICV, or not a multiple of 4 octets.
    truncated => Truncated, 2;
    /// E17: a fragment for a transport mode SA.
    fragment => Fragment, 1;
    /// I05, I10: a number seen before, one left of the window, and zero.
    replay => Replay, 3;
    /// I06, I12: one flipped bit in header, IV, text and ICV each.
    icv => Icv, 4;
    /// I14: a pad length beyond the text, from a peer who has the key.
    trailer => Trailer, 1;
    /// I13: padding that is not 1, 2, 3.
    padding => Padding, 1;
    /// I15: a dummy packet.
    dummy => Dummy, 1;
    /// I23: TCP directly inside a tunnel SA.
    next_header => NextHeader, 1;
    /// Octets that are no IP packet, and a packet of the other family.
    inner_malformed => InnerMalformed, 2;
    /// P09: an authentic packet whose source is not one of the SA's.
    selector => Selector, 1;
    /// P28: the inner SA of a bundle, without the outer one.
    bundle => Bundle, 1;
    /// P28: a tunnel in a tunnel in a tunnel, and so on.
    nesting => Nesting, 1;
    /// P11: in clear what policy protects.
    plaintext => Plaintext, 1;
    /// C04: congestion marked outside on a packet that cannot carry it.
    ecn => Ecn, 1;
    /// P19: TTLs of 0 and 1 outbound, and of 1 inbound.
    ttl => Ttl, 3;
    /// P03: no policy matches.
    no_policy => NoPolicy, 1;
    /// P02: the policy says DISCARD.
    discard => Discard, 1;
    /// The policy names a group without an SA.
    no_outbound_sa => NoOutboundSa, 1;
    /// P15, P17: the hard limit is reached, in packets.
    expired => Expired, 2;
    /// E03: the last number is used.
    sequence_exhausted => SequenceExhausted, 1;
    /// The lease is used up, and control knew in time.
    sequence_lease => SequenceLease, 1;
    /// The ESP packet would be larger than the link takes.
    too_big => TooBig, 1;
    /// The frame has no room for the trailer.
    no_room => NoRoom, 1;
    /// No frame for fragments.
    no_frame => NoFrame, 1;
    /// I02: fragments that overlap: both the new one and the one before it.
    reassembly => Reassembly, 2;
    /// I02: more packets in fragments than the table holds.
    reassembly_full => ReassemblyFull, 1;
    /// I01: a fragment alone is never decrypted.
    reassembly_timeout => ReassemblyTimeout, 1;
    /// P23: the path to the peer carries less.
    path_mtu => PathMtu, 1;
    /// P24: an error about a packet that was never sent, and one about nothing known.
    icmp_error => IcmpError, 2;
    /// P24: an error that says that the peer is not reachable.
    icmp_noted => IcmpNoted, 1;
    /// P25: an error from the protected side about a packet that no SA answers.
    icmp_unmapped => IcmpUnmapped, 1;
    /// No route to the tunnel endpoint, or to the host.
    no_route => NoRoute, 2;
    /// A decrypted packet would leave in clear.
    wrong_side => WrongSide, 1;
    /// A decrypted packet is for the gateway itself.
    local => Local, 1;
    /// More packets wait for a neighbour than may.
    hold_full => HoldFull, 1;
    /// A neighbour did not answer.
    hold_timeout => HoldTimeout, 2;
    /// The ring to the owner of the SA is full.
    handoff_full => HandoffFull, 2;
    /// The port takes no more.
    tx_full => TxFull, 2;
}

/// A well-formed packet of B's number `id` for A's worker.
fn good(id: u64) -> Vec<u8> {
    from_host(A, &plain(A, false, id))
}

/// The IP packet of an ordinary plaintext from A to B, as B finds it after decryption.
fn inner(id: u64) -> Vec<u8> {
    plain(A, false, id).packet()
}

/// What B counts when it gets frames from the wire.
fn received(scenario: &Scenario, frames: &[Vec<u8>]) -> Counters {
    let mut b = gateway(scenario, B);
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    turn(&mut b, 0, WAN, &frames);
    b.counters()
}

/// What A counts when it gets frames from its hosts.
fn sent(scenario: &Scenario, frames: &[Vec<u8>]) -> Counters {
    let mut a = gateway(scenario, A);
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    turn(&mut a, 0, LAN, &frames);
    a.counters()
}

/// One forwarded beside what was dropped.
#[track_caller]
fn one_forwarded(counters: Counters) -> Counters {
    assert_eq!(counters.forwarded, 1, "{counters:?}");
    counters
}

fn malformed() -> Counters {
    let scenario = ordinary();
    let mut bad = good(1);
    bad[14 + 9] ^= 1;
    let outbound = one_forwarded(sent(&scenario, &[bad, good(2)]));
    let mut bad = sealed(&scenario, A, 1, &text(&inner(1), 4));
    bad.truncate(60);
    let good = sealed(&scenario, A, 2, &text(&inner(2), 4));
    outbound.plus(&one_forwarded(received(&scenario, &[bad, good])))
}

fn other_host() -> Counters {
    let scenario = ordinary();
    let stranger = |mut frame: Vec<u8>| {
        frame[5] ^= 1;
        frame
    };
    let outbound = one_forwarded(sent(&scenario, &[stranger(good(1)), good(2)]));
    let esp = |seq| sealed(&scenario, A, seq, &text(&inner(seq), 4));
    outbound.plus(&one_forwarded(received(&scenario, &[stranger(esp(1)), esp(2)])))
}

fn runt() -> Counters {
    let scenario = ordinary();
    let datagram = [0x11, 0x94, 0x11, 0x94, 0, 15, 0, 0, 1, 2, 3, 4, 5, 6, 7];
    received(&scenario, &[from_wire(&scenario, A, ip::PROTOCOL_UDP, &datagram)])
}

fn no_sa() -> Counters {
    let scenario = ordinary();
    let mut stranger = sealed(&scenario, A, 1, &text(&inner(1), 4));
    stranger[14 + 20] ^= 1;
    let mut elsewhere = scenario.clone();
    elsewhere.tunnels[0].outer[B] = IpAddr::from([192, 0, 3, 99]);
    let elsewhere = sealed(&elsewhere, A, 1, &text(&inner(1), 4));
    let good = sealed(&scenario, A, 1, &text(&inner(1), 4));
    one_forwarded(received(&scenario, &[stranger, elsewhere, good]))
}

fn truncated() -> Counters {
    let scenario = ordinary();
    let spi = scenario.tunnels[0].spi[A].value().to_be_bytes();
    let esp = |len: usize| {
        let mut packet = vec![0; len];
        packet[..4].copy_from_slice(&spi);
        packet[7] = 1;
        from_wire(&scenario, A, ip::PROTOCOL_ESP, &packet)
    };
    received(&scenario, &[esp(32), esp(101)])
}

fn replay() -> Counters {
    let scenario = ordinary();
    let esp = |seq| sealed(&scenario, A, seq, &text(&inner(seq), 4));
    let counters = received(&scenario, &[esp(1), esp(2000), esp(2000), esp(976), esp(977), esp(0)]);
    assert_eq!(counters.forwarded, 3, "the window is 1024 packets: 977 lies inside");
    counters
}

fn icv() -> Counters {
    let scenario = ordinary();
    let esp = sealed(&scenario, A, 7, &text(&inner(1), 4));
    let flipped = |at: usize| {
        let mut frame = esp.clone();
        frame[at] ^= 0x10;
        frame
    };
    // I07: not even the number that was made larger moves the window.
    let esp_at = 14 + 20;
    let frames = [esp_at + 4, esp_at + 15, esp_at + 40, esp.len() - 1].map(flipped);
    one_forwarded(received(&scenario, &[&frames[..], &[esp]].concat()))
}

fn trailer() -> Counters {
    let scenario = ordinary();
    received(&scenario, &[sealed(&scenario, A, 1, &[0, 0, 3, 4])])
}

fn padding() -> Counters {
    let scenario = ordinary();
    let mut text = text(&inner(1), 4);
    let at = text.len() - 2;
    text.splice(at.., [1, 2, 4, 5, 4, 4]);
    received(&scenario, &[sealed(&scenario, A, 1, &text)])
}

fn dummy() -> Counters {
    let scenario = ordinary();
    let dummy = sealed(&scenario, A, 1, &text(&inner(1), ip::PROTOCOL_NO_NEXT));
    let mut b = gateway(&scenario, B);
    turn(&mut b, 0, WAN, &[&dummy]);
    let sample = b.samples().find(|sample| sample.inbound).unwrap();
    assert_eq!((sample.packets, sample.sequence), (1, 1), "it counts for the window");
    b.counters()
}

fn next_header() -> Counters {
    let scenario = ordinary();
    received(&scenario, &[sealed(&scenario, A, 1, &text(&inner(1), ip::PROTOCOL_TCP))])
}

fn inner_malformed() -> Counters {
    let scenario = ordinary();
    let mut bad = inner(1);
    bad[8] ^= 1;
    let bad = sealed(&scenario, A, 1, &text(&bad, ip::PROTOCOL_IPIP));
    let other = sealed(&scenario, A, 2, &text(&inner(1), ip::PROTOCOL_IPV6));
    received(&scenario, &[bad, other])
}

fn selector() -> Counters {
    let scenario = ordinary();
    let stranger = Plain { source: Scenario::foreign_host(A, false), ..plain(A, false, 1) };
    let frames = [
        sealed(&scenario, A, 1, &text(&stranger.packet(), ip::PROTOCOL_IPIP)),
        sealed(&scenario, A, 2, &text(&inner(2), ip::PROTOCOL_IPIP)),
    ];
    one_forwarded(received(&scenario, &frames))
}

fn ecn() -> Counters {
    let scenario = ordinary();
    let capable = Plain { tos: 2, ..plain(A, false, 2) }.packet();
    let marked = |mut frame: Vec<u8>| {
        ipv4::set_tos(&mut frame[14..], 3);
        frame
    };
    let frames = [
        marked(sealed(&scenario, A, 1, &text(&inner(1), ip::PROTOCOL_IPIP))),
        marked(sealed(&scenario, A, 2, &text(&capable, ip::PROTOCOL_IPIP))),
    ];
    one_forwarded(received(&scenario, &frames))
}

fn ttl() -> Counters {
    let scenario = ordinary();
    let with = |ttl, id| Plain { ttl, ..plain(A, false, id) };
    let frames = [0, 1, 2].map(|ttl| from_host(A, &with(ttl, 1)));
    let outbound = one_forwarded(sent(&scenario, &frames));
    let esp = |ttl, seq| sealed(&scenario, A, seq, &text(&with(ttl, seq).packet(), 4));
    outbound.plus(&one_forwarded(received(&scenario, &[esp(1, 1), esp(2, 2)])))
}

fn to(destination: [u8; 4]) -> Vec<u8> {
    let destination = destination.into();
    from_host(A, &Plain { destination, ..plain(A, false, 1) })
}

fn no_policy() -> Counters {
    one_forwarded(sent(&ordinary(), &[to([192, 0, 2, 200]), good(2)]))
}

fn discard() -> Counters {
    one_forwarded(sent(&ordinary(), &[to([203, 0, 113, 9]), good(2)]))
}

fn no_outbound_sa() -> Counters {
    let scenario = ordinary();
    let next_hops = scenario.next_hops(A, KNOWN);
    let mut a = gateway_with(&scenario, A, next_hops, |config| {
        config.sas.iter_mut().for_each(|sa| sa.group = Group(99));
    });
    turn(&mut a, 0, LAN, &[&good(1)]);
    a.counters()
}

fn keepalive() -> Counters {
    let datagram = [&[0x11, 0x94, 0x11, 0x94, 0, 9, 0, 0][..], &[0xff]].concat();
    let keepalive = from_wire(&ordinary(), A, ip::PROTOCOL_UDP, &datagram);
    one_forwarded(received(&ordinary(), &[keepalive, good_esp(1)]))
}

/// A scenario whose tunnel endpoints are hosts behind the gateways, and its SA in transport mode.
fn transport(side: usize) -> TestGateway {
    let scenario = between_hosts();
    gateway_with(&scenario, side, scenario.next_hops(side, KNOWN), |config| {
        config.sas.iter_mut().for_each(|sa| sa.mode = Mode::Transport);
    })
}

fn between_hosts() -> Scenario {
    let outer = [A, B].map(|side| Scenario::host(side, 0, false, 5));
    Scenario::quiet(vec![Tunnel { outer, ..Tunnel::ordinary(0) }])
}

fn fragment() -> Counters {
    let mut fragment = good(1);
    fragment[14 + 6] |= 0x20;
    right_checksum(&mut fragment[14..34]);
    let mut a = transport(A);
    assert_eq!(turn(&mut a, 0, LAN, &[&fragment, &good(2)]).len(), 1);
    a.counters()
}

fn right_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = culvert_wire::checksum::internet(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn bundle() -> Counters {
    let scenario = Scenario::quiet((0..2).map(Tunnel::ordinary).collect());
    let next_hops = scenario.next_hops(B, KNOWN);
    let mut b = gateway_with(&scenario, B, next_hops, |config| {
        config.sas.iter_mut().for_each(|sa| sa.receiving.within = Some(Group(7)));
    });
    let esp = sealed(&scenario, A, 1, &text(&inner(1), 4));
    assert!(turn(&mut b, 0, WAN, &[&esp]).is_empty());
    b.counters()
}

fn nesting() -> Counters {
    let scenario = ordinary();
    let mut b = gateway_with(&scenario, B, scenario.next_hops(B, KNOWN), |config| {
        // Whatever is between the tunnel endpoints may come out of the tunnel.
        let group = Action::Protect(Group(0));
        let all = Selector::between("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
        config.spd.inbound.insert(0, Policy::new(all.unwrap(), group));
    });
    let mut frame = sealed(&scenario, A, 1, &text(&inner(1), 4));
    for seq in 2..8 {
        frame = sealed(&scenario, A, seq, &text(&frame[14..], 4));
    }
    assert!(turn(&mut b, 0, WAN, &[&frame]).is_empty());
    // Three are no problem.
    let three = (9..11).fold(sealed(&scenario, A, 8, &text(&inner(1), 4)), |frame, seq| {
        sealed(&scenario, A, seq, &text(&frame[14..], 4))
    });
    assert_eq!(turn(&mut b, 0, WAN, &[&three]).len(), 1);
    b.counters()
}

fn plaintext() -> Counters {
    let in_clear = on_wire(A, &inner(1));
    one_forwarded(received(&ordinary(), &[in_clear, good_esp(1)]))
}

fn good_esp(seq: u64) -> Vec<u8> {
    sealed(&ordinary(), A, seq, &text(&inner(seq), 4))
}

fn expired() -> Counters {
    let limits = |packets| Limits { packets: Some(packets), ..Limits::default() };
    let lifetime = Lifetime::new(limits(1), limits(2)).unwrap();
    let scenario = ordinary();
    let with = |side| {
        gateway_with(&scenario, side, scenario.next_hops(side, KNOWN), |config| {
            config.sas.iter_mut().for_each(|sa| sa.lifetime = lifetime);
        })
    };
    let mut a = with(A);
    for (id, sent) in [(1, 1), (2, 1), (3, 0)] {
        assert_eq!(turn(&mut a, 0, LAN, &[&good(id)]).len(), sent, "packet {id}");
    }
    let mut b = with(B);
    let forged = {
        let mut esp = good_esp(9);
        *esp.last_mut().unwrap() ^= 1;
        esp
    };
    // What is forged wears nothing out.
    for frame in [&forged, &forged, &forged] {
        assert!(turn(&mut b, 0, WAN, &[frame]).is_empty());
    }
    for (seq, delivered) in [(1, 1), (2, 1), (3, 0)] {
        assert_eq!(turn(&mut b, 0, WAN, &[&good_esp(seq)]).len(), delivered, "packet {seq}");
    }
    let mut counters = a.counters().plus(&b.counters());
    counters.dropped[DropReason::Icv as usize] -= 3;
    counters
}

fn large(id: u64) -> Vec<u8> {
    from_host(A, &Plain { payload_len: 1472, dont_fragment: false, ..plain(A, false, id) })
}

fn no_frame() -> Counters {
    let scenario = Scenario { frames: 2, ..ordinary() };
    let mut a = gateway(&scenario, A);
    // The packet has one of the two frames, and its two fragments need as many.
    assert!(turn(&mut a, 0, LAN, &[&large(1)]).is_empty());
    assert_eq!(a.counters().split, 0);
    a.counters()
}

/// The fragments of an ESP packet with number `seq`, cut after 600 octets of payload.
fn fragments(seq: u64) -> [Vec<u8>; 2] {
    let payload_len = 1000;
    let packet = Plain { payload_len, ..plain(A, false, seq) }.packet();
    let whole = sealed(&ordinary(), A, seq, &text(&packet, 4));
    let piece = |range: std::ops::Range<usize>, more: bool| {
        let mut piece = whole[..34].to_vec();
        piece.extend(&whole[34 + range.start..34 + range.end]);
        let total = u16::try_from(piece.len() - 14).unwrap();
        piece[16..18].copy_from_slice(&total.to_be_bytes());
        piece[18..20].copy_from_slice(&u16::try_from(seq).unwrap().to_be_bytes());
        let offset = u16::try_from(range.start / 8).unwrap() | if more { 0x2000 } else { 0 };
        piece[20..22].copy_from_slice(&offset.to_be_bytes());
        right_checksum(&mut piece[14..34]);
        piece
    };
    [piece(0..600, true), piece(600..whole.len() - 34, false)]
}

fn reassembly() -> Counters {
    let mut b = gateway(&ordinary(), B);
    let [first, _] = fragments(1);
    let mut overlapping = first.clone();
    overlapping[20..22].copy_from_slice(&0x2001u16.to_be_bytes());
    right_checksum(&mut overlapping[14..34]);
    assert!(turn(&mut b, 0, WAN, &[&first, &overlapping]).is_empty());
    let [first, last] = fragments(2);
    assert_eq!(turn(&mut b, 0, WAN, &[&last, &first]).len(), 1, "in any order");
    b.counters()
}

fn reassembly_full() -> Counters {
    let mut b = gateway(&ordinary(), B);
    for seq in 1..=DATAGRAMS_MAX as u64 + 1 {
        assert!(turn(&mut b, 0, WAN, &[&fragments(seq)[0]]).is_empty());
    }
    // All but the first are still waited for.
    for seq in 2..=DATAGRAMS_MAX as u64 + 1 {
        assert_eq!(turn(&mut b, 0, WAN, &[&fragments(seq)[1]]).len(), 1, "packet {seq}");
    }
    b.counters()
}

fn reassembly_timeout() -> Counters {
    let scenario = ordinary();
    let mut b = gateway(&scenario, B);
    assert!(turn(&mut b, 0, WAN, &[&fragments(1)[0]]).is_empty());
    assert_eq!(b.counters().reassembling, 1);
    turn_all(&mut b, reassembly::AGE_NS - 1);
    assert_eq!(b.counters().dropped_total(), 0);
    turn_all(&mut b, 2 * reassembly::AGE_NS);
    assert_frames_conserved(&mut b, &scenario);
    b.counters()
}

/// An ICMP error, fragmentation needed, about the packet of tunnel 0 with this number.
fn needs_fragmentation(a: &mut TestGateway, mtu: u16, seq: u32) -> Vec<Vec<u8>> {
    outer_error(a, [3, 4], mtu, seq)
}

/// An ICMP error about the packet of tunnel 0 with this number.
fn outer_error(a: &mut TestGateway, kind: [u8; 2], mtu: u16, seq: u32) -> Vec<Vec<u8>> {
    let scenario = ordinary();
    let outer = scenario.tunnels[0].outer;
    let mut esp = scenario.tunnels[0].spi[A].value().to_be_bytes().to_vec();
    esp.extend(seq.to_be_bytes());
    let about = ip_packet(outer[A], outer[B], ip::PROTOCOL_ESP, &[&esp[..], &[0; 100]].concat());
    let mut icmp = vec![kind[0], kind[1], 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&about[..28]);
    let sum = culvert_wire::checksum::internet(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let error = ip_packet([192, 0, 2, 254].into(), outer[A], ip::PROTOCOL_ICMP, &icmp);
    let (to, from) = (gateway_mac(A, WAN), gateway_mac(B, WAN));
    turn(a, 0, WAN, &[&link_frame(to, from, None, 0x0800, &error)])
}

fn path_mtu() -> Counters {
    let mut a = gateway(&ordinary(), A);
    let packet = Plain { payload_len: 1300, dont_fragment: false, ..plain(A, false, 1) };
    let frame = from_host(A, &packet);
    assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), 1);
    assert!(needs_fragmentation(&mut a, 1000, 1).is_empty());
    let sent = turn(&mut a, 0, LAN, &[&frame]);
    assert_eq!(sent.len(), 2, "it is fragmented before ESP now");
    assert!(sent.iter().all(|frame| frame.len() <= 14 + 1000));
    a.counters()
}

fn icmp_error() -> Counters {
    let mut a = gateway(&ordinary(), A);
    let packet = Plain { payload_len: 1300, dont_fragment: false, ..plain(A, false, 1) };
    let frame = from_host(A, &packet);
    assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), 1);
    needs_fragmentation(&mut a, 1000, 2);
    needs_fragmentation(&mut a, 1000, 0);
    assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), 1, "it is not believed");
    a.counters()
}

fn icmp_noted() -> Counters {
    let mut a = gateway(&ordinary(), A);
    let frame = from_host(A, &plain(A, false, 1));
    assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), 1);
    assert!(outer_error(&mut a, [3, 1], 0, 1).is_empty());
    assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), 1, "nothing changes");
    a.counters()
}

fn icmp_unmapped() -> Counters {
    let mut a = gateway(&ordinary(), A);
    let (near, far) = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
    let error = |about: &[u8]| {
        let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
        icmp.extend(&about[..28]);
        let sum = culvert_wire::checksum::internet(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = ip_packet([172, 16, 0, 1].into(), far, ip::PROTOCOL_ICMP, &icmp);
        let (to, from) = (gateway_mac(A, LAN), host_mac(A));
        link_frame(to, from, None, 0x0800, &packet)
    };
    let ours = error(&ip_packet(far, near, ip::PROTOCOL_UDP, &[7; 20]));
    let others = error(&ip_packet(far, [172, 16, 0, 2].into(), ip::PROTOCOL_UDP, &[7; 20]));
    assert_eq!(turn(&mut a, 0, LAN, &[&ours, &others]).len(), 1);
    a.counters()
}

fn sequence_exhausted() -> Counters {
    let mut scenario = ordinary();
    scenario.tunnels[0].start[A] = u64::from(u32::MAX) - 1;
    one_forwarded(sent(&scenario, &[good(1), good(2)]))
}

/// Control leases millions of numbers; here is a worker with a lease of two.
fn sequence_lease() -> Counters {
    let scenario = ordinary();
    let config = scenario.gateway(A);
    let sa = &config.sas[0];
    let aead = Audit::new(provider());
    let key = aead.key(sa.algorithm, &sa.keymat).unwrap();
    let template = Template::new(sa.source, sa.destination, None).unwrap();
    let layout = Layout::of(sa.algorithm);
    let usage = Usage::new(sa.lifetime, 0);
    let mut sa = OutboundSa::new(sa.spi, false, 0, layout, key, template, usage);
    sa.sequence.set_ceiling(2);
    let members = Members::shared(Location { worker: WorkerId(0), slot: 0 });
    let changes =
        vec![Change::Group(Group(0), Some(members)), Change::Policies(config.spd.compile().into())];
    let (worker_end, control) = mailbox(16);
    let config = WorkerConfig {
        id: WorkerId(0),
        ports: config.ports,
        slots: 1,
        options: Options::default(),
    };
    let handoffs = [Handoff::none(), Handoff::none()];
    let [inbound, outbound] = handoffs;
    let mut worker = Worker::new(&config, aead, MemIo::new(8), worker_end, inbound, outbound);
    let next_hops = scenario.next_hops(A, KNOWN);
    let commands = [
        Command::Outbound(0, Some(SlabBox::new(OutboundEntry::new(sa, 1)))),
        Command::NextHops(next_hops.into()),
        Command::Change(changes),
    ];
    commands.into_iter().for_each(|command| assert!(control.send(command).is_ok()));
    (1..=3).for_each(|id| assert!(worker.io_mut().inject(LAN, &good(id))));
    worker.turn(0);
    assert_eq!(worker.counters().forwarded, 2);
    let events: Vec<_> = std::iter::from_fn(|| control.event()).collect();
    let low = events.iter().filter(|event| matches!(event, Event::LeaseLow { slot: 0, .. }));
    assert_eq!(low.count(), 1, "control is asked once");
    let dropped = *worker.counters();
    // With the next lease it goes on, with the next number.
    assert!(control.send(Command::Lease { slot: 0, ceiling: 3 }).is_ok());
    assert!(worker.io_mut().inject(LAN, &good(4)));
    worker.turn(0);
    assert_eq!(worker.last_verdicts()[0].seq, Some(3));
    dropped
}

fn too_big() -> Counters {
    let with = |payload_len| from_host(A, &Plain { payload_len, ..plain(A, false, 1) });
    // 20 outer, 16 ESP, 28 inner, 1418 payload, 2 trailer, 16 ICV: exactly 1500.
    one_forwarded(sent(&ordinary(), &[with(1418), with(1419)]))
}

fn no_room() -> Counters {
    let scenario = Scenario { wan_mtu: 9000, ..ordinary() };
    let frame_len = FRAME_SIZE - HEADROOM;
    let with = |len: usize| {
        let payload_len = len - 14 - 28;
        from_host(A, &Plain { payload_len, ..plain(A, false, 1) })
    };
    // The longest frame that fits is the one a port may deliver.
    let longest = culvert_frame::MAX_LINK_FRAME;
    one_forwarded(sent(&scenario, &[with(longest), with(frame_len)]))
}

fn no_route() -> Counters {
    let scenario = ordinary();
    let mut a = gateway_with(&scenario, A, NextHops::default(), |_| {});
    turn(&mut a, 0, LAN, &[&good(1)]);
    let mut b = gateway_with(&scenario, B, NextHops::default(), |_| {});
    turn(&mut b, 0, WAN, &[&sealed(&scenario, A, 1, &text(&inner(1), 4))]);
    a.counters().plus(&b.counters())
}

/// What B counts when the inner destination has another route than out of its LAN.
fn with_route(route: Route) -> Counters {
    let scenario = ordinary();
    let mut next_hops = scenario.next_hops(B, KNOWN);
    let destination = plain(A, false, 1).destination;
    next_hops.insert_route(destination.into(), route);
    let mut b = gateway_with(&scenario, B, next_hops, |_| {});
    turn(&mut b, 0, WAN, &[&sealed(&scenario, A, 1, &text(&inner(1), 4))]);
    b.counters()
}

fn wrong_side() -> Counters {
    // Interface 2 is the wire; its router is known.
    let gateway = Some(IpAddr::from([192, 0, 2, 254]));
    with_route(Route::Via { interface: 2, gateway })
}

fn local() -> Counters {
    with_route(Route::Local)
}

fn hold_full() -> Counters {
    let scenario = ordinary();
    let mut a = gateway_with(&scenario, A, scenario.next_hops(A, [false; 4]), |_| {});
    let frames: Vec<_> = (0..=HELD_PER_TARGET_MAX as u64).map(good).collect();
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    assert!(turn(&mut a, 0, LAN, &frames).is_empty());
    assert_eq!(a.workers[0].held(), HELD_PER_TARGET_MAX);
    a.counters()
}

fn hold_timeout() -> Counters {
    let scenario = ordinary();
    let mut a = gateway_with(&scenario, A, scenario.next_hops(A, [false; 4]), |_| {});
    turn(&mut a, 0, LAN, &[&good(1), &good(2)]);
    assert!(turn_all(&mut a, HELD_NS_MAX - 1).is_empty());
    assert_eq!((a.workers[0].held(), a.counters().dropped_total()), (2, 0));
    turn_all(&mut a, HELD_NS_MAX);
    assert_eq!(a.workers[0].held(), 0);
    a.counters()
}

fn handoff_full() -> Counters {
    let scenario = Scenario {
        workers: vec![2; 2],
        room: Room { handoff: 1, ..Room::default() },
        ..ordinary()
    };
    let mut a = gateway(&scenario, A);
    // Placement begins with worker 0, so worker 1 owns nothing.
    assert_eq!(a.workers[1].samples().count(), 0);
    turn(&mut a, 1, LAN, &[&good(1), &good(2), &good(3)]);
    turn_all(&mut a, 0);
    one_forwarded(a.counters())
}

fn tx_full() -> Counters {
    let scenario = ordinary();
    let mut a = gateway(&scenario, A);
    a.workers[0].io_mut().limit_sends(1);
    let sent = turn(&mut a, 0, LAN, &[&good(1), &good(2), &good(3)]);
    assert_eq!(sent.len(), 1);
    a.workers[0].io_mut().limit_sends(usize::MAX);
    // Numbers of packets that were not sent are gaps.
    let next = encapsulate(&mut a, A, &plain(A, false, 4));
    assert_eq!(next[14 + 20 + 7], 4);
    assert_eq!(a.counters().forwarded, 2);
    a.counters()
}

/// I16: what follows the inner packet is traffic flow padding, and no reason to drop anything.
#[test]
fn traffic_flow_padding_is_ignored() {
    let scenario = ordinary();
    let packet = inner(1);
    let padded = [&packet[..], &[0xaa; 200]].concat();
    let mut b = gateway(&scenario, B);
    let frame = sealed(&scenario, A, 1, &text(&padded, ip::PROTOCOL_IPIP));
    let delivered = turn(&mut b, 0, WAN, &[&frame]);
    let mut expected = packet;
    ipv4::decrement_ttl(&mut expected);
    let expected = link_frame(host_mac(B), gateway_mac(B, LAN), None, 0x0800, &expected);
    assert_eq!(delivered, [expected]);
}

/// Each SA counts its own drops.
#[test]
fn drops_are_counted_for_their_sa() {
    let tunnels = (0..2).map(Tunnel::ordinary).collect();
    let scenario = Scenario::quiet(tunnels);
    let mut b = gateway(&scenario, B);
    let mut forged = sealed(&scenario, A, 1, &text(&inner(1), 4));
    *forged.last_mut().unwrap() ^= 1;
    turn(&mut b, 0, WAN, &[&forged, &forged, &on_wire(A, &inner(1))]);
    for sample in b.samples() {
        let hit = sample.inbound && sample.spi == scenario.tunnels[0].spi[A].value();
        let expected = if hit { 2 } else { 0 };
        assert_eq!(sample.dropped[DropReason::Icv as usize], expected);
        assert_eq!(sample.dropped.iter().sum::<u64>(), expected);
    }
    let plaintext = b.counters().dropped(DropReason::Plaintext);
    assert_eq!(plaintext, 1, "what came in clear concerns no SA");
}
