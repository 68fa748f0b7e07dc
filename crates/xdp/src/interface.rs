//! The interface under a port: what it is, whether it can carry the gateway, and its offloads.
//!
//! An AF_XDP frame is what the driver (or, in generic mode, the stack) hands to XDP, so everything
//! that merges packets or moves part of them aside before has to be off:
//!
//! | offload | what it would do | where |
//! |---|---|---|
//! | `rx-lro`, `rx-gro-hw` | merge packets before XDP | native and generic mode |
//! | `rx-gro` | merge packets before XDP | generic mode; native XDP runs before it |
//! | `rx-vlan-hw-parse` | take the VLAN tag out of the frame | both, where it can be changed |
//!
//! What is changed is remembered and set back by [`Interface::restore`], also on drop. What cannot
//! be changed refuses the interface with the command that might, but for the VLAN tag, which only
//! networks with VLANs need.
//!
//! What the *sender* offloads is out of reach from here. A local sender (the other end of a veth, a
//! host behind virtio or tun) leaves checksums for the hardware to fill in and hands over packets
//! without them: [`Interface::needs_checksum_completion`] says where that can happen, so that the
//! engine completes checksums in software. In generic mode a veth also hands over segmentation
//! super-frames, longer than any packet buffer; that is said once, with the command for its peer.

use std::fs;
use std::io;
use std::net::IpAddr;

use culvert_frame::MAX_JUMBO_FRAME;
use culvert_frame::MAX_LINK_FRAME;

use crate::error::Error;
use crate::ethtool::Ethtool;
use crate::ethtool::Feature;

/// Bytes of an Ethernet header with one VLAN tag, which the MTU does not count.
const LINK_HEADER: usize = 18;

/// Largest MTU of an interface, so that a received frame can grow in its buffer.
pub const MAX_MTU: usize = MAX_LINK_FRAME - LINK_HEADER;

/// Largest MTU of an interface where a packet may take several buffers.
pub const MAX_JUMBO_MTU: usize = MAX_JUMBO_FRAME - LINK_HEADER;

const _: () = assert!(MAX_MTU >= 1500, "standard Ethernet works");

/// Drivers that deliver packets of local senders, whose checksums nobody has filled in yet.
const LOCAL_SENDERS: [&str; 12] = [
    "veth",
    "virtio_net",
    "tun",
    "tap",
    "netkit",
    "bridge",
    "macvlan",
    "ipvlan",
    "vif",
    "dummy",
    "vmxnet3",
    "hv_netvsc",
];

/// An offload that must be off.
#[derive(Debug)]
struct Offload {
    /// The kernel's name.
    feature: &'static str,
    /// The name that `ethtool -K` takes.
    option: &'static str,
    effect: &'static str,
    only_generic: bool,
    refuse: bool,
}

const MERGES: &str = "merges packets before they reach the gateway";

const OFFLOADS: [Offload; 4] = [
    Offload { feature: "rx-lro", option: "lro", effect: MERGES, only_generic: false, refuse: true },
    Offload {
        feature: "rx-gro-hw",
        option: "rx-gro-hw",
        effect: MERGES,
        only_generic: false,
        refuse: true,
    },
    Offload { feature: "rx-gro", option: "gro", effect: MERGES, only_generic: true, refuse: true },
    Offload {
        feature: "rx-vlan-hw-parse",
        option: "rxvlan",
        effect: "takes the VLAN tag out of received frames",
        only_generic: false,
        refuse: false,
    },
];

/// A network interface, as found, and what was changed about it.
#[derive(Debug)]
pub struct Interface {
    name: String,
    ifindex: u32,
    driver: String,
    mac: [u8; 6],
    mtu: usize,
    rx_queues: usize,
    tx_queues: usize,
    combined: bool,
    ethtool: Ethtool,
    turned_off: Vec<(&'static Offload, Feature)>,
    /// Offloads stay as they are when the value is dropped.
    keeps: bool,
}

impl Interface {
    /// Asks the NIC to bring packets of ESP with this SPI and destination to a queue. Returns the
    /// number of the rule.
    ///
    /// # Errors
    /// When it has no such rules, or no room for another one.
    pub fn add_rule(&self, destination: IpAddr, spi: u32, queue: u32) -> io::Result<u32> {
        self.ethtool.add_rule(destination, spi, queue)
    }

    /// Takes a rule of [`add_rule`](Self::add_rule) back.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn remove_rule(&self, rule: u32) -> io::Result<()> {
        self.ethtool.remove_rule(rule)
    }

    /// Looks at the interface `name` of the calling thread's network namespace; changes nothing.
    ///
    /// # Errors
    /// [`Error::NoInterface`] and [`Error::Inspect`].
    pub fn inspect(name: &str) -> Result<Interface, Error> {
        let ask = |what: &'static str| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::ENODEV | libc::ENXIO) => {
                    Error::NoInterface { interface: name.to_owned() }
                }
                _ => Error::Inspect { interface: name.to_owned(), what, source },
            }
        };
        let ethtool = Ethtool::new(name).map_err(ask("name"))?;
        let ifindex = ethtool.ifindex().map_err(ask("index"))?;
        let mtu = ethtool.mtu().map_err(ask("MTU"))?;
        if !ethtool.is_up().map_err(ask("flags"))? {
            tracing::warn!(interface = name, "interface is down; run: ip link set dev {name} up");
        }
        let channels = ethtool.channels().map_err(ask("queues"))?;
        let (rx_queues, tx_queues) = match channels {
            Some(queues) => (queues.rx + queues.combined, queues.tx + queues.combined),
            None => (listed_queues(name, ifindex, "rx-"), listed_queues(name, ifindex, "tx-")),
        };
        Ok(Interface {
            name: name.to_owned(),
            ifindex,
            driver: ethtool.driver().map_err(ask("driver"))?,
            mac: ethtool.mac().map_err(ask("MAC address"))?,
            mtu,
            rx_queues: rx_queues as usize,
            tx_queues: tx_queues as usize,
            combined: channels.is_some_and(|queues| queues.combined > 0),
            ethtool,
            turned_off: Vec::new(),
            keeps: false,
        })
    }

    /// Checks that its frames fit into a buffer, or into several with `jumbo`.
    ///
    /// # Errors
    /// [`Error::Mtu`] and [`Error::JumboMtu`].
    pub fn check_mtu(&self, jumbo: bool) -> Result<(), Error> {
        let (interface, mtu) = (self.name.clone(), self.mtu);
        match jumbo {
            false if mtu > MAX_MTU => Err(Error::Mtu { interface, mtu }),
            true if mtu > MAX_JUMBO_MTU => Err(Error::JumboMtu { interface, mtu }),
            _ => Ok(()),
        }
    }

    /// Checks that every worker gets a queue of its own and every receive queue a worker.
    ///
    /// # Errors
    /// [`Error::TooFewQueues`] and [`Error::TooManyQueues`].
    pub fn check_queues(&self, workers: usize) -> Result<(), Error> {
        let (rx, tx) = (self.rx_queues, self.tx_queues);
        let interface = self.name.clone();
        let command = if self.combined {
            format!("ethtool -L {interface} combined {workers}")
        } else {
            format!("ethtool -L {interface} rx {workers} tx {workers}")
        };
        if rx < workers || tx < workers {
            return Err(Error::TooFewQueues { interface, rx, tx, workers, command });
        }
        if rx > workers {
            return Err(Error::TooManyQueues { interface, rx, workers, command });
        }
        Ok(())
    }

    /// Turns off the offloads that must be off in native or generic mode; safe to call again.
    ///
    /// # Errors
    /// [`Error::Offload`] when one stays on, [`Error::Inspect`] when the kernel does not tell.
    pub fn prepare(&mut self, generic: bool) -> Result<(), Error> {
        for offload in OFFLOADS.iter().filter(|offload| generic || !offload.only_generic) {
            self.turn_off(offload)?;
        }
        Ok(())
    }

    /// Sets offloads back as they were found; a failure is logged, as nothing else can be done.
    pub fn restore(&mut self) {
        for (offload, feature) in self.turned_off.drain(..).rev() {
            if let Err(error) = self.ethtool.set_feature(feature, true) {
                tracing::warn!(
                    interface = self.name,
                    %error,
                    "offload not restored; run: ethtool -K {} {} on",
                    self.name,
                    offload.option,
                );
            }
        }
    }

    /// The offloads that were turned off, a bit for each.
    pub(crate) fn turned_off(&self) -> u8 {
        let place = |offload| OFFLOADS.iter().position(|other| std::ptr::eq(other, offload));
        self.turned_off
            .iter()
            .filter_map(|(offload, _)| place(*offload))
            .fold(0, |bits, place| bits | 1 << place)
    }

    /// Offloads that another process turned off, by the bits of [`Interface::turned_off`]: from now
    /// on it is for this value to restore them.
    pub(crate) fn was_turned_off(&mut self, bits: u8) {
        for (place, offload) in OFFLOADS.iter().enumerate() {
            let known = self.turned_off.iter().any(|(other, _)| std::ptr::eq(*other, offload));
            if bits & 1 << place == 0 || known {
                continue;
            }
            if let Ok(Some(feature)) = self.ethtool.feature(offload.feature) {
                self.turned_off.push((offload, feature));
            }
        }
    }

    /// Whether offloads stay as they are when this value is dropped.
    pub(crate) fn keep_offloads(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index of the interface.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Name of its driver, like `veth` or `ice`; empty when it tells none.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Its Ethernet address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Its MTU in bytes.
    #[must_use]
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// Receive queues in use.
    #[must_use]
    pub fn rx_queues(&self) -> usize {
        self.rx_queues
    }

    /// Transmit queues in use.
    #[must_use]
    pub fn tx_queues(&self) -> usize {
        self.tx_queues
    }

    /// True when received packets may lack their TCP or UDP checksum, so that software has to
    /// complete it before they leave the machine.
    #[must_use]
    pub fn needs_checksum_completion(&self) -> bool {
        LOCAL_SENDERS.contains(&self.driver.as_str())
    }

    /// True for an end of a veth pair.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.driver == "veth"
    }

    /// Warns of what the other end of a veth pair may send; once, when it is opened.
    pub(crate) fn warn_of_peer(&self, generic: bool) {
        if self.is_veth() && generic {
            tracing::warn!(
                interface = self.name,
                "generic XDP on a veth: its peer may send segmentation super-frames, which are \
                 dropped; run at the peer: ethtool -K <peer> tso off gso off tx off"
            );
        }
    }

    fn turn_off(&mut self, offload: &'static Offload) -> Result<(), Error> {
        let asked = self.ethtool.feature(offload.feature);
        let Some(feature) = asked.map_err(|source| self.unreadable(source))? else {
            return Ok(());
        };
        if !feature.active {
            return Ok(());
        }
        self.turned_off.retain(|(other, _)| !std::ptr::eq(*other, offload));
        let reason = match self.ethtool.set_feature(feature, false) {
            Ok(()) => "the driver kept it on".to_owned(),
            Err(error) => error.to_string(),
        };
        let after = self.ethtool.feature(offload.feature);
        if !after.map_err(|source| self.unreadable(source))?.is_some_and(|after| after.active) {
            tracing::debug!(interface = self.name, offload = offload.feature, "turned off");
            self.turned_off.push((offload, feature));
            return Ok(());
        }
        if offload.refuse {
            return Err(Error::Offload {
                interface: self.name.clone(),
                feature: offload.feature,
                option: offload.option,
                effect: offload.effect,
                reason,
            });
        }
        let (feature, effect) = (offload.feature, offload.effect);
        tracing::warn!(interface = self.name, "{feature} stays on and {effect}: {reason}");
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Inspect { interface: self.name.clone(), what: "offloads", source }
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        if !self.keeps {
            self.restore();
        }
    }
}

/// Queues that sysfs lists, for drivers that do not answer; one when it does not show this
/// interface (sysfs may belong to another network namespace).
fn listed_queues(name: &str, ifindex: u32, prefix: &str) -> u32 {
    let directory = format!("/sys/class/net/{name}");
    let shown = fs::read_to_string(format!("{directory}/ifindex"));
    if !shown.is_ok_and(|shown| shown.trim() == ifindex.to_string()) {
        return 1;
    }
    let Ok(queues) = fs::read_dir(format!("{directory}/queues")) else {
        return 1;
    };
    let names = queues.flatten().filter(|queue| {
        let name = queue.file_name();
        name.to_str().is_some_and(|name| name.starts_with(prefix))
    });
    u32::try_from(names.count()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that does not exist says so, and names it.
    #[test]
    fn missing_interface() {
        let error = Interface::inspect("no-such-if").unwrap_err();
        assert!(matches!(error, Error::NoInterface { .. }));
        assert!(error.to_string().starts_with("interface no-such-if: no such"), "{error}");
    }

    /// The loopback interface is refused: its MTU is larger than a buffer, and than several.
    #[test]
    fn loopback_is_refused() {
        let refusal =
            |jumbo| Interface::inspect("lo").and_then(|lo| lo.check_mtu(jumbo)).unwrap_err();
        let error = refusal(false);
        assert!(matches!(error, Error::Mtu { .. } | Error::Inspect { .. }), "{error}");
        let error = refusal(true);
        assert!(matches!(error, Error::JumboMtu { .. } | Error::Inspect { .. }), "{error}");
    }

    /// sysfs of another namespace is not believed, and an unlisted interface has one queue.
    #[test]
    fn listed_queues_belong_to_the_interface() {
        assert_eq!(listed_queues("lo", u32::MAX, "rx-"), 1);
        assert_eq!(listed_queues("no-such-if", 1, "rx-"), 1);
        assert!(listed_queues("lo", 1, "rx-") >= 1);
    }
}
