//! What responders have said, while it holds; who is being asked just now; and that nobody is asked twice at once.
//!
//! A lookup is a task of its own: it goes on when whoever wanted it leaves, and serves all who wait. What is kept is
//! bounded in number and in time; what could not be learnt is kept for a moment, so that a responder that is down costs
//! its clients one wait and not one each.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::FAILED;
use crate::tls::client_auth::Verdict;
use crate::tls::ocsp::Subject;

/// Certificates that something is known of. An entry has some hundred bytes.
const MOST_ENTRIES: usize = 65_536;
/// Lookups at once; more wait.
const MOST_LOOKUPS: usize = 32;
/// For how long a lookup waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How many entries are looked at to find one that may go.
const GLANCE: usize = 16;

/// Everything that was learnt.
#[derive(Debug)]
pub(super) struct Book {
    entries: Mutex<HashMap<Subject, Entry>>,
    turns: Arc<Semaphore>,
}

/// What came of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// For how long it is believed.
    pub(super) holds: Duration,
}

#[derive(Debug)]
enum Entry {
    Asked(watch::Receiver<Option<Verdict>>),
    Known { verdict: Verdict, until: Instant },
}

// === impl Book ===

impl Default for Book {
    fn default() -> Self {
        Self { entries: Mutex::default(), turns: Arc::new(Semaphore::new(MOST_LOOKUPS)) }
    }
}

impl Book {
    /// The verdict on a subject: the one that is known, or the one that `lookup` finds.
    pub(super) async fn verdict<F>(
        self: &Arc<Self>,
        subject: Subject,
        lookup: impl FnOnce() -> F,
    ) -> Verdict
    where
        F: Future<Output = Finding> + Send + 'static,
    {
        let mut answer = match self.begin(subject) {
            Begun::Known(verdict) => return verdict,
            Begun::Asked(answer) => answer,
            Begun::Ours(tell, answer) => {
                tokio::spawn(self.clone().look_up(subject, tell, lookup()));
                answer
            }
        };
        let found = answer.wait_for(Option::is_some).await;
        found.ok().and_then(|verdict| *verdict).unwrap_or(FAILED)
    }

    /// What is known, or whom to wait for; where it is neither, the caller is to find out.
    fn begin(&self, subject: Subject) -> Begun {
        let mut entries = self.lock();
        match entries.get(&subject) {
            Some(Entry::Known { verdict, until }) if Instant::now() < *until => {
                return Begun::Known(*verdict);
            }
            // One whose task has died tells nobody anything.
            Some(Entry::Asked(answer)) if answer.has_changed().is_ok() => {
                return Begun::Asked(answer.clone());
            }
            Some(_) | None => {}
        }
        let is_new = !entries.contains_key(&subject);
        if is_new && entries.len() >= MOST_ENTRIES && !make_room(&mut entries) {
            return Begun::Known(FAILED);
        }
        let (tell, answer) = watch::channel(None);
        entries.insert(subject, Entry::Asked(answer.clone()));
        Begun::Ours(tell, answer)
    }

    async fn look_up(
        self: Arc<Self>,
        subject: Subject,
        tell: watch::Sender<Option<Verdict>>,
        lookup: impl Future<Output = Finding>,
    ) {
        let turn = timeout(TURN, self.turns.acquire()).await;
        let finding = match &turn {
            Ok(Ok(_)) => lookup.await,
            Ok(Err(_)) | Err(_) => Finding::failure(),
        };
        drop(turn);
        let Finding { verdict, holds } = finding;
        let until = Instant::now() + holds;
        self.lock().insert(subject, Entry::Known { verdict, until });
        tell.send_replace(Some(verdict));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is soonest worth nothing, of the first few.
fn make_room(entries: &mut HashMap<Subject, Entry>) -> bool {
    let known = entries.iter().take(GLANCE).filter_map(|(subject, entry)| match entry {
        Entry::Known { until, .. } => Some((*until, *subject)),
        Entry::Asked(_) => None,
    });
    let oldest = known.min_by_key(|(until, _)| *until);
    oldest.is_some_and(|(_, subject)| entries.remove(&subject).is_some())
}

/// How a question begins.
enum Begun {
    Known(Verdict),
    Asked(watch::Receiver<Option<Verdict>>),
    Ours(watch::Sender<Option<Verdict>>, watch::Receiver<Option<Verdict>>),
}

// === impl Finding ===

impl Finding {
    /// Nothing was learnt.
    pub(super) fn failure() -> Self {
        Self { verdict: FAILED, holds: super::AFTER_FAILURE }
    }
}

#[cfg(test)]
mod tests;
