//! What the two ends of a session have agreed on, and the secrets of one direction.
//!
//! No secret is ever printed, and each is overwritten where it ends.

use std::fmt;

use zeroize::Zeroize as _;

/// Versions whose records we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// Ciphers whose records we know, all with associated data (RFC 8446 section B.4, RFC 5288, RFC 7905).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// How the records of a session are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) version: Version,
    pub(crate) suite: Suite,
}

/// Which end of the session is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What the records of one direction are sealed with, at one time: for TLS 1.3 the traffic secret (RFC 8446 section
/// 7.2), from which key and nonce base come; for TLS 1.2 the key, and behind it the nonce base of 12 bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    bytes: [u8; Self::LONGEST],
    len: u8,
}

// === impl Protocol ===

impl Protocol {
    /// As a number that never changes its meaning; never zero.
    pub(crate) const fn code(self) -> u8 {
        let version = match self.version {
            Version::Tls12 => 0x10,
            Version::Tls13 => 0x20,
        };
        let suite = match self.suite {
            Suite::Aes128Gcm => 1,
            Suite::Aes256Gcm => 2,
            Suite::Chacha20Poly1305 => 3,
        };
        version | suite
    }

    /// The protocol of a [`Self::code`].
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        let version = match code & 0xf0 {
            0x10 => Version::Tls12,
            0x20 => Version::Tls13,
            _ => return None,
        };
        let suite = match code & 0x0f {
            1 => Suite::Aes128Gcm,
            2 => Suite::Aes256Gcm,
            3 => Suite::Chacha20Poly1305,
            _ => return None,
        };
        Some(Self { version, suite })
    }

    /// Length of a [`Secret`], in bytes.
    pub(crate) const fn secret_len(self) -> usize {
        match (self.version, self.suite) {
            (Version::Tls12, suite) => suite.key_len() + 12,
            (Version::Tls13, Suite::Aes256Gcm) => 48,
            (Version::Tls13, _) => 32,
        }
    }
}

// === impl Suite ===

impl Suite {
    /// Length of the cipher's key, in bytes.
    pub(crate) const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Of any protocol, in bytes: a secret of SHA-384.
    pub(crate) const LONGEST: usize = 48;

    /// A copy of these bytes. None: they are too long for a secret.
    pub(crate) fn new(from: &[u8]) -> Option<Self> {
        let len = u8::try_from(from.len()).ok()?;
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { bytes, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_code_means_one_protocol() {
        let known: Vec<_> = (0..=u8::MAX).filter_map(Protocol::from_code).collect();
        assert_eq!(known.len(), 6);
        for protocol in known {
            assert_eq!(Protocol::from_code(protocol.code()), Some(protocol));
            assert!(protocol.secret_len() <= Secret::LONGEST);
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(&[42; 32]).unwrap();
        assert_eq!(secret.bytes(), [42; 32]);
        assert!(!format!("{secret:?}").contains("42"));
        assert_eq!(Secret::new(&[0; 49]), None);
    }
}
