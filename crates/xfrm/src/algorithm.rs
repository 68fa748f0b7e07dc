//! Algorithms by name, and their keys.

use std::fmt;

use crate::attribute::Fault;
use crate::attribute::Payload;
use crate::error::Errno;
use crate::octets::Writer;
use crate::secret::Secret;

/// Octets of a name, the zero at its end included.
const NAME_LEN: usize = 64;

/// Name of an algorithm as the kernel's crypto API has it, such as `rfc4106(gcm(aes))`, or an
/// alias of that such as `aes`. Printable ASCII, at most 63 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name([u8; NAME_LEN]);

impl Name {
    /// The name `text`; nothing if it is empty, too long, or not printable ASCII.
    #[must_use]
    pub fn new(text: &str) -> Option<Name> {
        let mut name = [0; NAME_LEN];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Name::read(&name)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|octet| *octet == 0).unwrap_or(NAME_LEN);
        str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// What stands before the first zero, which there must be.
    fn read(octets: &[u8; NAME_LEN]) -> Option<Name> {
        let len = octets.iter().position(|octet| *octet == 0)?;
        let text = &octets[..len];
        if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut name = [0; NAME_LEN];
        name[..len].copy_from_slice(text);
        Some(Name(name))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A key, with the salt behind it where the algorithm has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    bits: u32,
    octets: Secret,
}

impl Key {
    /// A key of whole octets.
    ///
    /// # Panics
    /// When it has more than 2^29 octets.
    #[must_use]
    pub fn new(octets: Secret) -> Key {
        let bits = u32::try_from(8 * octets.octets().len()).expect("a key of few octets");
        Key { bits, octets }
    }

    /// Its length.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The key itself, the last octet filled up if its bits do not.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.octets.octets()
    }

    /// The key of `bits` that `octets` begin with.
    fn read(bits: u32, octets: &[u8]) -> Result<Key, Fault> {
        let missing = Fault::value("as many octets of key as it says", Errno::EINVAL);
        let len = usize::try_from(bits.div_ceil(8)).map_err(|_| missing)?;
        let octets = octets.get(..len).ok_or(missing)?;
        Ok(Key { bits, octets: octets.into() })
    }
}

/// `struct xfrm_algo`: a cipher, an integrity algorithm with the kernel's own truncation, or a
/// compression, whose key is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// Which.
    pub name: Name,
    /// Its key.
    pub key: Key,
}

/// `struct xfrm_algo_auth`: an integrity algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Which.
    pub name: Name,
    /// Bits of the ICV.
    pub trunc_bits: u32,
    /// Its key.
    pub key: Key,
}

/// `struct xfrm_algo_aead`: an algorithm for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aead {
    /// Which.
    pub name: Name,
    /// Bits of the ICV.
    pub icv_bits: u32,
    /// Its key, and salt.
    pub key: Key,
}

/// Name, then `N` numbers, then the rest.
fn read<const N: usize>(octets: &[u8]) -> Result<(Name, [u32; N], &[u8]), Fault> {
    let short = Fault::short(NAME_LEN + 4 * N);
    let (name, mut rest) = octets.split_first_chunk().ok_or(short)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        let (octets, behind) = rest.split_first_chunk().ok_or(short)?;
        (*number, rest) = (u32::from_ne_bytes(*octets), behind);
    }
    let name = Name::read(name).ok_or(Fault::value("a name of an algorithm", Errno::ENOSYS))?;
    Ok((name, numbers, rest))
}

fn write(writer: &mut Writer, name: &Name, numbers: &[u32], key: &Key) {
    writer.put(&name.0);
    for number in numbers {
        writer.put(&number.to_ne_bytes());
    }
    writer.put(key.octets());
}

impl Payload for Algorithm {
    fn parse(octets: &[u8]) -> Result<Algorithm, Fault> {
        let (name, [bits], rest) = read(octets)?;
        Ok(Algorithm { name, key: Key::read(bits, rest)? })
    }

    fn write(&self, writer: &mut Writer) {
        write(writer, &self.name, &[self.key.bits], &self.key);
    }
}

impl Payload for Auth {
    fn parse(octets: &[u8]) -> Result<Auth, Fault> {
        let (name, [bits, trunc_bits], rest) = read(octets)?;
        Ok(Auth { name, trunc_bits, key: Key::read(bits, rest)? })
    }

    fn write(&self, writer: &mut Writer) {
        write(writer, &self.name, &[self.key.bits, self.trunc_bits], &self.key);
    }
}

impl Payload for Aead {
    fn parse(octets: &[u8]) -> Result<Aead, Fault> {
        let (name, [bits, icv_bits], rest) = read(octets)?;
        Ok(Aead { name, icv_bits, key: Key::read(bits, rest)? })
    }

    fn write(&self, writer: &mut Writer) {
        write(writer, &self.name, &[self.key.bits, self.icv_bits], &self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names end in time and are printable.
    #[test]
    fn names_are_text() {
        let name = Name::new("rfc4106(gcm(aes))").expect("a name");
        assert_eq!(name.as_str(), "rfc4106(gcm(aes))");
        assert_eq!(format!("{name:?}"), "\"rfc4106(gcm(aes))\"");
        assert!(Name::new(&"a".repeat(63)).is_some());
        assert!(Name::new(&"a".repeat(64)).is_none());
        assert!(Name::new("").is_none());
        assert!(Name::new("a\n").is_none());
        assert!(Name::new("ä").is_none());
    }

    /// A key of as many bits as there are octets for, of fewer, and of more.
    #[test]
    fn keys_are_as_long_as_they_say() {
        let mut octets = [0; 70];
        octets[..3].copy_from_slice(b"aes");
        octets[68..].copy_from_slice(&[0xaa, 0xbb]);
        let parse = |bits: u32| {
            let mut octets = octets;
            octets[64..68].copy_from_slice(&bits.to_ne_bytes());
            Algorithm::parse(&octets).map(|algorithm| algorithm.key.octets().to_vec())
        };
        assert_eq!(parse(16), Ok(vec![0xaa, 0xbb]));
        assert_eq!(parse(9), Ok(vec![0xaa, 0xbb]));
        assert_eq!(parse(8), Ok(vec![0xaa]));
        assert_eq!(parse(0), Ok(vec![]));
        let missing = Fault::value("as many octets of key as it says", Errno::EINVAL);
        assert_eq!(parse(17), Err(missing));
        assert_eq!(parse(u32::MAX), Err(missing));
    }
}
