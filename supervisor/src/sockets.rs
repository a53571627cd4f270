//! Binding: listening sockets for clients, and named unix sockets for children and operators.
//!
//! The supervisor never accepts on a client's socket; it only holds it, so that no restart of a worker refuses anybody.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that wait for a worker, at most; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Listens on `address`, alone: never with `SO_REUSEPORT`, so that there is one accept queue an address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // An IPv4 frontend on the same port is a listener of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Stops listening in every process that holds the socket, so that the address is free at once: a worker that is slow
/// to hear that it drains must not keep it.
pub fn give_back(socket: &TcpListener) {
    if let Err(error) = rustix::net::shutdown(socket, rustix::net::Shutdown::Read) {
        tracing::debug!(%error, "the socket was not listening");
    }
}

/// Whether it listens still: nobody has given it back.
pub fn listens(socket: &TcpListener) -> bool {
    sockopt::socket_acceptconn(socket) == Ok(true)
}

/// Makes a named socket: bound beside by `bind`, given `mode`, and renamed into place, so that whoever dials the name
/// reaches either the earlier supervisor or this one, and never nobody.
pub fn put_in_place<T>(
    path: &Path,
    mode: u32,
    bind: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bound = bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&beside, path)?;
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_once() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(listen(address).is_ok());
    }

    #[test]
    fn an_address_that_is_given_back_is_free_while_others_hold_the_socket() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let held_by_a_worker = first.try_clone().unwrap();
        let address = first.local_addr().unwrap();
        assert!(listens(&first) && listens(&held_by_a_worker));
        give_back(&first);
        assert!(!listens(&first) && !listens(&held_by_a_worker));
        assert!(listen(address).is_ok());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        for _ in 0..2 {
            let listener =
                put_in_place(&path, 0o600, |at| std::os::unix::net::UnixListener::bind(at))
                    .unwrap();
            std::os::unix::net::UnixStream::connect(&path).unwrap();
            listener.accept().unwrap();
        }
    }
}
