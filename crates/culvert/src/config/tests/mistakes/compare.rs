//! SAs beside one another: names, groups, SPIs, keys.

use super::*;

pub(super) fn all() -> Vec<Mistake> {
    [names_and_spis(), groups(), same_keys()].into_iter().flatten().collect()
}

/// What two SAs may not share is named: key and salt (E21, G02), and what finds them (I04).
#[test]
fn clashes_of_sas_are_refused() {
    check(&all());
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

fn with(sas: &[String], message: &str) -> Mistake {
    Mistake::new(format!("{GOOD}{}", sas.concat()), format!("gw.toml:{message}"))
}

/// No two SAs have one name, and no two that the receiver must tell apart one SPI. I04.
fn names_and_spis() -> Vec<Mistake> {
    let lookup = |lookup: &str, spi, salt: &str| {
        let sa = sa("inbound", spi, "192.0.2.9", salt);
        format!("{sa}lookup = '{lookup}'\n")
    };
    let mut mistakes = spoil(&[(
        "name = \"from-b\"",
        "name = \"to-b\"",
        "gw.toml:24: sa[1].name: expected a name of its own, found `to-b`, the SA of line 12",
    )]);
    mistakes.push(with(
        &[sa("inbound", 0x2001, "2001:db8::1", "00000000").replace("192.0.2.1", "2001:db8::5")],
        "54: sa[2].spi: expected an SPI that no other inbound ESP SA to 2001:db8::1 has, found \
         0x2001, the SPI of the SA `from-b` (line 23)",
    ));
    mistakes.push(with(
        &[lookup("spi", 0x3001, "00000000"), lookup("spi", 0x3001, "00000001")],
        "62: sa[3].spi: expected an SPI that no other inbound ESP SA with lookup = \"spi\" has, \
         found 0x3001, the SPI of the SA of line 52",
    ));
    mistakes.push(with(
        &[lookup("source", 0x3001, "00000000"), lookup("source", 0x3001, "00000001")],
        "62: sa[3].spi: expected an SPI that no other inbound ESP SA from 192.0.2.1 to 192.0.2.9 \
         has, found 0x3001, the SPI of the SA of line 52",
    ));
    mistakes.push(with(
        &[sa("outbound", 0x1001, "192.168.2.1", "00000000")],
        "54: sa[2].spi: expected an SPI that no other outbound ESP SA to 192.168.2.1 has, found \
         0x1001, the SPI of the SA `to-b` (line 12)",
    ));
    mistakes
}

/// Groups have one direction, a name of their own, and an SA for every worker. M02.
fn groups() -> Vec<Mistake> {
    let group = |direction: &str, spi, rest: &str| {
        let salt = format!("{spi:08x}");
        sa(direction, spi, OTHER, &salt) + "group = 'g'\n" + rest
    };
    vec![
        Mistake::new(
            spoiled("esn = false", "group = \"from-b\""),
            "gw.toml:21: sa[0].group: expected a name that no SA has, found `from-b`, the SA of \
             line 23",
        ),
        with(
            &[group("inbound", 0x3001, ""), group("outbound", 0x3002, "")],
            "67: sa[3].group: expected a group of outbound SAs, found the one of the inbound SA of \
             line 52",
        ),
        with(
            &[group("outbound", 0x3001, ""), group("outbound", 0x3002, "")],
            "60: sa[3].resource: expected one SA of all workers in the group, found another, the \
             SA of line 52",
        ),
        with(
            &[
                group("outbound", 0x3001, "resource = 1\n"),
                group("outbound", 0x3002, "resource = 1\n"),
            ],
            "69: sa[3].resource: expected one SA of worker 1 in the group, found another, the SA \
             of line 52",
        ),
        with(
            &[group("outbound", 0x3001, "resource = 1\n")],
            "60: sa[2].resource: expected an SA without `resource` in the group too, for the other \
             workers (RFC 9611 section 2)",
        ),
    ]
}

/// No two SAs of which one is outbound have one key and salt, and the message names both. G02.
fn same_keys() -> Vec<Mistake> {
    let pairs = [("outbound", "outbound"), ("inbound", "outbound"), ("outbound", "inbound")];
    let twice = pairs.map(|(one, two)| {
        with(
            &[sa(one, 0x3001, OTHER, "00000000"), sa(two, 0x3002, OTHER, "00000000")],
            &format!(
                "65: sa[3].key: expected a key or salt of its own, found those of the {one} SA of \
                 line 52: one nonce would be used twice (RFC 4106 section 2)"
            ),
        )
    });
    let mut mistakes = spoil(&[(
        "aes256gcm16\"\nkey = \"202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3fa4\
         a5a6a7\"",
        "aes128gcm16\"\nkey = \"000102030405060708090A0B0C0D0E0FA0A1A2A3\"",
        "gw.toml:30: sa[1].key: expected a key or salt of its own, found those of the outbound SA \
         `to-b` (line 12): one nonce would be used twice (RFC 4106 section 2)",
    )]);
    mistakes.extend(twice);
    mistakes
}

/// What is not a clash: the other direction or protocol, another address or way to be found,
/// another salt, two receivers. I04, P13.
#[test]
fn what_sas_may_share() {
    let lookup = |lookup: &str, salt: &str| {
        sa("inbound", 0x3001, OTHER, salt) + &format!("lookup = '{lookup}'\n")
    };
    let ah = sa("inbound", 0x3001, OTHER, "00000001").replace("gcm16", "gmac");
    for sas in [
        [sa("inbound", 0x1001, OTHER, "00000000"), sa("outbound", 0x2001, OTHER, "00000001")],
        [sa("outbound", 0x1001, OTHER, "00000000"), sa("outbound", 0x3001, OTHER, "00000001")],
        [sa("inbound", 0x3001, OTHER, "00000000"), sa("inbound", 0x3002, OTHER, "00000000")],
        [sa("inbound", 0x2001, OTHER, "00000000"), sa("inbound", 0x2001, "192.0.2.9", "00000001")],
        [lookup("spi", "00000000"), lookup("destination", "00000001")],
        [lookup("source", "00000000"), lookup("destination", "00000001")],
        [sa("inbound", 0x3001, OTHER, "00000000"), ah + "protocol = 'ah'\n"],
    ] {
        assert_eq!(message_of(&format!("{GOOD}{}", sas.concat())), "accepted");
    }
}
