//! The file as a whole, interfaces, workers, and what holds for the gateway.

use super::*;

pub(super) fn all() -> Vec<Mistake> {
    let topics = [
        broken_toml(),
        unknown_keys(),
        wrong_types(),
        interfaces(),
        modes(),
        workers_and_paths(),
        control(),
        settings(),
    ];
    topics.into_iter().flatten().collect()
}

/// Whatever is wrong outside SAs and policies is named.
#[test]
fn mistakes_outside_sas_are_refused() {
    check(&all());
}

/// Text that is not TOML: the line, and the key where one can be seen.
fn broken_toml() -> Vec<Mistake> {
    spoil(&[
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
    ])
}

/// Unknown keys in every table: the key, and the list of what is known there.
fn unknown_keys() -> Vec<Mistake> {
    spoil(&[
        (
            "[lab]",
            "[labs]",
            "gw.toml:10: labs: unknown key: expected one of state_directory, interfaces, \
             workers, control, lab, spd, ike, icmp, audit, notices, sa, policy",
        ),
        (
            "mode = \"auto\"",
            "state_directory = \"/x\"",
            "gw.toml:5: interfaces.state_directory: unknown key: expected one of protected, \
             unprotected, take, pin, on_stop, mode, zero_copy, jumbo; it belongs above the first \
             section",
        ),
        (
            "count = 2",
            "threads = 2",
            "gw.toml:8: workers.threads: unknown key: expected one of count, cores, spread, \
             busy_poll",
        ),
        (
            "static_keys = true",
            "static_key = true",
            "gw.toml:11: lab.static_key: unknown key: expected one of static_keys",
        ),
        (
            "spi = \"0x2001\"",
            "\"s\\np\\u0069\" = 1",
            "gw.toml:26: sa[1].s\\npi: unknown key: expected one of name, group, direction, spi, \
             protocol, mode, source, destination, algorithm, allow_short_icv, key, esn, sequence, \
             sequence_unspecified, replay_window, soft_lifetime, hard_lifetime, encapsulation, \
             behind_nat, keepalive, dscp, ecn, df, ttl, flow_label, tfc, dummy_interval, \
             fragmentation, mss_clamp, trust_icmp, path_mtu_floor, resource, lookup, selectors, \
             decap_dscp, padding, icmp_errors, original_source, original_destination",
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
             source, destination, protocol, source_ports, destination_ports, icmp, mobility, \
             fragments_too, action, sa, acquire, pfp",
        ),
    ])
}

/// Values of the wrong type.
fn wrong_types() -> Vec<Mistake> {
    spoil(&[
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
    ])
    .into_iter()
    .chain([Mistake::new(
        "interfaces = {protected=['a'], unprotected=['b']}\npolicy = 3",
        "gw.toml:2: policy: expected tables headed [[policy]], found `3`",
    )])
    .collect()
}

/// `[interfaces]`: both sides, names the kernel could have given, none twice.
fn interfaces() -> Vec<Mistake> {
    spoil(&[
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
    ])
}

/// `[interfaces]`: how they are used.
fn modes() -> Vec<Mistake> {
    spoil(&[
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
            "zero_copy = \"auto\"",
            "jumbo = 9000",
            "gw.toml:6: interfaces.jumbo: expected true or false, found `9000`",
        ),
        (
            "zero_copy = \"auto\"",
            "take = \"none\"",
            "gw.toml:6: interfaces.take: expected \"policies\" or \"all\", found `none`",
        ),
        (
            "zero_copy = \"auto\"",
            "pin = \"culvert\"",
            "gw.toml:6: interfaces.pin: expected true, false, or an absolute path on a BPF file \
             system, found `culvert`",
        ),
        (
            "zero_copy = \"auto\"",
            "pin = 1",
            "gw.toml:6: interfaces.pin: expected true, false, or an absolute path on a BPF file \
             system, found `1`",
        ),
        (
            "zero_copy = \"auto\"",
            "pin = true\non_stop = \"closed\"",
            "gw.toml:7: interfaces.on_stop: expected \"open\" or \"close\", found `closed`",
        ),
        (
            "zero_copy = \"auto\"",
            "pin = false\non_stop = \"close\"",
            "gw.toml:7: interfaces.on_stop: expected \"open\" without pin, which is what keeps \
             interfaces closed, found `close`",
        ),
        (
            "mode = \"auto\"\nzero_copy = \"auto\"",
            "mode = \"generic\"\nzero_copy = \"require\"",
            "gw.toml:6: interfaces.zero_copy: expected \"auto\" or \"off\" with mode = \
             \"generic\", which always copies, found `require`",
        ),
    ])
}

/// `[control]`.
fn control() -> Vec<Mistake> {
    let with = |lines: &str, message: &str| {
        let interfaces = "[interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\n";
        Mistake::new(format!("{interfaces}[control]\n{lines}\n"), message)
    };
    let long = format!("socket = \"/{}\"", "a".repeat(107));
    let path = "expected an absolute path of at most 107 octets";
    vec![
        with("socket = \"run\"", &format!("gw.toml:5: control.socket: {path}, found `run`")),
        with(&long, &format!("gw.toml:5: control.socket: {path}, found 108 characters")),
        with(
            "max_sas = 0",
            "gw.toml:5: control.max_sas: expected an integer from 1 to 1048576, found `0`",
        ),
        with(
            "mark = -1",
            "gw.toml:5: control.mark: expected an integer from 0 to 4294967295, found `-1`",
        ),
        with(
            "if_id = \"x\"",
            "gw.toml:5: control.if_id: expected an integer from 0 to 4294967295, found `x`",
        ),
        with(
            "sockets = 1",
            "gw.toml:5: control.sockets: unknown key: expected one of socket, max_sas, mark, if_id",
        ),
        Mistake::new(
            spoiled("[lab]", "[control]\n[lab]"),
            "gw.toml:13: sa: with [control], SAs and policies come from IKE",
        ),
    ]
}

/// `[workers]` and `state_directory`.
fn workers_and_paths() -> Vec<Mistake> {
    spoil(&[
        (
            "count = 2",
            "count = 0",
            "gw.toml:8: workers.count: expected an integer from 1 to 64, found `0`",
        ),
        (
            "count = 2",
            "spread = 63",
            "gw.toml:8: workers.spread: expected an integer from 64 to 9000, found `63`",
        ),
        (
            "count = 2",
            "busy_poll = 2049",
            "gw.toml:8: workers.busy_poll: expected an integer from 1 to 2048, found `2049`",
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
    ])
    .into_iter()
    .chain([many_cores()])
    .collect()
}

fn many_cores() -> Mistake {
    let cores: Vec<String> = (0..65).map(|core| core.to_string()).collect();
    let many = format!("cores = [{}]", cores.join(", "));
    Mistake::new(
        spoiled("count = 2\ncores = [0, 1]", &many),
        "gw.toml:8: workers.cores: expected at most 64 cores, found 65",
    )
}

/// `[spd]`, `[ike]`, `[icmp]`. P04: the bypass of IKE cannot be switched off.
fn settings() -> Vec<Mistake> {
    let case = |lines: &str, message: &str| {
        Mistake::new(spoiled("[lab]", &format!("{lines}\n[lab]")), format!("gw.toml:11: {message}"))
    };
    let addresses = "expected a list of IPv4 and IPv6 addresses, at most one of each";
    let accept = "expected \"all\", \"none\" or a list such as [\"packet-too-big\"]";
    vec![
        case(
            "[spd]\ndefault = \"protect\"",
            "spd.default: expected \"discard\" or \"bypass\", found `protect`",
        ),
        case(
            "[ike]\nbypass = false",
            "ike.bypass: expected true: without an entry that lets IKE pass (RFC 4301 section \
             4.4.1) no SA could ever be negotiated, and none replaced",
        ),
        case("[ike]\nbypass = 1", "ike.bypass: expected true or false, found `1`"),
        case(
            "[icmp]\naddresses = \"10.1.0.1\"",
            &format!("icmp.addresses: {addresses}, found `10.1.0.1`"),
        ),
        case(
            "[icmp]\naddresses = []",
            &format!("icmp.addresses: {addresses}, found an empty list"),
        ),
        case(
            "[icmp]\naddresses = [\"10.1.0.1/24\"]",
            "icmp.addresses[0]: expected an IPv4 or IPv6 address, found `10.1.0.1/24`",
        ),
        case(
            "[icmp]\naddresses = [\"10.1.0.1\", \"fd01::1\", \"10.1.0.2\"]",
            "icmp.addresses[2]: expected one address of each family at most, found `10.1.0.2`",
        ),
        case(
            "[icmp]\naddresses = [\"ff02::1\"]",
            "icmp.addresses[0]: expected the address of one host, found `ff02::1`",
        ),
        case("[icmp]\naccept = 1", &format!("icmp.accept: {accept}, found `1`")),
        case("[icmp]\naccept = \"some\"", &format!("icmp.accept: {accept}, found `some`")),
        case("[icmp]\naccept = []", &format!("icmp.accept: {accept}, found an empty list")),
        case(
            "[icmp]\naccept = [\"packet-too-big\", \"redirect\"]",
            "icmp.accept[1]: expected \"packet-too-big\", \"destination-unreachable\", \
             \"time-exceeded\" or \"parameter-problem\", found `redirect`",
        ),
        case("[icmp]\ntoo_big = 1", "icmp.too_big: expected true or false, found `1`"),
        case("[icmp]\ntime_exceeded = 1", "icmp.time_exceeded: expected true or false, found `1`"),
        case("[icmp]\nprohibited = 1", "icmp.prohibited: expected true or false, found `1`"),
        case("[icmp]\nrate = -1", "icmp.rate: expected an integer from 0 to 1000000, found `-1`"),
    ]
    .into_iter()
    .chain(audit_and_notices())
    .collect()
}

/// `[audit]` and `[notices]`. P29 P10 C07.
fn audit_and_notices() -> Vec<Mistake> {
    let case = |lines: &str, message: &str| {
        Mistake::new(spoiled("[lab]", &format!("{lines}\n[lab]")), format!("gw.toml:11: {message}"))
    };
    vec![
        case("[audit]\nenabled = 1", "audit.enabled: expected true or false, found `1`"),
        case(
            "[audit]\nreasons = []",
            "audit.reasons: expected a list of reasons such as [\"icv\", \"replay\"], found an \
             empty list",
        ),
        case(
            "[audit]\nreasons = [\"replay\", \"dummy\"]",
            "audit.reasons[1]: expected \"no_sa\", \"truncated\", \"fragment\", \"replay\", \
             \"icv\", \"trailer\", \"next_header\", \"selector\", \"bundle\", \"plaintext\", \
             \"no_policy\", \"discard\", \"no_outbound_sa\", \"sequence_exhausted\" or \
             \"icmp_unmapped\", found `dummy`",
        ),
        case(
            "[audit]\nrate = 1000001",
            "audit.rate: expected an integer from 0 to 1000000, found `1000001`",
        ),
        case(
            "[notices]\ninvalid_spi = 1",
            "notices.invalid_spi: expected true or false, found `1`",
        ),
        case(
            "[notices]\ninvalid_selectors = 1",
            "notices.invalid_selectors: expected true or false, found `1`",
        ),
        case(
            "[notices]\nunusual_ecn = 1",
            "notices.unusual_ecn: expected true or false, found `1`",
        ),
        case(
            "[notices]\nrate = -1",
            "notices.rate: expected an integer from 0 to 1000000, found `-1`",
        ),
    ]
}
