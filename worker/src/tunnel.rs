//! Tunnels: what is left of a WebSocket's two connections once the 101 is agreed on.
//!
//! A tunnel is a client leg and a backend leg; the engine's threads relay bytes between them, untouched. This module
//! knows no HTTP and parses nothing. [`Tunnels`] opens, lists and ends tunnels; `engine` runs them, one epoll
//! instance a thread; `relay` moves bytes; `leg` is one socket, with or without TLS; `sys` are the system calls.
//!
//! What outlives the process: the `arena` holds the tunnels' records and the `tally` their counts, in memory files
//! (`memfd`, `mapping`) that workers share; `counters` are the kernel's, and tell how far each direction has come.
//! What a thread has made of the arena's secrets it keeps for a while, for itself (`ciphers`, in `secluded` memory).
//!
//! # Invariants
//! - A byte leaves a leg's socket only for the other leg, or for memory that outlives the process, under its tunnel's name:
//!   back-pressure stays in the kernel's queues, and an idle tunnel owns no buffer.
//! - A FIN is passed on as a FIN after the last byte before it, a reset as a reset, at once.
//! - Every tunnel ends once, with one [`Cause`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

mod adopt;
mod arena;
mod ciphers;
mod counters;
mod engine;
mod flow;
mod front;
mod left_polls;
mod leg;
mod leg_end;
mod let_go;
mod mapping;
mod memfd;
mod outbox;
mod pin;
mod poll;
mod record;
mod registry;
mod relay;
mod secluded;
mod sessions;
mod slot;
mod steps;
mod sys;
mod tally;
#[cfg(test)]
mod tests;
mod totals;
mod waiting;
mod watch;

pub use adopt::HandedIn;
pub(crate) use counters::{round_trip, unacknowledged};
pub(crate) use front::Census;
pub use front::Tunnels;
pub use left_polls::LeftPoll;
pub use leg::Leg;
pub use let_go::Shared;
pub(crate) use outbox::Deposit;
pub use pin::Pin;
pub use totals::{DURATION_BOUNDS_S, Handover, PAUSE_BOUNDS_S, Totals};
pub use waiting::Handed;

/// Names a tunnel, of whichever listener: `generation << 40 | counter`.
pub type TunnelId = u64;

/// What is known of a tunnel when it opens, and stays so. Tunnels share the names.
#[derive(Debug, Clone)]
pub struct TunnelFacts {
    /// The site that took the opening handshake.
    pub site: Arc<str>,
    /// The pool.
    pub pool: Arc<str>,
    /// The backend settings.
    pub settings: Arc<str>,
    /// The backend's address as configured.
    pub backend: Arc<str>,
    /// The backend's port.
    pub backend_port: u16,
    /// The client's address.
    pub client: SocketAddr,
    /// The request's trace id; may be empty.
    pub trace_id: Arc<str>,
    /// Its opening has a line in the access log, and so its end has one.
    pub logged: bool,
    /// How long no byte may move, either way. Zero: for ever.
    pub idle_timeout: Duration,
    /// When the handshake was accepted.
    pub opened: SystemTime,
}

/// Bytes that a tunnel owes its legs before any that it reads.
#[derive(Debug, Default)]
pub struct Preludes {
    /// The head of the 101, to the client.
    pub head: Vec<u8>,
    /// What the backend sent along with its 101, to the client, after the head.
    pub to_client: Vec<u8>,
    /// What the client sent early, to the backend.
    pub to_backend: Vec<u8>,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The client ended first, or reset.
    Client,
    /// The backend ended first, or reset.
    Backend,
    /// No byte moved for the idle timeout.
    Idle,
    /// The drain deadline of the process came.
    Drain,
    /// The backend left the configuration and its drain timeout is over.
    BackendRemoved,
    /// An operator closed it.
    Admin,
    /// The process stops.
    Shutdown,
    /// A peer no longer answers (keep-alive, retransmission).
    PeerLost,
    /// A TLS leg ended without `close_notify`.
    Truncated,
    /// A TLS leg broke the protocol.
    ProtocolError,
    /// It could not be carried on: a fault of our own.
    Lost,
}

/// Why the engine cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No arena, or none of ours.
    #[error("the tunnels' arena cannot be used")]
    Arena(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No tally, or none of ours.
    #[error("the tunnels' tally cannot be used")]
    Tally(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Too many processes share the arena.
    #[error("the tunnels' arena takes no further process")]
    Crowded,
    /// No thread, or no name for this process.
    #[error("the tunnels' threads cannot start")]
    Thread(#[source] io::Error),
}

/// Why a tunnel could not be opened. Both connections are closed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Every record of the arena is taken.
    #[error("there are more tunnels than records for them")]
    Full,
    /// It could not be written down.
    #[error("the tunnel could not be written down")]
    Arena(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A socket option was refused.
    #[error("a leg could not be prepared")]
    Prepare(#[source] io::Error),
    /// The engine's thread takes no more: it is stopping or thousands of tunnels behind.
    #[error("the tunnel engine does not take the tunnel")]
    Refused,
}

// === impl TunnelFacts ===

impl TunnelFacts {
    /// The backend as people name it.
    fn backend_label(&self) -> String {
        let Self { backend, backend_port, .. } = self;
        if backend.contains(':') {
            format!("[{backend}]:{backend_port}")
        } else {
            format!("{backend}:{backend_port}")
        }
    }
}

// === impl Cause ===

impl Cause {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Client,
        Self::Backend,
        Self::Idle,
        Self::Drain,
        Self::BackendRemoved,
        Self::Admin,
        Self::Shutdown,
        Self::PeerLost,
        Self::Truncated,
        Self::ProtocolError,
        Self::Lost,
    ];

    /// The cause of that number, as records and deadlines hold it; one that is none was no fault of the peers.
    fn from_code(code: u64) -> Self {
        let code = usize::try_from(code).unwrap_or(usize::MAX);
        Self::ALL.get(code).copied().unwrap_or(Self::Lost)
    }

    /// The word that metrics and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::BackendRemoved => "backend_removed",
            Self::Admin => "admin",
            Self::Shutdown => "shutdown",
            Self::PeerLost => "peer_lost",
            Self::Truncated => "truncated",
            Self::ProtocolError => "protocol_error",
            Self::Lost => "lost",
        }
    }
}
