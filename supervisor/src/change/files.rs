//! Certificate files that have other contents than when they were read: what they hold now is put in force under the
//! same revision, since the document is the same. Nothing else can change by it.

use std::path::Path;

use super::pages::{self, Gathered};
use super::plan::Plan;
use super::{ChangeError, Outcome, load_again, pass};
use crate::config::Loaded;
use crate::network;
use crate::state::{InForce, Supervisor};

impl Supervisor {
    /// Reads the files again that the document in force names. `None`: nothing is in force, or they hold what they did.
    ///
    /// # Errors
    /// What they hold now cannot be used; what was in force stays so.
    pub(crate) async fn refresh(&self) -> Result<Option<Outcome>, ChangeError> {
        let _one_at_a_time = self.changing.lock().await;
        if self.in_force().is_none() || self.stopping() {
            return Ok(None);
        }
        // A page's file that is gone must not keep a certificate out.
        let outcome = self.refresh_locked(load_again).await?;
        Ok(outcome.changed.then_some(outcome))
    }

    /// The same for who has the lock; without anything in force nothing is changed.
    pub(super) async fn refresh_locked(
        &self,
        load: fn(&str, &Path) -> Result<Loaded, ChangeError>,
    ) -> Result<Outcome, ChangeError> {
        let Some(in_force) = self.in_force() else { return Ok(Outcome::default()) };
        let revision = in_force.revision;
        let loaded = load(&in_force.document, &self.base_dir_in_force())?;
        let mut bodies = pages::recall(&loaded.wanted, &self.known_pages());
        bodies.extend(in_force.gateway.file_pages());
        let passed = pass(loaded, Gathered { bodies, warnings: Vec::new() })?;
        let plan = Plan::between(Some(&in_force.compiled), &passed.compiled);
        let mut outcome =
            Outcome { before: revision, revision, warnings: passed.warnings, ..Outcome::default() };
        let admin = passed.gateway.global.admin.as_ref();
        let admin_before = in_force.gateway.global.admin.as_ref();
        if passed.compiled == in_force.compiled && admin == admin_before {
            return Ok(outcome);
        }
        outcome.changed = true;
        outcome.changes = plan.changes();
        outcome.changes.extend(network::difference(admin_before, admin));
        outcome.message =
            format!("certificate files have changed; revision {revision} stays in force");
        let listeners = plan.updated.clone();
        self.put_in_force(InForce {
            revision,
            document: in_force.document.clone(),
            gateway: passed.gateway,
            compiled: passed.compiled,
        });
        self.publish();
        // What of it cannot be used must not keep other certificates out.
        self.restore_network();
        tracing::info!(
            revision,
            ?listeners,
            "certificate files have changed, and what they hold is in force"
        );
        let late = self.heard().await;
        outcome.refusals = self.refusals(revision, &late);
        Ok(outcome)
    }
}
