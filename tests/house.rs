//! The house rules that a compiler does not check: who may import whom, how long a file may be, how it opens.
//!
//! A rule that is in the way is changed here, in the commit that needs it, with the reason in its message.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "house/compatibility.rs"]
mod compatibility;

const LONGEST_FILE: usize = 500;

/// Folders with Rust of ours, and what may be imported there of ours.
const CRATES: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("supervisor/src", &["holdfast_proto", "holdfast_supervisor"]),
    ("worker/src", &["holdfast_proto", "holdfast_worker"]),
    ("prober/src", &["holdfast_proto", "holdfast_prober"]),
    // It judges the gateway, so it must not share a line with it.
    ("tests/torturer", &[]),
    // It has the record layer's own files, and nothing that a worker is beside them.
    ("tests/fuzz", &[]),
];

/// Dependencies that a crate must not have, each with the reason.
const FENCES: [(&str, &[&str], &str); 5] = [
    (
        "proto",
        &["rustls", "tokio-rustls", "clap", "serde_yaml"],
        "the wire knows no TLS and no command line",
    ),
    (
        "supervisor",
        &["rustls", "tokio-rustls", "clap"],
        "the supervisor reads no client byte; operators' TLS is tonic's (docs/adr/0014)",
    ),
    (
        "worker",
        // It writes JSON, a line for each request, and reads none.
        &["clap", "p12-keystore"],
        "a worker sees compiled configuration only",
    ),
    ("prober", &["clap", "serde_json"], "a prober sees compiled configuration only"),
    ("", &["openssl", "native-tls", "aws-lc-rs"], "ring is the only crypto provider"),
];

/// The worker's modules from top to bottom: each may import only what stands lower (or in its own line).
/// Tests may look wherever they like.
const WORKER_LAYERS: [&[&str]; 14] = [
    &["run"],
    &["control"],
    &["vault"],
    &["accept"],
    &["http"],
    &["websocket"],
    &["snapshot"],
    &["headers", "rewrite", "revocation"],
    &["route", "pool"],
    &["gate", "tunnel", "link"],
    &["tls"],
    &["respond"],
    &["access_log"],
    &["backoff", "client_source", "drain", "fault", "load", "memory", "metrics", "socket"],
];

/// Modules that do no IO: they can be tested without a process, a socket or a clock.
const PURE: [&str; 12] = [
    "worker/src/client_source",
    "worker/src/route.rs",
    "worker/src/route/",
    "worker/src/rewrite",
    "worker/src/tls/ocsp",
    "worker/src/tls/record",
    "supervisor/src/change/plan",
    "supervisor/src/backoff.rs",
    "supervisor/src/vault/books",
    "prober/src/verdict.rs",
    "prober/src/expect.rs",
    "supervisor/src/compile",
];

/// Files that may hold `unsafe`, each for calls that no safe crate offers.
const UNSAFE: [&str; 10] = [
    "proto/src/fd_channel/owned.rs",
    "supervisor/src/service/passed.rs",
    "supervisor/src/upgrade/early.rs",
    "supervisor/src/upgrade/guard.rs",
    "supervisor/src/upgrade/inherited.rs",
    "worker/src/memory.rs",
    "worker/src/tunnel/counters/kernel.rs",
    "worker/src/tunnel/mapping.rs",
    "worker/src/tunnel/secluded.rs",
    // An allocator that counts, so that the record layer can be seen to make none.
    "tests/fuzz/src/allocations.rs",
];

const BANNED_STEMS: [&str; 7] = ["mod", "util", "utils", "helper", "helpers", "common", "misc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours, as paths from the root, with its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<_> =
        ["proto", "supervisor", "worker", "prober", "tests"].map(|top| root().join(top)).into();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10, "no sources under {}", root().display());
    found.sort();
    found
}

/// Fails with all faults at once.
fn expect_none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

/// Code lines: no comments, and nothing of a `mod tests` at the end of a file.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            faults.push(format!("{name} has {lines} lines"));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{name} does not open with //!"));
        }
        let stem = Path::new(&name).file_stem().unwrap().to_string_lossy().into_owned();
        if BANNED_STEMS.contains(&stem.as_str()) {
            faults.push(format!("{name}: a file is named for what it owns"));
        }
    }
    expect_none("files", &faults);
}

#[test]
fn crates_import_only_the_contract() {
    let all = ["holdfast_proto", "holdfast_supervisor", "holdfast_worker", "holdfast_prober"];
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let Some((_, allowed)) = CRATES.iter().find(|(folder, _)| name.starts_with(folder)) else {
            continue;
        };
        for other in all.iter().filter(|other| !allowed.contains(other)) {
            if code(&text).any(|line| line.contains(&format!("{other}::"))) {
                faults.push(format!("{name} imports {other}"));
            }
        }
    }
    expect_none(
        "a need to import another process's crate means that a message is missing",
        &faults,
    );
}

#[test]
fn dependencies_respect_the_fences() {
    let mut faults = Vec::new();
    for (folder, banned, reason) in FENCES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let ours = manifest.split("[dev-dependencies]").next().unwrap();
        let names = ours.lines().map(|line| line.split(['.', ' ', '=']).next().unwrap());
        for name in names.filter(|name| banned.contains(name)) {
            faults.push(format!("{folder}/Cargo.toml depends on {name}: {reason}"));
        }
    }
    for (folder, name) in
        [("proto", ""), ("supervisor", "proto"), ("worker", "proto"), ("prober", "proto")]
    {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let edges = manifest.lines().filter_map(|line| line.strip_prefix("holdfast-"));
        for edge in edges.filter(|edge| name.is_empty() || !edge.starts_with(name)) {
            faults.push(format!("{folder}/Cargo.toml depends on holdfast-{edge}"));
        }
    }
    expect_none("dependencies", &faults);
}

/// Modules that a line names as `crate::NAME`, also inside `crate::{…}` on one line.
fn imported(line: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in line.split("crate::").skip(1) {
        let word = |text: &str| {
            text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list.split(',').map(word)),
            None => drop(names.insert(word(rest))),
        }
    }
    names
}

#[test]
fn the_workers_imports_point_only_down() {
    let layer = |module: &str| WORKER_LAYERS.iter().position(|layer| layer.contains(&module));
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let Some(inside) = name
            .strip_prefix("worker/src/")
            .filter(|inside| *inside != "lib.rs" && !inside.ends_with("tests.rs"))
        else {
            continue;
        };
        let module = inside.split(['/', '.']).next().unwrap();
        let Some(own) = layer(module) else {
            faults.push(format!("{name}: `{module}` has no layer in tests/house.rs"));
            continue;
        };
        for target in code(&text).flat_map(imported).collect::<BTreeSet<_>>() {
            match layer(&target) {
                Some(other) if other < own => faults.push(format!("{name} imports {target}")),
                _ => {}
            }
        }
    }
    expect_none("imports in the worker", &faults);
}

#[test]
fn a_tunnel_knows_no_http() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        if name.starts_with("worker/src/tunnel") {
            let knows = |word: &&str| code(&text).any(|line| line.contains(*word));
            let words = ["hyper::", "http::", "tonic::", "http_body"];
            faults.extend(
                words.iter().filter(|word| knows(word)).map(|word| format!("{name}: {word}")),
            );
        }
    }
    expect_none("a tunnel is two sockets and a record", &faults);
}

#[test]
fn pure_modules_do_no_io() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        if PURE.iter().any(|pure| name.starts_with(pure)) && !name.ends_with("tests.rs") {
            let does = |word: &&str| code(&text).any(|line| line.contains(*word));
            let words = [
                "tokio::net",
                "tokio::fs",
                "std::fs",
                "std::net::Tcp",
                "SystemTime::now",
                "tokio::spawn",
            ];
            faults.extend(
                words.iter().filter(|word| does(word)).map(|word| format!("{name}: {word}")),
            );
        }
    }
    expect_none("pure modules", &faults);
}

/// What tonic brings of TLS is for operators alone, and in one place (docs/adr/0014).
#[test]
fn the_supervisor_has_tls_for_operators_only() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let inside = name.starts_with("supervisor/src/") || name.starts_with("proto/");
        let words = ["TlsConfig", "TlsAcceptor", "TlsConnector", "rustls::"];
        let uses = |word: &&str| code(&text).any(|line| line.contains(*word));
        if inside && name != "supervisor/src/network.rs" {
            faults.extend(
                words.iter().filter(|word| uses(word)).map(|word| format!("{name}: {word}")),
            );
        }
    }
    expect_none("TLS in the supervisor", &faults);
}

#[test]
fn unsafe_stays_in_the_named_files() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let here = code(&text).any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        if here && !UNSAFE.contains(&name.as_str()) && name != "tests/house.rs" {
            faults.push(format!("{name} holds unsafe code"));
        }
    }
    expect_none("unsafe", &faults);
}

#[test]
fn azure_shapes_stay_in_the_configuration() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let inside = name.starts_with("supervisor/src/config") || name.starts_with("tests/");
        if !inside && name.starts_with("supervisor/src") && !name.contains("tests") {
            let words = ["frontendIPConfiguration", "backendHttpSettingsCollection", "urlPathMaps"];
            let spells = |word: &&str| code(&text).any(|line| line.contains(*word));
            faults.extend(
                words.iter().filter(|word| spells(word)).map(|word| format!("{name}: {word}")),
            );
        }
    }
    expect_none("Azure's names outside supervisor/src/config", &faults);
}
