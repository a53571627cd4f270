//! Keys that workers seal session tickets with, so that a client's session outlives the worker that it was made with.
//!
//! They are made here, go to workers with their snapshots, and are never written down: a supervisor that dies takes its
//! copy along. Workers that live on keep what they were told, beside the keys of the next supervisor, until those end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_proto::control::TicketKey;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, interval_at};

use crate::state::Supervisor;

/// How long a key seals. Workers tell clients that tickets live for as long.
const SEALS: Duration = Duration::from_secs(6 * 3600);
/// How long it opens: what was sealed at its last moment lives as long as any other ticket.
const OPENS: Duration = Duration::from_secs(12 * 3600);

/// The keys in use, newest first.
#[derive(Debug)]
pub struct Tickets {
    keys: Mutex<Vec<TicketKey>>,
}

// === impl Tickets ===

impl Tickets {
    /// With a first key.
    pub fn new() -> Self {
        let tickets = Self { keys: Mutex::default() };
        tickets.rotate(SystemTime::now());
        tickets
    }

    /// For workers.
    pub fn keys(&self) -> Vec<TicketKey> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new key seals from now on; those that are too old are gone.
    fn rotate(&self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| key.until > now);
        match made(now + OPENS.as_secs()) {
            Ok(key) => keys.insert(0, key),
            // Sessions are then resumed with the last key, or not at all.
            Err(error) => tracing::error!(%error, "no key for session tickets can be made"),
        }
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}

fn made(until: u64) -> Result<TicketKey, ring::error::Unspecified> {
    let random = SystemRandom::new();
    let (mut id, mut secret) = (vec![0; 16], vec![0; 32]);
    random.fill(&mut id)?;
    random.fill(&mut secret)?;
    Ok(TicketKey { id, secret, until })
}

/// Makes a new key whenever one is due, and tells the workers; runs as long as the supervisor.
pub(crate) async fn tend(supervisor: Arc<Supervisor>) {
    let mut due = interval_at(Instant::now() + SEALS, SEALS);
    loop {
        // Cancel-safe, both: they only wait.
        tokio::select! {
            _ = due.tick() => {}
            () = supervisor.stopped() => return,
        }
        supervisor.tickets.rotate(SystemTime::now());
        supervisor.publish_again().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_new_key_seals_and_the_last_one_opens_on() {
        let tickets = Tickets::new();
        let first = tickets.keys();
        assert_eq!(first.len(), 1);
        let now = SystemTime::now();
        tickets.rotate(now + SEALS);
        let second = tickets.keys();
        assert_eq!(second[1..], first[..]);
        assert_ne!(second[0].id, first[0].id);
        assert_ne!(second[0].secret, first[0].secret);
        tickets.rotate(now + OPENS + Duration::from_secs(5));
        assert_eq!(tickets.keys().len(), 2);
        assert!(!tickets.keys().contains(&first[0]), "the first key has ended");
    }

    #[test]
    fn no_secret_is_printed() {
        let tickets = Tickets::new();
        let key = TicketKey { id: vec![7; 16], secret: vec![77; 32], until: 1 };
        tickets.keys.lock().unwrap().insert(0, key);
        let shown = format!("{tickets:?}");
        assert!(!shown.contains("77"), "{shown}");
    }
}
