//! The operators' service: one call each, no logic of its own.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use holdfast_proto::admin::{self, admin_server::Admin, upgrade_status::Step};
use holdfast_proto::log_filter;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{explain, history, names, view, who};
use crate::audit::Audit;
use crate::change::file::Occasion;
use crate::change::{ChangeError, Outcome, Proposal, to_wire};
use crate::group::replacement;
use crate::mend;
use crate::state::Supervisor;
use crate::upgrade::{chain, is_last};

/// How often a watched status is looked at again besides what rings: tunnel counts change without a bell.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

mod drain;

use drain::{backend_of, drained_text};

type Answer<T> = Result<Response<T>, Status>;
type Watched<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) struct Operators {
    supervisor: Arc<Supervisor>,
}

impl Operators {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn base_dir(&self, asked: &str) -> PathBuf {
        if asked.is_empty() { self.supervisor.base_dir.clone() } else { PathBuf::from(asked) }
    }

    /// A line for each change that somebody asks for, whatever comes of it; then waits for the start to be over.
    async fn audit<T>(&self, request: &Request<T>, method: &'static str, what: &str) -> Audit {
        let audit = Audit::begin(&who(request), method, what, self.supervisor.revision()).await;
        if method != "Stop" {
            // A start that is stopped is never over. Both arms only wait.
            tokio::select! {
                () = self.supervisor.started() => {}
                () = self.supervisor.stopped() => {}
            }
        }
        audit
    }

    /// Says what came of a change that is none of the configuration.
    fn ended<T>(
        &self,
        audit: Audit,
        answer: Answer<T>,
        told: impl FnOnce(&T) -> String,
    ) -> Answer<T> {
        let revision = self.supervisor.revision();
        match &answer {
            Ok(response) => audit.done(&told(response.get_ref()), revision),
            Err(status) => audit.refused(status.message(), revision),
        }
        answer
    }

    /// Carries a change out to its end, also when its caller has gone away: one that has reached the ledger is in
    /// force, and must not be left half served.
    async fn change(
        &self,
        audit: Audit,
        change: impl Future<Output = Result<Outcome, Arc<ChangeError>>> + Send + 'static,
    ) -> Answer<admin::ChangeResponse> {
        let supervisor = self.supervisor.clone();
        let ended = tokio::spawn(async move {
            let result = change.await;
            audit.changed(&result, supervisor.revision());
            result
        });
        let ended = ended.await;
        let result = ended.map_err(|error| Status::internal(format!("the change: {error}")))?;
        answer(&self.supervisor, result)
    }

    /// Replaces the workers of a listener, or of all.
    async fn replace_workers(&self, asked: &str) -> Answer<admin::RestartResponse> {
        let groups = self.supervisor.groups();
        let chosen: Vec<_> = groups
            .iter()
            .filter(|group| asked.is_empty() || group.address.to_string() == *asked)
            .collect();
        if chosen.is_empty() {
            let names = groups.iter().map(|group| group.address.to_string()).collect();
            return Err(names::unknown(&format!("no listener {asked:?}"), asked, names));
        }
        if self.supervisor.stopping() {
            return Err(Status::failed_precondition("the gateway stops; start it again first"));
        }
        let mut replaced = Vec::new();
        for group in chosen {
            let result = group.restart().await;
            replaced.push(replacement(group.address, result));
        }
        Ok(Response::new(admin::RestartResponse { replaced }))
    }

    fn begin_upgrade(&self, binary: &str, by: String) -> Answer<Watched<admin::UpgradeStatus>> {
        let binary = (!binary.is_empty()).then(|| PathBuf::from(binary));
        if binary.as_ref().is_some_and(|path| path.is_relative()) {
            return Err(Status::invalid_argument("the binary's path must be absolute"));
        }
        let id = self.supervisor.upgrades.ask(binary, by);
        let id = id.map_err(|error| Status::failed_precondition(chain(&error)))?;
        Ok(Response::new(self.steps(id)))
    }

    /// An upgrade's steps from now on, to its last or to this executable's.
    fn steps(&self, id: String) -> Watched<admin::UpgradeStatus> {
        let mut watching = self.supervisor.upgrades.watch();
        watching.mark_changed();
        let steps = futures_util::stream::unfold(Some(watching), move |watching| {
            let id = id.clone();
            async move {
                let mut watching = watching?;
                watching.changed().await.ok()?;
                let status = watching.borrow_and_update().clone();
                let over = is_last(status.step()) || status.step() == Step::TakingOver;
                (status.id == id).then(|| (Ok(status), (!over).then_some(watching)))
            }
        });
        Box::pin(steps)
    }
}

fn answer(
    supervisor: &Supervisor,
    result: Result<Outcome, Arc<ChangeError>>,
) -> Answer<admin::ChangeResponse> {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) if matches!(*error, ChangeError::Invalid(_)) => {
            return Ok(Response::new(admin::ChangeResponse {
                accepted: false,
                revision: supervisor.revision(),
                diagnostics: error.diagnostics().iter().map(to_wire).collect(),
                message: "the document has errors; nothing was changed".to_owned(),
                ..admin::ChangeResponse::default()
            }));
        }
        Err(error) => {
            let text = chain(&*error);
            return Err(match *error {
                ChangeError::Stale { .. } => Status::aborted(text),
                ChangeError::NoSuchRevision(_) => Status::not_found(text),
                // A ledger that can't be written, too: "unavailable" would say that the outcome is not known.
                _ => Status::failed_precondition(mend::with(text, error.mend())),
            });
        }
    };
    Ok(Response::new(admin::ChangeResponse {
        accepted: true,
        revision: outcome.revision,
        changed: outcome.changed,
        diagnostics: outcome.warnings.iter().map(to_wire).collect(),
        changes: outcome.changes,
        refusals: outcome.refusals,
        silent: outcome.silent,
        message: outcome.message,
    }))
}

#[tonic::async_trait]
impl Admin for Operators {
    type WatchStatusStream = Watched<admin::StatusResponse>;
    type WatchHealthStream = Watched<admin::HealthResponse>;
    type UpgradeStream = Watched<admin::UpgradeStatus>;
    type WatchUpgradeStream = Watched<admin::UpgradeStatus>;

    async fn validate(
        &self,
        request: Request<admin::ValidateRequest>,
    ) -> Answer<admin::ValidateResponse> {
        let request = request.into_inner();
        let base_dir = self.base_dir(&request.base_dir);
        let response = match crate::config::load(&request.document, &base_dir) {
            Ok(loaded) => admin::ValidateResponse {
                diagnostics: loaded.warnings.iter().map(to_wire).collect(),
                valid: true,
                effective_json: crate::config::effective(&loaded.gateway).to_string(),
            },
            Err(diagnostics) => admin::ValidateResponse {
                diagnostics: diagnostics.iter().map(to_wire).collect(),
                ..admin::ValidateResponse::default()
            },
        };
        Ok(Response::new(response))
    }

    async fn apply(&self, request: Request<admin::ApplyRequest>) -> Answer<admin::ChangeResponse> {
        let what = if request.get_ref().dry_run { "a dry run" } else { "" };
        let audit = self.audit(&request, "Apply", what).await;
        let (request, by) = (request.into_inner(), audit.by().to_owned());
        let supervisor = self.supervisor.clone();
        let proposal = Proposal {
            document: request.document,
            base_dir: supervisor.base_dir.clone(),
            source: "apply".to_owned(),
            by,
            if_revision: request.if_revision,
            dry_run: request.dry_run,
        };
        self.change(audit, async move { supervisor.change(proposal).await.map_err(Arc::new) }).await
    }

    async fn reload(
        &self,
        request: Request<admin::ReloadRequest>,
    ) -> Answer<admin::ChangeResponse> {
        let audit = self.audit(&request, "Reload", "").await;
        let (supervisor, by) = (self.supervisor.clone(), audit.by().to_owned());
        self.change(audit, async move { supervisor.reload(Occasion::Asked, by).await }).await
    }

    async fn rollback(
        &self,
        request: Request<admin::RollbackRequest>,
    ) -> Answer<admin::ChangeResponse> {
        let revision = request.get_ref().revision;
        let audit = self.audit(&request, "Rollback", &format!("to revision {revision}")).await;
        let (supervisor, by) = (self.supervisor.clone(), audit.by().to_owned());
        let change = async move { supervisor.rollback(revision, by).await.map_err(Arc::new) };
        self.change(audit, change).await
    }

    async fn get(&self, request: Request<admin::GetRequest>) -> Answer<admin::GetResponse> {
        let asked = request.get_ref().revision;
        let (revision, effective) = history::effective(&self.supervisor, asked)?;
        Ok(Response::new(admin::GetResponse { revision, effective_json: effective.to_string() }))
    }

    async fn revisions(
        &self,
        _: Request<admin::RevisionsRequest>,
    ) -> Answer<admin::RevisionsResponse> {
        let revisions = history::revisions(&self.supervisor);
        Ok(Response::new(admin::RevisionsResponse { revisions }))
    }

    async fn status(&self, _: Request<admin::StatusRequest>) -> Answer<admin::StatusResponse> {
        Ok(Response::new(view::status_now(&self.supervisor).await))
    }

    async fn health(&self, _: Request<admin::HealthRequest>) -> Answer<admin::HealthResponse> {
        Ok(Response::new(admin::HealthResponse { pools: self.supervisor.health.report() }))
    }

    async fn tunnels(&self, _: Request<admin::TunnelsRequest>) -> Answer<admin::TunnelsResponse> {
        Ok(Response::new(view::tunnels(&self.supervisor).await))
    }

    async fn explain(
        &self,
        request: Request<admin::ExplainRequest>,
    ) -> Answer<admin::ExplainResponse> {
        explain::explain(&self.supervisor, request.into_inner()).await.map(Response::new)
    }

    async fn watch_status(
        &self,
        _: Request<admin::StatusRequest>,
    ) -> Answer<Self::WatchStatusStream> {
        let supervisor = self.supervisor.clone();
        let ticks =
            tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(WATCH_INTERVAL));
        let mut last = None;
        let stream = ticks.filter_map(move |_| {
            let now = view::status(&supervisor);
            let new = (last.as_ref() != Some(&now)).then(|| now.clone());
            last = Some(now);
            std::future::ready(new.map(Ok))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn watch_health(
        &self,
        _: Request<admin::HealthRequest>,
    ) -> Answer<Self::WatchHealthStream> {
        let health = self.supervisor.health.clone();
        let stream = WatchStream::new(health.watch())
            .map(move |_| Ok(admin::HealthResponse { pools: health.report() }));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn drain(&self, request: Request<admin::DrainRequest>) -> Answer<admin::DrainResponse> {
        let what = backend_of(request.get_ref());
        let audit = self.audit(&request, "Drain", &what).await;
        let answer = self.set_drained(request.get_ref(), true).await;
        self.ended(audit, answer, |answer| drained_text(answer, &what))
    }

    async fn undrain(&self, request: Request<admin::DrainRequest>) -> Answer<admin::DrainResponse> {
        let what = backend_of(request.get_ref());
        let audit = self.audit(&request, "Undrain", &what).await;
        let answer = self.set_drained(request.get_ref(), false).await;
        self.ended(audit, answer, |answer| drained_text(answer, &what))
    }

    async fn close_tunnels(
        &self,
        request: Request<admin::CloseTunnelsRequest>,
    ) -> Answer<admin::CloseTunnelsResponse> {
        let asked = &request.get_ref().ids;
        let what = format!("{} tunnels: {}", asked.len(), asked.join(", "));
        let audit = self.audit(&request, "CloseTunnels", &what).await;
        let asked = request.into_inner().ids;
        let ids: Vec<u64> = asked.iter().filter_map(|id| view::id_number(id)).collect();
        let mut closed = Vec::new();
        for group in self.supervisor.all_groups() {
            for worker in group.workers() {
                let ids = worker.close_tunnels(ids.clone()).await;
                closed.extend(ids.into_iter().map(view::id_text));
            }
        }
        let unknown = asked.into_iter().filter(|id| !closed.contains(&id.to_lowercase())).collect();
        let answer = Ok(Response::new(admin::CloseTunnelsResponse { closed, unknown }));
        self.ended(audit, answer, |it: &admin::CloseTunnelsResponse| {
            format!("{} tunnels closed, {} unknown", it.closed.len(), it.unknown.len())
        })
    }

    async fn restart(
        &self,
        request: Request<admin::RestartRequest>,
    ) -> Answer<admin::RestartResponse> {
        let asked = request.get_ref().listener.as_str();
        let what = if asked.is_empty() { "every listener" } else { asked };
        let audit = self.audit(&request, "Restart", what).await;
        let answer = self.replace_workers(asked).await;
        self.ended(audit, answer, |answer| {
            let failed = answer.replaced.iter().filter(|it| !it.error.is_empty()).count();
            format!("{} workers replaced, {failed} not", answer.replaced.len() - failed)
        })
    }

    async fn upgrade(
        &self,
        request: Request<admin::UpgradeRequest>,
    ) -> Answer<Self::UpgradeStream> {
        let asked = request.get_ref().binary.as_str();
        let what = if asked.is_empty() { "to the file that it was started from" } else { asked };
        let audit = self.audit(&request, "Upgrade", what).await;
        let answer = self.begin_upgrade(asked, audit.by().to_owned());
        self.ended(audit, answer, |_| "begun; the log tells its steps".to_owned())
    }

    async fn watch_upgrade(
        &self,
        request: Request<admin::WatchUpgradeRequest>,
    ) -> Answer<Self::WatchUpgradeStream> {
        let id = request.into_inner().id;
        if self.supervisor.upgrades.watch().borrow().id != id {
            return Err(Status::not_found(format!(
                "no upgrade {id:?} is known: the gateway was started anew, or upgraded again"
            )));
        }
        Ok(Response::new(self.steps(id)))
    }

    async fn log_filter(
        &self,
        request: Request<admin::LogFilterRequest>,
    ) -> Answer<admin::LogFilterResponse> {
        let now = || Ok(Response::new(admin::LogFilterResponse { filter: log_filter::now() }));
        let Some(filter) = &request.get_ref().filter else { return now() };
        let audit = self.audit(&request, "LogFilter", filter).await;
        let set = log_filter::set(filter).map_err(Status::invalid_argument);
        self.ended(audit, set.and_then(|()| now()), |answer| answer.filter.clone())
    }

    async fn stop(&self, request: Request<admin::StopRequest>) -> Answer<admin::StopResponse> {
        let audit = self.audit(&request, "Stop", "").await;
        if request.get_ref().detach {
            let how = self.supervisor.begin_detach();
            let answer = Ok(Response::new(admin::StopResponse {}));
            return self.ended(audit, answer, |_| how.to_owned());
        }
        let asked = request.get_ref().drain_timeout_ms.map(Duration::from_millis);
        let patience = asked.unwrap_or_else(|| self.supervisor.stop_drain());
        self.supervisor.begin_stop(patience);
        let answer = Ok(Response::new(admin::StopResponse {}));
        self.ended(audit, answer, |_| format!("drains for {patience:?} at most"))
    }
}
