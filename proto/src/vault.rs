//! What worker and vault say to one another on the fd socket: the two ends, and how much fits into a packet.

use crate::control::{VaultReply, VaultRequest, vault_reply, vault_request};
use crate::fd_channel::{FdChannel, MOST_FDS};

/// A worker's end.
pub type WorkerEnd = FdChannel<VaultRequest, VaultReply>;
/// The vault's end.
pub type VaultEnd = FdChannel<VaultReply, VaultRequest>;

/// Most tunnels in one packet that carries their descriptors.
pub const MOST_TUNNELS: usize = MOST_FDS / 2;
/// Most epoll instances of a worker: a grant brings them together with a listening socket, an arena and a tally.
pub const MOST_POLLS: usize = MOST_FDS - 3;
/// Most ids in one packet: the longest takes ten bytes, and the longest message 64 KiB.
pub const MOST_IDS: usize = 6_000;

impl From<vault_request::Kind> for VaultRequest {
    fn from(kind: vault_request::Kind) -> Self {
        Self { kind: Some(kind) }
    }
}

impl From<vault_reply::Kind> for VaultReply {
    fn from(kind: vault_reply::Kind) -> Self {
        Self { kind: Some(kind) }
    }
}
