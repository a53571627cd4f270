//! A worker's session: health, then snapshot, then intent down, in that order; what it says up.

use std::sync::Arc;

use futures_util::Stream;
use holdfast_proto::control::worker_control_server::WorkerControl;
use holdfast_proto::control::{
    Drain, Hello, ListenerSnapshot, SetLogFilter, StartServing, WorkerDirective, WorkerEvent,
    WorkerState, worker_directive, worker_event,
};
use holdfast_proto::log_filter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{foreign, identify, peer};
use crate::children;
use crate::state::Supervisor;
use crate::worker::{Intent, Worker};

/// Directives that one stream may hold: state is latest-wins and waits outside, so few are enough.
const DIRECTIVES: usize = 4;

type Directive = Result<WorkerDirective, Status>;

pub(super) struct Workers {
    supervisor: Arc<Supervisor>,
}

impl Workers {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }
}

#[tonic::async_trait]
impl WorkerControl for Workers {
    type SessionStream = std::pin::Pin<Box<dyn Stream<Item = Directive> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerEvent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = peer(&request);
        let mut events = request.into_inner();
        let first = events.message().await?.and_then(|event| event.kind);
        let hello = match &first {
            Some(worker_event::Kind::Hello(hello)) => Some(hello),
            _ => None,
        };
        let incarnation = identify(&self.supervisor, hello, peer)?;
        let worker = self
            .supervisor
            .worker(incarnation.number)
            .await
            .ok_or_else(|| Status::permission_denied("this child is no worker"))?;
        if let Some(stranger) = hello.and_then(children::foreign) {
            note_version(&worker, hello);
            let (directives, stream) = mpsc::channel(DIRECTIVES);
            tokio::spawn(foreign::see_out(worker, stranger, directives, events));
            return Ok(Response::new(Box::pin(ReceiverStream::new(stream))));
        }
        let queries = worker
            .take_queries()
            .ok_or_else(|| Status::already_exists("this worker has a session"))?;
        note_version(&worker, hello);
        worker.note(|view| view.connected = true);
        let (directives, stream) = mpsc::channel(DIRECTIVES);
        let health = self.supervisor.health.watch_health();
        let level = hello.map_or(0, |hello| hello.level);
        let session = Session { worker: worker.clone(), level, directives, health };
        let supervisor = self.supervisor.clone();
        tokio::spawn(async move {
            let mut queries = queries;
            // Whichever side ends first ends the session; both are dropped whole, nothing is shared half-way.
            tokio::select! {
                () = session.send(&mut queries) => {}
                () = listen(&supervisor, &worker, events) => {}
            }
            worker.note(|view| view.connected = false);
            worker.return_queries(queries);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn note_version(worker: &Worker, hello: Option<&Hello>) {
    let version = hello.map(|hello| hello.version.clone()).unwrap_or_default();
    worker.note(|view| view.version = version);
}

struct Session {
    worker: Arc<Worker>,
    /// What it knows of a snapshot.
    level: u32,
    directives: mpsc::Sender<Directive>,
    health: tokio::sync::watch::Receiver<Option<Arc<holdfast_proto::control::HealthSnapshot>>>,
}

impl Session {
    /// Sends what is new until the stream ends. Health goes before the snapshot that needs it, and both before a query that
    /// was asked after them: its answer tells that they have been heard.
    async fn send(mut self, queries: &mut mpsc::Receiver<WorkerDirective>) {
        let mut snapshots = self.worker.snapshots.clone();
        let mut intent = self.worker.intent();
        self.health.mark_changed();
        snapshots.mark_changed();
        intent.mark_changed();
        let mut filters = log_filter::watch();
        filters.mark_changed();
        let mut query: Option<WorkerDirective> = None;
        loop {
            let mut due = Vec::new();
            let filter = changed(&mut filters).filter(|filter| !filter.is_empty());
            due.extend(
                filter.map(|filter| worker_directive::Kind::SetLogFilter(SetLogFilter { filter })),
            );
            // Snapshot before health, so that a snapshot taken here was published with or before this health.
            let snapshot = changed(&mut snapshots).flatten();
            if let Some(health) = changed(&mut self.health).flatten() {
                due.push(worker_directive::Kind::Health(health.as_ref().clone()));
            }
            due.extend(snapshot.and_then(|snapshot| self.suited(&snapshot)));
            due.extend(changed(&mut intent).and_then(directive));
            for kind in due {
                if self.directives.send(Ok(WorkerDirective { kind: Some(kind) })).await.is_err() {
                    return;
                }
            }
            if let Some(query) = query.take()
                && self.directives.send(Ok(query)).await.is_err()
            {
                return;
            }
            // Cancel-safe: the watches are read above, and a query is sent on before the next wait.
            query = tokio::select! {
                Ok(()) = self.health.changed() => { self.health.mark_changed(); None }
                Ok(()) = snapshots.changed() => { snapshots.mark_changed(); None }
                Ok(()) = intent.changed() => { intent.mark_changed(); None }
                Ok(()) = filters.changed() => { filters.mark_changed(); None }
                query = queries.recv() => query,
                () = self.directives.closed() => return,
            };
        }
    }
}

impl Session {
    /// A snapshot to be sent, unless it needs more than the worker knows: then the keeper of its listener hears of it.
    fn suited(&self, snapshot: &ListenerSnapshot) -> Option<worker_directive::Kind> {
        let needed = crate::compile::needed(snapshot);
        let outgrown = (needed > self.level).then_some(snapshot.revision);
        self.worker.note(|view| view.outgrown = outgrown);
        if outgrown.is_none() {
            return Some(worker_directive::Kind::Snapshot(snapshot.clone()));
        }
        tracing::warn!(
            pid = self.worker.incarnation.pid(),
            revision = snapshot.revision,
            level = self.level,
            needed,
            "a worker of an older build is not sent a revision that it would serve in part only; it is replaced"
        );
        None
    }
}

fn changed<T: Clone>(watched: &mut tokio::sync::watch::Receiver<T>) -> Option<T> {
    watched.has_changed().unwrap_or(false).then(|| watched.borrow_and_update().clone())
}

fn directive(intent: Intent) -> Option<worker_directive::Kind> {
    match intent {
        Intent::Stand => None,
        Intent::Serve => Some(worker_directive::Kind::Serve(StartServing {})),
        Intent::Drain { tunnel_deadline, reason } => {
            let tunnel_deadline_ms = super::deadline_ms(tunnel_deadline);
            Some(worker_directive::Kind::Drain(Drain { tunnel_deadline_ms, reason }))
        }
    }
}

async fn listen(supervisor: &Supervisor, worker: &Worker, mut events: Streaming<WorkerEvent>) {
    loop {
        match events.message().await {
            Ok(Some(WorkerEvent { kind: Some(kind) })) => {
                if !note(supervisor, worker, kind) {
                    return;
                }
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// False: not allowed in this phase, the session ends.
fn note(supervisor: &Supervisor, worker: &Worker, kind: worker_event::Kind) -> bool {
    use worker_event::Kind;
    match kind {
        Kind::Hello(_) => {
            tracing::warn!(pid = worker.incarnation.pid(), "a worker said Hello twice");
            return false;
        }
        Kind::SnapshotAck(ack) if ack.refusal.is_empty() => worker.note(|view| {
            view.revision = ack.revision;
            view.refusal = None;
        }),
        Kind::SnapshotAck(ack) => {
            tracing::error!(
                pid = worker.incarnation.pid(),
                revision = ack.revision,
                reason = ack.refusal,
                "a worker refused a snapshot"
            );
            worker.note(|view| view.refusal = Some((ack.revision, ack.refusal)));
        }
        Kind::State(state) => worker.note(|view| {
            view.state = state.state();
            view.served |= state.state() == WorkerState::Serving;
        }),
        Kind::Report(report) => {
            worker.note(|view| {
                view.tunnels = report.tunnels_active;
                view.protected = report.tunnels_protected;
                view.pinned = report.tunnels_pinned;
                view.reported = view.reported.max(report.request);
            });
            let listener = match worker.incarnation.role {
                crate::children::Role::Worker { listener, .. } => listener.to_string(),
                crate::children::Role::Prober => return false,
            };
            let Some(process) = worker.incarnation.process() else { return false };
            supervisor.metrics.report(process, &listener, report);
        }
        Kind::HandedOver(left) => {
            worker.note(|view| {
                view.handed_over = true;
                view.tunnels = left.tunnels_left;
                // Whatever could move has moved.
                view.pinned = left.tunnels_left;
            });
            count_anew(supervisor, worker);
        }
        Kind::KnownHealth(health) => supervisor.health.recall(&health),
        Kind::Tunnels(list) => worker.note_tunnels(list),
        Kind::Closed(result) => worker.note_closed(result),
        Kind::Explained(explained) => worker.note_explained(explained),
    }
    true
}

/// Asks all workers of this one's listener for their figures: what has moved would be told of by nobody, or by two, until
/// each reports by itself, and plots would show tunnels that fell to nothing.
fn count_anew(supervisor: &Supervisor, worker: &Worker) {
    let children::Role::Worker { listener, .. } = worker.incarnation.role else { return };
    for group in supervisor.all_groups().into_iter().filter(|group| group.address == listener) {
        for worker in group.workers() {
            tokio::spawn(async move { worker.report_now().await });
        }
    }
}
