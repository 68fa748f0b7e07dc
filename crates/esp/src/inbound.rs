//! [`InboundSa`]: one SA on its receiving side (RFC 4303 section 3.4, RFC 4302 section 3.4).

use std::mem::offset_of;
use std::net::IpAddr;

use culvert_aead::Protocol;
use culvert_aead::Verified;
use culvert_aead::prefetch::prefetch;

use crate::layout::Layout;
use crate::lifetime::Expiry;
use crate::lifetime::Usage;
use crate::replay::Candidate;
use crate::replay::ReplayError;
use crate::replay::Window;
use crate::spi::Spi;

/// An inbound SA with its key `K`, the opaque context of the AEAD provider.
///
/// In the order of memory: what a packet in order reads and writes takes two cache lines, and the
/// key follows.
#[repr(C, align(64))]
pub struct InboundSa<K> {
    spi: Spi,
    layout: Layout,
    window: Window,
    usage: Usage,
    key: K,
    destination: IpAddr,
}

const _: () = assert!(offset_of!(InboundSa<()>, key) <= 128, "two lines");

impl<K> InboundSa<K> {
    /// An SA that accepts packets sent to `destination` with numbers that `window` accepts.
    pub fn new(
        spi: Spi,
        destination: IpAddr,
        layout: Layout,
        key: K,
        window: Window,
        usage: Usage,
    ) -> InboundSa<K> {
        InboundSa { spi, layout, window, usage, key, destination }
    }

    /// Asks for all but the key to be fetched into the cache, ahead of its use.
    #[inline(always)]
    pub fn prefetch(&self) {
        prefetch(&self.spi);
        prefetch(&self.usage);
    }

    /// Index of the SA.
    #[inline]
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// True for the SA of that protocol and SPI.
    #[inline(always)]
    #[must_use]
    pub fn is_named(&self, protocol: Protocol, spi: u32) -> bool {
        self.spi.value() == spi && self.layout.protocol == protocol
    }

    /// Where its algorithm puts things.
    #[inline]
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
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
    #[inline]
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.window.top()
    }

    /// The anti-replay window, with what it knows of loss and order.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// What was accepted, and what is left. Only authentic packets count.
    #[inline]
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// To note the time of use.
    #[inline]
    pub fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    /// A hard limit is reached: no further packets.
    #[inline]
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.usage.is_expired()
    }

    /// A packet has reached a limit: ask [`due`](Self::due).
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.usage.is_reached()
    }

    /// The lifetime event that has come by `now_ns`, each once.
    pub fn due(&mut self, now_ns: u64) -> Option<Expiry> {
        self.usage.due(now_ns)
    }

    /// The check before decryption: could this number be new (RFC 4303 section 3.4.3)? If so, its
    /// place in the window is asked for, as it may be in no near cache.
    ///
    /// # Errors
    /// When it certainly is not.
    #[inline]
    pub fn precheck(&self, seq_low: u32) -> Result<Candidate, ReplayError> {
        let candidate = self.window.check(seq_low)?;
        self.window.prefetch(&candidate);
        Ok(candidate)
    }

    /// Accepts an authentic packet, once. `text_len` is what the algorithm worked on: octets of ESP
    /// text, or of the whole packet with AH.
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
        self.usage.count(text_len);
        Ok(seq)
    }

    /// Hears that the packet of `candidate` was forged; perhaps it is worth another try with the
    /// candidate returned (see [`Window::failed`]).
    pub fn failed(&mut self, candidate: &Candidate) -> Option<Candidate> {
        self.window.failed(candidate)
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

#[cfg(test)]
mod tests {
    use culvert_aead::Algorithm;

    use super::*;
    use crate::lifetime::ExpiryCause;
    use crate::lifetime::ExpiryKind;
    use crate::lifetime::Lifetime;
    use crate::lifetime::Limits;
    use crate::testing::proof;

    fn sa(window: Window, hard: Limits) -> InboundSa<()> {
        let spi = Spi::new(0x1001).unwrap();
        let destination = "192.0.2.1".parse().unwrap();
        let lifetime = Lifetime::new(Limits::default(), hard).unwrap();
        let usage = Usage::new(lifetime, 0);
        InboundSa::new(spi, destination, Layout::of(Algorithm::Aes128Gcm16), (), window, usage)
    }

    /// P15, I07: only a packet that is accepted counts: neither one that was checked only, nor a
    /// forged one, nor a copy.
    #[test]
    fn only_accepted_packets_count() {
        let limits = Limits { bytes: Some(300), ..Limits::default() };
        let mut sa = sa(Window::new(64, true, 0).unwrap(), limits);
        let [first, copy] = [(); 2].map(|()| sa.precheck(5).unwrap());
        assert!(sa.failed(&first).is_none());
        assert_eq!((sa.usage().packets(), sa.usage().bytes(), sa.highest()), (0, 0, 0));
        assert_eq!(sa.commit(first, proof(), 100), Ok(5));
        assert_eq!(sa.commit(copy, proof(), 1000), Err(ReplayError::Duplicate));
        assert_eq!((sa.usage().packets(), sa.usage().bytes(), sa.highest()), (1, 100, 5));
        assert!(!sa.is_due() && !sa.is_expired());
        let next = sa.precheck(6).unwrap();
        assert_eq!(sa.commit(next, proof(), 200), Ok(6));
        assert!(sa.is_due() && sa.is_expired());
        let expiry = Expiry { kind: ExpiryKind::Hard, cause: ExpiryCause::Bytes };
        assert_eq!((sa.due(9), sa.due(9), sa.is_due()), (Some(expiry), None, false));
    }

    /// M09: a successor begins afresh, whatever its predecessor has seen.
    #[test]
    fn a_successor_starts_at_zero() {
        let mut old = sa(Window::new(64, false, 0).unwrap(), Limits::default());
        let candidate = old.precheck(4000).unwrap();
        old.commit(candidate, proof(), 4).unwrap();
        let new = sa(Window::new(64, false, 0).unwrap(), Limits::default());
        assert!(old.precheck(1).is_err());
        assert_eq!(new.precheck(1).unwrap().seq(), 1);
    }
}
