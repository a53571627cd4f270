//! TLS towards clients: certificates by host name, `wss`, bad certificates.

use std::process::Command;

use base64::Engine;

use crate::harness::{
    Backend, Certificate, Document, Gateway, WebSocket, directory, free_port, tools, words,
};

#[test]
fn a_secure_websocket_reaches_a_plain_backend() {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::new().pool("chat", &[backend.address]).tls_site(
        "secure",
        port,
        &certificate,
        "chat",
    );
    let _gateway = Gateway::start(&document);
    let mut socket = WebSocket::open_tls(port, "/echo", &certificate);
    assert!(socket.echoes("hello"));
    assert!(socket.echoes(&"long ".repeat(20_000)));
}

#[test]
fn each_host_name_gets_its_own_certificate() {
    let directory = directory();
    let [one, two] = ["one", "two"]
        .map(|name| Certificate::make(directory.path(), name, &format!("{name}.test")));
    let backend = Backend::start("backend");
    let port = free_port();
    let document = Document::new()
        .pool("chat", &[backend.address])
        .tls_site("one", port, &one, "chat")
        .tls_site("two", port, &two, "chat");
    let _gateway = Gateway::start(&document);
    for certificate in [&one, &two] {
        let shown = WebSocket::shown_certificate(port, certificate).unwrap();
        assert_eq!(shown, certificate.der, "{}", certificate.host);
    }
}

#[test]
fn a_certificate_changed_by_apply_is_shown_to_new_clients_and_old_ones_stay() {
    let directory = directory();
    let old = Certificate::make(directory.path(), "old", "chat.test");
    let new = Certificate::make(directory.path(), "new", "chat.test");
    let backend = Backend::start("one");
    let port = free_port();
    let document = |certificate| {
        Document::new().pool("chat", &[backend.address]).tls_site("s", port, certificate, "chat")
    };
    let gateway = Gateway::start(&document(&old));
    let mut socket = WebSocket::open_tls(port, "/echo", &old);
    gateway.apply(&document(&new));
    assert_eq!(WebSocket::shown_certificate(port, &new), Some(new.der));
    assert_eq!(WebSocket::shown_certificate(port, &old), None);
    assert!(socket.echoes("still here"));
}

/// A document with `certificate` as a PFX file made by OpenSSL.
fn with_pfx(certificate: &Certificate, password: &str, port: u16, backend: &Backend) -> Document {
    let made = Command::new("openssl")
        .args(["pkcs12", "-export", "-passout", "pass:right"])
        .args(["-inkey".as_ref(), certificate.key_file.as_os_str()])
        .args(["-in".as_ref(), certificate.chain_file.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", words(&made));
    let data = base64::engine::general_purpose::STANDARD.encode(made.stdout);
    let mut document = Document::new()
        .pool("chat", &[backend.address])
        .tls_site("secure", port, certificate, "chat")
        .set("sslCertificates", "secure", "data", data)
        .set("sslCertificates", "secure", "password", password);
    let list = document.0["properties"]["sslCertificates"].as_array_mut().unwrap();
    list[0].as_object_mut().unwrap().remove("holdfast");
    document
}

#[test]
fn a_pfx_certificate_serves() {
    if tools("PFX files made by OpenSSL").is_none() {
        return;
    }
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let backend = Backend::start("one");
    let port = free_port();
    let _gateway = Gateway::start(&with_pfx(&certificate, "right", port, &backend));
    assert!(WebSocket::open_tls(port, "/echo", &certificate).echoes("hello"));
}

#[test]
fn a_wrong_pfx_password_is_refused_and_not_repeated() {
    if tools("PFX files made by OpenSSL").is_none() {
        return;
    }
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let backend = Backend::start("one");
    let document = with_pfx(&certificate, "wrong-secret", free_port(), &backend);
    let said = words(&Gateway::start_refused(&document.text()));
    assert!(said.contains("password") && !said.contains("wrong-secret"), "{said}");
}
