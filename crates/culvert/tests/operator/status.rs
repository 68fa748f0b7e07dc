//! `culvert status`, and gateways that are not there.

use serde_json::json;

use crate::culvert;
use crate::culvert_with;
use crate::raw::seqpacket;
use crate::server::Server;
use rustix::net;
use rustix::net::SocketAddrUnix;

/// A gateway that runs: its process, SAs, policies and defaults.
#[test]
fn status_of_a_gateway() {
    let server = Server::start();
    let socket = server.socket();
    let add = "sa add --direction out --source 192.0.2.1 --destination 192.0.2.2 --spi 300 \
               --algorithm aes128gcm16 --key -";
    let add: Vec<&str> = add.split_whitespace().collect();
    culvert_with(&socket, &add, &"ab".repeat(20)).text();
    let policy = "policy add --direction out --source 10.1.0.0/16 --destination 10.2.0.0/16 \
                  --action discard";
    culvert(&socket, policy).text();
    let expected = json!({
        "running": true, "socket": socket.to_str(), "pid": std::process::id(),
        "sas": {"larval": 0, "valid": 1, "dying": 0}, "policies": {"out": 1, "in": 0, "fwd": 0},
        "defaults": {"out": "discard", "in": "discard", "fwd": "discard"},
    });
    assert_eq!(culvert(&socket, "status --json").json(), expected);
    let said = culvert(&socket, "status");
    for words in ["0 larval, 1 valid, 0 dying", "1 out, 0 in, 0 fwd", "discard out"] {
        assert!(said.text().contains(words), "{words}: {}", said.out);
    }
}

/// No socket, or one that nobody listens to: it is said which, and what makes it.
#[test]
fn gateways_that_are_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("none.sock");
    let said = culvert(&path, "sa list");
    let words = format!("there is no control socket {}: `culvert run` makes it", path.display());
    assert!(said.complaint().contains(&words), "{}", said.error);
    let status = culvert(&path, "status --json");
    let json: serde_json::Value = serde_json::from_str(&status.out).expect("JSON");
    assert_eq!((status.code, &json["running"]), (Some(1), &json!(false)));
    assert!(json["error"].as_str().is_some_and(|error| error.contains(&words)));

    let dead = directory.path().join("dead.sock");
    let listener = seqpacket();
    net::bind(&listener, &SocketAddrUnix::new(&dead).expect("a path")).expect("bound");
    drop(listener);
    assert!(culvert(&dead, "policy list").complaint().contains("nobody listens"));
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("a file");
    assert!(culvert(&file, "status").complaint().contains("nobody listens"));
    let long = directory.path().join("x".repeat(200));
    assert!(culvert(&long, "status").complaint().contains("(ENAMETOOLONG)"));
}
