//! Addresses, families, SPIs and ports.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::octets::Field;
use crate::octets::Reader;
use crate::octets::Writer;
use crate::octets::code;

code! {
    /// Family of an address.
    pub struct Family(u16) {
        /// None is said: that of something around, or any.
        UNSPEC = 0,
        /// IPv4.
        INET = 2,
        /// IPv6.
        INET6 = 10,
    }
}

impl Family {
    /// The family of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::INET } else { Family::INET6 }
    }

    /// Most bits of a prefix; nothing for a family that has no addresses.
    #[must_use]
    pub fn prefix_bits_max(self) -> Option<u8> {
        match self {
            Family::INET => Some(32),
            Family::INET6 => Some(128),
            _ => None,
        }
    }
}

/// An address whose family is said elsewhere; IPv4 is in the first four octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(
    /// The octets.
    pub [u8; 16],
);

impl Address {
    /// The address of `family`, or nothing where that is neither IPv4 nor IPv6.
    #[must_use]
    pub fn ip(self, family: Family) -> Option<IpAddr> {
        let [a, b, c, d, ..] = self.0;
        match family {
            Family::INET => Some(Ipv4Addr::new(a, b, c, d).into()),
            Family::INET6 => Some(Ipv6Addr::from(self.0).into()),
            _ => None,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        let mut octets = [0; 16];
        match ip {
            IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets = ip.octets(),
        }
        Address(octets)
    }
}

impl Field for Address {
    const LEN: usize = 16;
    const ALIGN: usize = 4;

    fn read(reader: &mut Reader) -> Option<Address> {
        reader.align(Self::ALIGN);
        reader.array().map(Address)
    }

    fn write(&self, writer: &mut Writer) {
        writer.align(Self::ALIGN);
        writer.put(&self.0);
    }
}

/// An SPI, or the CPI of IPComp. In the network's order on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(
    /// Its value.
    pub u32,
);

impl Field for Spi {
    const LEN: usize = 4;
    const ALIGN: usize = 4;

    fn read(reader: &mut Reader) -> Option<Spi> {
        reader.align(Self::ALIGN);
        Some(Spi(u32::from_be_bytes(reader.array()?)))
    }

    fn write(&self, writer: &mut Writer) {
        writer.align(Self::ALIGN);
        writer.put(&self.0.to_be_bytes());
    }
}

/// A port, or a mask of ports; of ICMP its type or code. In the network's order on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port(
    /// Its value.
    pub u16,
);

impl Field for Port {
    const LEN: usize = 2;
    const ALIGN: usize = 2;

    fn read(reader: &mut Reader) -> Option<Port> {
        reader.align(Self::ALIGN);
        Some(Port(u16::from_be_bytes(reader.array()?)))
    }

    fn write(&self, writer: &mut Writer) {
        writer.align(Self::ALIGN);
        writer.put(&self.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Either family there and back; another has no addresses.
    #[test]
    fn addresses_have_a_family() {
        for text in ["10.0.0.2", "fd00::2"] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(Address::from(ip).ip(Family::of(ip)), Some(ip));
        }
        assert_eq!(Address::default().ip(Family::UNSPEC), None);
        assert_eq!(Family(7).prefix_bits_max(), None);
    }
}
