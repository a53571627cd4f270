//! Keys that workers seal session tickets with, so that a client's session outlives the worker that it was made with.
//!
//! They are made here, go to workers with their snapshots, and are never written to a disk: a supervisor that dies takes
//! its copy along. Workers that live on keep what they were told, beside the keys of the next supervisor, until those end.
//! Another executable in its place finds them in memory that has no name.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_proto::control::TicketKey;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, interval_at};

use crate::state::Supervisor;
use crate::upgrade::{self, Inherited};

/// How long a key seals. Workers tell clients that tickets live for as long.
const SEALS: Duration = Duration::from_secs(6 * 3600);
/// How long it opens: what was sealed at its last moment lives as long as any other ticket.
const OPENS: Duration = Duration::from_secs(12 * 3600);

/// Of an id and of a secret, in bytes.
const ID: usize = 16;
const SECRET: usize = 32;
/// A key as another executable finds it: id, secret, end.
const KEPT: usize = ID + SECRET + 8;
/// More than there ever are at once.
const MOST_KEPT: u64 = 64;

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

    /// Goes on with the keys of the executable before.
    fn go_on(&self, found: Vec<TicketKey>) {
        let now = since_1970(SystemTime::now());
        let found: Vec<_> = found.into_iter().filter(|key| key.until > now).collect();
        // Nobody has got the one that was made at the start.
        if !found.is_empty() {
            *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    /// How long the key that seals goes on with it: one that an executable before this has made has less left.
    fn due_in(&self, now: SystemTime) -> Duration {
        let newest = self.keys().first().map_or(0, |key| key.until);
        let due = newest.saturating_sub(OPENS.saturating_sub(SEALS).as_secs());
        Duration::from_secs(due.saturating_sub(since_1970(now))).min(SEALS)
    }

    /// A new key seals from now on; those that are too old are gone.
    fn rotate(&self, now: SystemTime) {
        let now = since_1970(now);
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

fn since_1970(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Goes on where the executable before has left off, before anybody is told any key, and renews them from then on.
pub(crate) fn begin(supervisor: &Arc<Supervisor>, inherited: &Inherited) {
    if let Some(kept) = inherited.duplicate(upgrade::TICKETS) {
        match recall(kept) {
            Ok(found) => supervisor.tickets.go_on(found),
            Err(error) => tracing::warn!(%error, "keys of session tickets cannot be taken over"),
        }
    }
    keep(supervisor);
    tokio::spawn(tend(supervisor.clone()));
}

/// Keeps the keys for an executable that takes over.
fn keep(supervisor: &Supervisor) {
    let kept = write_down(&supervisor.tickets.keys());
    let kept = kept.and_then(|kept| supervisor.upgrades.keep(upgrade::TICKETS, kept));
    if let Err(error) = kept {
        tracing::warn!(%error, "keys of session tickets would not outlive an upgrade");
    }
}

fn write_down(keys: &[TicketKey]) -> io::Result<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("holdfast-tickets", flags)?);
    // No more than are read: newest first, so that what is left out would end soonest.
    for key in keys.iter().take(usize::try_from(MOST_KEPT).unwrap_or(usize::MAX)) {
        file.write_all(&key.id)?;
        file.write_all(&key.secret)?;
        file.write_all(&key.until.to_be_bytes())?;
    }
    Ok(file.into())
}

fn recall(kept: OwnedFd) -> io::Result<Vec<TicketKey>> {
    let mut file = File::from(kept);
    // Its offset is where the executable before had written last.
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(KEPT as u64 * MOST_KEPT).read_to_end(&mut bytes)?;
    let keys = bytes.chunks_exact(KEPT).map(|key| {
        let (id, rest) = key.split_at(ID);
        let (secret, until) = rest.split_at(SECRET);
        let until = until.iter().fold(0, |until, byte| until << 8 | u64::from(*byte));
        TicketKey { id: id.to_vec(), secret: secret.to_vec(), until }
    });
    Ok(keys.collect())
}

fn made(until: u64) -> Result<TicketKey, ring::error::Unspecified> {
    let random = SystemRandom::new();
    let (mut id, mut secret) = (vec![0; ID], vec![0; SECRET]);
    random.fill(&mut id)?;
    random.fill(&mut secret)?;
    Ok(TicketKey { id, secret, until })
}

/// Makes a new key whenever one is due, and tells the workers; runs as long as the supervisor.
async fn tend(supervisor: Arc<Supervisor>) {
    let first = supervisor.tickets.due_in(SystemTime::now());
    let mut due = interval_at(Instant::now() + first, SEALS);
    loop {
        // Cancel-safe, both: they only wait.
        tokio::select! {
            _ = due.tick() => {}
            () = supervisor.stopped() => return,
        }
        supervisor.tickets.rotate(SystemTime::now());
        keep(&supervisor);
        supervisor.publish_again().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_key_that_was_taken_over_seals_no_longer_than_any_other() {
        let tickets = Tickets::new();
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let about = |left: Duration, wanted: Duration| left <= wanted && left + hour / 60 > wanted;
        assert!(about(tickets.due_in(now), SEALS));
        assert!(about(tickets.due_in(now + 5 * hour), hour));
        assert_eq!(tickets.due_in(now + 7 * hour), Duration::ZERO);
        assert_eq!(tickets.due_in(now + 100 * hour), Duration::ZERO);
    }

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
    fn another_executable_goes_on_with_the_same_keys() {
        let before = Tickets::new();
        before.rotate(SystemTime::now());
        let after = Tickets::new();
        after.go_on(recall(write_down(&before.keys()).unwrap()).unwrap());
        assert_eq!(after.keys(), before.keys());
        let own = Tickets::new();
        let first = own.keys();
        own.go_on(vec![TicketKey { until: 1, ..first[0].clone() }]);
        assert_eq!(own.keys(), first, "what has ended is worth nothing");
        let nothing = rustix::fs::memfd_create("cut", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(recall(nothing).unwrap(), []);
        let many: Vec<_> = (0..100).map(|n| TicketKey { until: n, ..first[0].clone() }).collect();
        assert_eq!(recall(write_down(&many).unwrap()).unwrap(), many[..64]);
    }

    #[test]
    fn no_secret_is_printed() {
        let tickets = Tickets::new();
        let key = TicketKey { id: vec![7; 16], secret: vec![77; 32], until: 1 };
        tickets.keys.lock().unwrap().insert(0, key);
        let shown = format!("{tickets:?}");
        // Times have digits, too.
        assert!(!shown.contains("77, 77"), "{shown}");
    }
}
