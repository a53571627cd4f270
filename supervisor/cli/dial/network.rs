//! Reaching a gateway over the network: TLS with certificates on both sides, and what to tell a person when one of them does not
//! accept the other's.
//!
//! A connection counts as made when the gateway has said its first word: in TLS 1.3 a client hears only then that its
//! certificate was refused, and a call on its way would hear of a lost connection instead.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::SILENCE;
use crate::args::{Admin, Passport};
use crate::failure::{Kind, fail};

/// For each step of a connection: names, TCP, TLS, the first word.
const PATIENCE: Duration = Duration::from_secs(10);

type Stream = TlsStream<TcpStream>;

/// Where a gateway is, and how it is talked to there.
struct Gateway {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    certificate: PathBuf,
    authority: PathBuf,
}

/// Whether an address is one on the network.
pub(super) fn is_meant(address: &str) -> bool {
    address.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Dials it.
pub(super) async fn connect(admin: &Admin, address: &str) -> anyhow::Result<Channel> {
    let gateway = Arc::new(Gateway::at(address, admin)?);
    // Dialled here, so that what goes wrong is told in our words; a channel that dials again does it by itself.
    let first = gateway.dial().await?;
    let first = Arc::new(Mutex::new(Some(first)));
    // The URI only fills HTTP/2's :authority; the connector decides where the bytes go, and does TLS.
    let (host, port) = (&gateway.host, gateway.port);
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}"))?
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE);
    let connected = endpoint.connect_with_connector(service_fn(move |_: Uri| {
        let (gateway, first) = (gateway.clone(), first.clone());
        async move {
            let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = match ready {
                Some(stream) => stream,
                None => gateway.dial().await?,
            };
            Ok::<_, anyhow::Error>(TokioIo::new(stream))
        }
    }));
    connected.await.with_context(|| format!("cannot reach the gateway at {address}"))
}

// === impl Gateway ===

impl Gateway {
    fn at(address: &str, admin: &Admin) -> anyhow::Result<Self> {
        let wrong = || anyhow!("cannot use the admin address {address:?}: write https://HOST:PORT");
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let port = authority.port_u16().ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
            || authority.as_str().contains('@')
        {
            return Err(wrong());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        let Passport { admin_certificate, admin_key, admin_authority } = &admin.passport;
        let needed = [
            ("--admin-certificate", admin_certificate),
            ("--admin-key", admin_key),
            ("--admin-authority", admin_authority),
        ];
        let missing: Vec<_> =
            needed.iter().filter(|(_, file)| file.is_none()).map(|(option, _)| *option).collect();
        let [Some(certificate), Some(key), Some(authority)] = needed.map(|(_, file)| file) else {
            bail!(
                "{address} is reached with certificates on both sides: give {} (or set \
                 $HOLDFAST_ADMIN_CERTIFICATE, $HOLDFAST_ADMIN_KEY and $HOLDFAST_ADMIN_AUTHORITY)",
                missing.join(", ")
            );
        };
        let tls = TlsConnector::from(Arc::new(config(certificate, key, authority)?));
        let (certificate, authority) = (certificate.clone(), authority.clone());
        Ok(Self { host: host.to_owned(), port, name, tls, certificate, authority })
    }

    async fn dial(&self) -> anyhow::Result<Stream> {
        let made = async {
            let stream = in_time(TcpStream::connect((self.host.as_str(), self.port))).await?;
            stream.set_nodelay(true)?;
            let mut stream = in_time(self.tls.connect(self.name.clone(), stream)).await?;
            // Not a byte is written before: what the gateway sends of its refusal would be lost behind it.
            if in_time(stream.fill_buf()).await?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok::<_, io::Error>(stream)
        };
        let stream = made.await.map_err(|error| self.told(error))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            bail!("what listens at {} is no gateway's admin address", self.place());
        }
        Ok(stream)
    }

    fn place(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }

    /// What happened, and what to do about it.
    fn told(&self, error: io::Error) -> anyhow::Error {
        let (at, certificate) = (self.place(), self.certificate.display());
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(fault)) => {
                let mend = self.mend(fault);
                anyhow!("the certificate that {at} shows is not accepted here ({fault}): {mend}")
            }
            Some(rustls::Error::AlertReceived(alert)) => {
                let mend = match alert {
                    AlertDescription::CertificateExpired => "it has expired: have it renewed",
                    AlertDescription::UnknownCA => {
                        "it is signed by no authority of the gateway's holdfast.admin.clientCertificateAuthorityFile: \
                         call with a certificate that is"
                    }
                    _ => "call with one that an authority of the gateway has signed for a client",
                };
                let told = format!(
                    "{at} does not accept the certificate {certificate} ({alert:?}): {mend}"
                );
                fail(Kind::NoPermission, told)
            }
            _ => match error.kind() {
                io::ErrorKind::ConnectionRefused => fail(
                    Kind::NoGateway,
                    format!(
                        "nobody listens at {at}: no gateway runs there, or its document has no \
                         holdfast.admin with this address"
                    ),
                ),
                io::ErrorKind::TimedOut => fail(
                    Kind::NoAnswer,
                    format!(
                        "{at} does not answer in {PATIENCE:?}: a firewall may stand between, or as \
                         many operators as it serves are connected"
                    ),
                ),
                _ => anyhow::Error::new(error).context(format!("cannot reach the gateway at {at}")),
            },
        }
    }

    fn mend(&self, fault: &CertificateError) -> String {
        let port = self.port;
        match fault {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("call it by a name of its certificate, --admin https://NAME:{port}")
            }
            // The latter of two authorities of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "no authority in {} has signed it: give the one that has with --admin-authority",
                self.authority.display()
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "have it renewed there; the gateway reads its file again by itself".to_owned()
            }
            _ => "see that it is the gateway that listens there".to_owned(),
        }
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn config(certificate: &Path, key: &Path, authority: &Path) -> anyhow::Result<ClientConfig> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| anyhow!("cannot read the key {}: {error}", key.display()))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(authority)? {
        let told = || format!("cannot use the authority {}", authority.display());
        roots.add(root).with_context(told)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_client_auth_cert(chain, private);
    let told = || {
        format!(
            "cannot use the certificate {} with the key {}",
            certificate.display(),
            key.display()
        )
    };
    let mut config = config.with_context(told)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let read: Vec<_> =
        read.map_err(|error| anyhow!("cannot read the certificate {}: {error}", file.display()))?;
    if read.is_empty() {
        bail!("{} holds no certificate in PEM", file.display());
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn refused(address: &str, admin: &Admin) -> String {
        Gateway::at(address, admin).map(|it| it.place()).unwrap_err().to_string()
    }

    #[test]
    fn an_address_has_a_host_and_a_port_and_nothing_else() {
        let wrong = [
            "https://gateway",
            "https://gateway:9443/x",
            "https://a@gateway:9443",
            "https://gateway:9443?x",
            "https://:9443",
            "https://",
        ];
        for address in wrong {
            assert!(is_meant(address), "{address}");
            let told = refused(address, &Admin::default());
            assert!(told.contains("write https://HOST:PORT"), "{address}: {told}");
        }
        assert!(!is_meant("http://gateway:9443"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let passport = Passport { admin_key: Some("key.pem".into()), ..Passport::default() };
        let admin = Admin { passport, ..Admin::default() };
        let told = refused("HTTPS://[::1]:9443/", &admin);
        assert!(told.contains("give --admin-certificate, --admin-authority (or"), "{told}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["a.pem", "a.key"].map(|name| directory.path().join(name));
        let passport = Passport {
            admin_certificate: Some(certificate.clone()),
            admin_key: Some(key.clone()),
            admin_authority: Some(certificate.clone()),
        };
        let admin = Admin { passport, ..Admin::default() };
        let told = || refused("https://localhost:9443", &admin);
        assert!(told().contains("a.pem: "), "{}", told());
        std::fs::write(&certificate, "nothing").unwrap();
        assert!(told().contains("a.pem holds no certificate"), "{}", told());
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        assert!(told().contains("cannot read the key"), "{}", told());
        std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(told().contains("cannot use the certificate"), "{}", told());
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        assert!(Gateway::at("https://localhost:9443", &admin).is_ok());
    }
}
