//! Tests of the whole: one bad file for each mistake, the examples, arbitrary text, the reference.

mod arbitrary;
mod mistakes;
mod reading;
mod reference;

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
