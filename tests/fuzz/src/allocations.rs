//! Counts this thread's allocations: opening a record may make none.
//!
//! Nothing but the counting is done here: the system's allocator does the rest.
#![allow(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `act` answers, provided that it allocates nothing.
pub(crate) fn none<T>(act: impl FnOnce() -> T) -> T {
    let before = MADE.get();
    let answer = act();
    assert!(MADE.get() == before, "the record layer allocated");
    answer
}

// === impl Counting ===

// SAFETY: every call is passed on as it is, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and opens no records.
        let _gone = MADE.try_with(|made| made.set(made.get() + 1));
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}
