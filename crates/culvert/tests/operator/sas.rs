//! `culvert sa`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use culvert_keying::Report;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::address::Family;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::SpiRequest;
use culvert_xfrm::sa::XfrmId;
use serde_json::Value;
use serde_json::json;

use crate::Said;
use crate::culvert;
use crate::culvert_with;
use crate::raw::Raw;
use crate::server::Server;

/// Key and salt of AES-128-GCM, in hex.
const KEY: &str = "4bd6a1c1a9cd1f2e8f3f0c5d7e6b9a8040414243";

const OUT: &str = "sa add --direction out --source 192.0.2.1 --destination 192.0.2.2 --spi 0x1001 \
                   --algorithm aes128gcm16 --reqid 7 --key -";

const IN: &str = "sa add --direction in --source 192.0.2.2 --destination 192.0.2.1 --spi 8194 \
                  --algorithm aes256-sha256 --reqid 7 --esn --replay-window 128 \
                  --encap 4500:1024 --soft-bytes 1000 --hard-bytes 2000 --hard-seconds 3600 \
                  --key -";

/// Runs the words with a key on standard input.
fn add(server: &Server, words: &str, key: &str) -> Said {
    culvert_with(&server.socket(), &words.split_whitespace().collect::<Vec<&str>>(), key)
}

fn of_spi<'a>(list: &'a Value, spi: &str) -> &'a Value {
    let found = list.as_array().expect("an array").iter().find(|sa| sa["spi"] == spi);
    found.unwrap_or_else(|| panic!("{spi}: {list}"))
}

/// A file that only its owner reads.
fn key_file(directory: &Path, text: &str) -> String {
    let path = directory.join("key.hex");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path.to_str().expect("text").to_owned()
}

/// What is added is listed with all that was said of it, shown, and gone once deleted.
#[test]
fn sas_come_and_go() {
    let server = Server::start();
    let socket = server.socket();
    assert_eq!(culvert(&socket, "sa list --json").json(), json!([]));
    assert_eq!(add(&server, OUT, KEY).text(), "added 0x00001001 esp 192.0.2.1 > 192.0.2.2\n");
    let long = "2b".repeat(64);
    assert_eq!(add(&server, IN, &long).text(), "added 0x00002002 esp 192.0.2.2 > 192.0.2.1\n");
    let list = culvert(&socket, "sa list --json").json();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    let none = json!({"bytes": null, "packets": null, "seconds": null, "use_seconds": null});
    let mut out = of_spi(&list, "0x00001001").clone();
    assert!(out["added"].as_u64().is_some_and(|at| at > 1_700_000_000), "{out}");
    out["added"] = json!(0);
    let expected = json!({
        "spi": "0x00001001", "direction": "out", "protocol": "esp", "mode": "tunnel",
        "source": "192.0.2.1", "destination": "192.0.2.2", "encapsulation": null,
        "algorithm": "aes128gcm16", "reqid": 7, "if_id": 0, "mark": null, "esn": false,
        "replay_window": 0, "selector": null, "tfc_padding": null, "nat_keepalive": null,
        "sequence": {"sent": 0, "received": 0}, "packets": 0, "bytes": 0, "added": 0,
        "first_used": null, "last_used": null, "limits": {"soft": none, "hard": none},
        "left": {"soft": none, "hard": none}, "drops": {"replay": 0, "integrity": 0},
        "state": "valid",
    });
    assert_eq!(out, expected);
    let inbound = of_spi(&list, "0x00002002");
    assert_eq!(inbound["direction"], "in");
    assert_eq!(inbound["encapsulation"], json!({"source_port": 4500, "destination_port": 1024}));
    assert_eq!(inbound["algorithm"], "aes256-sha256");
    assert_eq!((&inbound["esn"], &inbound["replay_window"]), (&json!(true), &json!(128)));
    assert_eq!(inbound["limits"]["soft"]["bytes"], 1000);
    assert_eq!(inbound["limits"]["hard"]["seconds"], 3600);
    let left = inbound["left"]["hard"]["seconds"].as_u64().expect("a number");
    assert!((3500..=3600).contains(&left), "{left}");

    culvert(&socket, "sa delete 4097").text();
    assert_eq!(culvert(&socket, "sa delete 4097").complaint(), "culvert: there is no such SA\n");
    assert_eq!(culvert(&socket, "sa delete 0x2002 --json").json()["spi"], "0x00002002");
    assert_eq!(culvert(&socket, "sa list --json").json(), json!([]));
}

/// Every name of the JSON stands in the documentation.
#[test]
fn names_are_documented() {
    fn names(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(of) => of.iter().for_each(|(name, value)| {
                found.push(name.clone());
                names(value, found);
            }),
            Value::Array(of) => of.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let server = Server::start();
    let socket = server.socket();
    add(&server, &IN.replace("--key", "--mark 1 --if-id 2 --key"), &"2b".repeat(64)).text();
    let policy = "policy add --direction out --source 10.1.0.0/16 --destination 10.2.0.0/16 \
                  --protocol tcp --destination-port 22 --mark 7 --json";
    let mut policy: Vec<&str> = policy.split_whitespace().collect();
    policy.extend(["--template", "src 192.0.2.1 dst 192.0.2.2 mode tunnel spi 9"]);
    let policy = culvert_with(&socket, &policy, "").json();
    let sa = culvert(&socket, "sa show 0x2002 --show-keys --json").json();
    let mut found = Vec::new();
    for value in [&sa, &policy, &culvert(&socket, "status --json").json()] {
        names(value, &mut found);
    }
    assert!(found.len() > 60, "{found:?}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md");
    let documentation = fs::read_to_string(path).expect("docs/operating.md");
    let (_, section) = documentation.split_once("### Their JSON").expect("the section");
    for name in found {
        assert!(section.contains(&format!("`{name}`")), "{name}");
    }
}

/// The table, and all there is to know of one SA, for people.
#[test]
fn sas_are_shown_in_words() {
    let server = Server::start();
    let socket = server.socket();
    add(&server, OUT, KEY).text();
    add(&server, IN, &"2b".repeat(64)).text();
    let table = culvert(&socket, "sa list");
    let lines: Vec<&str> = table.text().lines().collect();
    assert_eq!(lines.len(), 3, "{}", table.out);
    assert!(lines[0].starts_with("SPI         DIR  PROTO  MODE"), "{}", lines[0]);
    assert!(lines.iter().all(|line| line.len() <= 140), "{}", table.out);
    // The youngest first.
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let expected = [
        "0x00002002",
        "in",
        "esp",
        "tunnel",
        "192.0.2.2",
        "192.0.2.1",
        "4500:1024",
        "aes256-sha256",
        "7",
        "valid",
        "0",
        "0",
        "-",
    ];
    assert_eq!(words, expected);

    let shown = culvert(&socket, "sa show 0x2002");
    for words in ["UDP 4500 > 1024", "128, ESN on", "192.0.2.2 > 192.0.2.1", "bytes 1000"] {
        assert!(shown.text().contains(words), "{words}: {}", shown.out);
    }
    let by_ends = culvert(&socket, "sa show --destination 192.0.2.2 --protocol esp --json").json();
    assert_eq!(by_ends[0]["spi"], "0x00001001");
    assert_eq!(by_ends.as_array().map(Vec::len), Some(1));

    let gone = culvert(&socket, "sa delete 4097");
    assert_eq!(gone.text(), "deleted 0x00001001 esp 192.0.2.1 > 192.0.2.2\n");
}

/// AH, transport mode, IPv6, XFRM interfaces and marks, small windows and none.
#[test]
fn sas_of_every_form() {
    let server = Server::start();
    let socket = server.socket();
    let cases = [
        (
            "--direction in --source 2001:db8::2 --destination 2001:db8::1 --spi 0x101 \
             --protocol ah --mode transport --algorithm sha256 --replay-window 32 --key -",
            "11".repeat(32),
        ),
        (
            "--direction out --source 2001:db8::1 --destination 2001:db8::2 --spi 0x102 --esn \
          --algorithm chacha20poly1305 --key -",
            "12".repeat(36),
        ),
        (
            "--direction in --source 192.0.2.2 --destination 192.0.2.1 --spi 0x103 \
          --algorithm null-sha512 --replay-window 0 --key -",
            "13".repeat(64),
        ),
        (
            "--direction in --source 192.0.2.2 --destination 192.0.2.1 --spi 0x104 --if-id 9 \
          --mark 0x2a/0xff --algorithm aes192gmac --key -",
            "14".repeat(28),
        ),
    ];
    for (words, key) in &cases {
        add(&server, &format!("sa add {words}"), key).text();
    }
    let list = culvert(&socket, "sa list --json").json();
    let facts = |spi: &str| {
        let sa = of_spi(&list, spi);
        let names = ["protocol", "mode", "algorithm", "esn", "replay_window", "if_id"];
        names.map(|name| sa[name].clone())
    };
    let expected = |text: &str| -> [Value; 6] {
        let all: Vec<Value> = serde_json::from_str(text).expect("JSON");
        all.try_into().expect("six")
    };
    let of = [
        ("0x00000101", r#"["ah", "transport", "sha256", false, 32, 0]"#),
        ("0x00000102", r#"["esp", "tunnel", "chacha20poly1305", true, 0, 0]"#),
        ("0x00000103", r#"["esp", "tunnel", "null-sha512", false, 0, 0]"#),
        ("0x00000104", r#"["esp", "tunnel", "aes192gmac", false, 1024, 9]"#),
    ];
    for (spi, text) in of {
        assert_eq!(facts(spi), expected(text), "{spi}");
    }
    assert_eq!(of_spi(&list, "0x00000104")["mark"], json!({"value": 42, "mask": 255}));
    assert_eq!(of_spi(&list, "0x00000101")["source"], "2001:db8::2");
    // The one with a mark is deleted as well: its mark is told.
    for spi in ["0x101", "0x102", "0x103", "0x104"] {
        culvert(&socket, &format!("sa delete {spi}")).text();
    }
}

/// No command shows a key, nor does a complaint; `sa show --show-keys` does. A key on the command
/// line is taken with a warning.
#[test]
fn keys_are_shown_when_asked_for_alone() {
    let server = Server::start();
    let socket = server.socket();
    let mut said = vec![add(&server, OUT, &format!("{KEY}\n"))];
    let file = key_file(server.directory(), "5bd6a1c1a9cd1f2e8f3f0c5d7e6b9a8040414243\n");
    let with_file = OUT.replace("0x1001", "0x1002").replace("--key -", "--key-file ") + &file;
    said.push(culvert(&socket, &with_file));
    assert_eq!((said[1].code, said[1].error.as_str()), (Some(0), ""));
    let bare = OUT.replace("0x1001", "0x1003").replace("--key -", "--key ");
    let third = KEY.replace("4bd6", "6bd6");
    said.push(culvert(&socket, &(bare.clone() + &third)));
    assert!(said[2].error.contains("warning: a key on the command line"), "{}", said[2].error);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let listed = ["sa list", "sa list --json", "sa show 0x1001", "sa show 0x1001 --json", "status"];
    said.extend(listed.map(|words| culvert(&socket, words)));
    said.iter().for_each(|said| _ = said.text());
    // Complaints: a key that is used already, an SA that exists, odd keys, and the file of others.
    said.push(culvert(&socket, &with_file));
    assert!(said.last().unwrap().error.contains("others than its owner"));
    said.push(add(&server, &OUT.replace("0x1001", "0x1004"), KEY));
    said.push(culvert(&socket, &(bare.clone() + &KEY[..38])));
    said.push(culvert(&socket, &(bare.clone() + &KEY[..39])));
    said.push(culvert(&socket, &(bare + &KEY.replace('a', "x"))));
    for Said { out, error, .. } in &said {
        for part in ["a1c1a9cd1f2e", "x1c1x9cd1f2e", "5d7e6b9a80"] {
            assert!(!out.contains(part) && !error.contains(part), "{out}{error}");
        }
    }
    let shown = culvert(&socket, "sa show 0x1001 --show-keys");
    assert!(shown.text().contains(KEY), "{}", shown.out);
    let shown = culvert(&socket, "sa show 0x1002 --show-keys --json").json();
    assert_eq!(shown[0]["key"], "5bd6a1c1a9cd1f2e8f3f0c5d7e6b9a8040414243");
}

/// What workers say of an SA: packets, octets, numbers, times, drops; and its state.
#[test]
fn sas_are_shown_as_workers_have_them() {
    let server = Server::start();
    let socket = server.socket();
    add(&server, IN, &"2b".repeat(64)).text();
    let tell = |bytes| {
        let report = Report {
            packets: 11,
            bytes,
            first_used: Some(1_700_000_000),
            last_used: Some(1_700_000_060),
            sequence: 1 << 33,
            window: Some(culvert_esp::WindowState::from_fn(1 << 33, 128, |_| true)),
            refused: [1, 2, 3],
        };
        server.reports.lock().expect("no panic").insert(0x2002, report);
        culvert(&socket, "sa show 0x2002 --json").json()[0].clone()
    };
    let shown = tell(400);
    assert_eq!((&shown["packets"], &shown["bytes"]), (&json!(11), &json!(400)));
    assert_eq!(shown["sequence"], json!({"sent": 0, "received": 1_u64 << 33}));
    assert_eq!(shown["first_used"], 1_700_000_000);
    assert_eq!(shown["last_used"], 1_700_000_060);
    assert_eq!(shown["drops"], json!({"replay": 3, "integrity": 3}));
    assert_eq!(shown["left"]["soft"]["bytes"], 600);
    assert_eq!(shown["left"]["hard"]["bytes"], 1600);
    assert_eq!(shown["state"], "valid");
    assert_eq!(tell(999)["state"], "valid");
    let shown = tell(1000);
    assert_eq!(shown["state"], "dying");
    assert_eq!(shown["left"]["soft"]["bytes"], 0);
    let text = culvert(&socket, "sa show 0x2002");
    assert!(text.text().contains("dropped       replay 3, integrity 3\n"), "{}", text.out);
    assert!(culvert(&socket, "sa list").text().contains(" dying "));
}

/// An SPI without keys yet is larval, and has no algorithm.
#[test]
fn larval_sas_are_listed() {
    let server = Server::start();
    let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address").into();
    let info = SaInfo {
        id: XfrmId { daddr: ip("192.0.2.1"), proto: sa::ESP, ..XfrmId::default() },
        saddr: ip("192.0.2.2"),
        family: Family::INET,
        mode: Mode::TUNNEL,
        ..SaInfo::default()
    };
    let request = SpiRequest { info, min: 0xc000_0001, max: 0xc000_0001 };
    let mut raw = Raw::connect(&server.socket());
    raw.ask(Body::AllocateSpi(request, Attributes::default()));
    let list = culvert(&server.socket(), "sa list --json").json();
    let sa = of_spi(&list, "0xc0000001");
    assert_eq!((&sa["state"], &sa["algorithm"]), (&json!("larval"), &Value::Null));
    assert_eq!(culvert(&server.socket(), "status --json").json()["sas"]["larval"], 1);
}

/// What is refused is refused in words, with the number's name; what is ambiguous is not guessed.
#[test]
fn refusals_are_in_words() {
    let server = Server::start();
    let socket = server.socket();
    add(&server, OUT, KEY).text();
    let again = add(&server, OUT, KEY);
    assert_eq!(again.complaint(), "culvert: refused: the SA exists (EEXIST)\n");
    let reserved = add(&server, &OUT.replace("0x1001", "5"), &KEY.replace("4b", "4c"));
    assert!(reserved.complaint().contains("(EINVAL)"), "{}", reserved.error);
    let other = OUT.replace("192.0.2.2", "192.0.2.3");
    add(&server, &other, &KEY.replace("4b", "4d")).text();
    let both = culvert(&socket, "sa delete 0x1001");
    assert!(both.complaint().contains("2 SAs are like that"), "{}", both.error);
    assert_eq!(culvert(&socket, "sa show 0x1001 --json").json().as_array().map(Vec::len), Some(2));
    culvert(&socket, "sa delete 0x1001 --destination 192.0.2.3").text();
    let wrong = [
        ("des-sha256", "refused"),
        ("aes128gcm16iiv", "XFRM has no name for it"),
        ("sha256", "is for AH"),
    ];
    for (algorithm, words) in wrong {
        let key = if algorithm.ends_with("iiv") { KEY } else { "" };
        let said = add(&server, &OUT.replace("aes128gcm16", algorithm), key);
        assert!(said.complaint().contains(words), "{}", said.error);
    }
    let short = add(&server, OUT, &KEY[..32]);
    assert!(short.complaint().contains("expected 20 octets for aes128gcm16"), "{}", short.error);
    let families = add(&server, &OUT.replace("192.0.2.2", "2001:db8::2"), KEY);
    assert!(families.complaint().contains("one family"), "{}", families.error);
    assert!(culvert(&socket, "sa show").complaint().contains("which SA"));
    for usage in ["sa add --spi 1", "sa list --timeout 0", "sa show 0xz", "sa", "policy"] {
        assert_eq!(culvert(&socket, usage).code, Some(2), "{usage}");
    }
}
