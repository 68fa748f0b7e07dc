//! SAs with epochs, and what is remembered of them when they are gone.

use culvert_esp::outbound::EPOCH_SEQUENCE_MAX;
use culvert_esp::outbound::EPOCHS;

use super::*;

fn of_epoch(epoch: u64, spec: SaSpec) -> SaSpec {
    SaSpec { epoch: Some(epoch), ..spec }
}

/// Installs an SA, uses it up to `last`, and removes it.
fn live_and_die(lab: &mut Lab<RustCrypto>, spec: &SaSpec) -> u64 {
    let id = lab.controller.add_sa(spec).unwrap();
    lab.settle();
    let first = lab.places(spec.spi.value())[0].1;
    lab.controller.remove_sa(id).unwrap();
    lab.settle();
    first
}

/// E21, G02: a key with an epoch is in use until its SA is gone, and then goes on above the number
/// it has reached, whatever it is said to have reached; a later epoch changes nothing of that.
#[test]
fn a_negotiated_key_goes_on_where_it_ended() {
    let mut lab = lab(2, 4);
    let spec = of_epoch(7, SaSpec { sequence: 4711, ..outbound(0x2001) });
    let id = lab.controller.add_sa(&spec).unwrap();
    lab.settle();
    lab.controller.remove_sa(id).unwrap();
    let again = SaSpec { sequence: 12, spi: Spi::new(0x2002).unwrap(), ..spec.clone() };
    for _ in 0..3 {
        // Its worker may still send with it.
        assert!(matches!(lab.controller.add_sa(&again), Err(ControlError::KeyInUse)));
        lab.step(&[0]);
    }
    lab.settle();
    assert_eq!(live_and_die(&mut lab, &again), 4711);
    assert_eq!(live_and_die(&mut lab, &SaSpec { sequence: 5000, ..again.clone() }), 5000);
    assert_eq!(live_and_die(&mut lab, &of_epoch(8, again.clone())), 5000);
    // As a key in a file it has no mark, and its IVs would have no epoch.
    let in_a_file = SaSpec { epoch: None, ..again.clone() };
    assert!(matches!(lab.controller.add_sa(&in_a_file), Err(ControlError::KeyInUse)));
    // Nor has a key in a file an end that is known here.
    live_and_die(&mut lab, &outbound(0x2003));
    let negotiated = lab.controller.add_sa(&of_epoch(9, outbound(0x2003)));
    assert!(matches!(negotiated, Err(ControlError::KeyInUse)));
}

/// E03, G02: numbers end where the epoch begins, and so does the key.
#[test]
fn numbers_end_where_the_epoch_begins() {
    let mut lab = lab(1, 4);
    let end = EPOCH_SEQUENCE_MAX;
    let spec = |esn, sequence| of_epoch(1, SaSpec { sequence, ..with_esn(outbound(0x2001), esn) });
    for (esn, sequence, end) in [(true, end + 1, end), (false, 1 << 32, u32::MAX.into())] {
        let error = lab.controller.add_sa(&spec(esn, sequence)).unwrap_err();
        let is_used_up = matches!(error, ControlError::UsedUp { used, end: e }
            if (used, e) == (sequence, end));
        assert!(is_used_up, "{error}");
    }
    assert_eq!(live_and_die(&mut lab, &spec(true, end)), end);
    assert!(matches!(lab.controller.add_sa(&spec(false, 0)), Err(ControlError::UsedUp { .. })));
    assert_eq!(live_and_die(&mut lab, &spec(true, 0)), end, "a refusal forgets nothing");
}

/// G02, G09: an epoch has 24 bits and is not 0; an implicit IV has no room for it.
#[test]
fn epochs_that_no_iv_can_have_are_refused() {
    let mut lab = lab(1, 4);
    for epoch in [0, EPOCHS, u64::MAX] {
        let error = lab.controller.add_sa(&of_epoch(epoch, outbound(0x2001))).unwrap_err();
        assert!(matches!(error, ControlError::Epoch(e) if e == epoch), "{error}");
    }
    let algorithm = Algorithm::Aes128Gcm16Iiv;
    let implicit = of_epoch(1, SaSpec { algorithm, ..outbound(0x2001) });
    assert!(matches!(lab.controller.add_sa(&implicit), Err(ControlError::EpochImplicit)));
    lab.controller.add_sa(&of_epoch(EPOCHS - 1, outbound(0x2001))).unwrap();
}

/// E21, G02: when keys are forgotten, no SA is added in an epoch that they may have sealed in; in a
/// later one the same key and the same numbers make other IVs.
#[test]
fn forgotten_keys_cost_their_epochs() {
    let mut lab = lab(1, 8);
    lab.controller.set_tombstones_max(2);
    for spi in [0x2001, 0x2002] {
        live_and_die(&mut lab, &of_epoch(3, SaSpec { sequence: 9, ..outbound(spi) }));
    }
    let living = lab.controller.add_sa(&of_epoch(3, outbound(0x2003))).unwrap();
    live_and_die(&mut lab, &of_epoch(4, outbound(0x2004)));
    // The first one is forgotten.
    for epoch in [1, 3] {
        let error = lab.controller.add_sa(&of_epoch(epoch, outbound(0x2005))).unwrap_err();
        let ControlError::EpochUsedUp { epoch: refused, floor } = error else {
            panic!("{error}");
        };
        assert_eq!((refused, floor), (epoch, 3));
    }
    assert_eq!(live_and_die(&mut lab, &of_epoch(4, outbound(0x2001))), 0);
    let error = lab.controller.add_sa(&of_epoch(3, outbound(0x2002)));
    assert!(matches!(error, Err(ControlError::EpochUsedUp { .. })));
    assert!(lab.controller.is_known(living), "those that are there stay");
}

/// E21: an SA with an epoch writes nothing to disk, and wants nothing from there; one without it
/// beside it does.
#[test]
fn epochs_need_no_leases() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = stored(directory.path());
    let files = || fs::read_dir(directory.path()).unwrap().count();
    let before = files();
    let spec = of_epoch(1, outbound(0x2001));
    let id = lab.controller.add_sa(&spec).unwrap();
    lab.settle();
    let location = lab.controller.location(id).unwrap();
    assert_eq!((lab.controller.leased().count(), lab.controller.leases.ceiling(id)), (0, None));
    lab.controller.record_last([(location, 5)]).unwrap();
    lab.controller.leases.ask(id, 5);
    lab.controller.migrate_sa(id, WorkerId(1 - location.worker.0)).unwrap();
    lab.settle();
    lab.controller.remove_sa(id).unwrap();
    lab.settle();
    assert_eq!(files(), before);
    lab.controller.add_sa(&outbound(0x2002)).unwrap();
    assert_eq!(files(), before + 1);
}

/// The window of the SA with this SPI.
fn window(lab: &mut Lab<RustCrypto>, id: SaId) -> WindowState {
    lab.controller.inspect(id).unwrap();
    lab.settle();
    lab.step(&[0]);
    lab.controller.take_inspection(id).unwrap().window.unwrap()
}

/// I08: an inbound SA that comes again with key and SPI has seen what it saw before and what it is
/// said to have seen; and while it is there, it does not come again. Others share nothing with it.
#[test]
fn a_window_comes_again() {
    let mut lab = lab(1, 8);
    let seen = |numbers: &'static [u64]| {
        let state = WindowState::from_fn(100, 64, |number| numbers.contains(&number));
        SaSpec { window: Some(state), replay_window: 64, ..of_epoch(1, inbound(0x1001)) }
    };
    let first = lab.controller.add_sa(&seen(&[100, 50])).unwrap();
    let again = seen(&[100, 60]);
    let elsewhere = SaSpec { destination: "192.0.2.3".parse().unwrap(), ..again.clone() };
    for _ in 0..2 {
        assert!(matches!(lab.controller.add_sa(&elsewhere), Err(ControlError::KeyInUse)));
        lab.settle();
    }
    lab.controller.remove_sa(first).unwrap();
    assert!(matches!(lab.controller.add_sa(&again), Err(ControlError::KeyInUse)));
    lab.settle();
    let second = lab.controller.add_sa(&again).unwrap();
    let accepted = |state: &WindowState| -> Vec<u64> {
        (37..=100).filter(|&number| state.was_seen(number)).collect()
    };
    let state = window(&mut lab, second);
    assert_eq!((accepted(&state), state.was_seen(36)), (vec![50, 60, 100], true));
    lab.controller.remove_sa(second).unwrap();
    lab.settle();
    // Without bits of its own it has seen all up to its number, and what it saw before.
    let bare = SaSpec { sequence: 90, window: None, ..again.clone() };
    let third = lab.controller.add_sa(&bare).unwrap();
    let state = window(&mut lab, third);
    assert_eq!((accepted(&state).len(), state.top()), (90 - 36 + 1, 100));
    let spi = Spi::new(0x1002).unwrap();
    let other = lab.controller.add_sa(&SaSpec { spi, ..again }).unwrap();
    assert_eq!(accepted(&window(&mut lab, other)), [60, 100]);
}

/// I08: what is forgotten of windows is forgotten: as much is known as after a restart.
#[test]
fn windows_are_forgotten_when_there_are_many() {
    let mut lab = lab(1, 8);
    lab.controller.set_tombstones_max(1);
    let spec = |spi, sequence| of_epoch(1, SaSpec { sequence, ..inbound(spi) });
    for (spi, sequence, expected) in
        [(0x1001, 9, 9), (0x1001, 5, 9), (0x1002, 7, 7), (0x1001, 5, 5)]
    {
        assert_eq!(live_and_die(&mut lab, &spec(spi, sequence)), expected, "{spi:#x}");
    }
}
