//! A deadline that moves with every request.
//!
//! To set the runtime's timer takes as long as to look at one that has ended too early, and would be done twice a request.
//! So a timer that is set stays, until it ends or has to end earlier.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Waits for one deadline after the other.
#[derive(Debug, Default)]
pub(super) struct Watch(Option<Pin<Box<Sleep>>>);

// === impl Watch ===

impl Watch {
    /// Ready once `deadline` has come; another call may have another one.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if deadline <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_is_kept_wherever_the_timer_stands() {
        let began = Instant::now();
        let mut watch = Watch::default();
        for (seconds, next) in [(5, 9), (9, 20), (12, 30)] {
            let pending = poll_fn(|cx| Poll::Ready(watch.poll(began + next * SECOND, cx))).await;
            assert_eq!(pending, Poll::Pending, "{next} s are not over");
            poll_fn(|cx| watch.poll(began + seconds * SECOND, cx)).await;
            assert_eq!(began.elapsed().as_secs(), u64::from(seconds));
        }
    }
}
