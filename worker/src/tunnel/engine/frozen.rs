//! Tunnels that this thread has let go of and whose successor has not answered yet.
//!
//! Their sockets stay open here, and nothing is done about what is reported of them. They thaw together, at the deadline of the oldest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::tunnel::TunnelId;
use crate::tunnel::record::Record;
use crate::tunnel::relay::Tunnel;

/// How long a successor may take over a batch: a hundred times what it takes on a busy machine, and short enough that
/// no peer gives up. Longer, and the tunnels go on where they were.
const THAW_AFTER_MS: u64 = 1000;

#[derive(Default)]
pub(super) struct Frozen {
    tunnels: HashMap<TunnelId, Tunnel>,
    due_ms: Option<u64>,
}

impl Frozen {
    pub(super) fn keep(&mut self, tunnel: Tunnel, now_ms: u64) {
        self.due_ms.get_or_insert(now_ms + THAW_AFTER_MS);
        self.tunnels.insert(tunnel.record.id, tunnel);
    }

    /// Drops one that the successor has; the sockets live on in its hands.
    pub(super) fn forget(&mut self, id: TunnelId) -> Option<Arc<Record>> {
        let tunnel = self.tunnels.remove(&id)?;
        if self.tunnels.is_empty() {
            self.due_ms = None;
        }
        Some(tunnel.record)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// When they thaw; `u64::MAX` where there are none.
    pub(super) fn due_ms(&self) -> u64 {
        self.due_ms.unwrap_or(u64::MAX)
    }

    pub(super) fn take_all(&mut self) -> Vec<Tunnel> {
        self.due_ms = None;
        self.tunnels.drain().map(|(_, tunnel)| tunnel).collect()
    }
}
