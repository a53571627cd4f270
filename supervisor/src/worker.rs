//! One worker as the supervisor sees it: what is wanted of it, what it has said.
//!
//! Everything is state, latest wins, so that a worker that redials is told again without anybody remembering what was
//! lost. Only tunnel queries are calls.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::admin::{ExplainRequest, ExplainResponse};
use holdfast_proto::control::{
    AskReport, CloseResult, CloseTunnels, Explain, Explained, ListTunnels, ListenerSnapshot,
    ReopenLogs, Tunnel, TunnelList, WorkerDirective, WorkerState, worker_directive,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::children::Incarnation;

/// How long a worker may take over a query before it is left out of the answer.
pub(crate) const QUERY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a status waits for fresh figures of a worker.
pub(crate) const FRESH_PATIENCE: Duration = Duration::from_millis(250);
/// Queries on their way to one worker; more wait in their callers.
const QUERIES: usize = 8;

/// What is wanted of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Take snapshots, don't accept.
    Stand,
    /// Accept and serve.
    Serve,
    /// Take no new work; tunnels live for at most this long (`None`: until they end).
    Drain {
        /// Time for tunnels, from when the worker hears it.
        tunnel_deadline: Option<Duration>,
        /// For the log.
        reason: String,
    },
}

/// What a worker has said.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each as it was said")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Its stream is open.
    pub connected: bool,
    /// Last state that it announced.
    pub state: WorkerState,
    /// It announced that it serves at least once.
    pub served: bool,
    /// Last revision that it acknowledged.
    pub revision: u64,
    /// Last revision that it refused, and why.
    pub refusal: Option<(u64, String)>,
    /// Live tunnels.
    pub tunnels: u64,
    /// Of these, the vault holds so many.
    pub protected: u64,
    /// Of these, so many cannot move.
    pub pinned: u64,
    /// The last demand for a report that it has answered.
    pub reported: u64,
    /// Every tunnel that can move is its successor's.
    pub handed_over: bool,
    /// Version of its executable.
    pub version: String,
    /// Why it can only be asked to drain: it speaks another protocol.
    pub foreign: Option<String>,
    /// The revision that it was not sent: it is of an older build, which would pass over some of it. It is to be replaced.
    pub outgrown: Option<u64>,
    /// Its process is gone.
    pub gone: bool,
}

/// A list that is still coming, and who waits for it.
type List = (Vec<Tunnel>, oneshot::Sender<Vec<Tunnel>>);

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its process.
    pub incarnation: Arc<Incarnation>,
    /// Its number in its group.
    pub generation: u64,
    /// What it accepts on, until it drains: an address is given back while its last worker lives on.
    socket: Mutex<Option<Arc<TcpListener>>>,
    /// The listener's snapshots, latest wins.
    pub snapshots: watch::Receiver<Option<Arc<ListenerSnapshot>>>,
    intent: watch::Sender<Intent>,
    view: watch::Sender<View>,
    queries: mpsc::Sender<WorkerDirective>,
    pending_queries: Mutex<Option<mpsc::Receiver<WorkerDirective>>>,
    next_query: AtomicU64,
    lists: Mutex<HashMap<u64, List>>,
    closes: Mutex<HashMap<u64, oneshot::Sender<Vec<u64>>>>,
    questions: Mutex<HashMap<u64, oneshot::Sender<Vec<ExplainResponse>>>>,
}

// === impl Worker ===

impl Worker {
    /// A worker whose process was just started or found.
    pub fn new(
        incarnation: Arc<Incarnation>,
        generation: u64,
        socket: Option<Arc<TcpListener>>,
        snapshots: watch::Receiver<Option<Arc<ListenerSnapshot>>>,
    ) -> Self {
        let (queries, pending) = mpsc::channel(QUERIES);
        let view = View { state: WorkerState::Starting, ..View::default() };
        Self {
            incarnation,
            generation,
            socket: Mutex::new(socket),
            snapshots,
            intent: watch::Sender::new(Intent::Stand),
            view: watch::Sender::new(view),
            queries,
            pending_queries: Mutex::new(Some(pending)),
            next_query: AtomicU64::new(1),
            lists: Mutex::default(),
            closes: Mutex::default(),
            questions: Mutex::default(),
        }
    }

    /// What it has said, now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// What it says, as it changes.
    pub fn watch_view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Notes something that it said.
    pub fn note(&self, change: impl FnOnce(&mut View)) {
        self.view.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        });
    }

    /// What it accepts on; `None` once it drains.
    pub fn socket(&self) -> Option<Arc<TcpListener>> {
        lock(&self.socket).clone()
    }

    /// Wants something of it. A draining worker is never asked to serve again.
    pub fn want(&self, intent: Intent) {
        if matches!(intent, Intent::Drain { .. }) {
            *lock(&self.socket) = None;
        }
        self.intent.send_if_modified(|now| {
            let backwards =
                matches!(now, Intent::Drain { .. }) && !matches!(intent, Intent::Drain { .. });
            if backwards || *now == intent {
                return false;
            }
            *now = intent;
            true
        });
    }

    /// What is wanted of it.
    pub fn intent(&self) -> watch::Receiver<Intent> {
        self.intent.subscribe()
    }

    /// The queries to send on; taken by the one session that is open, and given back at its end.
    pub fn take_queries(&self) -> Option<mpsc::Receiver<WorkerDirective>> {
        lock(&self.pending_queries).take()
    }

    /// Gives the queries back for the next session.
    pub fn return_queries(&self, queries: mpsc::Receiver<WorkerDirective>) {
        *lock(&self.pending_queries) = Some(queries);
    }

    /// Has it say its figures now; waits a moment for them.
    pub async fn report_now(&self) {
        let mut view = self.watch_view();
        if !view.borrow().connected {
            return;
        }
        let request = self.next_query.fetch_add(1, Ordering::Relaxed);
        let kind = Some(worker_directive::Kind::AskReport(AskReport { request }));
        let asking = async {
            self.queries.send(WorkerDirective { kind }).await.ok()?;
            view.wait_for(|view| view.reported >= request || !view.connected).await.ok().map(drop)
        };
        // One that is stopped is shown as it was last heard.
        drop(tokio::time::timeout(FRESH_PATIENCE, asking).await);
    }

    /// Has it open its access log anew, and waits until it has heard of it.
    pub async fn reopen_logs(&self) {
        if !self.view.borrow().connected {
            return;
        }
        let kind = Some(worker_directive::Kind::ReopenLogs(ReopenLogs {}));
        let telling = self.queries.send(WorkerDirective { kind });
        let told = tokio::time::timeout(QUERY_PATIENCE, telling).await;
        // What it is asked behind that is answered behind that. One that is stopped looks by itself when it runs again.
        if matches!(told, Ok(Ok(()))) && !self.answers().await {
            tracing::warn!(
                pid = self.incarnation.pid(),
                "a worker has not heard in time that its access log is to be opened anew"
            );
        }
    }

    /// Its live tunnels; nothing when it does not answer in time.
    pub async fn tunnels(&self) -> Option<Vec<Tunnel>> {
        let request = self.next_query.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.lists).insert(request, (Vec::new(), answer));
        let kind = worker_directive::Kind::ListTunnels(ListTunnels { request });
        let tunnels = self.ask(kind, answered).await;
        lock(&self.lists).remove(&request);
        tunnels
    }

    /// Ends tunnels; gives back those that were its own.
    pub async fn close_tunnels(&self, ids: Vec<u64>) -> Vec<u64> {
        self.close(ids).await.unwrap_or_default()
    }

    /// Whether it answers in time: one that is stopped, or stuck, does not.
    pub async fn answers(&self) -> bool {
        self.close(Vec::new()).await.is_some()
    }

    async fn close(&self, ids: Vec<u64>) -> Option<Vec<u64>> {
        let request = self.next_query.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.closes).insert(request, answer);
        let kind = worker_directive::Kind::CloseTunnels(CloseTunnels { request, ids });
        let closed = self.ask(kind, answered).await;
        lock(&self.closes).remove(&request);
        closed
    }

    /// What would become of a request; nothing when it does not answer in time, or does not know the question.
    pub async fn explain(&self, question: ExplainRequest) -> Option<ExplainResponse> {
        let request = self.next_query.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.questions).insert(request, answer);
        let explain = Explain { request, question: Some(question) };
        let told = self.ask(worker_directive::Kind::Explain(explain), answered).await;
        lock(&self.questions).remove(&request);
        told.and_then(|told| told.into_iter().next())
    }

    async fn ask<T>(
        &self,
        kind: worker_directive::Kind,
        answered: oneshot::Receiver<Vec<T>>,
    ) -> Option<Vec<T>> {
        if !self.view.borrow().connected {
            return None;
        }
        let asking = async {
            self.queries.send(WorkerDirective { kind: Some(kind) }).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(QUERY_PATIENCE, asking).await.ok().flatten()
    }

    /// Part of an answer to [`Worker::tunnels`].
    pub fn note_tunnels(&self, list: TunnelList) {
        let mut lists = lock(&self.lists);
        let Some((so_far, _)) = lists.get_mut(&list.request) else { return };
        so_far.extend(list.tunnels);
        if list.last
            && let Some((all, answer)) = lists.remove(&list.request)
        {
            // Nobody waits any more: the caller's patience ended first.
            drop(answer.send(all));
        }
    }

    /// An answer to [`Worker::explain`].
    pub fn note_explained(&self, explained: Explained) {
        if let Some(answer) = lock(&self.questions).remove(&explained.request) {
            drop(answer.send(explained.answer.into_iter().collect()));
        }
    }

    /// An answer to [`Worker::close_tunnels`].
    pub fn note_closed(&self, result: CloseResult) {
        if let Some(answer) = lock(&self.closes).remove(&result.request) {
            drop(answer.send(result.closed));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
