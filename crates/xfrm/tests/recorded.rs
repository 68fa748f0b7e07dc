//! Frames of iproute2 and of the kernel: what they say, and that they are written as they were.

mod common;

use std::net::IpAddr;

use culvert_xfrm::Attribute;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Spi;
use culvert_xfrm::answer;
use culvert_xfrm::answer::Detail;
use culvert_xfrm::answer::Wanted;
use culvert_xfrm::header::Header;
use culvert_xfrm::info::HashSize;
use culvert_xfrm::info::HashThreshold;
use culvert_xfrm::info::SadAttribute;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::lifetime::INFINITE;
use culvert_xfrm::message::messages;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::sa;
use culvert_xfrm::sa::EncapType;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaFlags;

fn parse(name: &str, is_request: bool) -> Message {
    Message::parse(&common::frame(name, is_request)).expect("a message")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Every frame is read, and written as it was but for padding that iproute2 leaves away, and the
/// bitmap that it does.
#[test]
fn recorded_frames_are_written_as_they_were() {
    let frames = common::recorded();
    assert_eq!(frames.len(), 38);
    for frame in frames {
        let message = Message::parse(&frame.octets).expect(&frame.name);
        let written = message.to_octets();
        if frame.name == "newsa6" {
            assert_eq!(Message::parse(&written), Ok(message));
            continue;
        }
        let mut expected = frame.octets;
        expected.resize(expected.len().next_multiple_of(4), 0);
        let len = u32::try_from(expected.len()).expect("a short frame");
        expected[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(*written, expected, "{}", frame.name);
    }
}

/// An SA with AES-GCM, as the command line has it.
#[test]
fn iproute2_adds_an_sa() {
    let message = parse("newsa", true);
    assert_eq!((message.flags, message.seq, message.port), (0x5, 7, 0));
    assert_eq!(message.check(), Ok(()));
    let Body::NewSa(info, attributes) = &message.body else {
        panic!("NEWSA");
    };
    assert_eq!(info.id.daddr.ip(info.family), Some(ip("10.0.0.2")));
    assert_eq!(info.saddr.ip(info.family), Some(ip("10.0.0.1")));
    assert_eq!((info.id.spi, info.id.proto, info.reqid), (Spi(0x1000), sa::ESP, 7));
    assert_eq!((info.mode, info.sel.family), (Mode::TUNNEL, Family::UNSPEC));
    let limits = info.limits;
    assert_eq!(
        (limits.soft_bytes, limits.hard_packets, limits.hard_age_secs),
        (INFINITE, INFINITE, 0)
    );
    let aead = attributes.alg_aead().expect("AES-GCM");
    assert_eq!((aead.name.as_str(), aead.icv_bits), ("rfc4106(gcm(aes))", 128));
    assert_eq!((aead.key.octets(), aead.key.bits()), (&(0..20).collect::<Vec<u8>>()[..], 160));
    assert_eq!(attributes.0.len(), 1);
}

/// Two algorithms, ESN whose bitmap is left away, UDP, mark and interface, in their order.
#[test]
fn iproute2_adds_an_sa_with_everything() {
    let message = parse("newsa6", true);
    assert_eq!(message.check(), Ok(()));
    let Body::NewSa(info, attributes) = &message.body else {
        panic!("NEWSA");
    };
    assert_eq!(info.id.daddr.ip(info.family), Some(ip("fd00::2")));
    assert_eq!((info.flags, info.replay_window), (SaFlags::ESN, 0));
    let names: Vec<_> = attributes.0.iter().map(Attribute::name).collect();
    let expected = [
        "XFRMA_ALG_CRYPT",
        "XFRMA_ALG_AUTH_TRUNC",
        "XFRMA_ENCAP",
        "XFRMA_REPLAY_ESN_VAL",
        "XFRMA_MARK",
        "XFRMA_IF_ID",
    ];
    assert_eq!(names, expected);
    let auth = attributes.alg_auth_trunc().expect("HMAC");
    assert_eq!((auth.name.as_str(), auth.trunc_bits, auth.key.bits()), ("hmac(sha256)", 128, 256));
    let crypt = attributes.alg_crypt().expect("AES-CBC");
    assert_eq!(hex::encode(crypt.key.octets()), "00112233445566778899aabbccddeeff");
    let encap = attributes.encap().expect("UDP");
    assert_eq!((encap.kind, encap.sport.0, encap.dport.0), (EncapType::ESP_IN_UDP, 4500, 4500));
    let replay = attributes.replay_esn().expect("a window");
    assert_eq!((replay.replay_window, &replay.bitmap), (64, &vec![0, 0]));
    assert_eq!(attributes.mark().map(|mark| (mark.value, mark.mask)), Some((3, 0xff)));
    assert_eq!(attributes.if_id(), Some(&5));
    // Its bitmap is written all the same.
    let len = common::frame("newsa6", true).len();
    assert_eq!(message.to_octets().len(), len + 8);
}

/// A policy as it is sent, and as the kernel shows it.
#[test]
fn a_policy_is_added_and_shown() {
    let Body::NewPolicy(info, attributes) = parse("newpol", true).body else {
        panic!("NEWPOLICY");
    };
    assert_eq!(info.sel.daddr.ip(info.sel.family), Some(ip("10.2.0.0")));
    assert_eq!((info.sel.prefixlen_d, info.sel.prefixlen_s), (24, 24));
    assert_eq!((info.dir, info.action), (Direction::OUT, Action::ALLOW));
    let [template] = attributes.templates().expect("templates")[..] else {
        panic!("one template");
    };
    assert_eq!(template.id.daddr.ip(template.family), Some(ip("10.0.0.2")));
    assert_eq!(template.saddr.ip(template.family), Some(ip("10.0.0.1")));
    assert_eq!((template.id.proto, template.mode, template.reqid), (sa::ESP, Mode::TUNNEL, 7));
    assert_eq!((template.aalgos, template.ealgos), (u32::MAX, u32::MAX));
    for name in ["getpol", "dumppol"] {
        let Body::NewPolicy(shown, with) = parse(name, false).body else {
            panic!("NEWPOLICY");
        };
        assert_eq!((shown.sel, shown.dir, shown.limits), (info.sel, info.dir, info.limits));
        assert_eq!(shown.index & 7, 1);
        assert_eq!(with.templates(), attributes.templates());
        assert_eq!(with.policy_type().map(|policy_type| policy_type.kind), Some(0));
    }
}

/// The request for an SPI, and the larval SA that is the answer.
#[test]
fn an_spi_is_reserved() {
    let message = parse("allocspi", true);
    assert_eq!(message.check(), Ok(()));
    let Body::AllocateSpi(request, _) = message.body else {
        panic!("ALLOCSPI");
    };
    assert_eq!((request.min, request.max, request.info.id.spi), (0x200, 0x200, Spi(0)));
    let Body::NewSa(larval, attributes) = parse("allocspi", false).body else {
        panic!("NEWSA");
    };
    assert_eq!((larval.id.spi, larval.limits.hard_age_secs), (Spi(0x200), 30));
    assert_eq!(larval.sel.daddr.ip(larval.family), Some(ip("10.0.0.2")));
    assert_eq!((larval.sel.prefixlen_d, larval.sel.prefixlen_s), (32, 32));
    assert_eq!(attributes.replay().map(|replay| (replay.oseq, replay.seq)), Some((0, 0)));
    let Body::GetSa(id, attributes) = parse("getsa", true).body else {
        panic!("GETSA");
    };
    assert_eq!((id.spi, id.proto, id.family), (Spi(0x200), sa::ESP, Family::INET));
    let source = attributes.source_address().expect("a source");
    assert_eq!(source.ip(id.family), Some(ip("10.0.0.1")));
}

/// Dumps have attributes where others have a record.
#[test]
fn dumps_are_told_from_questions_about_one() {
    let Body::DumpSa(attributes) = parse("dumpsa", true).body else {
        panic!("a dump");
    };
    assert_eq!(attributes.0.len(), 1);
    assert_eq!(attributes.address_filter(), Some(&Default::default()));
    assert_eq!(parse("dumppol", true).body, Body::DumpPolicy(Default::default()));
    // A record of routing with a family in front, as `rtnl_wilddump_request` sends it.
    let mut octets = common::frame("dumppol", true);
    octets.extend([2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    octets[0] += 16;
    let dump = Message::parse(&octets).map(|message| message.body);
    assert_eq!(dump, Ok(Body::DumpPolicy(Default::default())));
}

/// Numbers, thresholds and default policies.
#[test]
fn the_databases_are_described() {
    let Body::NewSadInfo(flags, list) = parse("count", false).body else {
        panic!("NEWSADINFO");
    };
    let size = HashSize { count: 8, max: 1 << 20 };
    assert_eq!((flags, list), (u32::MAX, vec![SadAttribute::Count(0), SadAttribute::Hash(size)]));
    let Body::NewSpdInfo(_, list) = parse("pcount", false).body else {
        panic!("NEWSPDINFO");
    };
    let names: Vec<_> = list.iter().map(SpdAttribute::name).collect();
    let expected =
        ["XFRMA_SPD_INFO", "XFRMA_SPD_HINFO", "XFRMA_SPD_IPV4_HTHRESH", "XFRMA_SPD_IPV6_HTHRESH"];
    assert_eq!(names, expected);
    let Body::NewSpdInfo(_, list) = parse("hthresh", true).body else {
        panic!("NEWSPDINFO");
    };
    let threshold = HashThreshold { local_bits: 24, remote_bits: 24 };
    assert_eq!(list, [SpdAttribute::Ipv4Threshold(threshold)]);
    let Body::SetDefault(defaults, _) = parse("setdef", true).body else {
        panic!("SETDEFAULT");
    };
    let asked = (defaults.inbound, defaults.forward, defaults.outbound);
    assert_eq!(asked, (DefaultAction::BLOCK, DefaultAction::UNSPEC, DefaultAction::UNSPEC));
    let Body::GetDefault(defaults, _) = parse("getdef", false).body else {
        panic!("GETDEFAULT");
    };
    assert_eq!(defaults.outbound, DefaultAction::ACCEPT);
}

/// Answers are those of the kernel, octet by octet.
#[test]
fn answers_are_those_of_the_kernel() {
    for frame in common::recorded().into_iter().filter(|frame| !frame.is_request) {
        let name = frame.name;
        let request = common::frame(&name, true);
        let answer = Message::parse(&frame.octets).expect(&name);
        let header = Header::read(&request).expect("a header");
        let made = match &answer.body {
            Body::Error(error) if error.errno.is_none() => {
                answer::acknowledge(&header, answer.port)
            }
            Body::Error(error) => {
                let asked = messages(&request).next().expect("a request").expect("whole");
                let wanted = Wanted { capped: false, details: true };
                let errno = error.errno.expect("an error");
                answer::refuse(&asked, answer.port, errno, error.details.clone(), wanted)
            }
            Body::Done(_) => answer::done(&header, answer.port),
            _ => continue,
        };
        let mut expected = frame.octets;
        expected.resize(expected.len().next_multiple_of(4), 0);
        assert_eq!(*made.to_octets(), expected, "{name}");
    }
}

/// Errors, their texts, and what remains of them when less is wanted.
#[test]
fn errors_are_as_long_as_wanted() {
    let Body::Error(error) = parse("newsa", false).body else {
        panic!("an error");
    };
    let text = Detail::Text("Requested AEAD algorithm not found".to_owned());
    assert_eq!((error.errno, &error.details), (Some(Errno::ENOSYS), &vec![text.clone()]));
    let Body::Error(error) = parse("getsaerr", false).body else {
        panic!("an error");
    };
    assert_eq!((error.errno, error.details), (Some(Errno::ESRCH), vec![]));
    let request = common::frame("newsa", true);
    let asked = messages(&request).next().expect("a request").expect("whole");
    let len = |capped: bool, details: bool| {
        let wanted = Wanted { capped, details };
        let answer = answer::refuse(&asked, 9, Errno::ENOSYS, vec![text.clone()], wanted);
        let octets = answer.to_octets();
        assert_eq!(
            Message::parse(&octets),
            Ok(answer.clone()).map(|mut answer: Message| {
                answer.flags = answer.header().flags;
                answer
            })
        );
        octets.len()
    };
    assert_eq!((len(true, false), len(false, false)), (36, 20 + 336));
    assert_eq!((len(true, true), len(false, true)), (36 + 40, 20 + 336 + 40));
}

/// What the kernel refuses is refused, with the same number.
#[test]
fn requests_are_refused_as_by_the_kernel() {
    let refused = common::refused();
    assert_eq!(refused.len(), 83);
    for (errno, octets, what) in refused {
        let result = Message::parse(&octets).and_then(|message| message.check());
        let malformed = result.expect_err(what);
        assert_eq!(malformed.errno, Errno(errno), "{what}: {malformed}");
    }
}
