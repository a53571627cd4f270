//! One leg of a tunnel: a socket, and the TLS session over it if there is one.
//!
//! A leg gives what it has (`receive`), or shows it first (`look`, then `take`), and takes what it can (`put`); it remembers what it lacks, and only
//! an event makes it try again. With TLS at most [`SEALED_AHEAD`] plaintext bytes are sealed ahead of the socket,
//! and nothing is read while opened plaintext waits.

use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustls::Connection;

use super::sys;
use crate::tls::session::Departed;

/// Two records: one less and bulk data costs a system call a record.
const SEALED_AHEAD: usize = 32 * 1024;

/// One socket of a tunnel.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as epoll tells them")]
pub struct Leg {
    fd: Arc<OwnedFd>,
    /// With rustls, which holds it in this process.
    session: Option<Box<Session>>,
    /// Ours, until it is written down.
    departed: Option<Box<Departed>>,
    readable: bool,
    writable: bool,
    /// Poll says when it becomes writable.
    room_watched: bool,
    /// The peer's FIN has arrived, read or not.
    hung_up: bool,
    /// Poll has reported an error.
    reset: bool,
    /// Urgent data splits what a peek shows, so a short peek does not mean that the queue is empty.
    urgent: bool,
    /// Length of a last peek that has shown the whole queue.
    peeked_all: Option<u32>,
}

struct Session {
    tls: Connection,
    close_notified: bool,
}

/// Which leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// What a leg has for the other one.
pub(super) enum Look<'a> {
    Data(&'a [u8]),
    /// Nothing until it becomes readable.
    Dry,
    /// Everything has been taken and the peer has ended.
    End {
        truncated: bool,
    },
}

/// Why a leg cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Reset,
    /// Its TLS gave up, by a fatal alert.
    Alert,
    PeerLost,
    Protocol,
    /// By a fault of our own.
    Ours,
}

impl Leg {
    /// A TCP connection without TLS.
    pub fn plain(fd: OwnedFd) -> Self {
        Self::over(Arc::new(fd))
    }

    /// A leg over a socket that the tunnel's record holds too.
    pub(super) fn over(fd: Arc<OwnedFd>) -> Self {
        Self {
            fd,
            session: None,
            departed: None,
            readable: true,
            writable: true,
            room_watched: false,
            hung_up: false,
            reset: false,
            urgent: false,
            peeked_all: None,
        }
    }

    /// A TCP connection under a TLS session whose handshake is done. What the session holds already comes first.
    pub fn tls(fd: OwnedFd, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(2 * SEALED_AHEAD));
        let session = Some(Box::new(Session { tls, close_notified: false }));
        Self { session, ..Self::plain(fd) }
    }

    /// A TCP connection under a TLS session that has left rustls.
    pub(crate) fn departed(fd: OwnedFd, session: Departed) -> Self {
        Self { departed: Some(Box::new(session)), ..Self::plain(fd) }
    }

    /// The session that has left rustls, to be written down.
    pub(super) fn take_departed(&mut self) -> Option<Box<Departed>> {
        self.departed.take()
    }

    /// One that was taken over: what it has, epoll will say; whether it takes something, the first attempt.
    pub(super) fn resumed(fd: Arc<OwnedFd>) -> Self {
        Self { readable: false, ..Self::over(fd) }
    }

    pub(super) fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Whether rustls has its session: then it cannot leave this process.
    pub(super) fn is_pinned(&self) -> bool {
        self.session.is_some()
    }

    /// Poll has reported an error, or an earlier process has seen a reset.
    pub(super) fn is_reset(&self) -> bool {
        self.reset
    }

    /// Notes a reset that poll no longer reports.
    pub(super) fn note_reset(&mut self) {
        self.reset = true;
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Notes what epoll has reported.
    pub(super) fn note(&mut self, flags: EventFlags) {
        self.reset |= flags.contains(EventFlags::ERR);
        self.hung_up |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        self.urgent |= flags.contains(EventFlags::PRI);
        let dead = EventFlags::ERR | EventFlags::HUP;
        self.readable |=
            flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI | dead);
        self.writable |= flags.intersects(EventFlags::OUT | dead);
    }

    /// Whether poll is to say when it becomes writable, as it is added to one.
    pub(super) fn begin_watch(&mut self) -> bool {
        self.room_watched = !self.writable;
        self.room_watched
    }

    /// It is watched already; whether for room, too.
    pub(super) fn go_on_watched(&mut self, room: bool) {
        self.room_watched = room;
    }

    /// Whether poll says when it becomes writable.
    pub(super) fn is_watched_for_room(&self) -> bool {
        self.room_watched
    }

    /// True once: it lacks room, and poll does not watch for that yet.
    pub(super) fn begin_watch_for_room(&mut self) -> bool {
        !self.writable && !std::mem::replace(&mut self.room_watched, true)
    }

    /// What the leg died of, once poll has reported an error.
    pub(super) fn broken(&self) -> Option<Broken> {
        let broken = || sys::epitaph(self.fd()).map_or(Broken::Reset, Broken::from);
        self.reset.then(broken)
    }

    /// Shows the next bytes from the peer.
    pub(super) fn look<'a>(&'a mut self, scratch: &'a mut [u8]) -> Result<Look<'a>, Broken> {
        if self.session.is_some() {
            return self.look_tls(scratch);
        }
        if !self.readable {
            return Ok(Look::Dry);
        }
        match sys::peek(self.fd.as_fd(), scratch) {
            Ok(0) if self.reset => Err(Broken::Reset),
            Ok(0) => Ok(Look::End { truncated: false }),
            Ok(count) => {
                // An end or urgent data may wait behind a short peek, its event long since reported.
                let all = count < scratch.len() && !self.hung_up && !self.urgent;
                self.peeked_all = if all { u32::try_from(count).ok() } else { None };
                Ok(Look::Data(scratch.get(..count).unwrap_or_default()))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(Look::Dry)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there may be something to receive.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Takes the next bytes of a plain leg's peer.
    pub(super) fn receive<'a>(&mut self, into: &'a mut [u8]) -> Result<Look<'a>, Broken> {
        debug_assert!(self.session.is_none(), "what rustls has to open first is not received");
        match sys::receive(self.fd.as_fd(), into) {
            Ok(0) if self.reset => Err(Broken::Reset),
            Ok(0) => Ok(Look::End { truncated: false }),
            Ok(count) => {
                // As in `look`: behind these bytes there is nothing but what an event will announce.
                self.readable = count == into.len() || self.hung_up || self.urgent;
                Ok(Look::Data(into.get(..count).unwrap_or_default()))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(Look::Dry)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn look_tls<'a>(&mut self, scratch: &'a mut [u8]) -> Result<Look<'a>, Broken> {
        loop {
            let Some(session) = self.session.as_mut() else { return Ok(Look::Dry) };
            match session.tls.reader().fill_buf() {
                Ok([]) => return Ok(Look::End { truncated: false }),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Look::End { truncated: true });
                }
                Err(_) if !self.readable => return Ok(Look::Dry),
                Err(_) => {}
            }
            let mut socket = Socket(self.fd.as_fd());
            match session.tls.read_tls(&mut socket) {
                Ok(_) => {
                    session.tls.process_new_packets().map_err(|error| {
                        tracing::debug!(%error, "a TLS leg cannot go on");
                        match error {
                            rustls::Error::AlertReceived(_) => Broken::Alert,
                            _ => Broken::Protocol,
                        }
                    })?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(Broken::from_io(&error)),
            }
        }
        // Asked for anew: a borrow taken inside the loop would outlive it.
        let session = self.session.as_mut().ok_or(Broken::Protocol)?;
        let opened = session.tls.reader().into_first_chunk().unwrap_or_default();
        let count = opened.len().min(scratch.len());
        let shown = scratch.get_mut(..count).unwrap_or_default();
        shown.copy_from_slice(opened.get(..count).unwrap_or_default());
        Ok(Look::Data(shown))
    }

    /// What `look` has shown is not taken in this turn: more may come before it is.
    pub(super) fn forget_look(&mut self) {
        self.peeked_all = None;
    }

    /// Shows the first bytes once more, whatever epoll has said. Answers how many there are.
    pub(super) fn peek_again(&self, into: &mut [u8]) -> usize {
        if into.is_empty() { 0 } else { sys::peek(self.fd.as_fd(), into).unwrap_or(0) }
    }

    /// Takes the first `count` bytes of what `look` has shown; the other leg has them.
    pub(super) fn take(&mut self, count: usize, scratch: &mut [u8]) -> Result<(), Broken> {
        if let Some(session) = self.session.as_mut() {
            session.tls.reader().consume(count);
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        if holdfast_proto::planted!("skip-discard") {
            return Ok(());
        }
        let seen = scratch.get_mut(..count).unwrap_or_default();
        sys::discard(self.fd.as_fd(), seen)?;
        // Only now: what the other leg has not taken is still here, and no event will say so again.
        if self.peeked_all == u32::try_from(count).ok() {
            self.readable = false;
        }
        Ok(())
    }

    /// Discards bytes that the other leg has had from an earlier process; a plain leg's only.
    pub(super) fn discard(&self, count: usize, scratch: &mut [u8]) -> Result<usize, Errno> {
        sys::discard(self.fd.as_fd(), scratch.get_mut(..count).unwrap_or_default())
    }

    /// Whether `put` would take anything now.
    pub(super) fn takes(&mut self) -> Result<bool, Broken> {
        Ok(self.flush()? && self.writable)
    }

    /// Hands bytes to the peer, as many as it can take now.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if !self.takes()? {
            return Ok(0);
        }
        if let Some(session) = self.session.as_mut() {
            let bytes = bytes.get(..bytes.len().min(SEALED_AHEAD)).unwrap_or_default();
            let sealed = session.tls.writer().write(bytes).map_err(|_| Broken::Protocol)?;
            self.flush()?;
            return Ok(sealed);
        }
        match sys::send(self.fd.as_fd(), bytes) {
            Ok(count) => {
                self.writable = count == bytes.len();
                Ok(count)
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Moves sealed records to the socket. False: some are left until it becomes writable.
    pub(super) fn flush(&mut self) -> Result<bool, Broken> {
        let Some(session) = self.session.as_mut() else { return Ok(true) };
        while session.tls.wants_write() {
            if !self.writable {
                return Ok(false);
            }
            match session.tls.write_tls(&mut Socket(self.fd.as_fd())) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(Broken::from_io(&error)),
            }
        }
        Ok(true)
    }

    /// Tells the peer that no more comes. False: earlier bytes are still to go. A truncated end stays one.
    pub(super) fn finish(&mut self, truncated: bool) -> Result<bool, Broken> {
        if let Some(session) = self.session.as_mut()
            && !truncated
            && !session.close_notified
        {
            session.tls.send_close_notify();
            session.close_notified = true;
        }
        if !self.flush()? {
            return Ok(false);
        }
        sys::finish(self.fd.as_fd());
        Ok(true)
    }

    /// Ends the connection by FIN, whatever it still has for us. Unread bytes would turn the close into a reset, so
    /// they are discarded first, within reason.
    pub(super) fn hang_up(&mut self, scratch: &mut [u8]) {
        if self.finish(false).is_ok_and(|finished| !finished) {
            sys::finish(self.fd.as_fd());
        }
        for _ in 0..256 {
            match sys::discard(self.fd.as_fd(), scratch) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    }

    /// Ends a connection that broke the protocol: our alert, then FIN.
    pub(super) fn reproach(&mut self) {
        // Best effort: the peer may not read any more.
        self.flush().ok();
        sys::finish(self.fd.as_fd());
    }

    /// Resets the connection.
    pub(super) fn abort(&self) {
        sys::abort(self.fd.as_fd());
    }
}

// === impl Broken ===

impl Broken {
    fn from_io(error: &io::Error) -> Self {
        error.raw_os_error().map_or(Self::Protocol, |code| Errno::from_raw_os_error(code).into())
    }
}

impl From<Errno> for Broken {
    fn from(error: Errno) -> Self {
        match error {
            Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN => {
                Self::PeerLost
            }
            _ => Self::Reset,
        }
    }
}

// === impl Socket ===

/// What rustls reads from and writes to.
struct Socket<'a>(BorrowedFd<'a>);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(sys::receive(self.0, buffer)?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(sys::send(self.0, bytes)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sys::send_all(self.0, pieces)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the session itself: it holds keys.
        f.debug_struct("Session")
            .field("close_notified", &self.close_notified)
            .finish_non_exhaustive()
    }
}
