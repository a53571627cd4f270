//! Addresses of a backend that is configured by name.
//!
//! An answer is kept for as long as it says that it holds, and the last good one survives a failing resolver. A slow
//! resolver never holds up a backend whose addresses are known: somebody asks, the others go on with what they have.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

mod lookup;

/// An answer is used for a second even where it holds for no time: one lookup serves a burst of connections.
const SHORTEST: Duration = Duration::from_secs(1);
/// And for no longer than this: a question in five minutes costs nobody anything, and an emergency may not wait for a
/// time to live of a day.
const LONGEST: Duration = Duration::from_secs(300);
/// How long nobody asks again after a failure, while the last good answer is there.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// How long one request waits for a renewal when it has addresses to go on with.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(1);

/// The known addresses of one name.
#[derive(Debug, Default)]
pub struct Addresses {
    known: Mutex<Known>,
    asking: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Arc<[IpAddr]>,
    /// When to ask again.
    until: Option<Instant>,
}

/// What a name was found to be.
#[derive(Debug)]
struct Answer {
    addresses: Vec<IpAddr>,
    /// How long it is true.
    holds: Duration,
}

// === impl Addresses ===

impl Addresses {
    /// The addresses of `host`, never empty.
    pub async fn of(&self, host: &str) -> io::Result<Arc<[IpAddr]>> {
        self.resolve(|| lookup::lookup(host)).await
    }

    async fn resolve<L, F>(&self, lookup: L) -> io::Result<Arc<[IpAddr]>>
    where
        L: FnOnce() -> F,
        F: Future<Output = io::Result<Answer>>,
    {
        let (known, fresh) = self.state();
        if fresh {
            return Ok(known);
        }
        if known.is_empty() {
            let _turn = self.asking.lock().await;
            // Somebody may have asked while this one waited for its turn.
            let (known, fresh) = self.state();
            if fresh && !known.is_empty() {
                return Ok(known);
            }
            return self.learn(lookup().await).inspect_err(|_| self.forget_asking());
        }
        let Ok(_turn) = self.asking.try_lock() else { return Ok(known) };
        let answer = timeout(RENEWAL_PATIENCE, lookup())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Ok(self.learn(answer).unwrap_or_else(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "last addresses are kept");
            known
        }))
    }

    fn state(&self) -> (Arc<[IpAddr]>, bool) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.until.is_some_and(|until| Instant::now() < until);
        (Arc::clone(&known.addresses), fresh)
    }

    fn learn(&self, answer: io::Result<Answer>) -> io::Result<Arc<[IpAddr]>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.until = Some(now + AFTER_FAILURE);
        let Answer { mut addresses, holds } = answer?;
        // getaddrinfo repeats an address per socket type on some systems.
        let mut seen = Vec::with_capacity(addresses.len());
        addresses.retain(|address| {
            let new = !seen.contains(address);
            seen.push(*address);
            new
        });
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        known.addresses = addresses.into();
        known.until = Some(now + holds.clamp(SHORTEST, LONGEST));
        Ok(Arc::clone(&known.addresses))
    }

    /// A first lookup that failed is not an answer to rest on.
    fn forget_asking(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).until = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn answer(last: &[u8], holds: u64) -> Answer {
        let addresses = last.iter().copied().map(v4).collect();
        Answer { addresses, holds: Duration::from_secs(holds) }
    }

    async fn learn(addresses: &Addresses, last: u8, holds: u64) -> IpAddr {
        let known = addresses.resolve(|| async { Ok(answer(&[last], holds)) }).await.unwrap();
        known.first().copied().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_as_long_as_it_holds_within_reason() {
        for (holds, kept) in [(30, 30), (0, 1), (86_400, 300)] {
            let addresses = Addresses::default();
            let first = addresses.resolve(|| async { Ok(answer(&[1, 1], holds)) }).await.unwrap();
            assert_eq!(&*first, &[v4(1)]);
            tokio::time::advance(Duration::from_millis(kept * 1000 - 1)).await;
            assert_eq!(learn(&addresses, 2, holds).await, v4(1));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(learn(&addresses, 2, holds).await, v4(2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_addresses_outlive_failing_and_hanging_lookups() {
        let addresses = Addresses::default();
        learn(&addresses, 1, 1).await;
        tokio::time::advance(SHORTEST).await;
        let failed = addresses.resolve(|| async { Err(io::ErrorKind::Other.into()) }).await;
        assert_eq!(&*failed.unwrap(), &[v4(1)]);
        assert_eq!(learn(&addresses, 2, 1).await, v4(1), "nobody asks at once again");
        tokio::time::advance(AFTER_FAILURE).await;
        let empty = addresses.resolve(|| async { Ok(answer(&[], 1)) }).await;
        assert_eq!(&*empty.unwrap(), &[v4(1)]);
        tokio::time::advance(AFTER_FAILURE).await;
        let hung = addresses.resolve(std::future::pending).await;
        assert_eq!(&*hung.unwrap(), &[v4(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_lookup_that_failed_is_tried_again_at_once() {
        let addresses = Addresses::default();
        assert!(addresses.resolve(|| async { Err(io::ErrorKind::Other.into()) }).await.is_err());
        assert_eq!(learn(&addresses, 3, 1).await, v4(3));
    }
}
