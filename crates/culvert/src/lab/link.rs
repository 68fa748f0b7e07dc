//! Links between namespaces: veth pairs, and a wire with a tap in the middle.
//!
//! A frame which a gateway redirects by XDP, or sends by AF_XDP, passes no packet tap on the
//! gateway's own interface: a capture there sees nothing and proves nothing. So [`Link::wire`] puts
//! a third namespace between two gateways, with a bridge of two ports. Each frame enters at one
//! port and leaves at the other by the ordinary way, and a capture on either port sees each once.
//!
//! ```text
//!   gw-a                       wire                        gw-b
//!   wan0 <---- veth ----> left -- br0 -- right <---- veth ----> wan0
//! ```
//!
//! The bridge speaks for itself as little as a cable does: no spanning tree, no multicast snooping,
//! no IPv6, no address, no packet filter.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use super::namespaces::Ns;
use super::offload;

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it lies.
    pub ns: &'a Ns,
    /// Name of the interface.
    pub interface: &'a str,
    /// Addresses with prefix lengths, like "10.1.0.1/24" and "fd01::1/64".
    pub addresses: &'a [&'a str],
    /// The kernel draws one when absent.
    pub mac: Option<[u8; 6]>,
}

impl<'a> End<'a> {
    /// An end with addresses, and a MAC address that the kernel draws.
    #[must_use]
    pub fn new(ns: &'a Ns, interface: &'a str, addresses: &'a [&'a str]) -> End<'a> {
        End { ns, interface, addresses, mac: None }
    }
}

/// Properties of a link, the same at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// MTU in bytes.
    pub mtu: u32,
    /// Receive queues, and as many transmit queues.
    pub queues: u32,
    /// Whether checksums and segmentation may be left to the other end, as veth does by default.
    /// A real network delivers whole packets; so does a link without.
    pub offloads: bool,
}

impl Default for Link {
    fn default() -> Link {
        Link { mtu: 1500, queues: 1, offloads: true }
    }
}

/// The namespace between two gateways.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The namespace.
    pub ns: Ns,
    /// The port towards the left end: what is injected here arrives there.
    pub left: &'static str,
    /// The port towards the right end.
    pub right: &'static str,
}

/// How long a link may take to carry frames.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

const LEFT: &str = "left";
const RIGHT: &str = "right";

impl Link {
    /// Makes a veth pair with its addresses, both ends up.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn connect(&self, left: &End<'_>, right: &End<'_>) -> Result<()> {
        let Link { mtu, queues, .. } = self;
        let properties = |end: &End<'_>| {
            let mac = end.mac.map(|mac| format!("address {}", mac_text(mac))).unwrap_or_default();
            format!(
                "name {} mtu {mtu} numrxqueues {queues} numtxqueues {queues} {mac}",
                end.interface
            )
        };
        left.ns.ip(&format!(
            "link add {} type veth peer {} netns {}",
            properties(left),
            properties(right),
            right.ns.name()
        ))?;
        for end in [left, right] {
            for address in end.addresses {
                // Duplicate address detection would make it unusable for a second.
                let nodad = if address.contains(':') { "nodad" } else { "" };
                end.ns.ip(&format!("address add {address} dev {} {nodad}", end.interface))?;
            }
            if !self.offloads {
                offload::turn_off(end.ns, end.interface, &offload::OF_SENDERS)?;
            }
        }
        for end in [left, right] {
            end.ns.ip(&format!("link set {} up", end.interface))?;
        }
        for end in [left, right] {
            await_link(end.ns, end.interface, "state UP")?;
        }
        Ok(())
    }

    /// Connects two ends through a bridge in `middle`, which is for nothing else.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn wire(&self, left: &End<'_>, right: &End<'_>, middle: &Ns) -> Result<Wire> {
        for scope in ["all", "default"] {
            middle.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1")?;
        }
        // Where the kernel has it, the bridge would hand IP packets to packet filters, which drop
        // those that are not well formed. A cable does not read.
        for filter in ["iptables", "ip6tables", "arptables"] {
            let _ = middle.sysctl(&format!("net.bridge.bridge-nf-call-{filter}"), "0");
        }
        middle.ip("link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0")?;
        for (end, port) in [(left, LEFT), (right, RIGHT)] {
            self.connect(end, &End::new(middle, port, &[])).context("wire")?;
            middle.ip(&format!("link set {port} master br0"))?;
        }
        middle.ip("link set br0 up")?;
        for port in [LEFT, RIGHT] {
            await_link(middle, port, "state forwarding")?;
        }
        Ok(Wire { ns: middle.clone(), left: LEFT, right: RIGHT })
    }
}

/// Waits until `ip` says this of an interface. A carrier takes effect some time after the command
/// that brings it, and until then the kernel drops what is sent.
fn await_link(ns: &Ns, interface: &str, words: &str) -> Result<()> {
    let show = format!("-d link show dev {interface}");
    let is_so = || ns.ip(&show).is_ok_and(|shown| shown.contains(words));
    if !ns.cancel().wait(LINK_TIMEOUT, is_so)? {
        bail!("{}: {interface}: not \"{words}\" after {LINK_TIMEOUT:?}", ns.name());
    }
    Ok(())
}

/// The usual form, octets in hex with colons.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::namespaces::tests::laboratory;

    /// A pair has the MTU, queues, MAC and addresses asked for, and is up.
    #[test]
    fn a_pair_is_as_asked() {
        let Some(mut lab) = laboratory() else { return };
        let (a, b) = (lab.add("a").expect("a"), lab.add("b").expect("b"));
        let left = End {
            mac: Some([2, 0, 0, 0, 0xab, 1]),
            ..End::new(&a, "lan0", &["10.1.0.1/24", "fd01::1/64"])
        };
        let right = End::new(&b, "lan1", &["10.1.0.2/24"]);
        Link { mtu: 1600, queues: 2, ..Link::default() }.connect(&left, &right).expect("connect");
        let shown = a.ip("-d addr show lan0").expect("show");
        for part in ["mtu 1600", "02:00:00:00:ab:01", "numrxqueues 2", "numtxqueues 2", "LOWER_UP"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        for part in ["10.1.0.1/24", "fd01::1/64"] {
            assert!(shown.contains(part) && !shown.contains("tentative"), "{part} in {shown}");
        }
        assert!(b.ip("-d link show lan1").expect("show").contains("numrxqueues 2"));
    }
}
