//! The status address: `/metrics`, `/healthz` and `/readyz` over HTTP/1.1, for Prometheus and for probes, and the way to the
//! page of `ui`.
//!
//! Reads what its source says and changes nothing. Nobody proves who they are before they are heard here, so every client
//! is bounded: how many at once, how long each, how large its request.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Clients at once: a few scrapers, probes and browsers. The next one waits in the accept queue.
const MOST_CONNECTIONS: usize = 128;
/// Of them, those that are told the page: neither a crowd of browsers nor who never reads an answer keeps scrapers and
/// probes waiting. The next one is told to come again.
const MOST_PAGES: usize = 96;
/// A client that has not sent its request by then is not one of those.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// One request and its answer, however slowly they are read; then the place is somebody else's.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest request head, bytes; browsers send cookies of whatever else runs on the host.
const LONGEST_HEAD: usize = 16 * 1024;
/// Before the next accept when there are no descriptors left: they come back when somebody else closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the status address tells. Called on the event loop: must not block.
pub trait StatusSource: Send + Sync + 'static {
    /// The exposition.
    fn metrics(&self) -> String;
    /// Does the gateway serve? Why not?
    fn ready(&self) -> Result<(), String>;
    /// What is below `/ui`. May wait.
    fn page(self: Arc<Self>, _request: Parts) -> PageAnswer {
        Box::pin(async { not_found() })
    }
}

/// An answer that is on its way.
pub type PageAnswer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Serves until dropped, which also ends every connection. Returns only if the listener cannot be used.
pub async fn serve(
    listener: std::net::TcpListener,
    source: Arc<dyn StatusSource>,
) -> io::Result<Infallible> {
    serve_within(listener, source, HEADER_TIMEOUT, MOST_PAGES).await
}

async fn serve_within(
    listener: std::net::TcpListener,
    source: Arc<dyn StatusSource>,
    header_timeout: Duration,
    most_pages: usize,
) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let pages = Arc::new(Semaphore::new(most_pages));
    let mut connections = JoinSet::new();
    loop {
        // Never closed, so never an error.
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (source, pages) = (source.clone(), pages.clone());
                connections.spawn(async move {
                    converse(stream, source, pages, header_timeout).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "status address: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One request and its answer.
async fn converse(
    stream: TcpStream,
    source: Arc<dyn StatusSource>,
    pages: Arc<Semaphore>,
    header_timeout: Duration,
) {
    // A reader of the page has its place as long as the connection lives: the answer may wait to be read.
    let place = Arc::new(OnceLock::new());
    let service = service_fn(move |request: Request<Incoming>| {
        // Nobody's body is read.
        let (request, _) = request.into_parts();
        let (source, pages, place) = (source.clone(), pages.clone(), place.clone());
        async move { Ok::<_, Infallible>(respond(request, source, pages, &place).await) }
    });
    // Without keep-alive no place is held by somebody who has been answered.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, pin!(connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "status address: bad request"),
        Err(_) => tracing::debug!("status address: client too slow"),
    }
}

async fn respond(
    request: Parts,
    source: Arc<dyn StatusSource>,
    pages: Arc<Semaphore>,
    place: &OnceLock<OwnedSemaphorePermit>,
) -> Response<Full<Bytes>> {
    // hyper leaves the body of an answer to HEAD away.
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri.path() {
        "/metrics" => answer(StatusCode::OK, EXPOSITION, source.metrics()),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match source.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        path if path == "/ui" || path.starts_with("/ui/") => match pages.try_acquire_owned() {
            Ok(permit) => {
                // There is one request a connection, so the place is free.
                drop(place.set(permit));
                source.page(request).await
            }
            Err(_) => busy(),
        },
        _ => not_found(),
    }
}

fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "not found: try /ui, /metrics, /healthz or /readyz\n")
}

fn busy() -> Response<Full<Bytes>> {
    let mut response = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many ask for the status page just now: try again in a moment\n",
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// An answer for people and scripts.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    answer(status, TEXT, body.into())
}

/// An answer that no cache keeps.
pub(crate) fn answer(
    status: StatusCode,
    kind: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Source(Result<(), String>);

    impl StatusSource for Source {
        fn metrics(&self) -> String {
            "holdfast_revision 7\n".into()
        }

        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }

        /// More than the kernel keeps for a client that does not read.
        fn page(self: Arc<Self>, _: Parts) -> PageAnswer {
            static LARGE: [u8; 16 << 20] = [0; 16 << 20];
            Box::pin(async { answer(StatusCode::OK, TEXT, Bytes::from_static(&LARGE)) })
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses a request without reading all of it resets the connection after its answer.
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }

    fn start(ready: Result<(), String>) -> (SocketAddr, JoinSet<io::Result<Infallible>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::new(Source(ready))));
        (address, server)
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        let cases = [
            (true, "GET /metrics", "200 OK", "\r\n\r\nholdfast_revision 7\n"),
            (true, "GET /metrics?name[]=x", "200 OK", "version=0.0.4"),
            (true, "HEAD /metrics", "200 OK", "content-length: 20"),
            (false, "GET /healthz", "200 OK", "\r\n\r\nok\n"),
            (true, "GET /readyz", "200 OK", "ready\n"),
            (false, "GET /readyz", "503 Service Unavailable", "not ready: no verdicts\n"),
            (true, "GET /", "404 Not Found", "not found"),
            (true, "GET /metrics/", "404 Not Found", "not found"),
            (true, "POST /metrics", "405 Method Not Allowed", "allow: GET, HEAD"),
        ];
        for (ready, line, status, part) in cases {
            let (address, _server) = start(if ready { Ok(()) } else { Err("no verdicts".into()) });
            let answer = ask(address, &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {answer}");
            assert!(answer.contains(part), "{line}: {answer}");
            assert!(answer.contains("connection: close"), "{line}: {answer}");
            assert_eq!(answer.ends_with("\r\n\r\n"), line.starts_with("HEAD"), "{answer}");
        }
    }

    #[tokio::test]
    async fn garbage_and_long_heads_are_refused_and_the_next_client_is_served() {
        let (address, _server) = start(Ok(()));
        let answer = ask(address, "\u{1}\u{2}\r\n\r\n").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(LONGEST_HEAD));
        let answer = ask(address, &long).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert!(ask(address, "GET /healthz HTTP/1.0\r\n\r\n").await.contains("200 OK"));
    }

    #[tokio::test]
    async fn silent_clients_give_their_places_back() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve_within(
            listener,
            Arc::new(Source(Ok(()))),
            Duration::from_millis(50),
            1,
        ));
        let mut silent = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(address, "GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains("200 OK"), "{answer}");
    }
    #[tokio::test]
    async fn who_does_not_read_the_page_keeps_no_probe_waiting_and_gives_the_place_back() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve_within(listener, Arc::new(Source(Ok(()))), HEADER_TIMEOUT, 2));
        let mut mute = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /ui HTTP/1.0\r\n\r\n").await.unwrap();
            // Its answer has begun, and is never read.
            stream.readable().await.unwrap();
            mute.push(stream);
        }
        let answer = ask(address, "GET /ui/state.json HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains("503 Service Unavailable"), "{answer}");
        assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
        assert!(ask(address, "GET /metrics HTTP/1.0\r\n\r\n").await.contains("200 OK"));
        drop(mute);
        // The server hears of it in its own time.
        while !ask(address, "GET /ui HTTP/1.0\r\n\r\n").await.contains("200 OK") {
            tokio::task::yield_now().await;
        }
    }
}
