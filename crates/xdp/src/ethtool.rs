//! The ioctl part of [`interface`](crate::interface): what the kernel tells about a network
//! interface, and its offloads (`ethtool -k` and `-K`).
//!
//! Offloads go by the kernel's names of device features (`rx-gro`, `rx-lro`), which all drivers
//! share. The control socket belongs to the network namespace it was made in, so a later restore
//! reaches the same interface from any thread.

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;

use crate::rules;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The string set that names device features.
const ETH_SS_FEATURES: u32 = 4;

/// Length of one name in a string set, in 32-bit words.
const STRING_WORDS: usize = 8;

/// Device features a kernel may have; today it is 64.
const MAX_FEATURES: usize = 1024;

/// A control socket for one interface.
#[derive(Debug)]
pub(crate) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

/// Queues as `ethtool -l` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) combined: u32,
}

/// One device feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    index: usize,
    pub(crate) active: bool,
}

impl Ethtool {
    /// A control socket for the interface `name` of this thread's network namespace; the name is
    /// not looked up yet.
    pub(crate) fn new(name: &str) -> io::Result<Ethtool> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let mut padded = [0; libc::IFNAMSIZ];
        for (to, from) in padded.iter_mut().zip(bytes) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        Ok(Ethtool { socket, name: padded })
    }

    pub(crate) fn ifindex(&self) -> io::Result<u32> {
        let request = self.ioctl(libc::SIOCGIFINDEX, self.request())?;
        // SAFETY: the kernel filled in the index. Why not safe: a C union.
        u32::try_from(unsafe { request.ifr_ifru.ifru_ifindex }).map_err(io::Error::other)
    }

    pub(crate) fn mtu(&self) -> io::Result<usize> {
        let request = self.ioctl(libc::SIOCGIFMTU, self.request())?;
        // SAFETY: the kernel filled in the MTU. Why not safe: a C union.
        usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).map_err(io::Error::other)
    }

    pub(crate) fn mac(&self) -> io::Result<[u8; 6]> {
        let request = self.ioctl(libc::SIOCGIFHWADDR, self.request())?;
        // SAFETY: the kernel filled in the address. Why not safe: a C union.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(io::Error::other("not an Ethernet interface"));
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            [*to] = from.to_ne_bytes();
        }
        Ok(mac)
    }

    pub(crate) fn is_up(&self) -> io::Result<bool> {
        let request = self.ioctl(libc::SIOCGIFFLAGS, self.request())?;
        // SAFETY: the kernel filled in the flags. Why not safe: a C union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(libc::c_int::from(flags) & libc::IFF_UP != 0)
    }

    /// Name of the driver, empty when the device has none.
    pub(crate) fn driver(&self) -> io::Result<String> {
        let mut info = [0_u32; 49];
        info[0] = ETHTOOL_GDRVINFO;
        match self.ethtool(&mut info) {
            Ok(()) => Ok(text(&info[1..1 + STRING_WORDS])),
            Err(error) if unsupported(&error) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// Queues in use; `None` when the driver does not tell.
    pub(crate) fn channels(&self) -> io::Result<Option<Channels>> {
        let mut channels = [0_u32; 9];
        channels[0] = ETHTOOL_GCHANNELS;
        match self.ethtool(&mut channels) {
            Ok(()) => {
                Ok(Some(Channels { rx: channels[5], tx: channels[6], combined: channels[8] }))
            }
            Err(error) if unsupported(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The feature of this name; `None` when the kernel does not know it.
    pub(crate) fn feature(&self, name: &str) -> io::Result<Option<Feature>> {
        let count = self.feature_count()?;
        let mut strings = vec![0_u32; 3 + count * STRING_WORDS];
        [strings[0], strings[1], strings[2]] = [ETHTOOL_GSTRINGS, ETH_SS_FEATURES, word(count)];
        self.ethtool(&mut strings)?;
        let mut names = strings[3..].chunks_exact(STRING_WORDS).map(text);
        let Some(index) = names.position(|known| known == name) else {
            return Ok(None);
        };

        let words = count.div_ceil(32);
        let mut blocks = vec![0_u32; 2 + words * 4];
        [blocks[0], blocks[1]] = [ETHTOOL_GFEATURES, word(words)];
        self.ethtool(&mut blocks)?;
        // A block is: available, requested, active, never changed.
        let active = blocks[2 + index / 32 * 4 + 2] >> (index % 32) & 1 == 1;
        Ok(Some(Feature { index, active }))
    }

    /// Asks for a feature to be on or off. The kernel may leave it as it is without an error; ask
    /// again what became of it.
    pub(crate) fn set_feature(&self, feature: Feature, on: bool) -> io::Result<()> {
        let words = self.feature_count()?.div_ceil(32);
        let mut blocks = vec![0_u32; 2 + words * 2];
        [blocks[0], blocks[1]] = [ETHTOOL_SFEATURES, word(words)];
        // A block is: valid, requested.
        let (block, bit) = (2 + feature.index / 32 * 2, 1 << (feature.index % 32));
        blocks[block] = bit;
        blocks[block + 1] = if on { bit } else { 0 };
        self.ethtool(&mut blocks)
    }

    /// Brings packets of ESP with an SPI and destination to a queue; returns where the rule is.
    pub(crate) fn add_rule(&self, destination: IpAddr, spi: u32, queue: u32) -> io::Result<u32> {
        let mut request = rules::insertion(destination, spi, queue);
        self.ethtool(&mut request)?;
        Ok(rules::location(&request))
    }

    /// Takes a rule back.
    pub(crate) fn remove_rule(&self, location: u32) -> io::Result<()> {
        self.ethtool(&mut rules::removal(location))
    }

    /// How many features this kernel names; it does not change while the kernel runs.
    fn feature_count(&self) -> io::Result<usize> {
        let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        self.ethtool(&mut info)?;
        let count = info[4] as usize;
        if count > MAX_FEATURES {
            return Err(io::Error::other("more device features than expected"));
        }
        Ok(count)
    }

    /// Runs one ethtool command over `buffer`, which starts with the command and is as long as the
    /// kernel's structure for it, with what it says about variable parts.
    fn ethtool(&self, buffer: &mut [u32]) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
        self.ioctl(libc::SIOCETHTOOL, request).map(|_| ())
    }

    fn request(&self) -> libc::ifreq {
        libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_slave: [0; libc::IFNAMSIZ] },
        }
    }

    fn ioctl(&self, number: libc::c_ulong, mut request: libc::ifreq) -> io::Result<libc::ifreq> {
        // SAFETY: the requests used here read and write an `ifreq`, which is live; SIOCETHTOOL also
        // the buffer it points to, which callers of `ethtool` size after the kernel's structures.
        // Why not safe: the kernel has no safe interface for this.
        let result = unsafe {
            libc::ioctl(self.socket.as_raw_fd(), number as libc::Ioctl, &raw mut request)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(request) }
    }
}

fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

fn word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The text of a fixed-size, zero-terminated field.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_bytes).unwrap_or(&bytes);
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface, which every namespace has, answers every read-only question.
    #[test]
    fn asks_the_loopback_interface() {
        let lo = Ethtool::new("lo").unwrap();
        assert_eq!(lo.ifindex().unwrap(), 1);
        assert!(lo.mtu().unwrap() > 0);
        assert!(lo.mac().is_err(), "it has no Ethernet address");
        assert!(lo.is_up().is_ok());
        assert_eq!(lo.channels().unwrap(), None);
        assert!(lo.driver().unwrap().is_empty());
        assert!(lo.feature("rx-gro").unwrap().unwrap().active);
        assert!(lo.feature("rx-nonsense").unwrap().is_none());
        let rule = lo.add_rule("192.0.2.1".parse().unwrap(), 0x1001, 0);
        assert_eq!(rule.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(lo.remove_rule(0).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    /// A name that no interface can have is "no such device", not a panic or a cut name.
    #[test]
    fn refuses_impossible_names() {
        for name in ["", "sixteen-letters-", "nul\0"] {
            let error = Ethtool::new(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}
