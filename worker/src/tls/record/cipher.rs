//! Sealing and opening of single records: nonces, associated data, padding.
//!
//! No state but the key: the caller counts. Neither key nor plaintext is ever printed.

use std::fmt;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::derive::{BadSecret, NONCE, key_of};
use super::{
    EXPLICIT_NONCE, Framed, HEADER, Kind, MOST_PLAINTEXT, TAG, VERSION, Violation, frame,
    outer_kind,
};
use crate::tls::keys::{Protocol, Secret, Suite, Version};

/// What seals or opens the records of one direction, under one secret.
pub(crate) struct Cipher {
    protocol: Protocol,
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE]>,
}

/// A record that was authentic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    pub(crate) kind: Kind,
    /// Without padding.
    pub(crate) plaintext: &'a [u8],
}

/// More than [`MOST_PLAINTEXT`] for one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record holds at most {MOST_PLAINTEXT} bytes")]
pub(crate) struct TooLong;

// === impl Cipher ===

impl Cipher {
    pub(crate) fn new(protocol: Protocol, secret: &Secret) -> Result<Self, BadSecret> {
        let algorithm = match protocol.suite {
            Suite::Aes128Gcm => &aead::AES_128_GCM,
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let keys = key_of(protocol, secret)?;
        let key = UnboundKey::new(algorithm, keys.key()).map_err(|_| BadSecret)?;
        Ok(Self { protocol, key: LessSafeKey::new(key), iv: Zeroizing::new(*keys.iv()) })
    }

    /// Length of one record of so much plaintext, its header included.
    #[cfg(test)]
    pub(crate) const fn sealed_len(protocol: Protocol, plaintext_len: usize) -> usize {
        HEADER + protocol.overhead() + plaintext_len
    }

    /// Appends one record, without padding. On failure `out` is as it was.
    pub(crate) fn seal(
        &self,
        seq: u64,
        kind: Kind,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        if plaintext.len() > MOST_PLAINTEXT {
            return Err(TooLong);
        }
        let fragment = plaintext.len() + self.protocol.overhead();
        let [high, low] = u16::try_from(fragment).map_err(|_| TooLong)?.to_be_bytes();
        let outer = match self.protocol.version {
            Version::Tls12 => kind,
            Version::Tls13 => Kind::Data,
        };
        let [major, minor] = VERSION;
        let header = [outer.code(), major, minor, high, low];
        let nonce = self.nonce(seq);
        let begin = out.len();
        out.reserve(HEADER + fragment);
        out.extend_from_slice(&header);
        if self.protocol.has_explicit_nonce() {
            out.extend(nonce.iter().skip(NONCE - EXPLICIT_NONCE));
        }
        let sealed_from = out.len();
        out.extend_from_slice(plaintext);
        if self.protocol.version == Version::Tls13 {
            out.push(kind.code());
        }
        let in_place = out.get_mut(sealed_from..).unwrap_or_default();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let associated = Associated::new(self.protocol, seq, header, plaintext.len());
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(associated), in_place);
        let Ok(tag) = tag else {
            // ring fails for lengths alone, which are far above ours. Plaintext must not stay behind.
            out.truncate(begin);
            return Err(TooLong);
        };
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens one whole record in place. After a failure its bytes are worth nothing.
    pub(crate) fn open<'a>(&self, seq: u64, record: &'a mut [u8]) -> Result<Opened<'a>, Violation> {
        let whole = Framed::Whole { len: record.len() };
        if frame(self.protocol, record)? != whole {
            return Err(Violation::NotOne);
        }
        let (header, fragment) =
            record.split_first_chunk_mut::<HEADER>().ok_or(Violation::NotOne)?;
        let header = *header;
        let plaintext_len =
            fragment.len().checked_sub(self.protocol.overhead()).ok_or(Violation::TooShort)?;
        let associated = Associated::new(self.protocol, seq, header, plaintext_len);
        let (nonce, sealed) = if self.protocol.has_explicit_nonce() {
            let (explicit, sealed) =
                fragment.split_first_chunk_mut::<EXPLICIT_NONCE>().ok_or(Violation::TooShort)?;
            (self.salted(*explicit), sealed)
        } else {
            (self.nonce(seq), fragment)
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plaintext: &[u8] = self
            .key
            .open_in_place(nonce, Aad::from(associated), sealed)
            .map_err(|_| Violation::BadRecordMac)?;
        let [outer, ..] = header;
        let opened = match self.protocol.version {
            Version::Tls12 => Opened { kind: outer_kind(self.protocol, outer)?, plaintext },
            Version::Tls13 => unpadded(plaintext)?,
        };
        if opened.plaintext.len() > MOST_PLAINTEXT {
            return Err(Violation::RecordOverflow);
        }
        Ok(opened)
    }

    /// The base, mixed with the number (RFC 8446 section 5.3, RFC 7905 section 2). For TLS 1.2 with GCM, which leaves
    /// the choice to us (RFC 5288 section 3), rustls does the same, so numbers that it has used are not used again.
    fn nonce(&self, seq: u64) -> [u8; NONCE] {
        let mut nonce = *self.iv;
        for (byte, of_seq) in nonce.iter_mut().rev().zip(seq.to_be_bytes().iter().rev()) {
            *byte ^= of_seq;
        }
        nonce
    }

    /// The nonce of a record that carries the explicit part of it.
    fn salted(&self, explicit: [u8; EXPLICIT_NONCE]) -> [u8; NONCE] {
        let mut nonce = *self.iv;
        if let Some(end) = nonce.last_chunk_mut() {
            *end = explicit;
        }
        nonce
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// Takes the kind and the padding off (RFC 8446 section 5.4).
fn unpadded(inner: &[u8]) -> Result<Opened<'_>, Violation> {
    // Padding counts too.
    if inner.len() > MOST_PLAINTEXT + 1 {
        return Err(Violation::RecordOverflow);
    }
    let end = inner.iter().rposition(|&byte| byte != 0).ok_or(Violation::PaddingOnly)?;
    let (plaintext, rest) = inner.split_at_checked(end).ok_or(Violation::PaddingOnly)?;
    let kind = Kind::from_code(*rest.first().ok_or(Violation::PaddingOnly)?)?;
    Ok(Opened { kind, plaintext })
}

// === impl Opened ===

impl fmt::Debug for Opened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("kind", &self.kind)
            .field("len", &self.plaintext.len())
            .finish_non_exhaustive()
    }
}

/// What is authentic beside the plaintext.
enum Associated {
    /// Number, type, version, length of the plaintext (RFC 5246 section 6.2.3.3).
    Tls12([u8; 13]),
    /// The header as it is sent (RFC 8446 section 5.2).
    Tls13([u8; HEADER]),
}

// === impl Associated ===

impl Associated {
    fn new(protocol: Protocol, seq: u64, header: [u8; HEADER], plaintext_len: usize) -> Self {
        match protocol.version {
            Version::Tls13 => Self::Tls13(header),
            Version::Tls12 => {
                let [outer, major, minor, ..] = header;
                // A fragment has at most 2^14 + 2048 bytes, so nothing saturates.
                let len = u16::try_from(plaintext_len).unwrap_or(u16::MAX);
                let seq = seq.to_be_bytes().into_iter();
                let mut bytes = [0; 13];
                for (to, from) in
                    bytes.iter_mut().zip(seq.chain([outer, major, minor]).chain(len.to_be_bytes()))
                {
                    *to = from;
                }
                Self::Tls12(bytes)
            }
        }
    }
}

impl AsRef<[u8]> for Associated {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Tls12(bytes) => bytes,
            Self::Tls13(bytes) => bytes,
        }
    }
}

const _: () = {
    // What we count with is what ring does.
    assert!(TAG == aead::MAX_TAG_LEN);
    assert!(NONCE == aead::NONCE_LEN);
};
