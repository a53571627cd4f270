//! Whether the tool sees what it is for: runs with a fault planted in the gateway, each of which it must find.
//!
//! A run without a fault comes first and must pass: a tool that always fails would find everything.

use std::io;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Faults that a gateway with the feature `failpoints` commits, and what each has to look like in tunnels of every kind:
/// a key of the report's `kinds`. A record that comes twice does not open; whoever reads it says so, the gateway too.
const FAULTS: [(&str, [(&str, &str); 3]); 3] = [
    (
        "skip-discard",
        [("ws", "with_bytes_doubled"), ("wss", "with_bytes_doubled"), ("wss_to_https", "dropped")],
    ),
    (
        "send-twice",
        [
            ("ws", "with_bytes_doubled"),
            ("wss", "with_bytes_doubled"),
            ("wss_to_https", "with_bytes_corrupted"),
        ],
    ),
    ("drop-tunnel", [("ws", "lost"), ("wss", "lost"), ("wss_to_https", "lost")]),
];
/// A short run with few tunnels and much of everything; options on the command line come after it and win.
const SHORT: [&str; 10] = [
    "--seconds=15",
    "--tunnels=200",
    "--life=10",
    "--worker-kills-every=1.5",
    "--protected-within=15",
    "--no-supervisor-kills",
    "--no-prober-kills",
    "--no-stops",
    "--no-upgrades",
    "--no-applies",
];

/// Runs them all; true if each was caught.
pub(crate) fn run() -> io::Result<bool> {
    let given: Vec<String> = std::env::args().skip(1).filter(|one| one != "--faults").collect();
    let mut verdicts = Vec::new();
    let nothing = ("", [("", ""); 3]);
    for (name, looks) in [nothing].into_iter().chain(FAULTS) {
        println!("\n=== {}", if name.is_empty() { "no fault planted" } else { name });
        let mut command = Command::new(std::env::current_exe()?);
        command.args(SHORT.iter().filter(|one| !overridden(one, &given))).args(&given);
        if !name.is_empty() {
            command.args(["--plant", name]);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}");
        let report: Value = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_default();
        let good = if name.is_empty() {
            output.status.success()
        } else {
            // Kinds that the options leave out have nothing to show.
            let kinds = report["kinds"].as_object();
            let of = |kind: &str| kinds.and_then(|kinds| kinds.get(kind));
            let shown = looks.map(|(kind, look)| Some(of(kind)?[look].as_u64().unwrap_or(0)));
            let every = shown.iter().flatten().all(|count| *count > 0);
            output.status.code() == Some(1) && every && shown.iter().any(Option::is_some)
        };
        verdicts.push((name, good));
    }
    println!();
    for (name, good) in &verdicts {
        match (name.is_empty(), good) {
            (true, true) => println!("no fault planted: passed, as it must"),
            (true, false) => println!("no fault planted: NOT PASSED, so the others mean nothing"),
            (false, true) => println!("{name}: caught in every kind of tunnel"),
            (false, false) => println!("{name}: NOT CAUGHT"),
        }
    }
    Ok(verdicts.iter().all(|(_, good)| *good))
}

/// Whether the command line says the same option.
fn overridden(option: &str, given: &[String]) -> bool {
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    given.iter().any(|one| name(one) == name(option))
}
