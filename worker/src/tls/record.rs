//! The record layer of a session that rustls has let go: sealing, opening, framing, and what a record says.
//!
//! All is a function of its arguments. No IO, no clock, no chance: a successor must seal the very bytes that a dead
//! process may have sent a part of, so the same secret, number, kind and plaintext always give the same record.
//! Sequence numbers are the caller's. A number must never seal two different plaintexts under one secret.

mod cipher;
mod derive;
mod message;
#[cfg(test)]
mod tests;
mod violation;

use super::keys::{Protocol, Suite, Version};

pub(crate) use cipher::{Cipher, Opened};
pub(crate) use derive::{key_of, next_secret};
pub(crate) use message::{Message, Skip, close_notify, fatal_alert, key_update, read};
pub(crate) use violation::Violation;

/// Bytes ahead of a record's fragment: type, version, length (RFC 8446 section 5.1).
pub(crate) const HEADER: usize = 5;

/// Most bytes of plaintext in one record (RFC 8446 section 5.1, RFC 5246 section 6.2.1).
pub(crate) const MOST_PLAINTEXT: usize = 16_384;

/// Of the ciphers we know, all have tags of this length, in bytes.
const TAG: usize = 16;

/// The part of a nonce that TLS 1.2 sends ahead of a GCM record's ciphertext (RFC 5288 section 3).
const EXPLICIT_NONCE: usize = 8;

/// What both versions put into each record's header once a session is up (RFC 8446 section 5.2).
const VERSION: [u8; 2] = [3, 3];

/// What a record carries (RFC 8446 section 5.1). A `change_cipher_spec` is none of them: after the handshake it is
/// always a [`Violation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Alert,
    Handshake,
    Data,
}

/// Where the first record of some bytes ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framed {
    Whole {
        /// Of the record, its header included.
        len: usize,
    },
    Partial {
        /// Bytes that are still lacking, at least 1: up to the header's end first, then up to the record's.
        missing: usize,
    },
}

/// Finds the end of the record that starts `bytes`. Refuses it as soon as its header tells.
pub(crate) fn frame(protocol: Protocol, bytes: &[u8]) -> Result<Framed, Violation> {
    if let Some(&outer) = bytes.first() {
        outer_kind(protocol, outer)?;
    }
    if bytes.iter().skip(1).zip(VERSION).any(|(&seen, right)| seen != right) {
        return Err(Violation::Version);
    }
    let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(Framed::Partial { missing: HEADER.saturating_sub(bytes.len()) });
    };
    let fragment = usize::from(u16::from_be_bytes([high, low]));
    if fragment > protocol.most_fragment() {
        return Err(Violation::RecordOverflow);
    }
    if fragment < protocol.overhead() {
        return Err(Violation::TooShort);
    }
    Ok(match fragment.checked_sub(rest.len()) {
        None | Some(0) => Framed::Whole { len: HEADER + fragment },
        Some(missing) => Framed::Partial { missing },
    })
}

/// So many records may be sealed under one secret. Then TLS 1.3 goes on with the next secret, and TLS 1.2, which has
/// none, ends the session; a record that says so may still be sealed.
pub(crate) const fn record_limit(protocol: Protocol) -> u64 {
    match (protocol.suite, protocol.version) {
        // Far below the wrap of the sequence number, which comes before the cipher's own limit (RFC 8446 section 5.5).
        (Suite::Chacha20Poly1305, _) => 1 << 60,
        // About a third of the 2^24.5 full records of RFC 8446 section 5.5.
        (_, Version::Tls13) => 1 << 23,
        // What rustls sets for itself (`confidentiality_limit`).
        (_, Version::Tls12) => 1 << 24,
    }
}

/// The kind that a header shows. TLS 1.3 shows data, whatever is inside (RFC 8446 section 5.2).
fn outer_kind(protocol: Protocol, outer: u8) -> Result<Kind, Violation> {
    let kind = Kind::from_code(outer)?;
    if protocol.version == Version::Tls13 && kind != Kind::Data {
        // Not sealed, so not from the peer that we shook hands with.
        return Err(Violation::Type(outer));
    }
    Ok(kind)
}

// === impl Kind ===

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }

    const fn from_code(code: u8) -> Result<Self, Violation> {
        match code {
            20 => Err(Violation::ChangeCipherSpec),
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::Data),
            _ => Err(Violation::Type(code)),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// Most bytes behind a header (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
    const fn most_fragment(self) -> usize {
        match self.version {
            Version::Tls12 => MOST_PLAINTEXT + 2048,
            Version::Tls13 => MOST_PLAINTEXT + 256,
        }
    }

    /// Most bytes of a record, its header included.
    pub(crate) const fn longest_record(self) -> usize {
        HEADER + self.most_fragment()
    }

    /// Whether a record carries a part of its nonce.
    const fn has_explicit_nonce(self) -> bool {
        matches!((self.version, self.suite), (Version::Tls12, Suite::Aes128Gcm | Suite::Aes256Gcm))
    }

    /// Bytes behind a header that are no plaintext, without padding.
    const fn overhead(self) -> usize {
        match self.version {
            // The kind inside.
            Version::Tls13 => 1 + TAG,
            Version::Tls12 if self.has_explicit_nonce() => EXPLICIT_NONCE + TAG,
            Version::Tls12 => TAG,
        }
    }
}
