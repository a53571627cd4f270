//! Addresses of a backend that is configured by name.
//!
//! Answers are kept for a short time and the last good ones survive a failing resolver. A slow resolver never holds
//! up a backend whose addresses are known: somebody asks, the others go on with what they have.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

/// How long an answer is used without asking again. The system's resolver does not tell a record's TTL; ten seconds
/// follow a changed record soon enough and ask rarely enough.
const FRESH_FOR: Duration = Duration::from_secs(10);
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
    asked: Option<Instant>,
}

// === impl Addresses ===

impl Addresses {
    /// The addresses of `host`, never empty.
    pub async fn of(&self, host: &str) -> io::Result<Arc<[IpAddr]>> {
        self.resolve(|| async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
        .await
    }

    async fn resolve<L, F>(&self, lookup: L) -> io::Result<Arc<[IpAddr]>>
    where
        L: FnOnce() -> F,
        F: Future<Output = io::Result<Vec<IpAddr>>>,
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
        let fresh = known.asked.is_some_and(|asked| asked.elapsed() < FRESH_FOR);
        (Arc::clone(&known.addresses), fresh)
    }

    fn learn(&self, answer: io::Result<Vec<IpAddr>>) -> io::Result<Arc<[IpAddr]>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.asked = Some(Instant::now());
        let mut addresses = answer?;
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
        Ok(Arc::clone(&known.addresses))
    }

    /// A first lookup that failed is not an answer to rest on.
    fn forget_asking(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).asked = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_ten_seconds() {
        let addresses = Addresses::default();
        let first = addresses.resolve(|| async { Ok(vec![v4(1), v4(1)]) }).await.unwrap();
        assert_eq!(&*first, &[v4(1)]);
        let kept = addresses.resolve(|| async { Ok(vec![v4(2)]) }).await.unwrap();
        assert_eq!(&*kept, &[v4(1)]);
        tokio::time::advance(FRESH_FOR).await;
        let renewed = addresses.resolve(|| async { Ok(vec![v4(2)]) }).await.unwrap();
        assert_eq!(&*renewed, &[v4(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_addresses_outlive_failing_and_hanging_lookups() {
        let addresses = Addresses::default();
        addresses.resolve(|| async { Ok(vec![v4(1)]) }).await.unwrap();
        tokio::time::advance(FRESH_FOR).await;
        let failed = addresses.resolve(|| async { Err(io::ErrorKind::Other.into()) }).await;
        assert_eq!(&*failed.unwrap(), &[v4(1)]);
        tokio::time::advance(FRESH_FOR).await;
        let empty = addresses.resolve(|| async { Ok(Vec::new()) }).await;
        assert_eq!(&*empty.unwrap(), &[v4(1)]);
        tokio::time::advance(FRESH_FOR).await;
        let hung = addresses.resolve(std::future::pending).await;
        assert_eq!(&*hung.unwrap(), &[v4(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_lookup_that_failed_is_tried_again_at_once() {
        let addresses = Addresses::default();
        assert!(addresses.resolve(|| async { Err(io::ErrorKind::Other.into()) }).await.is_err());
        let found = addresses.resolve(|| async { Ok(vec![v4(3)]) }).await.unwrap();
        assert_eq!(&*found, &[v4(3)]);
    }
}
