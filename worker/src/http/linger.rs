//! How a client connection ends without eating its last answer, whichever version of HTTP it speaks.
//!
//! A socket that is closed while bytes wait in its receive queue answers with a reset, and so does one that gets bytes after
//! it was closed; a reset throws away what the client has not been given yet. So the last answer is followed by FIN, and
//! then whatever the client still sends is dropped until it ends its side, within [`PATIENCE`] and [`MOST_BYTES`]
//! (RFC 9112 section 9.6). A client that is still taking what it was sent has its patience anew: over HTTP/2 it says all the time
//! how much more it would take.

use std::future::Future;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::link::Link;
use crate::tunnel;

/// How long a client may go on sending after it has its last answer: some round trips on a bad line, as nginx's
/// `lingering_timeout`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of it is read. A client that sends more than this after FIN does not mean to stop.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Longest time for the last bytes to go out to a client that does not read them.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes read at once; what they are does not matter.
const STEP: usize = 4 * 1024;

/// Ends our side and waits until the client ends its own.
pub(crate) async fn close(mut io: Link) {
    if let Err(error) = end_own_side(&mut io).await {
        tracing::debug!(%error, "client was gone before its connection ended");
        return;
    }
    // Beneath TLS: nobody looks at it, so nobody need open it.
    let socket = io.tcp();
    let untaken = || tunnel::unacknowledged(socket.as_fd()).unwrap_or(0);
    outwait(discard(socket), untaken).await;
}

/// Writes a last answer that hyper knows nothing of, then ends as [`close`].
pub(crate) async fn say_and_close(mut io: Link, answer: &[u8]) {
    match timeout(FLUSH_PATIENCE, io.write_all(answer)).await {
        Ok(Ok(())) => close(io).await,
        Ok(Err(error)) => tracing::debug!(%error, "client was gone before its last answer"),
        Err(_) => tracing::debug!("client did not take its last answer"),
    }
}

/// Ends the connection with a reset, for an answer whose end the client could not tell from a whole one, and for clients
/// that are owed nothing.
pub(crate) fn abort(io: Link) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(io.tcp(), Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot reset a client connection");
    }
    drop(io);
}

async fn end_own_side(io: &mut Link) -> io::Result<()> {
    timeout(FLUSH_PATIENCE, async {
        io.flush().await?;
        match io.shutdown().await {
            // hyper has already ended it.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    })
    .await
    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Waits for the client's end, as long as each [`PATIENCE`] sees it take some of what it was sent.
async fn outwait(ended: impl Future<Output = ()>, untaken: impl Fn() -> u64) {
    let mut ended = pin!(ended);
    let mut before = untaken();
    // An expired patience is the ordinary end of a client that never closes. Cancel-safe: `ended` is only borrowed.
    while timeout(PATIENCE, ended.as_mut()).await.is_err() {
        let now = untaken();
        if now >= before {
            return;
        }
        before = now;
    }
}

async fn discard(socket: &TcpStream) {
    let mut left = MOST_BYTES;
    while left > 0 && socket.readable().await.is_ok() {
        match socket.try_read(&mut [0; STEP]) {
            Ok(0) => return,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        // A client that sends faster than this reads has no thread to itself.
        tokio::task::consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::cell::Cell;
    use std::future::pending;

    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn a_client_that_is_still_sending_gets_the_whole_answer() {
        let (mut client, io) = pair().await;
        let call = async {
            client.write_all(&vec![b'x'; 100_000]).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            // Or it would be waited for.
            drop(client);
            answer
        };
        let ((), answer) = tokio::join!(say_and_close(Link::Plain(io), b"no"), call);
        assert_eq!(answer, b"no");
    }

    #[tokio::test]
    async fn a_client_that_does_not_mean_to_stop_is_cut_off() {
        let (mut client, io) = pair().await;
        let flood = async {
            let chunk = [b'x'; 8 * 1024];
            let mut sent = 0;
            while client.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
                assert!(sent < 100 * MOST_BYTES, "it goes on and on");
            }
        };
        tokio::join!(close(Link::Plain(io)), flood);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_what_it_was_sent_is_waited_for_and_who_takes_nothing_is_not() {
        // What waits at each look, the first one before any patience.
        for (looks, patiences) in
            [(&[0, 0][..], 1), (&[9, 9], 1), (&[9, 5, 5], 2), (&[9, 5, 1, 0, 0], 4)]
        {
            let (began, look) = (Instant::now(), Cell::new(0));
            let untaken = || {
                let seen = looks.get(look.replace(look.get() + 1)).copied();
                seen.unwrap()
            };
            outwait(pending(), untaken).await;
            assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs() * patiences, "{looks:?}");
        }
        let began = Instant::now();
        outwait(async {}, || 9).await;
        assert!(began.elapsed() < PATIENCE);
    }
}
