//! Changing the configuration: document → model → plan → ledger → workers → answer. One change at a time.
//!
//! Everything that can fail fails before the ledger's fsync, the fetching of error pages too; after it the revision is in force whatever happens.
//! Backends that are new are probed before anybody is sent to them, so the answer finds them in rotation.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::admin;
use holdfast_proto::control::ListenerSnapshot;

use crate::audit::MOST_PLACES;
use crate::compile::{Compiled, TooLarge, compile};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::{self, gateway::Gateway};
use crate::group::{Adopted, Group};
use crate::ledger::{KeptPage, NewRevision};
use crate::network;
use crate::state::{InForce, Supervisor};
use crate::ui::difference;
use crate::worker;

pub mod file;
mod files;
mod heard;
pub mod outcome;
mod pages;
pub mod plan;

pub use outcome::{ChangeError, Outcome};
pub(crate) use pages::fetch;
use pages::{Gathered, Source};
use plan::Plan;

/// Wait for the first verdicts of backends that a change brings. A backend that says nothing must not hold a change
/// up for its whole probe timeout (Azure's default: 30 s).
pub const FIRST_VERDICTS: Duration = Duration::from_secs(5);
/// What a change does between its waits: it reads, compiles, writes and starts processes. Generous, for machines that swap.
const WORK: Duration = Duration::from_secs(10);
/// Longest that changes are held up by one: its waits, one after the other, beginning with the files that a reload has
/// read again. Who waits for a change waits for this.
pub(crate) const LONGEST: Duration = worker::QUERY_PATIENCE
    .saturating_add(pages::PATIENCE_FOR_ALL)
    .saturating_add(worker::QUERY_PATIENCE)
    .saturating_add(FIRST_VERDICTS)
    .saturating_add(heard::ACKNOWLEDGED)
    .saturating_add(WORK);

/// A document that somebody wants in force.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The document.
    pub document: String,
    /// Where its relative paths start.
    pub base_dir: PathBuf,
    /// For the history: "apply", "file /etc/holdfast.json".
    pub source: String,
    /// For the history: "uid 0 pid 17".
    pub by: String,
    /// Refused unless this revision is in force.
    pub if_revision: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// A document that passed.
struct Passed {
    gateway: Gateway,
    compiled: Compiled,
    warnings: Vec<Diagnostic>,
    pages: Vec<KeptPage>,
}

fn load(document: &str, base_dir: &std::path::Path) -> Result<config::Loaded, ChangeError> {
    config::load(document, base_dir).map_err(ChangeError::Invalid)
}

fn load_again(document: &str, base_dir: &std::path::Path) -> Result<config::Loaded, ChangeError> {
    config::load_again(document, base_dir).map_err(ChangeError::Invalid)
}

fn pass(loaded: config::Loaded, gathered: Gathered) -> Result<Passed, ChangeError> {
    let config::Loaded { mut gateway, mut warnings, .. } = loaded;
    let pages = gathered.to_keep();
    gateway.fill_pages(&gathered.bodies);
    pages::check_size(&gateway)?;
    warnings.extend(gathered.warnings);
    let compiled = compile(&gateway).map_err(too_large)?;
    Ok(Passed { gateway, compiled, warnings, pages })
}

/// Where the configuration is another one than what is in force.
fn places(in_force: Option<&InForce>, gateway: &Gateway) -> Vec<String> {
    let Some(in_force) = in_force else { return Vec::new() };
    let [before, after] = [&in_force.gateway, gateway].map(config::effective);
    difference::places(&before, &after, MOST_PLACES)
}

/// Told of the document as a whole.
fn too_large(error: TooLarge) -> ChangeError {
    let (reason, mend) = (error.to_string(), error.mend().to_owned());
    let (severity, path) = (Severity::Error, String::new());
    ChangeError::Invalid(vec![Diagnostic { severity, path, line: 0, column: 0, reason, mend }])
}

impl Supervisor {
    /// Puts a document in force, or says what that would do.
    pub async fn change(&self, proposal: Proposal) -> Result<Outcome, ChangeError> {
        let _one_at_a_time = self.changing.lock().await;
        let known = self.known_pages();
        self.change_locked(proposal, Source::Fresh(&known)).await
    }

    /// Pages of the revision in force.
    fn known_pages(&self) -> Vec<KeptPage> {
        self.ledger().in_force().map(|it| it.pages.clone()).unwrap_or_default()
    }

    async fn change_locked(
        &self,
        proposal: Proposal,
        source: Source<'_>,
    ) -> Result<Outcome, ChangeError> {
        let in_force = self.in_force();
        let now = in_force.as_ref().map_or(0, |it| it.revision);
        if let Some(expected) = proposal.if_revision.filter(|expected| *expected != now) {
            return Err(ChangeError::Stale { expected, in_force: now });
        }
        let loaded = load(&proposal.document, &proposal.base_dir)?;
        // Cancel-safe, both: processes that fetch are killed, and nothing has begun.
        let gathered = tokio::select! {
            gathered = pages::gather(&self.spawner, &loaded.wanted, source) => gathered?,
            () = self.stopped() => return Err(ChangeError::Stopping),
        };
        let passed = pass(loaded, gathered)?;
        let plan = Plan::between(in_force.as_ref().map(|it| &it.compiled), &passed.compiled);
        let admin = passed.gateway.global.admin.as_ref();
        let admin_before = in_force.as_ref().and_then(|it| it.gateway.global.admin.as_ref());
        let same = in_force
            .as_ref()
            .is_some_and(|it| it.document == proposal.document && it.compiled == passed.compiled)
            && admin_before == admin;
        let mut changes = plan.changes();
        changes.extend(network::difference(admin_before, admin));
        let silent = self.count_tunnels(&mut changes, &plan, &passed.compiled).await;
        if same || proposal.dry_run {
            let message = if same {
                "nothing to change: the document in force is the same"
            } else {
                "dry run: nothing was changed"
            };
            let (warnings, message) = (passed.warnings, message.to_owned());
            let of_now = Outcome { before: now, revision: now, ..Outcome::default() };
            return Ok(Outcome { warnings, changes, silent, message, ..of_now });
        }
        if self.stopping() {
            return Err(ChangeError::Stopping);
        }
        // A document without a listener would leave nothing to serve; config refuses that as an error of its own.
        let sockets = self.bind(&plan)?;
        let door = self.prepare_network(&passed.gateway, &proposal.document)?;
        let places = places(in_force.as_deref(), &passed.gateway);
        let revision = self.record(&proposal, passed.pages.clone())?;
        self.metrics.revision_applied();
        let late = self.carry_out(revision, &proposal.document, &passed, &plan, sockets).await;
        // Last, so that the answer to who has asked for it over the network is ready when a door closes.
        self.open_network(door);
        let (refusals, message) = if self.stopping() {
            let message = "the gateway stops; the revision is served when it is started again";
            (Vec::new(), message.to_owned())
        } else {
            (self.refusals(revision, &late), format!("revision {revision} is in force"))
        };
        tracing::info!(revision, source = proposal.source, by = proposal.by, "revision in force");
        Ok(Outcome {
            before: now,
            revision,
            changed: true,
            places,
            warnings: passed.warnings,
            changes,
            silent,
            refusals,
            message,
        })
    }

    fn bind(&self, plan: &Plan) -> Result<BTreeMap<SocketAddr, TcpListener>, ChangeError> {
        let bind = |address: &SocketAddr| {
            let passed = self.service.take_socket(*address);
            let bound = passed.map_or_else(|| crate::sockets::listen(*address), Ok);
            let socket = bound.map_err(|why| ChangeError::Bind { address: *address, why })?;
            Ok((*address, socket))
        };
        plan.added.iter().map(bind).collect()
    }

    fn record(&self, proposal: &Proposal, pages: Vec<KeptPage>) -> Result<u64, ChangeError> {
        let new = NewRevision {
            source: proposal.source.clone(),
            by: proposal.by.clone(),
            base_dir: proposal.base_dir.clone(),
            document: proposal.document.clone(),
        };
        // fsync blocks this thread of several; nothing else waits on the lock but other changes and history reads.
        let written = tokio::task::block_in_place(|| self.ledger().append_with(new, pages));
        let written = written.map(|it| it.revision);
        Ok(written.inspect_err(|error| {
            let error: &dyn std::error::Error = error;
            tracing::error!(
                error,
                by = proposal.by,
                "a change was refused: its revision cannot be \
                written, and what was in force stays so"
            );
        })?)
    }

    /// A stop cuts every wait in here short: the revision is in the ledger, so the next start serves it. Answers who has
    /// not acknowledged the revision.
    async fn carry_out(
        &self,
        revision: u64,
        document: &str,
        passed: &Passed,
        plan: &Plan,
        sockets: BTreeMap<SocketAddr, TcpListener>,
    ) -> Vec<u32> {
        let compiled = &passed.compiled;
        let new = self.health.unknown(&compiled.targets);
        if let Some(before) = self.in_force() {
            // Both until every worker has moved: a worker that still serves the old table must find its verdicts.
            let (targets, least) = plan::union(&before.compiled, compiled);
            self.health.set_targets(targets, least);
        } else {
            self.health.set_targets(compiled.targets.clone(), compiled.min_servers.clone());
        }
        // Cancel-safe, both: they only wait.
        tokio::select! {
            () = self.health.first_verdicts(&new, FIRST_VERDICTS) => {}
            () = self.stopped() => {}
        }
        self.put_in_force(InForce {
            revision,
            document: document.to_owned(),
            gateway: passed.gateway.clone(),
            compiled: compiled.clone(),
        });
        if self.stopping() {
            return Vec::new();
        }
        for (address, socket) in sockets {
            self.start_group(address, socket, Vec::new());
        }
        for address in &plan.removed {
            if let Some(group) = self.retire_group(*address) {
                group.retire().await;
            }
        }
        self.publish();
        // Cancel-safe, both: they only wait.
        let late = tokio::select! {
            late = self.acknowledged(revision) => late,
            () = self.stopped() => return Vec::new(),
        };
        self.health.set_targets(compiled.targets.clone(), compiled.min_servers.clone());
        late
    }

    /// Sends every worker its snapshot of what is in force.
    fn publish(&self) {
        for group in self.groups() {
            if let Some(snapshot) = self.snapshot(group.address) {
                group.publish(snapshot);
            }
        }
    }

    /// The same when something has changed that no document says.
    pub(crate) async fn publish_again(&self) {
        // So that nothing older than what a change has just sent is sent after it.
        let _one_at_a_time = self.changing.lock().await;
        self.publish();
    }

    /// Starts keeping workers for a listener of the revision in force.
    pub(crate) fn start_group(
        &self,
        address: SocketAddr,
        socket: TcpListener,
        adopted: Vec<Adopted>,
    ) {
        if let Some(snapshot) = self.snapshot(address) {
            let surroundings = self.surroundings();
            self.add_group(|| Group::start(address, socket, snapshot, adopted, surroundings));
        }
    }

    /// Keeps the workers of a listener that an earlier supervisor had removed, until their tunnels end.
    pub(crate) fn resume_retired(&self, address: SocketAddr, adopted: Vec<Adopted>) {
        self.add_retired_group(Group::retired(address, adopted, self.surroundings()));
    }

    /// A listener's snapshot of the revision in force.
    fn snapshot(&self, address: SocketAddr) -> Option<ListenerSnapshot> {
        let in_force = self.in_force()?;
        let mut snapshot = in_force.compiled.listeners.get(&address)?.clone();
        snapshot.revision = in_force.revision;
        snapshot.ticket_keys = self.tickets.keys();
        self.staples.add_to(&mut snapshot);
        snapshot.standing = Some(in_force.compiled.standing.clone());
        self.sign(&mut snapshot);
        Some(snapshot)
    }

    /// Adds to each change how many live tunnels it touches, and answers whose nobody could count. Only workers whose
    /// tunnels can be touched are asked: a list may be long. Listeners that were removed earlier keep their tunnels whatever changes.
    async fn count_tunnels(
        &self,
        changes: &mut Vec<admin::Change>,
        plan: &Plan,
        wanted: &Compiled,
    ) -> Vec<admin::SilentWorker> {
        let Some(in_force) = self.in_force() else { return Vec::new() };
        let groups = self.groups().into_iter().filter(|it| plan.touches_tunnels_of(&it.address));
        // All at once: those that do not answer are waited for once.
        let asking = groups.map(|group| async move { (group.address, group.tunnels().await) });
        let mut all_silent = Vec::new();
        for (address, (tunnels, silent)) in join_all(asking).await {
            all_silent.extend(silent);
            plan.note_left_behind(changes, &address, tunnels.len());
            for tunnel in &tunnels {
                plan.note_tunnel(changes, (&in_force.compiled, wanted), &address, tunnel);
            }
        }
        all_silent
    }

    /// Back to an older document, with the pages that it had.
    pub async fn rollback(&self, revision: u64, by: String) -> Result<Outcome, ChangeError> {
        let old = self.ledger().get(revision)?.ok_or(ChangeError::NoSuchRevision(revision))?;
        let proposal = Proposal {
            document: old.document,
            base_dir: old.base_dir,
            source: format!("rollback to {revision}"),
            by,
            if_revision: None,
            dry_run: false,
        };
        let _one_at_a_time = self.changing.lock().await;
        self.change_locked(proposal, Source::Kept(&old.pages)).await
    }
}

/// Puts what is in the ledger in force at a start: no new revision, nothing bound yet.
pub(crate) fn restore(supervisor: &Supervisor) -> Result<Option<Vec<Diagnostic>>, ChangeError> {
    let Some(revision) = supervisor.ledger().in_force().cloned() else { return Ok(None) };
    let loaded = load_again(&revision.document, &revision.base_dir)?;
    let bodies = pages::recall(&loaded.wanted, &revision.pages);
    let passed = pass(loaded, Gathered { bodies, warnings: Vec::new() })?;
    supervisor.put_in_force(InForce {
        revision: revision.revision,
        document: revision.document,
        gateway: passed.gateway,
        compiled: passed.compiled,
    });
    Ok(Some(passed.warnings))
}

/// The wire form of a diagnostic.
pub fn to_wire(diagnostic: &Diagnostic) -> admin::Diagnostic {
    let severity = match diagnostic.severity {
        Severity::Error => admin::Severity::Error,
        Severity::Warning => admin::Severity::Warning,
    };
    admin::Diagnostic {
        severity: severity.into(),
        path: diagnostic.path.clone(),
        line: diagnostic.line,
        column: diagnostic.column,
        reason: diagnostic.reason.clone(),
        mend: diagnostic.mend.clone(),
    }
}
