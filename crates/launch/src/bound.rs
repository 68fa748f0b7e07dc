//! What a netlink socket is bound to: its port, and the groups whose events it gets. The rules are
//! those of the kernel (`net/netlink/af_netlink.c`).

use nix::errno::Errno;

/// Octets of an address (`struct sockaddr_nl`).
pub(crate) const ADDRESS_LEN: usize = 12;

/// Families of addresses.
const AF_UNSPEC: u16 = 0;
const AF_NETLINK: u16 = 16;

/// Most groups there are.
const GROUPS_MAX: u32 = 32;

/// An address of a netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    family: u16,
    port: u32,
    groups: u32,
}

impl Address {
    /// Reads an address of at least 12 octets.
    pub(crate) fn read(octets: &[u8]) -> Option<Address> {
        let number = |at: usize| Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?));
        let family = u16::from_ne_bytes(octets.get(..2)?.try_into().ok()?);
        Some(Address { family, port: number(4)?, groups: number(8)? })
    }

    /// Its octets.
    pub(crate) fn to_octets(self) -> [u8; ADDRESS_LEN] {
        let mut octets = [0; ADDRESS_LEN];
        octets[..2].copy_from_slice(&self.family.to_ne_bytes());
        octets[4..8].copy_from_slice(&self.port.to_ne_bytes());
        octets[8..].copy_from_slice(&self.groups.to_ne_bytes());
        octets
    }
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Its port; 0 before it is bound.
    pub(crate) port: u32,
    /// The groups whose events it gets, as bits.
    pub(crate) groups: u32,
}

impl Bound {
    /// The address that `getsockname` shows.
    pub(crate) fn address(self) -> Address {
        Address { family: AF_NETLINK, port: self.port, groups: self.groups }
    }

    /// `bind`. A port that the socket does not choose is chosen by `free`; one that it chooses must
    /// not be `taken`.
    pub(crate) fn bind(
        &mut self,
        address: Address,
        free: impl FnOnce() -> u32,
        taken: impl FnOnce(u32) -> bool,
    ) -> Result<(), Errno> {
        if address.family != AF_NETLINK || self.port != 0 && self.port != address.port {
            return Err(Errno::EINVAL);
        } else if self.port == 0 && address.port != 0 && taken(address.port) {
            return Err(Errno::EADDRINUSE);
        }
        match address.port {
            0 => self.port = free(),
            port => self.port = port,
        }
        self.groups = address.groups;
        Ok(())
    }

    /// `connect`, which only ever names the kernel here, and binds.
    pub(crate) fn connect(
        &mut self,
        address: Address,
        free: impl FnOnce() -> u32,
    ) -> Result<(), Errno> {
        match address.family {
            AF_UNSPEC => return Ok(()),
            AF_NETLINK if address.port == 0 => {}
            AF_NETLINK => return Err(Errno::ECONNREFUSED),
            _ => return Err(Errno::EINVAL),
        }
        if self.port == 0 {
            self.port = free();
        }
        Ok(())
    }

    /// `setsockopt` of `SOL_NETLINK` with this value. Options that only change the shape of errors,
    /// or what happens to events that do not fit, are accepted.
    pub(crate) fn set_option(&mut self, name: i32, value: u32) -> Result<(), Errno> {
        let group = || match value {
            1..=GROUPS_MAX => Ok(1 << (value - 1)),
            _ => Err(Errno::EINVAL),
        };
        match name {
            libc::NETLINK_ADD_MEMBERSHIP => self.groups |= group()?,
            libc::NETLINK_DROP_MEMBERSHIP => self.groups &= !group()?,
            libc::NETLINK_PKTINFO
            | libc::NETLINK_BROADCAST_ERROR
            | libc::NETLINK_NO_ENOBUFS
            | libc::NETLINK_LISTEN_ALL_NSID
            | libc::NETLINK_CAP_ACK
            | libc::NETLINK_EXT_ACK
            | libc::NETLINK_GET_STRICT_CHK => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u32, groups: u32) -> Address {
        Address { family: AF_NETLINK, port, groups }
    }

    /// A socket is bound to its port once, and to groups as often as it likes.
    #[test]
    fn a_port_is_bound_once() {
        let mut bound = Bound::default();
        bound.bind(address(0, 3), || 77, |_| panic!("not asked")).unwrap();
        assert_eq!(bound, Bound { port: 77, groups: 3 });
        let other = bound.bind(address(78, 1), || 1, |_| false);
        assert_eq!(other, Err(Errno::EINVAL));
        bound.bind(address(77, 0xc3), || 1, |_| true).unwrap();
        assert_eq!(bound, Bound { port: 77, groups: 0xc3 });
        let mut second = Bound::default();
        assert_eq!(second.bind(address(77, 0), || 1, |port| port == 77), Err(Errno::EADDRINUSE));
        let wrong = Address { family: 1, ..address(5, 0) };
        assert_eq!(second.bind(wrong, || 1, |_| false), Err(Errno::EINVAL));
        assert_eq!(second, Bound::default());
    }

    /// Groups are joined and left one by one, too.
    #[test]
    fn membership_is_a_bit() {
        let mut bound = Bound { port: 1, groups: 1 };
        bound.set_option(libc::NETLINK_ADD_MEMBERSHIP, 8).unwrap();
        assert_eq!(bound.groups, 0x81);
        bound.set_option(libc::NETLINK_DROP_MEMBERSHIP, 1).unwrap();
        assert_eq!(bound.groups, 0x80);
        for group in [0, 33, u32::MAX] {
            let joined = bound.set_option(libc::NETLINK_ADD_MEMBERSHIP, group);
            assert_eq!(joined, Err(Errno::EINVAL));
        }
        bound.set_option(libc::NETLINK_EXT_ACK, 1).unwrap();
        assert_eq!(bound.set_option(99, 1), Err(Errno::ENOPROTOOPT));
    }

    /// Connecting to the kernel binds; nobody else can be connected to.
    #[test]
    fn connecting_binds() {
        let mut bound = Bound::default();
        assert_eq!(bound.connect(address(5, 0), || 9), Err(Errno::ECONNREFUSED));
        bound.connect(address(0, 0), || 9).unwrap();
        assert_eq!(bound.port, 9);
        let read = Address::read(&bound.address().to_octets()).unwrap();
        assert_eq!(read, address(9, 0));
        assert_eq!(bound.address().to_octets(), [16, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    }
}
