//! Session tickets: a client's session in a client's hands, sealed with keys that the supervisor gives to every worker of
//! the gateway. So any worker can go on with a session that another one has made.
//!
//! A ticket opens only where it could have been sealed: on the same listener, and where clients are asked for
//! certificates, under the same authorities. Where they are, no ticket is given out for a session without a certificate
//! that has passed. Keys are never printed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use holdfast_proto::control as wire;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use thiserror::Error;

/// Length of a key's id, at the head of each ticket.
const ID: usize = 16;
/// Length of a scope: a digest.
const SCOPE: usize = 32;
/// What clients are told: the time for which a key seals. It opens for longer.
const LIFETIME_SECS: u32 = 6 * 60 * 60;
/// Keys that are kept. A supervisor has two; one that follows another has others.
const MOST_KEYS: usize = 8;

/// Why keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an id or a secret has the wrong length")]
pub struct TicketKeyRefusal;

/// The keys in use. The first one seals, each opens.
#[derive(Debug, Default)]
pub(crate) struct TicketKeys {
    keys: Vec<Arc<Key>>,
}

struct Key {
    id: [u8; ID],
    /// Seconds since 1970.
    until: u64,
    cipher: LessSafeKey,
}

/// What tickets are bound to.
pub(crate) type Scope = [u8; SCOPE];

/// Whether a client has shown a certificate that passes; set while it shakes hands.
#[derive(Debug, Default)]
pub(crate) struct Proof(AtomicBool);

/// Seals and opens the tickets of one connection.
#[derive(Debug)]
pub(crate) struct Ticketer {
    pub(crate) keys: Arc<TicketKeys>,
    pub(crate) scope: Scope,
    /// Present where clients are asked for certificates.
    pub(crate) proof: Option<Arc<Proof>>,
}

// === impl TicketKeys ===

impl TicketKeys {
    /// The keys that the supervisor gives, and behind them those of `previous` that still open: of a supervisor that has
    /// died, say.
    pub(crate) fn compile(
        given: Vec<wire::TicketKey>,
        previous: Option<&Self>,
    ) -> Result<Self, TicketKeyRefusal> {
        let now = now();
        let mut keys: Vec<Arc<Key>> =
            given.into_iter().map(|key| Key::new(&key).map(Arc::new)).collect::<Result<_, _>>()?;
        for kept in previous.iter().flat_map(|previous| &previous.keys) {
            let known = keys.iter().any(|key| key.id == kept.id);
            if !known && kept.until > now && keys.len() < MOST_KEYS {
                keys.push(kept.clone());
            }
        }
        Ok(Self { keys })
    }

    fn seal(&self, scope: &Scope, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let bound = Nonce::assume_unique_for_key(nonce);
        key.cipher.seal_in_place_append_tag(bound, key.about(scope), &mut sealed).ok()?;
        Some([&key.id[..], &nonce[..], &sealed[..]].concat())
    }

    fn open(&self, scope: &Scope, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now = now();
        let key = self.keys.iter().find(|key| key.id == *id && key.until > now)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.cipher.open_in_place(nonce, key.about(scope), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

// === impl Key ===

impl Key {
    fn new(key: &wire::TicketKey) -> Result<Self, TicketKeyRefusal> {
        let id = key.id.as_slice().try_into().map_err(|_| TicketKeyRefusal)?;
        let cipher = UnboundKey::new(&AES_256_GCM, &key.secret).map_err(|_| TicketKeyRefusal)?;
        Ok(Self { id, until: key.until, cipher: LessSafeKey::new(cipher) })
    }

    /// What a ticket is about, beside what is in it.
    fn about(&self, scope: &Scope) -> Aad<Vec<u8>> {
        Aad::from([&self.id[..], &scope[..]].concat())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("until", &self.until).finish_non_exhaustive()
    }
}

// === impl Proof ===

impl Proof {
    pub(crate) fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Ticketer ===

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        !self.keys.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if self.proof.as_ref().is_some_and(|proof| !proof.is_given()) {
            return None;
        }
        self.keys.seal(&self.scope, plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let opened = self.keys.open(&self.scope, ticket)?;
        // It was given out for a certificate that passed, and that one is looked at again after the handshake.
        if let Some(proof) = &self.proof {
            proof.give();
        }
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const FOREVER: u64 = u64::MAX;

    fn key(of: u8, until: u64) -> wire::TicketKey {
        wire::TicketKey { id: vec![of; 16], secret: vec![of; 32], until }
    }

    fn ticketer(keys: Vec<wire::TicketKey>, previous: Option<&Ticketer>) -> Ticketer {
        let previous = previous.map(|ticketer| &*ticketer.keys);
        let keys = Arc::new(TicketKeys::compile(keys, previous).unwrap());
        Ticketer { keys, scope: [0; 32], proof: None }
    }

    #[test]
    fn another_process_with_the_same_keys_opens_a_ticket() {
        let [one, two] = [(); 2].map(|()| ticketer(vec![key(1, FOREVER), key(2, FOREVER)], None));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(two.decrypt(&ticket).unwrap(), b"session");
        assert_ne!(one.encrypt(b"session").unwrap(), ticket, "no two tickets are the same");
    }

    #[test]
    fn a_key_that_was_replaced_opens_until_its_end() {
        let old = ticketer(vec![key(1, FOREVER)], None);
        let ticket = old.encrypt(b"session").unwrap();
        let new = ticketer(vec![key(2, FOREVER), key(1, FOREVER)], None);
        assert_eq!(new.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(old.decrypt(&new.encrypt(b"later").unwrap()), None, "not told of it yet");
        let ended = ticketer(vec![key(2, FOREVER), key(1, 1)], None);
        assert_eq!(ended.decrypt(&ticket), None);
    }

    #[test]
    fn keys_of_a_supervisor_that_died_are_kept_while_they_last() {
        let before = ticketer(vec![key(1, FOREVER), key(2, 1)], None);
        let ticket = before.encrypt(b"session").unwrap();
        let after = ticketer(vec![key(3, FOREVER)], Some(&before));
        assert_eq!(after.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(after.keys.keys.len(), 2, "the one that has ended is gone");
        let many = (10..30).fold(after, |last, of| ticketer(vec![key(of, FOREVER)], Some(&last)));
        assert_eq!(many.keys.keys.len(), MOST_KEYS);
    }

    #[test]
    fn a_ticket_opens_nowhere_else_and_not_when_it_was_touched() {
        let here = ticketer(vec![key(1, FOREVER)], None);
        let there = Ticketer { keys: here.keys.clone(), scope: [1; 32], proof: None };
        let ticket = here.encrypt(b"session").unwrap();
        assert_eq!(there.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            if let Some(byte) = touched.get_mut(at) {
                *byte ^= 1;
            }
            assert_eq!(here.decrypt(&touched), None, "byte {at}");
        }
        for cut in 0..ticket.len() {
            assert_eq!(here.decrypt(ticket.get(..cut).unwrap()), None, "cut at {cut}");
        }
    }

    #[test]
    fn who_has_proved_nothing_gets_no_ticket() {
        let keys = ticketer(vec![key(1, FOREVER)], None).keys;
        let asked = || {
            let proof = Some(Arc::new(Proof::default()));
            Ticketer { keys: keys.clone(), scope: [0; 32], proof }
        };
        let first = asked();
        assert_eq!(first.encrypt(b"session"), None);
        first.proof.as_ref().unwrap().give();
        let ticket = first.encrypt(b"session").unwrap();
        let resumed = asked();
        assert!(resumed.decrypt(&ticket).is_some());
        assert!(resumed.encrypt(b"again").is_some());
    }

    #[test]
    fn broken_keys_are_refused_and_none_are_no_tickets() {
        let short = wire::TicketKey { id: vec![1; 15], ..key(1, 1) };
        assert!(TicketKeys::compile(vec![short], None).is_err());
        let long = wire::TicketKey { secret: vec![1; 33], ..key(1, 1) };
        assert!(TicketKeys::compile(vec![long], None).is_err());
        assert!(!ticketer(Vec::new(), None).enabled());
        let shown = format!("{:?}", ticketer(vec![key(77, 5)], None));
        assert!(!shown.contains("77, 77"), "{shown}");
    }
}
