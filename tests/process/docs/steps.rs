//! Steps that a page shows, run on a machine of their own: its own network, so that addresses and ports are those that are
//! written, its own processes, so that none is left behind, and nothing yet where a gateway keeps its files unless it is told
//! otherwise.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::words;

/// What a step's line ends with that is not waited for.
const RUNS_ON: &str = "leave it running";
/// The same for one whose end the last step waits for.
const MEANWHILE: &str = "meanwhile, in another terminal:";

/// Before the first step.
const BEGIN: &str = r#"set -eu
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
exec 2>&1
until_it_answers() { until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.05; done; }
"#;
/// Waits for a gateway that was just started, and for its backend's first probe.
const READY: &str = "until curl -sf http://127.0.0.1:9180/readyz >/dev/null; do sleep 0.05; done
until holdfast health | grep -q Healthy; do sleep 0.05; done";

/// How to get a machine here.
pub(super) struct Machine(Vec<&'static str>);

// === impl Machine ===

impl Machine {
    /// Nothing, said aloud, where this system does not let us.
    pub(super) fn make(left_out: &str) -> Option<Self> {
        let flags = ["--net", "--pid", "--mount-proc", "--fork", "--kill-child", "--map-root-user"];
        // Without a user namespace where that is not needed; with one where it is.
        for count in [flags.len() - 1, flags.len()] {
            let flags: Vec<_> = flags.iter().copied().take(count).collect();
            let mut command = Command::new("unshare");
            command.args(&flags).args([
                "sh",
                "-c",
                "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && mount -t tmpfs none /run",
            ]);
            if command.output().is_ok_and(|output| output.status.success()) {
                return Some(Self(flags));
            }
        }
        println!(
            "LEFT OUT: {left_out} (needs unshare, mount and ip, as root or with user namespaces)"
        );
        None
    }
}

/// Runs the steps in order, each of which must succeed, and returns everything that was said.
pub(super) fn run_steps(machine: &Machine, directory: &Path, steps: &[&str]) -> String {
    let mut script = BEGIN.to_owned();
    let mut add = |line: &str| {
        script.push_str(line);
        script.push('\n');
    };
    for &step in steps {
        let (command, said) = step.split_once('#').unwrap_or((step, ""));
        let (command, said) = (command.trim(), said.trim());
        add(&format!("echo {}", quoted(&format!("$ {command}"))));
        match said {
            RUNS_ON => {
                add(&format!("{command} &"));
                // The example's backend, or the gateway's status address.
                add(if command.contains("9000") { "until_it_answers 9000" } else { READY });
            }
            MEANWHILE => {
                add(&format!("{command} &\nmeanwhile=$!"));
                add("until [ \"$(holdfast tunnels --json)\" != '[]' ]; do sleep 0.05; done");
            }
            _ => add(command),
        }
    }
    add("[ -z \"${meanwhile:-}\" ] || wait \"$meanwhile\"\nholdfast stop");
    let file = directory.join("steps.sh");
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "unshare"]).args(&machine.0).arg("bash").arg(&file);
    // Somebody new has told the gateway nothing.
    for told in ["HOLDFAST_ADMIN", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"] {
        command.env_remove(told);
    }
    let output = command.current_dir(directory).stdin(Stdio::null()).output().unwrap();
    let said = words(&output);
    assert!(output.status.success(), "{}:\n{said}", output.status);
    said
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
