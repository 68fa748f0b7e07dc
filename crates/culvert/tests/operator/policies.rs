//! `culvert policy`.

use serde_json::json;

use crate::culvert;
use crate::culvert_with;
use crate::server::Server;

const TEMPLATE: &str = "src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel reqid 7";

fn with_template(server: &Server, words: &str, template: &str) -> crate::Said {
    let mut arguments: Vec<&str> = words.split_whitespace().collect();
    arguments.extend(["--template", template]);
    culvert_with(&server.socket(), &arguments, "")
}

/// What is added is listed with all that was said of it, and gone once deleted, by selector or by
/// index.
#[test]
fn policies_come_and_go() {
    let server = Server::start();
    let socket = server.socket();
    let words = "policy add --direction out --source 10.1.0.0/16 --destination 10.2.0.0/16";
    let said = with_template(&server, words, TEMPLATE);
    assert_eq!(said.text(), "added out 10.1.0.0/16 > 10.2.0.0/16\n");
    let more = "policy add --direction fwd --source 2001:db8:1::/48 --destination 2001:db8:2::/48 \
                --protocol tcp --destination-port 443 --priority 5 --if-id 3 --mark 1 \
                --action bypass";
    culvert(&socket, more).text();
    let last = "policy add --direction in --source 0.0.0.0/0 --destination 10.1.0.1 --priority 9 \
                --action discard --json";
    assert_eq!(culvert(&socket, last).json()["destination"], "10.1.0.1/32");
    let mut list = culvert(&socket, "policy list --json").json();
    for policy in list.as_array_mut().expect("an array") {
        assert!(policy["added"].as_u64().is_some_and(|at| at > 1_700_000_000), "{policy}");
        assert!(policy["index"].as_u64().is_some_and(|index| index > 0), "{policy}");
        policy["added"] = json!(0);
        policy["index"] = json!(0);
    }
    let template = json!({
        "protocol": "esp", "mode": "tunnel", "source": "192.0.2.1", "destination": "192.0.2.2",
        "spi": null, "reqid": 7, "optional": false,
    });
    let common = |values| {
        let mut policy = json!({
            "index": 0, "added": 0, "last_used": null, "if_id": 0, "mark": null,
            "protocol": null, "source_port": null, "destination_port": null, "templates": [],
        });
        if let (Some(policy), serde_json::Value::Object(values)) = (policy.as_object_mut(), values)
        {
            policy.extend(values);
        }
        policy
    };
    // The youngest first.
    let expected = json!([
        common(json!({"direction": "in", "priority": 9, "action": "discard",
            "source": "0.0.0.0/0", "destination": "10.1.0.1/32"})),
        common(json!({"direction": "fwd", "priority": 5, "action": "bypass",
            "source": "2001:db8:1::/48", "destination": "2001:db8:2::/48", "protocol": 6,
            "destination_port": {"port": 443, "mask": 65535}, "if_id": 3,
            "mark": {"value": 1, "mask": u32::MAX}})),
        common(json!({"direction": "out", "priority": 0, "action": "protect",
            "source": "10.1.0.0/16", "destination": "10.2.0.0/16", "templates": [template]})),
    ]);
    assert_eq!(list, expected);
    let table = culvert(&socket, "policy list");
    let lines: Vec<&str> = table.text().lines().collect();
    assert!(lines[0].starts_with("INDEX  DIR  PRIORITY"), "{}", lines[0]);
    let row = "esp tunnel 192.0.2.1 > 192.0.2.2 reqid 7";
    assert!(lines[3].contains("10.1.0.0/16 > 10.2.0.0/16") && lines[3].ends_with(row));
    let row = "2001:db8:1::/48 > 2001:db8:2::/48 proto tcp dport 443 if_id 3 mark 0x1/0xffffffff";
    assert!(lines[2].contains(row), "{}", lines[2]);

    let gone = culvert(
        &socket,
        "policy delete --direction out --source 10.1.0.0/16 \
                                 --destination 10.2.0.0/16",
    );
    assert_eq!(gone.text(), "deleted out 10.1.0.0/16 > 10.2.0.0/16\n");
    let list = culvert(&socket, "policy list --json").json();
    let index = &list[0]["index"];
    let gone = culvert(&socket, &format!("policy delete --direction in --index {index} --json"));
    assert_eq!(gone.json()["action"], "discard");
    let more = "policy delete --direction fwd --source 2001:db8:1::/48 --destination \
                2001:db8:2::/48 --protocol tcp --destination-port 443 --if-id 3 --mark 1";
    culvert(&socket, more).text();
    assert_eq!(culvert(&socket, "policy list --json").json(), json!([]));
}

/// What is refused is refused in words.
#[test]
fn policies_that_cannot_be() {
    let server = Server::start();
    let socket = server.socket();
    let words = "policy add --direction out --source 10.1.0.0/16 --destination 10.2.0.0/16";
    with_template(&server, words, TEMPLATE).text();
    let again = with_template(&server, words, TEMPLATE);
    assert_eq!(again.complaint(), "culvert: refused: file exists (EEXIST)\n");
    let missing = "policy delete --direction out --source 10.9.0.0/16 --destination 10.2.0.0/16";
    let missing = culvert(&socket, missing);
    assert!(missing.complaint().contains("refused: ") && missing.error.contains("(ENOENT)"));
    assert!(culvert(&socket, words).complaint().contains("expected a --template"));
    let both = with_template(&server, &format!("{words} --action discard"), TEMPLATE);
    assert!(both.complaint().contains("--template: expected none"), "{}", both.error);
    let optional = with_template(&server, words, &format!("{TEMPLATE} level use"));
    assert!(optional.complaint().contains("xfrm_user_tmpl.optional"), "{}", optional.error);
    assert!(optional.error.contains("(EINVAL)"), "{}", optional.error);
    let half = culvert(&socket, "policy delete --direction out --source 10.1.0.0/16");
    assert!(half.complaint().contains("expected both"), "{}", half.error);
    assert!(culvert(&socket, "policy delete --direction out").complaint().contains("which policy"));
    assert_eq!(with_template(&server, words, "src nowhere").code, Some(2));
}
