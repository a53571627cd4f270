//! Clients and servers that people use: curl, Python `websockets`, npm `ws`, Chromium.

use std::process::Command;

use crate::harness::{
    Backend, Certificate, Document, Gateway, directory, free_port, script, tools, words,
};

/// A gateway over http and https in front of a backend, and where it is.
fn gateway(backend: &Backend) -> (Gateway, u16, u16, Certificate) {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "localhost");
    let (port, secure) = (free_port(), free_port());
    let document =
        Document::simple(port, &[backend.address]).tls_site("secure", secure, &certificate, "chat");
    (Gateway::start_in(directory, &document), port, secure, certificate)
}

fn talk(client: &str, backend: &Backend, tools: &std::path::Path) {
    let (_gateway, port, secure, certificate) = gateway(backend);
    let trusted = certificate.chain_file.to_str().unwrap();
    for url in [format!("ws://localhost:{port}/echo"), format!("wss://localhost:{secure}/echo")] {
        let output = script(tools, client, &[&url, trusted]);
        assert!(output.status.success(), "{client} at {url}: {}", words(&output));
    }
}

#[test]
fn python_websockets_talk_to_each_other_and_to_node() {
    let Some(tools) = tools("Python and Node clients and servers") else { return };
    for server in ["ws_server.py", "ws_server.mjs"] {
        let backend = Backend::start_script(&tools, server);
        for client in ["ws_client.py", "ws_client.mjs"] {
            talk(client, &backend, &tools);
        }
    }
}

#[test]
fn curl_gets_pages_over_http_and_https() {
    if tools("curl").is_none() {
        return;
    }
    let backend = Backend::start("one");
    let (_gateway, port, secure, certificate) = gateway(&backend);
    for url in
        [format!("http://localhost:{port}/whoami"), format!("https://localhost:{secure}/whoami")]
    {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "10", "--cacert"])
            .args([certificate.chain_file.as_os_str(), url.as_ref()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{url}: {}", words(&output));
        assert_eq!(words(&output).trim(), "one");
    }
}

#[test]
fn chromium_opens_a_websocket_from_the_chat_page() {
    if tools("Chromium").is_none() {
        return;
    }
    let backend = Backend::start("one");
    let (_gateway, port, ..) = gateway(&backend);
    let profile = directory();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &format!("http://localhost:{port}/")])
        .output()
        .unwrap();
    // The page writes the name of the backend that serves its WebSocket.
    assert!(words(&output).contains("one"), "{}", words(&output));
}
