//! One SA: its identity, algorithm and key, numbers, ports.

use culvert_aead::Algorithm;
use culvert_aead::Protocol;

use super::*;

pub(super) fn all() -> Vec<Mistake> {
    let topics =
        [static_keys(), words(), addresses(), numbers(), spis(), algorithms(), keys(), ports()];
    topics.into_iter().flatten().collect()
}

/// Whatever is wrong with what every SA has is named: reserved SPIs (E06), keys in a file where the
/// lab has no word (G05), algorithms that must not be (G04, G11, G12), ESN without a window (I21).
#[test]
fn mistakes_in_sas_are_refused() {
    check(&all());
}

/// Keys in a file need the lab's word, and the message says why. // G05
fn static_keys() -> Vec<Mistake> {
    let why = "sa[0].key: refused without `static_keys = true` in [lab]: a restart with the same \
               key can use a nonce twice, which lays AES-GCM open (RFC 4106 section 2); keys in a \
               file are for labs and tests";
    spoil(&[
        ("static_keys = true", "static_keys = false", &format!("gw.toml:20: {why}")),
        ("[lab]\nstatic_keys = true\n", "", &format!("gw.toml:18: {why}")),
    ])
}

/// `[[sa]]`: names and words.
fn words() -> Vec<Mistake> {
    let name = "expected a name of 1 to 64 letters, digits, \"-\", \"_\" or \".\"";
    spoil(&[
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
            "\"beet\"",
            "gw.toml:16: sa[0].mode: expected \"tunnel\" or \"transport\", found `beet`",
        ),
        (
            "mode = \"tunnel\"",
            "protocol = \"gre\"",
            "gw.toml:16: sa[0].protocol: expected \"esp\" or \"ah\", found `gre`",
        ),
        (
            "mode = \"tunnel\"",
            "group = \"all sites\"",
            &format!("gw.toml:16: sa[0].group: {name}, found `all sites`"),
        ),
    ])
}

/// `[[sa]]`: outer addresses, of one host and one family.
fn addresses() -> Vec<Mistake> {
    spoil(&[
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
            "\"2001:db8::2\"",
            "\"ff02::1\"",
            "gw.toml:27: sa[1].source: expected the address of one host, found `ff02::1`",
        ),
        (
            "\"192.168.1.1\"",
            "\"0.0.0.0\"",
            "gw.toml:17: sa[0].source: expected the address of one host, found `0.0.0.0`",
        ),
    ])
}

/// `[[sa]]`: sequence numbers and windows. I09, I21: no anti-replay, or numbers that say
/// nothing, and extended numbers exclude each other.
fn numbers() -> Vec<Mistake> {
    let window = "expected 0 for no anti-replay, or an integer from 64 to 65536 (RFC 4303 section \
                  3.4.3 asks for 32 and prefers 64)";
    spoil(&[
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
            &format!("gw.toml:33: sa[1].replay_window: {window}, found `65537`"),
        ),
        (
            "replay_window = 65536",
            "replay_window = 63",
            &format!("gw.toml:33: sa[1].replay_window: {window}, found `63`"),
        ),
        (
            "replay_window = 65536",
            "replay_window = 32",
            &format!("gw.toml:33: sa[1].replay_window: {window}, found `32`"),
        ),
        (
            "replay_window = 65536",
            "replay_window = 0",
            "gw.toml:31: sa[1].esn: expected false with replay_window = 0: without anti-replay \
             there are no extended numbers (RFC 4303 section 3.3.3)",
        ),
        (
            "replay_window = 65536",
            "sequence_unspecified = true",
            "gw.toml:31: sa[1].esn: expected false with sequence_unspecified = true: its numbers \
             have 32 bits (RFC 9827)",
        ),
        (
            "replay_window = 65536",
            "replay_window = 64\nsequence_unspecified = true",
            "gw.toml:33: sa[1].replay_window: expected 0 with sequence_unspecified = true: such \
             numbers cannot be checked (RFC 9827), found `64`",
        ),
    ])
}

/// SPIs: a number of 32 bits, none that is reserved. // E06
fn spis() -> Vec<Mistake> {
    let such = "sa[0].spi: expected an SPI such as \"0x1001\" or 4097";
    let range = "sa[0].spi: expected an SPI from 0x100 to 0xffffffff (RFC 4303 section 2.1 \
                 reserves 0 to 255)";
    let spi = "\"0x1001\"";
    spoil(&[
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
    ])
}

/// Algorithms: the keywords, and why the weak ones are refused. G04, G10, G11, G12.
fn algorithms() -> Vec<Mistake> {
    let one_of = format!("expected {}", Algorithm::expected(Protocol::Esp));
    let line = "gw.toml:19: sa[0].algorithm:";
    let spoil = |keyword: &str, problem: &str| {
        let text = spoiled("\"aes128gcm16\"", &format!("\"{keyword}\""));
        Mistake::new(text, format!("{line} {problem}"))
    };
    let refused = [
        ("des", "the key of DES, 56 bits, can be searched (RFC 8221 section 5)"),
        ("DES-sha256", "the key of DES, 56 bits, can be searched (RFC 8221 section 5)"),
        ("3des", "the blocks of 3DES, 64 bits, repeat too soon (RFC 8221 section 5)"),
        ("blowfish128", "its blocks of 64 bits repeat too soon (RFC 8221 section 5)"),
        ("aes128-md5", "MD5 is broken (RFC 8221 section 6)"),
        ("aes128-sha1", "SHA-1 is broken (RFC 8221 section 6 keeps it for old peers only)"),
        (
            "aes128",
            "encryption without integrity protects nothing (RFC 4303 section 1, 8221 section 4)",
        ),
        (
            "null-null",
            "it has neither encryption nor integrity (RFC 4301 section 4.2, RFC 4303 section 3.2)",
        ),
        ("aes128gcm13", "an ICV of AES-GCM has 16, 12 or 8 octets (RFC 4106 section 6)"),
    ];
    let refused = refused.map(|(keyword, reason)| {
        spoil(keyword, &format!("`{keyword}` is refused, {reason}: {one_of}"))
    });
    let found = ["AES128GCM16", "dough"]
        .map(|keyword| spoil(keyword, &format!("{one_of}, found `{keyword}`")));
    let others = [
        spoil("sha256", &format!("sha256 is for AH, not for ESP: {one_of}")),
        spoil(
            "aes128gcm8",
            "aes128gcm8 sends an ICV of 8 octets, which RFC 4106 section 6 only allows: expected \
             one of 16, or allow_short_icv = true",
        ),
        Mistake::new(
            spoiled("\"192.168.2.1\"", "\"239.1.2.3\"").replacen("gcm16\"", "gcm16iiv\"", 1),
            "gw.toml:19: sa[0].algorithm: aes128gcm16iiv has no IV of its own, so several senders \
             to 239.1.2.3 would use one nonce twice (RFC 8750 section 7): expected an algorithm \
             with an IV",
        ),
    ];
    refused.into_iter().chain(found).chain(others).collect()
}

/// Keys: digits and length; a digit of the key is never in the message.
fn keys() -> Vec<Mistake> {
    let expected = "expected 40 hexadecimal digits (16 octets of key, then 4 of salt) for \
                    aes128gcm16";
    let key = "\"000102030405060708090a0b0c0d0e0fa0a1a2a3\"";
    spoil(&[
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
    ])
}

/// Ports of UDP encapsulation. // U01
fn ports() -> Vec<Mistake> {
    let ike = "expected a port other than 500, which is for IKE alone (RFC 7296 section 2.23), \
               found `500`";
    let source = "gw.toml:34: sa[1].encapsulation.source_port:";
    let destination = "gw.toml:34: sa[1].encapsulation.destination_port:";
    let range = "expected an integer from 1 to 65535";
    spoil(&[
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
    ])
}
