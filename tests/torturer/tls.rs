//! The certificate of a run, and how clients and backends begin TLS sessions that trust it and nothing else.
//!
//! The gateway shows it to clients, the backends show it to the gateway, and everybody checks it.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::wire::Wire;

/// The name that everybody is asked for.
pub(crate) const HOST: &str = "torture";

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) chain_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

impl Certificate {
    /// Makes one that signs itself.
    pub(crate) fn make(directory: &Path) -> io::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).map_err(io::Error::other)?;
        let this = Self {
            chain_file: directory.join("torture.crt"),
            key_file: directory.join("torture.key"),
        };
        fs::write(&this.chain_file, made.cert.pem())?;
        fs::write(&this.key_file, made.signing_key.serialize_pem())?;
        Ok(this)
    }

    fn der(&self) -> io::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_file(&self.chain_file).map_err(io::Error::other)
    }
}

/// How sessions begin: with the newest TLS, or with 1.2.
#[derive(Debug, Clone)]
pub(crate) struct Starter<C> {
    newest: Arc<C>,
    old: Arc<C>,
}

impl<C> Starter<C> {
    fn of(
        make: impl Fn(&[&'static SupportedProtocolVersion]) -> io::Result<C>,
    ) -> io::Result<Self> {
        let newest = Arc::new(make(rustls::DEFAULT_VERSIONS)?);
        Ok(Self { newest, old: Arc::new(make(&[&rustls::version::TLS12])?) })
    }

    fn config(&self, old: bool) -> Arc<C> {
        if old { self.old.clone() } else { self.newest.clone() }
    }
}

impl Starter<ClientConfig> {
    pub(crate) fn of_client(trusted: &Certificate) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der()?).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self::of(|versions| {
            let config = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(versions)
                .map_err(io::Error::other)?;
            Ok(config.with_root_certificates(roots.clone()).with_no_client_auth())
        })
    }

    pub(crate) fn begin(&self, socket: TcpStream, old: bool) -> io::Result<Wire> {
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let session = ClientConnection::new(self.config(old), name).map_err(io::Error::other)?;
        Ok(Wire::sealed(socket, session.into()))
    }
}

impl Starter<ServerConfig> {
    pub(crate) fn of_server(shown: &Certificate) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self::of(|versions| {
            let key = PrivateKeyDer::from_pem_file(&shown.key_file).map_err(io::Error::other)?;
            ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(versions)
                .map_err(io::Error::other)?
                .with_no_client_auth()
                .with_single_cert(vec![shown.der()?], key)
                .map_err(io::Error::other)
        })
    }

    pub(crate) fn begin(&self, socket: TcpStream, old: bool) -> io::Result<Wire> {
        let session = ServerConnection::new(self.config(old)).map_err(io::Error::other)?;
        Ok(Wire::sealed(socket, session.into()))
    }
}
