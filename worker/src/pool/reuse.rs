//! Idle HTTP/1.1 connections to backends, kept for the next request.
//!
//! A connection is shared only under the same transport settings, backend and TLS name. One that is closed, or still
//! busy with an earlier answer, is never handed out; nor may one that saw an upgrade attempt be put back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::connect::{ConnectError, connect};
use super::sender::Sender;
use super::{Backend, Binding};
use crate::respond::BoxError;

/// How long a connection may wait for its next request; Azure's figure, and under most servers' own.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How many wait per key. More than this at once means a burst is over.
const IDLE_AT_MOST: usize = 512;
/// How often connections past their time are let go.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The largest head of a backend's answer. hyper's own bound; a larger one is the backend's fault.
const MAX_HEAD: usize = 64 * 1024;

/// What must be equal for a connection to be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    transport: u64,
    backend: u64,
    tls_name: Option<String>,
}

/// The idle connections of a worker, for requests with bodies of type `B`.
#[derive(Debug)]
pub struct Idle<B> {
    waiting: Mutex<HashMap<Key, VecDeque<Waiting<B>>>>,
}

#[derive(Debug)]
struct Waiting<B> {
    sender: Sender<B>,
    since: Instant,
}

// === impl Key ===

impl Key {
    /// The key of connections to `backend` for a client's host.
    pub fn new(binding: &Binding, backend: &Backend, client_host: &str) -> Self {
        Self {
            transport: binding.transport.id,
            backend: backend.id,
            tls_name: binding.tls_name(backend, client_host),
        }
    }

    /// The transport settings' name.
    pub(super) fn transport(&self) -> u64 {
        self.transport
    }
}

// === impl Idle ===

impl<B> Default for Idle<B> {
    fn default() -> Self {
        Self { waiting: Mutex::new(HashMap::new()) }
    }
}

impl<B> Idle<B> {
    /// Takes the connection that was used last, if a live one is there.
    pub fn take(&self, key: &Key, now: Instant) -> Option<Sender<B>> {
        let mut waiting = self.lock();
        // Emptied, it stays: where all are busy, one comes back with every answer.
        let queue = waiting.get_mut(key)?;
        while let Some(Waiting { sender, since }) = queue.pop_back() {
            let is_fresh = now.saturating_duration_since(since) < IDLE_FOR;
            if sender.is_ready() && !sender.is_closed() && is_fresh {
                return Some(sender);
            }
        }
        None
    }

    /// Lets go of connections whose backend or transport settings are not in `bindings`.
    pub fn keep_only(&self, bindings: &[Arc<Binding>]) {
        let live: HashSet<(u64, u64)> = bindings
            .iter()
            .flat_map(|binding| {
                binding.backends.iter().map(|backend| (binding.transport.id, backend.id))
            })
            .collect();
        self.lock().retain(|key, _| live.contains(&(key.transport, key.backend)));
    }

    /// Lets go of everything: a draining worker needs no spare connections.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.lock().values().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lock().values().all(VecDeque::is_empty)
    }

    /// Lets go of connections that are closed or have waited too long, for ever. Cancel-safe.
    pub async fn tend(&self) {
        let mut turns = tokio::time::interval(SWEEP_EVERY);
        loop {
            turns.tick().await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        self.lock().retain(|_, queue| {
            queue.retain(|one| !one.sender.is_closed() && one.since.elapsed() < IDLE_FOR);
            !queue.is_empty()
        });
    }

    fn push(&self, key: Key, sender: Sender<B>) {
        let mut waiting = self.lock();
        let queue = waiting.entry(key).or_default();
        if queue.len() >= IDLE_AT_MOST {
            queue.pop_front();
        }
        queue.push_back(Waiting { sender, since: Instant::now() });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, VecDeque<Waiting<B>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send + 'static> Idle<B> {
    /// Gives a connection back. May be called as soon as the answer's head is there: the connection becomes
    /// available when its answer is over, and never if it does not survive that.
    pub fn put(self: &Arc<Self>, key: Key, mut sender: Sender<B>) {
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            self.push(key, sender);
            return;
        }
        let idle = Arc::downgrade(self);
        // Ends with the answer, or with the connection; both are bounded by the request's own limits.
        tokio::spawn(async move {
            if sender.ready().await.is_ok()
                && let Some(idle) = idle.upgrade()
            {
                idle.push(key, sender);
            }
        });
    }
}

/// Connects to a backend and sets HTTP/1.1 up on the connection; a task of its own drives it, and lends the
/// connection out if it is upgraded (the upgraded IO is a `TokioIo<Link>`).
pub async fn dial_http<B>(
    binding: &Binding,
    backend: &Backend,
    client_host: &str,
    patience: Duration,
) -> Result<Sender<B>, ConnectError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let io = connect(binding, backend, client_host, patience).await?;
    let label = backend.label();
    let source_port = io.tcp().local_addr().ok().map(|local| local.port());
    let (sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .handshake::<_, B>(TokioIo::new(io))
        .await
        .map_err(|source| ConnectError::Http { backend: label.clone(), source })?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            // The request in flight, if any, has been told the same.
            tracing::debug!(
                backend = label,
                error = &error as &dyn std::error::Error,
                "backend connection ended"
            );
        }
    });
    Ok(Sender::new(sender, source_port))
}

#[cfg(test)]
mod tests;
