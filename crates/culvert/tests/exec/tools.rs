//! `ip xfrm` under the launcher.

use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Stdio;

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::event::Expire;
use culvert_xfrm::header::Kind;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::engine::Engine;
use crate::program::Place;
use crate::program::finish;
use crate::program::succeed;

/// Splits a command line.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

const ADD: &str = "ip xfrm state add src 192.0.2.1 dst 198.51.100.2 proto esp spi 0x1234 \
    reqid 7 mode tunnel aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";

/// SAs are added, listed and deleted, and exit codes are those of the engine's answers.
#[test]
fn ip_adds_lists_and_deletes_sas() {
    let Some(place) = Place::for_programs(&["ip"]) else { return };
    let engine = Engine::start(&place.socket());
    assert_eq!(finish(place.command(&words(ADD))).0, 0);
    let (status, _, stderr) = finish(place.command(&words(ADD)));
    assert_eq!((status, stderr.contains("File exists")), (2, true), "{stderr}");
    let listed = succeed(place.command(&words("ip xfrm state")));
    assert!(listed.contains("proto esp spi 0x00001234 reqid 7"), "{listed}");
    assert!(listed.contains("rfc4106(gcm(aes))"), "{listed}");
    let delete = "ip xfrm state delete src 192.0.2.1 dst 198.51.100.2 proto esp spi 0x1234";
    assert_eq!(finish(place.command(&words(delete))).0, 0);
    let (status, _, stderr) = finish(place.command(&words(delete)));
    assert_eq!((status, stderr.contains("No such process")), (2, true), "{stderr}");
    assert_eq!(succeed(place.command(&words("ip xfrm state"))), "");
    assert!(engine.state().binds.iter().all(|(port, groups)| *port != 0 && *groups == 0));
}

/// Policies are added and listed.
#[test]
fn ip_adds_and_lists_policies() {
    let Some(place) = Place::for_programs(&["ip"]) else { return };
    let engine = Engine::start(&place.socket());
    let add = "ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out \
        tmpl src 192.0.2.1 dst 198.51.100.2 proto esp reqid 7 mode tunnel";
    assert_eq!(finish(place.command(&words(add))).0, 0);
    let listed = succeed(place.command(&words("ip xfrm policy")));
    assert!(listed.contains("src 10.1.0.0/16 dst 10.2.0.0/16"), "{listed}");
    assert!(listed.contains("proto esp reqid 7 mode tunnel"), "{listed}");
    assert_eq!(engine.state().requests, [Kind::NEWPOLICY, Kind::GETPOLICY]);
}

/// A long list arrives whole, though it is longer than any queue.
#[test]
fn ip_lists_thousands_of_sas() {
    let Some(place) = Place::for_programs(&["ip"]) else { return };
    let engine = Engine::start(&place.socket());
    assert_eq!(finish(place.command(&words(ADD))).0, 0);
    let sa = engine.state().sas[0].clone();
    engine.state().sas = vec![sa; 5000];
    let listed = succeed(place.command(&words("ip xfrm state")));
    assert_eq!(listed.matches("spi 0x00001234").count(), 5000);
}

/// Shells, pipes, and what they start work, and `ip` is trapped at any depth.
#[test]
fn scripts_that_call_ip_are_trapped() {
    let Some(place) = Place::for_programs(&["ip", "sh"]) else { return };
    let engine = Engine::start(&place.socket());
    let add = ADD.replace("rfc4106(gcm(aes))", "'rfc4106(gcm(aes))'");
    let script = format!("{add} && sh -c 'ip xfrm state | grep -c spi'; exit 5");
    let (status, stdout, stderr) = finish(place.command(&["sh", "-c", &script]));
    assert_eq!((status, stdout.trim()), (5, "1"), "{stderr}");
    assert_eq!(engine.state().requests, [Kind::NEWSA, Kind::GETSA]);
}

/// A monitor is told of events, before and after the engine restarted.
#[test]
fn monitor_goes_on_when_the_engine_restarts() {
    let Some(place) = Place::for_programs(&["ip"]) else { return };
    let engine = Engine::start(&place.socket());
    assert_eq!(finish(place.command(&words(ADD))).0, 0);
    let (sa, _) = engine.state().sas[0].clone();
    let mut command = place.command(&words("ip xfrm monitor"));
    let mut monitor = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let expire = || Body::Expire(Expire { state: sa, hard: 0 }, Attributes::default());
    let mut next = || loop {
        let line = lines.next().unwrap().unwrap();
        if line.contains("Expired") {
            return line;
        }
    };
    engine.await_groups(u32::MAX);
    engine.tell(2, expire());
    assert!(next().contains("198.51.100.2"));
    let mut engine = engine;
    for _ in 0..3 {
        drop(engine);
        engine = Engine::start(&place.socket());
        engine.await_groups(u32::MAX);
        engine.tell(2, expire());
        assert!(next().contains("198.51.100.2"));
    }
    kill(Pid::from_raw(monitor.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    monitor.wait().unwrap();
}
