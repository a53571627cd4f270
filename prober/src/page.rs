//! Fetches one error page for the supervisor, or asks an OCSP responder, in a process that does nothing else: a GET over HTTP
//! or HTTPS, or a POST, whose answer must be a whole 200. No redirect is followed, nothing is retried, and nothing of the page is looked at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Scheme, Uri};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// For everything. Whoever waits for this process waits a little longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A page is shorter, bytes: Azure's limit.
const LIMIT: usize = 1024 * 1024;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It is no absolute http or https URL.
    #[error("it is not an absolute http or https URL")]
    Url,
    /// Its host has no address.
    #[error("{name} does not resolve")]
    Resolve {
        /// The host.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No address of its host takes a connection.
    #[error("no connection to {address}")]
    Connect {
        /// The last one that was tried.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up here.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The server shows no good certificate, or speaks no TLS.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// What comes is no HTTP, or ends too early.
    #[error("the answer is not whole")]
    Answer(#[source] hyper::Error),
    /// Another status than 200.
    #[error("the answer is {0}, and must be 200")]
    Status(StatusCode),
    /// It is compressed, though nobody asked for that.
    #[error("the answer has a Content-Encoding")]
    Encoded,
    /// Too long.
    #[error("it has 1 MiB or more")]
    Long,
    /// Too late.
    #[error("it did not come within {} s", PATIENCE.as_secs())]
    Late,
}

/// Posts a question, in hexadecimal, to an OCSP responder: over plain HTTP, as responders are asked.
///
/// # Errors
/// There is no answer.
pub async fn ask_responder(url: &str, question: &str) -> Result<Vec<u8>, PageError> {
    let uri: Uri = url.parse().map_err(|_| PageError::Url)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(PageError::Url)?;
    let question = bytes(question).filter(|_| uri.scheme() == Some(&Scheme::HTTP));
    let question = question.ok_or(PageError::Url)?;
    let asking = async {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        exchange(&uri, connect(bare, uri.port_u16().unwrap_or(80)).await?, Some(question)).await
    };
    timeout(PATIENCE, asking).await.unwrap_or(Err(PageError::Late))
}

/// Of hexadecimal digits.
fn bytes(digits: &str) -> Option<Bytes> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

/// Fetches a page. Trusted are the public roots and the system's.
///
/// # Errors
/// There is none there.
pub async fn fetch_page(url: &str) -> Result<Vec<u8>, PageError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) {
        // What cannot be read of them is as good as absent: the handshake tells.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    fetch_trusting(url, roots).await
}

async fn fetch_trusting(url: &str, roots: RootCertStore) -> Result<Vec<u8>, PageError> {
    let whole = url.split('#').next().unwrap_or_default();
    let uri: Uri = whole.parse().map_err(|_| PageError::Url)?;
    timeout(PATIENCE, fetch(&uri, roots)).await.unwrap_or(Err(PageError::Late))
}

async fn fetch(uri: &Uri, roots: RootCertStore) -> Result<Vec<u8>, PageError> {
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(PageError::Url)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if uri.scheme() == Some(&Scheme::HTTPS) {
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| PageError::Url)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(PageError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = connect(bare, uri.port_u16().unwrap_or(443)).await?;
        let session = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Box::pin(exchange(uri, session.map_err(PageError::Handshake)?, None)).await
    } else if uri.scheme() == Some(&Scheme::HTTP) {
        exchange(uri, connect(bare, uri.port_u16().unwrap_or(80)).await?, None).await
    } else {
        Err(PageError::Url)
    }
}

/// The first address that takes a connection.
async fn connect(host: &str, port: u16) -> Result<TcpStream, PageError> {
    let resolve = |source| PageError::Resolve { name: host.to_owned(), source };
    let mut last = resolve(io::ErrorKind::NotFound.into());
    for address in lookup_host((host, port)).await.map_err(resolve)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = PageError::Connect { address, source },
        }
    }
    Err(last)
}

async fn exchange<S>(uri: &Uri, stream: S, question: Option<Bytes>) -> Result<Vec<u8>, PageError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(PageError::Answer)?;
    let target = uri.path_and_query().map_or("/", |it| it.as_str());
    let host = uri.authority().map_or("", |it| it.as_str());
    let request = match question {
        Some(_) => Request::post(target)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/ocsp-request"),
        None => Request::get(target).header(HOST, host).header(ACCEPT, "text/html, */*;q=0.1"),
    };
    let request = request
        .header(USER_AGENT, concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(question.unwrap_or_default()))
        .map_err(|_| PageError::Url)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(PageError::Answer)?;
        if answer.status() != StatusCode::OK {
            return Err(PageError::Status(answer.status()));
        }
        if answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(PageError::Encoded);
        }
        let mut page = Vec::new();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.map_err(PageError::Answer)?.data_ref() {
                page.extend_from_slice(data);
            }
            if page.len() >= LIMIT {
                return Err(PageError::Long);
            }
        }
        Ok(page)
    };
    tokio::pin!(exchange, connection);
    // Nothing is lost by dropping the other: the exchange is over, or gets the connection's end as its own.
    tokio::select! {
        biased;
        page = &mut exchange => page,
        _ended = &mut connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rustls::ServerConfig;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// Answers one request with these bytes, over TLS if it can; returns where, and the roots to trust.
    async fn server(answer: Vec<u8>, tls: bool) -> (String, RootCertStore) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            if tls {
                let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
                if let Ok(stream) = accepted {
                    serve(stream, &answer).await;
                }
            } else {
                serve(stream, &answer).await;
            }
        });
        (format!("{}://localhost:{port}", if tls { "https" } else { "http" }), roots)
    }

    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut seen).await.unwrap() == 0 {
                return;
            }
        }
        let request = String::from_utf8(seen).unwrap().to_lowercase();
        assert!(request.starts_with("get /page?q=1 http/1.1\r\nhost: localhost:"), "{request}");
        // A client that has seen enough goes away.
        drop(stream.write_all(answer).await);
        drop(stream.shutdown().await);
    }

    fn whole(page: &[u8]) -> Vec<u8> {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len()).into_bytes();
        answer.extend_from_slice(page);
        answer
    }

    async fn fetched(answer: &[u8], tls: bool) -> Result<Vec<u8>, PageError> {
        let (origin, roots) = server(answer.to_vec(), tls).await;
        fetch_trusting(&format!("{origin}/page?q=1#part"), roots).await
    }

    #[tokio::test]
    async fn a_page_comes_as_it_is_over_http_and_https() {
        for tls in [false, true] {
            assert_eq!(fetched(&whole(b"<p>\xff</p>"), tls).await.unwrap(), b"<p>\xff</p>");
            let until_end = b"HTTP/1.1 200 OK\r\n\r\n<p>";
            assert_eq!(fetched(until_end, tls).await.unwrap(), b"<p>");
        }
        let most = vec![b'x'; LIMIT - 1];
        assert_eq!(fetched(&whole(&most), false).await.unwrap().len(), most.len());
    }

    #[tokio::test]
    async fn a_responder_is_asked_and_its_answer_comes_as_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask", listener.local_addr().unwrap());
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\x30\xff") {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
            stream.write_all(&whole(b"\xffanswer")).await.unwrap();
            String::from_utf8_lossy(&seen).to_lowercase()
        };
        let (answer, seen) = tokio::join!(ask_responder(&url, "30FF"), answering);
        assert_eq!(answer.unwrap(), b"\xffanswer");
        assert!(seen.starts_with("post /ask http/1.1\r\nhost: 127.0.0.1:"), "{seen}");
        assert!(seen.contains("content-type: application/ocsp-request\r\n"), "{seen}");
        for (url, question) in
            [("https://localhost/", "30"), (url.as_str(), "3"), (url.as_str(), "3x"), ("x", "30")]
        {
            let refused = ask_responder(url, question).await.unwrap_err();
            assert!(matches!(refused, PageError::Url), "{url} {question}: {refused}");
        }
    }

    #[tokio::test]
    async fn what_is_no_page_is_told_apart() {
        for (answer, word) in [
            (&b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"[..], "302 Found"),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "must be 200"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "not whole"),
            (b"garbage\r\n\r\n", "not whole"),
            (b"", "not whole"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
                "Content-Encoding",
            ),
        ] {
            let refused = fetched(answer, false).await.unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
        let long = fetched(&whole(&vec![b'x'; LIMIT]), false).await.unwrap_err();
        assert!(matches!(long, PageError::Long), "{long}");
        for url in ["ftp://localhost/", "localhost", "http://", "/page", "http://[::1/"] {
            let refused = fetch_trusting(url, RootCertStore::empty()).await.unwrap_err();
            assert!(matches!(refused, PageError::Url), "{url}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_refused() {
        let (origin, _) = server(whole(b"x"), true).await;
        let refused = fetch_trusting(&format!("{origin}/page?q=1"), RootCertStore::empty()).await;
        assert!(matches!(refused, Err(PageError::Handshake(_))), "{refused:?}");
    }
}
