//! The prober child: started, watched, replaced. Its death changes no verdict.

use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Restarts;
use crate::children::{Children, Incarnation, Role};
use crate::spawn::Spawner;

/// Time for a prober to end after SIGTERM.
const STOP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// The prober as others see it.
#[derive(Debug, Default)]
pub struct Prober {
    incarnation: Mutex<Option<Arc<Incarnation>>>,
    view: watch::Sender<ProberView>,
    stopping: watch::Sender<bool>,
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

    /// Keeps one prober alive until [`Prober::stop`].
    pub async fn keep(&self, spawner: &Spawner, children: &Children) {
        let mut restarts = Restarts::default();
        let born = Instant::now();
        let mut stopping = self.stopping.subscribe();
        while !*stopping.borrow() {
            let (served, by_itself) = self.one_life(spawner, children).await;
            if *stopping.borrow() {
                return;
            }
            let delay = restarts.died(born.elapsed(), served, by_itself);
            // Cancel-safe: a sleep, and a watch whose value is read again by the loop.
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = stopping.changed() => {}
            }
        }
    }

    async fn one_life(&self, spawner: &Spawner, children: &Children) -> (bool, bool) {
        let (incarnation, mut child) = match spawner.spawn(Role::Prober, 1).await {
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
        let status = child.wait().await;
        let served = self.view.borrow().targets > 0;
        children.gone(&incarnation);
        self.view.send_replace(ProberView::default());
        let killed = status.as_ref().is_ok_and(|s| s.signal() == Some(nix::libc::SIGKILL));
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
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
        if tokio::time::timeout(STOP_PATIENCE, crate::children::gone(id)).await.is_err() {
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
