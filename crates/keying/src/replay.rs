//! Sequence numbers and windows: from the kernel's two forms to ours, and back.
//!
//! The old form has 32-bit numbers and at most 32 bits, of which bit 0 is the highest number. The
//! newer one has 64-bit numbers and a ring in which number `n` is bit `(n - 1) % replay_window`.

use culvert_esp::WindowState;
use culvert_xfrm::Attribute;
use culvert_xfrm::Errno;
use culvert_xfrm::replay::Replay;
use culvert_xfrm::replay::ReplayEsn;

use crate::refusal::Refusal;
use crate::sas::Sa;

/// Largest window of the kernel's.
const SIZE_MAX: u32 = 4096;

/// Numbers that the old form has bits for.
const OLD_SIZE_MAX: u32 = 32;

/// The window that an SA asks for; 0 for none.
///
/// # Errors
/// EINVAL for one that is too large.
pub(crate) fn window_size(sa: &Sa) -> Result<u32, Refusal> {
    match sa.attributes.replay_esn() {
        Some(replay) if replay.replay_window > SIZE_MAX => {
            Err(Refusal::new(Errno::EINVAL, "a window of at most 4096 numbers"))
        }
        Some(replay) => Ok(replay.replay_window),
        None => Ok(u32::from(sa.info.replay_window).min(OLD_SIZE_MAX)),
    }
}

/// The highest number that an SA says it received.
pub(crate) fn highest(sa: &Sa) -> u64 {
    match (sa.attributes.replay_esn(), sa.attributes.replay()) {
        (Some(replay), _) => replay.seq,
        (None, Some(replay)) => u64::from(replay.seq),
        (None, None) => 0,
    }
}

/// What an SA says that it received.
pub(crate) fn received(sa: &Sa) -> WindowState {
    if let Some(replay) = sa.attributes.replay_esn() {
        let size = replay.replay_window.min(SIZE_MAX);
        return WindowState::from_fn(replay.seq, size, |number| is_set(replay, number));
    }
    let size = u32::from(sa.info.replay_window).min(OLD_SIZE_MAX);
    let replay = sa.attributes.replay().copied().unwrap_or_default();
    let top = u64::from(replay.seq);
    WindowState::from_fn(top, size, |number| replay.bitmap >> (top - number) & 1 != 0)
}

fn is_set(replay: &ReplayEsn, number: u64) -> bool {
    let Some((word, bit)) = place(number, replay.replay_window) else {
        return false;
    };
    replay.bitmap.get(word).is_some_and(|word| word >> bit & 1 != 0)
}

/// Word and bit of a number in the ring.
fn place(number: u64, size: u32) -> Option<(usize, u32)> {
    let at = number.checked_sub(1)?.checked_rem(u64::from(size))?;
    Some((usize::try_from(at / 32).ok()?, u32::try_from(at % 32).ok()?))
}

/// The last number that an SA says it sent.
pub(crate) fn sent(sa: &Sa) -> u64 {
    match (sa.attributes.replay_esn(), sa.attributes.replay()) {
        (Some(replay), _) => replay.oseq,
        (None, Some(replay)) => u64::from(replay.oseq),
        (None, None) => 0,
    }
}

/// The numbers of an SA as a listing shows them, in the form in which it was made.
pub(crate) fn listed(sa: &Sa, sent: u64, received: &WindowState) -> Attribute {
    let top = received.top();
    if let Some(made) = sa.attributes.replay_esn() {
        let size = made.replay_window;
        let mut bitmap = vec![0_u32; made.bitmap.len()];
        for number in numbers(top, size).filter(|&number| received.was_seen(number)) {
            if let Some((word, bit)) = place(number, size)
                && let Some(word) = bitmap.get_mut(word)
            {
                *word |= 1 << bit;
            }
        }
        let replay = ReplayEsn { oseq: sent, seq: top, replay_window: size, bitmap };
        return Attribute::ReplayEsn(replay);
    }
    let low = |number: u64| (number & 0xffff_ffff) as u32;
    let seen = numbers(top, OLD_SIZE_MAX).filter(|&number| received.was_seen(number));
    let bitmap = seen.fold(0, |bitmap: u32, number| bitmap | 1 << (top - number));
    Attribute::Replay(Replay { oseq: low(sent), seq: low(top), bitmap })
}

/// The numbers of a window, 0 apart.
fn numbers(top: u64, size: u32) -> impl Iterator<Item = u64> {
    let count = u64::from(size).min(top);
    (1..=count).map(move |at| top - count + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows at both ends of the numbers; one of no size has none.
    #[test]
    fn numbers_of_windows() {
        let all = |top, size| numbers(top, size).collect::<Vec<u64>>();
        assert_eq!(all(3, 2), [2, 3]);
        assert_eq!(all(3, 32), [1, 2, 3]);
        assert_eq!(all(0, 32), []);
        assert_eq!(all(u64::MAX, 2), [u64::MAX - 1, u64::MAX]);
        assert_eq!(all(u64::MAX, 0), []);
    }
}
