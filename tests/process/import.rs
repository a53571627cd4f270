//! `holdfast import`: templates become documents that run; what is missing is told, and nothing half-done is written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

mod fixtures;

use crate::harness::{
    Backend, Gateway, HOLDFAST, Patience, WebSocket, directory, eventually, free_port, get_host,
    words,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Runs `holdfast import` in a directory.
fn import(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(HOLDFAST);
    command.arg("import").args(arguments).current_dir(directory).output().unwrap()
}

fn template(name: &str) -> String {
    fixture(&format!("import/{name}")).display().to_string()
}

#[test]
fn an_imported_template_serves_requests_and_websockets() {
    let directory = directory();
    let backend = Backend::start("one");
    let port = free_port();
    let (address, backend_port) = (backend.address.ip().to_string(), backend.address.port());
    // The template as it is, but for the ports that this machine has free.
    let text = fs::read_to_string(fixture("import/quickstart.json")).unwrap();
    let text = text
        .replace("\"Port\": \"8080\"", &format!("\"Port\": \"{port}\""))
        .replace("\"Port\": \"80\"", &format!("\"Port\": \"{backend_port}\""));
    fs::write(directory.path().join("template.json"), text).unwrap();
    let servers = [format!("firstServer={address}"), "secondServer=127.0.0.99".to_owned()];
    let output = import(
        directory.path(),
        &[
            "template.json",
            "--output",
            "imported.json",
            "--listen",
            "127.0.0.1",
            "--set",
            &servers[0],
            "--set",
            &servers[1],
        ],
    );
    assert!(output.status.success(), "{}", words(&output));
    assert!(output.stdout.is_empty());
    assert!(words(&output).contains("left out: sku has no effect here"), "{}", words(&output));

    let document = fs::read_to_string(directory.path().join("imported.json")).unwrap();
    let validated = Command::new(HOLDFAST)
        .arg("validate")
        .arg(directory.path().join("imported.json"))
        .output()
        .unwrap();
    assert!(validated.status.success(), "{}", words(&validated));
    let gateway = Gateway::start_text(directory, &document);
    eventually(Patience::USUAL, "an answer through the imported gateway", || {
        get_host(port, "/", "localhost").ok().filter(|answer| answer.status == 200)
    });
    let mut socket = WebSocket::open(port, "/echo");
    assert!(socket.echoes("hello"));
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn what_is_missing_is_told_and_nothing_is_written() {
    let directory = directory();
    let template = template("pfx-missing.json");
    let output = import(directory.path(), &[&template, "--output", "made.json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = words(&output);
    assert!(said.contains("missing: certificateData, a parameter of type securestring"), "{said}");
    assert!(
        said.contains("--set certificateData=VALUE, or --set-file certificateData=FILE"),
        "{said}"
    );
    assert!(!directory.path().join("made.json").exists());

    let output =
        import(directory.path(), &[&template, "--output", "made.json", "--allow-incomplete"]);
    assert_eq!(output.status.code(), Some(1));
    let made = fs::read_to_string(directory.path().join("made.json")).unwrap();
    assert!(made.contains("<certificateData>"), "{made}");

    let pfx = format!("certificateData={}", fixture("certs/site.pfx").display());
    // A file that is there, and that everybody may read so far.
    fs::write(directory.path().join("whole.json"), "old").unwrap();
    let output = import(
        directory.path(),
        &[
            &template,
            "--output",
            "whole.json",
            "--set-file",
            &pfx,
            "--set",
            "certificatePassword=correct-horse",
        ],
    );
    assert!(output.status.success(), "{}", words(&output));
    assert!(!words(&output).contains("correct-horse"));
    let mode = fs::metadata(directory.path().join("whole.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "a file with a key in it is for its owner only");
}

#[test]
fn a_script_is_told_of_an_import_in_json() {
    let place = directory();
    let asked = |arguments: &[&str]| {
        let output = import(place.path(), &[arguments, &["--json"]].concat());
        assert!(output.stderr.is_empty(), "{}", words(&output));
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let template = template("pfx-missing.json");
    let first = asked(&[&template])["gateways"][0].clone();
    assert_eq!((&first["complete"], &first["document"]), (&false.into(), &Value::Null));
    let findings = first["findings"].as_array().unwrap();
    assert!(findings.iter().any(|it| it["kind"] == "missing"), "{first}");
    let allowed = asked(&[&template, "--allow-incomplete"])["gateways"][0].clone();
    assert!(allowed["document"].is_object(), "{allowed}");
    let written = asked(&[&template, "--allow-incomplete", "--output", "made.json"]);
    assert_eq!(written["gateways"][0]["file"], "made.json");
    assert_eq!(written["gateways"][0]["document"], Value::Null);
    let made = fs::read_to_string(place.path().join("made.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&made).unwrap(), allowed["document"]);
    fs::write(place.path().join("none.json"), "{").unwrap();
    let told = asked(&["none.json"]);
    assert_eq!(
        (&told["gateways"], &told["findings"][0]["kind"]),
        (&Value::Array(vec![]), &"error".into())
    );
}

#[test]
fn each_of_several_gateways_gets_a_file_of_its_own() {
    let directory = directory();
    let list = template("list.json");
    let output = import(directory.path(), &[&list]);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("2 gateways: \"lobby\", \"Annex\""), "{}", words(&output));

    let output = import(directory.path(), &[&list, "--output-dir", "."]);
    assert!(output.status.success(), "{}", words(&output));
    for (file, name) in [("lobby.json", "lobby"), ("Annex.json", "Annex")] {
        let text = fs::read_to_string(directory.path().join(file)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["name"], name);
    }

    let output = import(directory.path(), &[&list, "--gateway", "annex"]);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["name"], "Annex");
}

#[test]
fn a_template_given_to_validate_is_sent_to_import() {
    let output =
        Command::new(HOLDFAST).args(["validate", &template("loops.json")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("holdfast import FILE"), "{}", words(&output));
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let directory = directory();
    let file = template("quickstart.json");
    for (arguments, reason) in [
        (["--set", "name"], "--set needs NAME=VALUE"),
        (["--listen", "front=everywhere"], "is not an IP address"),
        (["--set-file", "a=/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (["--gateway", "other"], "there is no gateway \"other\", only \"lounge\""),
        (["--parameters", &file], "is not a parameter file"),
    ] {
        let output = import(directory.path(), &[&file, arguments[0], arguments[1]]);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(words(&output).contains(reason), "{arguments:?}: {}", words(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn linked_templates_are_read_beside_the_template_or_where_the_caller_says() {
    let directory = directory();
    let expected = fs::read_to_string(fixture("import/linked.expected.json")).unwrap();
    let output = import(directory.path(), &[&template("linked.json"), "--listen", "127.0.0.1"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("nothing is fetched here"), "{}", words(&output));
    assert!(!words(&output).contains("secret"), "a key in a URL: {}", words(&output));
    let servers = template("linked/servers.json");
    for name in ["north-servers", "https://artifacts.example.test/servers.json?sig=secret"] {
        let link = format!("{name}={servers}");
        let arguments = [&template("linked.json"), "--listen", "127.0.0.1", "--linked", &link];
        let output = import(directory.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
