//! `holdfast demo`, as a newcomer meets it.

use std::fs;
use std::path::Path;

use crate::harness::{Demo, WebSocket, get, script, tools, words};

#[test]
fn the_demo_serves_a_chat_page_and_echo_and_explains_itself() {
    let demo = Demo::start();
    assert!(get(demo.port, "/").unwrap().text().contains("WebSocket"));
    assert!(WebSocket::open(demo.port, "/echo").echoes("hello"));
    for told in ["status", "restart", "tunnels", "health", "reload"] {
        assert!(demo.guide.contains(&format!("holdfast {told}")), "{told}: {}", demo.guide);
        let output = demo.cli(&[told]);
        assert!(output.status.success(), "holdfast {told}: {}", words(&output));
    }
    assert!(demo.guide.contains("kill -9"), "{}", demo.guide);
}

#[test]
fn a_second_demo_leaves_the_first_alone() {
    let demo = Demo::start();
    let mut socket = WebSocket::open(demo.port, "/echo");
    let second = demo.start_second();
    assert_eq!(second.status.code(), Some(1), "{}", words(&second));
    assert!(words(&second).contains("a gateway runs here already"), "{}", words(&second));
    assert!(socket.echoes("still here"));
}

#[test]
fn people_chat_in_chromium_and_see_who_serves_them_and_for_how_long() {
    let Some(tools) = tools("Chromium on the demo's page") else { return };
    let demo = Demo::start();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    fs::create_dir_all(&pictures).unwrap();
    let urls = [
        format!("http://localhost:{}/", demo.port),
        format!("https://localhost:{}/", demo.secure_port),
    ];
    for url in urls {
        let output = script(&tools, "browser.mjs", &[&url, pictures.to_str().unwrap()]);
        let said = words(&output);
        assert!(output.status.success(), "{url}: {said}");
        // One person on each backend: what one said reached the other across them.
        assert!(said.contains("served by alpha") && said.contains("served by bravo"), "{said}");
    }
}
