//! The policy database against that of the kernel: the same octets to both.

#[path = "kernel/lab.rs"]
mod lab;
#[path = "kernel/make.rs"]
mod make;
#[path = "kernel/packets.rs"]
mod packets;
#[path = "service/plane.rs"]
#[expect(dead_code, reason = "tests of the service need more of it")]
mod plane;
#[path = "kernel/random.rs"]
mod random;
#[path = "kernel/sa_lab.rs"]
mod sa_lab;
#[path = "kernel/sas.rs"]
mod sas;
#[path = "service/words.rs"]
mod words;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::info::HashThreshold;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyFlags;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Share;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;

use self::lab::Lab;
use self::lab::Outcome;
use self::make::by_index;
use self::make::by_selector;
use self::make::none;
use self::make::policy;
use self::make::template;
use self::make::tunnel;
use self::packets::Packet;
use self::sa_lab::SaLab;
use self::words::selector;

const IN: Direction = Direction::IN;
const OUT: Direction = Direction::OUT;
const FORWARD: Direction = Direction::FORWARD;

fn run(test: &str, body: impl FnOnce(&mut Lab) + Send + 'static) {
    if lab::skipped(test) {
        return;
    }
    lab::in_namespace(|| body(&mut Lab::new()));
}

/// Asks both, and expects this.
fn step(lab: &mut Lab, name: &str, body: &Body, errno: Option<Errno>) -> Outcome {
    name.clone_into(&mut lab.name);
    let outcome = lab.ask(body);
    assert_eq!(outcome.errno, errno, "{name}");
    outcome
}

fn dump(lab: &mut Lab, len: usize) {
    let outcome = step(lab, "dump", &Body::DumpPolicy(none()), None);
    assert_eq!(outcome.answers.len(), len);
}

/// Policies are made, replaced, found, listed and deleted as the kernel does, by name and by index.
#[test]
fn policies_as_in_the_kernel() {
    run("policies_as_in_the_kernel", |lab| {
        let make = |info: &PolicyInfo| Body::NewPolicy(*info, Attributes(vec![tunnel()]));
        let update = |info: &PolicyInfo| Body::UpdatePolicy(*info, none());
        let a = policy("10.1.0.0/16 10.2.0.0/16", OUT, 100);
        let b = policy("10.2.0.0/16 10.1.0.0/16", IN, 100);
        let c = policy("fd00:1::/64 fd00:2::/64", FORWARD, 50);
        dump(lab, 0);
        step(lab, "flush nothing", &Body::FlushPolicy(none()), None);
        step(lab, "make out", &make(&a), None);
        step(lab, "make in", &make(&b), None);
        step(lab, "make forward", &make(&c), None);
        dump(lab, 3);
        step(lab, "make again", &make(&a), Some(Errno::EEXIST));
        step(
            lab,
            "make again, other priority",
            &make(&PolicyInfo { priority: 7, ..a }),
            Some(Errno::EEXIST),
        );
        step(lab, "update", &update(&PolicyInfo { action: Action::BLOCK, ..a }), None);
        dump(lab, 3);
        step(lab, "update priority", &update(&PolicyInfo { priority: 7, ..a }), None);
        step(lab, "update unmade", &update(&policy("10.3.0.0/16 10.4.0.0/16", OUT, 1)), None);
        dump(lab, 4);
        step(lab, "get", &Body::GetPolicy(by_selector(&a), none()), None);
        step(
            lab,
            "get other direction",
            &Body::GetPolicy(by_selector(&PolicyInfo { dir: IN, ..a }), none()),
            Some(Errno::ENOENT),
        );
        for index in [1, 8, 9, 10, 17, 25, 33, 0x1001] {
            for dir in [IN, OUT, FORWARD] {
                lab.name = format!("get {index} {dir:?}");
                lab.ask(&Body::GetPolicy(by_index(index, dir), none()));
            }
        }
        step(lab, "delete", &Body::DeletePolicy(by_selector(&b), none()), None);
        deleted(lab, &a, &b);
        dump(lab, 2);
        step(lab, "flush", &Body::FlushPolicy(none()), None);
        step(lab, "flush again", &Body::FlushPolicy(none()), None);
        dump(lab, 0);
        step(lab, "make after flush", &make(&b), None);
        dump(lab, 1);
    });
}

/// `b` was deleted; `a` is deleted by its index.
fn deleted(lab: &mut Lab, a: &PolicyInfo, b: &PolicyInfo) {
    let delete = |id| Body::DeletePolicy(id, none());
    let absent = Some(Errno::ENOENT);
    step(lab, "delete again", &delete(by_selector(b)), absent);
    let get = Body::GetPolicy(by_selector(a), none());
    let Body::NewPolicy(found, _) = step(lab, "index", &get, None).answers.remove(0) else {
        panic!("NEWPOLICY")
    };
    let get = Body::GetPolicy(by_index(found.index, OUT), none());
    step(lab, "get by index", &get, None);
    step(lab, "delete by index, other direction", &delete(by_index(found.index, IN)), absent);
    step(lab, "delete by index", &delete(by_index(found.index, OUT)), None);
}

/// Marks and interfaces are parts of the name, as they were sent.
#[test]
fn names_as_in_the_kernel() {
    run("names_as_in_the_kernel", |lab| {
        let info = policy("10.1.0.0/16 10.2.0.0/16", OUT, 100);
        let mark = |value, mask| Attribute::Mark(Mark { value, mask });
        let names = [
            vec![],
            vec![mark(1, 0xff)],
            vec![mark(1, 0xf)],
            vec![mark(0x101, 0xfff)],
            vec![Attribute::IfId(7)],
            vec![Attribute::IfId(7), mark(1, 0xff)],
            vec![mark(2, 2), mark(3, 3)],
        ];
        for list in &names {
            lab.name = format!("make {list:?}");
            assert_eq!(lab.ask(&Body::NewPolicy(info, Attributes(list.clone()))).errno, None);
            let again = lab.ask(&Body::NewPolicy(info, Attributes(list.clone())));
            assert_eq!(again.errno, Some(Errno::EEXIST));
        }
        for list in
            [vec![mark(0, 0)], vec![mark(0x101, 0xff)], vec![mark(1, 0)], vec![Attribute::IfId(0)]]
        {
            lab.name = format!("make {list:?}");
            lab.ask(&Body::NewPolicy(info, Attributes(list)));
        }
        dump(lab, names.len());
        for list in &names {
            lab.name = format!("get {list:?}");
            let answer = lab.ask(&Body::GetPolicy(by_selector(&info), Attributes(list.clone())));
            assert_eq!(answer.answers.len(), 1);
            for index in [9, 17, 25, 33] {
                lab.ask(&Body::GetPolicy(by_index(index, OUT), Attributes(list.clone())));
            }
        }
        let absent = Attributes(vec![mark(1, 0xffff)]);
        step(
            lab,
            "get another mark",
            &Body::GetPolicy(by_selector(&info), absent.clone()),
            Some(Errno::ENOENT),
        );
        step(
            lab,
            "delete another mark",
            &Body::DeletePolicy(by_selector(&info), absent),
            Some(Errno::ENOENT),
        );
        for list in names {
            lab.name = format!("delete {list:?}");
            lab.ask(&Body::DeletePolicy(by_selector(&info), Attributes(list)));
        }
        dump(lab, 0);
        // Bits behind the prefix are part of the name as well, and so are user and interface.
        let mut user = info;
        user.sel.user = 1000;
        let mut interface = info;
        interface.sel.ifindex = 1;
        for info in [info, policy("10.1.0.1/16 10.2.0.0/16", OUT, 100), user, interface] {
            step(lab, "make", &Body::NewPolicy(info, none()), None);
            step(lab, "make again", &Body::NewPolicy(info, none()), Some(Errno::EEXIST));
        }
        dump(lab, 4);
    });
}

/// A requested index is taken if it is free; others are counted up from where they were.
#[test]
fn indices_as_in_the_kernel() {
    run("indices_as_in_the_kernel", |lab| {
        let networks = (0..12).map(|net| format!("10.{net}.0.0/16 10.99.0.0/16"));
        let infos: Vec<_> = networks.map(|text| policy(&text, OUT, 0)).collect();
        let make = |at: usize, dir: Direction, index| {
            Body::NewPolicy(PolicyInfo { index, dir, ..infos[at] }, none())
        };
        step(lab, "first", &make(0, IN, 0), None);
        step(lab, "second", &make(1, IN, 0), None);
        step(lab, "17", &make(2, OUT, 17), None);
        step(lab, "17 again", &make(3, OUT, 17), None);
        step(lab, "large", &make(4, FORWARD, 0xffff_fffa), None);
        step(lab, "other direction", &make(5, OUT, 16), Some(Errno::EINVAL));
        step(lab, "next", &make(5, OUT, 0), None);
        step(lab, "next forward", &make(6, FORWARD, 0), None);
        let replaced = Body::UpdatePolicy(PolicyInfo { index: 8001, ..infos[2] }, none());
        step(lab, "replaced", &replaced, None);
        step(lab, "get replaced", &Body::GetPolicy(by_index(17, OUT), none()), None);
        step(lab, "not there", &Body::GetPolicy(by_index(8001, OUT), none()), Some(Errno::ENOENT));
        step(lab, "delete first", &Body::DeletePolicy(by_index(8, IN), none()), None);
        step(lab, "next in", &make(7, IN, 0), None);
        step(lab, "8 again", &make(8, IN, 8), None);
        dump(lab, 8);
        step(lab, "sizes", &Body::GetSpdInfo(0), None);
    });
}

/// Templates of every sort.
fn template_lists() -> Vec<Vec<Template>> {
    let v4 = template("192.0.2.1 192.0.2.2", 5);
    let v6 = template("2001:db8::1 2001:db8::2", 6);
    let with = |change: fn(&mut Template)| {
        let mut changed = v4;
        change(&mut changed);
        changed
    };
    vec![
        vec![v4],
        vec![v6],
        vec![v4, v6],
        vec![v4; 6],
        vec![with(|template| template.mode = Mode::TRANSPORT)],
        vec![with(|template| template.mode = Mode::ROUTE_OPTIMIZATION)],
        vec![with(|template| template.mode = Mode::IN_TRIGGER)],
        vec![with(|template| template.mode = Mode::BEET)],
        vec![with(|template| template.mode = Mode::IPTFS)],
        vec![with(|template| template.mode = Mode(6))],
        vec![v6, with(|template| template.mode = Mode::TRANSPORT)],
        vec![v4, Template { mode: Mode::TRANSPORT, ..v6 }],
        vec![v6, Template { mode: Mode::TRANSPORT, ..v6 }],
        vec![with(|template| template.family = Family::UNSPEC)],
        vec![with(|template| template.family = Family(7))],
        vec![with(|template| template.id.proto = sa::AH)],
        vec![with(|template| template.id.proto = sa::IPCOMP), v4],
        vec![with(|template| template.id.proto = sa::ROUTING)],
        vec![with(|template| template.id.proto = sa::DESTINATION_OPTIONS)],
        vec![with(|template| template.id.proto = sa::ANY_PROTO)],
        vec![with(|template| template.id.proto = 0)],
        vec![with(|template| template.id.proto = 6)],
        vec![with(|template| template.id.spi.0 = 0x1234_5678)],
        vec![with(|template| template.optional = 1)],
        vec![with(|template| {
            template.optional = 1;
            template.mode = Mode::TRANSPORT;
        })],
        vec![with(|template| {
            template.optional = 1;
            template.mode = Mode::BEET;
        })],
        vec![with(|template| {
            template.optional = 1;
            template.mode = Mode::IPTFS;
        })],
        vec![with(|template| template.optional = 200)],
        vec![with(|template| template.share = Share::UNIQUE)],
        vec![with(|template| template.share = Share(9))],
        vec![with(|template| template.aalgos = 5)],
        vec![with(|template| {
            (template.aalgos, template.ealgos, template.calgos) = (0, 0, 0);
        })],
    ]
}

/// Templates of every sort, and what is refused of them.
#[test]
fn templates_as_in_the_kernel() {
    run("templates_as_in_the_kernel", |lab| {
        let lists = template_lists();
        for (dir, prefix) in [(OUT, 1), (IN, 2)] {
            for (at, list) in lists.iter().enumerate() {
                let info = policy(&format!("10.{at}.0.0/16 10.200.{prefix}.0/24"), dir, 3);
                lab.name = format!("template {list:?}");
                let list = Attributes(vec![Attribute::Templates(list.clone())]);
                lab.ask(&Body::NewPolicy(info, list));
            }
        }
        lab.name = "dump".to_owned();
        assert!(lab.ask(&Body::DumpPolicy(none())).answers.len() > 30);
        let none_wanted = vec![Attribute::Templates(Vec::new())];
        let info = policy("10.0.0.0/8 10.0.0.0/8", OUT, 3);
        step(
            lab,
            "no templates",
            &Body::NewPolicy(info, Attributes(none_wanted)),
            Some(Errno::ERANGE),
        );
        let many =
            Attributes(vec![Attribute::Templates(vec![template("192.0.2.1 192.0.2.2", 5); 7])]);
        step(lab, "seven templates", &Body::NewPolicy(info, many), Some(Errno::EINVAL));
    });
}

/// Values that cannot be are refused, those that can are kept.
#[test]
fn values_as_in_the_kernel() {
    run("values_as_in_the_kernel", |lab| {
        let good = policy("10.1.0.0/16 10.2.0.0/16", OUT, 100);
        let changes: [fn(&mut PolicyInfo); 22] = [
            |info| info.dir = Direction(3),
            |info| info.dir = Direction(200),
            |info| info.action = Action(2),
            |info| info.share = Share::UNIQUE,
            |info| info.share = Share(4),
            |info| info.flags = 0xff,
            |info| info.flags = PolicyFlags::LOCAL_OK | PolicyFlags::ICMP,
            |info| info.sel.family = Family::UNSPEC,
            |info| info.sel.family = Family(7),
            |info| info.sel.family = Family::INET6,
            |info| info.sel.prefixlen_d = 33,
            |info| info.sel.prefixlen_s = 33,
            |info| (info.sel.family, info.sel.prefixlen_s) = (Family::INET6, 129),
            |info| (info.sel.family, info.sel.prefixlen_d) = (Family::INET6, 128),
            |info| info.index = 2,
            |info| info.index = 1,
            |info| info.priority = u32::MAX,
            |info| (info.sel.sport.0, info.sel.sport_mask.0) = (443, 0xffff),
            |info| (info.sel.dport.0, info.sel.dport_mask.0) = (443, 0x0ff0),
            |info| info.sel.proto = 17,
            |info| info.usage.bytes = 77,
            |info| {
                info.limits = Limits {
                    soft_bytes: 1,
                    hard_bytes: 2,
                    soft_packets: 3,
                    hard_packets: 4,
                    soft_age_secs: 5000,
                    hard_age_secs: 6000,
                    soft_use_secs: 7000,
                    hard_use_secs: 8000,
                }
            },
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut info = PolicyInfo { priority: 1, ..good };
            change(&mut info);
            lab.name = format!("value {at}");
            lab.ask(&Body::UpdatePolicy(info, none()));
            lab.ask(&Body::GetPolicy(by_selector(&info), none()));
        }
        lab.ask(&Body::DumpPolicy(none()));
    });
}

/// Default actions and thresholds; what is not said stays.
#[test]
fn settings_as_in_the_kernel() {
    run("settings_as_in_the_kernel", |lab| {
        let get = Body::GetDefault(Defaults::default(), none());
        step(lab, "first", &get, None);
        let set = |inbound, forward, outbound| {
            let [inbound, forward, outbound] = [inbound, forward, outbound].map(DefaultAction);
            Body::SetDefault(Defaults { inbound, forward, outbound }, none())
        };
        for body in [set(1, 2, 1), set(0, 0, 2), set(7, 1, 200), set(2, 2, 2), set(0, 0, 0)] {
            step(lab, "set", &body, None);
            step(lab, "get", &get, None);
        }
        step(lab, "sizes", &Body::GetSpdInfo(0xffff_ffff), None);
        let threshold = |local_bits, remote_bits| HashThreshold { local_bits, remote_bits };
        let lists = [
            vec![SpdAttribute::Ipv4Threshold(threshold(24, 16))],
            vec![SpdAttribute::Ipv4Threshold(threshold(33, 16))],
            vec![SpdAttribute::Ipv6Threshold(threshold(64, 129))],
            vec![SpdAttribute::Ipv6Threshold(threshold(64, 128))],
            vec![
                SpdAttribute::Ipv4Threshold(threshold(1, 2)),
                SpdAttribute::Ipv6Threshold(threshold(200, 4)),
            ],
            vec![],
        ];
        for list in lists {
            lab.name = format!("{list:?}");
            lab.ask(&Body::NewSpdInfo(0, list));
            lab.ask(&Body::GetSpdInfo(0));
        }
    });
}

/// What counts of selectors is what the codec reads; the last of two attributes counts.
#[test]
fn selectors_of_every_sort_are_listed() {
    run("selectors_of_every_sort_are_listed", |lab| {
        let nets = ["0.0.0.0/0 0.0.0.0/0", "::/0 ::/0", "10.0.0.1/32 10.0.0.2/32", "::1/128 ::/0"];
        for text in nets {
            for proto in [0, 1, 6, 17, 58, 255] {
                let mut info = policy(text, FORWARD, 9);
                info.sel = selector(text);
                info.sel.proto = proto;
                lab.name = format!("{text} {proto}");
                assert_eq!(lab.ask(&Body::NewPolicy(info, none())).errno, None);
            }
        }
        dump(lab, 24);
        step(lab, "flush", &Body::FlushPolicy(none()), None);
    });
}

/// Any requests in any order lead to the same.
#[test]
fn any_requests_as_in_the_kernel() {
    for seed in 1..=20 {
        run("any_requests_as_in_the_kernel", move |lab| random::requests(lab, seed, 500));
    }
}

/// Templates get new addresses if they are concerned.
#[test]
fn addresses_change_as_in_the_kernel() {
    run("addresses_change_as_in_the_kernel", |lab| {
        let info = policy("10.1.0.0/16 10.2.0.0/16", OUT, 1);
        let old = template("192.0.2.1 192.0.2.2", 5);
        let outer = template("2001:db8::1 2001:db8::2", 6);
        let inner =
            Template { mode: Mode::TRANSPORT, id: sa::XfrmId { proto: sa::AH, ..old.id }, ..old };
        let new = template("198.51.100.1 198.51.100.2", 0);
        let change = |old: &Template, new: &Template, reqid| Migrate {
            old_daddr: old.id.daddr,
            old_saddr: old.saddr,
            new_daddr: new.id.daddr,
            new_saddr: new.saddr,
            proto: old.id.proto,
            mode: old.mode,
            reserved: 0,
            reqid,
            old_family: old.family,
            new_family: new.family,
        };
        let zero = Migrate { new_saddr: Address::default(), ..change(&old, &new, 0) };
        let lists = [
            vec![change(&old, &new, 5)],
            vec![change(&old, &new, 0)],
            vec![change(&old, &new, 9)],
            vec![change(&new, &old, 0)],
            vec![change(&old, &outer, 5), change(&outer, &old, 6)],
            vec![change(&old, &new, 5), change(&new, &old, 5)],
            vec![change(&inner, &new, 0)],
            vec![Migrate { mode: Mode::TRANSPORT, ..change(&old, &new, 0) }],
            vec![change(&old, &new, 5), change(&old, &outer, 5)],
            vec![zero],
        ];
        for list in lists {
            lab.name = format!("{list:?}");
            let templates = Attribute::Templates(vec![inner, old, outer]);
            lab.ask(&Body::UpdatePolicy(info, Attributes(vec![templates])));
            let mut attributes = vec![Attribute::Migrate(list)];
            for id in [PolicyId { dir: IN, ..by_selector(&info) }, by_selector(&info)] {
                lab.ask(&Body::Migrate(id, Attributes(attributes.clone())));
                lab.ask(&Body::GetPolicy(by_selector(&info), none()));
            }
            attributes.push(Attribute::IfId(3));
            lab.ask(&Body::Migrate(by_selector(&info), Attributes(attributes)));
        }
    });
}

/// Packets meet the policy that comes first of those whose selector and mark admit them.
#[test]
fn packets_meet_the_same_policy() {
    run("packets_meet_the_same_policy", |lab| {
        packets::set_up();
        let met = packets::meet(lab, 1, 2000);
        assert!(met > 600, "{met} packets met a policy");
    });
}

/// A policy that is replaced keeps its place among those of its priority, and is the last of
/// another one.
#[test]
fn replaced_policies_keep_their_place() {
    run("replaced_policies_keep_their_place", |lab| {
        packets::set_up();
        let all = policy("10.1.0.0/16 10.2.0.0/16", OUT, 5);
        let mut udp = all;
        udp.sel.proto = 17;
        let packet = Packet::udp("10.1.1.1", "10.2.1.1", (5000, 53));
        let (sooner, later) =
            (PolicyInfo { priority: 4, ..all }, PolicyInfo { priority: 6, ..all });
        let lists: [(&[PolicyInfo], u8); 6] = [
            (&[all, udp], 0),
            (&[udp, all], 17),
            (&[all, udp, all], 0),
            (&[all, udp, later, all], 17),
            (&[udp, all, sooner], 0),
            (&[udp, all, sooner, all], 17),
        ];
        for (infos, proto) in lists {
            lab.name = format!("{proto} of {infos:?}");
            for info in infos {
                lab.ask(&Body::UpdatePolicy(*info, none()));
            }
            let index = packets::send(lab, &packet).expect("a policy");
            let met = lab.ours.by_index(index).expect("a policy");
            assert_eq!(met.info().sel.proto, proto, "{}", lab.name);
            lab.ask(&Body::FlushPolicy(none()));
        }
    });
}

/// Policies expire when the kernel's do, within a second, and are told of as often.
#[test]
fn policies_expire_as_in_the_kernel() {
    run("policies_expire_as_in_the_kernel", |lab| {
        let limits =
            [(0, 1, 0, 0), (0, 3, 0, 0), (2, 4, 0, 0), (0, 0, 0, 2), (1, 0, 0, 3), (0, 0, 1, 0)];
        for (net, (soft_age_secs, hard_age_secs, soft_use_secs, hard_use_secs)) in (0..).zip(limits)
        {
            let mut info = policy(&format!("10.{net}.0.0/16 10.9.0.0/16"), OUT, net);
            info.limits = Limits {
                soft_age_secs,
                hard_age_secs,
                soft_use_secs,
                hard_use_secs,
                ..info.limits
            };
            lab.name = format!("{:?}", info.limits);
            let list = Attributes(vec![tunnel(), Attribute::IfId(net)]);
            lab.ask(&Body::NewPolicy(info, list));
        }
        let (mut kernel, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..70 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            kernel.extend(lab.kernel.events());
            ours.extend(lab.tick());
        }
        let by_name = |event: &Body| format!("{event:?}");
        kernel.sort_by_key(by_name);
        ours.sort_by_key(by_name);
        assert_eq!(kernel.len(), 8);
        assert_eq!(ours, kernel);
        dump(lab, 1);
    });
}

fn run_sas(test: &str, body: impl FnOnce(&mut SaLab) + Send + 'static) {
    if lab::skipped(test) {
        return;
    }
    lab::in_namespace(|| body(&mut SaLab::new()));
}

/// SAs without keys, from ALLOCSPI on: found, listed, deleted, refused.
#[test]
fn larval_sas_as_in_the_kernel() {
    run_sas("larval_sas_as_in_the_kernel", |lab| {
        let inbound = sas::info("192.0.2.2 192.0.2.1", 0, 7);
        let six = sas::info("2001:db8::2 2001:db8::1", 0, 7);
        let bodies = [
            sas::dump(Vec::new()),
            Body::GetSadInfo(0),
            sas::allocate(inbound, 0x100, 0x100, Vec::new()),
            sas::allocate(inbound, 0x100, 0x100, Vec::new()),
            sas::allocate(inbound, 0x101, 0x101, vec![sas::mark(1, 1)]),
            sas::allocate(inbound, 0x102, 0x102, vec![Attribute::IfId(9)]),
            sas::allocate(inbound, 0x103, 0x103, vec![Attribute::Direction(sa::SaDirection::IN)]),
            sas::allocate(six, 0x104, 0x104, Vec::new()),
            sas::allocate(inbound, 0x0100_0000, 0xffff_ffff, Vec::new()),
            sas::allocate(inbound, 9, 8, Vec::new()),
            sas::dump(Vec::new()),
            Body::GetSadInfo(0),
        ];
        for body in bodies {
            lab.name = format!("{body:?}");
            lab.ask(&body);
        }
        for spi in 0xff..0x106 {
            for info in [inbound, six] {
                let id = sa::SaId { spi: culvert_xfrm::address::Spi(spi), ..sas::id(&info) };
                for list in [none(), Attributes(vec![sas::mark(1, 1)])] {
                    lab.name = format!("{id:?} {list:?}");
                    lab.ask(&Body::GetSa(id, list.clone()));
                    lab.ask(&Body::DeleteSa(id, list));
                }
            }
        }
        lab.ask(&sas::dump(Vec::new()));
        lab.ask(&Body::FlushSa(sa::SaFlush::default(), none()));
        lab.ask(&Body::FlushSa(sa::SaFlush::default(), none()));
        lab.ask(&sas::dump(Vec::new()));
    });
}

/// Any requests about SAs in any order lead to the same, as far as the kernel comes without ESP.
#[test]
fn any_requests_about_sas_as_in_the_kernel() {
    for seed in 1..=20 {
        run_sas("any_requests_about_sas_as_in_the_kernel", move |lab| {
            sas::requests(lab, seed, 300);
        });
    }
}

/// What an SA says of its direction, and what it has, agree as in the kernel.
#[test]
fn sas_of_a_direction_as_in_the_kernel() {
    run_sas("sas_of_a_direction_as_in_the_kernel", sas::directions);
}

/// Packets without an SA: who listens is told of the policy, the packet and what is wanted, once;
/// what was wanted times out, as do SPIs, and is told of then.
#[test]
fn acquires_as_in_the_kernel() {
    run_sas("acquires_as_in_the_kernel", |lab| {
        packets::set_up();
        std::fs::write("/proc/sys/net/core/xfrm_acq_expires", "2").expect("a setting");
        let tunnel = template("192.0.2.1 192.0.2.2", 5);
        let bare = sa::XfrmId { proto: sa::ESP, ..sa::XfrmId::default() };
        let transport =
            Template { mode: Mode::TRANSPORT, id: bare, saddr: Address::default(), ..tunnel };
        let ah = Template { id: sa::XfrmId { proto: sa::AH, ..bare }, reqid: 6, ..transport };
        let lists = [vec![tunnel], vec![transport], vec![tunnel, ah], vec![ah]];
        let mut seen = 0;
        for (at, list) in lists.iter().enumerate() {
            let mut info = policy("10.0.0.0/8 10.0.0.0/8", OUT, 9);
            info.sel.proto = 17;
            let list = Attributes(vec![Attribute::Templates(list.clone())]);
            lab.name = format!("{list:?}");
            lab.ask(&Body::UpdatePolicy(info, list));
            let port = 5000 + u16::try_from(at).expect("few");
            let packet = Packet::udp("10.1.1.1", "10.2.1.1", (port, 53));
            seen += lab.acquire(&packet).len();
            assert_eq!(lab.acquire(&packet), [], "once");
        }
        assert_eq!(seen, lists.len() - 1, "the tunnel of the third is wanted already");
        lab.name = "time".to_owned();
        let told = lab.time_out(std::time::Duration::from_millis(3500));
        assert_eq!(told.len(), seen);
    });
}

/// SPIs that nobody used time out.
#[test]
fn spis_time_out_as_in_the_kernel() {
    run_sas("spis_time_out_as_in_the_kernel", |lab| {
        // Before the kernel is told otherwise, so that what is listed agrees.
        let inbound = sas::info("192.0.2.2 192.0.2.1", 0, 7);
        std::fs::write("/proc/sys/net/core/xfrm_acq_expires", "1").expect("a setting");
        for (spi, list) in
            [(0x100, vec![]), (0x101, vec![sas::mark(1, 1)]), (0x102, vec![Attribute::IfId(9)])]
        {
            lab.ask_unlike(&sas::allocate(inbound, spi, spi, list));
        }
        assert_eq!(lab.time_out(std::time::Duration::from_millis(2500)).len(), 3);
        lab.ask(&sas::dump(Vec::new()));
    });
}
