//! A client's end of TLS 1.3 for `echoes.rs`, by rustls without its buffers: records are opened where they arrived and made
//! where they are sent from, so that the traffic's ends cost little beside the gateway that they measure.

use std::net::TcpStream;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, RootCertStore};

use super::sent;

/// Of a message, how much is made records at a time: a few, for one call.
const PART: usize = 64 * 1024;
/// More than the heads and seals of so many, and than a handshake's messages.
const OVERHEAD: usize = 4096;

type Sending<'a> = WriteTraffic<'a, ClientConnectionData>;

pub(crate) struct Sealed {
    session: UnbufferedClientConnection,
    /// A record's beginning.
    came: Vec<u8>,
    /// Records to be sent, from `gone` on.
    out: Vec<u8>,
    gone: usize,
    /// What is said as soon as the handshake is over.
    greeting: Option<&'static [u8]>,
}

/// One suite, so that all gateways do the same sums: the one that they and rustls choose among themselves.
pub(crate) fn trusting(file: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Sealed {
    /// Begins the handshake.
    pub(crate) fn begin(
        config: &Arc<ClientConfig>,
        socket: &TcpStream,
        greeting: &'static [u8],
    ) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let session = UnbufferedClientConnection::new(config.clone(), name).unwrap();
        let (came, out) = (Vec::new(), Vec::new());
        let mut this = Self { session, came, out, gone: 0, greeting: Some(greeting) };
        this.advance(&mut [], |_| {});
        assert!(this.flush(socket), "a new socket has no room");
        this
    }

    /// Hands on what the next bytes hold for the application. `Ok(0)`: no more comes.
    pub(crate) fn receive(
        &mut self,
        socket: &TcpStream,
        scratch: &mut [u8],
        take: impl FnMut(&[u8]),
    ) -> Result<usize, Errno> {
        let left = self.came.len();
        scratch[..left].copy_from_slice(&self.came);
        let (count, _) = recv(socket, &mut scratch[left..], RecvFlags::DONTWAIT)?;
        let incoming = &mut scratch[..left + count];
        let opened = self.advance(incoming, take);
        self.came.clear();
        self.came.extend_from_slice(&incoming[opened..]);
        assert!(self.flush(socket), "no room for a handshake's answer");
        Ok(count)
    }

    /// Seals and sends as much of the bytes as the socket takes, and says how much that was; some of it may still be
    /// [pending](Self::is_pending).
    pub(crate) fn send(&mut self, socket: &TcpStream, bytes: &[u8]) -> usize {
        let mut parts = bytes.chunks(PART);
        let mut sealed = 0;
        while self.flush(socket) {
            let Some(part) = parts.next() else { break };
            let (mut session, out) = self.sending();
            append(out, part.len(), |room| session.encrypt(part, room).unwrap());
            sealed += part.len();
        }
        sealed
    }

    pub(crate) fn end(&mut self, socket: &TcpStream) {
        let (mut session, out) = self.sending();
        append(out, 0, |room| session.queue_close_notify(room).unwrap());
        self.flush(socket);
    }

    pub(crate) fn is_pending(&self) -> bool {
        !self.out.is_empty()
    }

    /// What makes records, and where they go.
    fn sending(&mut self) -> (Sending<'_>, &mut Vec<u8>) {
        match self.session.process_tls_records(&mut []).state.unwrap() {
            ConnectionState::WriteTraffic(session) => (session, &mut self.out),
            other => panic!("nothing can be sent now: {other:?}"),
        }
    }

    /// Opens records, and makes those of the handshake. Says how many bytes that has used up.
    fn advance(&mut self, incoming: &mut [u8], mut take: impl FnMut(&[u8])) -> usize {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut incoming[used..]);
            used += discard;
            match state.unwrap() {
                ConnectionState::ReadTraffic(mut records) => {
                    while let Some(record) = records.next_record() {
                        let record = record.unwrap();
                        used += record.discard;
                        take(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.out, 0, |room| data.encode(room).unwrap());
                }
                // In `out`, it goes before all that is sealed later.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut session) => {
                    if let Some(first) = self.greeting.take() {
                        append(&mut self.out, first.len(), |room| {
                            session.encrypt(first, room).unwrap()
                        });
                    }
                    return used;
                }
                ConnectionState::BlockedHandshake => return used,
                other => panic!("the gateway ended the session: {other:?}"),
            }
        }
    }

    /// False: the socket has no room for all of it.
    fn flush(&mut self, socket: &TcpStream) -> bool {
        if self.is_pending() {
            self.gone += sent(socket, &self.out[self.gone..]).expect("a connection was ended");
            if self.gone < self.out.len() {
                return false;
            }
            self.out.clear();
            self.gone = 0;
        }
        true
    }
}

/// What `make` writes into room for so many bytes and what goes with them.
fn append(out: &mut Vec<u8>, length: usize, make: impl FnOnce(&mut [u8]) -> usize) {
    let start = out.len();
    out.resize(start + length + OVERHEAD, 0);
    let made = make(&mut out[start..]);
    out.truncate(start + made);
}
