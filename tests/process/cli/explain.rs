//! `holdfast explain` beside what clients meet.

use serde_json::{Value, json};

use crate::harness::{Backend, Document, Gateway, directory, free_port, get, words};

fn explained(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = gateway.cli(&[&["explain", "--json"], arguments].concat());
    let told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", words(&output)));
    (output.status.code(), told)
}

#[test]
fn a_request_is_explained_as_a_client_meets_it() {
    let backends = Backend::group(&["one", "two"]);
    let [one, two] = [0, 1].map(|index| backends[index].address);
    let port = free_port();
    let document = Document::new()
        .pool("files", &[one])
        .pool("chat", &[two])
        .path_site("web", port, &[("/files/*", "files")], "chat")
        .set("backendHttpSettingsCollection", "files", "path", "/static/");
    let gateway = Gateway::start(&document);
    let url = format!("http://127.0.0.1:{port}");

    let (code, told) = explained(&gateway, &[&format!("{url}/files/whoami?a=b")]);
    assert_eq!(code, Some(0));
    assert_eq!(told["site"], "web");
    assert_eq!(told["steps"][0]["rule"], "web");
    assert_eq!(told["steps"][0]["path_rule"], "path0");
    assert_eq!(told["forward"]["pool"], "files");
    assert_eq!(told["forward"]["target"], "/static/whoami?a=b");
    let backend = &told["forward"]["backends"][0];
    assert_eq!(backend["address"], one.ip().to_string());
    assert_eq!((&backend["state"], &backend["in_rotation"]), (&json!("Healthy"), &json!(true)));

    let (code, told) = explained(&gateway, &[&format!("ws://127.0.0.1:{port}/echo")]);
    assert_eq!((code, &told["websocket"]), (Some(0), &json!(true)));
    assert_eq!(told["forward"]["pool"], "chat");

    // What clients are refused, they are refused by this too.
    let target = format!("chat/{two}");
    gateway.must(&["drain", &target]);
    let (code, told) = explained(&gateway, &[&format!("{url}/other")]);
    assert_eq!((code, &told["refusal"]["word"]), (Some(1), &json!("no_backend")));
    let answered = u64::from(get(port, "/other").unwrap().status);
    assert_eq!(told["refusal"]["status"], answered);
    assert_eq!(told["forward"]["backends"][0]["state"], "Draining");
    gateway.must(&["undrain", &target]);

    let text = gateway.must(&["explain", &format!("{url}/files/x")]);
    for part in ["web, path rule path0", "files under settings files", "Healthy", "+ x-forwarded"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_document_explains_like_the_gateway_that_runs_it() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::new().pool("chat", &[backend.address]).host_site(
        "named",
        port,
        "*.named.test",
        "chat",
    );
    let gateway = Gateway::start(&document);
    let url = format!("http://room.named.test:{port}/a");
    let (_, running) = explained(&gateway, &[&url]);
    let (code, written) = explained(&gateway, &[&url, "--config", "gateway.json"]);
    assert_eq!(code, Some(0));
    for field in ["listener", "site", "steps", "client", "websocket"] {
        assert_eq!(running[field], written[field], "{field}");
    }
    assert_eq!(running["forward"]["target"], written["forward"]["target"]);
    assert_eq!(written["forward"]["backends"][0]["state"], Value::Null, "nobody has looked");
    let elsewhere = ["--host", "elsewhere.test"];
    let (code, told) = explained(&gateway, &[&[url.as_str()], &elsewhere[..]].concat());
    assert_eq!((code, &told["refusal"]["status"]), (Some(1), &json!(404)));
    let answered = crate::harness::get_host(port, "/a", "elsewhere.test").unwrap().status;
    assert_eq!(answered, 404);
}

#[test]
fn what_cannot_be_explained_says_why() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let url = format!("http://127.0.0.1:{port}/");
    let broken = gateway.write("broken.json", "{ nothing");
    let broken = broken.to_str().unwrap();
    for (arguments, code, says) in [
        (vec!["http://127.0.0.1:9/"], 1, "no listener has port 9"),
        (vec!["not a url"], 1, "is not a URL"),
        (vec![&url, "--header", "none"], 2, "NAME: VALUE"),
        (vec![&url, "--client", "me"], 2, "IP or IP:PORT"),
        (vec![&url, "--listener", "127.0.0.1:9"], 1, "there is no listener 127.0.0.1:9"),
        (vec![&url, "--config", broken], 1, "broken.json:1:"),
        (vec![&url, "--config", "none.json"], 1, "cannot read none.json"),
        (vec![&url, "--header", "Host: other.test"], 1, "more than one Host"),
    ] {
        let output = gateway.cli(&[&["explain"], &arguments[..]].concat());
        let said = words(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    // No gateway is needed for a document.
    let alone = directory();
    std::fs::write(alone.path().join("g.json"), Document::simple(port, &[backend.address]).text())
        .unwrap();
    let output = std::process::Command::new(crate::harness::HOLDFAST)
        .args(["explain", &url, "--config", "g.json", "--admin", "unix:/nowhere/admin.sock"])
        .current_dir(alone.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
}
