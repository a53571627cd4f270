//! What every TCP socket of a client's or a backend's has set from its first byte to its last, also once it is the leg of a tunnel.
//!
//! An urgent byte must never be taken out of its stream: the kernel's counters, by which a tunnel is resumed, would be wrong
//! from there on.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};

/// Keep-alive: a vanished peer is noticed after 60 + 4 * 15 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// [`set`], where that was not done: connections inherit it from their listening socket, and a leg comes from a connection.
pub(crate) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    // It is the last to be set, so that whoever has it has the others.
    if sockopt::socket_oobinline(socket)? || sockopt::socket_domain(socket)? == AddressFamily::UNIX
    {
        return Ok(());
    }
    set(socket)
}

/// No delay, keep-alive, urgent bytes in line: of a listening socket, which may have what another build has set, and whose
/// connections inherit it.
pub(crate) fn set(socket: &impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_socket_oobinline(socket, true)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    pub(crate) fn is_prepared(socket: &impl AsFd) -> bool {
        sockopt::tcp_nodelay(socket).unwrap()
            && sockopt::socket_keepalive(socket).unwrap()
            && sockopt::tcp_keepidle(socket).unwrap() == KEEPALIVE_IDLE
            && sockopt::tcp_keepintvl(socket).unwrap() == KEEPALIVE_INTERVAL
            && sockopt::tcp_keepcnt(socket).unwrap() == KEEPALIVE_PROBES
            && sockopt::socket_oobinline(socket).unwrap()
    }

    #[test]
    fn a_socket_is_prepared_once_and_again() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!is_prepared(&client));
        for _ in 0..2 {
            prepare(&client).unwrap();
            assert!(is_prepared(&client));
        }
    }

    #[test]
    fn connections_inherit_it_from_a_listening_socket_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _early = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set(&listener).unwrap();
        let _late = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let [early, late] = [(); 2].map(|()| listener.accept().unwrap().0);
        // What waited in the queue when the worker came has it from `prepare` alone.
        assert!(!is_prepared(&early));
        assert!(is_prepared(&late));
        prepare(&early).unwrap();
        assert!(is_prepared(&early));
    }

    #[test]
    fn a_unix_socket_is_left_as_it_is() {
        let (one, _other) = UnixStream::pair().unwrap();
        prepare(&one).unwrap();
    }
}
