//! Broken records, and judges for what becomes of them.
//!
//! An input is a script: which protocol, which role, and what a peer that holds the right keys and means harm puts on
//! the wire. Whatever the script, [`judge`] knows what the record layer has to say to each byte of it, and asks rustls
//! as well. The record layer is compiled in from the worker's own files, so that nothing of it has to be public, and
//! nothing but it has to be built.
//!
//! No input may depend on a clock, on chance or on an input before it: what fails must fail again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a judge panics"
)]

use std::fmt;

mod allocations;
mod book;
mod differences;
mod headers;
mod messages;
mod ours;
mod peer;
mod provider;
mod script;
pub mod seeds;
mod theirs;

#[path = "../../../worker/src/tls"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the worker seals too, and has more to ask of a session"
)]
mod tls {
    pub(crate) mod keys;
    pub(crate) mod record;
}

/// Judges one input; answers how the receiving end ended.
///
/// # Panics
///
/// When the record layer did not do what it has to.
pub fn judge(input: &[u8]) -> impl fmt::Debug + use<> {
    let script = script::play(input);
    let whole = ours::receive(&script, &[]);
    if !script.cuts.is_empty() {
        let cut = ours::receive(&script, &script.cuts);
        assert!(cut == whole, "{cut:?} when it comes in pieces, {whole:?} at once");
    }
    if let Some(seen) = theirs::receive(&script) {
        differences::judge(script.kit, &whole, &seen);
    }
    whole.end
}
