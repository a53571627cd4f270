//! Two ends of a session over loopback: ours, bounded and captured, and a peer that may write what it likes.
//!
//! Signatures are not what is tested: one made-up key signs for every suite, and the client believes it.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig, Error, ExtractedSecrets, ServerConfig, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite,
};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::trusting::Trusting;

/// Every one that our provider has: three of TLS 1.3 first.
pub(super) static ALL_SUITES: &[SupportedCipherSuite] = rustls::crypto::ring::ALL_CIPHER_SUITES;
pub(super) static TLS13: SupportedCipherSuite =
    rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384;

const SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

pub(super) struct Configs {
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

pub(super) struct Pair {
    pub(super) near: TlsStream<Bounded<TcpStream>>,
    pub(super) captured: Arc<Captured>,
    pub(super) far: Far,
}

pub(super) struct Far(TlsStream<TcpStream>);

/// Signs nothing, and is believed.
#[derive(Debug, Clone, Copy)]
struct Pretender(SignatureAlgorithm);

impl Configs {
    /// Both ends know this suite only.
    pub(super) fn of(suite: SupportedCipherSuite) -> Self {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites = vec![suite];
        let provider = Arc::new(provider);
        let signs = [SignatureAlgorithm::ECDSA, SignatureAlgorithm::RSA]
            .into_iter()
            .find(|algorithm| suite.usable_for_signature_algorithm(*algorithm));
        let pretender = Arc::new(Pretender(signs.unwrap()));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(pretender);
        server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        server.enable_secret_extraction = true;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(SCHEMES.to_vec())))
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        Self { server, client }
    }
}

impl Pair {
    /// Our end has this role.
    pub(super) async fn open(configs: &Configs, role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (far, near) = (far.unwrap(), Bounded::new(near.unwrap().0));
        far.set_nodelay(true).unwrap();
        near.get_ref().set_nodelay(true).unwrap();
        let name = || ServerName::try_from("localhost").unwrap();
        match role {
            Role::Server => {
                let (server, captured) = Captured::server(&configs.server);
                let far = TlsConnector::from(Arc::new(configs.client.clone())).connect(name(), far);
                let (far, near) = tokio::join!(far, TlsAcceptor::from(server).accept(near));
                Self { near: near.unwrap().into(), captured, far: Far(far.unwrap().into()) }
            }
            Role::Client => {
                let (client, captured) = Captured::client(&configs.client);
                let far = TlsAcceptor::from(Arc::new(configs.server.clone())).accept(far);
                let near = TlsConnector::from(client).connect(name(), near);
                let (far, near) = tokio::join!(far, near);
                Self { near: near.unwrap().into(), captured, far: Far(far.unwrap().into()) }
            }
        }
    }

    /// Something each way: afterwards each end has read all that the other one has sent.
    pub(super) async fn exchange(&mut self) {
        let mut heard = [0; 4];
        self.far.0.write_all(b"ping").await.unwrap();
        self.far.0.flush().await.unwrap();
        self.near.read_exact(&mut heard).await.unwrap();
        self.near.write_all(b"pong").await.unwrap();
        self.near.flush().await.unwrap();
        self.far.0.read_exact(&mut heard).await.unwrap();
    }

    /// Lets our end read these bytes, which make no record.
    pub(super) async fn read_in_vain(&mut self, count: usize) {
        let mut queue = [0; 1];
        self.near.get_ref().0.get_ref().peek(&mut queue).await.unwrap();
        let mut byte = [0; 1];
        let nothing = Duration::from_millis(if count > 4096 { 50 } else { 5 });
        assert!(tokio::time::timeout(nothing, self.near.read(&mut byte)).await.is_err());
    }
}

impl Far {
    /// Records with these contents, sealed in order and not sent.
    pub(super) fn seal(&mut self, contents: &[&[u8]]) -> Vec<u8> {
        let mut wire = Vec::new();
        for content in contents {
            self.connection(|writer| writer.write_all(content).unwrap());
            self.take_sealed(&mut wire);
        }
        wire
    }

    pub(super) fn farewell(&mut self) -> Vec<u8> {
        self.0.get_mut().1.send_close_notify();
        let mut wire = Vec::new();
        self.take_sealed(&mut wire);
        wire
    }

    /// To the socket, past rustls.
    pub(super) async fn send(&mut self, wire: &[u8]) {
        self.0.get_mut().0.write_all(wire).await.unwrap();
    }

    pub(super) async fn read(&mut self, into: &mut [u8]) {
        self.0.read_exact(into).await.unwrap();
    }

    /// Changes this end's keys, and asks ours to change its own.
    pub(super) fn refresh(&mut self) {
        match &mut self.0 {
            TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
            TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
        }
    }

    /// Reads what has come, without any content in it.
    pub(super) async fn read_record(&mut self) {
        let mut byte = [0; 1];
        let nothing = Duration::from_millis(50);
        assert!(tokio::time::timeout(nothing, self.0.read(&mut byte)).await.is_err());
    }

    pub(super) fn secrets(self) -> ExtractedSecrets {
        match self.0 {
            TlsStream::Client(stream) => stream.into_inner().1.dangerous_extract_secrets(),
            TlsStream::Server(stream) => stream.into_inner().1.dangerous_extract_secrets(),
        }
        .unwrap()
    }

    fn connection(&mut self, write: impl FnOnce(&mut rustls::Writer<'_>)) {
        match &mut self.0 {
            TlsStream::Client(stream) => write(&mut stream.get_mut().1.writer()),
            TlsStream::Server(stream) => write(&mut stream.get_mut().1.writer()),
        }
    }

    fn take_sealed(&mut self, wire: &mut Vec<u8>) {
        match &mut self.0 {
            TlsStream::Client(stream) => while stream.get_mut().1.write_tls(wire).unwrap() > 0 {},
            TlsStream::Server(stream) => while stream.get_mut().1.write_tls(wire).unwrap() > 0 {},
        }
    }
}

// === impl Pretender ===

impl ResolvesServerCert for Pretender {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificate = CertificateDer::from(vec![0x30, 0]);
        Some(Arc::new(CertifiedKey::new(vec![certificate], Arc::new(*self))))
    }
}

impl SigningKey for Pretender {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let [ecdsa, rsa] = SCHEMES;
        let scheme = if self.0 == SignatureAlgorithm::RSA { rsa } else { ecdsa };
        offered.contains(&scheme).then(|| Box::new(Pretended(scheme)) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }
}

#[derive(Debug)]
struct Pretended(SignatureScheme);

impl Signer for Pretended {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![1; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}
