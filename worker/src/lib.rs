//! One process of one Holdfast listener: everything between `accept()` and the backend.
//!
//! In the order in which a connection travels: [`mod@run`] wires the process and ends it; `control` is its line to
//! the supervisor, by which [`snapshot`]s, health and orders arrive; `vault` is the other one, for descriptors. `accept` takes connections, `tls` opens their
//! sessions, `http` serves their requests: [`route`] chooses, [`rewrite`] changes, [`pool`] reaches a backend, [`headers`] and
//! [`respond`] keep HTTP honest, [`client_source`] says who the client is and [`fault`] who is to blame, `access_log` keeps
//! a line of each request. An opening handshake goes by [`websocket`] through
//! the [`gate`] and becomes a [`tunnel`]. [`link`] is one TCP connection, `socket` what every one has set, `drain` the one signal to stop, `metrics`
//! counts, [`load`] says what each backend has in hand, `memory` says when the allocator gives back.
//!
//! Imports only point down this list; `tunnel` knows no HTTP and `route` no IO.

mod accept;
pub mod access_log;
mod backoff;
pub mod client_source;
mod control;
mod drain;
pub mod fault;
pub mod gate;
pub mod headers;
mod http;
pub mod link;
pub mod load;
mod memory;
mod metrics;
pub mod pool;
pub mod respond;
mod revocation;
pub mod rewrite;
pub mod route;
pub mod run;
pub mod snapshot;
mod socket;
mod tls;
pub mod tunnel;
mod vault;
pub mod websocket;

pub use crate::http::explain;
pub use run::{RunError, run};

/// Layout of the records that workers of one listener share; tunnels do not move to a worker that knows another one.
pub fn arena_version() -> u32 {
    tunnel::Tunnels::arena_version()
}
