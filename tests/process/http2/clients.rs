//! Clients of HTTP/2 that people use, curl and h2load: every request succeeds, many at once, large ones both ways.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Stage, telling_backend};
use crate::harness::{Backend, directory, tools, words};

/// Larger than all windows and buffers between two ends.
const LARGE: usize = 48 << 20;

/// Bytes of which no two parts are alike.
fn large_file(path: &Path) -> Vec<u8> {
    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(LARGE)
    .collect();
    fs::write(path, &bytes).unwrap();
    bytes
}

/// curl over HTTP/2 with so many of its own options; what it says.
fn curl(stage: &Stage, options: &[&str], path: &str) -> String {
    let to = format!("chat.test:{}:127.0.0.1", stage.port);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--http2", "--resolve", &to])
        .args(["--max-time", "120", "--write-out", " %{http_version}"])
        .arg("--cacert")
        .arg(&stage.certificate.root_file)
        .args(options)
        .arg(format!("https://chat.test:{}{path}", stage.port))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// h2load with so many of its own options; every request must succeed.
fn h2load(stage: &Stage, requests: usize, options: &[&str], path: &str) -> String {
    let to = format!("127.0.0.1:{}", stage.port);
    let output = Command::new("h2load")
        .args(["--connect-to", &to, "--requests", &requests.to_string(), "--threads", "1"])
        .args(options)
        .arg(format!("https://chat.test:{}{path}", stage.port))
        .output()
        .unwrap();
    let said = words(&output);
    let wanted = format!(
        "requests: {requests} total, {requests} started, {requests} done, {requests} succeeded, \
         0 failed, 0 errored, 0 timeout"
    );
    assert!(said.contains(&wanted), "no {wanted:?}:\n{said}");
    assert!(said.contains("Application protocol: h2"), "{said}");
    said
}

#[test]
fn curl_uploads_and_downloads_what_is_larger_than_any_window() {
    if tools("curl").is_none() {
        return;
    }
    let (backend, _told) = telling_backend();
    let stage = Stage::before(backend, |document| document);
    let directory = directory();
    let (up, down) = (directory.path().join("up"), directory.path().join("down"));
    let sent = large_file(&up);
    let [from, to] = [&up, &down].map(|path| path.to_str().unwrap());
    assert_eq!(curl(&stage, &["--upload-file", from, "--output", to], "/file"), " 2");
    assert!(fs::read(&down).unwrap() == sent, "something else came back");
}

#[test]
fn curl_has_every_request_answered_though_its_connections_end() {
    if tools("curl").is_none() {
        return;
    }
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    // More than a connection's worth: it is told to go, and comes again.
    let several = ["--parallel", "--parallel-max", "20"];
    for options in [&[][..], &several] {
        let said = curl(&stage, options, "/whoami?[1-2500]");
        // Those of several at once stand in each other's way.
        assert_eq!(said.matches("one").count(), 2500, "{options:?}");
        assert_eq!(said.matches('2').count(), 2500, "{options:?}");
    }
}

#[test]
fn h2load_has_every_request_answered_over_many_streams() {
    if tools("h2load").is_none() {
        return;
    }
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let options = ["--clients", "10", "--max-concurrent-streams", "100"];
    let said = h2load(&stage, 8000, &options, "/whoami");
    assert!(said.contains("status codes: 8000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
}

#[test]
fn h2load_uploads_and_downloads_over_many_streams() {
    if tools("h2load").is_none() {
        return;
    }
    let (backend, _told) = telling_backend();
    let stage = Stage::before(backend, |document| document);
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let data = format!("--data={}", file.display());
    let said =
        h2load(&stage, 60, &["--clients", "3", "--max-concurrent-streams", "10", &data], "/file");
    let bytes = 60 << 20;
    assert!(said.contains(&format!("({bytes}) data")), "not all came back:\n{said}");
}
