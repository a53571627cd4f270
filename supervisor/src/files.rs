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

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

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

/// Why a watch has ended.
enum Next {
    /// Something else is in force, perhaps with other files.
    Rearm,
    Stop,
}

/// What a file held: its digest, or why it could not be read.
type Contents = Vec<Result<String, io::ErrorKind>>;

/// Watches for as long as the supervisor runs.
pub(crate) async fn watch(supervisor: Arc<Supervisor>) {
    let mut replaced = supervisor.replaced();
    let mut blind = false;
    loop {
        replaced.mark_unchanged();
        let files = supervisor.in_force().map(|it| files(&it.gateway)).unwrap_or_default();
        match keep_looking(&supervisor, &files, &mut replaced).await {
            Ok(Next::Rearm) => {}
            Ok(Next::Stop) => return,
            Err(error) => {
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
}

/// Reads the files whenever they change, until others count. Fails only where they cannot be watched.
async fn keep_looking(
    supervisor: &Supervisor,
    files: &BTreeSet<PathBuf>,
    replaced: &mut watch::Receiver<()>,
) -> io::Result<Next> {
    let mut seen: Option<Contents> = None;
    loop {
        // Opened anew each time: where a path leads may have changed. And before the look, so that nothing is missed.
        let eye = Eye::open(files)?;
        let now = tokio::task::block_in_place(|| contents(files));
        if seen.as_ref() != Some(&now) && !files.is_empty() {
            seen = Some(now);
            look(supervisor).await;
        }
        let still = async {
            eye.stirred().await?;
            let latest = Instant::now() + LONGEST;
            while let Ok(stirred) =
                timeout_at(latest.min(Instant::now() + STILL), eye.stirred()).await
            {
                stirred?;
            }
            Ok::<_, io::Error>(())
        };
        // Cancel-safe, all three: they only wait.
        tokio::select! {
            still = still => still?,
            _ = replaced.changed() => return Ok(Next::Rearm),
            () = supervisor.stopped() => return Ok(Next::Stop),
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
            tracing::warn!(
                reason,
                "certificate files have changed and cannot be used; what was in force stays"
            );
            let what =
                format!("certificate files were not taken, what was in force is served: {reason}");
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
    if let Some(admin) = &gateway.global.admin {
        let named = [&admin.certificate_file, &admin.private_key_file, &admin.authority_file];
        files.extend(named.map(PathBuf::from));
    }
    files.extend(
        gateway.trusted_clients.iter().filter_map(|it| it.file.as_ref()).map(PathBuf::from),
    );
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::*;

    fn gateway(watched: &str) -> Gateway {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let document = std::fs::read_to_string(fixtures.join("article-snippets.jsonc")).unwrap();
        let own = format!("\"properties\": {{ \"holdfast\": {{{watched}}},");
        let document = document.replacen("\"properties\": {", &own, 1);
        crate::config::load(&document, &fixtures).unwrap().gateway
    }

    #[test]
    fn files_are_watched_unless_they_are_not_to_be() {
        let all = files(&gateway(""));
        assert!(all.iter().any(|file| file.ends_with("certs/site.key")), "{all:?}");
        assert!(files(&gateway("\"watchCertificateFiles\": \"false\"")).is_empty());
    }

    #[test]
    fn what_a_file_holds_is_told_apart_from_that_it_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let files = BTreeSet::from([file.clone()]);
        let none = contents(&files);
        assert_eq!(none, [Err(io::ErrorKind::NotFound)]);
        std::fs::write(&file, "one").unwrap();
        let one = contents(&files);
        std::fs::write(&file, "two").unwrap();
        assert_ne!(contents(&files), one);
        std::fs::write(&file, "one").unwrap();
        assert_eq!(contents(&files), one);
    }
}
