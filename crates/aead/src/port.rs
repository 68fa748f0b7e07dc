//! The port: what the engine asks of whoever does the cryptography.
//!
//! A call takes a batch of packets of any SAs, because that is what a fast provider can use: it may
//! prefetch key contexts, and work on several packets at once. It is answered with one [`Status`]
//! per packet, in order. Providers are types, chosen at compile time; nothing here is `dyn`.
//!
//! # Shape of an ESP packet
//!
//! ```text
//!  0     4     8      text_at                     len - icv_len   len
//!  | SPI | seq |  IV  |  text ...                 |     ICV      |
//! ```
//!
//! IV and ICV have the lengths of the [`Algorithm`], which may be none for the IV. The text is what
//! ESP encrypts: payload, padding, pad length, next header. A provider neither knows nor checks
//! that inner shape, nor sequence numbers, nor that an IV is fresh: that is the SA's duty (and what
//! [`Audit`](crate::Audit) checks in tests). With extended sequence numbers `high` is the half that
//! is not sent.
//!
//! | method | IV | covered by the ICV, in this order |
//! |---|---|---|
//! | GCM (RFC 4106), ChaCha20-Poly1305 (RFC 7634) | the caller's | SPI, high, seq; the text |
//! | the same with implicit IV (RFC 8750) | none | SPI, high, seq; the text |
//! | GMAC (RFC 4543) | the caller's | SPI, high, seq, IV, text |
//! | CBC with HMAC (RFC 3602, 4868) | the provider's | SPI, seq, IV, text, high |
//! | HMAC alone | none | SPI, seq, text, high |
//!
//! The nonce of the first three is the salt, then the IV, or in its place the 64-bit sequence
//! number. The IV of CBC must not be predictable (RFC 3602 section 3): it is that number, encrypted
//! under a key that is derived from all of the SA's KEYMAT and used for nothing else. As
//! encryption is a permutation, all IVs of a key differ while its sequence numbers do, and there
//! is no random number to run out of. Bits of [`Keymat::with_iv_base`] may stand beside the number.
//!
//! # Shape of an AH packet
//!
//! ```text
//!  header                 | next | len | 0 | SPI | seq | ICV field   | padding | payload ...
//!  0 to the AH header       0      1     2   4     8     12
//! ```
//!
//! The ICV field is IV and ICV for GMAC, and the ICV otherwise; as many octets of padding follow as
//! the length says. Covered are the header in front, AH with zeroes in the ICV field, the padding
//! as it is, the payload, and the high half (RFC 4302 section 3.3.3).
//!
//! # Invariants
//!
//! - A packet reported [`Status::Authentic`] verified under its own key, IV and sequence number;
//!   the [`Verified`] inside can be made by the providers of this crate only.
//! - No plaintext of a forged packet is ever seen: when a call returns, its buffer is exactly what
//!   it was, to the last octet. A provider verifies before it decrypts, or puts back what it
//!   decrypted. So the caller may try again with another high half (RFC 4303 appendix A3).
//! - No bytes of a packet make a provider panic on [`Aead::open`] and [`Aead::open_ah`].
//! - ICVs are compared in a time that depends on lengths only.

use thiserror::Error;

use crate::algorithm::Algorithm;
use crate::keymat::Keymat;

/// Where the low half of the sequence number stands, in octets from the SPI.
pub const SEQ_AT: usize = 4;
/// Where the IV stands.
pub const IV_AT: usize = 8;
/// Where the text starts, for AES-GCM with explicit IV. For others [`Algorithm::text_at`].
pub const TEXT_AT: usize = 16;
/// Octets of ICV behind the text, for AES-GCM with the longest. For others [`Algorithm::icv_len`].
pub const ICV_LEN: usize = 16;
/// Octets of a packet with empty text, for the same. For others [`Algorithm::min_esp_len`].
pub const MIN_ESP_LEN: usize = TEXT_AT + ICV_LEN;

/// One ESP packet for seal or open. `esp` runs from the first octet of the SPI to the last of the
/// ICV: SPI(4) seq(4) IV([`Algorithm::iv_len`]) text(n) ICV([`Algorithm::icv_len`]).
#[derive(Debug)]
pub struct Op<'a, K> {
    /// The context of the SA.
    pub key: &'a K,
    /// High half of the sequence number when the SA uses extended ones: authenticated, not sent
    /// (RFC 4303 section 2.2.1).
    pub esn_high: Option<u32>,
    /// The packet, sealed or opened in place.
    pub esp: &'a mut [u8],
}

/// One AH packet for seal or open, in two pieces, as the first is a copy.
#[derive(Debug)]
pub struct AhOp<'a, K> {
    /// The context of the SA.
    pub key: &'a K,
    /// High half of the sequence number when the SA uses extended ones: authenticated, not sent
    /// (RFC 4302 section 2.5.1).
    pub esn_high: Option<u32>,
    /// The IP header and the extension headers up to AH, their mutable fields already zero or as
    /// the receiver will see them (RFC 4302 section 3.3.3.1).
    pub header: &'a [u8],
    /// The packet from the first octet of the AH header to its end. Of it only the ICV field is
    /// changed, and that only by sealing.
    pub ah: &'a mut [u8],
}

/// Proof that a packet verified. Only providers in this crate can make one; it can be moved, not
/// copied.
#[derive(Debug)]
pub struct Verified(());

impl Verified {
    pub(crate) const fn new() -> Verified {
        Verified(())
    }
}

/// What became of one packet.
#[derive(Debug, Default)]
#[must_use]
pub enum Status {
    /// Not processed yet: what a caller fills its array with.
    #[default]
    Pending,
    /// Verified; the text is plaintext now.
    Authentic(Verified),
    /// Not from who holds the key, or damaged, or of a length that cannot be.
    Forged,
}

impl Status {
    /// Of a packet that was found authentic, or was not.
    #[inline(always)]
    pub(crate) fn of(is_authentic: bool) -> Status {
        match is_authentic {
            true => Status::Authentic(Verified::new()),
            false => Status::Forged,
        }
    }
}

/// Key material of a length that the algorithm does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "key for {algorithm}: expected {expected} octets ({}), got {given}", .algorithm.keymat_parts()
)]
pub struct KeyError {
    /// For which algorithm.
    pub algorithm: Algorithm,
    /// Octets of KEYMAT it takes.
    pub expected: usize,
    /// Octets that were given.
    pub given: usize,
}

/// A provider of the algorithms of ESP and AH.
pub trait Aead {
    /// The context of one SA: key schedules, hash keys, salt. Opaque, wiped on drop, and its
    /// `Debug` shows nothing secret.
    type Key: Send + Sync + 'static;

    /// What reports and benchmarks call it.
    fn name(&self) -> &'static str;

    /// Expands `keymat` (key, then that of integrity, then salt) for `algorithm`.
    ///
    /// # Errors
    /// [`KeyError`] when the length is not [`Algorithm::keymat_len`].
    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<Self::Key, KeyError>;

    /// Asks for the parts of `key` that a packet of `len` octets needs to be fetched into the
    /// cache. A hint: it may do nothing.
    fn prefetch(&self, key: &Self::Key, len: usize);

    /// Encrypts the text of each packet in place and writes its ICV, and before that the IV of
    /// CBC, in order (RFC 4303 section 3.3.2: encrypt, then ICV). The keys may be of different
    /// algorithms of ESP.
    ///
    /// # Panics
    /// When a packet is shorter than [`Algorithm::min_esp_len`], the text of CBC is not whole
    /// blocks, or a key is for AH: our own error, never a peer's.
    fn seal(&mut self, ops: &mut [Op<'_, Self::Key>]);

    /// Verifies and decrypts each packet in place; `statuses[i]` is the answer for `ops[i]`. The
    /// buffer of a forged packet is left exactly as it was. A packet shorter than
    /// [`Algorithm::min_esp_len`], or with a text of CBC that is not whole blocks, is forged.
    /// Statuses beyond the packets are left as they were.
    ///
    /// # Panics
    /// When `statuses` is shorter than `ops` or a key is for AH: our own error, never a peer's.
    fn open(&mut self, ops: &mut [Op<'_, Self::Key>], statuses: &mut [Status]);

    /// Writes the ICV field of an AH packet, of which all else is there, padding included: for
    /// GMAC the 64-bit sequence number, with [`Keymat::with_iv_base`], as IV, then the ICV; for
    /// HMAC the ICV.
    ///
    /// # Panics
    /// When the length field says less than there is in the packet or needed, or more padding than
    /// alignment asks for, or the key is for ESP: our own error, never a peer's.
    fn seal_ah(&mut self, op: AhOp<'_, Self::Key>);

    /// Verifies an AH packet, which is not changed in any case. Forged too is a packet whose length
    /// field says more than there is, less than the ICV needs, or more padding than alignment to 4
    /// or 8 octets asks for (RFC 4302 section 3.3.3.2.1).
    ///
    /// # Panics
    /// When the key is for ESP: our own error, never a peer's.
    fn open_ah(&mut self, op: AhOp<'_, Self::Key>) -> Status;

    /// Seals with any AAD and a whole nonce, ignoring the salt of `key`. `text_and_icv` is the
    /// plaintext, then room for the ICV. For HMAC, and for GMAC, which has a nonce, AAD and text
    /// are covered as one string. For conformance tests: neither ESP nor AH needs it.
    ///
    /// # Panics
    /// When `text_and_icv` has no room for the ICV, and for CBC, whose nonce is no such thing.
    fn seal_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    );

    /// Opens what [`Aead::seal_general`] sealed: true when authentic, and then `text_and_icv` holds
    /// plaintext, then ICV. When false, it is as it was. For conformance tests.
    ///
    /// # Panics
    /// For CBC, whose nonce is no such thing.
    #[must_use]
    fn open_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool;
}

/// The AAD of a packet: 8 octets, or 12 with an extended sequence number. Made on the stack.
pub(crate) struct Aad {
    octets: [u8; 12],
    len: usize,
}

impl Aad {
    /// SPI and sequence number, which stand first in `header`, the latter in full (RFC 4106
    /// section 5).
    #[inline(always)]
    pub(crate) fn of<const N: usize>(header: &[u8; N], esn_high: Option<u32>) -> Aad {
        const { assert!(N >= IV_AT) };
        let mut octets = [0; 12];
        octets[..SEQ_AT].copy_from_slice(&header[..SEQ_AT]);
        let len = match esn_high {
            None => {
                octets[SEQ_AT..IV_AT].copy_from_slice(&header[SEQ_AT..IV_AT]);
                8
            }
            Some(high) => {
                octets[4..8].copy_from_slice(&high.to_be_bytes());
                octets[8..].copy_from_slice(&header[SEQ_AT..IV_AT]);
                12
            }
        };
        Aad { octets, len }
    }

    #[inline(always)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The nonce of a packet: salt, then the IV on the wire (RFC 4106 section 4).
#[inline(always)]
pub(crate) fn nonce_of(salt: [u8; 4], header: &[u8; TEXT_AT]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(&header[IV_AT..TEXT_AT]);
    nonce
}

/// Header, text and ICV of a packet; `None` when it is shorter than [`MIN_ESP_LEN`].
#[inline(always)]
pub(crate) fn split(esp: &mut [u8]) -> Option<(&mut [u8; TEXT_AT], &mut [u8], &mut [u8; ICV_LEN])> {
    let (header, rest) = esp.split_first_chunk_mut::<TEXT_AT>()?;
    let (text, icv) = rest.split_last_chunk_mut::<ICV_LEN>()?;
    Some((header, text, icv))
}
