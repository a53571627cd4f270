//! Signals between two executables: held back before the exec, noted by the new one until it can answer them. Unnoted, a
//! SIGHUP or SIGTERM in that moment would end the gateway, or be forgotten.
#![allow(unsafe_code, reason = "sigaction asks for a promise about its handler")]

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What a supervisor answers. A second upgrade has no use while one is under way, but must not end the process.
pub(super) const ANSWERED: [Signal; 4] =
    [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR2];

static NOTED: AtomicU64 = AtomicU64::new(0);
/// The thread that they wait in.
static WAITING_ROOM: AtomicI32 = AtomicI32::new(0);

/// Signals that came before they could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Early {
    /// SIGTERM or SIGINT.
    pub(crate) stop: bool,
    /// SIGHUP.
    pub(crate) hangup: bool,
}

/// They wait as long as this lives, or are waiting for the next executable.
pub(super) struct HeldBack {
    before: Vec<(Signal, SigAction)>,
}

/// From now on they wait in this thread, whichever thread they come to, and in what it executes: what is pending
/// outlives exec. For the thread that will execute.
pub(super) fn hold_back() -> HeldBack {
    WAITING_ROOM.store(nix::unistd::gettid().as_raw(), Ordering::Release);
    // The one error is an unknown way of blocking.
    answered().thread_block().unwrap_or_default();
    HeldBack { before: replace(forward) }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        for (signal, action) in self.before.drain(..) {
            // SAFETY: it is what was in force before.
            if let Err(error) = unsafe { sigaction(signal, &action) } {
                tracing::error!(%error, %signal, "cannot put a signal back");
            }
        }
        answered().thread_unblock().unwrap_or_default();
    }
}

/// Notes them from now on, also those that have waited across the exec. Whoever catches them later is told as well.
pub(super) fn note() {
    replace(set_bit);
    answered().thread_unblock().unwrap_or_default();
}

/// Notes a SIGHUP that the executable before has heard and not answered.
pub(super) fn note_hangup() {
    set_bit(Signal::SIGHUP as c_int);
}

/// What was noted.
pub(crate) fn take() -> Early {
    let noted = NOTED.swap(0, Ordering::Relaxed);
    let came = |signal: Signal| noted & (1 << (signal as c_int)) != 0;
    Early { stop: came(Signal::SIGTERM) || came(Signal::SIGINT), hangup: came(Signal::SIGHUP) }
}

fn replace(handler: extern "C" fn(c_int)) -> Vec<(Signal, SigAction)> {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
    let replaced = ANSWERED.into_iter().map(|signal| {
        // SAFETY: the handlers of this file set a bit of an atomic or make a system call, and nothing else.
        (signal, unsafe { sigaction(signal, &action) })
    });
    // It fails for signals that do not exist.
    replaced.filter_map(|(signal, before)| Some((signal, before.ok()?))).collect()
}

extern "C" fn set_bit(signal: c_int) {
    NOTED.fetch_or(1 << signal, Ordering::Relaxed);
}

extern "C" fn forward(signal: c_int) {
    let thread = WAITING_ROOM.load(Ordering::Acquire);
    // SAFETY: two system calls.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

fn answered() -> SigSet {
    ANSWERED.into_iter().collect()
}
