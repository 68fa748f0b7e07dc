//! [`OutboundSa`]: one SA on its sending side (RFC 4303 section 3.3).

use culvert_aead::ICV_LEN;
use culvert_aead::TEXT_AT;
use culvert_wire::esp;

use crate::seq::SeqError;
use crate::seq::SeqNo;
use crate::seq::Sequence;
use crate::spi::Spi;
use crate::template::Template;
use crate::trailer;

/// An outbound SA with its key `K`, the opaque context of the AEAD provider.
pub struct OutboundSa<K> {
    spi: Spi,
    esn: bool,
    key: K,
    /// The outer headers.
    pub template: Template,
    /// The sequence number counter.
    pub sequence: Sequence,
    packets: u64,
    bytes: u64,
}

impl<K> OutboundSa<K> {
    /// An SA whose last used number is `last`: 0 for a fresh key.
    pub fn new(spi: Spi, esn: bool, last: u64, key: K, template: Template) -> OutboundSa<K> {
        let sequence = Sequence::new(esn, last);
        OutboundSa { spi, esn, key, template, sequence, packets: 0, bytes: 0 }
    }

    /// Index of the SA.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// The provider's key context.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Packets and octets of ESP text made.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// Octets of the outer IP packet that carries `payload_len` octets.
    #[inline]
    #[must_use]
    pub fn outer_len(&self, payload_len: usize) -> usize {
        self.template.len() + TEXT_AT + payload_len + Self::tail_len(payload_len)
    }

    /// Octets of padding, trailer and ICV behind `payload_len` octets of payload.
    #[inline]
    #[must_use]
    pub fn tail_len(payload_len: usize) -> usize {
        trailer::pad_len(payload_len) + trailer::FIXED_LEN + ICV_LEN
    }

    /// Spends the next sequence number.
    ///
    /// # Errors
    /// When there is none to spend.
    #[inline]
    pub fn next_seq(&mut self) -> Result<SeqNo, SeqError> {
        self.sequence.next_seq()
    }

    /// Writes SPI, sequence number and IV in front of the text and consumes the number. `text_len`
    /// octets of text will be sealed. Returns the high half of the number when the SA has ESN.
    ///
    /// The IV is the whole sequence number: unique as long as the number is (RFC 4106 section 3.1).
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a number is spent in one packet")]
    pub fn write_header(
        &mut self,
        out: &mut [u8; TEXT_AT],
        seq: SeqNo,
        text_len: usize,
    ) -> Option<u32> {
        let number = seq.value();
        #[expect(clippy::cast_possible_truncation, reason = "the low half goes on the wire")]
        esp::emit(out, self.spi.value(), number as u32);
        out[esp::HEADER_LEN..].copy_from_slice(&number.to_be_bytes());
        self.packets += 1;
        self.bytes += text_len as u64;
        self.esn.then_some((number >> 32) as u32)
    }
}

impl<K> std::fmt::Debug for OutboundSa<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboundSa")
            .field("spi", &self.spi)
            .field("destination", &self.template.destination())
            .field("sequence", &self.sequence.last())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sa(esn: bool, last: u64) -> OutboundSa<()> {
        let address = "192.0.2.1".parse().unwrap();
        let template = Template::new(address, address, None).unwrap();
        OutboundSa::new(Spi::new(0x1001).unwrap(), esn, last, (), template)
    }

    /// G01, M08: SPI, low half of the number, IV = the whole number; the high half only with ESN.
    #[test]
    fn header() {
        for (esn, high) in [(false, None), (true, Some(0))] {
            let mut sa = sa(esn, 6);
            let mut header = [0xff; TEXT_AT];
            let seq = sa.next_seq().unwrap();
            assert_eq!(sa.write_header(&mut header, seq, 10), high);
            assert_eq!(header, [0, 0, 0x10, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 7]);
            assert_eq!(sa.usage(), (1, 10));
        }
        let mut sa = sa(true, 0xffff_ffff);
        let mut header = [0xff; TEXT_AT];
        let seq = sa.next_seq().unwrap();
        assert_eq!(sa.write_header(&mut header, seq, 10), Some(1));
        assert_eq!(header, [0, 0, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    /// The lengths add up for every payload.
    #[test]
    fn lengths() {
        let sa = sa(false, 0);
        assert_eq!(sa.outer_len(64), 20 + 16 + 64 + 2 + 2 + 16);
        assert_eq!(sa.outer_len(66), 20 + 16 + 66 + 2 + 16);
        assert!((0..1500).all(|n| (sa.outer_len(n) - 20 - 32).is_multiple_of(4)));
    }
}
