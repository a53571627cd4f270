//! Chains, names and the switches, over real handshakes in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::*;

struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    root: Vec<u8>,
}

fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// A server certificate for `app.internal` under a private root.
fn issued(expired: bool) -> Shown {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["app.internal".to_owned()]).unwrap();
    if expired {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let leaf = params.signed_by(&key, &issuer).unwrap();
    Shown { chain: vec![leaf.der().clone()], key: key_der(&key), root: root.der().to_vec() }
}

/// What `openssl req -x509` makes: one certificate that is a CA and the server's own.
fn self_signed() -> Shown {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["app.internal".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap();
    Shown { chain: vec![own.der().clone()], key: key_der(&key), root: own.der().to_vec() }
}

fn handshake(shown: Shown, settings: wire::BackendTls, name: &str) -> Result<(), Error> {
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(shown.chain, shown.key)
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let tls = BackendTls::compile(settings).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(tls.config, name).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

fn settings(shown: &Shown, validate_chain: bool, validate_name: bool) -> wire::BackendTls {
    let trusted_roots_der = vec![shown.root.clone()];
    wire::BackendTls { trusted_roots_der, validate_chain, validate_name, ..Default::default() }
}

#[test]
fn a_listed_root_is_trusted_for_the_right_name() {
    for make in [|| issued(false), self_signed as fn() -> Shown] {
        let shown = make();
        let trusting = settings(&shown, true, true);
        assert_eq!(handshake(shown, trusting, "app.internal"), Ok(()));
        let shown = make();
        let trusting = settings(&shown, true, true);
        assert!(handshake(shown, trusting, "other.internal").is_err());
        let shown = make();
        let nameless = settings(&shown, true, false);
        assert_eq!(handshake(shown, nameless, "other.internal"), Ok(()));
    }
}

#[test]
fn an_unlisted_root_or_an_expired_certificate_fails_unless_the_chain_is_not_checked() {
    for expired in [false, true] {
        let shown = issued(expired);
        let other = if expired {
            settings(&shown, true, true)
        } else {
            settings(&issued(false), true, true)
        };
        assert!(handshake(shown, other, "app.internal").is_err(), "expired: {expired}");
        let shown = issued(expired);
        let lax = settings(&shown, false, true);
        assert_eq!(handshake(shown, lax, "app.internal"), Ok(()));
        let shown = issued(expired);
        let lax = settings(&shown, false, true);
        assert!(handshake(shown, lax, "other.internal").is_err());
        let shown = issued(expired);
        let laxest = settings(&shown, false, false);
        assert_eq!(handshake(shown, laxest, "10.0.0.1"), Ok(()));
    }
}
