//! What is valid, and what comes of it.

use std::fs;
use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::DropReasons;
use culvert_engine::WorkerId;
use culvert_engine::options::Accepted;
use culvert_engine::options::Fragmentation;
use culvert_engine::options::IcmpKind;
use culvert_engine::options::Lookup;
use culvert_engine::options::Mss;
use culvert_engine::options::Sending;
use culvert_esp::Limits;
use culvert_esp::PaddingCheck;
use culvert_esp::ecn::DscpPolicy;
use culvert_esp::template::Df;
use culvert_esp::template::Dscp;
use culvert_esp::template::EcnMode;
use culvert_esp::template::FlowLabel;
use culvert_esp::template::Ttl;
use culvert_esp::tfc::TfcPadding;
use culvert_spd::AddressSelector;
use culvert_spd::Pfp;
use culvert_spd::PortSelector;
use culvert_spd::UpperSelector;

use super::*;

/// The file of the project's description, as far as one gateway's lab needs.
const FIRST_LIGHT: &str = r#"
[interfaces]
protected = ["lan0"]
unprotected = ["wan0"]
[lab]
static_keys = true          # without this line, keys in a file are refused
[[sa]]
name = "to-b"               # optional
direction = "outbound"      # inbound | outbound
spi = "0x1001"
mode = "tunnel"
source = "192.168.1.1"      # outer addresses, v4 or v6
destination = "192.168.2.1"
algorithm = "aes128gcm16"   # strongSwan's keywords
key = "000102030405060708090a0b0c0d0e0fa0a1a2a3"   # key, then 4 octets of salt
esn = false
sequence = 0                # last number used (outbound) or highest seen (inbound)
replay_window = 1024
encapsulation = { source_port = 4500, destination_port = 4500 }   # absent: raw ESP
[[policy]]
direction = "outbound"      # inbound policies bind what may come out of an SA
source = "10.1.0.0/16"
destination = "10.2.0.0/16"
action = "protect"          # protect | bypass | discard
sa = "to-b"
"#;

/// Every value of a valid file arrives where it belongs; a window that is not there is one of 1024
/// numbers (I09).
#[test]
fn a_good_file_is_read_in_full() {
    let config = Config::parse("gw.toml", GOOD).unwrap();
    assert_eq!(config.state_directory, Path::new("/var/lib/culvert"));
    assert_eq!(config.interfaces.protected, ["lan0"]);
    assert_eq!(config.interfaces.unprotected, ["wan0"]);
    assert_eq!(config.workers, Workers { count: Some(2), cores: vec![0, 1], ..Workers::default() });
    assert!(config.lab.static_keys);

    let [out, into] = config.sas.as_slice() else { panic!("two SAs") };
    assert_eq!(out.name.as_deref(), Some("to-b"));
    assert_eq!(out.direction, Direction::Outbound);
    assert_eq!((out.spi, out.mode, out.line), (0x1001, culvert_esp::Mode::Tunnel, 12));
    assert_eq!(out.source, IpAddr::from([192, 168, 1, 1]));
    assert_eq!(out.destination, IpAddr::from([192, 168, 2, 1]));
    assert_eq!(out.keymat.as_bytes()[..3], [0, 1, 2]);
    assert_eq!((out.esn, out.sequence, out.replay_window), (false, 7, 1024));
    assert_eq!(out.encapsulation, None);
    assert_eq!((into.spi, into.esn, into.sequence), (0x2001, true, 1 << 32));
    assert_eq!((into.keymat.len(), into.replay_window), (36, 65536));
    let ports = Encapsulation { source_port: 4501, destination_port: 4500 };
    assert_eq!(into.encapsulation, Some(ports));

    let line = |policy: &Policy| {
        let Policy { direction, selector, action, line, .. } = policy;
        let prefixes = |addresses: &AddressSelector| match addresses {
            AddressSelector::Any => "any".to_owned(),
            AddressSelector::Ranges(ranges) => ranges[0].to_string(),
        };
        let (source, destination) = (selector.source(), selector.destination());
        let (source, destination) = (prefixes(source), prefixes(destination));
        format!("{line} {direction} {source} {destination} {action:?}")
    };
    let lines: Vec<String> = config.policies.iter().map(line).collect();
    let expected = [
        "35 outbound 10.1.0.0/16 10.2.0.0/16 Protect { sas: [0] }",
        "41 inbound any 2001:db8:1::/48 Protect { sas: [1] }",
        "47 outbound any any Discard",
    ];
    assert_eq!(lines, expected);
}

/// Pinned interfaces stay closed after a stop, unless the file says otherwise.
#[test]
fn pins_and_what_a_stop_leaves() {
    let read = |lines: &str| {
        let text = spoiled("zero_copy = \"auto\"", lines);
        let Interfaces { take, pin, on_stop, .. } = Config::parse("f", &text).unwrap().interfaces;
        (take, pin, on_stop)
    };
    let path = |path: &str| Some(PathBuf::from(path));
    let usual = path("/sys/fs/bpf/culvert");
    assert_eq!(read("pin = true"), (Take::Policies, usual.clone(), OnStop::Close));
    assert_eq!(read("pin = true\non_stop = \"open\""), (Take::Policies, usual, OnStop::Open));
    let elsewhere = (Take::All, path("/run/bpf/gw"), OnStop::Close);
    assert_eq!(read("take = \"all\"\npin = \"/run/bpf/gw\"\non_stop = \"close\""), elsewhere);
    assert_eq!(read("pin = false\non_stop = \"open\""), (Take::Policies, None, OnStop::Open));
}

/// What may be left out has its documented default, and each other way to write a value works,
/// windows from 64 on (I09).
#[test]
fn defaults_and_other_spellings() {
    let config = Config::parse("f", "interfaces = {protected=['a'], unprotected=['b']}").unwrap();
    assert_eq!(config.interfaces.mode, Mode::Auto);
    assert_eq!(config.interfaces.zero_copy, ZeroCopy::Auto);
    assert!(!config.interfaces.jumbo);
    assert_eq!(config.interfaces.take, Take::Policies);
    assert_eq!((config.interfaces.pin, config.interfaces.on_stop), (None, OnStop::Open));
    assert_eq!(config.workers, Workers::default());
    assert!(!config.lab.static_keys && config.sas.is_empty() && config.policies.is_empty());
    assert_eq!(config.state_directory, Path::new(STATE_DIRECTORY));

    let jumbo = spoiled("zero_copy = \"auto\"", "jumbo = true");
    assert!(Config::parse("f", &jumbo).unwrap().interfaces.jumbo);
    let config = Config::parse("f", &spoiled("count = 2\n", "")).unwrap();
    assert_eq!(config.workers.count, Some(2), "as many as cores");
    let config = Config::parse("f", &spoiled("count = 2\n", "spread = 2048\n")).unwrap();
    assert_eq!((config.workers.count, config.workers.spread), (Some(2), Some(2048)));
    let config = Config::parse("f", &spoiled("count = 2\n", "busy_poll = 64\n")).unwrap();
    assert_eq!((config.workers.count, config.workers.busy_poll), (Some(2), Some(64)));
    let config = Config::parse("f", &spoiled("spi = \"0x1001\"", "spi = 0x1_001")).unwrap();
    assert_eq!(config.sas[0].spi, 0x1001);
    let ports = "{ source_port = 4501, destination_port = 4500 }";
    let config = Config::parse("f", &spoiled(ports, "{}")).unwrap();
    let default = Encapsulation { source_port: 4500, destination_port: 4500 };
    assert_eq!(config.sas[1].encapsulation, Some(default));
    let config = Config::parse("f", &spoiled("10.1.0.0/16", "10.1.2.3")).unwrap();
    assert_eq!(config.policies[0].selector.source().prefixes()[0].to_string(), "10.1.2.3/32");
    for window in [64, 65, 1000, 65535] {
        let text = spoiled("replay_window = 65536", &format!("replay_window = {window}"));
        assert_eq!(Config::parse("f", &text).unwrap().sas[1].replay_window, window);
    }
}

/// The example of the documentation and the file that the project began with are both valid.
#[test]
fn the_examples_are_valid() {
    let config = Config::parse("example.toml", Config::example()).unwrap();
    assert_eq!((config.sas.len(), config.policies.len()), (2, 2));
    let config = Config::parse("gw.toml", FIRST_LIGHT).unwrap();
    assert_eq!(
        (config.sas[0].spi, config.policies[0].action.clone()),
        (0x1001, Action::Protect { sas: vec![0] })
    );
}

/// Files: one that is not there, a directory, one that is not text, one that is too large, a good
/// one.
#[test]
fn files_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gw.toml");
    let name = path.display();
    let message = || Config::load(&path).unwrap_err().to_string();

    assert_eq!(
        message(),
        format!("{name}: cannot be read: No such file or directory (os error 2)")
    );
    let of_directory = Config::load(directory.path()).unwrap_err().to_string();
    assert!(of_directory.ends_with(": cannot be read: Is a directory (os error 21)"));
    fs::write(&path, b"[interfaces]\n# caf\xe9\n").unwrap();
    assert_eq!(message(), format!("{name}:2: TOML: expected text in UTF-8"));
    File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap();
    assert_eq!(message(), format!("{name}: cannot be read: it is larger than 64 MiB"));
    fs::write(&path, GOOD).unwrap();
    assert_eq!(Config::load(&path).unwrap().sas.len(), 2);
}

/// `Debug` of a configuration shows no digit of a key.
#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", Config::parse("gw.toml", GOOD).unwrap());
    assert!(shown.contains("Keymat(..)"), "{shown}");
    assert!(!shown.contains("0001020304") && !shown.contains("0, 1, 2, 3"), "{shown}");
}

/// A file in which every option of SAs and policies has a value of its own.
const FULL: &str = r#"
[interfaces]
protected = ["lan0"]
unprotected = ["wan0"]
[lab]
static_keys = true
[spd]
default = "bypass"
[ike]
bypass = true
[icmp]
accept = ["packet-too-big", "time-exceeded"]
addresses = ["10.1.0.1", "fd01::1"]
too_big = false
time_exceeded = false
prohibited = true
rate = 7
[audit]
reasons = ["icv", "selector"]
rate = 9
[notices]
invalid_spi = false
invalid_selectors = false
unusual_ecn = false
rate = 3
[[sa]]
name = "out"
direction = "outbound"
spi = 4097
source = "192.0.2.1"
destination = "192.0.2.2"
algorithm = "aes128gcm8"
allow_short_icv = true
key = "000102030405060708090a0b0c0d0e0fa0a1a2a3"
soft_lifetime = { seconds = 10, bytes = 11, packets = 12 }
hard_lifetime = { seconds = 20, bytes = 21 }
encapsulation = {}
behind_nat = true
dscp = { "10" = 46 }
ecn = "compatibility"
df = "set"
ttl = "copy"
tfc = 600
dummy_interval = 0.25
fragmentation = "after"
mss_clamp = 1200
trust_icmp = false
path_mtu_floor = 1000
[[sa]]
name = "around"
direction = "outbound"
protocol = "ah"
mode = "transport"
spi = 4098
source = "192.0.2.1"
destination = "192.0.2.2"
algorithm = "aes256gmac"
key = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3fa4a5a6a7"
[[sa]]
direction = "outbound"
group = "spread"
spi = 4099
source = "2001:db8::1"
destination = "2001:db8::2"
algorithm = "chacha20poly1305"
key = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5fa4a5a6a7"
flow_label = 0xabcde
encapsulation = {}
keepalive = 30
[[sa]]
direction = "outbound"
group = "spread"
resource = 3
spi = 4100
source = "2001:db8::1"
destination = "2001:db8::2"
algorithm = "null-sha256"
key = "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
[[sa]]
name = "in"
direction = "inbound"
mode = "transport"
spi = 8193
source = "192.0.2.2"
destination = "192.0.2.1"
algorithm = "aes256-sha512"
key = "@LONG_KEY@"
sequence_unspecified = true
lookup = "source"
selectors = [{ protocol = "udp", destination_ports = 53 }, { protocol = 47 }]
padding = "count"
icmp_errors = "policy"
original_source = "10.9.9.9"
[[sa]]
name = "in-tunnel"
direction = "inbound"
spi = 8194
source = "192.0.2.2"
destination = "192.0.2.1"
algorithm = "aes128gcm16"
key = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfa0a1a2a3"
replay_window = 0
decap_dscp = "copy"
[[policy]]
direction = "outbound"
source = ["10.1.0.0/24", "10.1.1.5-10.1.1.9"]
destination = "any"
protocol = "tcp"
source_ports = "1024-2047"
destination_ports = [80, 443]
fragments_too = true
action = "protect"
sa = ["out", "around"]
[[policy]]
direction = "outbound"
source = "any"
destination = "any"
protocol = "icmp"
icmp = ["3/0-3/4", 8]
action = "protect"
acquire = true
pfp = ["source", "destination_port"]
[[policy]]
direction = "outbound"
source = "any"
destination = "fd02::/64"
protocol = "mobility"
mobility = 5
action = "protect"
sa = "spread"
[[policy]]
direction = "inbound"
source = "any"
destination = "any"
protocol = "udp"
source_ports = "opaque"
destination_ports = "opaque"
action = "protect"
sa = ["in", "in-tunnel"]
"#;

fn full() -> Config {
    let key: String = (0..96).map(|octet| format!("{octet:02x}")).collect();
    Config::parse("full.toml", &FULL.replace("@LONG_KEY@", &key)).unwrap()
}

/// P18 E12 U06 M02: every option of an outbound SA arrives where it belongs.
#[test]
fn options_of_outbound_sas_are_read() {
    use culvert_esp::Mode;
    let config = full();
    let [out, around, spread, own, ..] = config.sas.as_slice() else { panic!("SAs") };
    assert_eq!((out.algorithm, out.mode), (Algorithm::Aes128Gcm8, Mode::Tunnel));
    let limits = |seconds, bytes, packets| Limits { seconds, bytes, packets, ..Limits::default() };
    assert_eq!(out.lifetime.soft(), limits(Some(10), Some(11), Some(12)));
    assert_eq!(out.lifetime.hard(), limits(Some(20), Some(21), None));
    let Dscp::Map(map) = &out.header.dscp else { panic!("a map") };
    assert_eq!((map[9], map[10], map[11]), (9, 46, 11));
    assert_eq!((out.header.ecn, out.header.df), (EcnMode::Compatibility, Df::Set));
    assert_eq!(out.header.ttl, Ttl::Copy);
    let sending = Sending {
        tfc: TfcPadding::To(600),
        dummy_interval: Some(250_000_000),
        keepalive: Some(20_000_000_000),
        fragmentation: Fragmentation::After,
        mss: Mss::To(1200),
        trusts_icmp: false,
        path_mtu_floor: Some(1000),
    };
    assert_eq!(out.sending, sending);
    assert_eq!((around.algorithm, around.mode), (Algorithm::AhAes256Gmac, Mode::Transport));
    let default = Sending { fragmentation: Fragmentation::After, ..Sending::default() };
    assert_eq!(around.sending, default, "in transport mode");
    assert_eq!(spread.header.flow_label, FlowLabel::Set(0xabcde));
    assert_eq!(spread.sending.keepalive, Some(30_000_000_000));
    assert_eq!((spread.resource, own.resource), (None, Some(WorkerId(3))));
    assert_eq!((spread.group.as_deref(), own.group.as_deref()), (Some("spread"), Some("spread")));
}

/// I04 I13 I21 P09 P21 P25 U08: every option of an inbound SA arrives where it belongs.
#[test]
fn options_of_inbound_sas_are_read() {
    let config = full();
    let [.., transport, tunnel] = config.sas.as_slice() else { panic!("SAs") };
    assert_eq!((transport.replay_window, transport.esn), (0, false));
    assert_eq!(transport.lookup, Lookup::SpiDestinationSource);
    assert_eq!(transport.keymat.len(), 96);
    let [dns, gre] = transport.selectors.as_slice() else { panic!("two selectors") };
    assert_eq!((dns.protocol(), gre.protocol()), (Some(17), Some(47)));
    assert_eq!(dns.source(), &AddressSelector::Any);
    let receiving = &transport.receiving;
    assert_eq!((receiving.padding, receiving.enclosed_errors), (PaddingCheck::Count, false));
    let original: (IpAddr, IpAddr) = ([10, 9, 9, 9].into(), [192, 0, 2, 1].into());
    assert_eq!(receiving.original, Some(original));
    assert_eq!((tunnel.replay_window, tunnel.lookup), (0, Lookup::SpiDestination));
    assert_eq!(tunnel.receiving.dscp, DscpPolicy::CopyOuter);
    assert!(
        tunnel.receiving.enclosed_errors,
        "RFC 4301 section 6.2: unless something else is said"
    );
}

/// P24: all kinds of ICMP errors are accepted unless the file says which, or none.
#[test]
fn kinds_of_icmp_errors_are_read() {
    let read = |lines: &str| {
        Config::parse("gw.toml", &GOOD.replace("[lab]", &format!("{lines}[lab]"))).unwrap().icmp
    };
    assert_eq!(read("").accepted, Accepted::ALL);
    for (value, accepted) in [
        ("'all'", Accepted::ALL),
        ("'none'", Accepted::NONE),
        ("['destination-unreachable']", Accepted::NONE.and(IcmpKind::DestinationUnreachable)),
        ("['parameter-problem']", Accepted::NONE.and(IcmpKind::ParameterProblem)),
    ] {
        assert_eq!(read(&format!("[icmp]\naccept = {value}\n")).accepted, accepted, "{value}");
    }
}

/// P05 P06 P07 P28: selectors, bundles and requests for SAs; what holds for the gateway.
#[test]
fn policies_and_settings_are_read() {
    let config = full();
    assert_eq!(config.default, DefaultAction::Bypass);
    let icmp = IcmpOptions {
        source_v4: Some([10, 1, 0, 1].into()),
        source_v6: Some("fd01::1".parse().unwrap()),
        too_big: false,
        time_exceeded: false,
        prohibited: true,
        rate: 7,
        accepted: Accepted::NONE.and(IcmpKind::PacketTooBig).and(IcmpKind::TimeExceeded),
    };
    let reasons = DropReasons::NONE.with(DropReason::Icv).with(DropReason::Selector);
    let off =
        NoticeOptions { invalid_spi: false, invalid_selectors: false, unusual_ecn: false, rate: 3 };
    assert_eq!(config.icmp, icmp);
    assert_eq!((config.audit, config.notices), (AuditOptions { reasons, rate: 9 }, off));
    let [bundle, unreachable, echo, mobility, opaque] = config.policies.as_slice() else {
        panic!("a list of ICMP types makes two policies")
    };
    assert_eq!(bundle.action, Action::Protect { sas: vec![0, 1] });
    let selector = &bundle.selector;
    let texts: Vec<String> = selector.source().prefixes().iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.1.0.0/24", "10.1.1.5/32", "10.1.1.6/31", "10.1.1.8/31"]);
    let ports = UpperSelector::Ports {
        source: (1024..=2047).into(),
        destination: PortSelector::Ranges(vec![80..=80, 443..=443]),
    };
    assert_eq!((selector.upper(), selector.fragments_too()), (&ports, true));
    assert_eq!(unreachable.selector.upper(), &UpperSelector::icmp((3, 0), (3, 4)));
    assert_eq!(echo.selector.upper(), &UpperSelector::icmp((8, 0), (8, 255)));
    let pfp = Pfp { source: true, destination_port: true, ..Pfp::NONE };
    assert_eq!((&echo.action, echo.pfp), (&Action::Acquire, pfp));
    assert_eq!(mobility.selector.upper(), &UpperSelector::Mobility(5..=5));
    assert_eq!(mobility.action, Action::Protect { sas: vec![2] }, "the first of the group");
    assert_eq!(opaque.selector.upper(), &UpperSelector::Opaque);
    assert_eq!(opaque.action, Action::Protect { sas: vec![4, 5] });
}

/// P29 P10 C07: without a word all is audited that can be, and everything told; `enabled` switches
/// audit off whatever else is said.
#[test]
fn audit_and_notices_have_switches() {
    let default = Config::parse("gw.toml", GOOD).unwrap();
    let all = AuditOptions { reasons: DropReasons::AUDITABLE, rate: 100 };
    assert_eq!((default.audit, default.notices), (all, NoticeOptions::default()));
    let notices = default.notices;
    assert!(notices.invalid_spi && notices.invalid_selectors && notices.unusual_ecn);
    for (lines, reasons) in [
        ("enabled = true", DropReasons::AUDITABLE),
        ("enabled = false", DropReasons::NONE),
        ("enabled = false\nreasons = ['icv']\nrate = 9", DropReasons::NONE),
        ("reasons = ['no_policy']", DropReasons::NONE.with(DropReason::NoPolicy)),
    ] {
        let text = spoiled("[lab]", &format!("[audit]\n{lines}\n[lab]"));
        assert_eq!(Config::parse("gw.toml", &text).unwrap().audit.reasons, reasons, "{lines}");
    }
}

/// I20: anti-replay with keys from the file is warned of, for inbound SAs that have it.
#[test]
fn anti_replay_with_static_keys_is_warned_of() {
    let good = Config::parse("gw.toml", GOOD).unwrap();
    let [warning] = good.warnings().try_into().unwrap();
    assert_eq!(
        warning,
        "the inbound SA `from-b` (line 23) has a key from the file and anti-replay, which \
         RFC 4303 section 5 advises against: a peer that counts from 1 again after a restart \
         is taken for an attacker; replay_window = 0 turns it off"
    );
    assert!(full().warnings().is_empty());
}
