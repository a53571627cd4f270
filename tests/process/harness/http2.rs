//! A client of HTTP/2 over TLS: one connection by the `h2` crate, and one that writes frames as it likes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::certs::Certificate;

/// Longer than anything of a working gateway takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection with its own small runtime.
pub(crate) struct Http2 {
    runtime: Runtime,
    pub(crate) sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    /// The client's own address.
    pub(crate) local: SocketAddr,
    host: String,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A stream that is a WebSocket's.
pub(crate) struct Bridged {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

impl Http2 {
    pub(crate) fn connect(port: u16, certificate: &Certificate) -> Self {
        Self::connect_as(port, &certificate.host, config(certificate, &[b"h2"]))
    }

    /// As a client with these ways in TLS.
    pub(crate) fn connect_as(port: u16, host: &str, config: ClientConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = Arc::new(config);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let (sender, connection, local) = runtime.block_on(async {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let local = socket.local_addr().unwrap();
            let connector = tokio_rustls::TlsConnector::from(config);
            let stream = connector.connect(name, socket).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            (sender, tokio::spawn(connection), local)
        });
        Self { runtime, sender, connection, local, host: host.to_owned() }
    }

    /// Whether a server offers it to a client that knows both.
    pub(crate) fn is_offered(port: u16, certificate: &Certificate) -> bool {
        let config = Arc::new(config(certificate, &[b"h2", b"http/1.1"]));
        let name = ServerName::try_from(certificate.host.clone()).unwrap();
        let mut session = ClientConnection::new(config, name).unwrap();
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut socket).unwrap();
        }
        session.alpn_protocol() == Some(b"h2")
    }

    /// A request for a path of the certificate's host.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let uri = format!("https://{}{path}", self.host);
        http::Request::builder().version(http::Version::HTTP_2).method(method).uri(uri)
    }

    /// Begins a request, whose body may follow.
    pub(crate) fn begin(
        &mut self,
        request: http::Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let sender = self.sender.clone();
        let mut sender = self.within(async { sender.ready().await })?;
        // The runtime's context is where h2 wakes its connection.
        let _inside = self.runtime.enter();
        sender.send_request(request, ends)
    }

    /// The whole answer of a request that was begun.
    pub(crate) fn finish(&self, response: ResponseFuture) -> Result<Answer, h2::Error> {
        self.within(async {
            let (head, mut body) = response.await?.into_parts();
            let mut whole = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk?;
                body.flow_control().release_capacity(chunk.len())?;
                whole.extend_from_slice(&chunk);
            }
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: whole })
        })
    }

    /// A request without a body and its answer.
    pub(crate) fn ask(&mut self, request: http::Request<()>) -> Result<Answer, h2::Error> {
        let (response, _) = self.begin(request, true)?;
        self.finish(response)
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer, h2::Error> {
        let request = self.request("GET", path).body(()).unwrap();
        self.ask(request)
    }

    /// Opens a WebSocket (RFC 8441); the error is the status that came instead.
    pub(crate) fn open_websocket(&mut self, path: &str) -> Result<Bridged, u16> {
        let mut request =
            self.request("CONNECT", path).header("sec-websocket-version", "13").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, send) = self.begin(request, false).unwrap();
        let response = self.within(response).unwrap();
        match response.status().as_u16() {
            200 => {
                assert!(!response.headers().contains_key("sec-websocket-accept"));
                Ok(Bridged { send, receive: response.into_body() })
            }
            status => Err(status),
        }
    }

    /// The head of an answer, and its body that is still to come.
    pub(crate) fn head_of(&self, response: ResponseFuture) -> (u16, RecvStream) {
        let (head, body) = self.within(response).unwrap().into_parts();
        (head.status.as_u16(), body)
    }

    /// More of a body, at least so many bytes; fewer only at its end.
    pub(crate) fn more_of(&self, body: &mut RecvStream, count: usize) -> Vec<u8> {
        let mut found = Vec::new();
        while found.len() < count {
            let Some(chunk) = self.within(body.data()) else { break };
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            found.extend_from_slice(&chunk);
        }
        found
    }

    /// Whether a text comes back over a WebSocket.
    pub(crate) fn echoes(&self, socket: &mut Bridged, text: &str) -> bool {
        self.is_told(socket, text, text)
    }

    /// Whether a text is answered by another one over a WebSocket.
    pub(crate) fn is_told(&self, socket: &mut Bridged, text: &str, answer: &str) -> bool {
        assert!(text.len().max(answer.len()) < 126, "short frames");
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        let frame = [&[0x81, 0x80 | length(text), 0, 0, 0, 0], text.as_bytes()].concat();
        let wanted = [&[0x81, length(answer)], answer.as_bytes()].concat();
        socket.send.send_data(frame.into(), false).unwrap();
        let mut found = Vec::new();
        while found.len() < wanted.len() {
            let Some(Ok(chunk)) = self.within(socket.receive.data()) else { return false };
            socket.receive.flow_control().release_capacity(chunk.len()).unwrap();
            found.extend_from_slice(&chunk);
        }
        found == wanted
    }

    /// Waits until the stream of a WebSocket ends. True: by its end, not by a reset.
    pub(crate) fn end_of(&self, socket: &mut Bridged) -> bool {
        loop {
            match self.within(socket.receive.data()) {
                None => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
            }
        }
    }

    /// Waits until the server has ended the connection, which this end would keep.
    pub(crate) fn is_ended_by_the_server(&mut self) -> bool {
        let Self { runtime, connection, .. } = self;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, connection).await }).is_ok()
    }

    fn within<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, work).await })
            .expect("no answer")
    }
}

/// Frames by hand, for clients that break the rules, or keep them in their own way.
pub(crate) struct Frames {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

/// One frame that the gateway has sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    /// Connects, says the preface and its settings.
    pub(crate) fn connect(port: u16, certificate: &Certificate) -> Self {
        Self::over(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap(), certificate)
    }

    /// The same, with room for only so much that it has not read.
    pub(crate) fn connect_narrow(port: u16, certificate: &Certificate, room: usize) -> Self {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let socket = socket.unwrap();
        setsockopt(&socket, sockopt::RcvBuf, &room).unwrap();
        let gateway = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        connect(socket.as_raw_fd(), &gateway).unwrap();
        Self::over(TcpStream::from(socket), certificate)
    }

    fn over(socket: TcpStream, certificate: &Certificate) -> Self {
        let name = ServerName::try_from(certificate.host.clone()).unwrap();
        let session = ClientConnection::new(Arc::new(config(certificate, &[b"h2"])), name).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut frames = Self { stream: StreamOwned::new(session, socket) };
        frames.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames.write(4, 0, 0, &[]).unwrap();
        frames
    }

    /// RFC 9113, section 4.1.
    pub(crate) fn write(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[head.as_slice(), payload].concat())
    }

    /// The gateway's next frame.
    pub(crate) fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The fields of a GET of `/`, as HPACK writes them (RFC 7541, without a table).
    pub(crate) fn get(host: &str) -> Vec<u8> {
        let length = u8::try_from(host.len()).unwrap();
        [&[0x82, 0x87, 0x84, 0x01, length], host.as_bytes()].concat()
    }

    /// The same for another path.
    pub(crate) fn get_path(host: &str, path: &str) -> Vec<u8> {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        let path = [&[0x04, length(path)], path.as_bytes()].concat();
        [&[0x82, 0x87], path.as_slice(), &[0x01, length(host)], host.as_bytes()].concat()
    }

    /// Reads until the server has ended the connection, one way or the other.
    pub(crate) fn end(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let waits =
                        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!waits, "the connection does not end");
                    return;
                }
            }
        }
    }
}

fn config(certificate: &Certificate, protocols: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}
