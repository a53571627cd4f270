//! Authorities for certificates of clients, and a client that does in TLS what it is told to.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::certs::Certificate;
use super::client::upgrade_request;
use super::http::{Response, read_body, read_head};
use super::http2::Http2;

/// Who signs certificates of clients.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own certificate, in PEM.
    pub(crate) file: PathBuf,
    /// Its key, in PEM.
    pub(crate) key: PathBuf,
}

/// A client's certificate and key, as PEM files.
pub(crate) struct Passport {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A client, with the sessions that it may go on with.
pub(crate) struct Visitor {
    config: Arc<ClientConfig>,
}

/// One connection of a visitor.
pub(crate) struct Visit {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

// === impl Authority ===

impl Authority {
    /// Writes `NAME.pem` and `NAME.authority.key` into `directory`.
    pub(crate) fn make(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signing = KeyPair::generate().unwrap();
        let key = directory.join(format!("{name}.authority.key"));
        fs::write(&key, signing.serialize_pem()).unwrap();
        let issuer = CertifiedIssuer::self_signed(params, signing).unwrap();
        let file = directory.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, directory: directory.to_owned(), file, key }
    }

    /// Signs a client's certificate.
    pub(crate) fn passport(&self, name: &str) -> Passport {
        self.sign(name, |_| {})
    }

    /// The same, of a time that is over.
    pub(crate) fn expired_passport(&self, name: &str) -> Passport {
        self.sign(name, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    /// The same, with a number, and with the port of the responder on 127.0.0.1 that is to be asked about it.
    pub(crate) fn passport_with_responder(&self, name: &str, number: u8, port: u16) -> Passport {
        let url = format!("http://127.0.0.1:{port}/");
        let length = |of: usize| u8::try_from(of).unwrap();
        // AuthorityInfoAccess: one address, of an OCSP responder.
        let mut access = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01\x86".to_vec();
        access.push(length(url.len()));
        access.extend(url.as_bytes());
        let access = [&[0x30, length(access.len())], &access[..]].concat();
        let access = [&[0x30, length(access.len())], &access[..]].concat();
        self.sign(name, |params| {
            let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
            params.serial_number = Some(SerialNumber::from_slice(&[number]));
            params.custom_extensions.push(CustomExtension::from_oid_content(&oid, access));
        })
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Passport {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let signing = KeyPair::generate().unwrap();
        let made = params.signed_by(&signing, &self.issuer).unwrap();
        let certificate = self.directory.join(format!("{name}.crt"));
        let key = self.directory.join(format!("{name}.key"));
        fs::write(&certificate, made.pem()).unwrap();
        fs::write(&key, signing.serialize_pem()).unwrap();
        Passport { certificate, key }
    }
}

// === impl Visitor ===

impl Visitor {
    /// One that trusts these servers, shows this certificate if it is asked, and speaks these versions.
    pub(crate) fn new(
        trusted: &[&Certificate],
        passport: Option<&Passport>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.der.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match passport {
            None => config.with_no_client_auth(),
            Some(passport) => {
                let own = CertificateDer::from_pem_file(&passport.certificate).unwrap();
                let key = PrivateKeyDer::from_pem_file(&passport.key).unwrap();
                config.with_client_auth_cert(vec![own], key).unwrap()
            }
        };
        Self { config: Arc::new(config) }
    }

    /// The same client over HTTP/2.
    pub(crate) fn http2(&self, port: u16, host: &str) -> Http2 {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Http2::connect_as(port, host, config)
    }

    /// Shakes hands for a host name.
    pub(crate) fn visit(&self, port: u16, sni: &str) -> io::Result<Visit> {
        self.shake(port, sni, None)
    }

    /// The same, with something that happens once the server has said its first word.
    pub(crate) fn visit_while(
        &self,
        port: u16,
        sni: &str,
        meanwhile: &mut dyn FnMut(),
    ) -> io::Result<Visit> {
        self.shake(port, sni, Some(meanwhile))
    }

    fn shake(
        &self,
        port: u16,
        sni: &str,
        meanwhile: Option<&mut dyn FnMut()>,
    ) -> io::Result<Visit> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        if let Some(meanwhile) = meanwhile {
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut stream.sock)?;
            }
            stream.sock.peek(&mut [0])?;
            meanwhile();
        }
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Visit { stream: BufReader::new(stream) })
    }

    /// One request on a connection of its own, and whether its session was an older one's.
    pub(crate) fn get(&self, port: u16, host: &str) -> io::Result<(Response, bool)> {
        let mut visit = self.visit(port, host)?;
        let response = visit.get(host)?;
        Ok((response, visit.is_resumed()))
    }
}

// === impl Visit ===

impl Visit {
    /// Asks for `/whoami` of a host.
    pub(crate) fn get(&mut self, host: &str) -> io::Result<Response> {
        self.ask(&format!("GET /whoami HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// Asks for a WebSocket.
    pub(crate) fn open(&mut self, host: &str) -> io::Result<Response> {
        self.ask(&upgrade_request("/echo", host))
    }

    fn ask(&mut self, request: &str) -> io::Result<Response> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (status, headers) = read_head(&mut self.stream)?;
        let body = read_body(&mut self.stream, status, &headers)?;
        Ok(Response { status, headers, body })
    }

    /// Sends bytes behind an answer.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads exactly so many.
    pub(crate) fn read(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether its session goes on from an older one.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// IANA's name of its cipher suite.
    pub(crate) fn suite(&self) -> String {
        let suite = self.stream.get_ref().conn.negotiated_cipher_suite().unwrap();
        format!("{:?}", suite.suite())
    }

    /// What the server has shown first.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        self.stream.get_ref().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}
