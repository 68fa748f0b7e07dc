//! [`WindowState`]: what an anti-replay window has seen, apart from its SA.
//!
//! An SA that goes and comes again, with the same key, must never accept a number that it accepted
//! before; and whoever asks about an SA is told its window. The state keeps the ring of bits as the
//! window has it, so that to copy it is to copy words.

use crate::replay::SIZE_MAX;
use crate::replay::Window;
use crate::replay::WindowSizeError;

/// The highest number accepted, and which of those below it were: of some the bits are known, and
/// all below these count as seen.
#[derive(Clone, Default)]
pub struct WindowState {
    top: u64,
    size: u64,
    /// As in [`Window`]: bits by number, a power of two of words, and more bits than `size`.
    ring: Vec<u64>,
}

impl WindowState {
    /// Everything up to `top` was seen.
    #[must_use]
    pub fn all_seen(top: u64) -> WindowState {
        WindowState { top, size: 0, ring: Vec::new() }
    }

    /// The numbers `top - size + 1 ..= top` were seen or not, as `seen` says; all below were. At
    /// most [`SIZE_MAX`] numbers are asked for.
    #[must_use]
    pub fn from_fn(top: u64, size: u32, seen: impl Fn(u64) -> bool) -> WindowState {
        let size = size.min(SIZE_MAX);
        if size == 0 {
            return WindowState::all_seen(top);
        }
        let words = size.next_power_of_two().max(64) as usize / 64;
        let mut state = WindowState { top, size: size.into(), ring: vec![0; words] };
        for number in state.numbers() {
            let (word, bit) = state.place(number);
            state.ring[word] |= if seen(number) { bit } else { 0 };
        }
        state
    }

    /// Room for the state of a window of `size` packets, to be written without allocation.
    #[must_use]
    pub fn with_room(size: u32) -> WindowState {
        let words = size.min(SIZE_MAX).next_power_of_two().max(64) as usize / 64;
        WindowState { top: 0, size: 0, ring: Vec::with_capacity(words) }
    }

    /// The highest number accepted.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Of how many numbers, up to the highest one, the bits are known. 0 when anti-replay is off.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a number was accepted, or is too old to say.
    #[must_use]
    pub fn was_seen(&self, number: u64) -> bool {
        let Some(behind) = self.top.checked_sub(number) else {
            return false;
        };
        if behind >= self.size || number == 0 {
            return true;
        }
        let (word, bit) = self.place(number);
        self.ring[word] & bit != 0
    }

    /// What either has seen, with the bits of as many numbers as the larger one has.
    #[must_use]
    pub fn union(&self, other: &WindowState) -> WindowState {
        let top = self.top.max(other.top);
        #[expect(clippy::cast_possible_truncation, reason = "at most SIZE_MAX")]
        let size = self.size.max(other.size) as u32;
        WindowState::from_fn(top, size, |number| self.was_seen(number) || other.was_seen(number))
    }

    /// The same with as few bits as say it, and at most those of the `max` highest numbers: what is
    /// left out counts as seen.
    #[must_use]
    pub fn compact(&self, max: u32) -> WindowState {
        let oldest = self.numbers().find(|&number| !self.was_seen(number));
        let size = oldest.map_or(0, |number| self.top - number + 1).min(max.into());
        #[expect(clippy::cast_possible_truncation, reason = "at most SIZE_MAX")]
        WindowState::from_fn(self.top, size as u32, |number| self.was_seen(number))
    }

    /// The numbers whose bits are known; 0 is none.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let count = self.size.min(self.top);
        let below = self.top - count;
        (1..=count).map(move |at| below + at)
    }

    /// Takes the bits of a window over, of which those where `top` is are `head`, without
    /// allocation: where there is no room for them, everything up to the highest number counts as
    /// seen.
    pub(crate) fn copy(&mut self, top: u64, size: u64, ring: &[u64], head: u64) {
        self.ring.clear();
        self.top = top;
        self.size = 0;
        if size > 0 && self.ring.capacity() >= ring.len() {
            self.ring.extend_from_slice(ring);
            self.size = size;
            let (word, _) = self.place(top);
            self.ring[word] = head;
        }
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let word = (number >> 6) as usize & (self.ring.len() - 1);
        (word, 1 << (number & 63))
    }
}

impl Window {
    /// A window of `size` packets that goes on where another ended: what that saw is not accepted,
    /// and neither is what it has no bits of.
    ///
    /// # Errors
    /// When `size` is out of range.
    pub fn from_state(
        size: u32,
        esn: bool,
        state: &WindowState,
    ) -> Result<Window, WindowSizeError> {
        let unseen = state.numbers().filter(|&number| !state.was_seen(number));
        Window::with_unseen(size, esn, state.top, unseen)
    }

    /// What the window has seen.
    #[must_use]
    pub fn state(&self) -> WindowState {
        #[expect(clippy::cast_possible_truncation, reason = "at most SIZE_MAX")]
        let mut state = WindowState::with_room(self.size() as u32);
        self.write_state(&mut state);
        state
    }
}

impl PartialEq for WindowState {
    /// The same numbers were seen, and of the same ones the bits are known.
    fn eq(&self, other: &WindowState) -> bool {
        let same = |number| self.was_seen(number) == other.was_seen(number);
        (self.top, self.size) == (other.top, other.size) && self.numbers().all(same)
    }
}

impl Eq for WindowState {}

impl std::fmt::Debug for WindowState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seen = self.numbers().filter(|&number| self.was_seen(number)).count();
        f.debug_struct("WindowState")
            .field("top", &self.top)
            .field("size", &self.size)
            .field("seen", &seen)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::proof;

    fn accept(window: &mut Window, number: u64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is on the wire")]
        let candidate = window.check(number as u32);
        // With these low bits, another number may be meant.
        let meant = candidate.ok().filter(|candidate| candidate.seq() == number);
        meant.is_some_and(|candidate| window.commit(candidate, proof()).is_ok())
    }

    /// Bits are those of the numbers that were accepted; what is older was seen.
    #[test]
    fn a_window_tells_what_it_saw() {
        let mut window = Window::new(64, false, 0).unwrap();
        for number in [1, 2, 70, 72, 66] {
            assert!(accept(&mut window, number));
        }
        let state = window.state();
        assert_eq!((state.top(), state.size()), (72, 64));
        let unseen: Vec<u64> = (0..80).filter(|&number| !state.was_seen(number)).collect();
        let expected: Vec<u64> = (9..80).filter(|number| ![66, 70, 72].contains(number)).collect();
        assert_eq!(unseen, expected);
        assert_eq!(Window::off().state(), WindowState::all_seen(0));
    }

    /// Without room nothing is allocated, and everything counts as seen.
    #[test]
    fn no_room_is_everything_seen() {
        let mut window = Window::new(1024, false, 0).unwrap();
        accept(&mut window, 9);
        let mut state = WindowState::with_room(512);
        window.write_state(&mut state);
        assert_eq!(state, WindowState::all_seen(9));
        assert!(state.was_seen(3));
        let mut state = WindowState::with_room(1024);
        window.write_state(&mut state);
        assert!(!state.was_seen(3));
    }

    fn any_state() -> impl Strategy<Value = WindowState> {
        let tops = prop_oneof![0u64..300, Just(u64::MAX), (1u64 << 32) - 99..(1 << 32) + 99];
        (tops, 0u32..200, any::<u64>()).prop_map(|(top, size, pattern)| {
            WindowState::from_fn(top, size, |number| pattern >> (number % 61) & 1 == 1)
        })
    }

    proptest! {
        /// I08: a window made of a state, of any size, accepts just the numbers that the state has
        /// not seen and that are in the window, each once; and its state says so.
        #[test]
        fn a_window_goes_on(state in any_state(), size in 64u32..200) {
            let mut window = Window::from_state(size, true, &state).unwrap();
            prop_assert_eq!((window.top(), window.size()), (state.top(), u64::from(size)));
            prop_assert_eq!((window.lost(), window.reorder_depth()), (0, 0));
            let first = state.top().saturating_sub(300);
            let after = (1..50).filter_map(|more| state.top().checked_add(more));
            for number in (first..=state.top()).rev().chain(after) {
                let inside = number > state.top() || state.top() - number < u64::from(size);
                let fresh = !state.was_seen(number) && inside && number > 0;
                prop_assert_eq!(window.state().was_seen(number), !fresh, "{}", number);
                prop_assert_eq!(accept(&mut window, number), fresh, "{}", number);
                prop_assert!(!accept(&mut window, number) && window.state().was_seen(number));
            }
        }

        /// I08: a union has seen what either has, and nothing that neither has; a compact state
        /// says the same as the whole one.
        #[test]
        fn unions_forget_nothing(one in any_state(), other in any_state()) {
            let both = one.union(&other);
            let top = one.top().max(other.top());
            for number in top.saturating_sub(500)..=top {
                let seen = one.was_seen(number) || other.was_seen(number);
                prop_assert_eq!(both.was_seen(number), seen, "{}", number);
                prop_assert_eq!(one.compact(SIZE_MAX).was_seen(number), one.was_seen(number));
                prop_assert!(one.compact(64).was_seen(number) || !one.was_seen(number));
            }
            prop_assert!(one.compact(SIZE_MAX).size() <= one.size());
            prop_assert!(one.compact(64).size() <= 64);
        }
    }
}
