//! How many questions are out at once: to one responder, and to all together; and who is left alone for a moment.
//!
//! Whoever waits for one responder holds no place that another's clients need, and one that was not there is not waited for
//! again at once: so a responder that swallows questions costs its own clients a wait each five seconds, and nobody else
//! anything.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::AFTER_FAILURE;

/// Questions to all responders at once; more wait.
const MOST: usize = 64;
/// The same, to one.
const MOST_OF_ONE: usize = 16;
/// For how long one waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Responders that are known, unless more are asked at once.
const KNOWN: usize = 256;

/// Everybody's turns.
#[derive(Debug)]
pub(super) struct Turns {
    all: Semaphore,
    /// By host and port.
    each: Mutex<HashMap<String, Arc<One>>>,
}

/// One responder's.
#[derive(Debug)]
struct One {
    turns: Semaphore,
    left_alone: Mutex<Option<Instant>>,
}

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTurn {
    #[error("the responder was not there just now")]
    LeftAlone {
        /// For how much longer.
        remaining: Duration,
    },
    #[error("too many questions are waiting for answers")]
    Crowd,
}

// === impl Turns ===

impl Default for Turns {
    fn default() -> Self {
        Self { all: Semaphore::new(MOST), each: Mutex::default() }
    }
}

impl Turns {
    /// Asks a responder when its turn comes. `is_absence` tells that it was not there.
    pub(super) async fn take<T, E: From<NoTurn>>(
        &self,
        responder: String,
        asking: impl Future<Output = Result<T, E>>,
        is_absence: impl FnOnce(&E) -> bool,
    ) -> Result<T, E> {
        let one = self.of(responder);
        one.check()?;
        // Its own first: who waits for that takes nothing from others.
        let both = async { (one.turns.acquire().await, self.all.acquire().await) };
        let (Ok(_own), Ok(_all)) = timeout(TURN, both).await.map_err(|_| NoTurn::Crowd)? else {
            return Err(NoTurn::Crowd.into());
        };
        // Those before may have found nobody.
        one.check()?;
        let asked = asking.await;
        if asked.as_ref().is_err_and(is_absence) {
            *one.lock() = Some(Instant::now() + AFTER_FAILURE);
        }
        asked
    }

    fn of(&self, responder: String) -> Arc<One> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= KNOWN && !each.contains_key(&responder) {
            each.retain(|_, one| Arc::strong_count(one) > 1 || one.check().is_err());
        }
        let one = || One { turns: Semaphore::new(MOST_OF_ONE), left_alone: Mutex::new(None) };
        each.entry(responder).or_insert_with(|| Arc::new(one())).clone()
    }
}

// === impl One ===

impl One {
    fn check(&self) -> Result<(), NoTurn> {
        let remaining = self.lock().map(|until| until.saturating_duration_since(Instant::now()));
        match remaining.filter(|remaining| !remaining.is_zero()) {
            Some(remaining) => Err(NoTurn::LeftAlone { remaining }),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.left_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
