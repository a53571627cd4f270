//! The task that keeps one listener's workers: the only place that starts or replaces them.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::bootstrap::Death;
use holdfast_proto::control::ListenerSnapshot;
use holdfast_proto::failpoint;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Adopted, Board, Order, Replaced, cause_of, drain};
use crate::backoff::{self, Restarts};
use crate::children::{Children, Role};
use crate::counters::Counters;
use crate::health_board::HealthBoard;
use crate::metrics::{DeathCause, Metrics};
use crate::sockets;
use crate::spawn::Spawner;
use crate::vault::{Tenancy, Vault};
use crate::worker::{Intent, Worker};

mod waiting;

use waiting::{kill, outgrown, see_off, until, usher, wait};

/// Longest time that a stopping worker may take beyond its tunnels' deadline (requests in flight) before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Deaths that a new worker is told of: those whose tunnels it may still find.
const DEATHS: usize = 8;
/// Events of one group's children on their way to the keeper; each child sends at most two.
const EVENTS: usize = 16;

const RETIRED: &str = "the listener is no longer configured";

/// What a keeper needs of the rest of the supervisor.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Starts processes.
    pub spawner: Arc<Spawner>,
    /// Knows them.
    pub children: Arc<Children>,
    /// New workers wait for its first verdicts.
    pub health: Arc<HealthBoard>,
    /// Counts deaths.
    pub metrics: Arc<Metrics>,
    /// Outlives this process.
    pub counters: Arc<Counters>,
    /// Keeps what the listener's tunnels live on.
    pub vault: Arc<Vault>,
}

enum Event {
    Serving(u64),
    NotReady(u64, String),
    Drains(u64),
    /// One of an earlier supervisor is not sent what is in force.
    Outgrown,
    Gone(u64, Option<ExitStatus>),
}

struct Successor {
    worker: Arc<Worker>,
    /// Everybody who has asked for a restart since it was started.
    callers: Vec<Caller>,
}

type Caller = oneshot::Sender<Result<Replaced, String>>;

pub(super) struct Keeper {
    address: SocketAddr,
    socket: Option<Arc<TcpListener>>,
    threads: u32,
    snapshots: watch::Receiver<Option<Arc<ListenerSnapshot>>>,
    board: Arc<Board>,
    surroundings: Surroundings,
    current: Option<Arc<Worker>>,
    successor: Option<Successor>,
    restarts: Restarts,
    born: Instant,
    respawn_at: Option<Instant>,
    kill_at: Option<Instant>,
    /// Why there is no socket any more.
    let_go_for: &'static str,
    /// Everything ends: nobody is replaced.
    stopping: bool,
    /// The latest last.
    deaths: VecDeque<Death>,
    /// For as long as there is, or is to be, a worker.
    tenancy: Tenancy,
    events: mpsc::Sender<Event>,
    /// Taken by `run`.
    inbox: Option<mpsc::Receiver<Event>>,
}

impl Successor {
    /// Tells everybody who waits for it.
    fn answer(self, outcome: &Result<Replaced, String>) {
        for caller in self.callers {
            // A caller that has gone away has no use for it.
            drop(caller.send(outcome.clone()));
        }
    }
}

impl Keeper {
    pub(super) fn new(
        address: SocketAddr,
        socket: Option<Arc<TcpListener>>,
        threads: u32,
        snapshots: watch::Receiver<Option<Arc<ListenerSnapshot>>>,
        board: Arc<Board>,
        surroundings: Surroundings,
    ) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS);
        let tenancy = surroundings.vault.tenancy(address);
        Self {
            address,
            socket,
            threads,
            snapshots,
            board,
            surroundings,
            current: None,
            successor: None,
            restarts: Restarts::default(),
            born: Instant::now(),
            respawn_at: None,
            kill_at: None,
            let_go_for: RETIRED,
            stopping: false,
            deaths: VecDeque::new(),
            tenancy,
            events,
            inbox: Some(inbox),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let Some(mut inbox) = self.inbox.take() else { return };
        if self.current.is_none() {
            self.replace().await;
        }
        while self.is_needed() {
            // Every arm is cancel-safe: two channel receives and two sleeps until a fixed instant.
            tokio::select! {
                Some(event) = inbox.recv() => self.event(event).await,
                Some(order) = orders.recv() => self.order(order).await,
                () = until(self.respawn_at) => self.replace().await,
                () = until(self.kill_at) => self.kill_all(),
            }
        }
        if self.tenancy.end() {
            self.surroundings.metrics.closed(&self.address.to_string());
            self.surroundings.counters.save();
        }
    }

    fn is_needed(&self) -> bool {
        self.socket.is_some() || self.respawn_at.is_some() || !self.board.workers().is_empty()
    }

    /// Takes over workers that an earlier supervisor left; without a socket they are there to drain. Where there are several,
    /// the oldest goes on until the youngest serves, as in the handover that the earlier supervisor had begun.
    pub(super) fn adopt(&mut self, mut adopted: Vec<Adopted>) {
        adopted.sort_by_key(|child| child.generation);
        for child in adopted {
            let snapshots = self.snapshots.clone();
            let worker =
                Worker::new(child.incarnation, child.generation, self.socket.clone(), snapshots);
            let worker = Arc::new(worker);
            tokio::spawn(wait(worker.clone(), self.events.clone()));
            self.board.add(worker.clone());
            if self.socket.is_none() {
                drain(&worker, None, RETIRED);
                continue;
            }
            let health = self.surroundings.health.clone();
            tokio::spawn(usher(worker.clone(), health, self.events.clone()));
            tokio::spawn(outgrown(worker.clone(), self.events.clone()));
            if self.current.is_none() {
                self.current = Some(worker);
                continue;
            }
            let youngest = Successor { worker, callers: Vec::new() };
            if let Some(older) = self.successor.replace(youngest) {
                drain(&older.worker, None, "a younger one was found at the supervisor's start");
            }
        }
    }

    /// Starts a worker that becomes the current one once it serves.
    async fn replace(&mut self) {
        self.respawn_at = None;
        if self.socket.is_none() {
            return self.care().await;
        }
        if self.successor.is_some() {
            return;
        }
        match self.spawn().await {
            Ok(worker) => self.successor = Some(Successor { worker, callers: Vec::new() }),
            Err(error) => {
                let listener = self.address;
                tracing::error!(%listener, error = &*error,
                    "cannot start a worker: tunnels and connections of the dead one wait for it");
                self.respawn_at = Some(Instant::now() + self.died(false, true));
            }
        }
    }

    async fn spawn(&mut self) -> Result<Arc<Worker>, Box<dyn std::error::Error + Send + Sync>> {
        if self.socket.is_none() {
            return Err(self.let_go_for.into());
        }
        self.bear().await
    }

    /// Starts a worker; without a socket it only looks after tunnels.
    async fn bear(&mut self) -> Result<Arc<Worker>, Box<dyn std::error::Error + Send + Sync>> {
        let generation = self.surroundings.children.next_generation();
        let role = Role::Worker { listener: self.address, generation };
        let deaths = self.deaths.clone().into();
        let incarnation = self.surroundings.spawner.spawn(role, self.threads, deaths).await?;
        let snapshots = self.snapshots.clone();
        let worker = Arc::new(Worker::new(incarnation, generation, self.socket.clone(), snapshots));
        tracing::info!(listener = %self.address, pid = worker.incarnation.pid(),
            generation, "worker started");
        tokio::spawn(wait(worker.clone(), self.events.clone()));
        self.board.add(worker.clone());
        let health = self.surroundings.health.clone();
        tokio::spawn(usher(worker.clone(), health, self.events.clone()));
        Ok(worker)
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Restart { reply } => self.restart(reply).await,
            Order::Retire { given_back } => {
                self.let_go(None, RETIRED, false);
                if given_back.send(()).is_err() {
                    tracing::debug!(listener = %self.address, "nobody waited for the address");
                }
                // All its workers may be dead just now.
                self.care().await;
            }
            Order::Stop { tunnel_deadline, is_lent } => {
                self.stopping = true;
                self.let_go(Some(tunnel_deadline), "the gateway stops", is_lent);
                self.kill_at = Some(Instant::now() + tunnel_deadline + STOP_PATIENCE);
            }
        }
    }

    fn let_go(&mut self, tunnel_deadline: Option<Duration>, reason: &'static str, is_lent: bool) {
        self.let_go_for = reason;
        if let Some(socket) = self.socket.take().filter(|_| !is_lent) {
            // Workers hold duplicates until they have heard of it, and nobody is to wait in a queue without a future.
            sockets::give_back(&socket);
            failpoint!("address.given_back");
        }
        self.respawn_at = None;
        if let Some(successor) = self.successor.take() {
            successor.answer(&Err(reason.to_owned()));
        }
        self.current = None;
        for worker in self.board.workers() {
            drain(&worker, tunnel_deadline, reason);
        }
    }

    async fn restart(&mut self, caller: Caller) {
        if let Some(successor) = &mut self.successor {
            // A replacement is on its way already (a crash, another restart): it replaces what this caller saw.
            successor.callers.push(caller);
            return;
        }
        match self.spawn().await {
            Ok(worker) => {
                // It comes in the place of the one that was waited for.
                self.respawn_at = None;
                self.successor = Some(Successor { worker, callers: vec![caller] });
            }
            Err(error) => drop(caller.send(Err(error.to_string()))),
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Serving(number) => self.serving(number),
            Event::NotReady(number, reason) => self.not_ready(number, &reason).await,
            Event::Drains(number) => self.drains(number),
            Event::Outgrown => {}
            Event::Gone(number, status) => {
                self.gone(number, status);
                self.care().await;
            }
        }
        if self.needs_one() && self.successor.is_none() && self.respawn_at.is_none() {
            self.replace().await;
        }
    }

    /// Whether nobody serves, or one who cannot be told what is in force.
    fn needs_one(&self) -> bool {
        self.current.as_ref().is_none_or(|worker| worker.view().outgrown.is_some())
    }

    fn serving(&mut self, number: u64) {
        let is_it = |s: &mut Successor| s.worker.incarnation.number == number;
        let Some(successor) = self.successor.take_if(is_it) else { return };
        let new_pid = successor.worker.incarnation.pid();
        let predecessor = self.current.replace(successor.worker.clone());
        let old_pid = predecessor.as_ref().map_or(0, |worker| worker.incarnation.pid());
        if let Some(worker) = &predecessor {
            let limits = self.snapshots.borrow().as_ref().and_then(|snapshot| snapshot.limits);
            let deadline = limits.map_or(0, |limits| limits.drain_timeout_ms);
            let deadline = (deadline > 0).then(|| Duration::from_millis(deadline));
            drain(worker, deadline, "replaced by its successor");
        }
        tokio::spawn(async move {
            let pinned = match predecessor {
                Some(predecessor) => see_off(&predecessor).await,
                None => 0,
            };
            successor.answer(&Ok(Replaced { old_pid, new_pid, pinned }));
        });
        tracing::info!(listener = %self.address, pid = new_pid, "worker serves");
    }

    /// One that an earlier supervisor has left was told to drain already.
    fn drains(&mut self, number: u64) {
        let is_it = |worker: &Arc<Worker>| worker.incarnation.number == number;
        let mut drained = self.current.take_if(|worker| is_it(worker));
        if let Some(successor) = self.successor.take_if(|it| is_it(&it.worker)) {
            drained = Some(successor.worker.clone());
            successor.answer(&Err("the new worker was told to drain".to_owned()));
        }
        if let Some(worker) = drained {
            drain(&worker, None, "it drained when this supervisor came");
        }
    }

    async fn not_ready(&mut self, number: u64, reason: &str) {
        if let Some(current) = &self.current
            && current.incarnation.number == number
        {
            // One of an earlier supervisor. It may have tunnels: its successor takes them in the usual way.
            let pid = current.incarnation.pid();
            tracing::error!(listener = %self.address, pid, reason, "worker found, but not ready; replacing it");
            return self.replace().await;
        }
        let is_it = |s: &mut Successor| s.worker.incarnation.number == number;
        let Some(successor) = self.successor.take_if(is_it) else { return };
        let pid = successor.worker.incarnation.pid();
        tracing::error!(listener = %self.address, pid, reason, "worker did not become ready, ending it");
        kill(&successor.worker.incarnation);
        successor.answer(&Err(reason.to_owned()));
        if self.needs_one() {
            self.respawn_at = Some(Instant::now() + self.died(false, true));
        }
    }

    fn note_death(&mut self, generation: u64, by_itself: bool) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        let at_us = seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000);
        self.deaths.push_back(Death { generation, by_itself, at_us });
        if self.deaths.len() > DEATHS {
            self.deaths.pop_front();
        }
    }

    /// Where the last worker of a removed listener has died, its tunnels live on: somebody must look after them. Where
    /// the listener has come back, or was removed twice, other keepers' workers do.
    async fn care(&mut self) {
        if self.socket.is_some() || self.stopping || !self.board.workers().is_empty() {
            return;
        }
        let left = self.surroundings.vault.tunnels_of(self.address);
        if self.tenancy.leave_to_others() || left == 0 {
            return;
        }
        match self.bear().await {
            Ok(worker) => {
                tracing::info!(listener = %self.address, tunnels = left,
                    "a worker looks after a removed listener's tunnels");
                drain(&worker, None, RETIRED);
            }
            Err(error) => {
                let listener = self.address;
                tracing::error!(%listener, error = &*error, tunnels = left,
                    "cannot start a worker that looks after a removed listener's tunnels: they wait for it");
                self.respawn_at = Some(Instant::now() + self.died(false, true));
            }
        }
    }

    fn gone(&mut self, number: u64, status: Option<ExitStatus>) {
        let workers = self.board.workers();
        let Some(worker) = workers.into_iter().find(|w| w.incarnation.number == number) else {
            return;
        };
        let view = worker.view();
        worker.note(|view| {
            view.gone = true;
            view.connected = false;
        });
        self.board.remove(number);
        self.surroundings.children.gone(&worker.incarnation);
        let planned = matches!(*worker.intent().borrow(), Intent::Drain { .. });
        let (cause, by_itself) = cause_of(status, planned, view.served);
        self.note_death(worker.generation, by_itself);
        let pid = worker.incarnation.pid();
        let listener = self.address.to_string();
        if let Some(process) = worker.incarnation.process() {
            self.surroundings.metrics.ended(process);
        }
        self.surroundings.metrics.worker_died(&listener, cause);
        let counters = self.surroundings.counters.clone();
        // Its successor does not wait for a disk.
        tokio::task::spawn_blocking(move || counters.save());
        if cause == DeathCause::Planned {
            tracing::info!(listener, pid, "drained worker left");
        } else {
            let status = status.map(|status| status.to_string());
            tracing::warn!(listener, pid, ?cause, status, tunnels = view.tunnels, "worker died");
        }
        let is_it = |s: &mut Successor| s.worker.incarnation.number == number;
        if let Some(successor) = self.successor.take_if(is_it) {
            successor.answer(&Err(format!("the new worker (pid {pid}) died before it served")));
            let delay = self.died(false, by_itself);
            self.respawn_at = self.needs_one().then(|| Instant::now() + delay);
        } else if self.current.take_if(|w| w.incarnation.number == number).is_some() {
            let delay = self.died(view.served, by_itself);
            self.respawn_at = (self.successor.is_none()).then(|| Instant::now() + delay);
        }
    }

    fn died(&mut self, served: bool, by_itself: bool) -> Duration {
        let delay = self.restarts.died(self.born.elapsed(), served, by_itself);
        let looping = self.restarts.looping(self.born.elapsed());
        *super::lock(&self.board.looping_until) =
            looping.then(|| Instant::now() + delay + backoff::WINDOW);
        if looping {
            let listener = self.address;
            tracing::error!(%listener, ?delay, "workers keep dying by themselves; waiting before the next");
        }
        delay
    }

    fn kill_all(&mut self) {
        self.kill_at = None;
        for worker in self.board.workers() {
            tracing::warn!(listener = %self.address, pid = worker.incarnation.pid(),
                "worker outlived its deadline, killing it");
            kill(&worker.incarnation);
        }
    }
}
