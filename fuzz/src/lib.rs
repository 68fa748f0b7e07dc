//! Fuzz targets: each is a test that gives whatever it is fed to one parser or one path of the
//! engine, and checks what must hold for any input.
//!
//! - `tests/wire.rs`: every parser of `culvert-wire`.
//! - `tests/esp.rs`: the trailer.
//! - `tests/spd.rs`: the compiled policies against a search of the list.
//! - `tests/steering.rs`: what the XDP program attracts against what the engine sees.
//! - `tests/engine.rs`: inbound with valid keys, outbound, and frames of anybody.
//! - `tests/files.rs`: configurations and captures.
//! - `tests/xfrm.rs`: messages of IKE daemons.
//! - `tests/keying.rs`: what they lead to, in any order.
//!
//! Each target first runs the inputs in `tests/__fuzz__/<target>/corpus`, then random ones for
//! [`SECONDS`]. `BOLERO_RANDOM_TEST_TIME_MS=600000` makes that ten minutes for each target, and
//! `BOLERO_RANDOM_SEED`, which a failure prints, repeats one input. `cargo bolero test` runs the
//! same targets under a fuzzer that is guided by coverage, and adds to the corpus. What a file of
//! the corpus holds is said by its target; of a packet it is 0xff, 0x00, and the packet.
//!
//! Random octets are hardly ever a packet: the targets that want one take their input as changes
//! to a genuine packet ([`changed`]), or as the drafts of things to build ([`Draft`]).

#![forbid(unsafe_code)]

use std::time::Duration;

/// How long a target looks for random inputs, unless the environment says otherwise.
pub const SECONDS: Duration = Duration::from_secs(1);

/// Most octets of a random input.
pub const INPUT_LEN_MAX: usize = 600;

/// A fuzz target: `target!().for_each(|input| ..)` in a test.
#[macro_export]
macro_rules! target {
    () => {
        $crate::bolero::check!()
            .with_iterations(usize::MAX)
            .with_test_time($crate::SECONDS)
            .with_max_len($crate::INPUT_LEN_MAX)
    };
}

#[doc(hidden)]
pub use bolero;

/// Most changes to a genuine packet.
const CHANGES_MAX: usize = 7;

/// What the first octet of an input is that is a packet itself, behind the second octet.
const ITSELF: u8 = 0xff;

/// The packet that `input` stands for.
///
/// The first octet picks one of `genuine`, unless it is the last value; the second says how many
/// changes follow, of four octets each: what to do, where, and a value.
#[must_use]
pub fn changed(genuine: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
    let Some((&[pick, count], rest)) = input.split_first_chunk() else {
        return input.to_vec();
    };
    if pick == ITSELF || genuine.is_empty() {
        return rest.to_vec();
    }
    let mut packet = genuine[usize::from(pick) % genuine.len()].clone();
    let count = usize::from(count) % (CHANGES_MAX + 1);
    for &[what, at0, at1, value] in rest.as_chunks().0.iter().take(count) {
        change(&mut packet, what, u16::from_be_bytes([at0, at1]), value);
    }
    packet
}

/// One change: most set or flip an octet, some cut, grow, or move what follows.
fn change(packet: &mut Vec<u8>, what: u8, at: u16, value: u8) {
    if packet.is_empty() {
        return;
    }
    let at = usize::from(at) % packet.len();
    match what % 8 {
        0 | 1 => packet[at] = value,
        2 => packet[at] ^= 1 << (value % 8),
        3 => packet[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, 4, 6][usize::from(value % 8)],
        4 => packet[at] = packet[at].wrapping_add(value),
        5 => packet.truncate(at),
        6 => packet.extend(std::iter::repeat_n(value, at % 64)),
        _ => {
            let len = packet.len();
            packet.copy_within(at.., len.min(usize::from(value)).min(at));
        }
    }
}

/// Gives the IPv4 header at `at` the checksum that is right for what it says, so that a change to
/// it gets further than that.
pub fn repair(frame: &mut [u8], at: usize) {
    let Some(packet) = frame.get_mut(at..).filter(|packet| packet.len() >= 20) else {
        return;
    };
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    if packet[0] >> 4 != 4 || !(20..=packet.len()).contains(&header_len) {
        return;
    }
    packet[10..12].fill(0);
    let words = packet[..header_len].as_chunks().0.iter().map(|&word| u16::from_be_bytes(word));
    let sum: u32 = words.map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [.., high, low] = (!folded).to_be_bytes();
    packet[10..12].copy_from_slice(&[high, low]);
}

/// Octets that say how to build something; zeros when there are no more.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a>(pub &'a [u8]);

impl<'a> Draft<'a> {
    /// The next octet.
    pub fn octet(&mut self) -> u8 {
        let Some((&octet, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        octet
    }

    /// The next two octets, as a number.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// The next octet as a number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.octet() % bound
    }

    /// True for one octet in two.
    pub fn flag(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    /// The next `len` octets, or as many as there are.
    pub fn octets(&mut self, len: usize) -> &'a [u8] {
        let (octets, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        octets
    }

    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The input itself, a genuine packet, and a changed one.
    #[test]
    fn inputs_stand_for_packets() {
        let genuine = [vec![1, 2, 3, 4], vec![5; 8]];
        assert_eq!(changed(&genuine, &[]), []);
        assert_eq!(changed(&genuine, &[0xff, 9, 7, 7]), [7, 7]);
        assert_eq!(changed(&genuine, &[2, 0, 7, 7, 7, 7]), [1, 2, 3, 4]);
        assert_eq!(changed(&genuine, &[0, 2, 0, 0, 1, 9, 5, 0, 3, 0, 0, 0, 0, 9]), [1, 9, 3]);
        // Position 5 of four octets is the second; 7 is the bit that flips.
        assert_eq!(changed(&genuine, &[4, 1, 2, 0, 5, 7]), [1, 0x82, 3, 4]);
    }

    /// The header of RFC 1071's usual example sums to zero afterwards.
    #[test]
    fn checksums_are_repaired() {
        let header = "450000730000400040110000c0a80001c0a800c7";
        let octet = |at: usize| u8::from_str_radix(&header[at..at + 2], 16).unwrap();
        let mut header: Vec<u8> = (0..40).step_by(2).map(octet).collect();
        repair(&mut header, 0);
        assert_eq!(header[10..12], [0xb8, 0x61]);
    }

    #[test]
    fn drafts_end_in_zeros() {
        let mut draft = Draft(&[1, 2, 3, 4]);
        assert_eq!((draft.octet(), draft.word(), draft.is_empty()), (1, 0x0203, false));
        assert_eq!(draft.octets(9), [4]);
        assert_eq!((draft.word(), draft.is_empty()), (0, true));
    }
}
