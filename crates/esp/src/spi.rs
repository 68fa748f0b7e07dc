//! The security parameters index.

use std::fmt;

/// SPI of an SA: 256 or more (RFC 4303 section 2.1 reserves 0 to 255).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(u32);

/// The number is reserved and names no SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SPI {0:#x} is reserved: expected 0x100 or more (RFC 4303 section 2.1)")]
pub struct ReservedSpi(pub u32);

impl Spi {
    /// # Errors
    /// For 0 to 255.
    pub fn new(spi: u32) -> Result<Spi, ReservedSpi> {
        if spi < 256 { Err(ReservedSpi(spi)) } else { Ok(Spi(spi)) }
    }

    /// The number as it stands in the packet.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E06: reserved numbers never become the SPI of an SA.
    #[test]
    fn reserved_numbers_are_refused() {
        assert!((0..256).all(|n| Spi::new(n) == Err(ReservedSpi(n))));
        assert_eq!(Spi::new(256).unwrap().to_string(), "0x00000100");
    }
}
