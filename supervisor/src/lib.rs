//! The supervisor: configuration and processes; never a client byte.
//!
//! In the order in which a revision travels: [`config`] reads a document, [`ledger`] makes it durable, [`compile`]
//! lowers it, [`change`] plans and carries it out, [`group`] owns one listener's workers, [`grpc`] streams it to
//! them and answers operators, over the network too (`network`). [`vault`] keeps what tunnels live on; [`prober`] and [`health_board`] keep the verdicts; [`run`] starts and stops it all,
//! [`upgrade`] puts another executable in its place, and [`service`] is what the service manager sees of it all.

mod affinity;
mod audit;
pub mod backoff;
pub mod brought;
pub mod change;
pub mod children;
pub mod compile;
pub mod config;
pub mod counters;
pub mod directories;
pub mod facts;
mod files;
pub mod group;
pub mod grpc;
pub mod health;
pub mod health_board;
pub mod ledger;
pub mod left;
pub mod lock;
pub mod mend;
pub mod metrics;
mod network;
pub mod prober;
mod reap;
pub mod run;
pub mod service;
mod signals;
pub mod sockets;
pub mod spawn;
pub mod staples;
pub mod state;
pub mod status;
pub mod tickets;
mod ui;
pub mod upgrade;
pub mod vault;
pub mod worker;
