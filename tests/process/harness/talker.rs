//! People's own clients that run for a while: one of `tests/clients/` as a process that tells line by line how it goes.
//!
//! Nothing here reads what a client sends or hears: the script judges, and this only passes its words on.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::tools::{self, Peer};

/// Longer than anything that is to come takes.
const SILENCE: Duration = Duration::from_secs(60);

/// A running script; it is killed with this value, unless it has ended.
pub(crate) struct Talker {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Talker {
    /// Starts one of `tests/clients/`.
    pub(crate) fn start(tools: &Path, script: &str, arguments: &[&str]) -> Self {
        Self::start_peer(tools, script, arguments, Peer::default())
    }

    /// The same as a kind of peer.
    pub(crate) fn start_peer(tools: &Path, script: &str, arguments: &[&str], peer: Peer) -> Self {
        let mut command = tools::command(tools, script);
        command.args(arguments);
        peer.shape(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).all(|it| tell.send(it).is_ok()));
        let mut errors = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).ok();
            text
        });
        let input = child.stdin.take();
        Self { child, input, lines, errors: Some(errors) }
    }

    /// Its next line; fails with what it complained of when it has ended.
    pub(crate) fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(SILENCE);
        line.unwrap_or_else(|_| {
            self.child.kill().ok();
            panic!("it says nothing more: {}", self.errors.take().unwrap().join().unwrap())
        })
    }

    /// Skips what it has said already, and waits for so many lines that it says from now on.
    pub(crate) fn goes_on_for(&mut self, lines: usize) {
        while self.lines.try_recv().is_ok() {}
        for _ in 0..lines {
            self.line();
        }
    }

    /// Gives it a line to act upon, and waits for what it says.
    pub(crate) fn ask(&mut self) -> String {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
        self.line()
    }

    /// Ends its input; it must end well. Its last line.
    pub(crate) fn finish(mut self) -> String {
        drop(self.input.take());
        let last = std::iter::from_fn(|| self.lines.recv_timeout(SILENCE).ok()).last();
        let status = self.child.wait().unwrap();
        let complaint = self.errors.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}: {complaint}");
        last.unwrap_or_default()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
