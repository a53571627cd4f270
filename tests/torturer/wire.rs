//! A connection as one end of a tunnel sees it: plain, or sealed by a TLS session that rustls keeps.
//!
//! It must never take for a whole stream what TLS would not: an end without `close_notify`, or anything behind one. It
//! never waits, and says that it would only when the socket did, so that the next event tells when to try again; or says
//! besides that it [hesitates](Wire::hesitates).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{self, AssertUnwindSafe};

use rustls::{Connection, ProtocolVersion};

use super::checker::Damage;
use super::stream::Rng;

/// Length of what stands before every record: its kind, a version, and the length of the rest.
const HEAD: usize = 5;
/// The longest piece of one that sends records in pieces: more than a record, as some should be whole.
const PIECE: u64 = 20_000;

/// One end's connection.
pub(crate) enum Wire {
    Plain(TcpStream),
    Sealed(Box<Sealed>),
}

/// A connection under TLS.
pub(crate) struct Sealed {
    socket: TcpStream,
    session: Connection,
    /// From the socket; the first `opened` bytes are rustls's already.
    came: Vec<u8>,
    opened: usize,
    close_notified: bool,
    key_updates: u64,
    /// Lengths of pieces, where records go out in such.
    pieces: Option<Rng>,
    hesitates: bool,
}

/// Has nothing printed of the panics that are caught here.
pub(crate) fn hush() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|place| place.file().contains("/rustls-")) {
            usual(info);
        }
    }));
}

/// What an error looks like to those who count losses.
pub(crate) fn damage(error: &io::Error) -> Damage {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        // The gateway gave the tunnel up.
        (Some(rustls::Error::AlertReceived(_)), _) => Damage::Reset,
        // Lost, doubled, reordered or changed: to a record's seal it is all the same.
        (Some(_), _) => Damage::Corrupted,
        (None, ErrorKind::UnexpectedEof) => Damage::EndedEarly,
        (None, ErrorKind::InvalidData) => Damage::WentOn,
        _ => Damage::Reset,
    }
}

impl Wire {
    pub(crate) fn sealed(socket: TcpStream, session: Connection) -> Self {
        Self::Sealed(Box::new(Sealed {
            socket,
            session,
            came: Vec::new(),
            opened: 0,
            close_notified: false,
            key_updates: 0,
            pieces: None,
            hesitates: false,
        }))
    }

    /// From here on records go out in pieces of lengths that the seed repeats, and everybody else has a turn between two
    /// of them: what is on the way is a part of a record, now and then for long.
    pub(crate) fn shred(&mut self, seed: u64) {
        if let Self::Sealed(sealed) = self {
            sealed.pieces = Some(Rng::new(seed));
        }
    }

    /// It only pretends that the socket has no room, so no event will come: go on when others have had their turn.
    pub(crate) fn hesitates(&self) -> bool {
        matches!(self, Self::Sealed(sealed) if sealed.hesitates)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Sealed(sealed) => &sealed.socket,
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }

    /// The next bytes; none are the end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Sealed(sealed) => sealed.read(into),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Sealed(sealed) => sealed.write(bytes),
        }
    }

    /// Sends what a session still has to say. False: the socket has no room, or so it [pretends](Self::hesitates).
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Sealed(sealed) => sealed.flush(),
        }
    }

    /// Says that no more comes. False: the socket has no room for that yet.
    pub(crate) fn end(&mut self) -> io::Result<bool> {
        if let Self::Sealed(sealed) = self {
            if !std::mem::replace(&mut sealed.close_notified, true) {
                sealed.session.send_close_notify();
            }
            if !sealed.flush()? {
                return Ok(false);
            }
        }
        self.socket().shutdown(Shutdown::Write)?;
        Ok(true)
    }

    /// Changes its key from the next record on, and has the other side change its own; TLS 1.2 has no such thing.
    pub(crate) fn change_keys(&mut self) -> io::Result<()> {
        let Self::Sealed(sealed) = self else { return Ok(()) };
        if sealed.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            sealed.session.refresh_traffic_keys().map_err(io::Error::other)?;
            sealed.key_updates += 1;
        }
        Ok(())
    }

    /// How often it has changed its key.
    pub(crate) fn key_updates(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Sealed(sealed) => sealed.key_updates,
        }
    }
}

impl Sealed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Ok(0) => return self.read_end(),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.open_next(into)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Behind `close_notify` there is FIN, and nothing else.
    fn read_end(&mut self) -> io::Result<usize> {
        let left = self.came.len() - self.opened;
        if left == 0 && self.socket.read(&mut [0])? == 0 {
            return Ok(0);
        }
        let told = format!("{} bytes behind close_notify", left.max(1));
        Err(io::Error::new(ErrorKind::InvalidData, told))
    }

    /// Opens one record, so that it is known what stands behind it. `room` is for what has to be read first.
    fn open_next(&mut self, room: &mut [u8]) -> io::Result<()> {
        let length = loop {
            if let Some(length) = whole_record(&self.came[self.opened..]) {
                break length;
            }
            self.came.drain(..self.opened);
            self.opened = 0;
            match self.socket.read(room)? {
                0 => {
                    let told = "FIN without close_notify";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, told));
                }
                count => self.came.extend_from_slice(&room[..count]),
            }
        };
        let mut record = &self.came[self.opened..self.opened + length];
        // It takes a few KiB a time.
        while !record.is_empty() {
            self.session.read_tls(&mut record)?;
        }
        self.opened += length;
        self.open()?;
        self.flush().map(drop)
    }

    fn open(&mut self) -> io::Result<()> {
        let opens = || self.session.process_new_packets().map(drop);
        // With debug assertions rustls does not bear to complain of a record once it has sent close_notify.
        let opened = panic::catch_unwind(AssertUnwindSafe(opens));
        let opened = opened.unwrap_or_else(|_| Err(rustls::Error::General("asserted".to_owned())));
        opened.map_err(io::Error::other)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.session.is_handshaking() && self.flush()? {
            self.open_next(&mut [0; 4096])?;
        }
        // One that holds more than the socket takes would seem to have sent what it has not.
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.session.writer().write(bytes)?;
        self.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.hesitates = false;
        while self.session.wants_write() {
            let most = self.pieces.as_mut().map(|lengths| lengths.magnitude(1, PIECE) as usize);
            let mut socket = Piece(&self.socket, most.unwrap_or(usize::MAX));
            match self.session.write_tls(&mut socket) {
                Ok(_) if most.is_some() && self.session.wants_write() => {
                    self.hesitates = true;
                    return Ok(false);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// A socket that takes so many bytes at a time.
struct Piece<'a>(&'a TcpStream, usize);

impl Write for Piece<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long the record at the front is, if it is all there.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let length = HEAD + usize::from(u16::from_be_bytes([*bytes.get(3)?, *bytes.get(4)?]));
    (bytes.len() >= length).then_some(length)
}
