//! What tunnels have for the vault, until the worker's line to it takes it.
//!
//! Nobody waits here; who opens a tunnel waits for its own answer. While there is no line, releases are not kept (a
//! vault that comes later has never held those tunnels) and deposits are refused at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::TunnelId;
use super::record::Record;

/// A tunnel on its way to the vault.
#[derive(Debug)]
pub(crate) struct Deposit {
    pub(super) record: Arc<Record>,
    /// Who waits for it; nobody waits for a tunnel that was opened unprotected.
    stored: Option<oneshot::Sender<bool>>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) deposits: Vec<Deposit>,
    /// To be sent after the deposits: one of them may be of a tunnel that has ended since.
    pub(crate) releases: Vec<TunnelId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    attached: bool,
    deposits: VecDeque<Deposit>,
    releases: Vec<TunnelId>,
}

impl Deposit {
    pub(crate) fn id(&self) -> TunnelId {
        self.record.id
    }

    pub(crate) fn index(&self) -> u32 {
        self.record.slot.index()
    }

    pub(crate) fn sockets(&self) -> [std::os::fd::BorrowedFd<'_>; 2] {
        use std::os::fd::AsFd;
        self.record.sockets().map(|socket| socket.as_fd())
    }

    /// Tells who waits.
    pub(crate) fn answer(self, held: bool) {
        self.record.protect(held);
        if let Some(stored) = self.stored {
            // Who asked has given up: the tunnel runs unprotected, and is protected from now on.
            stored.send(held).unwrap_or_default();
        }
    }
}

impl Outbox {
    /// Hands a tunnel in; the answer is whether the vault holds it. At once `false` while there is no line.
    pub(super) fn deposit(&self, record: Arc<Record>) -> oneshot::Receiver<bool> {
        let (stored, answer) = oneshot::channel();
        let mut inner = self.lock();
        if inner.attached {
            inner.deposits.push_back(Deposit { record, stored: Some(stored) });
            drop(inner);
            self.bell.notify_one();
        } else {
            stored.send(false).unwrap_or_default();
        }
        answer
    }

    /// Hands in tunnels that nobody waits for.
    pub(super) fn deposit_all(&self, records: impl Iterator<Item = Arc<Record>>) {
        let deposits = records.map(|record| Deposit { record, stored: None });
        self.lock().deposits.extend(deposits);
        self.bell.notify_one();
    }

    pub(super) fn release(&self, id: TunnelId) {
        let mut inner = self.lock();
        if inner.attached {
            inner.releases.push(id);
            drop(inner);
            self.bell.notify_one();
        }
    }

    /// The vault holds what has ended already: it was told so by a process that did not know.
    pub(super) fn release_ended(&self, ids: impl Iterator<Item = TunnelId>) {
        let mut inner = self.lock();
        if inner.attached {
            inner.releases.extend(ids);
            drop(inner);
            self.bell.notify_one();
        }
    }

    /// Makes the line look up, whether there is something for it or not.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Whether there is a line. With a new one, what waited for the old one is dropped.
    pub(super) fn set_attached(&self, attached: bool) {
        let waiting = {
            let mut inner = self.lock();
            inner.attached = attached;
            inner.releases.clear();
            std::mem::take(&mut inner.deposits)
        };
        for deposit in waiting {
            deposit.answer(false);
        }
    }

    /// Waits until there may be something. Cancel-safe.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Whether anything waits.
    pub(super) fn has_any(&self) -> bool {
        let inner = self.lock();
        !inner.deposits.is_empty() || !inner.releases.is_empty()
    }

    /// Takes what waits, at most so many deposits; rings again for the rest.
    pub(crate) fn take(&self, most: usize) -> Pending {
        let mut inner = self.lock();
        let count = inner.deposits.len().min(most);
        let deposits: Vec<_> = inner.deposits.drain(..count).collect();
        let rest = !inner.deposits.is_empty();
        // A tunnel that waits behind these may have ended: its release must not overtake it.
        let releases = if rest { Vec::new() } else { std::mem::take(&mut inner.releases) };
        drop(inner);
        if rest {
            self.bell.notify_one();
        }
        Pending { deposits, releases }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
