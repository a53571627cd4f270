//! The walks and the races once more where packets are lost: the counters are looked at after every step, so also in
//! the middle of every repair, and while SYNs, FINs and their acknowledgements are missing.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;

/// What `tests/lossy` says, and ends with, where the machine does not let it make such a network.
const NOT_HERE: (&str, i32) = ("lossy: not possible here: ", 69);

#[test]
fn counters_hold_while_packets_are_lost() {
    let lossy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lossy");
    let stories = ["walk::", "busy::"].map(|name| format!("tunnel::counters::tests::{name}"));
    let mut command = Command::new("python3");
    // A run makes hundreds of either kind.
    command.arg(lossy).args(["--at-least", "100", "2"]).arg(std::env::current_exe().unwrap());
    let output = match command.args(stories).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return left_out("tests/lossy needs python3");
        }
        outcome => outcome.unwrap(),
    };
    let [said, more] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let (words, code) = NOT_HERE;
    let cause = more.lines().find(|line| line.starts_with(words));
    if let Some(cause) = cause.filter(|_| output.status.code() == Some(code)) {
        return left_out(cause);
    }
    assert!(output.status.success(), "{}: {said}{more}", output.status);
    assert!(said.contains("test result: ok. 3 passed"), "{said}");
}

/// Says it on stderr itself: what `eprintln!` says the test runner keeps to itself.
fn left_out(cause: &str) {
    writeln!(std::io::stderr(), "LEFT OUT: counters_hold_while_packets_are_lost ({cause})")
        .unwrap();
}
