//! Descriptors between processes: one message and its fds per packet, over a `SOCK_SEQPACKET` unix socket.
//!
//! A packet is a prost message with at most [`MOST_FDS`] descriptors. What arrives is owned and close-on-exec;
//! a truncated packet is an error and whatever came with it is closed; one whose descriptors did not all fit comes without
//! them. What the messages mean is decided elsewhere.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    listen, sendmsg, socket,
};
use prost::Message;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

pub(crate) mod owned;

/// Most descriptors in one packet (`SCM_MAX_FD` is 253; tunnels go in pairs).
pub const MOST_FDS: usize = 250;
/// Longest message, bytes.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// Before asking again when too many descriptors of this user are on their way: receivers take them in microseconds, a
/// stopped one never.
const CROWDED_PAUSE: Duration = Duration::from_millis(2);
/// Children that dial at the same moment after a supervisor's start.
const BACKLOG: i32 = 128;

/// One end: sends `S`, receives `R`. The other end is an `FdChannel<R, S>`, so a wrong message cannot be sent.
///
/// One task may send while another receives.
#[derive(Debug)]
pub struct FdChannel<S, R> {
    socket: AsyncFd<OwnedFd>,
    messages: PhantomData<fn(S) -> R>,
}

/// Room for a packet, probably.
#[derive(Debug)]
pub struct Outlet<'a, S> {
    guard: AsyncFdReadyGuard<'a, OwnedFd>,
    messages: PhantomData<fn(S)>,
}

/// Where children dial.
#[derive(Debug)]
pub struct FdListener {
    socket: AsyncFd<OwnedFd>,
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

// === impl FdListener ===

impl FdListener {
    /// Listens at `path`, which must not exist. Needs a tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self { socket: owned::watch(socket)? })
    }

    /// The next child that dials. Cancel-safe.
    pub async fn accept<S, R>(&self) -> io::Result<FdChannel<S, R>> {
        let accepted = self
            .socket
            .async_io(Interest::READABLE, |socket| owned::accept(socket.as_fd()))
            .await?;
        FdChannel::new(accepted)
    }
}

// === impl FdChannel ===

impl<S: Message, R: Message + Default> FdChannel<S, R> {
    /// Dials the supervisor.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Self::new(socket)
    }

    /// Sends one packet. Cancel-safe: it went as a whole or not at all.
    pub async fn send(&self, message: &S, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let sent = self.writable().await?.try_send(message, fds);
            match sent {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if is_crowded(&error) => tokio::time::sleep(CROWDED_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for room, so that a packet can be composed when it goes and not before. Cancel-safe.
    pub async fn writable(&self) -> io::Result<Outlet<'_, S>> {
        Ok(Outlet { guard: self.socket.writable().await?, messages: PhantomData })
    }

    /// The next packet; `None` when the other side is gone. Without any of its descriptors where this process has not
    /// enough left for all of them. Cancel-safe.
    pub async fn receive(&self) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
        self.socket
            .async_io(Interest::READABLE, |socket| match receive_packet(socket.as_fd()) {
                // It died with something unread. What it had said before lies behind the error, which is told once.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    receive_packet(socket.as_fd())
                }
                received => received,
            })
            .await
    }
}

/// Whether a packet did not go because too many descriptors of this user are on their way; they become fewer by
/// themselves.
pub fn is_crowded(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ETOOMANYREFS)
}

// === impl Outlet ===

impl<S: Message> Outlet<'_, S> {
    /// Sends one packet as a whole, or nothing: `false` when there is no room after all.
    pub fn try_send(&mut self, message: &S, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let bytes = message.encode_to_vec();
        if fds.len() > MOST_FDS || bytes.len() > LONGEST_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for one packet"));
        }
        match self.guard.try_io(|socket| send_packet(socket.get_ref().as_fd(), &bytes, fds)) {
            Ok(sent) => sent.map(|()| true),
            Err(_would_block) => Ok(false),
        }
    }
}

impl<S, R> FdChannel<S, R> {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: owned::watch(socket)?, messages: PhantomData })
    }
}

impl<S, R> AsFd for FdChannel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

fn receive_packet<R: Message + Default>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let packet = rustix::net::recvmsg(socket, &mut parts, &mut control, flags)?;
    let length = packet.bytes;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if packet.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet was cut short"));
    }
    if packet.flags.contains(ReturnFlags::CTRUNC) {
        // This process may have no more of them. Those that came are closed here, and the other side has them all.
        fds.clear();
    }
    if length == 0 && fds.is_empty() {
        return Ok(None);
    }
    let message = R::decode(bytes.get(..length).unwrap_or_default())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((message, fds)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use std::io::{Read, Write};

    use crate::control::vault_request::{Kind as Request, Window};
    use crate::control::{VaultReply, VaultRequest, vault_reply::Granted, vault_reply::Kind};
    use crate::vault::{VaultEnd, WorkerEnd};

    fn refusal() -> VaultReply {
        Kind::Granted(Granted { refusal: "no".into(), ..Granted::default() }).into()
    }

    async fn pair() -> (WorkerEnd, VaultEnd) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fd.sock");
        let listener = FdListener::bind(&path).unwrap();
        let child = FdChannel::connect(&path).unwrap();
        (child, listener.accept().await.unwrap())
    }

    #[tokio::test]
    async fn a_descriptor_arrives_and_works() {
        let (child, supervisor) = pair().await;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let reply = refusal();
        supervisor.send(&reply, &[writer.as_fd()]).await.unwrap();
        drop(writer);
        let (message, fds) = child.receive().await.unwrap().unwrap();
        assert_eq!(message, reply);
        std::fs::File::from(fds.into_iter().next().unwrap()).write_all(b"hi").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    }

    #[tokio::test]
    async fn the_end_of_the_other_side_is_seen() {
        let (child, supervisor) = pair().await;
        drop(child);
        assert!(supervisor.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_was_said_before_a_death_is_heard_whatever_was_not_read() {
        let (child, supervisor) = pair().await;
        supervisor.send(&refusal(), &[]).await.unwrap();
        let said = VaultRequest::from(Request::Window(Window { tunnels: 7 }));
        child.send(&said, &[]).await.unwrap();
        drop(child);
        let (heard, _) = supervisor.receive().await.unwrap().unwrap();
        assert_eq!(heard, said);
        assert!(supervisor.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_not_a_panic() {
        let (child, supervisor) = pair().await;
        nix::sys::socket::send(child.as_fd().as_raw_fd(), &[0xff; 40], MsgFlags::empty()).unwrap();
        assert!(supervisor.receive().await.is_err());
    }
}
