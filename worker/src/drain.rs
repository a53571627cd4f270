//! The one signal that this worker takes no new work: everybody watches it, nobody asks twice.
//!
//! ```text
//! serving ──begin()──> draining        (there is no way back: a successor has the listening socket)
//! ```
//!
//! What it must never do is cut anything: it only tells. Each owner decides what finishing means for it.

use tokio::sync::watch;
use tokio::time::Instant;

/// Why and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// When tunnels that still live are closed; `None`: they live until they end by themselves.
    pub(crate) tunnel_deadline: Option<Instant>,
    /// For people.
    pub(crate) reason: String,
}

/// A handle on the signal; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    order: watch::Sender<Option<Order>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { order: watch::Sender::new(None) }
    }
}

// === impl Drain ===

impl Drain {
    /// Begins the drain. A second order may bring the tunnels' deadline forward and never puts it off.
    pub(crate) fn begin(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let sooner = match current.as_ref().map(|standing| standing.tunnel_deadline) {
                None | Some(None) => true,
                Some(Some(standing)) => order.tunnel_deadline.is_some_and(|new| new < standing),
            };
            if sooner {
                *current = Some(order);
            }
            sooner
        });
    }

    /// Whether new work is refused from now on.
    pub(crate) fn is_begun(&self) -> bool {
        self.order.borrow().is_some()
    }

    /// The order that stands.
    #[cfg(test)]
    pub(crate) fn order(&self) -> Option<Order> {
        self.order.borrow().clone()
    }

    /// Waits for the beginning. Cancel-safe.
    pub(crate) async fn begun(&self) {
        // The sender is `self`, so the channel cannot close while this waits.
        if self.order.subscribe().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A receiver that sees each change of the order.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Order>> {
        self.order.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn order(tunnel_deadline: Option<Instant>) -> Order {
        Order { tunnel_deadline, reason: "test".into() }
    }

    #[tokio::test]
    async fn everybody_who_waits_is_told_and_so_is_who_comes_late() {
        let drain = Drain::default();
        assert!(!drain.is_begun());
        let waiting = drain.clone();
        let ((), ()) = tokio::join!(waiting.begun(), async { drain.begin(order(None)) });
        drain.begun().await;
        assert!(drain.is_begun());
    }

    #[tokio::test]
    async fn a_second_order_only_brings_the_deadline_forward() {
        let drain = Drain::default();
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        drain.begin(order(None));
        drain.begin(order(Some(late)));
        assert_eq!(drain.order(), Some(order(Some(late))));
        drain.begin(order(Some(soon)));
        drain.begin(order(Some(late)));
        drain.begin(order(None));
        assert_eq!(drain.order(), Some(order(Some(soon))));
    }
}
