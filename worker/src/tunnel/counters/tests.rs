//! The counters on real sockets: a relay that forgets everything at any step goes on with the exact next byte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, sockopt};

use super::*;
use crate::tunnel::sys;

mod busy;
mod loss;
mod pure;
mod walk;

/// `(opener, acceptor)`, prepared as legs are, at full speed and with queues that fill soon.
fn tcp_pair() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let opener = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (acceptor, _) = listener.accept().unwrap();
    for end in [&opener, &acceptor] {
        crate::socket::prepare(end).unwrap();
        sockopt::set_socket_recv_buffer_size(end, 64 << 10).unwrap();
        sockopt::set_socket_send_buffer_size(end, 64 << 10).unwrap();
    }
    (opener.into(), acceptor.into())
}

fn snapshot(fd: impl AsFd) -> Snapshot {
    Snapshot::read(fd.as_fd()).unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// Whether poll reports an error; looking does not consume it.
fn poll_error(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default())).unwrap();
    fds[0].revents().contains(PollFlags::ERR)
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A direction, and what it must be by the books of the test.
struct Books {
    bases: Bases,
    prelude: u64,
    /// Handed to the target, the prelude included.
    sent: u64,
    /// Discarded from the source.
    discarded: u64,
    fin_passed_on: bool,
}

impl Books {
    fn open(source: impl AsFd, target: impl AsFd, prelude: u64) -> Self {
        let bases = Bases {
            received: snapshot(source).baseline().received,
            accepted: snapshot(target).baseline().accepted,
        };
        Self { bases, prelude, sent: 0, discarded: 0, fin_passed_on: false }
    }

    fn expected(&self) -> Progress {
        if self.fin_passed_on {
            Progress::Done
        } else if self.sent < self.prelude {
            Progress::Prelude { sent: self.sent }
        } else {
            let moved = self.sent - self.prelude;
            Progress::Stream { moved, discard: moved - self.discarded, owed: 0 }
        }
    }

    #[track_caller]
    fn check(&self, source: impl AsFd, target: impl AsFd, reset_seen: bool) {
        let (source, target) = (snapshot(source), snapshot(target));
        let found = progress(&source, &target, self.bases, self.prelude, None, reset_seen);
        assert_eq!(found, Ok(self.expected()), "{source:?} {target:?}");
    }
}

#[test]
fn a_reset_with_unread_bytes_reads_the_same_however_often_it_is_looked_at() {
    for unsent in [0, 1, 700] {
        let (far, source) = tcp_pair();
        let (target, _far_target) = tcp_pair();
        let mut books = Books::open(&source, &target, 0);
        sys::send(far.as_fd(), &noise(1, 1000 + unsent)).unwrap();
        eventually("all has arrived", || snapshot(&source).in_queue == 1000 + unsent as u64);
        let mut buffer = vec![0; 1000];
        assert_eq!(sys::peek(source.as_fd(), &mut buffer), Ok(1000));
        assert_eq!(sys::send(target.as_fd(), &buffer), Ok(1000));
        books.sent = 1000;
        assert_eq!(sys::discard(source.as_fd(), &mut buffer[..400]), Ok(400));
        books.discarded = 400;
        books.check(&source, &target, false);

        sys::abort(far.as_fd());
        eventually("the reset has arrived", || poll_error(&source));
        assert_eq!(snapshot(&source).state, state::CLOSE);
        books.check(&source, &target, true);
        // The other direction's send consumes the error; whoever looks next is shown a clean end.
        assert_eq!(sys::send(source.as_fd(), b"an answer"), Err(Errno::CONNRESET));
        assert!(!poll_error(&source), "the error was consumed");
        books.check(&source, &target, true);
        assert_eq!(sys::discard(source.as_fd(), &mut buffer[..600]), Ok(600));
        books.discarded = 1000;
        books.check(&source, &target, true);
        let left = noise(1, 1000 + unsent).split_off(1000);
        assert_eq!(sys::peek(source.as_fd(), &mut buffer), Ok(unsent));
        assert!(buffer[..unsent] == left);
        books.check(&source, &target, true);
        // Taken for an end, the same counters are one byte wrong: the record has to remember the reset.
        assert_eq!(snapshot(&source).consumed(false) + 1, snapshot(&source).consumed(true));
    }
}

#[test]
fn a_reset_behind_a_fin_is_no_fault_of_the_counters() {
    let (far, source) = tcp_pair();
    let (target, _far_target) = tcp_pair();
    let books = Books::open(&source, &target, 0);
    sys::send(far.as_fd(), b"last words").unwrap();
    sys::finish(far.as_fd());
    eventually("the FIN has arrived", || snapshot(&source).state == state::CLOSE_WAIT);
    books.check(&source, &target, false);
    sys::abort(far.as_fd());
    eventually("the reset has arrived", || poll_error(&source));
    books.check(&source, &target, true);
}

#[test]
fn a_target_that_was_reset_leaves_nothing_to_do() {
    let (_far_source, source) = tcp_pair();
    let (target, far) = tcp_pair();
    let mut books = Books::open(&source, &target, 3);
    sys::send(target.as_fd(), b"abc").unwrap();
    books.sent = 3;
    books.check(&source, &target, false);
    sys::abort(far.as_fd());
    eventually("the reset has arrived", || poll_error(&target));
    books.fin_passed_on = true;
    books.check(&source, &target, false);
    // And one that we have reset ourselves.
    let (target, _far) = tcp_pair();
    sys::abort(target.as_fd());
    books.check(&source, &target, false);
}

#[test]
fn urgent_bytes_count_where_they_stand() {
    let (far, source) = tcp_pair();
    let (target, _far_target) = tcp_pair();
    let mut books = Books::open(&source, &target, 0);
    for (piece, flags) in
        [("abc", SendFlags::empty()), ("U", SendFlags::OOB), ("def", SendFlags::empty())]
    {
        rustix::net::send(&far, piece.as_bytes(), flags | SendFlags::DONTWAIT).unwrap();
        books.check(&source, &target, false);
    }
    eventually("all has arrived", || snapshot(&source).in_queue == 7);
    let mut relayed = Vec::new();
    while relayed.len() < 7 {
        let mut buffer = [0; 16];
        // A call stops at the mark, so it takes less than there is.
        let seen = sys::peek(source.as_fd(), &mut buffer).unwrap();
        relayed.extend_from_slice(&buffer[..seen]);
        books.sent += sys::send(target.as_fd(), &buffer[..seen]).unwrap() as u64;
        books.check(&source, &target, false);
        books.discarded += sys::discard(source.as_fd(), &mut buffer[..seen]).unwrap() as u64;
        books.check(&source, &target, false);
    }
    assert_eq!(relayed, b"abcUdef");
}

#[test]
fn a_discard_stops_at_the_urgent_mark_and_the_counters_say_what_is_left() {
    let (far, source) = tcp_pair();
    let (target, _far_target) = tcp_pair();
    let mut books = Books::open(&source, &target, 0);
    for (piece, flags) in
        [("abc", SendFlags::empty()), ("U", SendFlags::OOB), ("def", SendFlags::empty())]
    {
        rustix::net::send(&far, piece.as_bytes(), flags | SendFlags::DONTWAIT).unwrap();
    }
    eventually("all has arrived", || snapshot(&source).in_queue == 7);
    books.sent += sys::send(target.as_fd(), b"abcUdef").unwrap() as u64;
    let mut taken = Vec::new();
    while books.discarded < books.sent {
        let left = usize::try_from(books.sent - books.discarded).unwrap();
        let count = sys::discard(source.as_fd(), &mut [0; 7][..left]).unwrap();
        taken.push(count);
        books.discarded += count as u64;
        books.check(&source, &target, false);
    }
    assert_eq!(taken, [3, 4]);
}

#[test]
fn the_end_of_a_leg_is_counted_right_in_every_order() {
    // Which far end ends first, whether our FIN to the source comes before or after the source's, and whether the
    // bytes before it are read before or after.
    for order in 0..8 {
        let [own_first, read_late, opener_is_far] = [0, 1, 2].map(|bit| order >> bit & 1 == 1);
        let (opener, acceptor) = tcp_pair();
        let (far, source) = if opener_is_far { (opener, acceptor) } else { (acceptor, opener) };
        let (target, _far_target) = tcp_pair();
        let mut books = Books::open(&source, &target, 0);
        let check = |books: &Books| books.check(&source, &target, false);
        sys::send(far.as_fd(), &[7; 100]).unwrap();
        eventually("all has arrived", || snapshot(&source).in_queue == 100);
        sys::send(source.as_fd(), &[8; 50]).unwrap();
        let take = |books: &mut Books, count: usize| {
            let mut buffer = [0; 100];
            assert_eq!(sys::peek(source.as_fd(), &mut buffer[..count]), Ok(count));
            assert_eq!(sys::send(target.as_fd(), &buffer[..count]), Ok(count));
            books.sent += count as u64;
            check(books);
            assert_eq!(sys::discard(source.as_fd(), &mut buffer[..count]), Ok(count));
            books.discarded += count as u64;
            check(books);
        };
        take(&mut books, 30);
        if !read_late {
            take(&mut books, 70);
        }
        let ends = if own_first { [&source, &far] } else { [&far, &source] };
        for end in ends {
            sys::finish(end.as_fd());
            for _ in 0..50 {
                check(&books);
            }
        }
        eventually("both FINs are through", || snapshot(&source).state == state::CLOSE);
        check(&books);
        assert!(!poll_error(&source));
        if read_late {
            take(&mut books, 70);
        }
        assert_eq!(sys::peek(source.as_fd(), &mut [0; 1]), Ok(0));
        check(&books);
        assert_eq!(sys::discard(source.as_fd(), &mut [0; 1]), Ok(0));
        check(&books);
    }
}

#[test]
fn a_closed_window_counts_what_waits() {
    let (far, source) = tcp_pair();
    let (target, far_target) = tcp_pair();
    let mut books = Books::open(&source, &target, 0);
    let mut buffer = vec![0; 30_000];
    let (mut blocked, mut turn) = (false, 0_u64);
    while !blocked {
        while sys::send(far.as_fd(), &buffer).is_ok() {}
        let seen = sys::peek(source.as_fd(), &mut buffer).unwrap();
        match sys::send(target.as_fd(), &buffer[..seen]) {
            Ok(count) => books.sent += count as u64,
            Err(error) => blocked = error == Errno::AGAIN,
        }
        books.check(&source, &target, false);
        while books.discarded < books.sent {
            let most = usize::try_from(books.sent - books.discarded).unwrap().min(buffer.len());
            let count = sys::discard(source.as_fd(), &mut buffer[..most]).unwrap();
            books.discarded += count as u64;
            books.check(&source, &target, false);
        }
        turn += 1;
    }
    assert!(turn > 2 && snapshot(&target).out_queue > 0);
    // It opens again bit by bit.
    let mut heard = 0;
    while heard < books.sent {
        heard += sys::receive(far_target.as_fd(), &mut buffer).unwrap_or(0) as u64;
        books.check(&source, &target, false);
    }
}

#[test]
fn only_tcp_itself_is_plain() {
    let (opener, _acceptor) = tcp_pair();
    assert!(is_plain_tcp(opener.as_fd()).unwrap());
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(!is_plain_tcp(datagrams.as_fd()).unwrap());
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(!is_plain_tcp(pair.as_fd()).unwrap());
    let multipath = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::MPTCP),
    );
    // A kernel without it has nothing to be told apart.
    if let Ok(multipath) = multipath {
        assert!(!is_plain_tcp(multipath.as_fd()).unwrap());
    }
}

#[test]
fn no_tcp_no_counters() {
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    Snapshot::read(pair.as_fd()).unwrap_err();
}

#[test]
fn this_kernel_passes() {
    trial::self_test().unwrap();
}

#[test]
fn a_trial_that_was_held_up_is_made_again_and_a_wrong_count_is_final() {
    let late = || {
        let source = io::ErrorKind::TimedOut.into();
        Err(trial::SelfTestError::Io { step: "late", source })
    };
    let wrong = || Err(trial::SelfTestError::Counters { step: "wrong", found: String::new() });
    let trials = |outcomes: &[&dyn Fn() -> Result<(), trial::SelfTestError>]| {
        let mut made = 0;
        let outcome = trial::conclusive(|| {
            made += 1;
            outcomes[made - 1]()
        });
        (outcome.is_ok(), made)
    };
    assert_eq!(trials(&[&|| Ok(())]), (true, 1));
    assert_eq!(trials(&[&late, &late, &|| Ok(())]), (true, 3));
    assert_eq!(trials(&[&late, &late, &late]), (false, 3));
    assert_eq!(trials(&[&late, &wrong]), (false, 2));
}
