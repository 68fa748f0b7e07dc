//! ICMP errors: those about packets of ours (RFC 4301 sections 6.1.1 and 8.2.1), and those that
//! hosts and routers send each other through SAs (section 6.2).

use culvert_aead::Aead;
use culvert_aead::Protocol;
use culvert_spd::Flow;
use culvert_wire::esp::IcmpError;
use culvert_wire::icmp;
use culvert_wire::icmp::Reported;
use culvert_wire::ip;

use crate::fate::DropReason;
use crate::fate::Fate;
use crate::mailbox::Notice;
use crate::options::IcmpKind;
use crate::path_mtu;
use crate::plane::Plane;

/// What an error about a packet is, when that was one of an SA of ours.
pub(crate) enum Received {
    /// It names no SA of ours.
    Foreign,
    /// It is done with.
    Done(Fate),
}

/// Takes in an unauthenticated error. It is believed if it names an SA of ours and a number used a
/// short while ago, and errors of its kind are accepted: then it lowers the path MTU, or control is
/// told of it.
#[cold]
pub(crate) fn received<A: Aead>(plane: &mut Plane<A>, error: &IcmpError) -> Received {
    let implausible = Received::Done(Fate::Drop(DropReason::IcmpError));
    let (Some(spi), Some(seq)) = (error.spi, error.seq) else {
        return Received::Foreign;
    };
    let protocol = if error.protocol == ip::PROTOCOL_AH { Protocol::Ah } else { Protocol::Esp };
    let sender = (protocol, spi, error.destination);
    let Some(&location) = plane.snapshot.senders.get(&sender) else {
        return Received::Foreign;
    };
    if !kind(error.reported).is_some_and(|kind| plane.options.icmp.accepted.has(kind)) {
        return implausible;
    }
    if location.worker != plane.id {
        return Received::Done(Fate::Handoff(location.worker));
    }
    let Some(entry) = plane.outbound.at(location.slot) else {
        return implausible;
    };
    #[expect(clippy::cast_possible_truncation, reason = "the half on the wire")]
    let behind = u64::from((entry.sa.sequence.last() as u32).wrapping_sub(seq));
    let recent = behind < path_mtu::RECENT.min(entry.sa.sequence.last());
    let is_its = entry.sa.spi().value() == spi && entry.protocol == protocol;
    if !recent || !is_its || !entry.sending.trusts_icmp {
        return implausible;
    }
    let slot = location.slot;
    let reason = match error.reported {
        Reported::TooBig { mtu } => match path_mtu::told(mtu, error) {
            Some(mtu) => learn(plane, (slot, spi), mtu, error),
            None => DropReason::IcmpError,
        },
        _ => {
            let (reporter, kind) = (error.reporter, error.kind);
            plane.tell_within(
                |limits| &mut limits.icmp_errors,
                |_| Notice::IcmpError { slot, spi, reporter, kind },
            );
            DropReason::IcmpNoted
        }
    };
    Received::Done(Fate::Drop(reason))
}

fn learn<A: Aead>(
    plane: &mut Plane<A>,
    (slot, spi): (u32, u32),
    mtu: u16,
    error: &IcmpError,
) -> DropReason {
    let now = plane.now;
    let Some(entry) = plane.outbound.at_mut(slot) else {
        return DropReason::IcmpError;
    };
    let link = entry.next_hop.map_or(u16::MAX, |hop| hop.mtu);
    let floor = path_mtu::floor(entry.sending.path_mtu_floor, error.destination);
    if entry.path_mtu.learn(mtu.max(floor), link, now) {
        entry.set_mtu();
        let mtu = entry.path_mtu.learned();
        plane.tell(Notice::PathMtu { slot, spi, mtu });
    }
    DropReason::PathMtu
}

/// The kind by which errors are accepted; none for those that are never.
fn kind(reported: Reported) -> Option<IcmpKind> {
    match reported {
        Reported::TooBig { .. } => Some(IcmpKind::PacketTooBig),
        Reported::Unreachable => Some(IcmpKind::DestinationUnreachable),
        Reported::TimeExceeded => Some(IcmpKind::TimeExceeded),
        Reported::ParameterProblem => Some(IcmpKind::ParameterProblem),
        Reported::SourceQuench => None,
    }
}

/// What would answer the packet that an ICMP error encloses: its flow, addresses and ports
/// exchanged (RFC 4301 section 6.2). None when `packet` is no such error, or is not to the source
/// of the packet that it encloses, as every error is (RFC 792, RFC 4443 section 2.2): what it
/// encloses would say nothing about where it goes.
#[cold]
pub(crate) fn return_flow(packet: &[u8], parsed: &ip::Packet) -> Option<Flow> {
    let enclosed = icmp::enclosed(packet, parsed)?;
    if enclosed.packet.source() != parsed.destination() {
        return None;
    }
    Some(Flow::of(&packet[enclosed.at..enclosed.end], &enclosed.packet).reversed())
}
