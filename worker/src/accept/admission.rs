//! How many clients' TLS handshakes are under way at once, and how long others wait for their turn.
//!
//! A handshake holds memory that its client decides the amount and the time of; so the sum is bounded, whoever connects.
//! Nothing is read for who waits: what it has sent stays in the kernel. A place is held for a handshake and for nothing
//! before or after it, and never without a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// Handshakes under way at once, for each thread that makes them. One that waits for its client's Finished was measured at
/// 12 KiB, one with most of the longest hello that rustls reads at 67; a connection that waits for its place, or has
/// not said a word, at 0.6. So this is 3 MiB a thread, and 17 under attack. On the other hand a thread can make one or
/// two thousand handshakes a second, and so many places let it: each is held for a round trip, which is 150 ms for a
/// far client.
const PLACES_A_THREAD: usize = 256;
/// How long a handshake may take that has had to wait for its place: others wait behind it, and those before it may have
/// come to keep the places occupied. Ten round trips of a far client.
const IN_A_CROWD: Duration = Duration::from_secs(2);

/// The places of a process.
#[derive(Debug)]
pub(super) struct Admission {
    places: Semaphore,
    most: usize,
    /// It has been said that there is a crowd.
    told: AtomicBool,
}

/// A handshake may go on.
#[derive(Debug)]
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    /// Until then.
    pub(super) deadline: Instant,
}

/// No place became free in time.
#[derive(Debug, Error)]
#[error("{most} other TLS handshakes were under way for too long")]
pub(super) struct Crowded {
    most: usize,
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(threads: usize) -> Self {
        let most = PLACES_A_THREAD.saturating_mul(threads.max(1)).min(Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(most), most, told: AtomicBool::new(false) }
    }

    /// Waits for a place, `patience` at most; who comes first is first. A handshake that need not wait has until
    /// `deadline`; the wait of another is not counted against it.
    pub(super) async fn enter(
        &self,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Place<'_>, Crowded> {
        // Never past somebody who waits: a place that becomes free is theirs at once.
        if let Ok(permit) = self.places.try_acquire() {
            if self.places.available_permits() > self.most / 2 {
                self.told.store(false, Ordering::Relaxed);
            }
            return Ok(Place { _permit: permit, deadline });
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(under_way = self.most, "TLS handshakes wait: too many are under way");
        }
        let begun = Instant::now();
        // Nobody closes it: the inner error says as little as the outer one.
        let permit = timeout(patience, self.places.acquire()).await.map(Result::ok);
        let permit = permit.ok().flatten().ok_or(Crowded { most: self.most })?;
        let now = Instant::now();
        let deadline = (deadline + now.duration_since(begun)).min(now + IN_A_CROWD);
        Ok(Place { _permit: permit, deadline })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn due() -> Instant {
        Instant::now() + PATIENCE
    }

    async fn full(admission: &Admission) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        for _ in 0..admission.most {
            places.push(admission.enter(due(), PATIENCE).await.unwrap());
        }
        places
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_a_place_has_its_whole_time() {
        let admission = Admission::new(2);
        let due = due();
        assert_eq!(admission.enter(due, PATIENCE).await.unwrap().deadline, due);
        assert_eq!(full(&admission).await.len(), 2 * PLACES_A_THREAD);
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_waits_in_vain_where_nobody_leaves() {
        let admission = Admission::new(1);
        let places = full(&admission).await;
        admission.enter(due(), PATIENCE).await.unwrap_err();
        drop(places);
        admission.enter(due(), PATIENCE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn places_go_to_those_who_wait_in_their_order_and_for_a_short_time() {
        let admission = Arc::new(Admission::new(1));
        let mut places = full(&admission).await;
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let (admission, order) = (Arc::clone(&admission), Arc::clone(&order));
                tokio::spawn(async move {
                    let place = admission.enter(due(), PATIENCE).await.unwrap();
                    order.lock().unwrap().push(number);
                    assert!(place.deadline <= Instant::now() + IN_A_CROWD);
                })
            })
            .collect();
        tokio::time::sleep(PATIENCE / 2).await;
        assert!(order.lock().unwrap().is_empty());
        places.pop();
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_not_counted_against_a_handshake() {
        let admission = Admission::new(1);
        let mut places = full(&admission).await;
        let nearly = Duration::from_millis(500);
        let entering = admission.enter(Instant::now() + nearly, PATIENCE);
        let leaving = async {
            tokio::time::sleep(PATIENCE / 2).await;
            places.pop();
        };
        let (place, ()) = tokio::join!(entering, leaving);
        assert_eq!(place.unwrap().deadline, Instant::now() + nearly);
    }
}
