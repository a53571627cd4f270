//! Clients that are not ours: the example in Python, over what protoc makes of the proto files, and grpcurl, which knows nothing but what
//! the reflection service tells.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::CLIENTS;
use super::office::Office;
use crate::harness::{Passport, WebSocket, grpcurl, tools, words};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The example, and its modules beside it.
struct Example {
    python: PathBuf,
    file: PathBuf,
}

impl Example {
    fn make(tools: &Path, directory: &Path) -> Self {
        let python = tools.join("venv/bin/python");
        let file = directory.join("client.py");
        std::fs::copy(root().join("examples/admin-client/client.py"), &file).unwrap();
        let generated = directory.join("generated");
        std::fs::create_dir(&generated).unwrap();
        let output = Command::new(&python)
            .args(["-m", "grpc_tools.protoc", "-I"])
            .arg(root().join("proto"))
            .arg(format!("--python_out={}", generated.display()))
            .arg(format!("--grpc_python_out={}", generated.display()))
            .args(["holdfast/admin/v1/admin.proto", "holdfast/admin/v1/explain.proto"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", words(&output));
        Self { python, file }
    }

    fn call(&self, office: &Office, passport: &Passport, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.python);
        command.arg(&self.file).args(arguments).envs(office.environment(passport));
        command.output().unwrap()
    }
}

#[test]
fn the_python_example_asks_and_changes_over_the_network_and_on_the_socket() {
    let Some(tools) = tools("the admin client in Python") else { return };
    let office = Office::open(&CLIENTS);
    let example = Example::make(&tools, office.gateway.path());
    let _socket = WebSocket::open(office.site, "/echo");
    let [deploy, reader] = ["deploy", "dashboard"].map(|name| office.passport(name));
    let must = |passport: &Passport, arguments: &[&str]| {
        let output = example.call(&office, passport, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        words(&output)
    };
    let said = must(&reader, &["status"]);
    let serving = said.contains("revision 1") && said.contains("serving with 1 tunnels");
    assert!(serving, "{said}");
    let said = must(&deploy, &["drain", "chat", "127.0.0.1"]);
    assert!(said.contains("1 tunnels live on"), "{said}");
    must(&deploy, &["undrain", "chat", "127.0.0.1"]);
    let next = office.document(&CLIENTS).holdfast("maxConnections", 100);
    let said = must(&deploy, &["apply", &office.write("next.json", &next)]);
    assert!(said.contains("revision 2 is in force"), "{said}");

    let denied = example.call(&office, &reader, &["apply", &office.write("next.json", &next)]);
    assert_eq!(denied.status.code(), Some(1));
    let said = words(&denied);
    assert!(said.contains("PERMISSION_DENIED: you are taken for certificate dashboard"), "{said}");
    let wrong = office.write("wrong.json", &crate::harness::Document::new());
    let refused = example.call(&office, &deploy, &["apply", &wrong]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused).contains("nothing was changed"), "{}", words(&refused));

    let mut local = Command::new(&example.python);
    local.arg(&example.file).arg("status").env("HOLDFAST_ADMIN", office.gateway.admin());
    let output = local.output().unwrap();
    assert!(words(&output).contains("revision 2"), "{}", words(&output));
}

#[test]
fn grpcurl_needs_nothing_but_the_reflection_service() {
    let Some(grpcurl) = grpcurl("the admin API by grpcurl") else { return };
    let office = Office::open(&CLIENTS);
    let ask = |name: &str, arguments: &[&str]| {
        let passport = office.passport(name);
        let mut command = Command::new(&grpcurl);
        command.arg("-cacert").arg(&office.own.root_file);
        command.arg("-cert").arg(&passport.certificate).arg("-key").arg(&passport.key);
        let (last, first) = arguments.split_last().unwrap();
        command.args(first).arg(format!("localhost:{}", office.port)).arg(last);
        command.output().unwrap()
    };
    let listed = words(&ask("dashboard", &["list"]));
    assert!(listed.contains("holdfast.admin.v1.Admin"), "{listed}");
    let status = ask("dashboard", &["holdfast.admin.v1.Admin/Status"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["revision"], "1");
    let body = r#"{"pool": "chat", "backend": "127.0.0.1"}"#;
    let denied = ask("dashboard", &["-d", body, "holdfast.admin.v1.Admin/Drain"]);
    assert!(words(&denied).contains("PermissionDenied"), "{}", words(&denied));
    let drained = ask("deploy", &["-d", body, "holdfast.admin.v1.Admin/Drain"]);
    assert!(words(&drained).contains("\"changed\": true"), "{}", words(&drained));
    let mut local = Command::new(&grpcurl);
    local.args(["-plaintext", "-unix", "-authority", "localhost"]);
    let socket = office.gateway.admin().trim_start_matches("unix:").to_owned();
    let output = local.args([&socket, "holdfast.admin.v1.Admin/Status"]).output().unwrap();
    assert!(words(&output).contains("\"revision\""), "{}", words(&output));
}
