//! Getting the error pages that a document names by URL, before anything of it is put in force. Each is fetched by a
//! process of its own (`holdfast fetch-page`): what a foreign server says is never parsed here.
//!
//! What was fetched goes into the revision, so that a restart and a roll back find it there. A page that cannot be
//! fetched refuses a change; one that the revision in force has under the same URL is kept instead, with a warning.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::ChangeError;
use crate::config::gateway::{Bodies, Gateway, PAGE_LIMIT};
use crate::config::{Diagnostic, Severity, Wanted};
use crate::ledger::KeptPage;
use crate::spawn::Spawner;

/// For one page. Its process gives up earlier and can say at what.
const PATIENCE: Duration = Duration::from_secs(15);
/// For all pages of a document: a change holds up every other one.
pub(super) const PATIENCE_FOR_ALL: Duration = Duration::from_secs(60);
/// Processes at once.
const AT_ONCE: usize = 8;
/// Of what a process complains of, bytes.
const LONGEST_COMPLAINT: u64 = 2048;
/// Of all pages of a document, bytes: a revision's file must hold them.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What a document's pages may be taken from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Fetched now; these stand in for what cannot be.
    Fresh(&'a [KeptPage]),
    /// These, and only what is missing is fetched.
    Kept(&'a [KeptPage]),
}

/// The pages of a document.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) bodies: Bodies,
    /// Of pages that are older than they should be.
    pub(super) warnings: Vec<Diagnostic>,
}

// === impl Gathered ===

impl Gathered {
    /// For the revision.
    pub(super) fn to_keep(&self) -> Vec<KeptPage> {
        let pages = self.bodies.iter();
        pages.map(|(url, body)| KeptPage { url: url.clone(), body: Arc::clone(body) }).collect()
    }
}

/// Only what was kept; nothing is fetched.
pub(super) fn recall(wanted: &[Wanted], kept: &[KeptPage]) -> Bodies {
    let known = |it: &Wanted| find(kept, &it.url).map(|body| (it.url.clone(), body));
    wanted.iter().filter_map(known).collect()
}

/// Fetches what a document wants.
pub(super) async fn gather(
    spawner: &Spawner,
    wanted: &[Wanted],
    source: Source<'_>,
) -> Result<Gathered, ChangeError> {
    let (kept, mut gathered) = match source {
        Source::Fresh(kept) => (kept, Gathered::default()),
        Source::Kept(kept) => {
            (kept, Gathered { bodies: recall(wanted, kept), warnings: Vec::new() })
        }
    };
    let missing: Vec<Wanted> =
        wanted.iter().filter(|it| !gathered.bodies.contains_key(&it.url)).cloned().collect();
    let end = Instant::now() + PATIENCE_FOR_ALL;
    let fetches = missing.into_iter().map(|wanted: Wanted| async move {
        let deadline = end.min(Instant::now() + PATIENCE);
        // A URL may hold a token, and everybody can read arguments.
        let environment = [("HOLDFAST_PAGE_URL", wanted.url.as_str())];
        let fetched = fetch(spawner, &environment, PAGE_LIMIT, deadline).await;
        (wanted, fetched)
    });
    let fetched: Vec<_> = stream::iter(fetches).buffered(AT_ONCE).collect().await;
    let mut errors = Vec::new();
    for (wanted, fetched) in fetched {
        let body = match (fetched, find(kept, &wanted.url)) {
            (Ok(body), _) => body.into(),
            (Err(why), Some(body)) => {
                gathered.warnings.push(diagnostic(&wanted, Severity::Warning, &why));
                body
            }
            (Err(why), None) => {
                errors.push(diagnostic(&wanted, Severity::Error, &why));
                continue;
            }
        };
        gathered.bodies.insert(wanted.url, body);
    }
    if errors.is_empty() { Ok(gathered) } else { Err(ChangeError::Invalid(errors)) }
}

/// Refuses more than a revision can keep.
pub(super) fn check_size(gateway: &Gateway) -> Result<(), ChangeError> {
    let bytes = gateway.page_bytes();
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(ChangeError::Invalid(vec![Diagnostic {
        severity: Severity::Error,
        path: String::new(),
        line: 0,
        column: 0,
        reason: format!("the error pages have {bytes} bytes in all, and at most {MOST_BYTES} fit"),
        mend: "give several statuses or listeners the same page, or smaller ones".to_owned(),
    }]))
}

fn find(kept: &[KeptPage], url: &str) -> Option<Arc<[u8]>> {
    kept.iter().find(|page| page.url == url).map(|page| Arc::clone(&page.body))
}

fn diagnostic(wanted: &Wanted, severity: Severity, why: &str) -> Diagnostic {
    let Wanted { url, path, line, column } = wanted.clone();
    let (then, mend) = match severity {
        Severity::Error => ("", "make it answer 200 with less than 1 MiB, or name a file"),
        Severity::Warning => {
            ("; the page that it had is kept", "apply the document again once it answers")
        }
    };
    // The place says which one it is; behind it may stand a token.
    let shown = url.split('?').next().unwrap_or_default();
    let reason = format!("the error page {shown} cannot be fetched: {why}{then}");
    Diagnostic { severity, path, line, column, reason, mend: mend.to_owned() }
}

/// One page, or something as short as `most`, for which its environment asks a process. Or why there is none.
pub(crate) async fn fetch(
    spawner: &Spawner,
    environment: &[(&str, &str)],
    most: u64,
    deadline: Instant,
) -> Result<Vec<u8>, String> {
    if deadline <= Instant::now() {
        // Its turn comes when all patience is spent: nothing is started for it.
        return Err("it takes too long".to_owned());
    }
    let started = spawner.run(&["fetch-page"], environment).await;
    let mut child = started.map_err(|error| format!("no process can be started: {error}"))?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let talk = async {
        // One byte more, to tell what is as long as that from what is longer.
        let (said, complained) =
            tokio::join!(read(output, most + 1), read(errors, LONGEST_COMPLAINT));
        Ok::<_, io::Error>((said?, complained?, child.wait().await?))
    };
    let talked = timeout_at(deadline, talk).await;
    let Ok(talked) = talked else {
        // And waited for: no zombie stays.
        drop(child.kill().await);
        return Err("it takes too long".to_owned());
    };
    let (said, complained, status) = talked.map_err(|error| error.to_string())?;
    if said.len() as u64 > most {
        return Err(format!("it has more than {most} bytes"));
    }
    if status.success() {
        return Ok(said);
    }
    let complained = String::from_utf8_lossy(&complained);
    let last = complained.lines().rfind(|line| !line.trim().is_empty());
    let last = last.map(|line| line.trim().trim_start_matches("holdfast: ").to_owned());
    Err(last.unwrap_or_else(|| format!("its process ended with {status}")))
}

/// To its end, or so much of it.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(most).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn wanted(url: &str) -> Wanted {
        Wanted { url: url.to_owned(), path: "p".to_owned(), line: 3, column: 4 }
    }

    fn kept(url: &str) -> KeptPage {
        KeptPage { url: url.to_owned(), body: Arc::from(url.as_bytes()) }
    }

    #[test]
    fn only_what_a_document_wants_is_recalled() {
        let kept = [kept("http://a/"), kept("http://b/")];
        let bodies = recall(&[wanted("http://b/"), wanted("http://c/")], &kept);
        assert_eq!(bodies.keys().collect::<Vec<_>>(), ["http://b/"]);
        let gathered = Gathered { bodies, warnings: Vec::new() };
        assert_eq!(gathered.to_keep(), [kept.last().unwrap().clone()]);
    }

    #[test]
    fn a_page_that_is_kept_says_so_and_where() {
        let warned = diagnostic(&wanted("http://a/"), Severity::Warning, "status 500");
        assert_eq!((warned.line, warned.column, warned.path.as_str()), (3, 4, "p"));
        assert!(warned.reason.ends_with("status 500; the page that it had is kept"), "{warned}");
        let refused = diagnostic(&wanted("http://a/"), Severity::Error, "status 500");
        assert!(refused.reason.ends_with("cannot be fetched: status 500"), "{refused}");
    }
}
