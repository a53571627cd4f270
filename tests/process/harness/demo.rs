//! `holdfast demo` in a directory and on ports of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::eventually::{Patience, eventually};
use super::ports::free_port;
use super::{HOLDFAST, http, proc};
use crate::harness::directory;

/// A running demo; it ends with this value, in order.
pub(crate) struct Demo {
    child: Child,
    directory: TempDir,
    status_port: u16,
    /// Where the page is served over http.
    pub(crate) port: u16,
    /// Where the page is served over https.
    pub(crate) secure_port: u16,
    /// What it told a newcomer to try.
    pub(crate) guide: String,
}

impl Demo {
    /// Starts one and waits until it has said what to try and serves its page.
    pub(crate) fn start() -> Self {
        let directory = directory();
        let [port, secure_port, status_port] = [(); 3].map(|()| free_port());
        let mut command = command(&directory, [port, secure_port, status_port]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut demo =
            Self { child, directory, status_port, port, secure_port, guide: String::new() };
        for line in lines {
            demo.guide.push_str(&line);
            demo.guide.push('\n');
            if line.contains("holdfast stop") {
                break;
            }
        }
        eventually(Patience::LONG, "the chat page", || {
            http::get(port, "/").ok().filter(|answer| answer.status == 200)
        });
        demo
    }

    /// What a second one at the same place says.
    pub(crate) fn start_second(&self) -> Output {
        let ports = [self.port, self.secure_port, self.status_port];
        command(&self.directory, ports).output().unwrap()
    }

    /// Runs a command as the guide tells it, in a second terminal of the same user.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        at_home(Command::new(HOLDFAST).args(arguments), &self.directory).output().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        proc::signal(self.child.id(), Signal::SIGINT);
        eventually(Patience::LONG, "the demo to end", || self.child.try_wait().unwrap());
    }
}

fn command(directory: &TempDir, [port, secure_port, status_port]: [u16; 3]) -> Command {
    let mut command = Command::new(HOLDFAST);
    command.arg("demo").args([
        format!("--http-port={port}"),
        format!("--https-port={secure_port}"),
        format!("--status-listen=127.0.0.1:{status_port}"),
    ]);
    at_home(&mut command, directory);
    command
}

/// The environment of a user who has nothing but this directory.
fn at_home<'a>(command: &'a mut Command, directory: &TempDir) -> &'a mut Command {
    for variable in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"] {
        command.env(variable, directory.path());
    }
    // For root, all demos of the machine would be at one place.
    command.env_remove("HOLDFAST_ADMIN").env("RUNTIME_DIRECTORY", directory.path().join("holdfast"))
}
