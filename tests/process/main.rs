//! Tests that start the real `holdfast`, send real signals and look at what a client sees.
//!
//! Each test is a short story over [`harness`]; nothing here knows how the gateway works inside. What needs Python,
//! Node or a browser runs only where `HOLDFAST_TEST_TOOLS` names the directory that `tests/run` prepared.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod access_log;
mod admin;
mod admin_network;
mod affinity;
mod backends;
mod balance;
mod boot;
mod certificate_files;
mod changes;
mod cli;
mod client_auth;
mod client_source;
mod client_tls;
mod compatibility;
mod crash;
mod crowd;
mod dedicated;
mod demo;
mod docs;
mod drain;
mod ends;
mod endurance;
mod error_pages;
mod harness;
mod health;
mod http2;
mod import;
mod keys;
#[cfg(feature = "failpoints")]
mod kill_points;
mod limits;
mod loss;
mod people;
mod probes;
mod prometheus;
mod reborn;
mod redirects;
mod refusals;
mod reload;
mod revocation;
mod rewrite;
mod routing;
mod schema;
mod sealed;
mod service;
mod shortage;
mod stapling;
mod status_page;
mod survive;
mod table;
mod tls;
mod told;
mod tools;
mod upgrade;
#[cfg(feature = "failpoints")]
mod versions;
mod websocket;
