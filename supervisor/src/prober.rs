//! The prober child: started, watched, replaced. Its death changes no verdict.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::process::ProcessId;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::backoff::{self, Restarts};
use crate::children::{Children, Incarnation, Role, signal};
use crate::metrics::Metrics;
use crate::reap;
use crate::spawn::Spawner;

/// Time for a prober to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// The prober as others see it.
#[derive(Debug, Default)]
pub struct Prober {
    /// The latest one's number, and what is known of it.
    latest: Mutex<(u64, ProberView)>,
    stopping: watch::Sender<bool>,
    /// Somebody keeps one, or is about to start one.
    kept: watch::Sender<bool>,
    /// It keeps dying by itself; over when one has lived until then.
    looping_until: Mutex<Option<Instant>>,
}

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProberView {
    /// Its pid; 0 while there is none.
    pub pid: u32,
    /// Its stream is open.
    pub connected: bool,
    /// Its executable's version.
    pub version: String,
    /// Last target set that it took over.
    pub targets: u64,
}

impl Prober {
    /// What is known now.
    pub fn view(&self) -> ProberView {
        lock(&self.latest).1.clone()
    }

    /// Notes what it said, perhaps before its keeper has noted that there is one. What an earlier one says is no news.
    pub fn note(&self, incarnation: &Incarnation, change: impl FnOnce(&mut ProberView)) {
        let mut latest = lock(&self.latest);
        if latest.0 < incarnation.number {
            let view = ProberView { pid: incarnation.pid(), ..ProberView::default() };
            *latest = (incarnation.number, view);
        }
        if latest.0 == incarnation.number {
            change(&mut latest.1);
        }
    }

    /// Whether it keeps dying by itself.
    pub fn looping(&self) -> bool {
        lock(&self.looping_until).is_some_and(|over| Instant::now() < over)
    }

    /// Somebody is about to keep one: who stops it waits for that one from now on. Said before the keeper looks whether it is to
    /// stop, since who stops it looks the other way round.
    pub fn is_to_be_kept(&self) {
        self.kept.send_replace(true);
    }

    /// Keeps one prober alive until [`Prober::stop`], and sees off those of an earlier supervisor. After
    /// [`Prober::is_to_be_kept`].
    pub async fn keep(
        &self,
        earlier: Vec<ProcessId>,
        spawner: &Spawner,
        children: &Children,
        metrics: &Metrics,
    ) {
        let _kept = Kept(&self.kept);
        let ending = join_all(earlier.into_iter().map(end));
        tokio::join!(ending, self.keep_until_stopped(spawner, children, metrics));
    }

    async fn keep_until_stopped(&self, spawner: &Spawner, children: &Children, metrics: &Metrics) {
        let mut restarts = Restarts::default();
        let born = Instant::now();
        let mut stopping = self.stopping.subscribe();
        while !*stopping.borrow() {
            let (served, by_itself) = self.one_life(spawner, children, metrics).await;
            if *stopping.borrow() {
                return;
            }
            let delay = self.died(&mut restarts, born.elapsed(), served, by_itself);
            // Cancel-safe: a sleep, and a watch whose value is read again by the loop.
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = stopping.changed() => {}
            }
        }
    }

    fn died(
        &self,
        restarts: &mut Restarts,
        now: Duration,
        served: bool,
        by_itself: bool,
    ) -> Duration {
        let delay = restarts.died(now, served, by_itself);
        let looping = restarts.looping(now);
        *lock(&self.looping_until) = looping.then(|| Instant::now() + delay + backoff::WINDOW);
        if looping {
            tracing::error!(?delay, "the prober keeps dying by itself; waiting before the next");
        }
        delay
    }

    async fn one_life(
        &self,
        spawner: &Spawner,
        children: &Children,
        metrics: &Metrics,
    ) -> (bool, bool) {
        let incarnation = match spawner.spawn(Role::Prober, 1, Vec::new()).await {
            Ok(born) => born,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot start the prober"
                );
                return (false, true);
            }
        };
        let pid = incarnation.pid();
        // It holds this thread up, and nobody else.
        #[cfg(feature = "failpoints")]
        tokio::task::block_in_place(|| holdfast_proto::failpoint!("prober.born"));
        self.note(&incarnation, |_| {});
        tracing::info!(pid, "prober started");
        let status = match incarnation.process() {
            Some(id) => {
                let status = self.ended(id).await;
                reap::bury(id);
                metrics.ended(id);
                status
            }
            None => None,
        };
        let served = self.view().targets > 0;
        children.gone(&incarnation);
        self.note(&incarnation, |view| *view = ProberView::default());
        let killed = status.is_some_and(|status| status.signal() == Some(nix::libc::SIGKILL));
        let status = status.map(|status| status.to_string());
        if !*self.stopping.borrow() {
            tracing::warn!(pid, status, "prober died; the last verdicts stand");
        }
        (served, !killed)
    }

    /// Waits for its end, which is at hand once it is to stop.
    async fn ended(&self, id: ProcessId) -> Option<ExitStatus> {
        let mut stopping = self.stopping.subscribe();
        // Cancel-safe, both: they only wait.
        tokio::select! {
            status = reap::ended(id) => return status,
            // Without a sender there would be nobody here.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        end(id).await
    }

    /// Ends it, also one that is only being born; none is left or will be started when this returns.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        drop(self.kept.subscribe().wait_for(|kept| !*kept).await);
    }
}

/// As long as this lives, whoever stops the prober waits for its keeper; not for one that has panicked.
struct Kept<'a>(&'a watch::Sender<bool>);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Asks a prober to end, and kills one that does not: it may stand still.
async fn end(id: ProcessId) -> Option<ExitStatus> {
    signal(id, Signal::TERM);
    if let Ok(status) = timeout(STOP_PATIENCE, reap::ended(id)).await {
        return status;
    }
    signal(id, Signal::KILL);
    reap::ended(id).await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_told_until_one_has_lived_long_enough() {
        let (prober, mut restarts, born) = (Prober::default(), Restarts::default(), Instant::now());
        let mut delay = Duration::ZERO;
        for _ in 0..=backoff::MOST_DEATHS {
            assert!(!prober.looping());
            tokio::time::advance(delay).await;
            delay = prober.died(&mut restarts, born.elapsed(), true, true);
        }
        assert!(prober.looping());
        tokio::time::advance(delay + backoff::WINDOW / 2).await;
        assert!(prober.looping());
        tokio::time::advance(backoff::WINDOW / 2).await;
        assert!(!prober.looping());
        prober.died(&mut restarts, born.elapsed(), true, true);
        assert!(!prober.looping());
    }
}
