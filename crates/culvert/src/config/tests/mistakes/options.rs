//! Options of SAs: what one direction, mode or protocol leaves without meaning, and wrong values.

use culvert_aead::Algorithm;
use culvert_aead::Protocol;

use super::*;

pub(super) fn all() -> Vec<Mistake> {
    let topics = [
        lifetimes(),
        directions(),
        modes_and_protocols(),
        headers(),
        sending(),
        encapsulated(),
        receiving(),
        selectors(),
    ];
    topics.into_iter().flatten().collect()
}

/// Wrong options of SAs are named.
#[test]
fn mistakes_in_options_are_refused() {
    check(&all());
}

/// A file with one SA of 13 lines, and more lines for it.
fn file(direction: &str, six: bool, algorithm: Algorithm, lines: &str) -> String {
    let (source, destination) =
        if six { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
    let protocol = if algorithm.protocol() == Protocol::Ah { "ah" } else { "esp" };
    let key = "5a".repeat(algorithm.keymat_len());
    format!(
        "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\nstatic_keys = true\n\
         [[sa]]\ndirection = '{direction}'\nspi = 4097\nsource = '{source}'\n\
         destination = '{destination}'\nprotocol = '{protocol}'\nalgorithm = '{algorithm}'\n\
         key = '{key}'\n{lines}\n"
    )
}

const ESP: Algorithm = Algorithm::Aes128Gcm16;
const AH: Algorithm = Algorithm::AhSha256;

/// An outbound ESP SA between IPv4 addresses, with more lines from line 14 on.
fn out(lines: &str, message: &str) -> Mistake {
    Mistake::new(file("outbound", false, ESP, lines), format!("gw.toml:{message}"))
}

/// An inbound one.
fn into(lines: &str, message: &str) -> Mistake {
    Mistake::new(file("inbound", false, ESP, lines), format!("gw.toml:{message}"))
}

/// Lifetimes. P15.
fn lifetimes() -> Vec<Mistake> {
    vec![
        out("soft_lifetime = 3600", "14: sa[0].soft_lifetime: expected a table, found `3600`"),
        out(
            "hard_lifetime = {}",
            "14: sa[0].hard_lifetime: expected one or more of seconds, bytes and packets",
        ),
        out(
            "hard_lifetime = { minutes = 1 }",
            "14: sa[0].hard_lifetime.minutes: unknown key: expected one of seconds, bytes, packets",
        ),
        out(
            "soft_lifetime = { seconds = 0 }",
            "14: sa[0].soft_lifetime.seconds: expected an integer from 1 to 4294967295, found `0`",
        ),
        out(
            "hard_lifetime = { bytes = 0 }",
            "14: sa[0].hard_lifetime.bytes: expected an integer from 1 to 18446744073709551615, \
             found `0`",
        ),
        out(
            "hard_lifetime = { packets = -1 }",
            "14: sa[0].hard_lifetime.packets: expected an integer from 1 to 18446744073709551615, \
             found `-1`",
        ),
        out(
            "soft_lifetime = { packets = 9, bytes = 11 }\n\
             hard_lifetime = { packets = 9, bytes = 10 }",
            "14: sa[0].soft_lifetime.bytes: expected at most the 10 of hard_lifetime, found 11",
        ),
    ]
}

/// Keys of the other direction.
fn directions() -> Vec<Mistake> {
    let outbound = [
        "allow_short_icv = true",
        "behind_nat = true",
        "keepalive = 20",
        "dscp = 0",
        "ecn = 'normal'",
        "df = 'set'",
        "ttl = 64",
        "flow_label = 0",
        "tfc = 'mtu'",
        "dummy_interval = 1",
        "fragmentation = 'after'",
        "mss_clamp = 'auto'",
        "trust_icmp = true",
        "path_mtu_floor = 1000",
    ];
    let inbound = [
        "lookup = 'spi'",
        "selectors = [{}]",
        "decap_dscp = 'keep'",
        "padding = 'off'",
        "icmp_errors = 'policy'",
        "original_source = '192.0.2.1'",
        "original_destination = '192.0.2.1'",
    ];
    let key = |line: &str| line.split(' ').next().expect("a key").to_owned();
    let message = |line: &str, direction| {
        format!("14: sa[0].{}: expected in {direction} SAs only", key(line))
    };
    let mut mistakes = Vec::new();
    mistakes.extend(outbound.map(|line| into(line, &message(line, "outbound"))));
    mistakes.extend(inbound.map(|line| out(line, &message(line, "inbound"))));
    mistakes
}

/// Keys that transport mode, or AH, or a family leaves without meaning. E12, P26.
fn modes_and_protocols() -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for line in ["dscp = 0", "ecn = 'normal'", "df = 'set'", "ttl = 64", "flow_label = 0"] {
        let key = line.split(' ').next().expect("a key");
        let message = "expected in tunnel mode only, which makes an outer header";
        let lines = format!("mode = 'transport'\n{line}");
        mistakes.push(out(&lines, &format!("15: sa[0].{key}: {message}")));
    }
    mistakes.push(into(
        "mode = 'transport'\ndecap_dscp = 'keep'",
        "15: sa[0].decap_dscp: expected in tunnel mode only, which has an outer header",
    ));
    for key in ["original_source", "original_destination"] {
        let line = format!("{key} = '10.0.0.1'");
        let why = "expected in transport mode only: a tunnel carries the addresses inside (RFC \
                   3948 section 3.1.1)";
        mistakes.push(into(&line, &format!("14: sa[0].{key}: {why}")));
        let nat = "expected in ESP SAs only: AH covers the addresses that a NAT changes (RFC 3948 \
                   section 1)";
        let text = file("inbound", false, AH, &format!("mode = 'transport'\n{line}"));
        mistakes.push(Mistake::new(text, format!("gw.toml:15: sa[0].{key}: {nat}")));
    }
    let no_padding = "expected in ESP SAs only: AH has neither padding nor dummy packets (RFC 4303 \
                      sections 2.6 and 2.7)";
    for line in ["tfc = 'mtu'", "dummy_interval = 1"] {
        let key = line.split(' ').next().expect("a key");
        let text = file("outbound", false, AH, line);
        mistakes.push(Mistake::new(text, format!("gw.toml:14: sa[0].{key}: {no_padding}")));
    }
    mistakes.push(Mistake::new(
        file("inbound", false, AH, "padding = 'off'"),
        "gw.toml:14: sa[0].padding: expected in ESP SAs only: AH has no padding of its own",
    ));
    mistakes.push(Mistake::new(
        file("outbound", false, AH, "encapsulation = {}"),
        "gw.toml:14: sa[0].encapsulation: expected in ESP SAs only: AH covers the addresses that a \
         NAT changes (RFC 3948 section 1)",
    ));
    mistakes.push(out(
        "mode = 'transport'\ntfc = 'mtu'",
        "15: sa[0].tfc: expected in tunnel mode only, whose packets carry their own length (RFC \
         4303 section 2.7)",
    ));
    mistakes.push(out(
        "mode = 'transport'\nfragmentation = 'before'",
        "15: sa[0].fragmentation: expected \"after\" in transport mode, which takes no fragments \
         (RFC 4303 section 3.3.4), found `before`",
    ));
    mistakes.push(out("flow_label = 1", "14: sa[0].flow_label: expected with IPv6 addresses only"));
    mistakes.push(Mistake::new(
        file("outbound", true, ESP, "df = 'copy'"),
        "gw.toml:14: sa[0].df: expected with IPv4 addresses only",
    ));
    mistakes
}

/// The outer header. P18, P20, C02.
fn headers() -> Vec<Mistake> {
    let dscp = "14: sa[0].dscp: expected \"copy\", an integer from 0 to 63 or a table such as { \
                \"10\" = 46 }";
    let six = |line: &str, message: &str| {
        Mistake::new(file("outbound", true, ESP, line), format!("gw.toml:14: sa[0].{message}"))
    };
    vec![
        out("dscp = 64", &format!("{dscp}, found `64`")),
        out("dscp = 'ef'", &format!("{dscp}, found `ef`")),
        out("dscp = { \"ef\" = 46 }", "14: sa[0].dscp.ef: expected a DSCP from 0 to 63 as key"),
        out("dscp = { \"64\" = 46 }", "14: sa[0].dscp.64: expected a DSCP from 0 to 63 as key"),
        out(
            "dscp = { \"10\" = 64 }",
            "14: sa[0].dscp.10: expected an integer from 0 to 63, found `64`",
        ),
        out("ecn = 'off'", "14: sa[0].ecn: expected \"normal\" or \"compatibility\", found `off`"),
        out("df = true", "14: sa[0].df: expected \"copy\", \"set\" or \"clear\", found `true`"),
        out("ttl = 0", "14: sa[0].ttl: expected \"copy\" or an integer from 1 to 255, found `0`"),
        out(
            "ttl = 'set'",
            "14: sa[0].ttl: expected \"copy\" or an integer from 1 to 255, found `set`",
        ),
        six(
            "flow_label = 0x100000",
            "flow_label: expected an integer from 0 to 1048575, found `0x100000`",
        ),
    ]
}

/// How an outbound SA treats packets. E12, E11, M02.
fn sending() -> Vec<Mistake> {
    let seconds = "expected a number of seconds from 0.001 to 86400";
    let resource = "group = 'g'\nresource = 64";
    vec![
        out(
            "allow_short_icv = 'yes'",
            "14: sa[0].allow_short_icv: expected true or false, found `yes`",
        ),
        out(
            "tfc = 'always'",
            "14: sa[0].tfc: expected \"off\", \"mtu\" or an integer from 1 to 65535, found \
             `always`",
        ),
        out(
            "tfc = 65536",
            "14: sa[0].tfc: expected \"off\", \"mtu\" or an integer from 1 to 65535, found `65536`",
        ),
        out("dummy_interval = 0", &format!("14: sa[0].dummy_interval: {seconds}, found `0`")),
        out("dummy_interval = '1s'", &format!("14: sa[0].dummy_interval: {seconds}, found `1s`")),
        out("dummy_interval = 1e9", &format!("14: sa[0].dummy_interval: {seconds}, found a float")),
        out("dummy_interval = nan", &format!("14: sa[0].dummy_interval: {seconds}, found a float")),
        out(
            "fragmentation = 'none'",
            "14: sa[0].fragmentation: expected \"before\" or \"after\", found `none`",
        ),
        out(
            "mss_clamp = 535",
            "14: sa[0].mss_clamp: expected \"off\", \"auto\" or an integer from 536 to 65535, \
             found `535`",
        ),
        out("trust_icmp = 1", "14: sa[0].trust_icmp: expected true or false, found `1`"),
        out(
            "path_mtu_floor = 295",
            "14: sa[0].path_mtu_floor: expected an integer from 296 to 65535, found `295`",
        ),
        out(resource, "15: sa[0].resource: expected an integer from 0 to 63, found `64`"),
        out(
            "resource = 1",
            "6: sa[0].group: missing: expected the group in which an SA without `resource` serves \
             the other workers (RFC 9611 section 2)",
        ),
        Mistake::new(
            spoiled("esn = false", "group = \"g\"\nresource = 2"),
            "gw.toml:22: sa[0].resource: expected an integer from 0 to 1, found `2`",
        ),
        into(
            "resource = 1",
            "14: sa[0].resource: expected in outbound SAs only: any worker receives (RFC 9611)",
        ),
    ]
}

/// What needs encapsulation. U06.
fn encapsulated() -> Vec<Mistake> {
    let only = "expected with encapsulation only: a NAT has no mapping for raw ESP";
    vec![
        out("behind_nat = true", &format!("14: sa[0].behind_nat: {only}")),
        out("keepalive = 20", &format!("14: sa[0].keepalive: {only}")),
        out(
            "encapsulation = {}\nbehind_nat = 1",
            "15: sa[0].behind_nat: expected true or false, found `1`",
        ),
        out(
            "encapsulation = {}\nkeepalive = 0",
            "15: sa[0].keepalive: expected a number of seconds from 0.001 to 86400, found `0`",
        ),
    ]
}

/// How an inbound SA is found, and how it treats packets. I04, I13, P21, P25.
fn receiving() -> Vec<Mistake> {
    let transport = |line: &str, message: &str| {
        into(&format!("mode = 'transport'\n{line}"), &format!("15: sa[0].{message}"))
    };
    vec![
        into(
            "lookup = 'any'",
            "14: sa[0].lookup: expected \"spi\", \"destination\" or \"source\", found `any`",
        ),
        Mistake::new(
            file("inbound", false, ESP, "lookup = 'spi'").replace("192.0.2.2", "239.1.2.3"),
            "gw.toml:14: sa[0].lookup: expected \"destination\" or \"source\" for a multicast \
             group, whose SPIs others chose (RFC 4303 section 2.1), found `spi`",
        ),
        into(
            "decap_dscp = 'outer'",
            "14: sa[0].decap_dscp: expected \"keep\" or \"copy\", found `outer`",
        ),
        into(
            "padding = 'on'",
            "14: sa[0].padding: expected \"strict\", \"count\" or \"off\", found `on`",
        ),
        into(
            "icmp_errors = true",
            "14: sa[0].icmp_errors: expected \"policy\" or \"enclosed\", found `true`",
        ),
        into(
            "sequence_unspecified = 2",
            "14: sa[0].sequence_unspecified: expected true or false, found `2`",
        ),
        transport(
            "original_source = '10.0.0.0/8'",
            "original_source: expected an IPv4 or IPv6 address, found `10.0.0.0/8`",
        ),
        transport(
            "original_source = 'fd01::1'",
            "original_source: expected an IPv4 address, as the SA's address is one, found \
             `fd01::1`",
        ),
        transport(
            "original_destination = '239.1.2.3'",
            "original_destination: expected the address of one host, found `239.1.2.3`",
        ),
    ]
}

/// Selectors of an SA are those of policies, with all addresses where none are named. P05.
fn selectors() -> Vec<Mistake> {
    let list = "expected a list of tables such as [{ protocol = \"udp\" }]";
    vec![
        into(
            "selectors = { protocol = 'udp' }",
            &format!("14: sa[0].selectors: {list}, found a table"),
        ),
        into("selectors = []", &format!("14: sa[0].selectors: {list}, found an empty list")),
        into("selectors = ['any']", "14: sa[0].selectors[0]: expected a table, found `any`"),
        into(
            "selectors = [{}, { port = 1 }]",
            "14: sa[0].selectors[1].port: unknown key: expected one of source, destination, \
             protocol, source_ports, destination_ports, icmp, mobility, fragments_too",
        ),
        into(
            "selectors = [{ icmp = 8 }]",
            "14: sa[0].selectors[0].icmp: expected with protocol = \"icmp\" or \"icmpv6\" only",
        ),
    ]
}
