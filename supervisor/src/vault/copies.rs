//! Copies of what the vault holds, for the service manager: taken out a few at a time, and put in at the next start.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::Vault;

/// Names a held tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) listener: SocketAddr,
    /// The layout of the arena that its record is in.
    pub(crate) version: u32,
    pub(crate) id: u64,
}

/// A tunnel as it is kept.
#[derive(Debug)]
pub(crate) struct KeptTunnel<D> {
    pub(crate) key: Key,
    /// Its record.
    pub(crate) index: u32,
    /// Who had it last.
    pub(crate) generation: u64,
    /// Client and backend.
    pub(crate) legs: [D; 2],
}

/// All that is kept.
#[derive(Debug)]
pub(crate) struct Kept<D> {
    pub(crate) arenas: Vec<(SocketAddr, u32, D)>,
    pub(crate) tallies: Vec<(SocketAddr, D)>,
    pub(crate) tunnels: Vec<KeptTunnel<D>>,
}

/// What is held besides tunnels.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) arenas: Vec<(SocketAddr, u32, OwnedFd)>,
    pub(crate) tallies: Vec<(SocketAddr, OwnedFd)>,
}

// === impl Key ===

impl Key {
    /// Listener and layout: the arena.
    pub(crate) fn place(&self) -> (SocketAddr, u32) {
        (self.listener, self.version)
    }
}

// === impl Kept ===

impl<D> Default for Kept<D> {
    fn default() -> Self {
        Self { arenas: Vec::new(), tallies: Vec::new(), tunnels: Vec::new() }
    }
}

impl<D> Kept<D> {
    /// The highest generation that had one of the tunnels.
    pub(crate) fn highest_generation(&self) -> Option<u64> {
        self.tunnels.iter().map(|tunnel| tunnel.generation).max()
    }
}

// === impl Vault ===

impl Vault {
    /// Rings when what is held may have changed since it was last waited for. For one who waits.
    pub(crate) async fn changed(&self) {
        self.desk.changed.notified().await;
    }

    /// Every tunnel that is held.
    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        let keys: Vec<Key> = self.desk.lock().books.keys().collect();
        keys.into_iter().collect()
    }

    /// Arenas and tallies. What cannot be duplicated now is left out.
    pub(crate) fn shared(&self) -> Shared {
        let open = self.desk.lock();
        let arena = |(listener, version, fd): (SocketAddr, u32, &OwnedFd)| {
            Some((listener, version, fd.try_clone().ok()?))
        };
        let tally = |(listener, fd): (SocketAddr, &OwnedFd)| Some((listener, fd.try_clone().ok()?));
        Shared {
            arenas: open.books.arenas().filter_map(arena).collect(),
            tallies: open.books.tallies().filter_map(tally).collect(),
        }
    }

    /// Duplicates of tunnels, of those that are held still: some hundred at once, since the books wait meanwhile.
    pub(crate) fn copies(&self, keys: &[Key]) -> Vec<KeptTunnel<OwnedFd>> {
        let open = self.desk.lock();
        let copy = |key: &Key| {
            let (index, generation, [client, backend]) = open.books.tunnel(key)?;
            let legs = [client.try_clone().ok()?, backend.try_clone().ok()?];
            Some(KeptTunnel { key: *key, index, generation, legs })
        };
        keys.iter().filter_map(copy).collect()
    }

    /// Takes in what was kept; before any worker comes.
    pub(crate) fn restore(&self, kept: Kept<OwnedFd>) {
        super::budget::raise();
        let budget = (self.desk.budget)();
        self.desk.change(|books| {
            books.set_budget(budget);
            books.restore(kept);
        });
    }

    /// Lets go of what came back for listeners that are there no more, and of whom no worker is left.
    pub(crate) fn forget_unclaimed(&self) {
        let unclaimed: Vec<(SocketAddr, usize)> = {
            let mut open = self.desk.lock();
            let unclaimed: Vec<_> = open.books.listeners();
            let unclaimed = unclaimed.into_iter().filter(|it| !open.tenancies.contains_key(it));
            let unclaimed: Vec<_> = unclaimed.map(|it| (it, open.books.tunnels_of(it))).collect();
            for (listener, _) in &unclaimed {
                open.books.forget(*listener);
            }
            unclaimed
        };
        self.desk.change(|_| ());
        for (listener, tunnels) in unclaimed.into_iter().filter(|(_, tunnels)| *tunnels > 0) {
            tracing::error!(%listener, tunnels, "tunnels were let go of: their listener is no longer \
                configured, and its workers are gone");
        }
    }
}
