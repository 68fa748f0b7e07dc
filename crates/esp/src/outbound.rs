//! [`OutboundSa`]: one SA on its sending side (RFC 4303 section 3.3, RFC 4302 section 3.3).

use std::mem::offset_of;

use culvert_wire::esp;

use crate::layout::AH_FIXED_LEN;
use crate::layout::ESP_FIXED_LEN;
use crate::layout::Layout;
use crate::lifetime::Expiry;
use crate::lifetime::ExpiryCause;
use crate::lifetime::ExpiryKind;
use crate::lifetime::Usage;
use crate::seq::SeqError;
use crate::seq::SeqNo;
use crate::seq::Sequence;
use crate::spi::Spi;
use crate::template::Template;

/// Bits of a sequence number in IVs with an epoch.
pub const EPOCH_SHIFT: u32 = 40;
/// Epochs are less than this, and more than 0.
pub const EPOCHS: u64 = 1 << (u64::BITS - EPOCH_SHIFT);
/// The last sequence number of an SA with an epoch.
pub const EPOCH_SEQUENCE_MAX: u64 = (1 << EPOCH_SHIFT) - 1;

/// Where text starts behind a counter IV.
pub const COUNTER_IV_TEXT_AT: usize = ESP_FIXED_LEN + 8;

/// An outbound SA with its key `K`, the opaque context of the AEAD provider.
///
/// What each packet writes is the first line; a packet behind a [`Head`](crate::Head) needs no
/// other, others need two more, and the key is behind these.
#[repr(C, align(64))]
pub struct OutboundSa<K> {
    usage: Usage,
    /// The sequence number counter.
    pub sequence: Sequence,
    /// The bits of IVs that the sequence number does not have.
    iv_base: u64,
    spi: Spi,
    layout: Layout,
    /// The outer headers.
    pub template: Template,
    key: K,
}

const _: () = assert!(offset_of!(OutboundSa<()>, sequence) + Sequence::QUIET_LEN == 64);
const _: () = assert!(offset_of!(OutboundSa<()>, template) == 128);

impl<K> OutboundSa<K> {
    /// An SA whose last used number is `last`: 0 for a fresh key.
    pub fn new(
        spi: Spi,
        esn: bool,
        last: u64,
        layout: Layout,
        key: K,
        template: Template,
        usage: Usage,
    ) -> OutboundSa<K> {
        let sequence = Sequence::new(esn, last);
        OutboundSa { spi, layout, iv_base: 0, key, template, sequence, usage }
    }

    /// The IV of a packet is this epoch and the sequence number from now on, and numbers end before
    /// they reach into it. An SA that comes again with its key has another epoch: so no IV comes
    /// again, whatever its numbers are. IVs that the provider makes must have the
    /// [same base](culvert_aead::Keymat::with_iv_base).
    ///
    /// Before the SA is given to a worker, which keeps what comes of it beside the headers.
    ///
    /// # Panics
    /// When the epoch is 0, or has more than 24 bits.
    pub fn set_epoch(&mut self, epoch: u64) {
        assert!((1..EPOCHS).contains(&epoch), "an epoch has 24 bits");
        self.iv_base = epoch << EPOCH_SHIFT;
        self.sequence.end_at(EPOCH_SEQUENCE_MAX);
    }

    /// Index of the SA.
    #[inline]
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// Where its algorithm puts things.
    #[inline]
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The provider's key context.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &K {
        &self.key
    }

    /// What was sent, and what is left.
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

    /// A hard limit is reached: no further packets. Exhausted sequence numbers do not count here:
    /// [`next_seq`](Self::next_seq) tells them.
    #[inline]
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.usage.is_expired()
    }

    /// A packet has reached a limit, or sequence numbers ran low or out: ask [`due`](Self::due).
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.usage.is_reached() | self.sequence.has_news()
    }

    /// The lifetime event that has come by `now_ns`: at most one soft and one hard for an SA,
    /// sequence numbers included.
    pub fn due(&mut self, now_ns: u64) -> Option<Expiry> {
        if let Some(expiry) = self.usage.due(now_ns) {
            // Numbers that are low as well are no news then; that none is left is told by the next.
            if !self.sequence.is_exhausted() {
                self.sequence.take_news();
            }
            return Some(expiry);
        }
        if !self.sequence.take_news() {
            return None;
        }
        let hard = self.sequence.is_exhausted();
        let kind = if hard { ExpiryKind::Hard } else { ExpiryKind::Soft };
        self.usage.tell(Expiry { kind, cause: ExpiryCause::Sequence })
    }

    /// Octets of the outer IP packet that carries `payload_len` octets in a tunnel.
    #[inline]
    #[must_use]
    pub fn outer_len(&self, payload_len: usize) -> usize {
        self.template.len() + self.layout.sealed_len(payload_len, self.template.is_v4())
    }

    /// Largest payload of a tunnel packet of at most `mtu` octets, outer headers included.
    #[must_use]
    pub fn payload_len_max(&self, mtu: usize) -> Option<usize> {
        let room = mtu.checked_sub(self.template.len())?;
        self.layout.payload_len_max(room, self.template.is_v4())
    }

    /// Spends the next sequence number.
    ///
    /// # Errors
    /// When there is none to spend.
    #[inline]
    pub fn next_seq(&mut self) -> Result<SeqNo, SeqError> {
        self.sequence.next_seq()
    }

    /// Writes SPI, sequence number and counter IV in front of the text and consumes the number.
    /// `out` is `layout.text_at` octets. Returns the high half of the number when the SA has ESN.
    /// The packet is still to be [counted](Self::count).
    ///
    /// An IV of 8 octets is the whole sequence number, behind the epoch if there is one: unique as
    /// long as the number is (RFC 4106 section 3.1). One of 16 is left to the provider.
    ///
    /// # Panics
    /// When `out` has another length: our own error.
    #[inline(always)]
    pub fn write_header(&mut self, out: &mut [u8], seq: SeqNo) -> Option<u32> {
        assert_eq!(out.len(), usize::from(self.layout.text_at), "room for the ESP header");
        match out.as_mut_array() {
            Some(out) => self.write_counter_header(out, seq),
            None => {
                #[expect(clippy::cast_possible_truncation, reason = "the low half is sent")]
                esp::emit(out, self.spi.value(), seq.value() as u32);
                self.sequence.high_of(seq.value())
            }
        }
    }

    /// [`write_header`](Self::write_header) of an algorithm with a counter IV.
    #[inline(always)]
    #[expect(clippy::needless_pass_by_value, reason = "a number is spent in one packet")]
    fn write_counter_header(
        &mut self,
        out: &mut [u8; COUNTER_IV_TEXT_AT],
        seq: SeqNo,
    ) -> Option<u32> {
        let number = seq.value();
        let fixed = u64::from(self.spi.value()) << 32 | number & u64::from(u32::MAX);
        let iv = self.iv_base | number;
        out[..ESP_FIXED_LEN].copy_from_slice(&fixed.to_be_bytes());
        out[ESP_FIXED_LEN..].copy_from_slice(&iv.to_be_bytes());
        self.sequence.high_of(number)
    }

    /// The epoch in its IVs; 0 is none.
    pub(crate) fn epoch(&self) -> u32 {
        (self.iv_base >> EPOCH_SHIFT) as u32
    }

    /// Counts a packet with so many octets of text; true when a limit is reached.
    #[inline(always)]
    pub fn count(&mut self, text_len: usize) -> bool {
        self.usage.count(text_len)
    }

    /// Writes an AH header whose ICV field is zero (RFC 4302 section 2) and consumes the number.
    /// `out` is `layout.header_len(is_v4)` octets; `octets` is the length of the whole packet,
    /// which the ICV covers. Returns the high half of the number when the SA has ESN.
    ///
    /// # Panics
    /// When `out` is too short or no multiple of 4: our own error.
    #[expect(clippy::needless_pass_by_value, reason = "a number is spent in one packet")]
    pub fn write_ah(
        &mut self,
        out: &mut [u8],
        next_header: u8,
        seq: SeqNo,
        octets: usize,
    ) -> Option<u32> {
        let number = seq.value();
        assert!(out.len().is_multiple_of(4), "AH is counted in words");
        let words = u8::try_from(out.len() / 4 - 2).expect("ICVs are short");
        let (fixed, icv) = out.split_first_chunk_mut::<AH_FIXED_LEN>().expect("room for AH");
        fixed[..4].copy_from_slice(&[next_header, words, 0, 0]);
        #[expect(clippy::cast_possible_truncation, reason = "the low half goes on the wire")]
        esp::emit(&mut fixed[4..], self.spi.value(), number as u32);
        icv.fill(0);
        self.usage.count(octets);
        self.sequence.high_of(number)
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
    use culvert_aead::Algorithm;

    use super::*;
    use crate::lifetime::Lifetime;
    use crate::lifetime::Limits;

    fn sa_with(algorithm: Algorithm, esn: bool, last: u64, lifetime: Lifetime) -> OutboundSa<()> {
        let address = "192.0.2.1".parse().unwrap();
        let template = Template::new(address, address, None).unwrap();
        let (spi, layout) = (Spi::new(0x1001).unwrap(), Layout::of(algorithm));
        OutboundSa::new(spi, esn, last, layout, (), template, Usage::new(lifetime, 0))
    }

    fn sa(esn: bool, last: u64) -> OutboundSa<()> {
        sa_with(Algorithm::Aes128Gcm16, esn, last, Lifetime::UNLIMITED)
    }

    /// G01, M08: SPI, low half of the number, IV = the whole number; the high half only with ESN.
    #[test]
    fn header() {
        for (esn, high) in [(false, None), (true, Some(0))] {
            let mut sa = sa(esn, 6);
            let mut header = [0xff; 16];
            let seq = sa.next_seq().unwrap();
            assert_eq!(sa.write_header(&mut header, seq), high);
            sa.count(10);
            assert_eq!(header, [0, 0, 0x10, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 7]);
            assert_eq!((sa.usage().packets(), sa.usage().bytes()), (1, 10));
        }
        let mut sa = sa(true, 0xffff_ffff);
        let mut header = [0xff; 16];
        let seq = sa.next_seq().unwrap();
        assert_eq!(sa.write_header(&mut header, seq), Some(1));
        sa.count(10);
        assert_eq!(header, [0, 0, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    /// E21, G02: an epoch stands in the high 24 bits of the IV, and nowhere else; numbers end where
    /// it begins, so that no two pairs of epoch and number make the same IV.
    #[test]
    fn an_epoch_stands_in_the_iv() {
        let mut sa = sa(true, EPOCH_SEQUENCE_MAX - 1);
        sa.set_epoch(0xab_cdef);
        let mut header = [0xff; 16];
        let seq = sa.next_seq().unwrap();
        assert_eq!(sa.write_header(&mut header, seq), Some(0xff));
        sa.count(10);
        let iv = [0xab, 0xcd, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(header[..8], [0, 0, 0x10, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(header[8..], iv);
        assert!(matches!(sa.next_seq(), Err(SeqError::Exhausted)));
    }

    /// G08: an implicit IV is not on the wire; that of CBC is left to the provider.
    #[test]
    fn headers_without_counter_iv() {
        let every = Algorithm::ALL.into_iter();
        for algorithm in every.filter(|algorithm| algorithm.iv_len() != 8) {
            let mut sa = sa_with(algorithm, true, 6, Lifetime::UNLIMITED);
            let mut header = vec![0xff; sa.layout().text_at.into()];
            let seq = sa.next_seq().unwrap();
            assert_eq!(sa.write_header(&mut header, seq), Some(0));
            sa.count(10);
            let (fixed, iv) = header.split_at(8);
            assert_eq!(fixed, [0, 0, 0x10, 1, 0, 0, 0, 7], "{algorithm}");
            assert_eq!(iv, vec![0xff; algorithm.iv_len()], "{algorithm}");
        }
    }

    /// A01, A02, A05: next header, length in words less 2, reserved zero, SPI, number, and zeroes
    /// where the ICV and its alignment go, over IPv4 and IPv6.
    #[test]
    fn ah_header() {
        for (is_v4, len, words) in [(true, 28, 5), (false, 32, 6)] {
            let mut sa = sa_with(Algorithm::AhSha256, true, 0x1_0000_0006, Lifetime::UNLIMITED);
            let mut header = vec![0xff; sa.layout().header_len(is_v4)];
            let seq = sa.next_seq().unwrap();
            assert_eq!(sa.write_ah(&mut header, 6, seq, 1000), Some(1));
            let mut expected = vec![6, words, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 7];
            expected.resize(len, 0);
            assert_eq!(header, expected);
            assert_eq!(sa.usage().bytes(), 1000);
        }
    }

    /// The lengths add up for every payload.
    #[test]
    fn lengths() {
        let gcm = sa(false, 0);
        assert_eq!(gcm.outer_len(64), 20 + 16 + 64 + 2 + 2 + 16);
        assert_eq!(gcm.outer_len(66), 20 + 16 + 66 + 2 + 16);
        assert!((0..1500).all(|n| (gcm.outer_len(n) - 20 - 32).is_multiple_of(4)));
        assert_eq!(gcm.payload_len_max(1500), Some(1446));
        assert_eq!((gcm.outer_len(1446), gcm.outer_len(1447)), (1500, 1504));
        let ah = sa_with(Algorithm::AhSha256, false, 0, Lifetime::UNLIMITED);
        assert_eq!((ah.outer_len(100), ah.payload_len_max(1500)), (148, Some(1452)));
        assert_eq!(gcm.payload_len_max(19), None);
    }

    /// E03, P17: numbers that run low ask for a successor once, long before the end; that they are
    /// out is told once too, and the SA sends nothing from then on.
    #[test]
    fn sequence_numbers_are_a_lifetime() {
        let mut sa = sa(false, u64::from(u32::MAX) - 6);
        sa.sequence.set_reserve(4);
        let mut events = Vec::new();
        let mut sent = 0;
        for _ in 0..20 {
            if let Ok(seq) = sa.next_seq() {
                sa.write_header(&mut [0; 16], seq);
                sa.count(4);
                sent += 1;
            }
            if sa.is_due() {
                events.push((sent, sa.due(0)));
            }
        }
        let event = |kind| Some(Expiry { kind, cause: ExpiryCause::Sequence });
        assert_eq!(sent, 6);
        assert_eq!(events, [(3, event(ExpiryKind::Soft)), (6, event(ExpiryKind::Hard))]);
        assert_eq!(sa.due(0), None);
    }

    /// P15, P16, P17: octets of text end the SA; a soft event that octets have caused is not told
    /// again for sequence numbers.
    #[test]
    fn one_soft_and_one_hard_event() {
        let limits = |bytes| Limits { bytes: Some(bytes), ..Limits::default() };
        let lifetime = Lifetime::new(limits(100), limits(200)).unwrap();
        let last = u64::from(u32::MAX) - 100;
        let mut sa = sa_with(Algorithm::Aes128Gcm16, false, last, lifetime);
        let mut events = Vec::new();
        while !sa.is_expired() {
            let seq = sa.next_seq().unwrap();
            sa.write_header(&mut [0; 16], seq);
            sa.count(40);
            if sa.is_due() {
                events.push((sa.usage().bytes(), sa.due(0).map(|expiry| expiry.cause)));
            }
        }
        // Numbers are low from the first packet on.
        let expected =
            [(40, Some(ExpiryCause::Sequence)), (120, None), (200, Some(ExpiryCause::Bytes))];
        assert_eq!(events, expected);
    }

    /// P16, P17: a packet that reaches a soft limit with a number that is low is one event.
    #[test]
    fn two_reasons_at_once_are_one_event() {
        let bytes = |bytes| Limits { bytes: Some(bytes), ..Limits::default() };
        let lifetime = Lifetime::new(bytes(100), Limits::default()).unwrap();
        let last = u64::from(u32::MAX) - 6;
        let mut sa = sa_with(Algorithm::Aes128Gcm16, false, last, lifetime);
        sa.sequence.set_reserve(4);
        for octets in [10, 10, 90] {
            assert!(!sa.is_due());
            let seq = sa.next_seq().unwrap();
            sa.write_header(&mut [0; 16], seq);
            sa.count(octets);
        }
        assert!(sa.is_due());
        let soft = Expiry { kind: ExpiryKind::Soft, cause: ExpiryCause::Bytes };
        assert_eq!(sa.due(0), Some(soft));
        assert!(!sa.is_due());
    }
}
