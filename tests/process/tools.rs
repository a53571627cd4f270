//! Clients and servers that people use: curl, OpenSSL, Python `websockets`, npm `ws`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{
    Backend, Certificate, Document, Gateway, directory, free_port, script, tools, words,
};

/// A gateway over http and https in front of a backend, and where it is.
struct Place {
    _gateway: Gateway,
    port: u16,
    secure_port: u16,
    certificate: Certificate,
}

impl Place {
    fn in_front_of(backend: &Backend) -> Self {
        let directory = directory();
        let certificate = Certificate::signed_by_openssl(directory.path(), "localhost");
        let (port, secure_port) = (free_port(), free_port());
        let document = Document::simple(port, &[backend.address]).tls_site(
            "secure",
            secure_port,
            &certificate,
            "chat",
        );
        let gateway = Gateway::start_in(directory, &document);
        Self { _gateway: gateway, port, secure_port, certificate }
    }

    fn trusted(&self) -> &str {
        self.certificate.root_file.to_str().unwrap()
    }
}

fn talk(client: &str, place: &Place, tools: &Path) {
    let urls = [
        format!("ws://localhost:{}/echo", place.port),
        format!("wss://localhost:{}/echo", place.secure_port),
    ];
    for url in urls {
        let output = script(tools, client, &[&url, place.trusted()]);
        assert!(output.status.success(), "{client} at {url}: {}", words(&output));
    }
}

#[test]
fn python_websockets_and_npm_ws_talk_to_a_python_websockets_server() {
    let Some(tools) = tools("Python and Node clients, Python server") else { return };
    let backend = Backend::start_script(&tools, "ws_server.py");
    let place = Place::in_front_of(&backend);
    talk("ws_client.py", &place, &tools);
    talk("ws_client.mjs", &place, &tools);
}

#[test]
fn python_websockets_and_npm_ws_talk_to_an_npm_ws_server() {
    let Some(tools) = tools("Python and Node clients, Node server") else { return };
    let backend = Backend::start_script(&tools, "ws_server.mjs");
    let place = Place::in_front_of(&backend);
    talk("ws_client.py", &place, &tools);
    talk("ws_client.mjs", &place, &tools);
}

#[test]
fn curl_gets_pages_over_http_and_https() {
    if tools("curl").is_none() {
        return;
    }
    let backend = Backend::start("one");
    let place = Place::in_front_of(&backend);
    let urls = [
        format!("http://localhost:{}/whoami", place.port),
        format!("https://localhost:{}/whoami", place.secure_port),
    ];
    for url in urls {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "20"])
            .args(["--cacert", place.trusted(), &url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{url}: {}", words(&output));
        assert_eq!(words(&output).trim(), "one");
    }
}

#[test]
fn curl_opens_a_secure_websocket() {
    let Some(tools) = tools("curl") else { return };
    let backend = Backend::start_script(&tools, "ws_server.py");
    let place = Place::in_front_of(&backend);
    let url = format!("https://localhost:{}/echo", place.secure_port);
    let output = Command::new("curl")
        .args(["--silent", "--include", "--no-buffer", "--http1.1", "--max-time", "2"])
        .args(["--header", "Connection: Upgrade", "--header", "Upgrade: websocket"])
        .args(["--header", "Sec-WebSocket-Version: 13"])
        .args(["--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])
        .args(["--cacert", place.trusted(), &url])
        .output()
        .unwrap();
    let said = words(&output);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    assert!(said.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{said}");
}

/// `openssl s_client` with a request on its standard input, until the gateway closes.
fn s_client(place: &Place, more: &[&str]) -> Output {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", place.secure_port)])
        .args(["-servername", "localhost", "-verify_hostname", "localhost"])
        .args(["-verify_return_error", "-CAfile", place.trusted(), "-ign_eof"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // A handshake that is refused ends the client before it has read this.
    child.stdin.take().unwrap().write_all(request).ok();
    child.wait_with_output().unwrap()
}

#[test]
fn openssl_trusts_the_chain_and_agrees_on_tls_1_2_and_1_3_only() {
    if tools("OpenSSL's client").is_none() {
        return;
    }
    let backend = Backend::start("one");
    let place = Place::in_front_of(&backend);
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = words(&s_client(&place, &[option, "-alpn", "http/1.1"]));
        for wanted in [
            "Verify return code: 0 (ok)",
            "ALPN protocol: http/1.1",
            &format!("New, {version}"),
            "HTTP/1.1 200",
            "\none",
        ] {
            assert!(said.contains(wanted), "no {wanted:?} with {option}:\n{said}");
        }
    }
    // Level 0, or OpenSSL itself would not offer so old a version.
    let old = s_client(&place, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    let said = words(&old);
    assert!(!old.status.success() && said.contains("SSL alert number"), "{said}");
    assert!(said.contains("Cipher is (NONE)"), "{said}");
}
