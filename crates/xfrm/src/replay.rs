//! Sequence numbers and replay windows.

use crate::attribute::Fault;
use crate::attribute::Payload;
use crate::error::Errno;
use crate::octets::Writer;
use crate::octets::record;

/// Most words of the bitmap: windows of 4096 numbers.
pub const BITMAP_WORDS_MAX: usize = 128;

record! {
    /// `struct xfrm_replay_state`: 32-bit numbers, and a window of 32 of them at most.
    pub struct Replay: 12 {
        /// The last number sent.
        pub oseq: u32,
        /// The highest number received.
        pub seq: u32,
        /// Which of the 32 numbers up to `seq` were received; bit 0 is `seq`.
        pub bitmap: u32,
    }
}

record! {
    /// `struct xfrm_replay_state_esn` without its bitmap.
    pub struct ReplayEsnFixed: 24 {
        /// Words of the bitmap.
        pub bmp_len: u32,
        /// The last number sent, low half.
        pub oseq: u32,
        /// The highest number received, low half.
        pub seq: u32,
        /// The last number sent, high half; 0 without ESN.
        pub oseq_hi: u32,
        /// The highest number received, high half; 0 without ESN.
        pub seq_hi: u32,
        /// Numbers that the window holds.
        pub replay_window: u32,
    }
}

/// `struct xfrm_replay_state_esn`: 64-bit numbers, or 32-bit numbers with a window of more than 32.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayEsn {
    /// The last number sent.
    pub oseq: u64,
    /// The highest number received.
    pub seq: u64,
    /// Numbers that the window holds; the bitmap has room for them.
    pub replay_window: u32,
    /// Which numbers were received, as a ring: number `n` is bit
    /// `(n - 1) % replay_window`. At most
    /// [`BITMAP_WORDS_MAX`] words.
    pub bitmap: Vec<u32>,
}

impl ReplayEsn {
    /// Octets on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        ReplayEsnFixed::LEN + 4 * self.bitmap.len()
    }
}

/// A bitmap that is not there at all is empty, as iproute2 leaves it; it is always written.
impl Payload for ReplayEsn {
    fn parse(octets: &[u8]) -> Result<ReplayEsn, Fault> {
        let fixed = ReplayEsnFixed::read(octets).ok_or(Fault::short(ReplayEsnFixed::LEN))?;
        let fault = |expected| Fault::value(expected, Errno::EINVAL);
        let words = usize::try_from(fixed.bmp_len).ok().filter(|len| *len <= BITMAP_WORDS_MAX);
        let words = words.ok_or(fault("a bitmap of at most 128 words"))?;
        let present = &octets[ReplayEsnFixed::LEN..];
        let bitmap = if present.is_empty() {
            vec![0; words]
        } else {
            let octets = present.get(..4 * words).ok_or(fault("all words of the bitmap"))?;
            octets.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
        };
        let whole = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        Ok(ReplayEsn {
            oseq: whole(fixed.oseq_hi, fixed.oseq),
            seq: whole(fixed.seq_hi, fixed.seq),
            replay_window: fixed.replay_window,
            bitmap,
        })
    }

    fn write(&self, writer: &mut Writer) {
        let halves = |whole: u64| ((whole >> 32) as u32, (whole & 0xffff_ffff) as u32);
        let (oseq_hi, oseq) = halves(self.oseq);
        let (seq_hi, seq) = halves(self.seq);
        let bmp_len = u32::try_from(self.bitmap.len()).expect("a bitmap of few words");
        let replay_window = self.replay_window;
        writer.record(&ReplayEsnFixed { bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window });
        for word in &self.bitmap {
            writer.put(&word.to_ne_bytes());
        }
    }
}
