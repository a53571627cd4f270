//! A small blocking WebSocket client that can also misbehave: send early, stop reading, half-close.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::certs::Certificate;
use super::http::{Response, read_head};

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Reset,
}

/// An open WebSocket.
pub(crate) struct WebSocket {
    stream: BufReader<Stream>,
}

impl WebSocket {
    /// Opens one over TCP.
    pub(crate) fn open(port: u16, path: &str) -> Self {
        Self::try_open(port, path, b"").unwrap_or_else(|answer| panic!("no 101: {answer}"))
    }

    /// Opens one over TCP, sending `early` right behind the request; the error says what came instead of a 101.
    pub(crate) fn try_open(port: u16, path: &str, early: &[u8]) -> Result<Self, String> {
        let socket = connect(port).map_err(|error| error.to_string())?;
        Self::shake(Stream::Plain(socket), path, "localhost", early)
    }

    /// Opens one over TLS, trusting exactly `certificate`.
    pub(crate) fn open_tls(port: u16, path: &str, certificate: &Certificate) -> Self {
        let stream = tls(port, certificate).unwrap();
        Self::shake(Stream::Tls(Box::new(stream)), path, &certificate.host, b"")
            .unwrap_or_else(|answer| panic!("no 101: {answer}"))
    }

    /// Opens one over TCP for a host name.
    pub(crate) fn open_host(port: u16, path: &str, host: &str) -> Self {
        Self::shake(Stream::Plain(connect(port).unwrap()), path, host, b"")
            .unwrap_or_else(|answer| panic!("no 101: {answer}"))
    }

    /// [`WebSocket::open_tls`] with a client that speaks these versions.
    pub(crate) fn open_versions(
        port: u16,
        path: &str,
        certificate: &Certificate,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let stream = tls_versions(port, certificate, versions).unwrap();
        Self::shake(Stream::Tls(Box::new(stream)), path, &certificate.host, b"")
            .unwrap_or_else(|answer| panic!("no 101: {answer}"))
    }

    /// The certificate that a server shows for the host name of `trusted`, if `trusted` vouches for it.
    pub(crate) fn shown_certificate(
        port: u16,
        trusted: &Certificate,
    ) -> Option<CertificateDer<'static>> {
        let stream = tls(port, trusted).ok()?;
        Some(stream.conn.peer_certificates()?.first()?.clone().into_owned())
    }

    fn shake(mut stream: Stream, path: &str, host: &str, early: &[u8]) -> Result<Self, String> {
        let mut bytes = upgrade_request(path, host).into_bytes();
        bytes.extend_from_slice(early);
        stream.write_all(&bytes).map_err(|error| error.to_string())?;
        let mut stream = BufReader::new(stream);
        let (status, headers) = read_head(&mut stream).map_err(|error| error.to_string())?;
        let response = Response { status, headers, body: Vec::new() };
        if status != 101 {
            return Err(format!("{status}"));
        }
        if response.header("sec-websocket-accept") != Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
            return Err("wrong Sec-WebSocket-Accept".to_owned());
        }
        Ok(Self { stream })
    }

    /// Sends one text message.
    pub(crate) fn send(&mut self, text: &str) {
        self.write(&frame(text.as_bytes())).unwrap();
    }

    /// Sends bytes as they are, WebSocket frames or not.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// Sends until nothing more is taken for a second, and returns how much was.
    pub(crate) fn write_until_full(&mut self) -> usize {
        let socket = self.stream.get_ref().socket();
        socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let bytes = frame(&vec![b'x'; 60_000]);
        let mut taken = 0;
        while let Ok(count) = self.stream.get_mut().write(&bytes) {
            taken += count;
        }
        taken
    }

    /// Reads the next message's payload; control frames other than close are passed over.
    pub(crate) fn receive(&mut self) -> io::Result<String> {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head)?;
            let length = match head[1] & 0x7f {
                126 => self.number::<2>()?,
                127 => self.number::<8>()?,
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload)?;
            match head[0] & 0x0f {
                8 => return Err(io::ErrorKind::ConnectionAborted.into()),
                9 | 10 => {}
                _ => return String::from_utf8(payload).map_err(io::Error::other),
            }
        }
    }

    fn number<const N: usize>(&mut self) -> io::Result<usize> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// Whether a message comes back.
    pub(crate) fn echoes(&mut self, text: &str) -> bool {
        self.write(&frame(text.as_bytes())).is_ok() && self.receive().is_ok_and(|back| back == text)
    }

    /// Says that nothing more will be sent (FIN).
    pub(crate) fn finish_sending(&self) {
        self.stream.get_ref().socket().shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        use std::os::fd::AsFd;
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        let socket = self.stream.get_ref().socket();
        nix::sys::socket::setsockopt(&socket.as_fd(), nix::sys::socket::sockopt::Linger, &linger)
            .unwrap();
    }

    /// Reads to the end, at most ten seconds without a byte.
    pub(crate) fn end(&mut self) -> Option<End> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(End::Finished),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Some(End::Finished);
                }
                Err(_) => return Some(End::Reset),
            }
        }
    }

    /// The client's own port, as the gateway lists it.
    pub(crate) fn local_port(&self) -> u16 {
        self.stream.get_ref().socket().local_addr().unwrap().port()
    }
}

/// An opening handshake with the key of RFC 6455 section 1.3.
pub(crate) fn upgrade_request(path: &str, host: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A masked text frame (with the mask 0, so that the payload stays readable in dumps).
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => bytes.push(0x80 | u8::try_from(short).unwrap()),
        Ok(medium) => {
            bytes.push(0x80 + 126);
            bytes.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 + 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A TLS session with whoever shows this certificate on the port.
pub(crate) fn tls(port: u16, trusted: &Certificate) -> io::Result<TlsStream> {
    tls_versions(port, trusted, rustls::DEFAULT_VERSIONS)
}

fn tls_versions(
    port: u16,
    trusted: &Certificate,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(trusted.host.clone()).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, connect(port)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}
