//! Stories on a network that loses packets: `tests/lossy` makes it, and a test runs itself once more inside.
//!
//! No story may pass without a loss, and none be left out but for a machine that cannot lose packets.

use std::io::{ErrorKind, Write as _, stderr};
use std::path::Path;
use std::process::{Command, Output};

use super::gateway::words;

/// What `tests/lossy` says, and ends with, where the machine does not let it make such a network.
const NOT_HERE: (&str, i32) = ("lossy: not possible here: ", 69);
/// Two of a hundred packets, whatever they carry.
const PERCENT: &str = "2";
/// So many segments have to be sent again, and to arrive out of order; a story makes thousands.
const AT_LEAST: &str = "100";

/// Tells the story of `test` (its whole name) where packets are lost, if this machine permits.
pub(crate) fn where_packets_are_lost(test: &str, story: impl FnOnce()) {
    if std::env::var_os("HOLDFAST_LOSSY").is_some() {
        return story();
    }
    let lossy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lossy");
    let mut command = Command::new("python3");
    command.arg(lossy).args(["--at-least", AT_LEAST, PERCENT]);
    command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return left_out(test, "tests/lossy needs python3");
        }
        outcome => outcome.unwrap(),
    };
    let said = words(&output);
    if let Some(cause) = not_possible(&output, &said) {
        return left_out(test, cause);
    }
    println!("{said}");
    assert!(output.status.success(), "{}", output.status);
    assert!(said.contains("test result: ok. 1 passed"), "there is no test {test}");
}

fn not_possible<'a>(output: &Output, said: &'a str) -> Option<&'a str> {
    let (words, code) = NOT_HERE;
    said.lines().find(|line| output.status.code() == Some(code) && line.starts_with(words))
}

/// Says it on stderr itself: what `eprintln!` says the test runner keeps to itself.
fn left_out(test: &str, cause: &str) {
    let line = format!("LEFT OUT: {test} ({cause})\n");
    stderr().write_all(line.as_bytes()).unwrap();
}
