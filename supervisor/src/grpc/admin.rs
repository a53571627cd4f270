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

use super::{explain, history, mend, peer, view};
use crate::change::file::Occasion;
use crate::change::{ChangeError, Outcome, Proposal, to_wire};
use crate::group::replacement;
use crate::health::DrainedBackend;
use crate::state::Supervisor;
use crate::upgrade::{chain, is_last};

/// How often a watched status is looked at again besides what rings: tunnel counts change without a bell.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

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

    /// One line for each change that somebody asks for, whatever comes of it; then waits for the start to be over.
    async fn audit<T>(&self, request: &Request<T>, what: &str) -> String {
        let by = peer(request)
            .map_or_else(|| "unknown peer".to_owned(), |(pid, uid)| format!("uid {uid} pid {pid}"));
        tracing::info!(target: "audit", what, by);
        if what != "stop" {
            // A start that is stopped is never over. Both arms only wait.
            tokio::select! {
                () = self.supervisor.started() => {}
                () = self.supervisor.stopped() => {}
            }
        }
        by
    }

    /// Carries a change out to its end, also when its caller has gone away: one that has reached the ledger is in
    /// force, and must not be left half served.
    async fn change(
        &self,
        change: impl Future<Output = Result<Outcome, Arc<ChangeError>>> + Send + 'static,
    ) -> Answer<admin::ChangeResponse> {
        let ended = tokio::spawn(change).await;
        let result = ended.map_err(|error| Status::internal(format!("the change: {error}")))?;
        answer(&self.supervisor, result)
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

    async fn set_drained(
        &self,
        request: &admin::DrainRequest,
        drained: bool,
    ) -> Answer<admin::DrainResponse> {
        let backend = self.find(request)?;
        let changed = {
            let mut ledger = self.supervisor.ledger();
            let mut all: Vec<DrainedBackend> = ledger.drained().to_vec();
            let before = all.len();
            all.retain(|it| *it != backend);
            let was = all.len() < before;
            if drained {
                all.push(backend.clone());
            }
            if was != drained {
                let wrote = tokio::task::block_in_place(|| ledger.set_drained(&all));
                wrote.map_err(|error| Status::failed_precondition(mend::told(&error)))?;
                self.supervisor.health.set_drained(&all);
            }
            was != drained
        };
        let tunnels = view::tunnels(&self.supervisor).await;
        let on_it = tunnels.iter().filter(|tunnel| {
            tunnel.pool.eq_ignore_ascii_case(&backend.pool)
                && (tunnel.backend == backend.backend
                    || tunnel.backend.rsplit_once(':').is_some_and(|(it, _)| it == backend.backend))
        });
        let tunnels = on_it.count() as u64;
        Ok(Response::new(admin::DrainResponse { changed, tunnels }))
    }

    /// The pool and backend that a request names, as configured.
    fn find(&self, request: &admin::DrainRequest) -> Result<DrainedBackend, Status> {
        let report = self.supervisor.health.report();
        let pools: Vec<_> =
            report.iter().filter(|it| it.pool.eq_ignore_ascii_case(&request.pool)).collect();
        let Some(pool) = pools.first() else {
            let names: Vec<_> = report.iter().map(|it| it.pool.as_str()).collect();
            let names = names.join(", ");
            let message = format!("no pool {:?} is routed to; there are: {names}", request.pool);
            return Err(Status::not_found(message));
        };
        let backends = || pools.iter().flat_map(|pool| &pool.backends);
        let wanted = DrainedBackend { pool: pool.pool.clone(), backend: request.backend.clone() };
        if backends().any(|it| wanted.names_address(&it.address, it.port)) {
            return Ok(wanted);
        }
        let name = |it: &admin::BackendHealth| {
            let six = it.address.contains(':');
            if six {
                format!("[{}]:{}", it.address, it.port)
            } else {
                format!("{}:{}", it.address, it.port)
            }
        };
        let names: Vec<_> = backends().map(name).collect();
        let (name, names) = (&pool.pool, names.join(", "));
        let message =
            format!("pool {name:?} has no backend {:?}; it has: {names}", request.backend);
        Err(Status::not_found(message))
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
                _ => Status::failed_precondition(mend::told(&*error)),
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
        let by = self.audit(&request, "apply").await;
        let request = request.into_inner();
        let supervisor = self.supervisor.clone();
        let proposal = Proposal {
            document: request.document,
            base_dir: supervisor.base_dir.clone(),
            source: "apply".to_owned(),
            by,
            if_revision: request.if_revision,
            dry_run: request.dry_run,
        };
        self.change(async move { supervisor.change(proposal).await.map_err(Arc::new) }).await
    }

    async fn reload(
        &self,
        request: Request<admin::ReloadRequest>,
    ) -> Answer<admin::ChangeResponse> {
        let by = self.audit(&request, "reload").await;
        let supervisor = self.supervisor.clone();
        self.change(async move { supervisor.reload(Occasion::Asked, by).await }).await
    }

    async fn rollback(
        &self,
        request: Request<admin::RollbackRequest>,
    ) -> Answer<admin::ChangeResponse> {
        let by = self.audit(&request, "rollback").await;
        let (supervisor, revision) = (self.supervisor.clone(), request.get_ref().revision);
        self.change(async move { supervisor.rollback(revision, by).await.map_err(Arc::new) }).await
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
        let tunnels = view::tunnels(&self.supervisor).await;
        Ok(Response::new(admin::TunnelsResponse { tunnels }))
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
        self.audit(&request, "drain").await;
        self.set_drained(request.get_ref(), true).await
    }

    async fn undrain(&self, request: Request<admin::DrainRequest>) -> Answer<admin::DrainResponse> {
        self.audit(&request, "undrain").await;
        self.set_drained(request.get_ref(), false).await
    }

    async fn close_tunnels(
        &self,
        request: Request<admin::CloseTunnelsRequest>,
    ) -> Answer<admin::CloseTunnelsResponse> {
        self.audit(&request, "close tunnels").await;
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
        Ok(Response::new(admin::CloseTunnelsResponse { closed, unknown }))
    }

    async fn restart(
        &self,
        request: Request<admin::RestartRequest>,
    ) -> Answer<admin::RestartResponse> {
        self.audit(&request, "restart").await;
        let asked = &request.get_ref().listener;
        let groups = self.supervisor.groups();
        let chosen: Vec<_> = groups
            .iter()
            .filter(|group| asked.is_empty() || group.address.to_string() == *asked)
            .collect();
        if chosen.is_empty() {
            let names: Vec<_> = groups.iter().map(|group| group.address.to_string()).collect();
            let names = names.join(", ");
            return Err(Status::not_found(format!("no listener {asked:?}; there are: {names}")));
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

    async fn upgrade(
        &self,
        request: Request<admin::UpgradeRequest>,
    ) -> Answer<Self::UpgradeStream> {
        let by = self.audit(&request, "upgrade").await;
        let binary = request.into_inner().binary;
        let binary = (!binary.is_empty()).then(|| PathBuf::from(binary));
        if binary.as_ref().is_some_and(|path| path.is_relative()) {
            return Err(Status::invalid_argument("the binary's path must be absolute"));
        }
        let id = self.supervisor.upgrades.ask(binary, by);
        let id = id.map_err(|error| Status::failed_precondition(chain(&error)))?;
        Ok(Response::new(self.steps(id)))
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
        if let Some(filter) = &request.get_ref().filter {
            self.audit(&request, "log filter").await;
            log_filter::set(filter).map_err(Status::invalid_argument)?;
        }
        Ok(Response::new(admin::LogFilterResponse { filter: log_filter::now() }))
    }

    async fn stop(&self, request: Request<admin::StopRequest>) -> Answer<admin::StopResponse> {
        self.audit(&request, "stop").await;
        if request.get_ref().detach {
            self.supervisor.begin_detach();
            return Ok(Response::new(admin::StopResponse {}));
        }
        let asked = request.get_ref().drain_timeout_ms.map(Duration::from_millis);
        self.supervisor.begin_stop(asked.unwrap_or_else(|| self.supervisor.stop_drain()));
        Ok(Response::new(admin::StopResponse {}))
    }
}
