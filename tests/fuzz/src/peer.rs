//! The other end: it holds the right keys, and seals whatever it is told, right or wrong.
//!
//! Keys, nonces and associated data are made here from the RFCs, and not by the code that is judged.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use crate::book::Honest;
use crate::tls::keys::{Protocol, Suite, Version};

/// One direction of a session, from the peer's side.
pub(crate) struct Peer {
    protocol: Protocol,
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; 12],
    pub(crate) generation: u32,
    /// Of the next record.
    pub(crate) seq: u64,
}

/// A header's first three bytes, as they are authenticated.
pub(crate) type Outer = [u8; 3];

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

// === impl Peer ===

impl Peer {
    pub(crate) fn new(protocol: Protocol, secret: &[u8], seq: u64) -> Self {
        let (key, iv) = keys(protocol, secret);
        Self { protocol, secret: secret.to_vec(), key, iv, generation: 0, seq }
    }

    /// Goes on under the next secret (RFC 8446 section 7.2). TLS 1.2 has none.
    pub(crate) fn turn(&mut self) {
        if self.protocol.version == Version::Tls13 {
            self.secret = expand(self.protocol, &self.secret, b"traffic upd", self.secret.len());
            (self.key, self.iv) = keys(self.protocol, &self.secret);
            self.generation += 1;
            self.seq = 0;
        }
    }

    /// The next record. `explicit` is the part of a nonce that TLS 1.2 lets a sender choose, where it has one.
    pub(crate) fn seal(&self, outer: Outer, explicit: Option<[u8; 8]>, inner: &[u8]) -> Honest {
        let mut nonce = self.nonce();
        let mut fragment = Vec::new();
        if self.has_explicit_nonce() {
            if let Some(explicit) = explicit {
                nonce[4..].copy_from_slice(&explicit);
            }
            fragment.extend_from_slice(&nonce[4..]);
        }
        let length = u16::try_from(fragment.len() + inner.len() + 16).unwrap().to_be_bytes();
        let header = [outer[0], outer[1], outer[2], length[0], length[1]];
        let mut sealed = inner.to_vec();
        let aad = self.associated(header, inner.len());
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, aad, &mut sealed).unwrap();
        fragment.append(&mut sealed);
        Honest { record: [header.as_slice(), &fragment].concat(), inner: inner.to_vec() }
    }

    /// What was encrypted in a whole record, if it is the next one.
    pub(crate) fn open(&self, record: &[u8]) -> Option<Vec<u8>> {
        let (header, mut fragment) = record.split_first_chunk()?;
        let mut nonce = self.nonce();
        if self.has_explicit_nonce() {
            nonce[4..].copy_from_slice(fragment.split_off(..8)?);
        }
        let aad = self.associated(*header, fragment.len().checked_sub(16)?);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut sealed = fragment.to_vec();
        let inner = self.key.open_in_place(nonce, aad, &mut sealed).ok()?;
        Some(inner.to_vec())
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, of_seq) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= of_seq;
        }
        nonce
    }

    fn has_explicit_nonce(&self) -> bool {
        self.protocol.version == Version::Tls12 && self.protocol.suite != Suite::Chacha20Poly1305
    }

    fn associated(&self, header: [u8; 5], inner_len: usize) -> Aad<Vec<u8>> {
        Aad::from(match self.protocol.version {
            Version::Tls13 => header.to_vec(),
            Version::Tls12 => {
                let length = u16::try_from(inner_len).unwrap().to_be_bytes();
                [self.seq.to_be_bytes().as_slice(), &header[..3], &length].concat()
            }
        })
    }
}

fn keys(protocol: Protocol, secret: &[u8]) -> (LessSafeKey, [u8; 12]) {
    let (algorithm, key_len) = match protocol.suite {
        Suite::Aes128Gcm => (&aead::AES_128_GCM, 16),
        Suite::Aes256Gcm => (&aead::AES_256_GCM, 32),
        Suite::Chacha20Poly1305 => (&aead::CHACHA20_POLY1305, 32),
    };
    let (key, iv) = match protocol.version {
        Version::Tls12 => (secret[..key_len].to_vec(), secret[key_len..].to_vec()),
        Version::Tls13 => {
            (expand(protocol, secret, b"key", key_len), expand(protocol, secret, b"iv", 12))
        }
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
    (key, iv.try_into().unwrap())
}

/// RFC 8446 section 7.1.
fn expand(protocol: Protocol, secret: &[u8], label: &[u8], length: usize) -> Vec<u8> {
    let hash = match protocol.suite {
        Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        Suite::Aes128Gcm | Suite::Chacha20Poly1305 => hkdf::HKDF_SHA256,
    };
    let mut info = u16::try_from(length).unwrap().to_be_bytes().to_vec();
    info.push(u8::try_from(6 + label.len()).unwrap());
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label);
    info.push(0);
    let mut out = vec![0; length];
    let info = [info.as_slice()];
    let prk = hkdf::Prk::new_less_safe(hash, secret);
    prk.expand(&info, Len(length)).unwrap().fill(&mut out).unwrap();
    out
}
