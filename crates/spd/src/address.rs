//! Addresses of a selector: lists of true ranges (RFC 4301 section 4.4.1.1).

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;

use ipnet::IpNet;

/// The addresses from a first to a last one, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    pub(crate) is_v4: bool,
    pub(crate) start: u128,
    pub(crate) end: u128,
}

/// Why two addresses are no range, or a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The last address lies before the first.
    #[error("the range ends before it starts")]
    Inverted,
    /// One address is IPv4, the other IPv6.
    #[error("the range starts in one address family and ends in another")]
    Families,
    /// The text is neither an address, nor a prefix, nor two addresses with a hyphen between.
    #[error("expected an address, a prefix or two addresses with a hyphen between")]
    Syntax,
}

/// What addresses a selector admits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressSelector {
    /// ANY: every address of either family.
    #[default]
    Any,
    /// Those in one of the ranges.
    Ranges(Vec<AddressRange>),
}

impl AddressRange {
    /// The addresses from `start` to `end`, both included.
    ///
    /// # Errors
    /// [`RangeError::Families`] when the two are of different families, [`RangeError::Inverted`]
    /// when `end` lies before `start`.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<AddressRange, RangeError> {
        if start.is_ipv4() != end.is_ipv4() {
            return Err(RangeError::Families);
        }
        if end < start {
            return Err(RangeError::Inverted);
        }
        Ok(AddressRange { is_v4: start.is_ipv4(), start: number(start), end: number(end) })
    }

    /// True for IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.is_v4
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        address(self.is_v4, self.start)
    }

    /// The last address.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        address(self.is_v4, self.end)
    }

    /// True when the range holds the address, given as a number of its family.
    #[inline]
    #[must_use]
    pub fn contains(&self, is_v4: bool, address: u128) -> bool {
        self.is_v4 == is_v4 && self.start <= address && address <= self.end
    }

    /// The fewest prefixes that together are the range, in order: at most 62 of IPv4, 254 of IPv6.
    #[must_use]
    pub fn prefixes(&self) -> Vec<IpNet> {
        let bits: u32 = if self.is_v4 { 32 } else { 128 };
        let mut prefixes = Vec::new();
        let mut start = self.start;
        loop {
            // The largest block that starts here and does not reach beyond the end.
            let aligned = start.trailing_zeros().min(bits);
            let fits = (self.end - start).checked_add(1).map_or(128, u128::ilog2);
            let host = aligned.min(fits);
            let len = u8::try_from(bits - host).expect("at most 128");
            let net = IpNet::new(address(self.is_v4, start), len).expect("len fits the family");
            prefixes.push(net);
            let last = start | last_of_block(host);
            if last >= self.end {
                return prefixes;
            }
            start = last + 1;
        }
    }
}

/// The bits that vary within a block of `2^host` addresses.
pub(crate) fn last_of_block(host: u32) -> u128 {
    1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1)
}

/// The number of an address: of 32 bits for IPv4, 128 for IPv6.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address that has this number in its family.
pub(crate) fn address(is_v4: bool, number: u128) -> IpAddr {
    if is_v4 {
        let number = u32::try_from(number).expect("numbers of IPv4 have 32 bits");
        Ipv4Addr::from_bits(number).into()
    } else {
        Ipv6Addr::from_bits(number).into()
    }
}

impl From<IpNet> for AddressRange {
    fn from(net: IpNet) -> AddressRange {
        let is_v4 = net.addr().is_ipv4();
        AddressRange { is_v4, start: number(net.network()), end: number(net.broadcast()) }
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> AddressRange {
        let number = number(address);
        AddressRange { is_v4: address.is_ipv4(), start: number, end: number }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    /// Reads `10.0.0.1`, `10.0.0.0/24` or `10.0.0.1-10.0.0.9`, and the same of IPv6.
    fn from_str(text: &str) -> Result<AddressRange, RangeError> {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| RangeError::Syntax);
        if let Some((start, end)) = text.split_once('-') {
            return AddressRange::new(parse(start)?, parse(end)?);
        }
        if let Ok(net) = text.trim().parse::<IpNet>() {
            return Ok(net.into());
        }
        parse(text).map(AddressRange::from)
    }
}

impl fmt::Display for AddressRange {
    /// A prefix where the range is one, else the two ends.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefixes().as_slice() {
            [net] => net.fmt(formatter),
            _ => write!(formatter, "{}-{}", self.start(), self.end()),
        }
    }
}

impl AddressSelector {
    /// True when it admits the address, given as a number of its family.
    #[inline]
    #[must_use]
    pub fn contains(&self, is_v4: bool, address: u128) -> bool {
        match self {
            AddressSelector::Any => true,
            AddressSelector::Ranges(ranges) => {
                ranges.iter().any(|range| range.contains(is_v4, address))
            }
        }
    }

    /// The prefixes that together are what it admits, those of each range the fewest possible; ANY
    /// is `0.0.0.0/0` and `::/0`.
    #[must_use]
    pub fn prefixes(&self) -> Vec<IpNet> {
        match self {
            AddressSelector::Any => {
                let everything = |is_v4| IpNet::new(address(is_v4, 0), 0).expect("a prefix");
                vec![everything(true), everything(false)]
            }
            AddressSelector::Ranges(ranges) => {
                ranges.iter().flat_map(AddressRange::prefixes).collect()
            }
        }
    }
}

impl From<IpNet> for AddressSelector {
    fn from(net: IpNet) -> AddressSelector {
        AddressSelector::Ranges(vec![net.into()])
    }
}

impl From<AddressRange> for AddressSelector {
    fn from(range: AddressRange) -> AddressSelector {
        AddressSelector::Ranges(vec![range])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    /// P05: a range holds both its ends and nothing outside them, nor of the other family.
    #[test]
    fn range_holds_its_ends() {
        let range = range("10.0.0.5-10.0.0.9");
        let held: Vec<u128> = (0..20).filter(|&n| range.contains(true, 0x0a00_0000 + n)).collect();
        assert_eq!(held, [5, 6, 7, 8, 9]);
        assert!(!range.contains(false, 0x0a00_0005));
        assert_eq!((range.start(), range.end()), ([10, 0, 0, 5].into(), [10, 0, 0, 9].into()));
    }

    /// P05: what is no range is refused with the reason.
    #[test]
    fn range_refuses() {
        let parse = str::parse::<AddressRange>;
        assert_eq!(parse("10.0.0.9-10.0.0.5"), Err(RangeError::Inverted));
        assert_eq!(parse("10.0.0.9-fd00::1"), Err(RangeError::Families));
        assert_eq!(parse("10.0.0.9/33"), Err(RangeError::Syntax));
        assert_eq!(parse("all"), Err(RangeError::Syntax));
    }

    /// Texts of all forms come back as they went in, in the shortest form.
    #[test]
    fn range_prints_what_it_reads() {
        for text in ["10.0.0.0/24", "10.0.0.5-10.0.0.9", "fd00::1-fd00::7", "0.0.0.0/0", "::/0"] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range("10.0.0.1").to_string(), "10.0.0.1/32");
        assert_eq!(range("10.0.0.0-10.0.0.255").to_string(), "10.0.0.0/24");
    }

    /// The worst ranges need two prefixes for each bit but two.
    #[test]
    fn prefixes_are_few() {
        let prefixes = range("0.0.0.1-255.255.255.254").prefixes();
        assert_eq!(prefixes.len(), 62);
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        assert_eq!(range(&format!("::1-{last}")).prefixes().len(), 254);
        let texts: Vec<String> =
            range("10.0.0.5-10.0.0.9").prefixes().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/31"]);
        assert_eq!(AddressSelector::Any.prefixes().len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The prefixes of a range follow one another from its start to its end.
        #[test]
        fn prefixes_are_the_range(is_v4: bool, a: u128, b: u128, bits in 0u32..=128) {
            let keep = if is_v4 { bits.min(32) } else { bits };
            let mask = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
            let (a, b) = (a & mask, a & mask ^ (b & mask & last_of_block(keep)));
            let range = AddressRange { is_v4, start: a.min(b), end: a.max(b) };
            let mut next = Some(range.start);
            for net in range.prefixes() {
                let piece = AddressRange::from(net);
                prop_assert_eq!(Some(piece.start), next);
                prop_assert_eq!(piece.is_v4, is_v4);
                next = piece.end.checked_add(1);
            }
            prop_assert_eq!(next, range.end.checked_add(1));
        }
    }
}
