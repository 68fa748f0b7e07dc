//! Sequence numbers, the replay window, and lifetimes of an SA.

use std::ops::RangeInclusive;

use culvert_esp::Lifetime;
use culvert_esp::Limits;
use culvert_esp::lifetime::LifetimeError;

use crate::config::error::ConfigError;
use crate::config::reader::Field;
use crate::config::reader::Section;

/// Keys of `soft_lifetime` and `hard_lifetime`.
pub(in crate::config) const LIMITS_KEYS: [&str; 3] = ["seconds", "bytes", "packets"];

/// Sizes of a window; 0 is no window.
const WINDOW: RangeInclusive<u32> = 64..=65536;

/// Window of an SA that does not say: bursts that cross from one worker to another are reordered
/// by more than the 64 packets that RFC 4303 section 3.4.3 prefers.
const REPLAY_WINDOW: u32 = 1024;

/// Longest lifetime, in seconds: 136 years.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// How an SA counts.
pub(super) struct Numbers {
    pub(super) esn: bool,
    pub(super) sequence: u64,
    pub(super) replay_window: u32,
}

pub(super) fn read(section: &Section<'_>) -> Result<Numbers, ConfigError> {
    let flag = |key| section.optional(key).map_or(Ok(false), |field: Field<'_>| field.flag());
    let esn = flag("esn")?;
    let sequence = section.optional("sequence").map_or(Ok(0), |field| sequence(&field, esn))?;
    let unspecified = flag("sequence_unspecified")?;
    let replay_window = match section.optional("replay_window") {
        Some(field) => window(&field, unspecified)?,
        None if unspecified => 0,
        None => REPLAY_WINDOW,
    };
    if esn && unspecified {
        return Err(section.error(
            "esn",
            "expected false with sequence_unspecified = true: its numbers have 32 bits (RFC 9827)",
        ));
    }
    if esn && replay_window == 0 {
        return Err(section.error(
            "esn",
            "expected false with replay_window = 0: without anti-replay there are no extended \
             numbers (RFC 4303 section 3.3.3)",
        ));
    }
    Ok(Numbers { esn, sequence, replay_window })
}

fn sequence(field: &Field<'_>, esn: bool) -> Result<u64, ConfigError> {
    if esn {
        return field.number(0..=u64::MAX);
    }
    let last = u64::from(u32::MAX);
    match field.as_number() {
        Some(number) if number > last => Err(field.wrong(format_args!(
            "an integer from 0 to {last}, the last number without esn = true"
        ))),
        _ => field.number(0..=last),
    }
}

fn window(field: &Field<'_>, unspecified: bool) -> Result<u32, ConfigError> {
    let number = field.as_number().and_then(|number| u32::try_from(number).ok());
    let window = number.filter(|size| *size == 0 || WINDOW.contains(size)).ok_or_else(|| {
        field.wrong(format_args!(
            "0 for no anti-replay, or an integer from {} to {} (RFC 4303 section 3.4.3 asks for 32 \
             and prefers 64)",
            WINDOW.start(),
            WINDOW.end(),
        ))
    })?;
    if unspecified && window > 0 {
        return Err(field.wrong(
            "0 with sequence_unspecified = true: such numbers cannot be checked (RFC 9827)",
        ));
    }
    Ok(window)
}

/// Reads both limits; no soft one lies above the hard one of its kind.
pub(super) fn lifetime(section: &Section<'_>) -> Result<Lifetime, ConfigError> {
    let soft = limits(section, "soft_lifetime")?;
    let hard = limits(section, "hard_lifetime")?;
    Lifetime::new(soft, hard).map_err(|error| match error {
        LifetimeError::SoftAboveHard { field, soft, hard } => section.error_within(
            "soft_lifetime",
            field,
            format_args!("expected at most the {hard} of hard_lifetime, found {soft}"),
        ),
        LifetimeError::Zero { .. } => section.error("soft_lifetime", error),
    })
}

fn limits(section: &Section<'_>, key: &str) -> Result<Limits, ConfigError> {
    let Some(field) = section.optional(key) else {
        return Ok(Limits::default());
    };
    let section = field.section(&LIMITS_KEYS)?;
    let limit = |key, most| section.optional(key).map(|field| field.number(1..=most)).transpose();
    let limits = Limits {
        seconds: limit("seconds", SECONDS_MAX)?,
        bytes: limit("bytes", u64::MAX)?,
        packets: limit("packets", u64::MAX)?,
        ..Limits::default()
    };
    if limits == Limits::default() {
        return Err(section.wrong("one or more of seconds, bytes and packets"));
    }
    Ok(limits)
}
