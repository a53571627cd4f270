//! What the documentation shows is true: documents are valid, commands and options exist, and the steps that are marked so
//! are run as they stand.
//!
//! A fenced block says by a second word what becomes of it: `json document` is validated, `json in=COLLECTION` is put
//! into the least document first, `console gateway` is run against a gateway with the pool `chat`, `console run` step
//! by step on a machine of its own; so is `console admin` of the admin API's page, and `console grpcurl` where there is one.

mod page;
mod steps;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::page::{Block, pages};
use self::steps::{Machine, run_steps};
use crate::harness::{
    Backend, Certificate, Document, Gateway, HOLDFAST, Patience, directory, eventually, free_port,
    grpcurl, tools, words,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory with the files that documents name.
fn surroundings() -> TempDir {
    let directory = directory();
    let made = Certificate::make(directory.path(), "site", "localhost");
    fs::copy(&made.chain_file, directory.path().join("chain.pem")).unwrap();
    fs::copy(&made.key_file, directory.path().join("key.pem")).unwrap();
    // Signed by itself, and an authority.
    let authority = root().join("tests/fixtures/certs/site.pem");
    fs::copy(authority, directory.path().join("staff-ca.pem")).unwrap();
    for (name, made) in
        [("operators.pem", "site.pem"), ("admin.pem", "site.pem"), ("admin.key", "site.key")]
    {
        fs::copy(root().join("tests/fixtures/certs").join(made), directory.path().join(name))
            .unwrap();
    }
    fs::write(directory.path().join("nobody-here.html"), "<p>Nobody here.").unwrap();
    directory
}

fn validate(directory: &Path, text: &str, block: &Block) {
    fs::write(directory.join("shown.json"), text).unwrap();
    let output =
        Command::new(HOLDFAST).args(["validate", "shown.json"]).current_dir(directory).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}: {}\n{text}", block.place(), words(&output));
}

/// The least document that serves.
fn least() -> Value {
    let link = |collection: &str| json!({"id": format!("/{collection}/x")});
    json!({
        "frontendIPConfigurations": [{"name": "x", "holdfast": {"address": "127.0.0.1"}}],
        "frontendPorts": [{"name": "x", "port": 8080}],
        "backendAddressPools": [{"name": "x", "backendAddresses": [{"ipAddress": "127.0.0.1"}]}],
        "backendHttpSettingsCollection": [{"name": "x", "port": 9000}],
        "httpListeners": [{"name": "x", "frontendIPConfiguration": link("frontendIPConfigurations"),
            "frontendPort": link("frontendPorts")}],
        "requestRoutingRules": [{"name": "x", "httpListener": link("httpListeners"),
            "backendAddressPool": link("backendAddressPools"),
            "backendHttpSettings": link("backendHttpSettingsCollection")}],
    })
}

/// The least document with what is shown in its place.
fn embedded(block: &Block, collection: &str) -> Value {
    let mut whole = least();
    let text = block.text.trim();
    let text = if text.starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
    let shown: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", block.place()));
    let place = match collection {
        "root" => &mut whole,
        name => match whole.as_object_mut().unwrap().entry(name).or_insert_with(|| json!([])) {
            Value::Array(entries) if entries.is_empty() => {
                entries.push(shown);
                return whole;
            }
            entries => &mut entries[0],
        },
    };
    for (name, value) in shown.as_object().unwrap() {
        // Others refer to it by its own name.
        if name != "name" || collection == "root" {
            place[name] = value.clone();
        }
    }
    whole
}

#[test]
fn every_document_that_is_shown_is_valid() {
    let directory = surroundings();
    let mut count = 0;
    for block in pages().iter().flat_map(|page| &page.blocks) {
        if block.language != "json" {
            continue;
        }
        count += 1;
        match block.mark.as_str() {
            "document" => validate(directory.path(), &block.text, block),
            mark => {
                let collection = mark.strip_prefix("in=");
                let collection =
                    collection.unwrap_or_else(|| panic!("{} has no mark", block.place()));
                validate(directory.path(), &embedded(block, collection).to_string(), block);
            }
        }
    }
    assert!(count >= 9, "{count}");
}

/// The commands and options of `holdfast` in a line, each pipe's and each substitution's for itself.
fn calls(line: &str) -> Vec<Vec<&str>> {
    let parts = line.split(['|', ';', '(', ')', '#']).map(str::trim);
    let calls = parts.filter_map(|part| {
        let words: Vec<&str> = part.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "holdfast")?;
        (at == 0).then(|| words.into_iter().skip(1).collect::<Vec<_>>())
    });
    calls.filter(|call| call.first().is_some_and(|word| !word.starts_with('-'))).collect()
}

#[test]
fn every_command_that_is_shown_is_known_with_its_options() {
    let mut known: HashMap<String, String> = HashMap::new();
    let mut count = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "console") {
            for call in block.commands().flat_map(calls) {
                let help = known.entry(call[0].to_owned()).or_insert_with(|| {
                    let output = Command::new(HOLDFAST).args([call[0], "--help"]).output().unwrap();
                    assert!(output.status.success(), "{}: {}", block.place(), words(&output));
                    words(&output)
                });
                let options = call.iter().filter(|word| word.len() > 1 && word.starts_with('-'));
                for option in options {
                    let name = option.split('=').next().unwrap();
                    let is_there = help.split([' ', ',', '\n', '=']).any(|word| word == name);
                    assert!(is_there, "{}: {} has no {option}", block.place(), call[0]);
                }
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn the_commands_of_operations_work_on_a_gateway() {
    let backend = Backend::start_at("one", ([127, 0, 0, 2], free_port()).into());
    let gateway = Gateway::start(&Document::simple(free_port(), &[backend.address]));
    let pages = pages();
    let shown = pages.iter().flat_map(|page| &page.blocks);
    let mut count = 0;
    for block in shown.filter(|block| block.language == "console" && block.mark == "gateway") {
        for command in block.commands() {
            let call: Vec<&str> = calls(command).remove(0);
            let output = gateway.cli(&call);
            assert!(output.status.success(), "{}: {command}: {}", block.place(), words(&output));
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    // The gateway is as it was: what was drained is back.
    eventually(Patience::USUAL, "the backend to be back", || {
        (gateway.health_of("127.0.0.2") == "Healthy").then_some(())
    });
}

/// Somebody new: from nothing but the built executable to a WebSocket over TLS that outlives a killed worker.
#[test]
fn the_steps_to_wss_in_the_readme_are_run_as_they_stand() {
    let Some(machine) = Machine::make("the steps of the README") else { return };
    let directory = directory();
    let link = |name: &str, to: &Path| std::os::unix::fs::symlink(to, directory.path().join(name));
    fs::create_dir_all(directory.path().join("target/release")).unwrap();
    link("target/release/holdfast", Path::new(HOLDFAST)).unwrap();
    link("examples", &root().join("examples")).unwrap();
    let pages = pages();
    let readme = pages.iter().find(|page| page.name == "README.md").unwrap();
    let shown = readme.blocks.iter().filter(|block| block.language == "console");
    let steps: Vec<&str> =
        shown.filter(|block| block.mark == "run").flat_map(Block::commands).collect();
    assert!(steps.len() >= 14, "{steps:?}");
    let said = run_steps(&machine, directory.path(), &steps);
    for wanted in ["hello", "10: came back over the same connection", "127.0.0.1:8443"] {
        assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
    }
}

/// An authority and its certificates, the command line, a client in Python, and grpcurl where there is one.
#[test]
fn the_examples_of_the_admin_api_are_run_as_they_stand() {
    let Some(tools) = tools("the examples of the admin API") else { return };
    let Some(machine) = Machine::make("the examples of the admin API") else { return };
    let directory = directory();
    for name in ["examples", "proto"] {
        std::os::unix::fs::symlink(root().join(name), directory.path().join(name)).unwrap();
    }
    let grpcurl = grpcurl("the admin API by grpcurl").is_some();
    let pages = pages();
    let page = pages.iter().find(|page| page.name == "docs/admin-api.md").unwrap();
    let shown = page.blocks.iter().filter(|block| block.language == "console");
    let shown = shown.filter(|it| it.mark == "admin" || (grpcurl && it.mark == "grpcurl"));
    let python = tools.join("venv/bin");
    let own = Path::new(HOLDFAST).parent().unwrap();
    let path = format!("export PATH={}:{}:$PATH", python.display(), own.display());
    let steps: Vec<&str> =
        std::iter::once(path.as_str()).chain(shown.flat_map(Block::commands)).collect();
    assert!(steps.len() >= 24, "{steps:?}");
    let said = run_steps(&machine, directory.path(), &steps);
    for wanted in [
        "certificate dashboard from 127.0.0.1:",
        "Reload needs \"change\"",
        "app/127.0.0.1 gets no new connections",
        "app/127.0.0.1 is back in rotation",
        "nothing to change",
    ] {
        assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        for target in page.links() {
            let (file, heading) = target.split_once('#').unwrap_or((target.as_str(), ""));
            let at = page.file.parent().unwrap();
            let to = if file.is_empty() { page.file.clone() } else { at.join(file) };
            assert!(to.exists(), "{} links to {target}, which is not there", page.name);
            if !heading.is_empty() {
                let text = fs::read_to_string(&to).unwrap();
                assert!(
                    page::headings(&text).any(|it| it == heading),
                    "{} links to {target}: there is no such heading",
                    page.name
                );
            }
        }
    }
}

#[test]
fn the_printed_schema_is_the_one_in_the_documentation() {
    let output = Command::new(HOLDFAST).arg("schema").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let written = fs::read(root().join("docs/schema/holdfast.schema.json")).unwrap();
    assert!(output.stdout == written, "holdfast schema >docs/schema/holdfast.schema.json");
}
