//! Backend connections that belong to one client's connection, for backends that take a connection for a person (NTLM).
//!
//! They live here between the requests of that client and nowhere else, and end with its connection. Nobody else's
//! request may ever go over one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::reuse::Key;
use super::sender::Sender;
use super::{Backend, Binding};

/// The connections of one client's connection, at most one a binding.
#[derive(Debug)]
pub struct Dedicated<B> {
    /// By the binding's transport: another revision's settings may need another connection.
    kept: Mutex<HashMap<u64, Kept<B>>>,
}

#[derive(Debug)]
struct Kept<B> {
    key: Key,
    backend: Arc<Backend>,
    sender: Sender<B>,
}

// === impl Dedicated ===

impl<B> Default for Dedicated<B> {
    fn default() -> Self {
        Self { kept: Mutex::new(HashMap::new()) }
    }
}

impl<B> Dedicated<B> {
    /// The backend that this client already has a connection to, in a binding.
    pub fn backend(&self, binding: &Binding) -> Option<Arc<Backend>> {
        let kept = self.lock();
        let kept = kept.get(&binding.transport.id).filter(|kept| !kept.sender.is_closed())?;
        Some(Arc::clone(&kept.backend))
    }

    /// Takes the connection, once its last answer is over; `patience` bounds that. One to another backend, or under
    /// another name, ends.
    pub async fn take(&self, key: &Key, patience: Duration) -> Option<Sender<B>> {
        let kept = self.lock().remove(&key.transport())?;
        let mut sender = kept.sender;
        let fits = kept.key == *key;
        (fits && matches!(timeout(patience, sender.ready()).await, Ok(Ok(())))).then_some(sender)
    }

    /// Gives the connection back. May be called as soon as the answer's head is there.
    pub fn put(&self, key: Key, backend: Arc<Backend>, sender: Sender<B>) {
        if !sender.is_closed() {
            self.lock().insert(key.transport(), Kept { key, backend, sender });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Kept<B>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
