//! Algorithm and key of an SA.

use std::fmt;

use culvert_aead::Algorithm;
use culvert_aead::AlgorithmError;
use culvert_aead::Keymat;
use culvert_aead::Protocol;

use super::Direction;
use super::identity::Identity;
use crate::config::Lab;
use crate::config::error::ConfigError;
use crate::config::error::shown;
use crate::config::reader::Field;
use crate::config::reader::Section;

/// Refuses a key where the file is not a lab's.
pub(super) fn check_lab(section: &Section<'_>, lab: Lab) -> Result<(), ConfigError> {
    if section.optional("key").is_some() && !lab.static_keys {
        return Err(section.error(
            "key",
            "refused without `static_keys = true` in [lab]: a restart with the same key can use \
             a nonce twice, which lays AES-GCM open (RFC 4106 section 2); keys in a file are for \
             labs and tests",
        ));
    }
    Ok(())
}

/// Reads the algorithm, which has to be one of the SA's protocol.
pub(super) fn algorithm(
    section: &Section<'_>,
    identity: &Identity,
) -> Result<Algorithm, ConfigError> {
    let protocol = identity.protocol;
    let expected = Algorithm::expected(protocol);
    let field = section.required("algorithm", expected)?;
    let algorithm = parse(&field, protocol)?;
    let short = section.optional("allow_short_icv").map_or(Ok(false), |field| field.flag())?;
    if algorithm.has_short_icv() && identity.direction == Direction::Outbound && !short {
        return Err(field.error(format_args!(
            "{algorithm} sends an ICV of {} octets, which RFC 4106 section 6 only allows: expected \
             one of 16, or allow_short_icv = true",
            algorithm.icv_len(),
        )));
    }
    if algorithm.has_implicit_iv() && identity.destination.is_multicast() {
        return Err(field.error(format_args!(
            "{algorithm} has no IV of its own, so several senders to {} would use one nonce twice \
             (RFC 8750 section 7): expected an algorithm with an IV",
            identity.destination,
        )));
    }
    Ok(algorithm)
}

fn parse(field: &Field<'_>, protocol: Protocol) -> Result<Algorithm, ConfigError> {
    let expected = Algorithm::expected(protocol);
    let text = field.text(expected)?;
    // The words of the error would repeat a key that stands in the wrong place.
    Algorithm::parse(protocol, text).map_err(|error| match error {
        AlgorithmError::Unknown { .. } => field.wrong(expected),
        AlgorithmError::OtherProtocol { algorithm, .. } => field.error(format_args!(
            "{algorithm} is for {}, not for {protocol}: expected {expected}",
            algorithm.protocol(),
        )),
        AlgorithmError::Refused { reason, .. } => {
            field.error(format_args!("{} is refused, {reason}: expected {expected}", shown(text)))
        }
    })
}

/// Reads the key. No message quotes a digit of it.
pub(super) fn keymat(section: &Section<'_>, algorithm: Algorithm) -> Result<Keymat, ConfigError> {
    let expected = format!(
        "{} hexadecimal digits ({}) for {algorithm}",
        2 * algorithm.keymat_len(),
        algorithm.keymat_parts(),
    );
    let field = section.required("key", &expected)?;
    let wrong =
        |found: &dyn fmt::Display| field.error(format_args!("expected {expected}, found {found}"));
    let Some(text) = field.as_text() else {
        return Err(wrong(&field.kind()));
    };
    if let Some(at) = text.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(wrong(&format_args!("something else at character {}", at + 1)));
    }
    if text.len() != 2 * algorithm.keymat_len() {
        return Err(wrong(&text.len()));
    }
    Keymat::from_hex(text).map_err(|_| wrong(&"something else"))
}
