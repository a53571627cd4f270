//! Each target's latest verdict, and which of them the supervisor has not been sent yet.
//!
//! Checks post here and never wait, however slow the stream is: a newer verdict replaces an unsent one. A target
//! that has left the set leaves the board; what a late check of it posts is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_proto::control::{TargetKey, Verdict};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
    posted: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<TargetKey, Entry>,
    /// Targets in the order in which they became unsent. May name one that has left; each unsent one is in it once.
    unsent: VecDeque<TargetKey>,
    incarnations: u64,
}

#[derive(Debug)]
struct Entry {
    incarnation: u64,
    verdict: Option<Verdict>,
    unsent: bool,
}

/// A target's right to post; void once the target has left the board.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    key: TargetKey,
    incarnation: u64,
}

// === impl Board ===

impl Board {
    /// Takes a target in.
    pub(crate) fn enter(&self, key: &TargetKey) -> Place {
        let mut inner = self.lock();
        inner.incarnations = inner.incarnations.wrapping_add(1);
        let incarnation = inner.incarnations;
        inner.entries.insert(key.clone(), Entry { incarnation, verdict: None, unsent: false });
        Place { key: key.clone(), incarnation }
    }

    /// Lets a target go.
    pub(crate) fn leave(&self, key: &TargetKey) {
        let mut inner = self.lock();
        inner.entries.remove(key);
        inner.unsent.retain(|unsent| unsent != key);
    }

    /// Replaces a target's verdict.
    pub(crate) fn post(&self, place: &Place, verdict: Verdict) {
        let mut inner = self.lock();
        let Inner { entries, unsent, .. } = &mut *inner;
        let Some(entry) = entries.get_mut(&place.key) else { return };
        if entry.incarnation != place.incarnation {
            return;
        }
        entry.verdict = Some(verdict);
        if !entry.unsent {
            entry.unsent = true;
            unsent.push_back(place.key.clone());
        }
        drop(inner);
        self.posted.notify_one();
    }

    /// Marks every verdict as unsent: a new stream knows none of them.
    pub(crate) fn resend_all(&self) {
        let mut inner = self.lock();
        let Inner { entries, unsent, .. } = &mut *inner;
        for (key, entry) in entries.iter_mut() {
            if entry.verdict.is_some() && !entry.unsent {
                entry.unsent = true;
                unsent.push_back(key.clone());
            }
        }
        drop(inner);
        self.posted.notify_one();
    }

    /// Whether a verdict waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.lock().unsent.is_empty()
    }

    /// The verdict that has waited longest, which then counts as sent.
    pub(crate) fn take_unsent(&self) -> Option<Verdict> {
        let mut inner = self.lock();
        while let Some(key) = inner.unsent.pop_front() {
            if let Some(entry) = inner.entries.get_mut(&key) {
                entry.unsent = false;
                if entry.verdict.is_some() {
                    return entry.verdict.clone();
                }
            }
        }
        None
    }

    /// Resolves after a post. Cancel-safe; for one waiter.
    pub(crate) async fn posted(&self) {
        self.posted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics between two writes, so a poisoned board is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> TargetKey {
        TargetKey { address: address.into(), ..TargetKey::default() }
    }

    fn verdict(address: &str, last: &str) -> Verdict {
        Verdict { key: Some(key(address)), last: last.into(), ..Verdict::default() }
    }

    fn take_all(board: &Board) -> Vec<Verdict> {
        std::iter::from_fn(|| board.take_unsent()).collect()
    }

    #[test]
    fn the_latest_verdict_wins() {
        let board = Board::default();
        let a = board.enter(&key("a"));
        let b = board.enter(&key("b"));
        board.post(&a, verdict("a", "1"));
        board.post(&b, verdict("b", "1"));
        board.post(&a, verdict("a", "2"));
        assert_eq!(take_all(&board), [verdict("a", "2"), verdict("b", "1")]);
        assert!(!board.has_unsent());
    }

    #[test]
    fn a_new_stream_gets_every_verdict_again() {
        let board = Board::default();
        let a = board.enter(&key("a"));
        board.enter(&key("never checked"));
        board.post(&a, verdict("a", "1"));
        take_all(&board);
        board.resend_all();
        board.resend_all();
        assert_eq!(take_all(&board), [verdict("a", "1")]);
    }

    #[test]
    fn a_target_that_left_is_forgotten_and_cannot_post() {
        let board = Board::default();
        let gone = board.enter(&key("a"));
        board.post(&gone, verdict("a", "old"));
        board.leave(&key("a"));
        assert!(!board.has_unsent());
        let back = board.enter(&key("a"));
        board.post(&gone, verdict("a", "late"));
        assert!(!board.has_unsent());
        board.post(&back, verdict("a", "new"));
        assert_eq!(take_all(&board), [verdict("a", "new")]);
    }
}
