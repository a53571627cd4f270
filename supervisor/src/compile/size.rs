//! What a child can be sent: a configuration that compiles to more is refused before it is in force, and before all of it
//! is in memory.

use std::net::SocketAddr;

use holdfast_proto::LONGEST_MESSAGE;
use prost::Message;

/// For what is added to a table on its way: its revision, keys, the envelope.
const ROOM: usize = 64 * 1024;
/// Bytes of what a responder says of a certificate, which is added too.
pub const LONGEST_STAPLE: usize = 64 * 1024;
/// While one configuration replaces another, the prober is told the targets of both.
const TARGETS: usize = LONGEST_MESSAGE / 2;

/// Why a configuration cannot be sent to those who are to serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// One listener's table.
    #[error(
        "what the worker of {listener} would be sent has more than {limit} bytes, which is the longest message: \
         its sites, path rules, rewrites, certificates and error pages are too much together"
    )]
    Listener {
        /// Its address.
        listener: SocketAddr,
        /// Bytes.
        limit: usize,
    },
    /// What is to be probed.
    #[error(
        "what the prober would be sent has more than {limit} bytes, which is the longest message: there are too many \
         backends under too many settings, each with its trusted roots"
    )]
    Targets {
        /// Bytes.
        limit: usize,
    },
}

impl TooLarge {
    /// What to do about it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Listener { .. } => {
                "spread the sites over several ports or addresses, or give them shorter path maps and pages"
            }
            Self::Targets { .. } => {
                "use fewer backends or settings, or the system's roots instead of trustedRootCertificates"
            }
        }
    }
}

/// What is left of a message.
pub(super) struct Room {
    left: usize,
    refusal: TooLarge,
}

// === impl Room ===

impl Room {
    /// Of a listener's table.
    pub(super) fn of_listener(listener: SocketAddr) -> Self {
        let limit = LONGEST_MESSAGE;
        Self { left: limit - ROOM, refusal: TooLarge::Listener { listener, limit } }
    }

    /// Of what the prober is told.
    pub(super) fn of_targets() -> Self {
        Self { left: TARGETS - ROOM, refusal: TooLarge::Targets { limit: TARGETS } }
    }

    /// Takes a message, or an entry of one, into account.
    pub(super) fn take(&mut self, entry: &impl Message) -> Result<(), TooLarge> {
        // Its tag and its length are at most so long.
        self.reserve(entry.encoded_len().saturating_add(8))
    }

    /// Takes into account what is still to come.
    pub(super) fn reserve(&mut self, length: usize) -> Result<(), TooLarge> {
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.refusal),
        }
    }
}
