//! Tunnels that the vault has handed in and nobody has let go of yet.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::TunnelId;

/// What the vault has handed in and nobody has let go of yet.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<TunnelId, Handed>>);

/// One tunnel from the vault.
#[derive(Debug)]
pub struct Handed {
    pub(super) id: TunnelId,
    /// Its cell.
    pub(super) index: u32,
    pub(super) client: OwnedFd,
    pub(super) backend: OwnedFd,
    /// The vault that has handed it in is still there.
    pub(super) held: bool,
}

impl Handed {
    /// A tunnel as the vault has handed it in.
    pub fn new(id: TunnelId, index: u32, client: OwnedFd, backend: OwnedFd) -> Self {
        Self { id, index, client, backend, held: true }
    }
}

impl Waiting {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<TunnelId, Handed>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
