use super::*;

const HEAD: &str =
    "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\nstatic_keys = true\n";

/// An AH SA by its number; `lines` are more of its lines.
fn sa(direction: &str, number: u32, lines: &str) -> String {
    format!(
        "[[sa]]\nname = 's{number}'\ndirection = '{direction}'\nspi = {}\nprotocol = 'ah'\n\
         source = '192.0.2.1'\ndestination = '192.0.2.2'\nalgorithm = 'sha256'\n\
         key = '{number:064}'\n{lines}\n",
        256 + number,
    )
}

fn policy(direction: &str, rest: &str) -> String {
    format!("[[policy]]\ndirection = '{direction}'\n{rest}\n")
}

const ANY: &str = "source = 'any'\ndestination = 'any'\naction = 'protect'\n";

fn config(sections: &[String]) -> Config {
    Config::parse("gw.toml", &(HEAD.to_owned() + &sections.concat())).unwrap()
}

/// SAs alone have groups of their own, those of one group its first one's; behind them come
/// bundles, each once, and policies that ask for an SA.
#[test]
fn groups_are_numbered() {
    let through = |direction, sa: &str| policy(direction, &format!("{ANY}{sa}"));
    let config = config(&[
        sa("outbound", 0, ""),
        sa("outbound", 1, ""),
        sa("outbound", 2, "group = 'g'\nresource = 1"),
        sa("outbound", 3, "group = 'g'"),
        through("outbound", "sa = 's0'"),
        through("outbound", "sa = ['s0', 's1']"),
        through("outbound", "acquire = true"),
        through("outbound", "sa = ['s1', 's0']"),
        through("outbound", "sa = ['s0', 's1']"),
        through("outbound", "acquire = true"),
        through("outbound", "sa = 'g'"),
    ]);
    let groups: Vec<u32> = sas(&config).unwrap().iter().map(|sa| sa.group.0).collect();
    assert_eq!(groups, [0, 1, 2, 2]);
    let bundles = bundles(&config);
    assert_eq!(
        bundles,
        [(Group(4), vec![Group(0), Group(1)]), (Group(5), vec![Group(1), Group(0)])]
    );
    let named: Vec<Action> = spd(&config).outbound.iter().map(|policy| policy.action).collect();
    let expected = [0, 4, 6, 5, 4, 7, 2];
    assert_eq!(named, expected.map(|group| Action::Protect(Group(group))));
}

/// P28: each SA of an inbound bundle knows the one around it, and policies name the innermost.
#[test]
fn inbound_bundles_are_nested() {
    let config = config(&[
        sa("inbound", 0, ""),
        sa("inbound", 1, ""),
        sa("inbound", 2, ""),
        sa("inbound", 3, ""),
        policy("inbound", &format!("{ANY}sa = ['s2', 's0', 's1']")),
    ]);
    let within: Vec<_> = sas(&config).unwrap().into_iter().map(|sa| sa.receiving.within).collect();
    assert_eq!(within, [Some(Group(1)), None, Some(Group(0)), None]);
    assert_eq!(spd(&config).inbound[0].action, Action::Protect(Group(2)));
    assert!(bundles(&config).is_empty());
    let mute: Vec<_> = mute_sas(&config).into_iter().map(|sa| sa.name.as_deref()).collect();
    assert_eq!(mute, [Some("s3")]);
}

/// P05 P11: what the XDP program takes: destinations of every policy but those that bypass, ranges
/// as prefixes, and of one family where the source says which.
#[test]
fn prefixes_are_those_of_destinations() {
    let discard = |source: &str, destination: &str| {
        let lines = format!("source = {source}\ndestination = {destination}\naction = 'discard'\n");
        policy("outbound", &lines) + &policy("inbound", &lines)
    };
    let config = config(&[
        discard("'any'", "['10.2.0.4-10.2.0.6', '10.2.0.4']"),
        discard("'fd01::/64'", "'any'"),
        policy("outbound", "source = 'any'\ndestination = '10.9.0.0/16'\naction = 'bypass'"),
    ]);
    let spd = spd(&config);
    let expected: [Prefix; 3] =
        [([10, 2, 0, 4].into(), 31), ([10, 2, 0, 4].into(), 32), ([10, 2, 0, 6].into(), 32)];
    for prefixes in [protected_prefixes(&spd), unprotected_prefixes(&spd)] {
        assert_eq!(prefixes[..3], expected);
        assert_eq!(prefixes[3..], [("::".parse().unwrap(), 0)]);
    }
}

/// The gateway is at the near ends of its tunnels, not at addresses of transport mode or groups.
#[test]
fn own_addresses_are_those_of_tunnels() {
    let far = |direction, number, lines: &str, destination: &str| {
        sa(direction, number, lines).replace("192.0.2.2", destination)
    };
    let config = config(&[
        far("outbound", 0, "", "192.0.2.9"),
        far("inbound", 1, "", "192.0.2.7"),
        far("inbound", 2, "mode = 'transport'", "192.0.2.8"),
        far("inbound", 3, "", "239.1.2.3"),
    ]);
    let own: Vec<IpAddr> = vec![[192, 0, 2, 1].into(), [192, 0, 2, 7].into()];
    assert_eq!(own_addresses(&sas(&config).unwrap()), own);
}

/// 100,000 SAs and policies are put together in no time: a second would be more than enough.
#[test]
fn large_configurations_are_put_together_quickly() {
    let few = config(&[sa("outbound", 0, ""), policy("outbound", &format!("{ANY}sa = 's0'"))]);
    let mut many = few.clone();
    for index in 1..100_000 {
        many.sas.push(few.sas[0].clone());
        let action = config::Action::Protect { sas: vec![index] };
        many.policies.push(config::Policy { action, ..few.policies[0].clone() });
    }
    let start = std::time::Instant::now();
    assert_eq!(spd(&many).outbound.len(), 100_000);
    assert!(mute_sas(&many).is_empty());
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
