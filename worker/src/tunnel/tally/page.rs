//! The layout of the tally's page.
//!
//! ```text
//!   0  u64  magic                               272  u64 x 2   handed_over: restart, crash
//!   8  u32  version                             288  u64 x 13  pauses, by the bounds of the totals, and the rest
//!  12  u32  zero                                392  u64  pause_sum_us
//!  16  u64  opened                              400  u64  lost
//!  24  u64 x 11  closed, by cause               408  zero, up to 4096
//! 112  u64 x 2  zero: bytes are counted in the arena
//! 128  u64 x 13  durations, by the bounds of the totals, and the rest
//! 232  u64  duration_sum_ms
//! 240  u64 x 4  zero
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::tunnel::Cause;
use crate::tunnel::totals::{DURATION_BOUNDS_S, Handover, PAUSE_BOUNDS_S};

/// What is mapped.
#[repr(C)]
pub(in crate::tunnel) struct Page {
    pub(in crate::tunnel) magic: AtomicU64,
    pub(in crate::tunnel) version: AtomicU32,
    pub(in crate::tunnel) zero: AtomicU32,
    pub(in crate::tunnel) opened: AtomicU64,
    pub(in crate::tunnel) closed: [AtomicU64; Cause::ALL.len()],
    pub(in crate::tunnel) nothing: [AtomicU64; 2],
    pub(in crate::tunnel) durations: [AtomicU64; DURATION_BOUNDS_S.len() + 1],
    pub(in crate::tunnel) duration_sum_ms: AtomicU64,
    pub(in crate::tunnel) zeroes: [AtomicU64; 4],
    pub(in crate::tunnel) handed_over: [AtomicU64; Handover::ALL.len()],
    pub(in crate::tunnel) pauses: [AtomicU64; PAUSE_BOUNDS_S.len() + 1],
    pub(in crate::tunnel) pause_sum_us: AtomicU64,
    pub(in crate::tunnel) lost: AtomicU64,
    pub(in crate::tunnel) rest: [AtomicU64; 461],
}
