//! Why there is no line to the vault. Words only: what follows from it is decided by who keeps the line.

use std::io;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("cannot dial the supervisor's fd socket")]
    Dial(#[source] io::Error),
    #[error("cannot talk on the supervisor's fd socket")]
    Talk(#[source] io::Error),
    #[error("the supervisor refused this worker: {0}")]
    Refused(String),
    #[error("the supervisor's {what} came with {fds} descriptors")]
    Manifest { what: &'static str, fds: usize },
    #[error("{tunnels} tunnels wait in the vault: this process may have no more descriptors")]
    Short { tunnels: usize },
    #[error("the supervisor hung up")]
    HungUp,
}
