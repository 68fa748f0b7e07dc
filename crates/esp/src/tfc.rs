//! Traffic flow confidentiality (RFC 4303 sections 2.6 and 2.7): packets made longer than they need
//! to be, and packets that carry nothing.
//!
//! Padding of this kind stands between the payload and the ESP padding. Its receiver can only tell
//! it from payload if the payload says how long it is: every IP packet does, most transport
//! protocols do not. A sender adds it only to peers that have not refused it.

use crate::Mode;

/// Next header of a dummy packet (RFC 4303 section 2.6).
pub const NEXT_HEADER_DUMMY: u8 = 59;

const PROTOCOL_IPIP: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;

/// How long the payloads of an SA are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TfcPadding {
    /// As long as they are.
    #[default]
    Off,
    /// At least so many octets, as far as the path carries them.
    To(u16),
    /// As long as the path carries.
    Mtu,
}

/// True when the payload tells its own length, so that what follows it can be told apart (RFC 4303
/// section 2.7): any in tunnel mode, and IP or UDP in transport mode.
#[inline]
#[must_use]
pub fn carries_own_length(mode: Mode, next_header: u8) -> bool {
    mode == Mode::Tunnel || matches!(next_header, PROTOCOL_IPIP | PROTOCOL_UDP | PROTOCOL_IPV6)
}

impl TfcPadding {
    /// Octets that a payload of `payload_len` becomes when the path carries payloads of
    /// `payload_len_max`: never fewer than it has, never more than the path carries.
    #[inline]
    #[must_use]
    pub fn padded_len(self, payload_len: usize, payload_len_max: usize) -> usize {
        let wish = match self {
            TfcPadding::Off => return payload_len,
            TfcPadding::To(len) => usize::from(len),
            TfcPadding::Mtu => usize::MAX,
        };
        wish.min(payload_len_max).max(payload_len)
    }
}

/// Fills the payload of dummy packet number `counter` (its sequence number does) with octets that
/// look like anything, from a generator that the caller has seeded with something secret or random.
/// They are encrypted like any others; without encryption they only have to differ.
pub fn fill_dummy(payload: &mut [u8], seed: u64, counter: u64) {
    let mut state = mix(seed ^ mix(counter));
    let (words, rest) = payload.as_chunks_mut::<8>();
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(state).to_le_bytes()
    };
    for word in words {
        *word = next();
    }
    let last = next();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Octets of payload of dummy packet number `counter`: between 40 and `len_max`, so that dummies do
/// not stand out by their length.
#[must_use]
pub fn dummy_len(seed: u64, counter: u64, len_max: usize) -> usize {
    let span = len_max.saturating_sub(DUMMY_LEN_MIN) as u64 + 1;
    let draw = mix(mix(seed.wrapping_add(1)) ^ counter) % span;
    (DUMMY_LEN_MIN + usize::try_from(draw).expect("less than a usize")).min(len_max)
}

/// Octets of the smallest dummy payload: a bare TCP acknowledgement has as many.
const DUMMY_LEN_MIN: usize = 40;

/// The finaliser of SplitMix64: a permutation that spreads every bit over all.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// E12: only payloads that tell their own length are padded: all in a tunnel, IP and UDP in
    /// transport mode, never TCP or ICMP.
    #[test]
    fn only_payloads_with_a_length() {
        assert!((0..=255).all(|next_header| carries_own_length(Mode::Tunnel, next_header)));
        let transport = |&next_header: &u8| carries_own_length(Mode::Transport, next_header);
        assert_eq!((0..=255).filter(transport).collect::<Vec<u8>>(), [4, 17, 41]);
    }

    /// E13: padding makes payloads as long as asked, never shorter, never longer than the path
    /// carries.
    #[test]
    fn lengths() {
        assert_eq!(TfcPadding::Off.padded_len(100, 1400), 100);
        assert_eq!(TfcPadding::To(576).padded_len(100, 1400), 576);
        assert_eq!(TfcPadding::To(576).padded_len(600, 1400), 600);
        assert_eq!(TfcPadding::To(576).padded_len(100, 500), 500);
        assert_eq!(TfcPadding::Mtu.padded_len(100, 1400), 1400);
        for wish in [TfcPadding::Off, TfcPadding::To(576), TfcPadding::Mtu] {
            assert_eq!(wish.padded_len(1500, 1400), 1500, "the caller refuses it, or fragments");
        }
    }

    /// E11: dummies differ from each other and have no pattern; the same seed makes them again.
    #[test]
    fn dummies_look_like_anything() {
        let dummy = |seed, counter| {
            let mut payload = vec![0; 1003];
            fill_dummy(&mut payload, seed, counter);
            payload
        };
        assert_eq!(dummy(1, 1), dummy(1, 1));
        let mut words = HashSet::new();
        for (seed, counter) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let payload = dummy(seed, counter);
            let fresh = payload.as_chunks::<8>().0.iter().filter(|word| words.insert(**word));
            assert_eq!(fresh.count(), 125, "no word twice");
            let ones: u32 = payload.iter().map(|octet| octet.count_ones()).sum();
            assert!((3700..4300).contains(&ones), "{ones} of 8024 bits");
            assert_ne!(payload[1000..], [0; 3]);
        }
    }

    /// E11: their lengths are spread over what the path carries, and stay inside.
    #[test]
    fn dummies_vary_in_length() {
        let lens: HashSet<usize> = (0..1000).map(|counter| dummy_len(9, counter, 1400)).collect();
        assert!(lens.iter().all(|len| (40..=1400).contains(len)) && lens.len() > 400);
        assert!(lens.iter().any(|&len| len < 100) && lens.iter().any(|&len| len > 1300));
        assert_eq!((dummy_len(9, 1, 40), dummy_len(9, 1, 7), dummy_len(9, 1, 0)), (40, 7, 0));
    }
}
