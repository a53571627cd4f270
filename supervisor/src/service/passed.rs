//! Descriptors that the manager passes (`sd_listen_fds(3)`): taken over first thing in `main`, so that no child inherits them
//! and nobody else opens what has their numbers.
#![allow(
    unsafe_code,
    reason = "numbers of descriptors come from the manager; the environment is changed"
)]

use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::sockopt;

/// The first one's number.
const FIRST: RawFd = 3;
/// Whoever passes more is no manager.
const MOST: RawFd = 1 << 20;
const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

static ARRIVED: Mutex<Vec<Passed>> = Mutex::new(Vec::new());

/// One descriptor, and what the manager calls it.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
}

/// Takes over what the manager has passed. Must come before any other thread runs or any file is opened.
pub fn arrive() {
    let [pid, count, names] = VARIABLES.map(|name| std::env::var(name).unwrap_or_default());
    if pid.is_empty() && count.is_empty() {
        return;
    }
    for name in VARIABLES {
        // SAFETY: the process has one thread.
        unsafe { std::env::remove_var(name) };
    }
    if pid.parse() != Ok(std::process::id()) {
        // A child of whom they were passed to.
        return;
    }
    let count: RawFd = count.parse::<RawFd>().unwrap_or(0).clamp(0, MOST);
    let names = names.split(':').chain(std::iter::repeat("unknown"));
    let numbered = (FIRST..FIRST + count).zip(names);
    let passed = numbered
        .filter_map(|(number, name)| Some(Passed { name: name.to_owned(), fd: own(number)? }));
    *ARRIVED.lock().unwrap_or_else(PoisonError::into_inner) = passed.collect();
}

/// Whatever else is open is its opener's, who has started this process: those whom this one starts may live longer, and whoever
/// waits for the end of a pipe, or for a lock, would wait for them.
pub fn withhold() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let number = |it: std::fs::DirEntry| it.file_name().to_str()?.parse::<RawFd>().ok();
    let open: Vec<RawFd> = open.flatten().filter_map(number).collect();
    for number in open.into_iter().filter(|number| *number >= FIRST) {
        // SAFETY: nothing but a flag of it is set. It is open, or it was the list's own, and its number is nobody's yet.
        let set = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
        // Of the list's own.
        set.unwrap_or_default();
    }
}

/// What [`arrive`] has taken over; once.
pub(super) fn take() -> Vec<Passed> {
    std::mem::take(&mut *ARRIVED.lock().unwrap_or_else(PoisonError::into_inner))
}

fn own(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: only asked whether it is open, before anything else of this process has opened one.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    // SAFETY: it is open, was passed to us, and each number is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// The listening TCP socket that it is, if it is one. A manager may have had it block, for this process and for the workers
/// that live on: a thread of theirs would wait in it for the next connection.
pub(super) fn listening(fd: OwnedFd) -> Option<TcpListener> {
    let listens = sockopt::socket_acceptconn(&fd) == Ok(true);
    let listener = TcpListener::from(fd);
    let works = listens && listener.local_addr().is_ok() && listener.set_nonblocking(true).is_ok();
    works.then_some(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_tcp_socket_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(listening(stream.into()).is_none());
        assert!(listening(pipe.into()).is_none());
        assert_eq!(listening(listener.into()).unwrap().local_addr().unwrap(), address);
    }

    #[test]
    fn a_listening_socket_does_not_block_whatever_the_manager_has_made_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let held_by_a_worker = listener.try_clone().unwrap();
        let _passed = listening(listener.into()).unwrap();
        let error = held_by_a_worker.accept().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
