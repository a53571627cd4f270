//! What a command could not do: in words for people, and in one of a few words for scripts.
//!
//! The words say what happened, what still runs and what to do. With `--json` the same stands on standard output as
//! `{"error": {"kind", "message"}}`, so that whoever reads JSON there always finds some. Kinds are a contract: they only grow.

use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use holdfast_proto::admin::Diagnostic;
use serde_json::{Value, json};

use crate::output;

/// What sort of failure it is, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command line is wrong.
    Usage,
    /// A file that the command line names cannot be read.
    Unreadable,
    /// A document has errors.
    Invalid,
    /// There is no socket.
    NoGateway,
    /// There is a socket, and nobody listens.
    SupervisorGone,
    /// The socket may not be opened.
    NoPermission,
    /// Nobody answers on the socket.
    NoAnswer,
    /// The gateway has refused, and nothing was changed.
    Refused,
    /// The gateway went away, or failed, after it had been asked.
    OutcomeUnknown,
    /// The gateway is of another version.
    OtherVersion,
    /// Whoever waited was interrupted.
    Interrupted,
    /// Everything else.
    Failed,
}

/// A failure that has been put into words.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    told: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told)
    }
}

impl std::error::Error for Failure {}

// === impl Kind ===

impl Kind {
    #[cfg(test)]
    const ALL: [Self; 12] = [
        Self::Usage,
        Self::Unreadable,
        Self::Invalid,
        Self::NoGateway,
        Self::SupervisorGone,
        Self::NoPermission,
        Self::NoAnswer,
        Self::Refused,
        Self::OutcomeUnknown,
        Self::OtherVersion,
        Self::Interrupted,
        Self::Failed,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Unreadable => "unreadable",
            Self::Invalid => "invalid",
            Self::NoGateway => "no_gateway",
            Self::SupervisorGone => "supervisor_gone",
            Self::NoPermission => "no_permission",
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::OtherVersion => "other_version",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// A failure of that kind.
pub(crate) fn fail(kind: Kind, told: impl Into<String>) -> anyhow::Error {
    Failure { kind, told: told.into() }.into()
}

/// The JSON of a failure.
pub(crate) fn error_json(kind: Kind, message: &str) -> Value {
    json!({"error": {"kind": kind.word(), "message": message}})
}

/// The same of a document that has errors.
pub(crate) fn invalid_json(found: &[Diagnostic]) -> Value {
    let (kind, message) = (Kind::Invalid.word(), "the document is not valid");
    let diagnostics = output::diagnostics_json(found);
    json!({"error": {"kind": kind, "message": message, "diagnostics": diagnostics}})
}

/// Tells why a command failed, and the exit code.
pub(crate) fn end(error: &anyhow::Error, as_json: bool) -> ExitCode {
    let kind = error.downcast_ref::<Failure>().map_or(Kind::Failed, |failure| failure.kind);
    let told = format!("{error:#}{}", mend(error));
    if as_json {
        // Where standard output is what failed, standard error still says it.
        drop(output::print_json(&error_json(kind, &told)));
    }
    output::complain(&format!("holdfast: {told}\n"));
    // As a shell tells of a process that was ended by SIGINT.
    if kind == Kind::Interrupted { ExitCode::from(130) } else { ExitCode::FAILURE }
}

/// Tells what is wrong with a command line, or prints the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let as_json = std::env::args_os().any(|argument| argument == "--json");
    let is_wrong =
        error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_wrong && as_json {
        let text = error.render().to_string();
        drop(output::print_json(&error_json(Kind::Usage, reason(&text))));
    }
    // Nowhere to report that nobody reads it.
    drop(error.print());
    if is_wrong {
        output::complain("Nothing was done: whatever runs goes on as before.\n");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What is wrong, without the usage that follows.
fn reason(text: &str) -> &str {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.split("\n\nUsage:").next().unwrap_or(text).trim_end()
}

/// What to do about an answer that could not be written; what was asked for has been done by then.
fn mend(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            ": there is no room where the output goes. The gateway is as the command left it; see `holdfast status`"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gets_the_kind_and_a_person_the_words() {
        let error = fail(Kind::NoGateway, "no gateway runs here");
        assert_eq!(error.to_string(), "no gateway runs here");
        let kind = error.downcast_ref::<Failure>().map(|failure| failure.kind);
        assert_eq!(kind, Some(Kind::NoGateway));
        // Whatever is added to it later.
        let error = error.context("outer");
        assert!(error.downcast_ref::<Failure>().is_some());
        let expected = json!({"error": {"kind": "no_gateway", "message": "x"}});
        assert_eq!(error_json(Kind::NoGateway, "x"), expected);
    }

    #[test]
    fn the_document_explains_every_kind_and_no_other() {
        let text = include_str!("../../docs/cli.md");
        let (_, rest) = text.split_once("## When something is wrong").unwrap_or_default();
        let rows = rest.split("\n## ").next().unwrap_or_default().lines();
        let words = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(words.collect::<Vec<_>>(), Kind::ALL.map(Kind::word));
    }

    #[test]
    fn the_usage_is_no_reason() {
        let text = "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\nUsage: holdfast\n";
        assert_eq!(
            reason(text),
            "unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'"
        );
    }
}
