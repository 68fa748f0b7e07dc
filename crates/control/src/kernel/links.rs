//! Interfaces: which of them packets may leave by, and whether they are up.
//!
//! All interfaces of the namespace are kept, because an interface becomes ours by its name, a VLAN
//! device by the interface below it, and a route is only as good as the interface it leaves by.

use std::collections::BTreeMap;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::InfoData;
use netlink_packet_route::link::InfoVlan;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkInfo;
use netlink_packet_route::link::LinkLayerType;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::link::VlanProtocol;

use culvert_engine::next_hop::Link;
use culvert_frame::Port;
use culvert_wire::ethernet::Mac;

use super::table::Outcome;
use super::table::changed_if;

/// Most interfaces kept.
pub(super) const MAX_LINKS: usize = 16_384;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    name: String,
    /// Absent when the interface is not Ethernet.
    mac: Option<Mac>,
    mtu: u16,
    /// The administrator wants it up.
    up: bool,
    /// Something is connected.
    carrier: bool,
    /// Interface below and VLAN identifier of a VLAN device.
    vlan: Option<(u32, u16)>,
}

/// All interfaces, and the names and ports of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Links {
    ports: Vec<(String, Port)>,
    records: BTreeMap<u32, Record>,
}

impl Links {
    pub(super) fn new(interfaces: &[(String, Port)]) -> Links {
        Links { ports: interfaces.to_vec(), records: BTreeMap::new() }
    }

    /// An interface appeared or changed.
    pub(super) fn set(&mut self, message: &LinkMessage) -> Outcome {
        // Other families describe a port of a bridge; what there is of the interface is not all.
        if message.header.interface_family != AddressFamily::Unspec {
            return Outcome::Same;
        }
        let index = message.header.index;
        let Some(record) = record(message) else {
            return Outcome::Same;
        };
        if self.records.len() >= MAX_LINKS && !self.records.contains_key(&index) {
            return Outcome::OverLimit;
        }
        let ours_before = self.is_ours(index);
        let before = self.records.insert(index, record);
        let record = &self.records[&index];
        match before {
            // Packets cannot have gone anywhere by an interface that was not there.
            None => changed_if(self.is_ours(index)),
            // The kernel drops the routes of an interface that goes down, in silence.
            Some(before) if before.up && !record.up => Outcome::Reread,
            // Its neighbours were of no interest until now.
            Some(before) if before.name != record.name => Outcome::Reread,
            Some(_) if ours_before != self.is_ours(index) => Outcome::Reread,
            Some(before) => changed_if(before != *record),
        }
    }

    /// An interface went away, and routes by it with it, some in silence.
    pub(super) fn remove(&mut self, message: &LinkMessage) -> Outcome {
        if message.header.interface_family != AddressFamily::Unspec {
            return Outcome::Same;
        }
        match self.records.remove(&message.header.index) {
            Some(_) => Outcome::Reread,
            None => Outcome::Same,
        }
    }

    /// Our interfaces that are up, and the VLAN devices on them.
    pub(super) fn usable(&self) -> impl Iterator<Item = (u32, Link)> {
        self.records.keys().filter_map(|&index| Some((index, self.link(index)?)))
    }

    /// The link of an interface, if it is ours and up.
    pub(super) fn link(&self, index: u32) -> Option<Link> {
        let record = self.records.get(&index)?;
        let (port, vlan) = self.attachment(record)?;
        let below = record.vlan.and_then(|(below, _)| self.records.get(&below));
        let up = record.connected() && below.is_none_or(Record::connected);
        let mac = record.mac.filter(|_| up)?;
        Some(Link { port, vlan, mac, mtu: record.mtu })
    }

    /// True for our interfaces and VLAN devices on them, up or down.
    pub(super) fn is_ours(&self, index: u32) -> bool {
        self.records.get(&index).is_some_and(|record| self.attachment(record).is_some())
    }

    /// True when the kernel would send by the interface: if it is ours, packets must be able to
    /// leave too.
    pub(super) fn is_up(&self, index: u32) -> bool {
        if self.is_ours(index) {
            return self.link(index).is_some();
        }
        self.records.get(&index).is_some_and(|record| record.up)
    }

    /// True when one of our interfaces has this name, and is Ethernet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.records.values().any(|record| record.name == name && record.mac.is_some())
    }

    /// The name of an interface.
    pub(super) fn name(&self, index: u32) -> Option<&str> {
        self.records.get(&index).map(|record| record.name.as_str())
    }

    /// The port that packets leave by, and the tag they need there: those of a VLAN device leave by
    /// the interface below it, unless the device itself is a port.
    fn attachment(&self, record: &Record) -> Option<(Port, Option<u16>)> {
        let port =
            |name: &str| self.ports.iter().find(|(ours, _)| ours == name).map(|&(_, port)| port);
        if let Some(port) = port(&record.name) {
            return Some((port, None));
        }
        let (below, id) = record.vlan?;
        Some((port(&self.records.get(&below)?.name)?, Some(id)))
    }
}

impl Record {
    fn connected(&self) -> bool {
        self.up && self.carrier
    }
}

/// Reads what matters; `None` for a message that does not describe the whole interface.
fn record(message: &LinkMessage) -> Option<Record> {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let (mut name, mut mtu, mut mac, mut below, mut vlan) = (None, None, None, None, None);
    let mut other_namespace = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(octets) => mtu = Some(u16::try_from(*octets).unwrap_or(u16::MAX)),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkNetNsId(_) => other_namespace = true,
            LinkAttribute::LinkInfo(infos) => vlan = infos.iter().find_map(vlan_id),
            _ => {}
        }
    }
    // Index 0 is no interface: the one below is of no use to us.
    let vlan = vlan.map(|id| match id {
        Some(id) if !other_namespace => (below.unwrap_or(0), id),
        _ => (0, 0),
    });
    Some(Record {
        name: name?,
        mac: mac.filter(|_| ethernet),
        mtu: mtu?,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        vlan,
    })
}

/// The identifier of a VLAN device: `None` inside when its tags are not those of IEEE 802.1Q.
fn vlan_id(info: &LinkInfo) -> Option<Option<u16>> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else {
        return None;
    };
    let customer = attributes.iter().all(|attribute| match attribute {
        InfoVlan::Protocol(protocol) => *protocol == VlanProtocol::Ieee8021Q,
        _ => true,
    });
    let id = attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    });
    Some(id.filter(|_| customer))
}

#[cfg(test)]
pub(super) mod tests {
    use netlink_packet_core::Parseable;
    use netlink_packet_route::link::InfoKind;

    use super::*;

    pub(crate) const LAN: u32 = 4;
    pub(crate) const WAN: u32 = 5;
    pub(crate) const MANAGEMENT: u32 = 2;

    const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::LowerUp);

    /// `lan0` is port 0, `wan0` is port 1, `eth0` is not ours; all are up.
    pub(crate) fn links() -> Links {
        let mut links = Links::new(&[("lan0".into(), Port(0)), ("wan0".into(), Port(1))]);
        for (index, name) in [(MANAGEMENT, "eth0"), (LAN, "lan0"), (WAN, "wan0")] {
            links.set(&interface(index, name, UP));
        }
        links
    }

    /// Takes an interface of [`links`] down.
    pub(crate) fn take_down(links: &mut Links, index: u32) {
        links.records.get_mut(&index).unwrap().up = false;
    }

    fn interface(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.link_layer_type = LinkLayerType::Ether;
        let mac = vec![2, 0, 0, 0, 0, u8::try_from(index).unwrap()];
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(mac),
        ];
        message
    }

    fn vlan(index: u32, below: u32, id: u16, protocol: VlanProtocol) -> LinkMessage {
        let mut message = interface(index, &format!("vlan{index}"), UP);
        let data = InfoData::Vlan(vec![InfoVlan::Protocol(protocol), InfoVlan::Id(id)]);
        message.attributes.push(LinkAttribute::Link(below));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(data),
        ]));
        message
    }

    fn usable(links: &Links) -> Vec<(u32, u8, Option<u16>)> {
        links.usable().map(|(index, link)| (index, link.port.0, link.vlan)).collect()
    }

    /// Only interfaces of our names are links, with their port, MAC address and MTU.
    #[test]
    fn interfaces_by_name() {
        let links = links();
        assert_eq!(usable(&links), [(LAN, 0, None), (WAN, 1, None)]);
        let expected = Link { port: Port(1), vlan: None, mac: Mac([2, 0, 0, 0, 0, 5]), mtu: 1500 };
        assert_eq!(links.link(WAN), Some(expected));
        assert!(links.is_up(MANAGEMENT) && !links.is_ours(MANAGEMENT));
        assert!(links.has("eth0") && !links.has("eth1"));
    }

    /// A VLAN device on an interface of ours is a link on its port, whatever its own name.
    #[test]
    fn vlan_devices() {
        let mut links = links();
        assert_eq!(links.set(&vlan(7, WAN, 12, VlanProtocol::Ieee8021Q)), Outcome::Changed);
        assert_eq!(links.set(&vlan(8, MANAGEMENT, 12, VlanProtocol::Ieee8021Q)), Outcome::Same);
        assert_eq!(links.set(&vlan(9, 7, 12, VlanProtocol::Ieee8021Q)), Outcome::Same, "two tags");
        assert_eq!(links.set(&vlan(10, WAN, 12, VlanProtocol::Ieee8021Ad)), Outcome::Same);
        let mut elsewhere = vlan(11, WAN, 12, VlanProtocol::Ieee8021Q);
        elsewhere.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(links.set(&elsewhere), Outcome::Same, "interface below in another namespace");
        assert_eq!(usable(&links), [(LAN, 0, None), (WAN, 1, None), (7, 1, Some(12))]);
        take_down(&mut links, WAN);
        assert_eq!(usable(&links), [(LAN, 0, None)], "a VLAN is down with what is below it");
    }

    /// The octets in which the kernel describes a VLAN device are understood.
    #[test]
    fn vlan_device_in_octets() {
        let attribute = |kind: u16, value: &[u8]| {
            let len = u16::try_from(4 + value.len()).unwrap();
            let mut octets = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
            octets.extend(value);
            octets.resize(octets.len().next_multiple_of(4), 0);
            octets
        };
        // IFLA_VLAN_PROTOCOL, IFLA_VLAN_ID, IFLA_VLAN_FLAGS
        let data = [
            attribute(5, &0x8100u16.to_be_bytes()),
            attribute(1, &12u16.to_ne_bytes()),
            attribute(2, &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        ]
        .concat();
        // IFLA_INFO_KIND, IFLA_INFO_DATA
        let info = [attribute(1, b"vlan\0"), attribute(2, &data)].concat();
        let mut octets = vec![0, 0, 1, 0];
        octets.extend(7u32.to_ne_bytes());
        octets.extend(UP.bits().to_ne_bytes());
        octets.extend([0; 4]);
        // IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO
        octets.extend(attribute(1, &[2, 0, 0, 0, 0, 7]));
        octets.extend(attribute(3, b"wan0.12\0"));
        octets.extend(attribute(4, &1496u32.to_ne_bytes()));
        octets.extend(attribute(5, &WAN.to_ne_bytes()));
        octets.extend(attribute(18, &info));
        let mut links = links();
        let message = LinkMessage::parse(&octets).unwrap();
        assert_eq!(links.set(&message), Outcome::Changed);
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let expected = Link { port: Port(1), vlan: Some(12), mac, mtu: 1496 };
        assert_eq!(links.link(7), Some(expected));
    }

    /// A VLAN device that is itself a port sends without a tag: it adds its own.
    #[test]
    fn vlan_device_as_a_port() {
        let mut links = Links::new(&[("vlan7".into(), Port(3))]);
        links.set(&interface(WAN, "wan0", UP));
        assert_eq!(links.set(&vlan(7, WAN, 12, VlanProtocol::Ieee8021Q)), Outcome::Changed);
        assert_eq!(usable(&links), [(7, 3, None)]);
    }

    /// Without an administrator's or a cable's consent there is no link.
    #[test]
    fn down_is_no_link() {
        let mut links = links();
        assert_eq!(links.set(&interface(LAN, "lan0", LinkFlags::Up)), Outcome::Changed, "carrier");
        assert_eq!(usable(&links), [(WAN, 1, None)]);
        assert_eq!(links.set(&interface(LAN, "lan0", UP)), Outcome::Changed);
        assert_eq!(links.set(&interface(LAN, "lan0", UP)), Outcome::Same);
        assert_eq!(links.set(&interface(LAN, "lan0", LinkFlags::LowerUp)), Outcome::Reread);
        assert_eq!(usable(&links), [(WAN, 1, None)]);
    }

    /// Renamed and removed interfaces make the tables be read again.
    #[test]
    fn renamed_and_removed() {
        let mut links = links();
        assert_eq!(links.set(&interface(MANAGEMENT, "eth7", UP)), Outcome::Reread);
        assert_eq!(links.remove(&interface(LAN, "lan0", UP)), Outcome::Reread);
        assert_eq!(links.remove(&interface(LAN, "lan0", UP)), Outcome::Same);
        assert_eq!(usable(&links), [(WAN, 1, None)]);
    }

    /// Messages about a bridge port, and those without name or MTU, leave the interface as it is.
    #[test]
    fn partial_messages() {
        let mut links = links();
        let mut bridge = interface(LAN, "lan0", LinkFlags::empty());
        bridge.header.interface_family = AddressFamily::Bridge;
        let mut wireless = interface(LAN, "lan0", LinkFlags::empty());
        wireless.attributes.truncate(1);
        assert_eq!(links.set(&bridge), Outcome::Same);
        assert_eq!(links.set(&wireless), Outcome::Same);
        assert_eq!(links.remove(&bridge), Outcome::Same);
        assert_eq!(usable(&links).len(), 2);
    }

    /// An interface that is not Ethernet is none of ours.
    #[test]
    fn ethernet_only() {
        let mut links = Links::new(&[("tun0".into(), Port(0))]);
        let mut tunnel = interface(3, "tun0", UP);
        tunnel.header.link_layer_type = LinkLayerType::None;
        links.set(&tunnel);
        assert_eq!(usable(&links), []);
        assert!(!links.has("tun0"));
    }
}
