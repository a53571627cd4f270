//! When the allocator gives memory back: at once, not some time later.
//!
//! A worker's heap is largest while many clients shake hands, and then it has nothing to do: tunnels are relayed without an
//! allocation. mimalloc purges what is free only on the way of a later allocation, so that nobody would come by, and the
//! heap of the busiest moment would be kept for as long as its tunnels live. Nothing else is set here, and nothing is allocated.
#![allow(unsafe_code, reason = "mimalloc's options have no safe interface")]

// For what it links.
use libmimalloc_sys as _;
use nix::libc;

/// `mi_option_purge_delay`, milliseconds; mimalloc numbers its options for ever.
const PURGE_DELAY: libc::c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: libc::c_int, value: libc::c_long);
}

/// From now on a page that becomes free is the kernel's again.
pub(crate) fn give_back_at_once() {
    // SAFETY: it stores a number under the option's own index, in a table that is there before `main`; any thread may.
    unsafe { mi_option_set(PURGE_DELAY, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: libc::c_int) -> libc::c_long;
    }

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: as above; it only reads. Ten milliseconds are documented as this option's default; another test of this
        // process may have started a worker.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert!([0, 10].contains(&delay()));
        give_back_at_once();
        assert_eq!(delay(), 0);
    }
}
