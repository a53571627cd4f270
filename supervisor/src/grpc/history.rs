//! Revisions as operators see them: the list, and what each of them says. Reads the ledger and changes nothing.

use holdfast_proto::admin::RevisionInfo;
use serde_json::Value;
use tonic::Status;

use crate::change::ChangeError;
use crate::config;
use crate::state::Supervisor;
use crate::upgrade::chain;

/// Every revision that can be gone back to, oldest first.
pub(crate) fn revisions(supervisor: &Supervisor) -> Vec<RevisionInfo> {
    let now = supervisor.revision();
    let revisions = supervisor.ledger().list();
    let revisions = revisions.into_iter().map(|it| RevisionInfo {
        revision: it.revision,
        applied_at: it.applied_at,
        source: it.source,
        by: it.by,
        in_force: it.revision == now,
    });
    revisions.collect()
}

/// A revision, or the one in force: its number and what it says, defaults written out and secrets left out. Reads files, so
/// it may block for a moment.
///
/// # Errors
/// There is no such revision, or it can no longer be loaded: a file that it names is gone, say.
pub(crate) fn effective(
    supervisor: &Supervisor,
    asked: Option<u64>,
) -> Result<(u64, Value), Status> {
    let now = supervisor.in_force();
    let revision = asked.or(now.as_ref().map(|it| it.revision));
    if let Some(in_force) = now.filter(|it| Some(it.revision) == revision) {
        return Ok((in_force.revision, config::effective(&in_force.gateway)));
    }
    let number = revision.unwrap_or_default();
    let old = supervisor.ledger().get(number);
    let old = old.map_err(|error| Status::unavailable(chain(&error)))?;
    let old = old.ok_or_else(|| Status::not_found(chain(&ChangeError::NoSuchRevision(number))))?;
    let loaded = config::load(&old.document, &old.base_dir).map_err(|found| {
        let error = found.iter().find(|it| it.severity == config::Severity::Error);
        let why = error.map(|error| format!(": {error}")).unwrap_or_default();
        Status::failed_precondition(format!("revision {number} can no longer be loaded{why}"))
    })?;
    Ok((number, config::effective(&loaded.gateway)))
}
