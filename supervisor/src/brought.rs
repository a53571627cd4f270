//! Who outlived a supervisor and has come to the next one, with which listening socket. One that drains has none.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::process;
use tokio::sync::watch;

use crate::children::Incarnation;

/// Workers that came, by incarnation, and their listening sockets.
pub type Came = BTreeMap<u64, Option<TcpListener>>;

/// Listening sockets that workers of an earlier supervisor brought.
#[derive(Debug)]
pub struct Brought {
    /// `None` once they are taken: a worker that comes later brings a duplicate of what we hold.
    came: Mutex<Option<Came>>,
    bell: watch::Sender<()>,
}

impl Default for Brought {
    fn default() -> Self {
        Self { came: Mutex::new(Some(Came::new())), bell: watch::Sender::default() }
    }
}

impl Brought {
    /// Takes one in.
    pub fn put(&self, incarnation: u64, socket: Option<TcpListener>) {
        if let Some(came) = self.lock().as_mut() {
            // It may have dialled twice.
            came.insert(incarnation, socket);
        }
        // Not under the lock: who waits looks while the bell is held.
        self.bell.send_replace(());
    }

    /// Waits until each of `wanted` came or is gone, for at most `patience`; takes what there is.
    pub async fn take(&self, wanted: &[Arc<Incarnation>], patience: Duration) -> Came {
        let each = wanted.iter().map(|child| async {
            let mut bell = self.bell.subscribe();
            let gone = async {
                if let Some(id) = child.process() {
                    process::gone(id).await;
                }
            };
            // Cancel-safe, both: they only wait.
            tokio::select! {
                _ = bell.wait_for(|()| self.has_come(child.number)) => {}
                () = gone => {}
            }
        });
        if tokio::time::timeout(patience, join_all(each)).await.is_err() {
            tracing::warn!(
                ?patience,
                "a worker of an earlier supervisor lives and has not come; going on"
            );
        }
        self.lock().take().unwrap_or_default()
    }

    fn has_come(&self, incarnation: u64) -> bool {
        self.lock().as_ref().is_some_and(|came| came.contains_key(&incarnation))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Came>> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::children::{Children, Role};
    use holdfast_proto::process::ProcessId;

    fn worker(children: &Children, id: ProcessId) -> Arc<Incarnation> {
        let listener = ([127, 0, 0, 1], 80).into();
        let worker = children.expect(Role::Worker { listener, generation: 1 });
        children.born(&worker, id).unwrap();
        worker
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_waits_for_the_living_only_and_for_those_with_nothing_to_bring_too() {
        let directory = tempfile::tempdir().unwrap();
        let children = Children::new(directory.path());
        let me = ProcessId::me().unwrap();
        let dead = worker(&children, ProcessId { start_time: 1, ..me });
        for _ in 0..200 {
            let living: Vec<_> = (0..4).map(|_| worker(&children, me)).collect();
            let wanted: Vec<_> = living.iter().chain([&dead]).cloned().collect();
            let brought = Arc::new(Brought::default());
            let puts = living.iter().map(|child| {
                let (brought, number) = (brought.clone(), child.number);
                std::thread::spawn(move || brought.put(number, None))
            });
            let puts: Vec<_> = puts.collect();
            let came = brought.take(&wanted, Duration::from_secs(60)).await;
            assert_eq!(came.len(), living.len());
            for put in puts {
                put.join().unwrap();
            }
        }
        let patience = Duration::from_millis(10);
        let nobody = Brought::default();
        assert!(nobody.take(&[worker(&children, me)], patience).await.is_empty());
    }
}
