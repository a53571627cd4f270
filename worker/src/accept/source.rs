//! Who a connection's client is: its peer, or whom the PROXY header before its first byte names.
//!
//! The header is read byte for byte and nothing behind it: what follows is TLS's, or hyper's, or a tunnel's, and stays in the
//! socket until they ask. Of a peer that may not speak for others nothing is read at all.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::client_source::ClientSource;
use crate::client_source::proxy_header::{
    self, FIRST, FIXED, LONGEST_LINE, Malformed, Source, Version,
};

/// Between two words about such connections in the log: a balancer that is not trusted makes one with each client.
const NEWS_EVERY: Duration = Duration::from_secs(60);

/// Why a connection is closed before it is served.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("a PROXY header is required, and the peer is not among trustedProxies")]
    Untrusted,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the PROXY header did not arrive in time")]
    TimedOut,
    #[error("the peer left before its PROXY header was complete")]
    Gone(#[from] io::Error),
}

/// The client of a connection that `peer` has made.
pub(super) async fn learn(
    stream: &mut TcpStream,
    peer: SocketAddr,
    source: &ClientSource,
    patience: Duration,
) -> Result<SocketAddr, SourceError> {
    if !source.proxy_protocol {
        return Ok(peer);
    }
    if !source.trusts(peer.ip()) {
        return Err(SourceError::Untrusted);
    }
    // Boxed: only who needs it has room for it.
    match timeout(patience, Box::pin(read(stream))).await {
        Ok(Ok(Source::Client(client))) => Ok(client),
        Ok(Ok(Source::Peer)) => Ok(peer),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(SourceError::TimedOut),
    }
}

async fn read(stream: &mut TcpStream) -> Result<Source, SourceError> {
    let mut first = [0; FIRST];
    stream.read_exact(&mut first).await?;
    match proxy_header::version(&first)? {
        Version::Binary => {
            let mut fixed = [0; FIXED];
            for (to, from) in fixed.iter_mut().zip(first) {
                *to = from;
            }
            let (_, rest) = fixed.split_at_mut(FIRST);
            stream.read_exact(rest).await?;
            let mut rest = vec![0; proxy_header::length(&fixed)?];
            stream.read_exact(&mut rest).await?;
            Ok(proxy_header::binary(&fixed, &rest)?)
        }
        Version::Line => {
            let mut line = first.to_vec();
            read_line(stream, &mut line).await?;
            Ok(proxy_header::line(&line)?)
        }
    }
}

/// Reads up to the line's end, and no further. What is looked at and holds no end belongs to the line.
async fn read_line(stream: &mut TcpStream, line: &mut Vec<u8>) -> Result<(), SourceError> {
    while line.len() < LONGEST_LINE {
        let mut seen = [0; LONGEST_LINE];
        let room = LONGEST_LINE - line.len();
        let count = stream.peek(seen.get_mut(..room).unwrap_or_default()).await?;
        let seen = seen.get(..count).unwrap_or_default();
        if seen.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let end = seen.iter().position(|byte| *byte == b'\n');
        let begin = line.len();
        line.resize(begin + end.map_or(count, |end| end + 1), 0);
        stream.read_exact(line.get_mut(begin..).unwrap_or_default()).await?;
        if end.is_some() {
            return Ok(());
        }
    }
    Err(Malformed::TooLong.into())
}

/// Whether a connection that was closed for that is worth a warning: a balancer that is set up wrongly has each of its
/// clients closed, and a stranger must not fill the log.
pub(super) fn is_news() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let is_news = last.is_none_or(|last| now.duration_since(last) >= NEWS_EVERY);
    if is_news {
        *last = Some(now);
    }
    is_news
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use holdfast_proto::control as wire;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
    const PATIENCE: Duration = Duration::from_secs(30);

    fn binary() -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f".to_vec();
        header.extend_from_slice(&[192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb, 4, 0, 0]);
        header
    }

    fn required(trusted: [u8; 4]) -> ClientSource {
        let trusted = vec![wire::Network { address: trusted.to_vec(), prefix: 8 }];
        let source = wire::ClientSource { proxy_protocol: true, trusted, forwarded_headers: false };
        ClientSource::compile(Some(source)).unwrap()
    }

    /// A connection's two ends, and the address of the one that has connected.
    async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, peer) = accepted.unwrap();
        (client.unwrap(), stream, peer)
    }

    #[tokio::test]
    async fn not_a_byte_behind_the_header_is_read() {
        for header in [LINE.to_vec(), binary()] {
            let (mut client, mut stream, peer) = pair().await;
            client.write_all(&[&header[..], b"\n\r\nPROXY"].concat()).await.unwrap();
            let learnt = learn(&mut stream, peer, &required([127; 4]), PATIENCE).await.unwrap();
            assert_eq!(learnt, "192.0.2.7:5000".parse().unwrap());
            drop(client);
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"\n\r\nPROXY");
        }
    }

    #[tokio::test]
    async fn a_header_may_come_byte_by_byte() {
        for header in [LINE.to_vec(), binary()] {
            let (mut client, mut stream, peer) = pair().await;
            client.set_nodelay(true).unwrap();
            let source = required([127; 4]);
            let saying = async {
                for byte in header {
                    client.write_all(&[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (learnt, ()) = tokio::join!(learn(&mut stream, peer, &source, PATIENCE), saying);
            assert_eq!(learnt.unwrap(), "192.0.2.7:5000".parse().unwrap());
        }
    }

    #[tokio::test]
    async fn who_may_not_speak_for_others_is_not_listened_to() {
        let (mut client, mut stream, peer) = pair().await;
        client.write_all(LINE).await.unwrap();
        let refused = learn(&mut stream, peer, &required([10; 4]), PATIENCE).await;
        assert!(matches!(refused, Err(SourceError::Untrusted)));
        let off = ClientSource::default();
        assert_eq!(learn(&mut stream, peer, &off, PATIENCE).await.unwrap(), peer);
        let mut all = vec![0; LINE.len()];
        stream.read_exact(&mut all).await.unwrap();
        assert_eq!(all, LINE);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 500]].concat();
        let huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
        for (said, why) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Malformed::Absent),
            (b"PROXY TCP4 a b c d\r\n".to_vec(), Malformed::Invalid),
            (endless, Malformed::TooLong),
            (huge, Malformed::TooLong),
        ] {
            let (mut client, mut stream, peer) = pair().await;
            client.write_all(&said).await.unwrap();
            let refused = learn(&mut stream, peer, &required([127; 4]), PATIENCE).await;
            let refused = refused.unwrap_err();
            assert!(matches!(refused, SourceError::Malformed(found) if found == why), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_has_its_time() {
        let (mut client, mut stream, peer) = pair().await;
        client.write_all(b"PROXY TCP4 192.0.2.7").await.unwrap();
        let source = required([127; 4]);
        let late = learn(&mut stream, peer, &source, PATIENCE).await;
        assert!(matches!(late, Err(SourceError::TimedOut)), "{late:?}");
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_gone() {
        for said in [&b""[..], b"PROXY", b"PROXY TCP4 192.0.2.7"] {
            let (mut client, mut stream, peer) = pair().await;
            client.write_all(said).await.unwrap();
            drop(client);
            let gone = learn(&mut stream, peer, &required([127; 4]), PATIENCE).await;
            assert!(matches!(gone, Err(SourceError::Gone(_))), "{gone:?}");
        }
    }
}
