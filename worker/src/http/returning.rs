//! A backend connection whose answer is on its way, and where it goes when that has come whole.

use std::sync::Arc;

use crate::load::Held;
use crate::pool::Backend;
use crate::pool::dedicated::Dedicated;
use crate::pool::reuse::{Idle, Key};
use crate::pool::sender::Sender;
use crate::respond::BoxBody;

/// Where a backend connection waits for its next request.
pub(super) enum Keep {
    /// With those that any client's request may take.
    Shared(Arc<Idle<BoxBody>>),
    /// With those of one client's connection.
    Own(Arc<Dedicated<BoxBody>>),
}

/// A connection that is still its answer's. Dropped, it is used no more.
pub(super) struct Returning {
    /// Whose it is.
    pub(super) backend: Arc<Backend>,
    /// The backend has the request in hand until its answer has come whole.
    pub(super) held: Held,
    /// What it may be shared under.
    pub(super) key: Key,
    /// To send on.
    pub(super) sender: Sender<BoxBody>,
    /// `None`: it is not to be used again.
    pub(super) keep: Option<Keep>,
}

// === impl Returning ===

impl Returning {
    /// The answer has come whole.
    pub(super) fn now(self) {
        let Self { backend, held, key, sender, keep } = self;
        drop(held);
        match keep {
            Some(Keep::Shared(idle)) => idle.put(key, sender),
            Some(Keep::Own(own)) => own.put(key, backend, sender),
            None => {}
        }
    }
}
