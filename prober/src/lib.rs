//! The prober: checks backends over HTTP and HTTPS, nothing else. What it knows of both also serves a second process,
//! which fetches one error page and ends ([`fetch_page`]).
//!
//! It never carries a client's bytes and never decides who gets traffic: it forms a `verdict` on each target and
//! tells the supervisor, which merges, publishes and remembers. It may die at any time; the last known health stands.
//!
//! In the order in which a target travels:
//! - [`run()`] wires the process up: runtime, signals, the end.
//! - `control` dials the supervisor, takes target sets over and sends verdicts.
//! - `schedule` keeps one task a target and says when a check is due.
//! - `plan` turns a probe from the wire into what a check needs, or says why it cannot run.
//! - `check` runs one check: resolve, connect, TLS (`tls`), GET, judge the answer (`expect`).
//! - `failure` puts what went wrong into words for people.
//! - `verdict` applies the thresholds, pure.
//! - `checks` counts checks and their time, for the metrics.
//! - `board` holds each target's latest verdict until the supervisor has been sent it.

mod board;
mod check;
mod checks;
mod control;
mod expect;
mod failure;
mod page;
mod plan;
mod refusal;
mod run;
mod schedule;
mod tls;
mod verdict;

pub use page::{PageError, ask_responder, fetch_page};
pub use run::{RunError, run};
