//! Which earlier generations are gone, and when nothing of theirs can come any more.
//!
//! Pure but for the waiting for processes.

use std::collections::HashMap;

use holdfast_proto::bootstrap::Death;
use holdfast_proto::process;
use tokio::task::JoinSet;

use super::Generations;
use crate::tunnel::Tunnels;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// What the supervisor knew of deaths at this process's birth.
    told: HashMap<u64, Death>,
    watched: Generations,
    watching: JoinSet<u64>,
    gone: HashMap<u64, Death>,
    /// Lower generations whose channel to the vault is open; `None` until all has been handed.
    attached: Option<Generations>,
    swept: Generations,
}

impl Departed {
    pub(super) fn new(told: Vec<Death>) -> Self {
        let told = told.into_iter().map(|death| (death.generation, death)).collect();
        Self { told, ..Self::default() }
    }

    /// How a generation ended; `None`: it lives.
    pub(super) fn death_of(&mut self, generation: u64, tunnels: &Tunnels) -> Option<Death> {
        if let Some(death) = self.gone.get(&generation) {
            return Some(*death);
        }
        if tunnels.process_of(generation).is_some_and(process::runs) {
            return None;
        }
        Some(self.note_gone(generation, tunnels.now_us()))
    }

    /// Waits for its end.
    pub(super) fn watch(&mut self, generation: u64, tunnels: &Tunnels) {
        if !self.watched.insert(generation) {
            return;
        }
        let process = tunnels.process_of(generation);
        self.watching.spawn(async move {
            if let Some(process) = process {
                process::gone(process).await;
            }
            generation
        });
    }

    /// The next one that ends. Cancel-safe.
    pub(super) async fn next(&mut self, tunnels: &Tunnels) -> Death {
        match self.watching.join_next().await {
            Some(Ok(generation)) => self.note_gone(generation, tunnels.now_us()),
            _ => std::future::pending().await,
        }
    }

    fn note_gone(&mut self, generation: u64, now_us: u64) -> Death {
        let unknown = Death { generation, by_itself: false, at_us: now_us };
        let death = self.told.get(&generation).copied().unwrap_or(unknown);
        self.gone.insert(generation, death);
        death
    }

    /// Everything that the vault held has been handed; these channels are open still.
    pub(super) fn note_handed_all(&mut self, attached: Vec<u64>) {
        self.attached = Some(attached.into_iter().collect());
    }

    /// A channel has ended, and all that was deposited on it has been handed.
    pub(super) fn note_detached(&mut self, generation: u64) {
        if let Some(attached) = self.attached.as_mut() {
            attached.remove(&generation);
        }
    }

    /// Its tunnels have been taken.
    pub(super) fn note_taken(&mut self, generation: u64) {
        self.watched.remove(&generation);
    }

    /// Generations that are gone and of which nothing can come any more; each once.
    pub(super) fn sweep_due(&mut self) -> Vec<u64> {
        let Some(attached) = &self.attached else { return Vec::new() };
        let due: Vec<_> = (self.gone.keys())
            .filter(|generation| !attached.contains(generation))
            .filter(|generation| !self.swept.contains(generation))
            .copied()
            .collect();
        self.swept.extend(&due);
        due
    }
}
