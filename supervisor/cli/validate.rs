//! `holdfast validate`: what a start would check, without a gateway, and the configuration that would result.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use holdfast_proto::admin::{Diagnostic, Severity};
use holdfast_supervisor::{config, mend};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::ValidateArgs;
use crate::failure::{Kind, fail};
use crate::{left, output};

/// A longer document than this is no gateway document; reading stops there.
const LONGEST_DOCUMENT: u64 = 64 * 1024 * 1024;

/// A document's verdict.
struct Checked {
    diagnostics: Vec<Diagnostic>,
    /// With defaults, secrets left out; absent when invalid.
    effective: Option<Value>,
}

/// Checks the file and prints the verdict.
pub(crate) fn run(args: &ValidateArgs) -> anyhow::Result<Outcome> {
    let document = read_document(&args.file)?;
    let checked = check(&document, &base_directory(&args.file)?);
    let valid = checked.effective.is_some();
    if args.json {
        output::print_json(&json!({
            "valid": valid,
            "diagnostics": output::diagnostics_json(&checked.diagnostics),
            "effective": checked.effective,
        }))?;
    } else {
        output::complain(&output::diagnostics_text(
            &args.file.display().to_string(),
            &checked.diagnostics,
        ));
        if let Some(effective) = &checked.effective {
            output::print_json(effective)?;
        }
    }
    Ok(if valid { Outcome::Done } else { Outcome::Refused })
}

/// The document in `file`, or on standard input for `-`.
pub(crate) fn read_document(file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = |input: &mut dyn Read, bytes: &mut Vec<u8>| {
        input.take(LONGEST_DOCUMENT + 1).read_to_end(bytes)
    };
    let read = if is_standard_input(file) {
        read(&mut io::stdin().lock(), &mut bytes)
    } else {
        fs::File::open(file).and_then(|mut input| read(&mut input, &mut bytes))
    };
    let name = if is_standard_input(file) {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    if let Err(error) = read {
        return Err(unreadable(&format!("cannot read {name}: {error}"), &mend(file, &error)));
    }
    if bytes.len() as u64 > LONGEST_DOCUMENT {
        return Err(unreadable(
            &format!("{name} is longer than 64 MiB"),
            "give the path of a gateway document",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        unreadable(
            &format!("{name} is not UTF-8 text (from byte {place} on)"),
            "save it as UTF-8 and try again",
        )
    })
}

fn unreadable(what: &str, mend: &str) -> anyhow::Error {
    let told = format!("{what}. Nothing was changed, and what runs goes on as before: {mend}");
    fail(Kind::Unreadable, told)
}

/// What to do about a document that cannot be read.
fn mend(file: &Path, error: &io::Error) -> String {
    match error.kind() {
        // Who may read it is what matters, and who asks.
        io::ErrorKind::PermissionDenied => {
            format!("{}; let yourself read it, or call as that user", left::owner(file))
        }
        kind => match mend::of_document(kind) {
            Some(mend) => format!("{mend}, or give - for standard input"),
            None => "give the path of a document, or - for standard input".to_owned(),
        },
    }
}

/// Where relative paths in the document start.
pub(crate) fn base_directory(file: &Path) -> anyhow::Result<PathBuf> {
    let parent = if is_standard_input(file) { None } else { file.parent() };
    match parent {
        Some(parent) if !parent.as_os_str().is_empty() => std::path::absolute(parent),
        _ => std::env::current_dir(),
    }
    .context("cannot tell the current directory")
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn check(document: &str, base_directory: &Path) -> Checked {
    let (found, effective) = match config::load(document, base_directory) {
        Ok(loaded) => (loaded.warnings, Some(config::effective(&loaded.gateway))),
        Err(found) => (found, None),
    };
    Checked { diagnostics: found.iter().map(as_answered).collect(), effective }
}

/// The form that the admin API answers with, so that both are printed alike.
pub(crate) fn as_answered(found: &config::Diagnostic) -> Diagnostic {
    let severity = match found.severity {
        config::Severity::Error => Severity::Error,
        config::Severity::Warning => Severity::Warning,
    };
    Diagnostic {
        severity: severity.into(),
        path: found.path.clone(),
        line: found.line,
        column: found.column,
        reason: found.reason.clone(),
        mend: found.mend.clone(),
    }
}
