//! What workers that outlived a supervisor bring back to the next one: their listening sockets.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Listening sockets that workers of an earlier supervisor brought, by incarnation.
#[derive(Debug)]
pub struct Brought {
    /// `None` once they are taken: a worker that comes later brings a duplicate of what we hold.
    sockets: Mutex<Option<Vec<(u64, TcpListener)>>>,
    count: watch::Sender<usize>,
}

impl Default for Brought {
    fn default() -> Self {
        Self { sockets: Mutex::new(Some(Vec::new())), count: watch::Sender::default() }
    }
}

impl Brought {
    /// Takes one in.
    pub fn put(&self, incarnation: u64, socket: TcpListener) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sockets) = sockets.as_mut() else { return };
        // It may have dialled twice.
        sockets.retain(|(earlier, _)| *earlier != incarnation);
        sockets.push((incarnation, socket));
        self.count.send_replace(sockets.len());
    }

    /// Waits until `wanted` workers came, for at most `patience`; takes what there is.
    pub async fn take(&self, wanted: usize, patience: Duration) -> Vec<(u64, TcpListener)> {
        let mut count = self.count.subscribe();
        let all = count.wait_for(|count| *count >= wanted);
        drop(tokio::time::timeout(patience, all).await);
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.take().unwrap_or_default()
    }
}
