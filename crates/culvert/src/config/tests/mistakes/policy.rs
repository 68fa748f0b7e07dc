//! Policies: selectors, actions, bundles.

use super::*;

pub(super) fn all() -> Vec<Mistake> {
    let topics = [addresses(), protocols(), upper_layers(), actions(), acquires(), bundles()];
    topics.into_iter().flatten().collect()
}

/// P07, P08: whatever is wrong with a policy is named.
#[test]
fn mistakes_in_policies_are_refused() {
    check(&all());
}

/// Source and destination: of one family, prefixes and ranges as they should be. P05.
fn addresses() -> Vec<Mistake> {
    let such = "expected a prefix such as 10.1.0.0/16, an address, a range such as \
                10.1.0.5-10.1.0.9, a list of those, or \"any\"";
    let source = "\"10.1.0.0/16\"";
    let wrong = |found: &str| format!("gw.toml:37: policy[0].source: {such}, found {found}");
    spoil(&[
        (
            "source = \"10.1.0.0/16\"\n",
            "",
            &format!("gw.toml:35: policy[0].source: missing: {such}"),
        ),
        (source, "\"lan\"", &wrong("`lan`")),
        (source, "\"10.1.0.0/33\"", &wrong("`10.1.0.0/33`")),
        (source, "\"10.1.0.5-x\"", &wrong("`10.1.0.5-x`")),
        (source, "10", &wrong("`10`")),
        (source, "[]", &wrong("an empty list")),
        (
            source,
            "[\"10.1.0.1\", \"any\"]",
            &format!("gw.toml:37: policy[0].source[1]: {such}, found `any`"),
        ),
        (
            source,
            "[\"10.1.0.1\", \"fd01::1\"]",
            "gw.toml:37: policy[0].source[1]: expected addresses of one family in a list, found \
             `fd01::1`",
        ),
        (
            source,
            "\"10.1.0.9-10.1.0.5\"",
            "gw.toml:37: policy[0].source: expected a range whose last address is not before its \
             first, found `10.1.0.9-10.1.0.5`",
        ),
        (
            source,
            "\"10.1.0.9-fd01::1\"",
            "gw.toml:37: policy[0].source: expected two addresses of one family, found \
             `10.1.0.9-fd01::1`",
        ),
        (
            source,
            "\"10.1.2.3/16\"",
            "gw.toml:37: policy[0].source: expected a prefix without host bits, found \
             `10.1.2.3/16`: did you mean 10.1.0.0/16?",
        ),
        (
            "10.2.0.0/16",
            "fd00::/8",
            "gw.toml:38: policy[0].destination: expected IPv4 addresses, as the source has",
        ),
    ])
}

/// Lines in the first policy of `GOOD`, of which the last is line 39.
fn lines(lines: &str, message: &str) -> Mistake {
    let text = spoiled("action = \"protect\"", &format!("{lines}\naction = \"protect\""));
    Mistake::new(text, format!("gw.toml:{message}"))
}

/// Protocols, and keys that need one.
fn protocols() -> Vec<Mistake> {
    let one_of = "expected \"any\", \"opaque\", \"icmp\", \"ipip\", \"tcp\", \"udp\", \"dccp\", \
                  \"ipv6\", \"gre\", \"esp\", \"ah\", \"icmpv6\", \"sctp\", \"mobility\", \
                  \"udplite\" or an integer from 0 to 255";
    let ports = "expected with protocol = \"tcp\", \"udp\", \"sctp\", \"dccp\" or \"udplite\" \
                 only, which have ports";
    let icmp = "expected with protocol = \"icmp\" or \"icmpv6\" only";
    let source_ports = "source_ports = 80";
    vec![
        lines("protocol = \"TCP\"", &format!("39: policy[0].protocol: {one_of}, found `TCP`")),
        lines("protocol = 256", &format!("39: policy[0].protocol: {one_of}, found `256`")),
        lines(
            "protocol = \"opaque\"",
            "39: policy[0].protocol: expected another one with IPv4, where every packet shows its \
             protocol (RFC 4301 section 4.4.2.2)",
        ),
        lines(source_ports, &format!("39: policy[0].source_ports: {ports}")),
        lines(
            "protocol = \"gre\"\ndestination_ports = 80",
            &format!("40: policy[0].destination_ports: {ports}"),
        ),
        lines("icmp = 8", &format!("39: policy[0].icmp: {icmp}")),
        lines("protocol = 6\nicmp = 8", &format!("40: policy[0].icmp: {icmp}")),
        lines("mobility = 1", "39: policy[0].mobility: expected with protocol = \"mobility\" only"),
        lines(
            "fragments_too = true",
            "39: policy[0].fragments_too: expected with ports, ICMP types or mobility types only: \
             all else matches fragments anyway (RFC 4301 section 4.4.1.2)",
        ),
        lines(
            "fragments_too = 1",
            "39: policy[0].fragments_too: expected true or false, found `1`",
        ),
    ]
}

/// Ports, ICMP types and codes, mobility types. P06, P08.
fn upper_layers() -> Vec<Mistake> {
    let ports = "expected a port from 0 to 65535, a range such as \"1024-2047\", a list of those, \
                 \"any\" or \"opaque\"";
    let types = "expected a type such as 8, types such as \"3-5\", a type and code such as \
                 \"3/4\", two of those such as \"3/0-3/4\", a list, or \"opaque\"";
    let tcp = |value: &str, found: &str| {
        let text = format!("protocol = \"tcp\"\nsource_ports = {value}");
        lines(&text, &format!("40: policy[0].source_ports{found}"))
    };
    let icmp = |value: &str, found: &str| {
        let text = format!("protocol = \"icmp\"\nicmp = {value}");
        lines(&text, &format!("40: policy[0].icmp{found}"))
    };
    vec![
        tcp("65536", &format!(": {ports}, found `65536`")),
        tcp("\"http\"", &format!(": {ports}, found `http`")),
        tcp("\"1-x\"", &format!(": {ports}, found `1-x`")),
        tcp("[80, \"opaque\"]", &format!("[1]: {ports}, found `opaque`")),
        tcp("[]", &format!(": {ports}, found an empty list")),
        tcp(
            "\"90-80\"",
            ": expected a range whose last port is not below its first, found `90-80`",
        ),
        lines(
            "protocol = \"tcp\"\nsource_ports = \"opaque\"",
            "35: policy[0].destination_ports: missing: expected \"opaque\", as a packet shows both \
             ports or none",
        ),
        lines(
            "protocol = \"tcp\"\ndestination_ports = \"opaque\"",
            "35: policy[0].source_ports: missing: expected \"opaque\", as a packet shows both \
             ports or none",
        ),
        icmp("256", &format!(": {types}, found `256`")),
        icmp("\"echo\"", &format!(": {types}, found `echo`")),
        icmp("[8, \"3/\"]", &format!("[1]: {types}, found `3/`")),
        icmp("[]", &format!(": {types}, found an empty list")),
        icmp("[8, \"opaque\"]", &format!("[1]: {types}, found `opaque`")),
        icmp(
            "\"3/4-3/1\"",
            ": expected a range whose last type and code are not below its first, found `3/4-3/1`",
        ),
        lines(
            "protocol = \"mobility\"\nmobility = 256",
            "40: policy[0].mobility: expected \"opaque\" or an integer from 0 to 255, found `256`",
        ),
    ]
}

/// Actions and their SAs. P02, P08.
fn actions() -> Vec<Mistake> {
    let an_sa = "expected the name of an outbound SA for action = \"protect\"";
    let sa = "action = \"protect\"\nsa = \"to-b\"";
    let mut mistakes = spoil(&[
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
            "action = \"discard\"\nacquire = true",
            "gw.toml:40: policy[0].acquire: expected with action = \"protect\" only",
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
    mistakes.extend(spoil(&[(
        sa,
        "action = \"bypass\"\nprotocol = \"udp\"\nsource_ports = 53\nfragments_too = true",
        "gw.toml:42: policy[0].fragments_too: expected without action = \"bypass\": fragments are \
         not tracked, and in clear one that hides its ports could be part of a packet that policy \
         protects (RFC 4301 section 7.4)",
    )]));
    let member = spoiled("esn = false", "group = \"all\"");
    mistakes.push(Mistake::new(
        member,
        format!("gw.toml:40: policy[0].sa: {an_sa}, found `to-b`, which is in the group `all`"),
    ));
    mistakes
}

/// SAs that are asked for. P07.
fn acquires() -> Vec<Mistake> {
    let sa = "sa = \"to-b\"";
    let acquire = "acquire = true";
    let hidden = "expected what packets show: they cannot be asked for what the policy says is \
                  opaque (RFC 4301 section 4.4.2.2)";
    let opaque = "protocol = \"udp\"\nsource_ports = \"opaque\"\ndestination_ports = \"opaque\"";
    spoil(&[
        (
            sa,
            &format!("{acquire}\n{opaque}\npfp = [\"protocol\", \"source_port\"]"),
            &format!("gw.toml:44: policy[0].pfp[1]: {hidden}"),
        ),
        (
            sa,
            &format!(
                "{acquire}\nprotocol = \"icmp\"\nicmp = \"opaque\"\npfp = [\"destination_port\"]"
            ),
            &format!("gw.toml:43: policy[0].pfp[0]: {hidden}"),
        ),
        (sa, "acquire = 1", "gw.toml:40: policy[0].acquire: expected true or false, found `1`"),
        (
            sa,
            &format!("{sa}\n{acquire}"),
            "gw.toml:40: policy[0].sa: expected no SA with acquire = true, which asks for one",
        ),
        (
            "sa = \"from-b\"",
            acquire,
            "gw.toml:46: policy[1].acquire: expected in outbound policies only",
        ),
        (
            sa,
            &format!("{sa}\npfp = [\"source\"]"),
            "gw.toml:41: policy[0].pfp: expected with acquire = true only: SAs of the file have \
             their selectors already (RFC 4301 section 4.4.1.2)",
        ),
        (
            sa,
            &format!("{acquire}\npfp = \"source\""),
            "gw.toml:41: policy[0].pfp: expected a list such as [\"source\", \"destination\"], \
             found `source`",
        ),
        (
            sa,
            &format!("{acquire}\npfp = [\"source\", \"ports\"]"),
            "gw.toml:41: policy[0].pfp[1]: expected \"source\", \"destination\", \"protocol\", \
             \"source_port\" or \"destination_port\", found `ports`",
        ),
    ])
}

/// Five outbound AH SAs of seven lines each, and five inbound ones; the policy is at line 76.
fn bundle(policies: &str, message: &str) -> Mistake {
    let mut text = "[interfaces]\nprotected = ['a']\nunprotected = ['b']\n[lab]\n\
                    static_keys = true\n"
        .to_owned();
    for (at, direction) in (0..10).zip(["outbound"; 5].into_iter().chain(["inbound"; 5])) {
        let end = if at % 5 == 0 { 2 } else { 3 };
        text += &format!(
            "[[sa]]\nname = 's{at}'\ndirection = '{direction}'\nspi = {}\nsource = '192.0.2.1'\n\
             destination = '192.0.2.{end}'\nalgorithm = 'sha256'\nprotocol = 'ah'\n\
             mode = '{}'\nkey = '{at:064}'\n",
            at + 256,
            if at % 5 == 4 { "transport" } else { "tunnel" },
        );
    }
    Mistake::new(text + policies, format!("gw.toml:{message}"))
}

fn through(direction: &str, sas: &str) -> String {
    format!(
        "[[policy]]\ndirection = '{direction}'\nsource = 'any'\ndestination = 'any'\n\
         action = 'protect'\nsa = {sas}\n"
    )
}

/// SA bundles: their length and order. P28.
fn bundles() -> Vec<Mistake> {
    let an_sa = "expected the name of an outbound SA for action = \"protect\"";
    vec![
        bundle(
            &through("outbound", "['s0', 's1', 's2', 's3', 's4']"),
            "111: policy[0].sa: expected at most 4 SAs, innermost first, found 5",
        ),
        bundle(
            &through("outbound", "['s0', 's1', 's0']"),
            "111: policy[0].sa: expected each SA once, found the SA `s0` (line 6) twice",
        ),
        bundle(
            &through("outbound", "['s0', 's4']"),
            "111: policy[0].sa: expected SAs whose source and destination are those of the SA \
             inside, as transport mode leaves them, found the SA `s4` (line 46) around the SA `s0` \
             (line 6)",
        ),
        bundle(
            &through("outbound", "[]"),
            &format!("111: policy[0].sa: {an_sa}, found an empty list"),
        ),
        bundle(
            &through("outbound", "['s0', 's5']"),
            &format!("111: policy[0].sa[1]: {an_sa}, found the inbound SA `s5` (line 56)"),
        ),
        bundle(
            &(through("inbound", "['s5', 's6']") + &through("inbound", "'s5'")),
            "117: policy[1].sa: expected inbound SAs that are always inside the same one, found \
             the SA `s5` (line 56), of which the policy of line 106 says otherwise",
        ),
        bundle(
            &(through("outbound", "['s0', 's1']")
                + "[[sa]]\ndirection = 'outbound'\nspi = 999\nsource = '192.0.2.1'\n\
                   destination = '192.0.2.9'\nalgorithm = 'null-sha256'\ngroup = 'g'\n\
                   resource = 0\nkey = 'abababababababababababababababababababababababababababab\
                   abababab'\n[[sa]]\ndirection = 'outbound'\nspi = 1000\nsource = '192.0.2.1'\n\
                   destination = '192.0.2.9'\nalgorithm = 'null-sha256'\ngroup = 'g'\n\
                   key = 'cdababababababababababababababababababababababababababababababab'\n"
                + &through("outbound", "['s0', 'g']")),
            "134: policy[1].sa: expected SAs of all workers in a bundle, found the group of the SA \
             of line 112, which is one worker's",
        ),
    ]
}
