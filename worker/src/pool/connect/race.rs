//! The first of several addresses that takes a connection (RFC 8305, sections 4 and 5).
//!
//! Addresses are tried in their order. One that says nothing gets a quarter of a second, then the next one is tried
//! beside it; one that refuses makes way at once. So neither a dead address nor a network that swallows packets costs a
//! request more than that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::is_exhaustion;

/// RFC 8305, section 5: recommended.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers. Without any the error is that there is none.
pub(crate) async fn first_of(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    match addresses {
        [] => Err(io::ErrorKind::AddrNotAvailable.into()),
        [only] => TcpStream::connect(SocketAddr::new(*only, port)).await,
        // Boxed: most backends have one address.
        several => Box::pin(race(several, port)).await,
    }
}

async fn race(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().map(|address| SocketAddr::new(*address, port));
    let mut under_way = FuturesUnordered::new();
    let mut worst: Option<io::Error> = None;
    loop {
        let next = waiting.next();
        let more = next.is_some();
        under_way.extend(next.map(TcpStream::connect));
        let head_start = Instant::now() + HEAD_START;
        // Cancel-safe: attempts stay in `under_way`.
        tokio::select! {
            biased;
            ended = under_way.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) if is_exhaustion(&error) && !is_the_address(&error) => {
                    return Err(error);
                }
                // What the backend said goes before what this host says of an address that it cannot reach.
                Some(Err(error)) if is_the_address(&error) => worst = worst.or(Some(error)),
                Some(Err(error)) => worst = Some(error),
                None => {
                    return Err(worst.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
                }
            },
            () = sleep_until(head_start), if more => {}
        }
    }
}

/// Whether only this address has no way out: without IPv6 on this host, say.
fn is_the_address(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::EADDRNOTAVAIL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Loopback addresses of a test's own; nobody listens there until somebody does.
    fn loopback(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 7, 3, last).into()
    }

    #[tokio::test]
    async fn a_refusing_address_makes_way_for_the_next() {
        let listener = TcpListener::bind((loopback(3), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = [loopback(1), loopback(2), loopback(3)];
        let stream = first_of(&addresses, port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), loopback(3));
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_the_next_one_up() {
        // A full queue swallows connection attempts, as a firewall does.
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind(SocketAddr::new(loopback(11), 0)).unwrap();
        let silent = silent.listen(0).unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut fill = Vec::new();
        while let Ok(filled) =
            tokio::time::timeout(4 * HEAD_START, TcpStream::connect((loopback(11), port))).await
        {
            fill.push(filled.unwrap());
        }
        let listener = TcpListener::bind((loopback(12), port)).await.unwrap();
        let stream = first_of(&[loopback(11), loopback(12)], port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn with_nobody_there_the_backends_refusal_is_told() {
        let listener = TcpListener::bind((loopback(21), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = first_of(&[loopback(21), loopback(22)], port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = first_of(&[], port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
