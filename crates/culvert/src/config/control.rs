//! `[control]`: where SAs and policies come from, when they do not stand in the file.

use std::path::PathBuf;

use super::error::ConfigError;
use super::reader::Field;
use super::reader::Section;

/// Keys of the section.
pub(super) const KEYS: [&str; 4] = ["socket", "max_sas", "mark", "if_id"];

/// The socket, if the file does not say.
pub const SOCKET: &str = "/run/culvert/xfrm.sock";

/// Longest path of a socket, in octets (`sun_path` without the final zero).
const SOCKET_PATH_MAX: usize = 107;

/// SAs of each direction that a worker has room for, if the file does not say.
const SAS: usize = 1 << 16;

/// Most SAs of each direction that a worker can have room for.
const SAS_MAX: usize = 1 << 20;

/// IKE drives this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// SAs of each direction that each worker has room for.
    pub max_sas: usize,
    /// The mark that all packets of this gateway have, for SAs and policies with a mark.
    pub mark: u32,
    /// The XFRM interface that all packets of this gateway pass; 0 for none.
    pub if_id: u32,
}

/// Reads `[control]`.
pub(super) fn control(section: &Section<'_>) -> Result<Control, ConfigError> {
    let number =
        |key: &str| section.optional(key).map_or(Ok(0), |field| field.number(0..=u32::MAX));
    Ok(Control {
        socket: match section.optional("socket") {
            Some(field) => socket(&field)?,
            None => PathBuf::from(SOCKET),
        },
        max_sas: section.optional("max_sas").map_or(Ok(SAS), |field| field.number(1..=SAS_MAX))?,
        mark: number("mark")?,
        if_id: number("if_id")?,
    })
}

fn socket(field: &Field<'_>) -> Result<PathBuf, ConfigError> {
    let expected = format!("an absolute path of at most {SOCKET_PATH_MAX} octets");
    let text = field.text(&expected)?;
    let path = PathBuf::from(text);
    let fits = path.is_absolute() && text.len() <= SOCKET_PATH_MAX && !text.contains('\0');
    if fits { Ok(path) } else { Err(field.wrong(expected)) }
}
