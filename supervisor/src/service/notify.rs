//! The manager's protocol (`sd_notify(3)`): datagrams of assignments, and descriptors with them.
//!
//! A manager that is not there, or does not listen, keeps nobody from serving: a datagram waits for a second at most, and
//! while it waits, the other tasks of the thread that sends it go on.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Longest wait for room in the manager's queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// The manager's ear.
#[derive(Debug)]
pub(super) struct Manager {
    socket: UnixDatagram,
    address: UnixAddr,
}

/// The manager, if this process is a service of one.
pub(super) fn manager() -> Option<&'static Manager> {
    static MANAGER: OnceLock<Option<Manager>> = OnceLock::new();
    let find = || {
        let at = std::env::var("NOTIFY_SOCKET").ok()?;
        Manager::at(&at)
            .inspect_err(
                |error| tracing::warn!(%error, at, "the service manager cannot be told anything"),
            )
            .ok()
    };
    MANAGER.get_or_init(find).as_ref()
}

/// Tells the manager, if there is one.
pub(super) fn tell(state: &str) {
    let Some(manager) = manager() else { return };
    if let Err(error) = manager.tell(state) {
        tracing::warn!(%error, state, "the service manager was not told");
    }
}

/// Gives the manager a sign of life. One that finds no room is one of several, and not waited for.
pub(super) fn sign() {
    let Some(manager) = manager() else { return };
    if let Err(error) = manager.send_at_once("WATCHDOG=1") {
        tracing::debug!(%error, "the service manager got no sign of life");
    }
}

/// How long this process may go without a sign of life.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    // Nobody means less than a millisecond.
    let patience = number("WATCHDOG_USEC").filter(|us| *us >= 1000)?;
    (is_meant && manager().is_some()).then(|| Duration::from_micros(patience))
}

// === impl Manager ===

impl Manager {
    /// `at` is a path, or begins with `@`, which stands for the abstract namespace.
    fn at(at: &str) -> io::Result<Self> {
        let address = match at.strip_prefix('@') {
            Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
            None => UnixAddr::new(at)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address })
    }

    /// One datagram, from a task that others of its thread must not wait for.
    fn tell(&self, state: &str) -> io::Result<()> {
        match self.send_at_once(state) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::task::block_in_place(|| self.send(state, &[]))
            }
            outcome => outcome,
        }
    }

    /// One datagram, or [`io::ErrorKind::WouldBlock`].
    fn send_at_once(&self, state: &str) -> io::Result<()> {
        self.send_with(state, &[], MsgFlags::MSG_DONTWAIT)
    }

    /// One datagram, which may wait.
    pub(super) fn send(&self, state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(state, fds, MsgFlags::empty())
    }

    fn send_with(&self, state: &str, fds: &[BorrowedFd<'_>], how: MsgFlags) -> io::Result<()> {
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let parts = [IoSlice::new(state.as_bytes())];
        let flags = how | MsgFlags::MSG_NOSIGNAL;
        sendmsg(self.socket.as_raw_fd(), &parts, control, flags, Some(&self.address))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_manager_hears_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.to_str().unwrap()).unwrap();
        let (pipe, _writer) = std::io::pipe().unwrap();
        manager.send("FDSTORE=1\nFDNAME=a", &[pipe.as_fd()]).unwrap();
        let mut heard = [0; 64];
        let length = ear.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"FDSTORE=1\nFDNAME=a");
        let abstract_name = format!("@holdfast-test-{}", std::process::id());
        // Nobody listens there: the name is understood all the same.
        let error = Manager::at(&abstract_name).unwrap().send("READY=1", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// One that only reads when another task of the same thread has had its turn.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_manager_that_does_not_read_holds_up_only_who_tells_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.to_str().unwrap()).unwrap();
        manager.socket.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        let full = loop {
            if let Err(error) = manager.send_at_once("WATCHDOG=1") {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let telling = tokio::spawn(async move {
            let reading = tokio::spawn(async move {
                let mut heard = [0; 64];
                loop {
                    let length = ear.recv(&mut heard).unwrap();
                    if heard[..length] == *b"READY=1" {
                        return;
                    }
                }
            });
            manager.tell("READY=1").map(|()| reading)
        });
        telling.await.unwrap().unwrap().await.unwrap();
    }
}
