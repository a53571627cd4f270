//! Whole handshakes in memory: what is offered, who is let in, and what is resumed.
#![allow(clippy::unwrap_used, reason = "tests")]

use rcgen::KeyPair;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion,
    SignatureScheme,
};

use super::super::client_auth::tests::{authority, leaf, params, strict};
use super::super::trusting::Trusting;
use super::*;

type Issuer = rcgen::CertifiedIssuer<'static, KeyPair>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn key() -> wire::TicketKey {
    wire::TicketKey { id: vec![1; 16], secret: vec![2; 32], until: u64::MAX }
}

fn asking(auth: wire::ClientAuth) -> wire::TlsProfile {
    wire::TlsProfile { client_auth: Some(auth), ..everything(&provider()) }
}

fn offer(profile: wire::TlsProfile) -> Offer {
    Offer::compile(vec![profile], vec![key()], "127.0.0.1:443", &provider(), None).unwrap()
}

fn shown() -> Arc<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![made.cert.der().clone()];
    Arc::new(CertifiedKey::from_der(chain, key.into(), &provider()).unwrap())
}

/// A client that shows a certificate of this issuer, or none.
fn client(
    issuer: Option<&Issuer>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Trusting::of(&provider()));
    let mut config = match issuer {
        None => config.with_no_client_auth(),
        Some(issuer) => {
            let key = KeyPair::generate().unwrap();
            let own = params("client").signed_by(&key, issuer).unwrap();
            let key: PrivateKeyDer<'_> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            config.with_client_auth_cert(vec![own.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// One handshake, with all that follows it on its own.
fn shake(client: &Arc<ClientConfig>, offer: &Offer) -> (ServerConnection, Option<ClientIdentity>) {
    try_shake(client, offer).unwrap()
}

fn try_shake(
    client: &Arc<ClientConfig>,
    offer: &Offer,
) -> Result<(ServerConnection, Option<ClientIdentity>), Error> {
    let profile = offer.profile(0).unwrap();
    let config = offer.config(profile, Some(shown())).unwrap();
    let mut server = ServerConnection::new(Arc::new(config))?;
    let name = ServerName::try_from("a.test").unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let identity = ClientIdentity::of(&server, profile);
    Ok((server, identity))
}

/// Shows a certificate that it has no key to.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesClientCert for Thief {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn admits(offer: &Offer, identity: Option<&ClientIdentity>) -> Admittance {
    let profile = offer.profile(0).unwrap();
    let admits = |it: Sight| profile.admits(it.verdict().unwrap());
    profile.sight(identity).map_or_else(|otherwise| otherwise, admits)
}

const BOTH: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

#[test]
fn a_session_that_is_resumed_elsewhere_is_judged_again() {
    let root = authority("root", None);
    for version in BOTH {
        let client = client(Some(&root), version);
        let [one, two] = [(); 2].map(|()| offer(asking(strict(&[&root], &[]))));
        let (server, identity) = shake(&client, &one);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(admits(&one, identity.as_ref()), Admittance::Granted);
        let (server, identity) = shake(&client, &two);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(admits(&two, identity.as_ref()), Admittance::Granted);
        let certificate = identity.as_ref().and_then(ClientIdentity::certificate).unwrap();
        assert_eq!(certificate.subject, "CN=client");
        assert_eq!(identity.as_ref().unwrap().verdict(), Some(Verdict::Success));
    }
}

#[test]
fn a_session_made_under_other_authorities_is_not_resumed() {
    let (root, other) = (authority("root", None), authority("other", None));
    for version in BOTH {
        let client = client(Some(&root), version);
        let before = offer(asking(strict(&[&root], &[])));
        shake(&client, &before);
        let after = offer(asking(strict(&[&other], &[])));
        let (server, identity) = shake(&client, &after);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(admits(&after, identity.as_ref()), Admittance::Bad);
    }
}

#[test]
fn a_session_made_when_nobody_asked_is_not_resumed_where_somebody_does() {
    let root = authority("root", None);
    for version in BOTH {
        let client = client(Some(&root), version);
        let open = offer(everything(&provider()));
        let (_, identity) = shake(&client, &open);
        assert!(identity.is_none());
        assert_eq!(admits(&open, None), Admittance::Granted);
        let asking = offer(asking(strict(&[&root], &[])));
        assert_eq!(admits(&asking, None), Admittance::AskedOtherwise);
        let (server, identity) = shake(&client, &asking);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(admits(&asking, identity.as_ref()), Admittance::Granted);
    }
}

#[test]
fn who_shows_nothing_or_something_bad_gets_a_session_and_no_ticket() {
    let (root, other) = (authority("root", None), authority("other", None));
    let offer = offer(asking(strict(&[&root], &[])));
    for version in BOTH {
        for (issuer, expected) in [(None, Admittance::Missing), (Some(&other), Admittance::Bad)] {
            let client = client(issuer, version);
            for _ in 0..2 {
                let (server, identity) = shake(&client, &offer);
                assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
                assert_eq!(admits(&offer, identity.as_ref()), expected);
            }
        }
    }
}

#[test]
fn who_has_no_key_to_a_certificate_gets_no_session_whatever_the_mode() {
    let root = authority("root", None);
    let key = PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der());
    let key = provider().key_provider.load_private_key(key.into()).unwrap();
    let stolen = vec![leaf(&params("jane"), &root)];
    let thief = Arc::new(Thief(Arc::new(CertifiedKey::new(stolen, key))));
    for mode in [wire::ClientAuthMode::Strict, wire::ClientAuthMode::Passthrough] {
        let source = wire::ClientAuth { mode: mode.into(), ..strict(&[&root], &[]) };
        let offer = offer(asking(source));
        for version in BOTH {
            let mut config = ClientConfig::clone(&client(None, version));
            config.client_auth_cert_resolver = thief.clone();
            let ended = try_shake(&Arc::new(config), &offer).map(drop);
            let expected = CertificateError::BadSignature;
            assert_eq!(ended, Err(Error::InvalidCertificate(expected)), "{mode:?}");
        }
    }
}

#[test]
fn passthrough_lets_everybody_in_and_tells_what_they_are() {
    let (root, other) = (authority("root", None), authority("other", None));
    let mode = wire::ClientAuthMode::Passthrough.into();
    let offer = offer(asking(wire::ClientAuth { mode, ..strict(&[&root], &[]) }));
    for (issuer, verdict) in [(None, "NONE"), (Some(&root), "SUCCESS"), (Some(&other), "FAILED")] {
        let (_, identity) = shake(&client(issuer, &[&TLS13]), &offer);
        let identity = identity.unwrap();
        assert_eq!(admits(&offer, Some(&identity)), Admittance::Granted);
        assert!(identity.verdict().unwrap().to_string().starts_with(verdict), "{verdict}");
        assert_eq!(identity.certificate().is_some(), issuer.is_some());
    }
}

#[test]
fn an_open_connection_is_judged_by_its_profile_as_it_is_now() {
    let (root, other) = (authority("root", None), authority("other", None));
    let named = |name: &str, auth| wire::TlsProfile { name: name.to_owned(), ..asking(auth) };
    let before = offer(named("p", strict(&[&root], &[])));
    let (_, identity) = shake(&client(Some(&root), &[&TLS13]), &before);
    let more = offer(named("p", strict(&[&root, &other], &[])));
    assert_eq!(admits(&more, identity.as_ref()), Admittance::Granted);
    let gone = offer(named("p", strict(&[&other], &[])));
    assert_eq!(admits(&gone, identity.as_ref()), Admittance::Bad);
    let another = offer(named("q", strict(&[&root, &other], &[])));
    assert_eq!(admits(&another, identity.as_ref()), Admittance::AskedOtherwise);
    let alike = offer(named("q", strict(&[&root], &[])));
    assert_eq!(admits(&alike, identity.as_ref()), Admittance::Granted);
}

#[test]
fn the_server_chooses_the_suite_and_every_suite_can_leave() {
    let reversed = |profile: wire::TlsProfile| {
        let suites = profile.suites.iter().rev().copied().collect();
        wire::TlsProfile { suites, ..profile }
    };
    let suite = |profile| {
        let (server, _) = shake(&client(None, &[&TLS13]), &offer(profile));
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        server.negotiated_cipher_suite().unwrap().suite()
    };
    let all = everything(&provider());
    assert_ne!(suite(all.clone()), suite(reversed(all.clone())));
    assert!(provider().cipher_suites.iter().all(|it| is_known(it.suite())));
    assert_eq!(all.suites.len(), 9);
}

#[test]
fn only_what_is_offered_is_spoken() {
    let old = offer(wire::TlsProfile { tls13: false, ..everything(&provider()) });
    let (server, _) = shake(&client(None, &[&TLS12, &TLS13]), &old);
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn what_cannot_be_offered_is_refused() {
    let compile = |profile| {
        Offer::compile(vec![profile], Vec::new(), "", &provider(), None).map(drop).unwrap_err()
    };
    let all = || everything(&provider());
    let unknown = wire::TlsProfile { suites: vec![0x002f], ..all() };
    assert!(matches!(compile(unknown), OfferRefusal::Suite { suite: 0x002f, .. }));
    let huge = wire::TlsProfile { suites: vec![0x1_1301], ..all() };
    assert!(matches!(compile(huge), OfferRefusal::Suite { .. }));
    for nothing in [
        wire::TlsProfile { suites: Vec::new(), ..all() },
        wire::TlsProfile { tls12: false, tls13: false, ..all() },
        wire::TlsProfile { tls12: false, suites: vec![0xc02f], ..all() },
    ] {
        assert!(matches!(compile(nothing), OfferRefusal::Nothing { .. }));
    }
    assert!(matches!(
        compile(asking(wire::ClientAuth::default())),
        OfferRefusal::ClientAuth { .. }
    ));
    let bad = wire::TicketKey { id: Vec::new(), ..key() };
    let keys = Offer::compile(Vec::new(), vec![bad], "", &provider(), None);
    assert!(matches!(keys, Err(OfferRefusal::TicketKeys(_))));
}

#[test]
fn a_profile_that_stays_is_kept_and_so_are_keys() {
    let first = offer(everything(&provider()));
    let again = Offer::compile(
        vec![everything(&provider())],
        Vec::new(),
        "127.0.0.1:443",
        &provider(),
        Some(&first),
    )
    .unwrap();
    assert!(Arc::ptr_eq(first.profile(0).unwrap(), again.profile(0).unwrap()));
    let client = client(None, &[&TLS13]);
    shake(&client, &first);
    let (server, _) = shake(&client, &again);
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
}
