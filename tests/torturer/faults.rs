//! Whether the tool sees what it is for: runs with a fault planted in the gateway, each of which it must find.
//!
//! A run without a fault comes first and must pass: a tool that always fails would find everything.

use std::io;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Faults that a gateway with the feature `failpoints` commits, and what has to be found: a key of the report's
/// `tunnels`, and what it means.
const FAULTS: [(&str, &str); 3] = [
    ("skip-discard", "with_bytes_doubled"),
    ("send-twice", "with_bytes_doubled"),
    ("drop-tunnel", "dropped"),
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
    for (name, expected) in [("", "")].into_iter().chain(FAULTS) {
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
            let found = report["tunnels"][expected].as_u64().unwrap_or(0);
            output.status.code() == Some(1) && found > 0
        };
        verdicts.push((name, good));
    }
    println!();
    for (name, good) in &verdicts {
        match (name.is_empty(), good) {
            (true, true) => println!("no fault planted: passed, as it must"),
            (true, false) => println!("no fault planted: NOT PASSED, so the others mean nothing"),
            (false, true) => println!("{name}: caught"),
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
