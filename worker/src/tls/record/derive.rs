//! From a direction's secret to its key and nonce base, and to the secret after it.
//!
//! Nothing here is printed, and every buffer of ours is overwritten. ring does not overwrite its own.

use std::fmt;

use ring::hkdf;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::tls::keys::{Protocol, Secret, Suite, Version};

/// Length of a nonce and of its base, in bytes.
pub(super) const NONCE: usize = 12;

const LONGEST_KEY: usize = 32;

/// The secret does not have the length of its protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a secret of the wrong length")]
pub(crate) struct BadSecret;

/// What the records of one direction are sealed with, in the form that ciphers and rustls know.
pub(crate) struct Keys {
    key: Zeroizing<[u8; LONGEST_KEY]>,
    key_len: usize,
    iv: Zeroizing<[u8; NONCE]>,
}

/// The key and the nonce base of a secret.
pub(crate) fn key_of(protocol: Protocol, secret: &Secret) -> Result<Keys, BadSecret> {
    if secret.bytes().len() != protocol.secret_len() {
        return Err(BadSecret);
    }
    let mut keys = Keys {
        key: Zeroizing::new([0; LONGEST_KEY]),
        key_len: protocol.suite.key_len(),
        iv: Zeroizing::new([0; NONCE]),
    };
    let key = keys.key.get_mut(..keys.key_len).ok_or(BadSecret)?;
    match protocol.version {
        Version::Tls13 => {
            // RFC 8446 section 7.3.
            let secret = ready(protocol.suite, secret);
            expand(&secret, b"key", key)?;
            expand(&secret, b"iv", keys.iv.as_mut())?;
        }
        Version::Tls12 => {
            let (own, base) = secret.bytes().split_at_checked(keys.key_len).ok_or(BadSecret)?;
            key.copy_from_slice(own);
            keys.iv = Zeroizing::new(base.try_into().map_err(|_| BadSecret)?);
        }
    }
    Ok(keys)
}

/// The secret behind a `KeyUpdate` (RFC 8446 section 7.2). None: the version has no such thing, or the secret is not
/// one of its own.
pub(crate) fn next_secret(protocol: Protocol, secret: &Secret) -> Option<Secret> {
    if protocol.version == Version::Tls12 || secret.bytes().len() != protocol.secret_len() {
        return None;
    }
    let mut bytes = Zeroizing::new([0; Secret::LONGEST]);
    let next = bytes.get_mut(..protocol.secret_len())?;
    expand(&ready(protocol.suite, secret), b"traffic upd", next).ok()?;
    Secret::new(next)
}

/// What can be expanded again and again: hashing a secret into this is half of an expansion.
fn ready(suite: Suite, secret: &Secret) -> hkdf::Prk {
    let hash = match suite {
        Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        Suite::Aes128Gcm | Suite::Chacha20Poly1305 => hkdf::HKDF_SHA256,
    };
    hkdf::Prk::new_less_safe(hash, secret.bytes())
}

/// HKDF-Expand-Label with no context (RFC 8446 section 7.1).
fn expand(secret: &hkdf::Prk, label: &[u8], to: &mut [u8]) -> Result<(), BadSecret> {
    const PREFIX: &[u8] = b"tls13 ";
    let len = u16::try_from(to.len()).map_err(|_| BadSecret)?.to_be_bytes();
    let label_len = u8::try_from(PREFIX.len() + label.len()).map_err(|_| BadSecret)?;
    let info: [&[u8]; 5] = [&len, &[label_len], PREFIX, label, &[0]];
    secret.expand(&info, Len(to.len())).and_then(|okm| okm.fill(to)).map_err(|_| BadSecret)
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

// === impl Keys ===

impl Keys {
    pub(crate) fn key(&self) -> &[u8] {
        self.key.get(..self.key_len).unwrap_or_default()
    }

    /// The nonce base, for TLS 1.2 with GCM as rustls has it: four bytes of salt, and behind them what the explicit
    /// part of our own records begins at.
    pub(crate) fn iv(&self) -> &[u8; NONCE] {
        &self.iv
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}
