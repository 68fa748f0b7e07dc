//! The laboratory itself: two stock strongSwans with their own user space, without culvert.

use culvert::lab::ike::Backend;

use crate::bench::Bench;
use crate::bench::NEGOTIATION;
use crate::bench::assert_no_loss;
use crate::bench::assert_nothing_clear;
use crate::bench::the_child;
use crate::bench::under_load;

/// Two stock strongSwans agree by IKEv2, carry both families both ways, rekey under a steady stream
/// that loses nothing, and only IKE and ESP are seen between them.
#[test]
fn two_strongswans_agree() {
    let Some(mut bench) = Bench::new([Backend::Libipsec; 2]) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let [a, b] = bench.start([connection, peer]);
    let capture = bench.capture(0);
    a.charon.initiate("net", NEGOTIATION).expect("initiate");
    let before = the_child(&a);
    assert_eq!(before.spis.0, the_child(&b).spis.1);
    assert!(before.algorithms.starts_with("AES_GCM_16 128"), "{before:?}");
    bench.ping_all(3);
    bench.transfer(1000, [0, 1]);
    let ((), reports) = under_load(&bench.networks, || {
        a.charon.rekey_child("net").expect("rekey");
        let rekeyed = |sas: &[culvert::lab::ike::IkeSa]| {
            sas.iter().flat_map(|sa| sa.installed("net")).any(|child| child.spis != before.spis)
        };
        a.charon.wait_sas("rekey", NEGOTIATION, rekeyed).expect("rekey");
    });
    assert_no_loss(&reports);
    assert_nothing_clear(capture);
    a.stop().expect("a");
    b.stop().expect("b");
}
