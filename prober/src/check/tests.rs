//! Checks against real servers on the loopback, each made to misbehave in its own way.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::sync::Arc;

use holdfast_proto::control::{BackendTls, Probe, Scheme, StatusRange, TargetKey};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::Tls;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nservice is ready";

async fn listen() -> (TcpListener, u32) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port().into();
    (listener, port)
}

/// Reads a request's head.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A server that answers one request with `answer` and closes; its task returns the request's head.
async fn answering(answer: impl Into<Vec<u8>>) -> (u32, JoinHandle<String>) {
    let (listener, port) = listen().await;
    let answer = answer.into();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        // The prober may hang up as soon as it has heard enough.
        stream.write_all(&answer).await.ok();
        head
    });
    (port, served)
}

fn probe(port: u32) -> Probe {
    Probe {
        scheme: Scheme::Http.into(),
        port,
        path: "/health".into(),
        host: "site.example".into(),
        timeout_ms: 20_000,
        ..Probe::default()
    }
}

async fn run_at(address: &str, probe: &Probe) -> Result<String, String> {
    let key = TargetKey { address: address.into(), ..TargetKey::default() };
    let plan = Plan::new(&key, Some(probe), &Tls::without_system_roots()).unwrap();
    check(&plan).await.map_err(|failure| failure.to_string())
}

async fn run(probe: &Probe) -> Result<String, String> {
    run_at("127.0.0.1", probe).await
}

#[tokio::test]
async fn a_good_answer_is_a_success() {
    let (port, served) = answering(OK).await;
    assert_eq!(run(&probe(port)).await.unwrap(), "status 200");
    let head = served.await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /health http/1.1\r\n"), "{head}");
    for line in ["host: site.example", "user-agent: holdfast-probe", "connection: close"] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    for absent in ["upgrade:", "sec-websocket", "content-length:", "transfer-encoding:"] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
}

#[tokio::test]
async fn a_host_name_is_resolved() {
    let (port, _served) = answering(OK).await;
    // May resolve to ::1 first, where nobody listens.
    assert_eq!(run_at("localhost", &probe(port)).await.unwrap(), "status 200");
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_named() {
    let failure = run_at("no-such-host.invalid", &probe(80)).await.unwrap_err();
    assert!(failure.starts_with("cannot resolve no-such-host.invalid: "), "{failure}");
}

#[tokio::test]
async fn another_status_is_told_with_the_expected_ones() {
    let (port, _served) = answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    let probe = Probe {
        statuses: vec![
            StatusRange { first: 200, last: 299 },
            StatusRange { first: 401, last: 401 },
        ],
        ..probe(port)
    };
    assert_eq!(
        run(&probe).await.unwrap_err(),
        "the backend answered status 404; expected 200-299, 401"
    );
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (port, _served) =
        answering("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n").await;
    assert_eq!(run(&probe(port)).await.unwrap(), "status 302");
}

#[tokio::test]
async fn garbage_is_not_http() {
    let (port, _served) = answering("\x01\x02 what is this\r\n\r\n").await;
    let failure = run(&probe(port)).await.unwrap_err();
    assert!(failure.starts_with("the answer is not HTTP/1.1"), "{failure}");
}

#[tokio::test]
async fn nobody_listening_is_a_refused_connection() {
    let (listener, port) = listen().await;
    drop(listener);
    assert_eq!(
        run(&probe(port)).await.unwrap_err(),
        format!("cannot connect to 127.0.0.1:{port}: connection refused")
    );
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let (_listener, port) = listen().await;
    for (scheme, waiting) in [
        (Scheme::Http, "connected, but no answer came"),
        (Scheme::Https, "the TLS handshake did not end"),
    ] {
        let probe = Probe { scheme: scheme.into(), timeout_ms: 50, ..probe(port) };
        assert_eq!(
            run(&probe).await.unwrap_err(),
            format!("no answer within the probe's timeout of 0.05 s: {waiting}")
        );
    }
}

#[tokio::test]
async fn closing_half_way_through_the_head_is_a_failure() {
    for half in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-"] {
        let (port, _served) = answering(half).await;
        assert_eq!(
            run(&probe(port)).await.unwrap_err(),
            "the backend closed the connection before a whole answer"
        );
    }
}

#[tokio::test]
async fn the_body_has_to_contain_the_text() {
    let long = vec![b'x'; BODY_LIMIT + 70_000];
    let long =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", long.len()).into_bytes(), long]
            .concat();
    for (answer, expected) in [
        (OK.to_vec(), Ok("status 200".to_owned())),
        (b"HTTP/1.1 200 OK\r\n\r\nI am ready".to_vec(), Ok("status 200".to_owned())),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n"
                .to_vec(),
            Ok("status 200".to_owned()),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
            Err("the body does not contain \"ready\"".to_owned()),
        ),
        // Both must be as they should.
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nready".to_vec(),
            Err("the backend answered status 404; expected 200-399".to_owned()),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrea".to_vec(),
            Err("the connection broke off in the body, before it contained \"ready\"".to_owned()),
        ),
        (
            long,
            Err(format!("the first {BODY_LIMIT} bytes of the body do not contain \"ready\"")),
        ),
    ] {
        let (port, _served) = answering(answer).await;
        assert_eq!(run(&Probe { body: "ready".into(), ..probe(port) }).await, expected);
    }
}

// === TLS ===

/// A certificate, its chain and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    root: Vec<u8>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

/// Signed by itself; `ca` as most tools make such certificates.
fn self_signed(name: &str, ca: bool, last_year: i32) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = params(name);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.not_after = rcgen::date_time_ymd(last_year, 3, 1);
    let cert = params.self_signed(&key).unwrap();
    Identity { chain: vec![cert.der().clone()], key: private(&key), root: cert.der().to_vec() }
}

/// Signed by a root of its own, which the server does not send.
fn signed(name: &str) -> Identity {
    let mut root = params("root.example");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().unwrap();
    let root_cert = root.self_signed(&root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = params(name).signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    Identity { chain: vec![cert.der().clone()], key: private(&key), root: root_cert.der().to_vec() }
}

/// A TLS server for one connection; its task returns the SNI that the client sent.
async fn tls_server(identity: &Identity) -> (u32, JoinHandle<Option<String>>) {
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .unwrap();
    let (listener, port) = listen().await;
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
        let sni = stream.get_ref().1.server_name().map(ToOwned::to_owned);
        read_head(&mut stream).await;
        stream.write_all(OK).await.ok();
        stream.shutdown().await.ok();
        sni
    });
    (port, served)
}

fn trust(roots: &[&Identity]) -> BackendTls {
    BackendTls {
        trusted_roots_der: roots.iter().map(|identity| identity.root.clone()).collect(),
        validate_chain: true,
        validate_name: true,
        sni_name: String::new(),
    }
}

fn https(port: u32, sni: &str, tls: BackendTls) -> Probe {
    Probe { scheme: Scheme::Https.into(), sni: sni.into(), tls: Some(tls), ..probe(port) }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_root_is_good() {
    for identity in [
        signed("a.example"),
        self_signed("a.example", false, 2900),
        self_signed("a.example", true, 2900),
    ] {
        let (port, served) = tls_server(&identity).await;
        let outcome = run(&https(port, "a.example", trust(&[&identity]))).await;
        assert_eq!(outcome.unwrap(), "status 200");
        assert_eq!(served.await.unwrap().as_deref(), Some("a.example"));
    }
}

#[tokio::test]
async fn an_unknown_signer_is_told_unless_the_chain_is_not_checked() {
    let stranger = signed("a.example");
    for identity in [self_signed("a.example", false, 2900), signed("a.example")] {
        let (port, _served) = tls_server(&identity).await;
        let failure = run(&https(port, "a.example", trust(&[&stranger]))).await.unwrap_err();
        assert!(failure.contains("not signed by a known authority"), "{failure}");

        let (port, _served) = tls_server(&identity).await;
        let lax = BackendTls { validate_chain: false, ..trust(&[]) };
        assert_eq!(run(&https(port, "a.example", lax)).await.unwrap(), "status 200");
    }
}

#[tokio::test]
async fn another_name_is_told_unless_names_are_not_checked() {
    let identity = self_signed("a.example", false, 2900);
    let (port, _served) = tls_server(&identity).await;
    assert_eq!(
        run(&https(port, "b.example", trust(&[&identity]))).await.unwrap_err(),
        "the backend's certificate is for a.example; expected b.example"
    );

    let (port, served) = tls_server(&identity).await;
    let lax = BackendTls { validate_name: false, ..trust(&[&identity]) };
    assert_eq!(run(&https(port, "b.example", lax)).await.unwrap(), "status 200");
    assert_eq!(served.await.unwrap().as_deref(), Some("b.example"));
}

#[tokio::test]
async fn without_a_name_no_sni_is_sent_and_the_address_is_checked() {
    let identity = self_signed("127.0.0.1", false, 2900);
    let (port, served) = tls_server(&identity).await;
    assert_eq!(run(&https(port, "", trust(&[&identity]))).await.unwrap(), "status 200");
    assert_eq!(served.await.unwrap(), None);
}

#[tokio::test]
async fn a_forced_sni_name_wins() {
    let identity = self_signed("forced.example", false, 2900);
    let (port, served) = tls_server(&identity).await;
    let tls = BackendTls { sni_name: "forced.example".into(), ..trust(&[&identity]) };
    assert_eq!(run(&https(port, "a.example", tls)).await.unwrap(), "status 200");
    assert_eq!(served.await.unwrap().as_deref(), Some("forced.example"));
}

#[tokio::test]
async fn an_expired_certificate_is_told_with_its_day_even_where_it_is_listed() {
    for ca in [false, true] {
        let identity = self_signed("a.example", ca, 2000);
        let (port, _served) = tls_server(&identity).await;
        assert_eq!(
            run(&https(port, "a.example", trust(&[&identity]))).await.unwrap_err(),
            "the backend's certificate, or one above it, expired on 2000-03-01"
        );
    }
}

#[tokio::test]
async fn plain_http_on_the_port_is_told() {
    let (listener, port) = listen().await;
    let _served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Keeps the connection until the prober hangs up.
        read_head(&mut stream).await;
    });
    assert_eq!(
        run(&https(port, "a.example", trust(&[]))).await.unwrap_err(),
        "the backend does not speak TLS on this port"
    );
}
