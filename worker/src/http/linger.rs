//! How a client connection ends without eating its last answer.
//!
//! A socket that is closed while bytes wait in its receive queue answers with a reset, and a reset may throw away
//! what the client has not read yet. So the last answer is followed by FIN, and then whatever the client still sends
//! is read and dropped until it ends its side, within [`PATIENCE`] and [`MOST_BYTES`] (RFC 9112 section 9.6).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::link::Link;

/// How long a client may go on sending after its last answer: some round trips on a bad line, as nginx's
/// `lingering_timeout`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of it is read. A client that sends more than this after FIN does not mean to stop.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Longest time for the last bytes to go out to a client that does not read them.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes read at once; what they are does not matter.
const STEP: usize = 4 * 1024;

/// Ends our side and reads until the client ends its own.
pub(crate) async fn close<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io) {
    if let Err(error) = end_own_side(&mut io).await {
        tracing::debug!(%error, "client was gone before its connection ended");
        return;
    }
    // An expired patience is the ordinary end of a client that never closes: the socket is closed either way.
    drop(timeout(PATIENCE, discard(&mut io)).await);
}

/// Writes a last answer that hyper knows nothing of, then ends as [`close`].
pub(crate) async fn say_and_close<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io, answer: &[u8]) {
    match timeout(FLUSH_PATIENCE, io.write_all(answer)).await {
        Ok(Ok(())) => close(io).await,
        Ok(Err(error)) => tracing::debug!(%error, "client was gone before its last answer"),
        Err(_) => tracing::debug!("client did not take its last answer"),
    }
}

/// Ends the connection with a reset, for an answer whose end the client could not tell from a whole one.
pub(crate) fn abort(io: Link) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(io.tcp(), Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot reset a client connection");
    }
    drop(io);
}

async fn end_own_side<Io: AsyncWrite + Unpin>(io: &mut Io) -> io::Result<()> {
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

async fn discard<Io: AsyncRead + Unpin>(io: &mut Io) {
    let mut buffer = vec![0; STEP];
    let mut left = MOST_BYTES;
    while left > 0 {
        match io.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_client_that_is_still_sending_gets_the_whole_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (io, _) = listener.accept().await.unwrap();
            say_and_close(io, b"no").await;
        };
        let call = async {
            let mut io = TcpStream::connect(address).await.unwrap();
            io.write_all(&vec![b'x'; 100_000]).await.unwrap();
            let mut answer = Vec::new();
            io.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let ((), answer) = tokio::join!(serve, call);
        assert_eq!(answer, b"no");
    }
}
