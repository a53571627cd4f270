//! What goes from the plain side to the sealed one, and back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::Connection;

use super::Manner;
use crate::harness::reset;

/// Lengths of what is sent at once by one that shreds its records; no boundary stays where a record has its own.
const SHREDS: [usize; 6] = [3, 9001, 1, 701, 14_983, 37];
/// Key updates come after so many writes.
const WRITES_PER_KEYS: usize = 4;

/// One connection on its way through.
pub(super) struct Relay {
    plain: TcpStream,
    sealed: TcpStream,
    session: Connection,
    manner: Manner,
    state: State,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "ends of two sockets, each with two directions")]
struct State {
    /// Opened, and not taken by the plain side yet.
    opened: Vec<u8>,
    writes: usize,
    plain_ended: bool,
    plain_shut: bool,
    sealed_ended: bool,
    sealed_shut: bool,
}

impl Relay {
    /// Of sockets that do not block.
    pub(super) fn new(
        plain: TcpStream,
        sealed: TcpStream,
        session: Connection,
        manner: Manner,
    ) -> Self {
        Self { plain, sealed, session, manner, state: State::default() }
    }

    /// Relays until both directions have ended, or either side breaks.
    pub(super) fn run(mut self) {
        if let Err(error) = self.relay() {
            // NotConnected: it was reset before our FIN, as a probe does that has its answer.
            let resets =
                [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];
            if !resets.contains(&error.kind()) {
                println!("a TLS connection of the test breaks: {error}");
            }
            reset(self.plain);
            reset(self.sealed);
        }
    }

    fn relay(&mut self) -> io::Result<()> {
        while !(self.state.plain_shut && self.state.sealed_shut) {
            self.wait()?;
            self.hear_plain()?;
            self.tell_sealed()?;
            self.hear_sealed()?;
            self.tell_plain()?;
        }
        Ok(())
    }

    /// Whether the plain side may say more: everything before has gone out.
    fn hears_plain(&self) -> bool {
        !self.state.plain_ended && !self.session.is_handshaking() && !self.session.wants_write()
    }

    fn hears_sealed(&self) -> bool {
        !self.state.sealed_ended && self.state.opened.is_empty()
    }

    fn wait(&self) -> io::Result<()> {
        let flags = |reads: bool, writes: bool| {
            let reads = if reads { PollFlags::POLLIN } else { PollFlags::empty() };
            reads | if writes { PollFlags::POLLOUT } else { PollFlags::empty() }
        };
        let state = &self.state;
        let plain = flags(self.hears_plain(), !state.opened.is_empty());
        let sealed = flags(self.hears_sealed(), self.session.wants_write());
        let mut watched = Vec::new();
        // A socket whose both directions have ended would report just that, all the time.
        if !(state.plain_ended && state.plain_shut) {
            watched.push((PollFd::new(self.plain.as_fd(), plain), self.hears_plain()));
        }
        if !(state.sealed_ended && state.sealed_shut) {
            watched.push((PollFd::new(self.sealed.as_fd(), sealed), self.hears_sealed()));
        }
        let mut polled: Vec<_> = watched.iter().map(|(one, _)| one.clone()).collect();
        poll(&mut polled, PollTimeout::NONE)?;
        let broken =
            |one: &PollFd<'_>| one.revents().is_some_and(|it| it.contains(PollFlags::POLLERR));
        // What has come before a reset is read first, if there is somewhere to put it.
        if polled.iter().zip(&watched).any(|(one, (_, hears))| broken(one) && !hears) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn hear_plain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        if !self.hears_plain() {
            return Ok(());
        }
        match unless_dry(self.plain.read(&mut buffer))? {
            None => {}
            Some(0) => {
                self.state.plain_ended = true;
                if !self.manner.rude {
                    self.session.send_close_notify();
                }
            }
            Some(count) => {
                self.session.writer().write_all(&buffer[..count])?;
                self.state.writes += 1;
                let due = self.state.writes.is_multiple_of(WRITES_PER_KEYS);
                for _ in 0..self.manner.rekeys * u32::from(due) {
                    self.session.refresh_traffic_keys().map_err(io::Error::other)?;
                }
            }
        }
        Ok(())
    }

    fn tell_sealed(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            let shreds = self.manner.shreds.then_some(&mut self.state.writes);
            let mut socket = Shredding { socket: &self.sealed, shreds };
            if unless_dry(self.session.write_tls(&mut socket))?.is_none() {
                return Ok(());
            }
        }
        if self.state.plain_ended && !self.state.sealed_shut {
            self.sealed.shutdown(Shutdown::Write)?;
            self.state.sealed_shut = true;
        }
        Ok(())
    }

    fn hear_sealed(&mut self) -> io::Result<()> {
        if !self.hears_sealed() {
            return Ok(());
        }
        if self.session.process_new_packets().map_err(io::Error::other)?.peer_has_closed() {
            // Nothing but the FIN can come now.
            match unless_dry(self.sealed.read(&mut [0]))? {
                None => {}
                Some(0) => self.state.sealed_ended = true,
                Some(_) => return Err(io::Error::other("bytes after close_notify")),
            }
            return Ok(());
        }
        if unless_dry(self.session.read_tls(&mut &self.sealed))?.is_none() {
            return Ok(());
        }
        self.session.process_new_packets().map_err(io::Error::other)?;
        match self.session.reader().read_to_end(&mut self.state.opened) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            // An end without close_notify is one of the errors.
            other => other.map(drop),
        }
    }

    fn tell_plain(&mut self) -> io::Result<()> {
        let state = &mut self.state;
        if !state.opened.is_empty() {
            let Some(count) = unless_dry(self.plain.write(&state.opened))? else { return Ok(()) };
            state.opened.drain(..count);
        }
        if state.sealed_ended && state.opened.is_empty() && !state.plain_shut {
            self.plain.shutdown(Shutdown::Write)?;
            state.plain_shut = true;
        }
        Ok(())
    }
}

/// A socket that takes what it is given in pieces of odd lengths, if it shreds.
struct Shredding<'a> {
    socket: &'a TcpStream,
    shreds: Option<&'a mut usize>,
}

impl Write for Shredding<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(writes) = self.shreds.as_mut() else { return self.socket.write(bytes) };
        let most = SHREDS[**writes % SHREDS.len()];
        let count = self.socket.write(&bytes[..bytes.len().min(most)])?;
        **writes += 1;
        // The other side gets a chance to see this piece alone.
        thread::park_timeout(Duration::from_micros(500));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// None: nothing can be read, or written, for now.
fn unless_dry(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
