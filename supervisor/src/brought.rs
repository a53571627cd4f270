//! What workers that outlived a supervisor bring back to the next one: their listening sockets.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Listening sockets that workers of an earlier supervisor brought, by incarnation.
#[derive(Debug, Default)]
pub struct Brought {
    sockets: Mutex<Vec<(u64, TcpListener)>>,
    count: watch::Sender<usize>,
}

impl Brought {
    /// Takes one in.
    pub fn put(&self, incarnation: u64, socket: TcpListener) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.push((incarnation, socket));
        self.count.send_replace(sockets.len());
    }

    /// Waits until `wanted` workers came, for at most `patience`; takes what there is.
    pub async fn take(&self, wanted: usize, patience: Duration) -> Vec<(u64, TcpListener)> {
        let mut count = self.count.subscribe();
        let all = count.wait_for(|count| *count >= wanted);
        drop(tokio::time::timeout(patience, all).await);
        std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
