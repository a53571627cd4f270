//! The prober child: started, watched, replaced. Its death changes no verdict.

use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::{self, Restarts};
use crate::children::{Children, Incarnation, Role};
use crate::metrics::Metrics;
use crate::reap;
use crate::spawn::Spawner;

/// Time for a prober to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// The prober as others see it.
#[derive(Debug, Default)]
pub struct Prober {
    incarnation: Mutex<Option<Arc<Incarnation>>>,
    view: watch::Sender<ProberView>,
    stopping: watch::Sender<bool>,
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
        self.view.borrow().clone()
    }

    /// Notes what it said.
    pub fn note(&self, incarnation: &Incarnation, change: impl FnOnce(&mut ProberView)) {
        let current = self.current();
        if current.is_some_and(|current| current.number == incarnation.number) {
            self.view.send_modify(change);
        }
    }

    /// Whether it keeps dying by itself.
    pub fn looping(&self) -> bool {
        lock(&self.looping_until).is_some_and(|over| Instant::now() < over)
    }

    /// Keeps one prober alive until [`Prober::stop`].
    pub async fn keep(&self, spawner: &Spawner, children: &Children, metrics: &Metrics) {
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
        *lock(&self.incarnation) = Some(incarnation.clone());
        self.view.send_replace(ProberView { pid, ..ProberView::default() });
        tracing::info!(pid, "prober started");
        let status = match incarnation.process() {
            Some(id) => {
                let status = reap::ended(id).await;
                reap::bury(id);
                metrics.ended(id);
                status
            }
            None => None,
        };
        let served = self.view.borrow().targets > 0;
        children.gone(&incarnation);
        self.view.send_replace(ProberView::default());
        let killed = status.is_some_and(|status| status.signal() == Some(nix::libc::SIGKILL));
        let status = status.map(|status| status.to_string());
        if !*self.stopping.borrow() {
            tracing::warn!(pid, status, "prober died; the last verdicts stand");
        }
        (served, !killed)
    }

    /// Ends it.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let Some(id) = self.current().and_then(|incarnation| incarnation.process()) else { return };
        crate::children::signal(id, rustix::process::Signal::TERM);
        if tokio::time::timeout(STOP_PATIENCE, holdfast_proto::process::gone(id)).await.is_err() {
            crate::children::signal(id, rustix::process::Signal::KILL);
        }
    }

    fn current(&self) -> Option<Arc<Incarnation>> {
        lock(&self.incarnation).clone()
    }
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
