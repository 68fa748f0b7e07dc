//! What a later packet needs, asked for to be in the cache while another one is worked on.
//!
//! Not all at once: a core has room for few lines on their way, and while it waits for that it does
//! nothing else. So a kernel asks for some before each group of vectors.

use std::ops::Range;

use crate::port::Op;
use crate::prefetch::prefetch_lines;
use crate::provider::ProviderKey;
use crate::vaes::key::KernelKey;
use crate::vaes::math::VECTOR;
use crate::x86::block::BLOCK;
use crate::x86::schedule::KEYS_256;

/// Lines asked for at a time.
const LINES: usize = 8;

/// Lines that are still to be asked for.
pub(super) struct Ahead {
    key: *const ProviderKey,
    key_lines: Range<usize>,
    text: *const u8,
    text_lines: Range<usize>,
}

impl Ahead {
    pub(super) const NONE: Ahead =
        Ahead { key: std::ptr::null(), key_lines: 0..0, text: std::ptr::null(), text_lines: 0..0 };

    /// Text and key of a packet; not a key that is at hand.
    #[inline(always)]
    pub(super) fn of(op: &Op<'_, ProviderKey>, at_hand: &ProviderKey) -> Ahead {
        let key_lines = match std::ptr::eq(op.key, at_hand) {
            true => 0..0,
            false => KernelKey::lines(KEYS_256, op.esp.len() / BLOCK),
        };
        let text_lines = 0..op.esp.len().div_ceil(VECTOR);
        Ahead { key: op.key, key_lines, text: op.esp.as_ptr(), text_lines }
    }

    /// Asks for some lines, of the key first.
    #[inline(always)]
    pub(super) fn ask_some(&mut self) {
        let of_key = self.key_lines.len().min(LINES);
        let start = self.key_lines.start;
        self.key_lines.start += of_key;
        prefetch_lines(self.key, start..self.key_lines.start);
        let of_text = self.text_lines.len().min(LINES - of_key);
        let start = self.text_lines.start;
        self.text_lines.start += of_text;
        prefetch_lines(self.text, start..self.text_lines.start);
    }

    /// Asks for all that are left.
    #[inline(always)]
    pub(super) fn ask(self) {
        prefetch_lines(self.key, self.key_lines);
        prefetch_lines(self.text, self.text_lines);
    }
}
