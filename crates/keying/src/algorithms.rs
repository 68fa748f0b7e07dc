//! Algorithms: from the names that the kernel's crypto API has to ours.
//!
//! IKE daemons and `ip` write names and aliases: "cbc(aes)" and "aes" are the same. Keys of
//! combined algorithms end in their salt, as ours do.

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Protocol;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Errno;
use culvert_xfrm::algorithm::Aead;
use culvert_xfrm::algorithm::Algorithm as Cipher;
use culvert_xfrm::algorithm::Auth;
use culvert_xfrm::algorithm::Key;
use culvert_xfrm::algorithm::Name;
use culvert_xfrm::sa;

use crate::refusal::Refusal;

/// Octets of the salt of a combined algorithm.
const SALT_LEN: usize = 4;

/// Bits of the ICV that the kernel cuts SHA-2 to where a request does not say (`XFRMA_ALG_AUTH`, or
/// 0); for SHA-256 those of an old draft.
const DEFAULT_TRUNCATIONS: [(&str, u32); 3] =
    [("hmac(sha256)", 96), ("hmac(sha384)", 192), ("hmac(sha512)", 256)];

/// Names of integrity algorithms, aliases behind.
const INTEGRITY: [(&str, &str); 6] = [
    ("hmac(sha256)", "hmac(sha256)"),
    ("sha256", "hmac(sha256)"),
    ("hmac(sha384)", "hmac(sha384)"),
    ("sha384", "hmac(sha384)"),
    ("hmac(sha512)", "hmac(sha512)"),
    ("sha512", "hmac(sha512)"),
];

/// An algorithm, and the key of the cipher or of both, then that of integrity.
type Found<'a> = (Algorithm, [&'a [u8]; 2]);

/// What integrity is asked for.
struct Integrity<'a> {
    name: Name,
    trunc_bits: u32,
    key: &'a Key,
}

/// The algorithm and key of an SA of protocol `proto`, from its attributes.
///
/// # Errors
/// ENOSYS for an algorithm or a combination that there is none of, EINVAL for a key of another
/// length, EPROTONOSUPPORT for a protocol other than ESP and AH.
pub fn algorithm(proto: u8, attributes: &Attributes) -> Result<(Algorithm, Keymat), Refusal> {
    let (algorithm, key) = find(proto, attributes)?;
    Ok((algorithm, Keymat::new(key.concat())))
}

/// The algorithm, and the parts of its key where they are.
///
/// # Errors
/// As [`algorithm`].
pub(crate) fn find(proto: u8, attributes: &Attributes) -> Result<Found<'_>, Refusal> {
    match proto {
        sa::ESP => esp(attributes),
        sa::AH => ah(attributes),
        _ => Err(Refusal::new(
            Errno::EPROTONOSUPPORT,
            "SAs of ESP and AH; IPComp and Mobile IPv6 are not supported",
        )),
    }
}

/// The attributes that say an algorithm and its key, as IKE daemons write them; nothing for an
/// algorithm that the kernel has no name for, or a key of another length.
#[must_use]
pub fn attributes(algorithm: Algorithm, keymat: &Keymat) -> Option<Vec<Attribute>> {
    if keymat.len() != algorithm.keymat_len() {
        return None;
    }
    let keyword = algorithm.keyword();
    let key = |octets: &[u8]| Key::new(octets.into());
    let icv_bits = 8 * u32::try_from(algorithm.icv_len()).ok()?;
    let combined = match keyword {
        "chacha20poly1305" => Some("rfc7539esp(chacha20,poly1305)"),
        _ if keyword.ends_with("iiv") => return None,
        _ if keyword.ends_with("gmac") => Some("rfc4543(gcm(aes))"),
        _ if keyword.contains("gcm") => Some("rfc4106(gcm(aes))"),
        _ => None,
    };
    if let Some(name) = combined {
        // The kernel has no such algorithm for AH.
        let is_esp = algorithm.protocol() == Protocol::Esp;
        let aead = Aead { name: Name::new(name)?, icv_bits, key: key(keymat.as_bytes()) };
        return is_esp.then(|| vec![Attribute::AlgAead(aead)]);
    }
    let (cipher, integrity) = keymat.as_bytes().split_at(algorithm.key_len());
    let hash = keyword.rsplit('-').next()?;
    let name = Name::new(&format!("hmac({hash})"))?;
    let auth = Auth { name, trunc_bits: icv_bits, key: key(integrity) };
    let mut list = vec![Attribute::AlgAuthTrunc(auth)];
    if algorithm.protocol() == Protocol::Esp {
        let name = if cipher.is_empty() { "ecb(cipher_null)" } else { "cbc(aes)" };
        list.push(Attribute::AlgCrypt(Cipher { name: Name::new(name)?, key: key(cipher) }));
    }
    Some(list)
}

fn esp(attributes: &Attributes) -> Result<Found<'_>, Refusal> {
    if let Some(Aead { name, icv_bits, key }) = attributes.alg_aead() {
        let key = key.octets();
        return Ok((combined(name.as_str(), *icv_bits, key.len())?, [key, &[]]));
    }
    let cipher = attributes.alg_crypt();
    let name = cipher.map_or("ecb(cipher_null)", |cipher| cipher.name.as_str());
    let key = cipher.map_or(&[][..], |cipher| cipher.key.octets());
    let Some(auth) = integrity(attributes) else {
        return Err(unsupported("encryption without integrity"));
    };
    let cipher = match (name, key.len()) {
        ("ecb(cipher_null)" | "cipher_null", 0) => "null",
        ("cbc(aes)" | "aes", 16) => "aes128",
        ("cbc(aes)" | "aes", 24) => "aes192",
        ("cbc(aes)" | "aes", 32) => "aes256",
        ("cbc(aes)" | "aes" | "ecb(cipher_null)" | "cipher_null", _) => return Err(key_len()),
        _ => return Err(unsupported("this cipher")),
    };
    let (hash, hash_key) = sha2(&auth)?;
    let is_it = |keyword: &str| keyword.split_once('-') == Some((cipher, hash));
    Ok((by_keyword(Protocol::Esp, is_it)?, [key, hash_key]))
}

fn ah(attributes: &Attributes) -> Result<Found<'_>, Refusal> {
    let auth = integrity(attributes).ok_or_else(|| unsupported("AH without integrity"))?;
    let (hash, key) = sha2(&auth)?;
    Ok((by_keyword(Protocol::Ah, |keyword| keyword == hash)?, [key, &[]]))
}

/// A combined algorithm by name, bits of its ICV, and octets of key and salt.
fn combined(name: &str, icv_bits: u32, key_len: usize) -> Result<Algorithm, Refusal> {
    use Algorithm::*;
    let of_128_192_256 = match (name, icv_bits) {
        ("rfc4106(gcm(aes))", 128) => [Some(Aes128Gcm16), Some(Aes192Gcm16), Some(Aes256Gcm16)],
        ("rfc4106(gcm(aes))", 96) => [Some(Aes128Gcm12), Some(Aes192Gcm12), Some(Aes256Gcm12)],
        ("rfc4106(gcm(aes))", 64) => [Some(Aes128Gcm8), Some(Aes192Gcm8), Some(Aes256Gcm8)],
        ("rfc4543(gcm(aes))", 128) => [Some(Aes128Gmac), Some(Aes192Gmac), Some(Aes256Gmac)],
        ("rfc7539esp(chacha20,poly1305)", 128) => [None, None, Some(ChaCha20Poly1305)],
        ("rfc4106(gcm(aes))" | "rfc4543(gcm(aes))" | "rfc7539esp(chacha20,poly1305)", _) => {
            return Err(Refusal::new(Errno::EINVAL, "an ICV of 64, 96 or 128 bits"));
        }
        _ => return Err(unsupported("this combined algorithm")),
    };
    let size = key_len.checked_sub(SALT_LEN);
    let size = size.and_then(|octets| [16, 24, 32].iter().position(|&size| size == octets));
    size.and_then(|size| of_128_192_256[size]).ok_or_else(self::key_len)
}

/// What integrity is asked for: the last attribute of the newer kind, or else of the older.
fn integrity(attributes: &Attributes) -> Option<Integrity<'_>> {
    if let Some(Auth { name, trunc_bits, key }) = attributes.alg_auth_trunc() {
        let default = || default_truncation(*name).unwrap_or(0);
        let trunc_bits = if *trunc_bits == 0 { default() } else { *trunc_bits };
        return Some(Integrity { name: *name, trunc_bits, key });
    }
    let Cipher { name, key } = attributes.alg_auth()?;
    Some(Integrity { name: *name, trunc_bits: default_truncation(*name)?, key })
}

fn default_truncation(name: Name) -> Option<u32> {
    let canonical = canonical(name)?;
    let found = DEFAULT_TRUNCATIONS.into_iter().find(|(name, _)| *name == canonical);
    found.map(|(_, bits)| bits)
}

fn canonical(name: Name) -> Option<&'static str> {
    INTEGRITY.into_iter().find(|(alias, _)| *alias == name.as_str()).map(|(_, name)| name)
}

/// strongSwan's keyword of an integrity algorithm, and its key.
fn sha2<'a>(auth: &Integrity<'a>) -> Result<(&'static str, &'a [u8]), Refusal> {
    let (keyword, key_len, bits) = match canonical(auth.name) {
        Some("hmac(sha256)") => ("sha256", 32, 128),
        Some("hmac(sha384)") => ("sha384", 48, 192),
        Some("hmac(sha512)") => ("sha512", 64, 256),
        _ => return Err(unsupported("this integrity algorithm")),
    };
    if usize::try_from(auth.trunc_bits).is_ok_and(|bits| bits > 8 * key_len) {
        return Err(Refusal::new(Errno::EINVAL, "an ICV of at most the bits of the hash"));
    }
    if auth.trunc_bits != bits {
        return Err(unsupported("an ICV of this length"));
    }
    match auth.key.octets() {
        key if key.len() == key_len => Ok((keyword, key)),
        _ => Err(self::key_len()),
    }
}

fn by_keyword(protocol: Protocol, is_it: impl Fn(&str) -> bool) -> Result<Algorithm, Refusal> {
    let mut all = Algorithm::all_of(protocol).iter().copied();
    let found = all.find(|algorithm| is_it(algorithm.keyword()));
    found.ok_or_else(|| unsupported("this combination of algorithms"))
}

fn unsupported(what: &'static str) -> Refusal {
    Refusal::unsupported_algorithm(what)
}

fn key_len() -> Refusal {
    Refusal::new(Errno::EINVAL, "a key of the algorithm's length")
}

/// What a listing says of integrity: both kinds of attribute, as the kernel writes them.
pub(crate) fn listed_integrity(attributes: &Attributes) -> Vec<Attribute> {
    let Some(Integrity { name, trunc_bits, key }) = integrity(attributes) else {
        return Vec::new();
    };
    let name = canonical(name).and_then(Name::new).unwrap_or(name);
    let older = Cipher { name, key: key.clone() };
    vec![
        Attribute::AlgAuth(older),
        Attribute::AlgAuthTrunc(Auth { name, trunc_bits, key: key.clone() }),
    ]
}

#[cfg(test)]
mod tests {
    use culvert_xfrm::Secret;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn key(octets: usize) -> Key {
        Key::new(Secret::new((0..octets).map(|n| n.to_le_bytes()[0]).collect()))
    }

    fn aead(text: &str, icv_bits: u32, octets: usize) -> Attributes {
        Attributes(vec![Attribute::AlgAead(Aead { name: name(text), icv_bits, key: key(octets) })])
    }

    fn pair(cipher: &str, octets: usize, hash: &str, trunc_bits: u32, len: usize) -> Attributes {
        Attributes(vec![
            Attribute::AlgAuthTrunc(Auth { name: name(hash), trunc_bits, key: key(len) }),
            Attribute::AlgCrypt(Cipher { name: name(cipher), key: key(octets) }),
        ])
    }

    fn found(proto: u8, attributes: &Attributes) -> Result<String, Errno> {
        let found = algorithm(proto, attributes);
        found.map(|(algorithm, _)| algorithm.to_string()).map_err(|refusal| refusal.errno)
    }

    /// Every algorithm that has a name in the kernel is found by it, with its aliases.
    #[test]
    fn names_of_the_kernel() {
        for (bits, octets) in [(128, 20), (192, 28), (256, 36)] {
            for icv in [8, 12, 16] {
                let gcm = aead("rfc4106(gcm(aes))", icv * 8, octets);
                assert_eq!(found(50, &gcm), Ok(format!("aes{bits}gcm{icv}")));
            }
            let gmac = aead("rfc4543(gcm(aes))", 128, octets);
            assert_eq!(found(50, &gmac), Ok(format!("aes{bits}gmac")));
        }
        let chacha = aead("rfc7539esp(chacha20,poly1305)", 128, 36);
        assert_eq!(found(50, &chacha), Ok("chacha20poly1305".to_owned()));
        for (hash, trunc, len) in [("256", 128, 32), ("384", 192, 48), ("512", 256, 64)] {
            for alias in [format!("hmac(sha{hash})"), format!("sha{hash}")] {
                for (octets, bits) in [(16, 128), (24, 192), (32, 256)] {
                    for cipher in ["cbc(aes)", "aes"] {
                        let both = pair(cipher, octets, &alias, trunc, len);
                        assert_eq!(found(50, &both), Ok(format!("aes{bits}-sha{hash}")));
                    }
                }
                let null = pair("ecb(cipher_null)", 0, &alias, trunc, len);
                assert_eq!(found(50, &null), Ok(format!("null-sha{hash}")));
                let alone = Attributes(null.0[..1].to_vec());
                assert_eq!(found(51, &alone), Ok(format!("sha{hash}")));
            }
        }
    }

    /// Every algorithm that has a name in the kernel is written as one that is found again, with
    /// its key; others, and keys of another length, are not written.
    #[test]
    fn what_is_written_is_found_again() {
        let mut written = 0;
        for of in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
            let keymat = Keymat::new((0..of.keymat_len()).map(|n| n.to_le_bytes()[0]).collect());
            let proto = if of.protocol() == Protocol::Ah { 51 } else { 50 };
            assert_eq!(super::attributes(of, &Keymat::new(vec![0; 3])), None);
            let is_there =
                !of.keyword().ends_with("iiv") && (proto == 50 || !of.keyword().ends_with("gmac"));
            let list = super::attributes(of, &keymat);
            assert_eq!(list.is_some(), is_there, "{of}");
            if let Some(list) = list {
                assert_eq!(algorithm(proto, &Attributes(list)), Ok((of, keymat)));
                written += 1;
            }
        }
        assert_eq!(written, 28);
    }

    /// The key of a pair is that of the cipher, then that of the hash.
    #[test]
    fn keys_are_joined() {
        let (_, keymat) = algorithm(50, &pair("aes", 16, "sha256", 128, 32)).unwrap();
        assert_eq!(keymat.as_bytes(), [key(16).octets(), key(32).octets()].concat());
    }

    /// What is not there is ENOSYS, a key of another length EINVAL, as in the kernel.
    #[test]
    fn what_is_not_there() {
        let enosys = Err(Errno::ENOSYS);
        assert_eq!(found(50, &aead("rfc4309(ccm(aes))", 128, 19)), enosys);
        assert_eq!(found(50, &pair("des3_ede", 24, "sha256", 128, 32)), enosys);
        assert_eq!(found(50, &pair("aes", 16, "md5", 96, 16)), enosys);
        assert_eq!(found(50, &pair("aes", 16, "sha256", 96, 32)), enosys);
        assert_eq!(
            found(50, &Attributes(pair("aes", 16, "sha256", 128, 32).0[1..].into())),
            enosys
        );
        let old = Attribute::AlgAuth(Cipher { name: name("sha256"), key: key(32) });
        assert_eq!(found(51, &Attributes(vec![old])), enosys, "96 bits");
        assert_eq!(found(50, &aead("rfc4106(gcm(aes))", 128, 16)), Err(Errno::EINVAL));
        assert_eq!(found(50, &pair("aes", 17, "sha256", 128, 32)), Err(Errno::EINVAL));
        assert_eq!(found(108, &Attributes::default()), Err(Errno::EPROTONOSUPPORT));
    }
}
