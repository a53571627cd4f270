//! A backend that tells what it sees: who asks, over which of its connections, by which name, with which headers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Certificate;

/// A telling backend; its threads end with the test's process.
pub(crate) struct Teller {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicU32>,
}

/// Counts a connection for as long as it lives, once it has carried a request other than a probe.
struct Counted {
    open: Arc<AtomicU32>,
    is: bool,
}

impl Teller {
    /// Starts it on 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), 0)
    }

    /// Starts it at an address; port 0: any. Answers of all tellers look alike but for that address.
    pub(crate) fn start_at(address: IpAddr, port: u16) -> Self {
        Self::serve(address, port, None)
    }

    /// Starts it on 127.0.0.1 over TLS.
    pub(crate) fn start_tls(certificate: &Certificate) -> Self {
        Self::serve(Ipv4Addr::LOCALHOST.into(), 0, Some(serving(certificate)))
    }

    fn serve(address: IpAddr, port: u16, tls: Option<Arc<ServerConfig>>) -> Self {
        let socket = TcpListener::bind((address, port)).unwrap();
        let address = socket.local_addr().unwrap();
        let open = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&open);
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let counted = Counted { open: Arc::clone(&count), is: false };
                let tls = tls.clone();
                thread::spawn(move || drop(converse(stream, tls, counted)));
            }
        });
        Self { address, open }
    }

    /// Open connections that have carried a request other than a probe.
    pub(crate) fn open_connections(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(self.is.into(), Ordering::SeqCst);
    }
}

fn converse(
    mut stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    counted: Counted,
) -> io::Result<()> {
    let ends = format!("{}|{}", stream.local_addr()?, stream.peer_addr()?);
    let Some(config) = tls else { return answer(stream, &format!("{ends}||"), counted) };
    let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    let name = session.server_name().unwrap_or_default().to_owned();
    answer(StreamOwned::new(session, stream), &format!("{ends}|{name}|"), counted)
}

/// Answers `IP:PORT of this end|IP:PORT of the other|SNI|` and the request's head, over and over. `/hangup` ends the
/// connection instead of an answer, once it has carried another request before.
fn answer(stream: impl Read + Write, ends: &str, mut counted: Counted) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        if head.contains("/healthz ") {
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        if head.contains(" /hangup ") && counted.is {
            return Ok(());
        }
        if !std::mem::replace(&mut counted.is, true) {
            counted.open.fetch_add(1, Ordering::SeqCst);
        }
        let body = format!("{ends}{head}");
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.get_mut().write_all(answer.as_bytes())?;
        stream.get_mut().flush()?;
    }
}

/// How a backend speaks TLS with this certificate.
pub(super) fn serving(certificate: &Certificate) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&certificate.chain_file).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&certificate.key_file).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}
