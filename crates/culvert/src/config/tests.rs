//! Tests of the whole: one bad file for each error, the examples, arbitrary text, the reference.

use std::fs;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

/// A valid file, to be spoiled in one place. The tests below name its lines.
const GOOD: &str = r#"state_directory = "/var/lib/culvert"
[interfaces]
protected = ["lan0"]
unprotected = ["wan0"]
mode = "auto"
zero_copy = "auto"
[workers]
count = 2
cores = [0, 1]
[lab]
static_keys = true
[[sa]]
name = "to-b"
direction = "outbound"
spi = "0x1001"
mode = "tunnel"
source = "192.168.1.1"
destination = "192.168.2.1"
algorithm = "aes128gcm16"
key = "000102030405060708090a0b0c0d0e0fa0a1a2a3"
esn = false
sequence = 7
[[sa]]
name = "from-b"
direction = "inbound"
spi = "0x2001"
source = "2001:db8::2"
destination = "2001:db8::1"
algorithm = "aes256gcm16"
key = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3fa4a5a6a7"
esn = true
sequence = 4294967296
replay_window = 65536
encapsulation = { source_port = 4501, destination_port = 4500 }
[[policy]]
direction = "outbound"
source = "10.1.0.0/16"
destination = "10.2.0.0/16"
action = "protect"
sa = "to-b"
[[policy]]
direction = "inbound"
source = "any"
destination = "2001:db8:1::/48"
action = "protect"
sa = "from-b"
[[policy]]
direction = "outbound"
source = "any"
destination = "any"
action = "discard"
"#;

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

/// `GOOD` with the first `from` made `to`.
fn spoiled(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good file has no {from:?}");
    GOOD.replacen(from, to, 1)
}

fn message_of(text: &str) -> String {
    match Config::parse("gw.toml", text) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Asserts the whole message of each (from, to, message).
fn assert_messages(cases: &[(&str, &str, &str)]) {
    for (from, to, message) in cases {
        assert_eq!(message_of(&spoiled(from, to)), *message, "for {from:?} -> {to:?}");
    }
}

/// Every value of a valid file arrives where it belongs.
#[test]
fn a_good_file_is_read_in_full() {
    let config = Config::parse("gw.toml", GOOD).unwrap();
    assert_eq!(config.state_directory, Path::new("/var/lib/culvert"));
    assert_eq!(config.interfaces.protected, ["lan0"]);
    assert_eq!(config.interfaces.unprotected, ["wan0"]);
    assert_eq!(config.workers, Workers { count: Some(2), cores: vec![0, 1] });
    assert!(config.lab.static_keys);

    let [out, into] = config.sas.as_slice() else { panic!("two SAs") };
    assert_eq!(out.name.as_deref(), Some("to-b"));
    assert_eq!(out.direction, Direction::Outbound);
    assert_eq!((out.spi, out.mode, out.line), (0x1001, SaMode::Tunnel, 12));
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
        let Policy { direction, source, destination, action, line } = policy;
        format!("{line} {direction} {source} {destination} {action:?}")
    };
    let lines: Vec<String> = config.policies.iter().map(line).collect();
    let expected = [
        "35 outbound 10.1.0.0/16 10.2.0.0/16 Protect { sa: 0 }",
        "41 inbound ::/0 2001:db8:1::/48 Protect { sa: 1 }",
        "47 outbound 0.0.0.0/0 0.0.0.0/0 Discard",
        "47 outbound ::/0 ::/0 Discard",
    ];
    assert_eq!(lines, expected);
}

/// What may be left out has its documented default, and each other way to write a value works.
#[test]
fn defaults_and_other_spellings() {
    let config = Config::parse("f", "interfaces = {protected=['a'], unprotected=['b']}").unwrap();
    assert_eq!(config.interfaces.mode, Mode::Auto);
    assert_eq!(config.interfaces.zero_copy, ZeroCopy::Auto);
    assert_eq!(config.workers, Workers { count: None, cores: vec![] });
    assert!(!config.lab.static_keys && config.sas.is_empty() && config.policies.is_empty());
    assert_eq!(config.state_directory, Path::new(STATE_DIRECTORY));

    let config = Config::parse("f", &spoiled("count = 2\n", "")).unwrap();
    assert_eq!(config.workers.count, Some(2), "as many as cores");
    let config = Config::parse("f", &spoiled("spi = \"0x1001\"", "spi = 0x1_001")).unwrap();
    assert_eq!(config.sas[0].spi, 0x1001);
    let ports = "{ source_port = 4501, destination_port = 4500 }";
    let config = Config::parse("f", &spoiled(ports, "{}")).unwrap();
    let default = Encapsulation { source_port: 4500, destination_port: 4500 };
    assert_eq!(config.sas[1].encapsulation, Some(default));
    let config = Config::parse("f", &spoiled("10.1.0.0/16", "10.1.2.3")).unwrap();
    assert_eq!(config.policies[0].source.to_string(), "10.1.2.3/32");
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
    assert_eq!((config.sas[0].spi, config.policies[0].action), (0x1001, Action::Protect { sa: 0 }));
}

/// Text that is not TOML: the line, and the key where one can be seen.
#[test]
fn broken_toml_is_named_by_line() {
    assert_messages(&[
        (
            "spi = \"0x1001\"",
            "spi = 0x",
            "gw.toml:15: sa[0].spi: expected an SPI such as \"0x1001\" or 4097, found `0x`",
        ),
        (
            "key = \"000102030405060708090a0b0c0d0e0fa0a1a2a3\"",
            "key = 000102030405060708090a0b0c0d0e0fa0a1a2a3",
            "gw.toml:20: key: unexpected leading zero, expected nothing",
        ),
        (
            "key = \"000102030405060708090a0b0c0d0e0fa0a1a2a3\"",
            "000102030405060708090a0b0c0d0e0fa0a1a2a3",
            "gw.toml:20: TOML: key with no value, expected `=`",
        ),
        (
            "key = \"000102030405060708090a0b0c0d0e0fa0a1a2a3\"",
            "000102030405060708090a0b0c0d0e0fa0a1a2a3 = key",
            "gw.toml:20: TOML: string values must be quoted, expected literal string",
        ),
        ("count = 2", "count = 2\ncount = 3", "gw.toml:9: count: duplicate key"),
        ("[lab]", "[lab", "gw.toml:10: TOML: unclosed table, expected `]`"),
        ("[lab]", "[workers]", "gw.toml:10: TOML: duplicate key"),
    ]);
}

/// Unknown keys in every table: the key, and the list of what is known there.
#[test]
fn unknown_keys_are_refused() {
    assert_messages(&[
        (
            "[lab]",
            "[labs]",
            "gw.toml:10: labs: unknown key: expected one of state_directory, interfaces, \
             workers, lab, sa, policy",
        ),
        (
            "mode = \"auto\"",
            "state_directory = \"/x\"",
            "gw.toml:5: interfaces.state_directory: unknown key: expected one of protected, \
             unprotected, mode, zero_copy; it belongs above the first section",
        ),
        (
            "count = 2",
            "threads = 2",
            "gw.toml:8: workers.threads: unknown key: expected one of count, cores",
        ),
        (
            "static_keys = true",
            "static_key = true",
            "gw.toml:11: lab.static_key: unknown key: expected one of static_keys",
        ),
        (
            "spi = \"0x2001\"",
            "\"s\\np\\u0069\" = 1",
            "gw.toml:26: sa[1].s\\npi: unknown key: expected one of name, direction, spi, mode, \
             source, destination, algorithm, key, esn, sequence, replay_window, encapsulation",
        ),
        (
            "source_port = 4501",
            "port = 4501",
            "gw.toml:34: sa[1].encapsulation.port: unknown key: expected one of source_port, \
             destination_port",
        ),
        (
            "action = \"protect\"",
            "000102030405060708090a0b0c0d0e0f = 1",
            "gw.toml:39: policy[0].(32 characters): unknown key: expected one of direction, \
             source, destination, action, sa",
        ),
    ]);
}

/// Values of the wrong type.
#[test]
fn wrong_types_are_refused() {
    assert_messages(&[
        ("[lab]", "[[lab]]", "gw.toml:10: lab: expected a table, found an array"),
        ("[[sa]]", "[sa]", "gw.toml:23: TOML: duplicate key"),
        (
            "[lab]",
            "[lab.static_keys]",
            "gw.toml:10: lab.static_keys: expected true or false, found a table",
        ),
        (
            "[\"lan0\"]",
            "\"lan0\"",
            "gw.toml:3: interfaces.protected: expected a list of interface names such as \
             [\"eth0\"], found `lan0`",
        ),
        (
            "[\"lan0\"]",
            "[\"lan0\", 1]",
            "gw.toml:3: interfaces.protected[1]: expected an interface name of 1 to 15 octets, \
             found `1`",
        ),
        (
            "static_keys = true",
            "static_keys = \"yes\"",
            "gw.toml:11: lab.static_keys: expected true or false, found `yes`",
        ),
        (
            "name = \"to-b\"",
            "name = 1.5",
            "gw.toml:13: sa[0].name: expected a name of 1 to 64 letters, digits, \"-\", \"_\" or \
             \".\", found a float",
        ),
        (
            "direction = \"outbound\"",
            "direction = 1979-05-27",
            "gw.toml:14: sa[0].direction: expected \"inbound\" or \"outbound\", found a date",
        ),
        (
            "sequence = 7",
            "sequence = \"7\"",
            "gw.toml:22: sa[0].sequence: expected an integer from 0 to 4294967295, found `7`",
        ),
        (
            "encapsulation = { source_port = 4501, destination_port = 4500 }",
            "encapsulation = true",
            "gw.toml:34: sa[1].encapsulation: expected a table, found `true`",
        ),
        (
            "key = \"000102030405060708090a0b0c0d0e0fa0a1a2a3\"",
            "key = 0x0001020304",
            "gw.toml:20: sa[0].key: expected 40 hexadecimal digits (16 octets of key, then 4 of \
             salt) for aes128gcm16, found an integer",
        ),
    ]);
    let text = "interfaces = {protected=['a'], unprotected=['b']}\npolicy = 3";
    assert_eq!(message_of(text), "gw.toml:2: policy: expected tables headed [[policy]], found `3`");
}

/// `[interfaces]`: both sides, names the kernel could have given, none twice.
#[test]
fn bad_interfaces_are_refused() {
    assert_messages(&[
        (
            "[interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\nmode = \"auto\"\n\
             zero_copy = \"auto\"\n",
            "",
            "gw.toml:1: interfaces: missing: expected a section [interfaces] that names both sides",
        ),
        (
            "unprotected = [\"wan0\"]\n",
            "",
            "gw.toml:2: interfaces.unprotected: missing: expected a list of interface names such \
             as [\"eth0\"]",
        ),
        (
            "[\"lan0\"]",
            "[]",
            "gw.toml:3: interfaces.protected: expected a list of interface names such as \
             [\"eth0\"], found an empty list",
        ),
        (
            "[\"wan0\"]",
            "[\n  \"wan0\",\n  \"lan0\",\n]",
            "gw.toml:6: interfaces.unprotected[1]: expected an interface that is not yet \
             protected, found `lan0`",
        ),
        (
            "[\"wan0\"]",
            "[\"wan0\", \"wan0\"]",
            "gw.toml:4: interfaces.unprotected[1]: expected an interface that is not yet \
             unprotected, found `wan0`",
        ),
        (
            "\"lan0\"",
            "\"sixteen-octets-x\"",
            "gw.toml:3: interfaces.protected[0]: expected an interface name of 1 to 15 octets, \
             found `sixteen-octets-x`",
        ),
        (
            "\"lan0\"",
            "\"a/b\"",
            "gw.toml:3: interfaces.protected[0]: expected an interface name of 1 to 15 octets, \
             found `a/b`",
        ),
        (
            "[\"wan0\"]",
            "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\"]",
            "gw.toml:4: interfaces.unprotected: expected at most 8 interfaces on both sides, \
             found 9",
        ),
        (
            "mode = \"auto\"",
            "mode = \"skb\"",
            "gw.toml:5: interfaces.mode: expected \"auto\", \"native\" or \"generic\", found `skb`",
        ),
        (
            "zero_copy = \"auto\"",
            "zero_copy = true",
            "gw.toml:6: interfaces.zero_copy: expected \"auto\", \"off\" or \"require\", found \
             `true`",
        ),
        (
            "mode = \"auto\"\nzero_copy = \"auto\"",
            "mode = \"generic\"\nzero_copy = \"require\"",
            "gw.toml:6: interfaces.zero_copy: expected \"auto\" or \"off\" with mode = \
             \"generic\", which always copies, found `require`",
        ),
    ]);
}

/// `[workers]` and `state_directory`.
#[test]
fn bad_workers_and_paths_are_refused() {
    assert_messages(&[
        (
            "count = 2",
            "count = 0",
            "gw.toml:8: workers.count: expected an integer from 1 to 64, found `0`",
        ),
        (
            "count = 2",
            "count = 65",
            "gw.toml:8: workers.count: expected an integer from 1 to 64, found `65`",
        ),
        (
            "count = 2",
            "count = 3",
            "gw.toml:9: workers.cores: expected 3 cores, one for each worker of workers.count, \
             found 2",
        ),
        (
            "cores = [0, 1]",
            "cores = []",
            "gw.toml:9: workers.cores: expected a list of core numbers such as [0, 1], found an \
             empty list",
        ),
        (
            "cores = [0, 1]",
            "cores = [1, 1]",
            "gw.toml:9: workers.cores[1]: expected a core of its own for each worker, found `1`",
        ),
        (
            "cores = [0, 1]",
            "cores = [0, -1]",
            "gw.toml:9: workers.cores[1]: expected an integer from 0 to 8191, found `-1`",
        ),
        (
            "\"/var/lib/culvert\"",
            "\"lib\"",
            "gw.toml:1: state_directory: expected an absolute path, found `lib`",
        ),
    ]);
    let cores: Vec<String> = (0..65).map(|core| core.to_string()).collect();
    let many = format!("cores = [{}]", cores.join(", "));
    assert_eq!(
        message_of(&spoiled("count = 2\ncores = [0, 1]", &many)),
        "gw.toml:8: workers.cores: expected at most 64 cores, found 65"
    );
}

/// Keys in a file need the lab's word, and the message says why. // G05
#[test]
fn static_keys_are_refused_outside_a_lab() {
    let why = "sa[0].key: refused without `static_keys = true` in [lab]: a restart with the same \
               key can use a nonce twice, which lays AES-GCM open (RFC 4106 section 2); keys in a \
               file are for labs and tests";
    assert_messages(&[
        ("static_keys = true", "static_keys = false", &format!("gw.toml:20: {why}")),
        ("[lab]\nstatic_keys = true\n", "", &format!("gw.toml:18: {why}")),
    ]);
}

/// `[[sa]]`: names and words.
#[test]
fn bad_words_are_refused() {
    let name = "expected a name of 1 to 64 letters, digits, \"-\", \"_\" or \".\"";
    assert_messages(&[
        ("\"to-b\"", "\"\"", &format!("gw.toml:13: sa[0].name: {name}, found ``")),
        ("\"to-b\"", "\"to/b\"", &format!("gw.toml:13: sa[0].name: {name}, found `to/b`")),
        (
            "direction = \"outbound\"\n",
            "",
            "gw.toml:12: sa[0].direction: missing: expected \"inbound\" or \"outbound\"",
        ),
        (
            "\"outbound\"",
            "\"out\"",
            "gw.toml:14: sa[0].direction: expected \"inbound\" or \"outbound\", found `out`",
        ),
        (
            "\"tunnel\"",
            "\"transport\"",
            "gw.toml:16: sa[0].mode: transport mode is not supported yet: expected \"tunnel\"",
        ),
        ("\"tunnel\"", "\"beet\"", "gw.toml:16: sa[0].mode: expected \"tunnel\", found `beet`"),
    ]);
}

/// `[[sa]]`: outer addresses, of one host and one family.
#[test]
fn bad_addresses_are_refused() {
    assert_messages(&[
        (
            "\"192.168.1.1\"",
            "\"192.168.1.1/32\"",
            "gw.toml:17: sa[0].source: expected an IPv4 or IPv6 address, found `192.168.1.1/32`",
        ),
        (
            "\"192.168.2.1\"",
            "\"2001:db8::9\"",
            "gw.toml:18: sa[0].destination: expected an IPv4 address, as the source is one, found \
             `2001:db8::9`",
        ),
        (
            "\"2001:db8::1\"",
            "\"192.0.2.1\"",
            "gw.toml:28: sa[1].destination: expected an IPv6 address, as the source is one, found \
             `192.0.2.1`",
        ),
        (
            "\"192.168.2.1\"",
            "\"255.255.255.255\"",
            "gw.toml:18: sa[0].destination: expected the address of one host, found \
             `255.255.255.255`",
        ),
        (
            "\"2001:db8::1\"",
            "\"ff02::1\"",
            "gw.toml:28: sa[1].destination: expected the address of one host, found `ff02::1`",
        ),
        (
            "\"192.168.1.1\"",
            "\"0.0.0.0\"",
            "gw.toml:17: sa[0].source: expected the address of one host, found `0.0.0.0`",
        ),
    ]);
}

/// `[[sa]]`: sequence numbers and windows. // I09
#[test]
fn bad_numbers_are_refused() {
    assert_messages(&[
        ("esn = false", "esn = 0", "gw.toml:21: sa[0].esn: expected true or false, found `0`"),
        (
            "sequence = 7",
            "sequence = 4294967296",
            "gw.toml:22: sa[0].sequence: expected an integer from 0 to 4294967295, the last \
             number without esn = true, found `4294967296`",
        ),
        (
            "sequence = 4294967296",
            "sequence = 18446744073709551616",
            "gw.toml:32: sa[1].sequence: expected an integer from 0 to 18446744073709551615, \
             found 20 characters",
        ),
        (
            "replay_window = 65536",
            "replay_window = 65537",
            "gw.toml:33: sa[1].replay_window: expected an integer from 64 to 65536, found `65537`",
        ),
        (
            "replay_window = 65536",
            "replay_window = 63",
            "gw.toml:33: sa[1].replay_window: expected an integer from 64 to 65536, found `63`",
        ),
    ]);
}

/// SPIs: a number of 32 bits, none that is reserved. // E06
#[test]
fn bad_spis_are_refused() {
    let such = "sa[0].spi: expected an SPI such as \"0x1001\" or 4097";
    let range = "sa[0].spi: expected an SPI from 0x100 to 0xffffffff (RFC 4303 section 2.1 \
                 reserves 0 to 255)";
    let spi = "\"0x1001\"";
    assert_messages(&[
        ("spi = \"0x1001\"\n", "", &format!("gw.toml:12: sa[0].spi: missing: {}", &such[11..])),
        (spi, "\"0xspi\"", &format!("gw.toml:15: {such}, found `0xspi`")),
        (spi, "\"1001\"", &format!("gw.toml:15: {such}, found `1001`")),
        (spi, "\"0x+1001\"", &format!("gw.toml:15: {such}, found `0x+1001`")),
        (spi, "-4097", &format!("gw.toml:15: {such}, found `-4097`")),
        (spi, "true", &format!("gw.toml:15: {such}, found `true`")),
        (spi, "0", &format!("gw.toml:15: {range}, found `0`")),
        (spi, "\"0xff\"", &format!("gw.toml:15: {range}, found `0xff`")),
        (spi, "\"0x100000000\"", &format!("gw.toml:15: {range}, found `0x100000000`")),
        (spi, "4294967296", &format!("gw.toml:15: {range}, found `4294967296`")),
    ]);
    for good in ["\"0x100\"", "256", "\"0XFFFFFFFF\""] {
        assert_eq!(message_of(&spoiled(spi, good)), "accepted");
    }
}

/// Algorithms: the keywords, and why the weak ones are refused.
#[test]
fn bad_algorithms_are_refused() {
    let one_of = "expected one of aes128gcm16, aes192gcm16, aes256gcm16";
    let blocks = "its blocks of 64 bits repeat too soon (RFC 8221 section 5)";
    let line = "gw.toml:19: sa[0].algorithm:";
    let spoil = |to: &str| message_of(&spoiled("\"aes128gcm16\"", &format!("\"{to}\"")));
    assert_eq!(spoil("aes128gcm8"), format!("{line} {one_of}, found `aes128gcm8`"));
    assert_eq!(spoil("AES128GCM16"), format!("{line} {one_of}, found `AES128GCM16`"));
    assert_eq!(spoil("desert"), format!("{line} {one_of}, found `desert`"));
    let des = "its key of 56 bits can be searched (RFC 8221 section 5)";
    let md5 = "its hash is broken (RFC 8221 section 6)";
    for (keyword, word, reason) in [
        ("des", "des", des),
        ("DES-sha256", "des", des),
        ("3des", "3des", blocks),
        ("blowfish128", "blowfish", blocks),
        ("cast128", "cast", blocks),
        ("aes128-md5", "md5", md5),
        ("aes128-hmac_md5_96", "md5", md5),
        ("null-null", "null", "it encrypts nothing"),
        ("aes128gmac", "aes128gmac", "it encrypts nothing (RFC 4543)"),
    ] {
        assert_eq!(spoil(keyword), format!("{line} {word} is refused, {reason}: {one_of}"));
    }
}

/// Keys: digits and length; a digit of the key is never in the message.
#[test]
fn bad_keys_are_refused() {
    let expected = "expected 40 hexadecimal digits (16 octets of key, then 4 of salt) for \
                    aes128gcm16";
    let key = "\"000102030405060708090a0b0c0d0e0fa0a1a2a3\"";
    assert_messages(&[
        (
            "key = \"000102030405060708090a0b0c0d0e0fa0a1a2a3\"\n",
            "",
            &format!("gw.toml:12: sa[0].key: missing: {expected}"),
        ),
        (
            key,
            "\"000102030405060708090a0b0c0d0e0fa0a1a2\"",
            &format!("gw.toml:20: sa[0].key: {expected}, found 38"),
        ),
        (key, "\"\"", &format!("gw.toml:20: sa[0].key: {expected}, found 0")),
        (
            key,
            "\"0x000102030405060708090a0b0c0d0e0fa0a1a2\"",
            &format!("gw.toml:20: sa[0].key: {expected}, found something else at character 2"),
        ),
        (
            "\"aes256gcm16\"",
            "\"aes192gcm16\"",
            "gw.toml:30: sa[1].key: expected 56 hexadecimal digits (24 octets of key, then 4 of \
             salt) for aes192gcm16, found 72",
        ),
    ]);
}

/// Ports of UDP encapsulation. // U01
#[test]
fn bad_ports_are_refused() {
    let ike = "expected a port other than 500, which is for IKE alone (RFC 7296 section 2.23), \
               found `500`";
    let source = "gw.toml:34: sa[1].encapsulation.source_port:";
    let destination = "gw.toml:34: sa[1].encapsulation.destination_port:";
    let range = "expected an integer from 1 to 65535";
    assert_messages(&[
        ("4501", "0", &format!("{source} {range}, found `0`")),
        ("4501", "65536", &format!("{source} {range}, found `65536`")),
        ("4501", "500", &format!("{source} {ike}")),
        ("4500", "500", &format!("{destination} {ike}")),
        (
            "4500",
            "4502",
            &format!(
                "{destination} expected 4500, the one port at which encapsulated ESP is \
                 received, found `4502`"
            ),
        ),
    ]);
}

/// An address no SA of `GOOD` has.
const OTHER: &str = "198.51.100.1";

/// One more `[[sa]]` of seven lines, without a name, to be appended to `GOOD` at line 52.
fn sa(direction: &str, spi: u32, destination: &str, salt: &str) -> String {
    format!(
        "[[sa]]\ndirection = '{direction}'\nspi = {spi}\nsource = '192.0.2.1'\n\
         destination = '{destination}'\nalgorithm = 'aes128gcm16'\n\
         key = 'ffeeddccbbaa99887766554433221100{salt}'\n"
    )
}

fn message_with(sas: &[String]) -> String {
    message_of(&format!("{GOOD}{}", sas.concat()))
}

/// No two SAs have one name, and no two that the receiver must tell apart one SPI.
#[test]
fn same_names_and_spis_are_refused() {
    assert_messages(&[(
        "name = \"from-b\"",
        "name = \"to-b\"",
        "gw.toml:24: sa[1].name: expected a name of its own, found `to-b`, the SA of line 12",
    )]);
    assert_eq!(
        message_with(&[sa("inbound", 0x2001, OTHER, "00000000")]),
        "gw.toml:54: sa[2].spi: expected an SPI that no other inbound SA has, found 0x2001, the \
         SPI of the SA `from-b` (line 23)"
    );
    assert_eq!(
        message_with(&[sa("outbound", 0x1001, "192.168.2.1", "00000000")]),
        "gw.toml:54: sa[2].spi: expected an SPI that no other outbound SA to 192.168.2.1 has, \
         found 0x1001, the SPI of the SA `to-b` (line 12)"
    );
}

/// No two SAs of which one is outbound have one key and salt, and the message names both. // G02
#[test]
fn same_keys_are_refused() {
    let twice = |one: &str, two: &str| {
        message_with(&[sa(one, 0x3001, OTHER, "00000000"), sa(two, 0x3002, OTHER, "00000000")])
    };
    for (one, two) in [("outbound", "outbound"), ("inbound", "outbound"), ("outbound", "inbound")] {
        assert_eq!(
            twice(one, two),
            format!(
                "gw.toml:65: sa[3].key: expected a key or salt of its own: the {two} SA of line \
                 59 has those of the {one} SA of line 52, so one nonce would be used twice (RFC \
                 4106 section 2)"
            )
        );
    }
    assert_eq!(
        message_of(&spoiled(
            "aes256gcm16\"\nkey = \"202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d\
             3e3fa4a5a6a7\"",
            "aes128gcm16\"\nkey = \"000102030405060708090A0B0C0D0E0FA0A1A2A3\"",
        )),
        "gw.toml:30: sa[1].key: expected a key or salt of its own: the inbound SA `from-b` (line \
         23) has those of the outbound SA `to-b` (line 12), so one nonce would be used twice \
         (RFC 4106 section 2)"
    );
}

/// What is not a clash: the other direction, another destination, another salt, two receivers.
#[test]
fn what_sas_may_share() {
    for sas in [
        [sa("inbound", 0x1001, OTHER, "00000000"), sa("outbound", 0x2001, OTHER, "00000001")],
        [sa("outbound", 0x1001, OTHER, "00000000"), sa("outbound", 0x3001, OTHER, "00000001")],
        [sa("inbound", 0x3001, OTHER, "00000000"), sa("inbound", 0x3002, OTHER, "00000000")],
    ] {
        assert_eq!(message_with(&sas), "accepted");
    }
}

/// `[[policy]]`: selectors, of one family.
#[test]
fn bad_selectors_are_refused() {
    let such = "expected a prefix such as 10.1.0.0/16, an address, or \"any\"";
    assert_messages(&[
        (
            "source = \"10.1.0.0/16\"\n",
            "",
            &format!("gw.toml:35: policy[0].source: missing: {such}"),
        ),
        ("10.1.0.0/16", "lan", &format!("gw.toml:37: policy[0].source: {such}, found `lan`")),
        (
            "10.1.0.0/16",
            "10.1.0.0/33",
            &format!("gw.toml:37: policy[0].source: {such}, found `10.1.0.0/33`"),
        ),
        (
            "10.1.0.0/16",
            "10.1.2.3/16",
            "gw.toml:37: policy[0].source: expected a prefix without host bits, found \
             `10.1.2.3/16`: did you mean 10.1.0.0/16?",
        ),
        (
            "10.2.0.0/16",
            "fd00::/8",
            "gw.toml:38: policy[0].destination: expected an IPv4 prefix, as the source is one, \
             found `fd00::/8`",
        ),
    ]);
}

/// `[[policy]]`: actions and their SAs. // P02
#[test]
fn bad_actions_are_refused() {
    let an_sa = "expected the name of an outbound SA for action = \"protect\"";
    let sa = "action = \"protect\"\nsa = \"to-b\"";
    assert_messages(&[
        (
            "\"protect\"",
            "\"encrypt\"",
            "gw.toml:39: policy[0].action: expected \"protect\", \"bypass\" or \"discard\", found \
             `encrypt`",
        ),
        (sa, "action = \"protect\"", &format!("gw.toml:35: policy[0].sa: missing: {an_sa}")),
        (
            sa,
            "action = \"bypass\"\nsa = \"to-b\"",
            "gw.toml:40: policy[0].sa: expected no SA but for action = \"protect\"",
        ),
        (
            sa,
            "action = \"discard\"\nsa = \"to-b\"",
            "gw.toml:40: policy[0].sa: expected no SA but for action = \"protect\"",
        ),
        (
            "sa = \"to-b\"",
            "sa = \"to-c\"",
            &format!("gw.toml:40: policy[0].sa: {an_sa}, found no SA `to-c`"),
        ),
        (
            "sa = \"to-b\"",
            "sa = \"from-b\"",
            &format!("gw.toml:40: policy[0].sa: {an_sa}, found the inbound SA `from-b` (line 23)"),
        ),
        (
            "sa = \"from-b\"",
            "sa = \"to-b\"",
            "gw.toml:46: policy[1].sa: expected the name of an inbound SA for action = \
             \"protect\", found the outbound SA `to-b` (line 12)",
        ),
    ]);
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

/// Every key that is read has its row in the reference, in its section, and the reference shows
/// the example as it is.
#[test]
fn the_reference_names_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let reference = fs::read_to_string(path).unwrap();
    let sections: [(&str, &[&str]); 7] = [
        ("The file", &KEYS),
        ("`[interfaces]`", &INTERFACES_KEYS),
        ("`[workers]`", &WORKERS_KEYS),
        ("`[lab]`", &LAB_KEYS),
        ("`[[sa]]`", &sa::KEYS),
        ("`encapsulation`", &sa::ENCAPSULATION_KEYS),
        ("`[[policy]]`", &policy::KEYS),
    ];
    for (title, keys) in sections {
        let section = reference
            .split("\n## ")
            .find(|section| section.lines().next() == Some(title))
            .unwrap_or_else(|| panic!("no section {title}"));
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let rows: Vec<&str> = rows.filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(rows, keys, "the rows of {title}");
    }
    assert!(reference.contains(&format!("```toml\n{}```", Config::example())));
}

/// No panic, and one line, whatever the text.
fn parse_is_tame(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = Config::parse("gw.toml", text) {
        let message = error.to_string();
        prop_assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
        prop_assert!(message.starts_with("gw.toml:"), "{message:?}");
    }
    Ok(())
}

proptest! {
    /// Arbitrary text is refused or read, never a panic.
    #[test]
    fn arbitrary_text_is_tame(text in any::<String>()) {
        parse_is_tame(&text)?;
    }

    /// So is text that is nearly right: a valid file with some lines gone, doubled, or with an
    /// arbitrary value.
    #[test]
    fn nearly_valid_text_is_tame(
        edits in prop::collection::vec((0..50_usize, 0..3_u8, "[ -~]{0,12}"), 1..4),
    ) {
        let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
        for (at, kind, value) in edits {
            let at = at % lines.len();
            let line = lines[at].clone();
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, line),
                _ => lines[at] = line.split('=').next().unwrap_or("").to_owned() + "=" + &value,
            }
        }
        parse_is_tame(&lines.join("\n"))?;
    }

    /// Wherever a key stands in the file, in quotes or without, in whatever piece or notation, no
    /// message quotes 16 digits of it.
    #[test]
    fn keys_stay_out_of_messages(
        line in 0..51_usize,
        length in 16..=40_usize,
        form in 0..6_u8,
    ) {
        let key = &"f0e1d2c3b4a5968778695a4b3c2d1e0fabcdef01"[..length];
        let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
        let line = line % lines.len();
        let name = lines[line].split(" =").next().unwrap_or("").to_owned();
        lines[line] = match form {
            0 => format!("{name} = \"{key}\""),
            1 => format!("{name} = 0x{key}"),
            2 => format!("{name} = {key}"),
            3 => format!("{key} = \"{name}\""),
            4 => format!("{key} = {name}"),
            _ => key.to_owned(),
        };
        let message = message_of(&lines.join("\n"));
        prop_assert!(!message.contains(&key[..16]), "{message}");
    }
}
