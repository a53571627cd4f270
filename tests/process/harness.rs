//! What the process tests are told with: gateways, backends, clients, documents and patience.
//!
//! Every process started here is ended by the guard that started it, by its id. No test ever waits a fixed time: it
//! waits for what a user would notice, with [`eventually`].

mod authority;
mod backend;
mod bad_backend;
mod certs;
mod client;
mod crier;
mod demo;
mod disk;
mod document;
mod eventually;
mod gateway;
mod http;
mod http2;
mod kernel;
mod loss;
mod mirror;
mod oracle;
mod ports;
mod proc;
mod responder;
mod scrape;
mod shroud;
mod survival;
mod talker;
mod teller;
mod tools;
mod traffic;
mod wire;

pub(crate) use authority::{Authority, Passport, Visitor};
pub(crate) use backend::Backend;
pub(crate) use bad_backend::{BadBackend, Misbehaviour};
pub(crate) use certs::Certificate;
pub(crate) use client::{End, TlsStream, WebSocket, frame, tls, upgrade_request};
pub(crate) use crier::{Criers, piece};
pub(crate) use demo::Demo;
pub(crate) use disk::Disk;
pub(crate) use document::Document;
pub(crate) use eventually::{Patience, eventually, scale, stays};
pub(crate) use gateway::{Gateway, MOMENT, directory, words};
pub(crate) use http::{Connection, Response, get, get_host, read_response};
pub(crate) use http2::{Bridged, Frames, Http2};
#[cfg(feature = "failpoints")]
pub(crate) use kernel::stamp_arenas;
pub(crate) use kernel::{
    descriptors, first_free_descriptor, limit_descriptors, sockets, watched_legs,
};
pub(crate) use loss::where_packets_are_lost;
pub(crate) use mirror::{Mirror, field};
pub(crate) use oracle::Oracle;
pub(crate) use ports::free_port;
#[cfg(feature = "failpoints")]
pub(crate) use proc::has_stopped;
pub(crate) use proc::{
    alive, cpu_time, gets_huge_pages, kill9, pause, resident_kib, resume, signal,
};
pub(crate) use responder::Responder;
pub(crate) use scrape::watch_counters;
pub(crate) use shroud::Manner;
pub(crate) use talker::Talker;
pub(crate) use teller::Teller;
pub(crate) use tools::{Peer, grpcurl, script, tools};
pub(crate) use traffic::{Shape, Traffic};
pub(crate) use wire::{Sealed, Wire, Wires, finish, reset, rest};

/// The executable under test.
pub(crate) const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");
