//! What responders have said, while it holds; who is being asked just now; and that nobody is asked twice at once.
//!
//! A lookup is a task of its own: it goes on when whoever wanted it leaves, and serves all who wait. What is kept is
//! bounded in number and in time; that nothing could be learnt of a certificate is kept for a moment. How many are asked
//! at once, and whom nobody waits for, is `turns`' to say.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::FAILED;
use crate::tls::client_auth::Verdict;
use crate::tls::ocsp::Subject;

/// Certificates that something is known of. An entry has some hundred bytes.
const MOST_ENTRIES: usize = 65_536;
/// After how long an answer is asked for anew, however long it holds.
const RENEWED: Duration = Duration::from_secs(60 * 60);
/// The same, when nothing came of that.
const RENEWED_AGAIN: Duration = Duration::from_secs(60);
/// How many entries are looked at to find one that may go.
const GLANCE: usize = 16;

/// Everything that was learnt.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: Mutex<HashMap<Subject, Entry>>,
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
    Asked { answer: watch::Receiver<Option<Verdict>>, before: Option<Known> },
    Known(Known),
}

#[derive(Clone, Copy, Debug)]
struct Known {
    verdict: Verdict,
    until: Instant,
    /// When it is asked for anew.
    due: Instant,
}

// === impl Book ===

impl Book {
    /// The verdict on a subject: the one that is known, or the one that `lookup` finds.
    pub(super) async fn verdict<F>(
        self: &Arc<Self>,
        subject: Subject,
        lookup: impl FnOnce() -> F,
    ) -> Verdict
    where
        F: Future<Output = Result<Finding, Duration>> + Send + 'static,
    {
        let mut answer = match self.begin(subject, lookup) {
            Begun::Known(verdict) => return verdict,
            Begun::Asked { answer, .. } => answer,
        };
        let found = answer.wait_for(Option::is_some).await;
        found.ok().and_then(|verdict| *verdict).unwrap_or(FAILED)
    }

    /// The verdict that is known now. What is not, or is old, `lookup` is to find.
    pub(super) fn known<F>(
        self: &Arc<Self>,
        subject: Subject,
        lookup: impl FnOnce() -> F,
    ) -> Option<Verdict>
    where
        F: Future<Output = Result<Finding, Duration>> + Send + 'static,
    {
        match self.begin(subject, lookup) {
            Begun::Known(verdict) => Some(verdict),
            Begun::Asked { before, .. } => before.map(|it| it.verdict),
        }
    }

    /// What is known, or whom to wait for.
    fn begin<F>(self: &Arc<Self>, subject: Subject, lookup: impl FnOnce() -> F) -> Begun
    where
        F: Future<Output = Result<Finding, Duration>> + Send + 'static,
    {
        let now = Instant::now();
        let mut entries = self.lock();
        let before = match entries.get(&subject) {
            Some(Entry::Known(known)) if now < known.due.min(known.until) => {
                return Begun::Known(known.verdict);
            }
            Some(Entry::Known(known)) => Some(*known),
            // One whose task has died tells nobody anything.
            Some(Entry::Asked { answer, before }) if answer.has_changed().is_ok() => {
                let before = before.filter(|it| now < it.until);
                return Begun::Asked { answer: answer.clone(), before };
            }
            Some(Entry::Asked { before, .. }) => *before,
            None => None,
        };
        let before = before.filter(|it| now < it.until);
        let is_new = !entries.contains_key(&subject);
        if is_new && entries.len() >= MOST_ENTRIES && !make_room(&mut entries) {
            return Begun::Known(FAILED);
        }
        let (tell, answer) = watch::channel(None);
        entries.insert(subject, Entry::Asked { answer: answer.clone(), before });
        drop(entries);
        tokio::spawn(self.clone().look_up(subject, tell, lookup(), before));
        Begun::Asked { answer, before }
    }

    async fn look_up(
        self: Arc<Self>,
        subject: Subject,
        tell: watch::Sender<Option<Verdict>>,
        lookup: impl Future<Output = Result<Finding, Duration>>,
        before: Option<Known>,
    ) {
        let found = lookup.await;
        let now = Instant::now();
        let known = match (found, before.filter(|it| now < it.until)) {
            (Ok(Finding { verdict, holds }), _) => {
                Known { verdict, until: now + holds, due: now + RENEWED }
            }
            (Err(_), Some(before)) => Known { due: now + RENEWED_AGAIN, ..before },
            (Err(pause), None) => Known { verdict: FAILED, until: now + pause, due: now + pause },
        };
        self.lock().insert(subject, Entry::Known(known));
        tell.send_replace(Some(known.verdict));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is soonest worth nothing, of the first few.
fn make_room(entries: &mut HashMap<Subject, Entry>) -> bool {
    let known = entries.iter().take(GLANCE).filter_map(|(subject, entry)| match entry {
        Entry::Known(known) => Some((known.until, *subject)),
        Entry::Asked { .. } => None,
    });
    let oldest = known.min_by_key(|(until, _)| *until);
    oldest.is_some_and(|(_, subject)| entries.remove(&subject).is_some())
}

/// How a question begins.
enum Begun {
    Known(Verdict),
    Asked {
        answer: watch::Receiver<Option<Verdict>>,
        /// What is still true, though it is asked for anew.
        before: Option<Known>,
    },
}

#[cfg(test)]
mod tests;
