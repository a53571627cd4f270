//! Whether and how what is printed has colours: on a terminal that can show them, unless `NO_COLOR` is set.
//!
//! A colour never says what the text does not say as well.

use std::env;
use std::ffi::OsStr;
use std::io::{IsTerminal, stdout};

/// What stands in a heading.
pub(super) const HEADING: &str = "\u{1b}[1m";
/// Back to what the terminal had.
pub(super) const PLAIN: &str = "\u{1b}[0m";

const GOOD: &str = "\u{1b}[32m";
const BAD: &str = "\u{1b}[31m";
const BETWEEN: &str = "\u{1b}[33m";

/// Whether standard output gets colours.
pub(super) fn on_stdout() -> bool {
    wanted(
        stdout().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
        env::var_os("TERM").as_deref(),
    )
}

/// <https://no-color.org>: set and not empty means none.
fn wanted(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| term != "dumb")
}

/// The colour of a word that says how something stands.
pub(super) fn of(word: &str) -> Option<&'static str> {
    match word {
        "Healthy" | "serving" | "yes" | "in force" => Some(GOOD),
        "Unhealthy" | "no worker" | "no" => Some(BAD),
        "Unknown" | "Draining" | "draining" | "starting" => Some(BETWEEN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_that_wants_them() {
        let xterm = Some(OsStr::new("xterm"));
        assert!(wanted(true, None, xterm));
        assert!(wanted(true, Some(OsStr::new("")), xterm));
        assert!(!wanted(false, None, xterm));
        assert!(!wanted(true, Some(OsStr::new("1")), xterm));
        assert!(!wanted(true, None, Some(OsStr::new("dumb"))));
        assert!(!wanted(true, None, None));
    }
}
