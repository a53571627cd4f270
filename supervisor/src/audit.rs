//! The audit log: who has asked for which change, and what came of it. Lines of the ordinary log with the target `audit`, two
//! for a change: one before anything is done, so that a change that ends this process is on record, and one at its end. Both
//! have the number of the call.
//!
//! No line ever holds a value of a document: only the places that differ.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::unistd::{Uid, User};

use crate::change::{ChangeError, Outcome};
use crate::config::Severity;
use crate::upgrade::chain;

/// Looking a user's name up may ask a server far away; a change does not wait for it.
const NAMES_PATIENCE: Duration = Duration::from_secs(1);
/// Places of a document that are told of one change.
pub(crate) const MOST_PLACES: usize = 20;
/// Longest text that a caller may put into a line, characters.
const LONGEST: usize = 400;

/// Somebody who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// On the unix socket.
    Process { pid: u32, uid: u32 },
    /// Over the network, by a name of its certificate.
    Client { name: String, address: SocketAddr },
    /// A signal; the kernel does not tell whose.
    Signal(&'static str),
    /// Nobody that could be told.
    Unknown,
}

/// A change that somebody has asked for; told as given up where nobody says how it ended.
#[derive(Debug)]
pub(crate) struct Audit {
    call: u64,
    method: &'static str,
    by: String,
    ended: bool,
}

/// How a change has ended.
struct End<'a> {
    outcome: &'static str,
    before: u64,
    revision: u64,
    what: &'a str,
}

// === impl Audit ===

impl Audit {
    /// Writes the first line. `what` says what is asked for, `revision` what is in force.
    pub(crate) async fn begin(who: &Who, method: &'static str, what: &str, revision: u64) -> Self {
        static CALLS: AtomicU64 = AtomicU64::new(1);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let (by, user, what) = (who.to_string(), who.user().await, short(what));
        tracing::info!(target: "audit", call, method, by, user, revision, what, "asked");
        Self { call, method, by, ended: false }
    }

    /// Who asks.
    pub(crate) fn by(&self) -> &str {
        &self.by
    }

    /// Writes the second line of a change of the configuration.
    pub(crate) fn changed<E: AsRef<ChangeError>>(self, result: &Result<Outcome, E>, now: u64) {
        match result {
            Ok(outcome) => {
                let places = outcome.places.join(", ");
                let word = if outcome.changed { "done" } else { "nothing changed" };
                let what = if places.is_empty() { &outcome.message } else { &places };
                let (before, revision) = (outcome.before, outcome.revision);
                self.end(&End { outcome: word, before, revision, what });
            }
            Err(error) => {
                let error = error.as_ref();
                let mut what = chain(error);
                let errors = error.diagnostics().iter();
                let mut errors = errors.filter(|it| it.severity == Severity::Error);
                if let Some(first) = errors.next() {
                    // Not what is wrong there: that may quote the document.
                    let (path, line, more) = (&first.path, first.line, errors.count());
                    what = format!("{what}: at {path:?} (line {line}), and {more} more errors");
                }
                self.refused(&what, now);
            }
        }
    }

    /// Writes the second line of a change of something else.
    pub(crate) fn done(self, what: &str, revision: u64) {
        self.end(&End { outcome: "done", before: revision, revision, what });
    }

    /// Writes the second line of a change that was refused.
    pub(crate) fn refused(self, why: &str, revision: u64) {
        self.end(&End { outcome: "refused", before: revision, revision, what: why });
    }

    fn end(mut self, end: &End<'_>) {
        self.ended = true;
        let (Self { call, method, by, .. }, End { outcome, before, revision, .. }) = (&self, end);
        let what = short(end.what);
        tracing::info!(
            target: "audit",
            call,
            method,
            by,
            outcome,
            revision_before = before,
            revision,
            what,
            "ended"
        );
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.ended {
            let Self { call, method, by, .. } = &*self;
            tracing::info!(target: "audit", call, method, by, outcome = "given up", "ended");
        }
    }
}

/// A call that was not let through.
pub(crate) fn denied(who: &Who, method: &str, why: &str) {
    let (by, method, what) = (who.to_string(), short(method), short(why));
    tracing::warn!(target: "audit", method, by, outcome = "denied", what, "ended");
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

// === impl Who ===

impl Who {
    /// The user's name, of a process; empty where nobody knows it.
    async fn user(&self) -> String {
        let Self::Process { uid, .. } = *self else { return String::new() };
        let name = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
        match tokio::time::timeout(NAMES_PATIENCE, name).await {
            Ok(Ok(Ok(Some(user)))) => user.name,
            _ => String::new(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, uid } => write!(f, "uid {uid} pid {pid}"),
            Self::Client { name, address } => write!(f, "certificate {name} from {address}"),
            Self::Signal(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown peer"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn who_asks_is_told_with_the_name_of_its_user() {
        let root = Who::Process { pid: 7, uid: 0 };
        assert_eq!((root.to_string(), root.user().await), ("uid 0 pid 7".into(), "root".into()));
        let address = "[::1]:7".parse().unwrap();
        let client = Who::Client { name: "ci".to_owned(), address };
        assert_eq!(client.to_string(), "certificate ci from [::1]:7");
        assert_eq!(client.user().await, "");
    }

    #[test]
    fn what_a_caller_writes_does_not_fill_the_log() {
        assert_eq!(short("a"), "a");
        assert_eq!(short(&"ä".repeat(LONGEST + 1)).chars().count(), LONGEST + 1);
    }
}
