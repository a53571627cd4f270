//! Proves on loopback pairs that this kernel's counters behave as the tunnels rely on.
//!
//! Run once, before a worker promises anything: where it fails, tunnels are pinned.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, sockopt};
use thiserror::Error;

use super::{Baseline, Snapshot};
use crate::tunnel::sys;

/// Loopback delivers within the call that sends, nearly always; a busy machine gets this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// So often is a trial made in which something did not come in time: that says nothing of the counters.
const TRIALS: u32 = 3;
/// Small enough for a few milliseconds, large enough for the kernel's window timers.
const BUFFER: usize = 32 * 1024;

/// Why tunnels must not move between processes here.
#[derive(Debug, Error)]
pub(in crate::tunnel) enum SelfTestError {
    /// The trial itself failed.
    #[error("the kernel's counters could not be tried: {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The counters are not what they must be.
    #[error("the kernel's counters are not exact: {step}: {found}")]
    Counters {
        /// What was tried.
        step: &'static str,
        /// What was counted.
        found: String,
    },
}

/// One end of a pair, with what it must have counted since its baseline.
struct End {
    fd: OwnedFd,
    base: Baseline,
    sent: u64,
    read: u64,
}

/// Makes a trial until it says something.
pub(super) fn conclusive(
    mut trial: impl FnMut() -> Result<(), SelfTestError>,
) -> Result<(), SelfTestError> {
    let mut made = 1;
    loop {
        match trial() {
            Err(SelfTestError::Io { source, .. })
                if source.kind() == io::ErrorKind::TimedOut && made < TRIALS =>
            {
                made += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Tries the counters in the states of a tunnel's life. Takes a few milliseconds, and blocks meanwhile.
pub(in crate::tunnel) fn self_test() -> Result<(), SelfTestError> {
    // An opener counts its SYN, an acceptor does not.
    for opener_writes in [true, false] {
        let (opener, acceptor) = pair().map_err(failed("a loopback connection"))?;
        let (writer, reader) = if opener_writes { (opener, acceptor) } else { (acceptor, opener) };
        try_open(End::new(writer)?, End::new(reader)?)?;
    }
    Ok(())
}

fn try_open(mut writer: End, mut reader: End) -> Result<(), SelfTestError> {
    let mut buffer = vec![0; BUFFER];
    writer.send("unread bytes", &[1; 1000])?;
    reader.await_queue("unread bytes", 1000)?;
    check("unread bytes", &writer, &reader)?;
    reader.read("partly read bytes", &mut buffer, 300)?;
    check("partly read bytes", &writer, &reader)?;

    writer.send("an urgent byte", b"abc")?;
    rustix::net::send(&writer.fd, b"U", SendFlags::OOB | SendFlags::DONTWAIT)
        .map_err(|error| failed("an urgent byte")(error.into()))?;
    writer.sent += 1;
    writer.send("an urgent byte", b"def")?;
    reader.await_queue("an urgent byte", 707)?;
    check("an urgent byte", &writer, &reader)?;
    while reader.read != writer.sent {
        reader.read("reading over an urgent byte", &mut buffer, 5)?;
        check("reading over an urgent byte", &writer, &reader)?;
    }

    loop {
        match sys::send(writer.fd.as_fd(), &buffer) {
            Ok(count) => writer.sent += count as u64,
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(failed("a closed window")(error.into())),
        }
    }
    check("a closed window", &writer, &reader)?;
    try_close(writer, reader, &mut buffer)
}

/// Half-closes both ways, with bytes queued behind either end.
fn try_close(mut writer: End, mut reader: End, buffer: &mut [u8]) -> Result<(), SelfTestError> {
    sys::finish(writer.fd.as_fd());
    if !writer.snapshot("a FIN behind queued bytes")?.own_fin() {
        return Err(wrong("a FIN behind queued bytes", "the state does not show it"));
    }
    while reader.read != writer.sent {
        reader.read("queued bytes before a FIN", buffer, usize::MAX)?;
        reader.check_consumed("queued bytes before a FIN")?;
    }
    reader.await_end("a received FIN")?;
    reader.check_consumed("a received FIN")?;

    reader.send("the other direction after a FIN", &[2; 100])?;
    writer.await_queue("the other direction after a FIN", 100)?;
    reader.check_accepted("the other direction after a FIN")?;
    sys::finish(reader.fd.as_fd());
    // Both FINs are through, and the bytes before the second are still to be read.
    writer.await_state("two FINs", super::state::CLOSE)?;
    reader.await_state("two FINs", super::state::CLOSE)?;
    writer.check_consumed("two FINs")?;
    writer.read("bytes left after two FINs", buffer, 60)?;
    writer.check_consumed("bytes left after two FINs")?;
    writer.read("bytes left after two FINs", buffer, 40)?;
    writer.check_consumed("bytes left after two FINs")?;
    writer.await_end("an end after two FINs")?;
    writer.check_consumed("an end after two FINs")
}

fn check(step: &'static str, writer: &End, reader: &End) -> Result<(), SelfTestError> {
    writer.check_accepted(step)?;
    writer.check_consumed(step)?;
    reader.check_accepted(step)?;
    reader.check_consumed(step)
}

// === impl End ===

impl End {
    fn new(fd: OwnedFd) -> Result<Self, SelfTestError> {
        let base = Snapshot::read(fd.as_fd()).map_err(failed("a new connection"))?.baseline();
        Ok(Self { fd, base, sent: 0, read: 0 })
    }

    fn snapshot(&self, step: &'static str) -> Result<Snapshot, SelfTestError> {
        Snapshot::read(self.fd.as_fd()).map_err(failed(step))
    }

    fn check_accepted(&self, step: &'static str) -> Result<(), SelfTestError> {
        let snapshot = self.snapshot(step)?;
        if snapshot.accepted() == self.base.accepted + self.sent {
            return Ok(());
        }
        Err(wrong(step, format!("{} bytes sent: {snapshot:?} since {:?}", self.sent, self.base)))
    }

    fn check_consumed(&self, step: &'static str) -> Result<(), SelfTestError> {
        let snapshot = self.snapshot(step)?;
        if snapshot.consumed(false) == self.base.received + self.read {
            return Ok(());
        }
        Err(wrong(step, format!("{} bytes read: {snapshot:?} since {:?}", self.read, self.base)))
    }

    fn send(&mut self, step: &'static str, bytes: &[u8]) -> Result<(), SelfTestError> {
        match sys::send(self.fd.as_fd(), bytes) {
            Ok(count) if count == bytes.len() => self.sent += count as u64,
            Ok(_) => return Err(failed(step)(io::ErrorKind::WriteZero.into())),
            Err(error) => return Err(failed(step)(error.into())),
        }
        Ok(())
    }

    /// Reads up to `most` bytes, at least one.
    fn read(
        &mut self,
        step: &'static str,
        buffer: &mut [u8],
        most: usize,
    ) -> Result<(), SelfTestError> {
        let most = most.min(buffer.len());
        let into = buffer.get_mut(..most).unwrap_or_default();
        let fd = self.fd.as_fd();
        let count = patient(step, || match sys::receive(fd, into) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        self.read += count as u64;
        Ok(())
    }

    fn await_queue(&self, step: &'static str, length: u64) -> Result<(), SelfTestError> {
        let reached = || Ok((Snapshot::read(self.fd.as_fd())?.in_queue == length).then_some(()));
        patient(step, reached)
    }

    fn await_state(&self, step: &'static str, state: u8) -> Result<(), SelfTestError> {
        patient(step, || Ok((Snapshot::read(self.fd.as_fd())?.state == state).then_some(())))
    }

    fn await_end(&self, step: &'static str) -> Result<(), SelfTestError> {
        patient(step, || match sys::receive(self.fd.as_fd(), &mut [0; 1]) {
            Ok(0) => Ok(Some(())),
            Ok(_) => Err(io::Error::other("a byte that nobody has sent")),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }
}

/// Two ends of a connection, the opener's first.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let addresses =
        [SocketAddr::from(([127, 0, 0, 1], 0)), "[::1]:0".parse().map_err(io::Error::other)?];
    let listener = TcpListener::bind(addresses.as_slice())?;
    let opener = TcpStream::connect(listener.local_addr()?)?;
    let deadline = Instant::now() + PATIENCE;
    // Anybody on this machine may dial a loopback port.
    let acceptor = loop {
        let (acceptor, from) = listener.accept()?;
        if from == opener.local_addr()? {
            break acceptor;
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    };
    for end in [&opener, &acceptor] {
        sockopt::set_socket_oobinline(end, true)?;
        sockopt::set_tcp_nodelay(end, true)?;
        sockopt::set_socket_send_buffer_size(end, BUFFER)?;
        sockopt::set_socket_recv_buffer_size(end, BUFFER)?;
    }
    Ok((opener.into(), acceptor.into()))
}

fn patient<T>(
    step: &'static str,
    mut look: impl FnMut() -> io::Result<Option<T>>,
) -> Result<T, SelfTestError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().map_err(failed(step))? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(failed(step)(io::ErrorKind::TimedOut.into()));
        }
        std::thread::yield_now();
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> SelfTestError {
    move |source| SelfTestError::Io { step, source }
}

fn wrong(step: &'static str, found: impl Into<String>) -> SelfTestError {
    SelfTestError::Counters { step, found: found.into() }
}
