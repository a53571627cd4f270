//! Watches the certificate files of the document in force, and has them read again when they change.
//!
//! What they hold is [`crate::change`]'s matter: files that cannot be used, or do not go together (yet), change nothing,
//! and are tried again at their next change. Nobody is told that a file has changed before everything about it has been
//! still for a moment: a chain and its key are two files.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::change::ChangeError;
use crate::config::gateway::{CertificateSource, Gateway};
use crate::config::{Diagnostic, Severity};
use crate::ledger::digest;
use crate::state::Supervisor;

mod eye;

use eye::Eye;

/// Files that have not changed for so long are whole, most likely.
const STILL: Duration = Duration::from_millis(300);
/// Where something never stops changing beside them, they are looked at nevertheless.
const LONGEST: Duration = Duration::from_secs(5);
/// Larger than any certificate file that is read.
const LARGEST: u64 = 1024 * 1024;
/// The name of the problem that operators are told of.
const PROBLEM: &str = "certificate files";

/// What a file held: its digest, or why it could not be read.
type Contents = Vec<Result<String, io::ErrorKind>>;

/// Watches for as long as the supervisor runs.
pub(crate) async fn watch(supervisor: Arc<Supervisor>) {
    let mut replaced = supervisor.replaced();
    let mut blind = false;
    loop {
        replaced.mark_unchanged();
        let files = supervisor.in_force().map(|it| files(&it.gateway)).unwrap_or_default();
        let ended = tokio::select! {
            // All three only wait; a look that has begun is never broken off, since it does not wait.
            ended = keep_looking(&supervisor, &files) => ended,
            changed = replaced.changed() => changed.map_err(io::Error::other),
            () = supervisor.stopped() => return,
        };
        if let Err(error) = ended {
            if !std::mem::replace(&mut blind, true) {
                tracing::warn!(
                    %error,
                    "certificate files cannot be watched: use `holdfast reload` when they have changed"
                );
            }
            if replaced.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Reads the files whenever they change. Ends only where they cannot be watched.
async fn keep_looking(supervisor: &Supervisor, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    if files.is_empty() {
        std::future::pending::<()>().await;
    }
    let mut seen: Option<Contents> = None;
    loop {
        // Opened anew each time: where a path leads may have changed. And before the look, so that nothing is missed.
        let eye = Eye::open(files)?;
        let now = tokio::task::block_in_place(|| contents(files));
        if seen.as_ref() != Some(&now) {
            seen = Some(now);
            look(supervisor).await;
        }
        eye.stirred().await?;
        let latest = Instant::now() + LONGEST;
        let until_still = async {
            while let Ok(stirred) = timeout(STILL, eye.stirred()).await {
                stirred?;
            }
            Ok::<_, io::Error>(())
        };
        if let Ok(still) = timeout_at(latest, until_still).await {
            still?;
        }
    }
}

async fn look(supervisor: &Supervisor) {
    match supervisor.refresh().await {
        Ok(outcome) => {
            for warning in outcome.iter().flat_map(|outcome| &outcome.warnings) {
                tracing::warn!("{warning}");
            }
            supervisor.problem(PROBLEM, None);
        }
        Err(error) => {
            let reason = reason(&error);
            tracing::warn!(reason, "certificate files have changed and cannot be used; what was in force stays");
            let what = format!("certificate files were not taken, what was in force is served: {reason}");
            supervisor.problem(PROBLEM, Some(what));
        }
    }
}

fn reason(error: &ChangeError) -> String {
    let errors = |it: &&Diagnostic| it.severity == Severity::Error;
    let errors: Vec<_> =
        error.diagnostics().iter().filter(errors).map(ToString::to_string).collect();
    if errors.is_empty() { error.to_string() } else { errors.join("; ") }
}

/// The files that a gateway was read from, unless they are not to be watched.
fn files(gateway: &Gateway) -> BTreeSet<PathBuf> {
    if !gateway.global.watch_certificate_files {
        return BTreeSet::new();
    }
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for certificate in &gateway.certificates {
        if let CertificateSource::Files { certificate, private_key } = &certificate.source {
            files.extend([certificate.into(), private_key.into()]);
        }
    }
    files.extend(gateway.trusted_clients.iter().filter_map(|it| it.file.as_ref()).map(PathBuf::from));
    files
}

fn contents(files: &BTreeSet<PathBuf>) -> Contents {
    let read = |path: &PathBuf| {
        use std::io::Read;
        // Opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(digest(&bytes))
    };
    files.iter().map(|path| read(path).map_err(|error: io::Error| error.kind())).collect()
}
