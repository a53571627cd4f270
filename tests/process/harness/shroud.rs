//! TLS around plain sockets of a test: whoever holds a plain end sees through the other end of a TLS connection what it
//! would see of a plain one.
//!
//! FIN is `close_notify` and FIN, both of them and in that order; a reset is a reset, and so is everything that TLS does
//! not allow, an end without `close_notify` above all. A reader that is slow on one side makes a slow one of the other.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::certs::Certificate;

mod relay;

use relay::Relay;

/// What a plain end's kernel holds back for it: little, so that back-pressure comes soon.
const KERNEL_BUFFER: usize = 64 * 1024;

/// What is peculiar about a TLS peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// It speaks nothing newer than TLS 1.2.
    pub(crate) old: bool,
    /// Its records arrive in pieces.
    pub(crate) shreds: bool,
    /// So often in a row, and that all the time, it changes its keys and has the other side change its own.
    pub(crate) rekeys: u32,
    /// It ends without `close_notify`.
    pub(crate) rude: bool,
}

/// How one side of a connection begins its sessions.
#[derive(Debug, Clone)]
pub(super) enum Shroud {
    Client(Arc<ClientConfig>, ServerName<'static>),
    Server(Arc<ServerConfig>),
}

impl Shroud {
    pub(super) fn of_client(trusted: &Certificate, manner: Manner) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(manner.versions())
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::Client(Arc::new(config), ServerName::try_from(trusted.host.clone()).unwrap())
    }

    pub(super) fn of_server(shown: &Certificate, manner: Manner) -> Self {
        let key = PrivateKeyDer::from_pem_file(&shown.key_file).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(manner.versions())
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![shown.der.clone()], key)
            .unwrap();
        Self::Server(Arc::new(config))
    }

    /// A session that is about to begin.
    pub(super) fn session(&self) -> Connection {
        let mut session: Connection = match self {
            Self::Client(config, name) => {
                ClientConnection::new(Arc::clone(config), name.clone()).unwrap().into()
            }
            Self::Server(config) => ServerConnection::new(Arc::clone(config)).unwrap().into(),
        };
        session.set_buffer_limit(None);
        session
    }

    /// Begins a session over `sealed`, which begins to be relayed on a thread of its own; answers the plain end.
    pub(super) fn around(&self, sealed: TcpStream, manner: Manner) -> io::Result<TcpStream> {
        let session = self.session();
        let [near, plain] = pair()?;
        for socket in [&plain, &sealed] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        let relay = Relay::new(plain, sealed, session, manner);
        thread::spawn(move || relay.run());
        Ok(near)
    }
}

impl Manner {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        const OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        if self.old { OLD } else { rustls::DEFAULT_VERSIONS }
    }
}

/// Both ends of a connection of the test with itself.
fn pair() -> io::Result<[TcpStream; 2]> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, from) = listener.accept()?;
    assert_eq!(from, one.local_addr()?);
    for socket in [&one, &other] {
        setsockopt(socket, sockopt::SndBuf, &KERNEL_BUFFER)?;
        setsockopt(socket, sockopt::RcvBuf, &KERNEL_BUFFER)?;
    }
    Ok([one, other])
}
