//! The port: what the engine asks of whoever does the cryptography.
//!
//! A call takes a batch of packets of any SAs, because that is what a fast provider can use: it may
//! prefetch key contexts, and work on several packets at once. It is answered with one [`Status`]
//! per packet, in order. Providers are types, chosen at compile time; nothing here is `dyn`.
//!
//! # Shape of a packet
//!
//! ```text
//!  0     4     8         16                    len-16        len
//!  | SPI | seq |   IV    |  text ...            |     ICV     |
//!  |--- AAD ---|- nonce -|- encrypted in place -|
//! ```
//!
//! nonce = salt ‖ IV, AAD = SPI ‖ seq, or SPI ‖ high half ‖ seq with extended sequence numbers
//! (RFC 4106 sections 4 and 5). The text is what ESP encrypts: payload, padding, pad length, next
//! header. A provider neither knows nor checks that inner shape, nor sequence numbers, nor that an
//! IV is fresh: that is the SA's duty (and what [`Audit`](crate::Audit) checks in tests).
//!
//! # Invariants
//!
//! - A packet reported [`Status::Authentic`] verified under its own key, IV and AAD; the
//!   [`Verified`] inside can be made by the providers of this crate only.
//! - The buffer of a forged packet never holds plaintext, not even for a moment that the caller
//!   could observe: it holds the ciphertext as it was, or zeroes.
//! - No bytes of a packet make a provider panic on [`Aead::open`].

use thiserror::Error;

use crate::algorithm::Algorithm;
use crate::keymat::Keymat;

/// Where the low half of the sequence number stands, in octets from the SPI.
pub const SEQ_AT: usize = 4;
/// Where the IV stands.
pub const IV_AT: usize = 8;
/// Where the text starts.
pub const TEXT_AT: usize = 16;
/// Octets of ICV behind the text.
pub const ICV_LEN: usize = 16;
/// Octets of a packet with empty text: less cannot be authentic.
pub const MIN_ESP_LEN: usize = TEXT_AT + ICV_LEN;

/// One packet for seal or open. `esp` runs from the first octet of the SPI to the last of the
/// ICV: SPI(4) seq(4) IV(8) text(n) ICV(16).
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
    /// Not from who holds the key, or damaged, or too short.
    Forged,
}

/// Key material of a length that the algorithm does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("key for {algorithm}: expected {expected} octets (the key, then 4 of salt), got {given}")]
pub struct KeyError {
    /// For which algorithm.
    pub algorithm: Algorithm,
    /// Octets of key and salt it takes.
    pub expected: usize,
    /// Octets that were given.
    pub given: usize,
}

/// A provider of AES-GCM for ESP.
pub trait Aead {
    /// The context of one SA: key schedule, hash key, salt. Opaque, wiped on drop, and its `Debug`
    /// shows nothing secret.
    type Key: Send + Sync + 'static;

    /// What reports and benchmarks call it.
    fn name(&self) -> &'static str;

    /// Expands `keymat` (key, then salt) for `algorithm`.
    ///
    /// # Errors
    /// [`KeyError`] when the length is not [`Algorithm::keymat_len`].
    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<Self::Key, KeyError>;

    /// Asks for the parts of `key` that a packet of `len` octets needs to be fetched into the
    /// cache. A hint: it may do nothing.
    fn prefetch(&self, key: &Self::Key, len: usize);

    /// Encrypts the text of each packet in place and writes its ICV, in order (RFC 4106 section 5;
    /// the order of RFC 4303 section 3.3.2: encrypt, then ICV).
    ///
    /// # Panics
    /// When a packet is shorter than [`MIN_ESP_LEN`]: our own error, never a peer's.
    fn seal(&mut self, ops: &mut [Op<'_, Self::Key>]);

    /// Verifies and decrypts each packet in place; `statuses[i]` is the answer for `ops[i]`. A
    /// forged packet's buffer holds ciphertext or zeroes, never plaintext. A packet shorter than
    /// [`MIN_ESP_LEN`] is forged. Statuses beyond the packets are left as they were.
    ///
    /// # Panics
    /// When `statuses` is shorter than `ops`: our own error, never a peer's.
    fn open(&mut self, ops: &mut [Op<'_, Self::Key>], statuses: &mut [Status]);

    /// Seals with any AAD and a whole nonce, ignoring the salt of `key`. `text_and_icv` is the
    /// plaintext, then 16 octets of room for the ICV. For conformance tests: ESP never needs it.
    ///
    /// # Panics
    /// When `text_and_icv` has no room for the ICV.
    fn seal_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    );

    /// Opens with any AAD and a whole nonce, ignoring the salt of `key`: true when authentic, and
    /// then `text_and_icv` holds plaintext, then ICV. When false, as in [`Aead::open`].
    /// For conformance tests: ESP never needs it.
    #[must_use]
    fn open_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool;
}

/// A key that holds a provider's context `T`, perhaps among those of other providers: so that a
/// provider can work on the packets of a provider that chose it, without a copy of the batch.
pub(crate) trait Holds<T> {
    /// The context.
    ///
    /// # Panics
    /// When it is another provider's: our own error.
    fn held(&self) -> &T;
}

impl<T> Holds<T> for T {
    #[inline(always)]
    fn held(&self) -> &T {
        self
    }
}

/// The AAD of a packet: 8 octets, or 12 with an extended sequence number. Made on the stack.
pub(crate) struct Aad {
    octets: [u8; 12],
    len: usize,
}

impl Aad {
    /// From the first [`MIN_ESP_LEN`] or more octets of `esp` (RFC 4106 section 5).
    #[inline(always)]
    pub(crate) fn of(header: &[u8; TEXT_AT], esn_high: Option<u32>) -> Aad {
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
