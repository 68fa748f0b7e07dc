//! [`InboundSa`]: one SA on its receiving side (RFC 4303 section 3.4).

use std::net::IpAddr;

use culvert_aead::Verified;

use crate::replay::Candidate;
use crate::replay::ReplayError;
use crate::replay::Window;
use crate::spi::Spi;

/// An inbound SA with its key `K`, the opaque context of the AEAD provider.
pub struct InboundSa<K> {
    spi: Spi,
    destination: IpAddr,
    key: K,
    window: Window,
    packets: u64,
    bytes: u64,
}

impl<K> InboundSa<K> {
    /// An SA that accepts packets sent to `destination` with numbers that `window` accepts.
    pub fn new(spi: Spi, destination: IpAddr, key: K, window: Window) -> InboundSa<K> {
        InboundSa { spi, destination, key, window, packets: 0, bytes: 0 }
    }

    /// Index of the SA.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// Our tunnel endpoint.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The provider's key context.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Highest sequence number accepted.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.window.top()
    }

    /// Packets and octets of ESP text accepted. Only authentic packets count.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// The check before decryption: could this number be new (RFC 4303 section 3.4.3)?
    ///
    /// # Errors
    /// When it certainly is not.
    #[inline]
    pub fn precheck(&self, seq_low: u32) -> Result<Candidate, ReplayError> {
        self.window.check(seq_low)
    }

    /// Accepts an authentic packet with `text_len` octets of text, once.
    ///
    /// # Errors
    /// When the same number was accepted since the check.
    #[inline]
    pub fn commit(
        &mut self,
        candidate: Candidate,
        proof: Verified,
        text_len: usize,
    ) -> Result<u64, ReplayError> {
        let seq = self.window.commit(candidate, proof)?;
        self.packets += 1;
        self.bytes += text_len as u64;
        Ok(seq)
    }
}

impl<K> std::fmt::Debug for InboundSa<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundSa")
            .field("spi", &self.spi)
            .field("destination", &self.destination)
            .field("highest", &self.highest())
            .finish_non_exhaustive()
    }
}
