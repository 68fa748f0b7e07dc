//! Which SA a packet is for, as the RFCs say it: every SA is looked at, one after the other.

use culvert_aead::Protocol;
use culvert_engine::Bundle;
use culvert_engine::Location;
use culvert_engine::Members;
use culvert_engine::WorkerId;
use culvert_engine::directory::Directory;
use culvert_wire::esp::Outer;

/// RFC 4301 section 4.1: a match of SPI, destination and source first; then one of SPI and
/// destination; then one of the SPI alone.
pub(super) fn inbound(
    directory: &Directory,
    protocol: Protocol,
    outer: &Outer,
) -> Option<Location> {
    let (destination, source) = (Some(outer.destination), Some(outer.source));
    let steps = [(destination, source), (destination, None), (None, None)];
    for (destination, source) in steps {
        for sa in directory.list() {
            let is_same = (sa.protocol, sa.spi) == (protocol, outer.spi);
            if is_same && (sa.destination, sa.source) == (destination, source) {
                return Some(sa.location);
            }
        }
    }
    None
}

/// RFC 9611 section 2: a worker's packets take its own SA, or that for all if it has none. What
/// another worker gave away was for the SA for all, if that is here.
pub(super) fn outbound(members: &Members, worker: WorkerId, handed_over: bool) -> Option<Bundle> {
    let fallback = members.shared;
    if handed_over && fallback.is_some_and(|bundle| bundle.worker == worker) {
        return fallback;
    }
    for own in &members.own {
        if own.worker == worker {
            return Some(*own);
        }
    }
    fallback
}
