//! Who outlived a supervisor and has come to the next one, with which listening socket. One that drains has none.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// A worker, by incarnation, and its listening socket.
type Came = (u64, Option<TcpListener>);

/// Listening sockets that workers of an earlier supervisor brought, by incarnation.
#[derive(Debug)]
pub struct Brought {
    /// `None` once they are taken: a worker that comes later brings a duplicate of what we hold.
    came: Mutex<Option<Vec<Came>>>,
    count: watch::Sender<usize>,
}

impl Default for Brought {
    fn default() -> Self {
        Self { came: Mutex::new(Some(Vec::new())), count: watch::Sender::default() }
    }
}

impl Brought {
    /// Takes one in.
    pub fn put(&self, incarnation: u64, socket: Option<TcpListener>) {
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(came) = came.as_mut() else { return };
        // It may have dialled twice.
        came.retain(|(earlier, _)| *earlier != incarnation);
        came.push((incarnation, socket));
        self.count.send_replace(came.len());
    }

    /// Waits until `wanted` workers came, for at most `patience`; takes what there is.
    pub async fn take(&self, wanted: usize, patience: Duration) -> Vec<(u64, TcpListener)> {
        let mut count = self.count.subscribe();
        let all = count.wait_for(|count| *count >= wanted);
        drop(tokio::time::timeout(patience, all).await);
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner).take();
        let came = came.unwrap_or_default().into_iter();
        came.filter_map(|(incarnation, socket)| Some((incarnation, socket?))).collect()
    }
}
