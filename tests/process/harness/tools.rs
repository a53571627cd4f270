//! Tools from outside Rust: Python, Node, a browser, as `tests/run` prepared them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The directory of prepared tools, or nothing, said aloud with the name of what is left out.
pub(crate) fn tools(left_out: &str) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("HOLDFAST_TEST_TOOLS") {
        return Some(directory.into());
    }
    println!("LEFT OUT: {left_out} (needs HOLDFAST_TEST_TOOLS; run tests/run)");
    None
}

/// grpcurl, as it was prepared or as the system has it, or nothing, said aloud.
pub(crate) fn grpcurl(left_out: &str) -> Option<PathBuf> {
    let prepared = tools(left_out)?.join("venv/bin/grpcurl");
    for candidate in [prepared, "grpcurl".into()] {
        let asked = Command::new(&candidate).arg("-version").output();
        if asked.is_ok_and(|output| output.status.success()) {
            return Some(candidate);
        }
    }
    println!("LEFT OUT: {left_out} (there is no grpcurl)");
    None
}

/// What a script of `tests/clients/` is like as a TLS peer, where it is one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    /// It knows no TLS after 1.2.
    pub(crate) old: bool,
}

impl Peer {
    pub(super) fn shape(self, command: &mut Command) {
        if self.old {
            command.env("HOLDFAST_TEST_TLS", "1.2");
        }
    }
}

/// Runs one of `tests/clients/` with its interpreter and returns what it printed.
pub(crate) fn script(tools: &Path, name: &str, arguments: &[&str]) -> Output {
    command(tools, name).args(arguments).output().unwrap()
}

/// The interpreter, and the path of one of `tests/clients/` as its first argument.
pub(super) fn command(tools: &Path, name: &str) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let python = file.extension().is_some_and(|extension| extension == "py");
    let interpreter = if python { tools.join("venv/bin/python") } else { "node".into() };
    let mut command = Command::new(interpreter);
    // ES modules ignore NODE_PATH, so the scripts resolve `ws` from this directory themselves.
    command.arg(file).env("HOLDFAST_NODE_MODULES", tools.join("node/node_modules"));
    command
}
