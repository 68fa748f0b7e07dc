//! SAs that succeed each other, as strongSwan and Libreswan do it.

use culvert_control::Direction as Way;
use culvert_xfrm::Body;
use culvert_xfrm::sa::SaInfo;

use crate::lab::*;
use crate::plane::Call;

/// A tunnel with these SPIs, inbound and outbound.
fn tunnel(inbound: u32, outbound: u32) -> Lab {
    let mut lab = Lab::new();
    lab.ok(allocate(info(IN, inbound)));
    lab.ok(update(info(IN, inbound), 1));
    lab.ok(new(info(OUT, outbound), 2));
    tunnel_policies(&mut lab);
    assert_eq!(lab.sends(&packet()), Some(outbound));
    lab
}

/// What is sent with and what is accepted.
fn state(lab: &Lab) -> (Option<u32>, Vec<u32>) {
    (lab.sends(&packet()), lab.plane.spis(Way::Inbound))
}

/// U12, U13: The side that asks: its new inbound SA accepts before the peer can use it, and the old
/// one until it is deleted; it sends with the new SA as soon as that is there.
#[test]
fn the_initiator_rekeys() {
    let mut lab = tunnel(0x1000, 0x2000);
    lab.ok(allocate(info(IN, 0x1001)));
    assert_eq!(state(&lab), (Some(0x2000), vec![0x1000]));
    lab.ok(update(info(IN, 0x1001), 3));
    assert_eq!(state(&lab), (Some(0x2000), vec![0x1000, 0x1001]));
    lab.ok(new(info(OUT, 0x2001), 4));
    assert_eq!(state(&lab), (Some(0x2001), vec![0x1000, 0x1001]));
    tunnel_policies(&mut lab);
    lab.calls();
    lab.ok(delete(&info(OUT, 0x2000)));
    assert_eq!(state(&lab), (Some(0x2001), vec![0x1000, 0x1001]));
    assert!(!lab.calls().contains(&Call::Policies), "policies stay as they are");
    lab.ok(delete(&info(IN, 0x1000)));
    assert_eq!(state(&lab), (Some(0x2001), vec![0x1001]));
    assert_eq!((lab.count(), lab.plane.specs.len()), (2, 2));
}

/// U13: The side that is asked installs what it sends with last, when the peer deletes the old SA.
#[test]
fn the_responder_rekeys() {
    let mut lab = tunnel(0x1000, 0x2000);
    lab.ok(allocate(info(IN, 0x1001)));
    lab.ok(update(info(IN, 0x1001), 3));
    assert_eq!(state(&lab), (Some(0x2000), vec![0x1000, 0x1001]));
    lab.ok(new(info(OUT, 0x2001), 4));
    lab.ok(delete(&info(OUT, 0x2000)));
    lab.ok(delete(&info(IN, 0x1000)));
    assert_eq!((state(&lab), lab.count()), ((Some(0x2001), vec![0x1001]), 2));
}

/// Both sides rekey at once; the loser deletes its pair, in whichever order that comes.
#[test]
fn both_rekey_at_once() {
    for keep_first in [true, false] {
        let mut lab = tunnel(0x1000, 0x2000);
        for spi in [1, 2_u32] {
            lab.ok(allocate(info(IN, 0x1000 + spi)));
            lab.ok(update(info(IN, 0x1000 + spi), 3 + spi.to_le_bytes()[0]));
            lab.ok(new(info(OUT, 0x2000 + spi), 7 + spi.to_le_bytes()[0]));
        }
        let (kept, lost) = if keep_first { (1, 2) } else { (2, 1) };
        lab.ok(delete(&info(OUT, 0x2000 + lost)));
        lab.ok(delete(&info(IN, 0x1000 + lost)));
        assert_eq!(lab.sends(&packet()), Some(0x2000 + kept));
        lab.ok(delete(&info(OUT, 0x2000)));
        lab.ok(delete(&info(IN, 0x1000)));
        assert_eq!((state(&lab), lab.count()), ((Some(0x2000 + kept), vec![0x1000 + kept]), 2));
    }
}

/// Many rekeys in a row leave two SAs, and one group that never changes.
#[test]
fn rekeys_leave_nothing_behind() {
    let mut lab = tunnel(0x1000, 0x2000);
    let group = lab.group(&packet());
    for round in 1..200_u32 {
        let octet = round.to_le_bytes()[0];
        lab.ok(allocate(info(IN, 0x1000 + round)));
        lab.ok(update(info(IN, 0x1000 + round), octet));
        lab.ok(new(info(OUT, 0x2000 + round), octet));
        assert_eq!(lab.sends(&packet()), Some(0x2000 + round));
        lab.ok(delete(&info(OUT, 0x2000 + round - 1)));
        lab.ok(delete(&info(IN, 0x1000 + round - 1)));
    }
    assert_eq!((lab.count(), lab.plane.specs.len(), lab.group(&packet())), (2, 2, group));
}

/// A rekey that fails between its SAs: the larval one times out, and the old ones go on.
#[test]
fn a_rekey_may_fail() {
    let mut lab = tunnel(0x1000, 0x2000);
    lab.ok(allocate(info(IN, 0x1001)));
    lab.tick(165);
    assert_eq!((state(&lab), lab.count()), ((Some(0x2000), vec![0x1000]), 2));
    lab.ok(allocate(info(IN, 0x1002)));
    lab.ok(update(info(IN, 0x1002), 3));
    lab.ok(delete(&info(IN, 0x1002)));
    assert_eq!((state(&lab), lab.count()), ((Some(0x2000), vec![0x1000]), 2));
}

/// While a listing is read, SAs come and go: those that stay are listed once, the youngest first.
#[test]
fn listings_while_sas_change() {
    let mut lab = Lab::new();
    for spi in 0x1000..0x1100 {
        lab.ok(new(SaInfo { reqid: spi, ..info(IN, spi) }, spi.to_le_bytes()[0]));
    }
    let header =
        culvert_xfrm::Message { flags: 0x301, seq: 9, port: 0, body: Body::DumpSa(none()) };
    let octets = header.to_octets();
    let frame = culvert_xfrm::message::messages(&octets).next().expect("one").expect("one");
    let answers = lab.service.request(&mut lab.plane, Default::default(), &frame, lab.now);
    let mut dump = answers.dump.expect("a listing");
    let mut listed = Vec::new();
    let mut gone = 0x1000;
    loop {
        let next = lab.service.next_of_dump(&mut lab.plane, &mut dump);
        if next.is_empty() {
            break;
        }
        for message in next {
            if let Body::NewSa(info, _) = message.body {
                listed.push(info.id.spi.0);
            }
        }
        lab.ok(delete(&info(IN, gone)));
        lab.ok(new(info(IN, gone + 0x1000), 0));
        gone += 1;
    }
    listed.reverse();
    assert!(listed.is_sorted());
    assert!((0x1008..0x1100).all(|spi| listed.contains(&spi)), "{listed:x?}");
    assert!(listed.iter().all(|spi| *spi < 0x1100));
}
