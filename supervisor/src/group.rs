//! One listener's workers: the sole owner of their lives.
//!
//! ```text
//!   spawn ──> standing ──(snapshot acknowledged, health complete)──> serving ──> draining ──> gone
//!                └─ died before it served: back-off                     └─ died: replaced at once
//! ```
//! A restart makes the successor serve before the predecessor drains; the listening socket stays here all the while,
//! so nobody is refused. Nothing here reads a snapshot or a verdict.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::admin::{Replacement, SilentWorker};
use holdfast_proto::control::{ListenerSnapshot, Tunnel};
use tokio::sync::{mpsc, oneshot, watch};

use crate::metrics::DeathCause;
use crate::worker::{Intent, View, Worker};

mod keeper;

pub use keeper::Surroundings;

/// Orders on their way to a group; more wait in their callers.
const ORDERS: usize = 8;

/// A listener's workers, for everybody but their keeper.
#[derive(Debug)]
pub struct Group {
    /// The bound address.
    pub address: SocketAddr,
    snapshots: watch::Sender<Option<Arc<ListenerSnapshot>>>,
    board: Arc<Board>,
    orders: mpsc::Sender<Order>,
    /// The keeper's, and gone when it has given the address back.
    socket: Weak<TcpListener>,
}

/// Who is there, and a bell that rings when anything about them changes.
#[derive(Debug, Default)]
struct Board {
    workers: Mutex<Vec<Arc<Worker>>>,
    changed: watch::Sender<u64>,
    /// Its workers keep dying by themselves; over when one has lived until then.
    looping_until: Mutex<Option<tokio::time::Instant>>,
}

/// What a group can be told to do.
#[derive(Debug)]
enum Order {
    /// Replace the serving worker.
    Restart { reply: oneshot::Sender<Result<Replaced, String>> },
    /// The listener is no longer configured: give the address back, live on until the tunnels end.
    Retire { given_back: oneshot::Sender<()> },
    /// Everything ends; others listen on the socket as well, and go on, if it `is_lent`.
    Stop { tunnel_deadline: Duration, is_lent: bool },
}

/// A finished restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The predecessor; 0 when there was none.
    pub old_pid: u32,
    /// The successor.
    pub new_pid: u32,
    /// Tunnels that could not move, and drain with the predecessor.
    pub pinned: u64,
}

/// A restart as operators hear of it.
pub(crate) fn replacement(listener: SocketAddr, outcome: Result<Replaced, String>) -> Replacement {
    let listener = listener.to_string();
    match outcome {
        Ok(Replaced { old_pid, new_pid, pinned }) => {
            Replacement { listener, old_pid, new_pid, error: String::new(), pinned }
        }
        Err(error) => Replacement { listener, error, ..Replacement::default() },
    }
}

/// A worker found alive at the supervisor's start.
#[derive(Debug)]
pub struct Adopted {
    /// Its process.
    pub incarnation: Arc<crate::children::Incarnation>,
    /// Its number.
    pub generation: u64,
}

// === impl Group ===

impl Group {
    /// Starts keeping workers on `socket`, with `snapshot` to serve.
    pub fn start(
        address: SocketAddr,
        socket: TcpListener,
        snapshot: ListenerSnapshot,
        adopted: Vec<Adopted>,
        surroundings: Surroundings,
    ) -> Arc<Self> {
        let threads = snapshot.limits.as_ref().map_or(0, |limits| limits.threads);
        let threads = if threads > 0 { threads } else { one_a_processor() };
        let socket = Some(Arc::new(socket));
        Self::keep(address, socket, threads, Some(Arc::new(snapshot)), adopted, surroundings)
    }

    /// Keeps the workers of a listener that is no longer configured, until their tunnels end.
    pub fn retired(
        address: SocketAddr,
        adopted: Vec<Adopted>,
        surroundings: Surroundings,
    ) -> Arc<Self> {
        Self::keep(address, None, 0, None, adopted, surroundings)
    }

    fn keep(
        address: SocketAddr,
        socket: Option<Arc<TcpListener>>,
        threads: u32,
        snapshot: Option<Arc<ListenerSnapshot>>,
        adopted: Vec<Adopted>,
        surroundings: Surroundings,
    ) -> Arc<Self> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let kept = socket.as_ref().map(Arc::downgrade).unwrap_or_default();
        let board = Arc::new(Board::default());
        let snapshots = watch::Sender::new(snapshot);
        let told = snapshots.subscribe();
        let mut keeper =
            keeper::Keeper::new(address, socket, threads, told, board.clone(), surroundings);
        // Before anybody can see the group: one without workers and without a socket counts as gone.
        keeper.adopt(adopted);
        tokio::spawn(keeper.run(inbox));
        Arc::new(Self { address, snapshots, board, orders, socket: kept })
    }

    /// What its workers accept on, unless the address was given back.
    pub(crate) fn socket(&self) -> Option<Arc<TcpListener>> {
        self.socket.upgrade()
    }

    /// Publishes a snapshot to every worker of this listener.
    pub fn publish(&self, snapshot: ListenerSnapshot) {
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }

    /// The workers, oldest first.
    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.board.workers()
    }

    /// The live tunnels of all its workers, and who has some and has not told which. All are asked at once: one that does
    /// not answer keeps nobody waiting for the others.
    pub async fn tunnels(&self) -> (Vec<Tunnel>, Vec<SilentWorker>) {
        let workers = self.workers();
        let lists = join_all(workers.iter().map(|worker| worker.tunnels())).await;
        let silent = workers.iter().zip(&lists).filter(|(_, list)| list.is_none());
        let silent = silent.map(|(worker, _)| SilentWorker {
            listener: self.address.to_string(),
            pid: worker.incarnation.pid(),
            tunnels: worker.view().tunnels,
        });
        let silent = silent.filter(|it| it.tunnels > 0).collect();
        (lists.into_iter().flatten().flatten().collect(), silent)
    }

    /// Whether its workers keep dying by themselves.
    pub fn looping(&self) -> bool {
        lock(&self.board.looping_until).is_some_and(|over| tokio::time::Instant::now() < over)
    }

    /// Rings whenever a worker comes, goes or says something.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.board.changed.subscribe()
    }

    /// Waits until every worker that is connected serves `revision` or has refused it, and one serves at all.
    pub async fn acknowledged(&self, revision: u64) {
        let mut bell = self.watch();
        // Ends when the group does: the sender lives in the board that we hold, so only by its predicate.
        drop(bell.wait_for(|_| self.board.all_answered(revision)).await);
    }

    /// Pids of the workers that have been sent `revision`, and neither serve it nor have refused it.
    pub fn unanswered(&self, revision: u64) -> Vec<u32> {
        let workers = self.workers().into_iter().filter(|worker| {
            let view = worker.view();
            is_sent_snapshots(&view) && !has_answered(&view, revision)
        });
        workers.map(|worker| worker.incarnation.pid()).collect()
    }

    /// Waits until a worker serves.
    pub async fn serving(&self) {
        let mut bell = self.watch();
        drop(bell.wait_for(|_| self.board.workers().iter().any(|w| is_serving(&w.view()))).await);
    }

    /// Replaces the serving worker; answers when its successor serves. Callers at once share one successor.
    ///
    /// # Errors
    /// Why the successor could not be made to serve; the predecessor goes on then.
    pub async fn restart(&self) -> Result<Replaced, String> {
        let (reply, answer) = oneshot::channel();
        let gone = "the listener's workers have ended meanwhile";
        self.orders.send(Order::Restart { reply }).await.map_err(|_| gone.to_owned())?;
        answer.await.map_err(|_| gone.to_owned())?
    }

    /// Gives the address back and lets the workers live on until their tunnels end. Whoever connects after this has
    /// returned is refused.
    pub async fn retire(&self) {
        let (given_back, answer) = oneshot::channel();
        // A keeper that is gone has nothing left to give back; both errors say that.
        if self.orders.send(Order::Retire { given_back }).await.is_ok() {
            drop(answer.await);
        }
    }

    /// Drains every worker and waits until they are gone. A socket that `is_lent` goes on listening where others have it.
    pub async fn stop(&self, tunnel_deadline: Duration, is_lent: bool) {
        drop(self.orders.send(Order::Stop { tunnel_deadline, is_lent }).await);
        self.gone().await;
    }

    /// Waits until no worker is left.
    pub async fn gone(&self) {
        self.orders.closed().await;
    }

    /// Whether no worker is left, and none will be started.
    pub fn is_gone(&self) -> bool {
        self.orders.is_closed()
    }
}

// === impl Board ===

impl Board {
    fn workers(&self) -> Vec<Arc<Worker>> {
        lock(&self.workers).clone()
    }

    fn add(self: &Arc<Self>, worker: Arc<Worker>) {
        let mut view = worker.watch_view();
        lock(&self.workers).push(worker);
        let board = Arc::clone(self);
        tokio::spawn(async move {
            while view.changed().await.is_ok() {
                board.ring();
                if view.borrow().gone {
                    return;
                }
            }
        });
        self.ring();
    }

    fn remove(&self, number: u64) {
        lock(&self.workers).retain(|worker| worker.incarnation.number != number);
        self.ring();
    }

    fn ring(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn all_answered(&self, revision: u64) -> bool {
        let views: Vec<View> = self.workers().iter().map(|worker| worker.view()).collect();
        let told = || views.iter().filter(|view| is_sent_snapshots(view));
        told().any(is_serving) && told().all(|view| has_answered(view, revision))
    }
}

/// Those that are to be replaced are not: their successors are.
fn is_sent_snapshots(view: &View) -> bool {
    view.connected && view.outgrown.is_none()
}

fn has_answered(view: &View, revision: u64) -> bool {
    view.revision >= revision
        || view.refusal.as_ref().is_some_and(|(refused, _)| *refused >= revision)
}

fn is_serving(view: &View) -> bool {
    view.connected && view.state == holdfast_proto::control::WorkerState::Serving
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a worker's process ended, and whether by itself. A worker of an earlier supervisor leaves no exit status.
fn cause_of(status: Option<ExitStatus>, planned: bool, served: bool) -> (DeathCause, bool) {
    match status {
        Some(status) if planned && status.success() => (DeathCause::Planned, false),
        Some(status) if status.signal() == Some(nix::libc::SIGKILL) => (DeathCause::Killed, false),
        Some(_) if !served => (DeathCause::NeverServed, true),
        Some(status) if status.signal().is_some() => (DeathCause::Crashed, true),
        Some(_) => (DeathCause::Exited, true),
        None if planned => (DeathCause::Planned, false),
        None => (DeathCause::Exited, false),
    }
}

fn one_a_processor() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).unwrap_or(1)
}

/// Asks a worker to drain.
fn drain(worker: &Worker, tunnel_deadline: Option<Duration>, reason: &str) {
    worker.want(Intent::Drain { tunnel_deadline, reason: reason.to_owned() });
}
