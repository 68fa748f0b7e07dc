//! Commands against whatever answers at the socket: they end, with a complaint, and do not panic.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::answer;
use culvert_xfrm::answer::Detail;
use culvert_xfrm::answer::Wanted;
use culvert_xfrm::header::Flags;
use culvert_xfrm::message;
use culvert_xfrm::sa::SaDirection;
use rustix::net;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketAddrUnix;

use crate::Said;
use crate::culvert;
use crate::raw::new_sa;
use crate::raw::seqpacket;

fn send(to: &OwnedFd, octets: &[u8]) -> bool {
    net::send(to, octets, SendFlags::NOSIGNAL).is_ok()
}

fn receive(from: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let len = net::recv(from, &mut buffer[..], RecvFlags::empty()).map_or(0, |(_, len)| len);
    buffer.truncate(len);
    buffer
}

/// Runs a command against a server of one client, which is `behave`.
fn against(words: &str, behave: impl FnOnce(&OwnedFd) + Send) -> Said {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("xfrm.sock");
    let listener = seqpacket();
    net::bind(&listener, &SocketAddrUnix::new(&path).expect("a path")).expect("bound");
    net::listen(&listener, 4).expect("listening");
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Ok(fd) = net::accept(&listener) {
                behave(&fd);
            }
        });
        culvert(&path as &Path, words)
    })
}

/// Greets, then does this with the first request.
fn greeted(words: &str, behave: impl FnOnce(&OwnedFd, &[u8]) + Send) -> Said {
    against(words, |fd| {
        let mut hello = receive(fd);
        let _bind = receive(fd);
        hello[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        send(fd, &hello);
        let request = receive(fd);
        behave(fd, &request);
    })
}

/// An answer to a request, of one SA.
fn sa(request: &[u8]) -> Vec<u8> {
    let seq = Message::parse(request).map_or(0, |request| request.seq);
    let body = new_sa(0x1001, SaDirection::OUT);
    Message { flags: Flags::MULTI, seq, port: 0, body }.to_octets().to_vec()
}

fn done(request: &[u8]) -> Vec<u8> {
    let frame = message::messages(request).next().expect("a request").expect("a request");
    answer::done(&frame.header, 0).to_octets().to_vec()
}

/// A server that is well is understood: what follows fails for what it does wrong alone.
#[test]
fn an_answer_that_is_one() {
    let said = greeted("sa list --json", |fd, request| {
        send(fd, &[sa(request), sa(request)].concat());
        send(fd, &sa(request));
        send(fd, &done(request));
    });
    assert_eq!(said.json().as_array().map(Vec::len), Some(3));
}

/// Answers that are cut off, too long, of another request or another kind, or no answers at all.
#[test]
fn answers_that_are_none() {
    type Wrong = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Wrong, &str); 11] = [
        ("sa list", |_| vec![0; 3], "nlmsghdr: expected at least 16 octets"),
        ("sa list", |_| vec![0xff; 64], "nlmsg_len"),
        ("sa list", |request| sa(request)[..200].to_vec(), "nlmsg_len"),
        (
            "sa list",
            |request| {
                let mut short = sa(request)[..40].to_vec();
                short[..4].copy_from_slice(&40_u32.to_ne_bytes());
                short
            },
            "xfrm_usersa_info: expected at least 224 octets",
        ),
        (
            "sa list",
            |request| {
                let mut other = sa(request);
                other[8] ^= 1;
                other
            },
            "another request",
        ),
        ("sa list", |_| vec![0; 100_000], "longer than 64 KiB"),
        ("sa list", |request| [request, &done(request)].concat(), "no listing of SAs"),
        ("policy list", |request| [sa(request), done(request)].concat(), "no listing of policies"),
        (
            "sa list",
            |request| {
                let mut odd = done(request);
                odd[16..20].copy_from_slice(&7_i32.to_ne_bytes());
                odd
            },
            "zero or a negative error",
        ),
        ("policy delete --direction in --index 8", |request| sa(request).repeat(2), "several"),
        (
            "sa list",
            |request| {
                let frame = message::messages(request).next().expect("one").expect("one");
                let text = vec![Detail::Text("\u{1b}[31mno\u{7}".to_owned())];
                let wanted = Wanted { capped: true, details: true };
                answer::refuse(&frame, 0, Errno(9999), text, wanted).to_octets().to_vec()
            },
            "refused:  [31mno  (UnknownErrno)",
        ),
    ];
    for (words, wrong, complaint) in cases {
        let said = greeted(words, |fd, request| _ = send(fd, &wrong(request)));
        assert!(said.complaint().contains(complaint), "{complaint}: {}", said.error);
        assert_eq!(said.out, "", "{complaint}");
    }
}

/// Greetings that are none, and none at all.
#[test]
fn greetings_that_are_none() {
    let other = against("status", |fd| {
        let (mut hello, _bind) = (receive(fd), receive(fd));
        hello[16..20].copy_from_slice(&2_u32.to_ne_bytes());
        send(fd, &hello);
    });
    assert!(other.complaint().contains("speaks version 2"), "{}", other.error);
    for octets in [&[][..], &[1], &[0; 19], &[0xff; 20]] {
        let said = against("status", |fd| _ = send(fd, octets));
        assert!(!said.complaint().is_empty());
    }
    let closed = against("status", |_| ());
    assert!(closed.complaint().contains("closed the connection"), "{}", closed.error);
}

/// A server that says nothing, or never comes to an end, slowly or fast: the command does.
#[test]
fn answers_that_do_not_end() {
    let begun = Instant::now();
    let silent = greeted("sa list --timeout 1", |fd, _| _ = receive(fd));
    assert!(silent.complaint().contains("no answer within 1 seconds"), "{}", silent.error);
    assert!(begun.elapsed() < Duration::from_secs(8));
    let slow = greeted("sa list --timeout 1", |fd, request| {
        while send(fd, &sa(request)) {
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(slow.complaint().contains("does not end"), "{}", slow.error);
    let nothing = greeted("status --timeout 1", |fd, request| {
        let seq = Message::parse(request).map_or(0, |request| request.seq);
        let noop = Message { flags: 0, seq, port: 0, body: Body::Noop }.to_octets().repeat(1000);
        while send(fd, &noop) {}
    });
    assert!(nothing.complaint().contains("does not end"), "{}", nothing.error);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// Any octets in place of an answer, or in one.
#[test]
fn answers_with_damage() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % most as u64).expect("small")
    };
    for _ in 0..60 {
        let places: Vec<(usize, usize)> =
            (0..1 + next(8)).map(|_| (next(600), next(256))).collect();
        let said = greeted("sa show 0x1001 --timeout 1", |fd, request| {
            let mut octets = [sa(request), done(request)].concat();
            for &(at, value) in &places {
                let at = at % octets.len();
                octets[at] = value.to_le_bytes()[0];
            }
            send(fd, &octets);
        });
        let ended = matches!(said.code, Some(0 | 1));
        assert!(ended && !said.error.contains("panicked"), "{places:?}: {}", said.error);
    }
}
