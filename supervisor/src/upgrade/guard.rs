//! What goes back to the old executable when the new one crashes, panics, ends or does not become ready in time.
//!
//! Everything that the way back needs is made when the guard is armed. [`roll_back`] runs in signal handlers, in a process
//! of which nothing can be trusted any more: it makes system calls, touches atomics, and neither allocates nor locks.
#![allow(
    unsafe_code,
    reason = "signal handlers, a timer, atexit, and an exec that allocates nothing"
)]

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::early;

/// How a process dies of itself.
const CRASHES: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

const IDLE: u8 = 0;
const ARMED: u8 = 1;
const LEAVING: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);
/// Set once, before the state is [`ARMED`], and never freed.
static WAY: AtomicPtr<Way> = AtomicPtr::new(ptr::null_mut());
/// A stop was asked for, and waits.
static STOP_OWED: AtomicBool = AtomicBool::new(false);
/// What the signals meant before.
static BEFORE: Mutex<Vec<(Signal, SigAction)>> = Mutex::new(Vec::new());

/// What is needed to go back.
pub(super) struct Plan {
    /// The old executable.
    pub(super) image: RawFd,
    /// Where the reason goes.
    pub(super) verdict: RawFd,
    /// What it is to have, both of the above too.
    pub(super) kept: Vec<RawFd>,
    /// Its command line.
    pub(super) arguments: Vec<CString>,
    /// Its environment.
    pub(super) environment: Vec<CString>,
}

/// The same as system calls want it.
struct Way {
    image: RawFd,
    verdict: RawFd,
    kept: Vec<RawFd>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    late: Vec<u8>,
    mask: libc::sigset_t,
}

/// From now on every end of this process but SIGKILL goes back, and so does `within` without [`disarm`].
pub(super) fn arm(plan: Plan, within: Duration) -> io::Result<()> {
    let mask: SigSet = early::ANSWERED.into_iter().collect();
    let way = Way {
        image: plan.image,
        verdict: plan.verdict,
        kept: plan.kept,
        arguments: pointers(plan.arguments),
        environment: pointers(plan.environment),
        late: format!("it was not ready within {within:?}").into_bytes(),
        mask: *mask.as_ref(),
    };
    WAY.store(Box::into_raw(Box::new(way)), Ordering::Release);
    STATE.store(ARMED, Ordering::Release);
    // An overflown stack needs another one: std gives every thread that.
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER;
    let crash = SigAction::new(SigHandler::Handler(on_crash), flags, SigSet::empty());
    let late = SigAction::new(SigHandler::Handler(on_late), SaFlags::SA_RESTART, SigSet::empty());
    let actions =
        CRASHES.map(|signal| (signal, crash)).into_iter().chain([(Signal::SIGALRM, late)]);
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, action) in actions {
        // SAFETY: both handlers are async-signal-safe, as said above.
        before.push((signal, unsafe { sigaction(signal, &action) }?));
    }
    drop(before);
    // SAFETY: the function takes no argument and lives as long as the process.
    if unsafe { libc::atexit(on_exit) } != 0 {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    if set_timer(within) != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The old executable is to stop, if it comes to that.
pub(super) fn owe_stop() {
    STOP_OWED.store(true, Ordering::Relaxed);
}

/// There is no way back any more, and signals mean what they did.
pub(super) fn disarm() {
    if STATE.compare_exchange(ARMED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    set_timer(Duration::ZERO);
    for (signal, action) in BEFORE.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // SAFETY: it is what was in force before.
        if let Err(error) = unsafe { sigaction(signal, &action) } {
            tracing::error!(%error, %signal, "cannot put a signal back");
        }
    }
}

/// Goes back, telling `reason`. Returns where there is no way back, or it failed.
pub(super) fn roll_back(reason: &[u8]) {
    if STATE.compare_exchange(ARMED, LEAVING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    // SAFETY: set before the state was ARMED, and never freed or changed.
    let Some(way) = (unsafe { WAY.load(Ordering::Acquire).as_ref() }) else { return };
    // It would go off in the old executable: a timer outlives exec.
    set_timer(Duration::ZERO);
    // SAFETY: plain system calls (signal-safety(7)) with pointers into what `arm` made and never frees: both lists end in
    // a null pointer, and their strings in a zero.
    unsafe {
        libc::pwrite(way.verdict, reason.as_ptr().cast(), reason.len(), 0);
        for fd in &way.kept {
            libc::fcntl(*fd, libc::F_SETFD, 0);
        }
        // What a handler blocks is blocked across exec; what the old executable answers is to wait for it.
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const way.mask, ptr::null_mut());
        if STOP_OWED.load(Ordering::Relaxed) {
            // To this thread, which blocks it: what is pending outlives exec.
            libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGTERM);
        }
        libc::fexecve(way.image, way.arguments.as_ptr(), way.environment.as_ptr());
    }
    STATE.store(IDLE, Ordering::Release);
}

extern "C" fn on_crash(signal: c_int) {
    roll_back(match signal {
        libc::SIGABRT => b"it crashed (SIGABRT)",
        libc::SIGBUS => b"it crashed (SIGBUS)",
        libc::SIGFPE => b"it crashed (SIGFPE)",
        libc::SIGILL => b"it crashed (SIGILL)",
        libc::SIGSEGV => b"it crashed (SIGSEGV)",
        libc::SIGSYS => b"it crashed (SIGSYS)",
        _ => b"it crashed (SIGTRAP)",
    });
    while STATE.load(Ordering::Acquire) == LEAVING {
        // Another thread is about to end this one; returning would end the process before that.
        // SAFETY: a system call.
        unsafe { libc::pause() };
    }
    // No way back: die of it.
    // SAFETY: both are async-signal-safe.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

extern "C" fn on_late(_: c_int) {
    // SAFETY: as in `roll_back`.
    if let Some(way) = unsafe { WAY.load(Ordering::Acquire).as_ref() } {
        roll_back(&way.late);
    }
}

extern "C" fn on_exit() {
    roll_back(b"it ended before it was ready");
}

fn set_timer(after: Duration) -> c_int {
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(after.subsec_micros()),
    };
    let once = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: once, it_value: value };
    // SAFETY: it reads `timer` and writes nothing.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) }
}

/// Strings that are never freed, and the null pointer at the end of them.
fn pointers(strings: Vec<CString>) -> Vec<*const c_char> {
    let all = strings.into_iter().map(|it| it.into_raw().cast_const());
    all.chain([ptr::null()]).collect()
}
