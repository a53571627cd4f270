//! What the parts of the supervisor share: who runs, what is in force, what an operator should know.
//!
//! Only [`crate::change`] replaces what is in force; only the groups' keepers and the prober's start processes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::control::{Hello, WorkerState};
use holdfast_proto::process::ProcessId;
use holdfast_proto::usage;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::affinity::AffinityKey;
use crate::brought::Brought;
use crate::change::outcome::Reloaded;
use crate::children::{Children, Incarnation, Role, Stranger};
use crate::compile::Compiled;
use crate::config::gateway::Gateway;
use crate::counters::Counters;
use crate::directories::Directories;
use crate::group::{Group, Surroundings};
use crate::health_board::HealthBoard;
use crate::ledger::Ledger;
use crate::metrics::{Figures, Metrics, PoolHosts, WorkerGroup};
use crate::network::Network;
use crate::prober::Prober;
use crate::service::Service;
use crate::spawn::Spawner;
use crate::staples::Staples;
use crate::status::StatusSource;
use crate::tickets::Tickets;
use crate::upgrade::board::Upgrades;
use crate::vault::{Reception, Vault};
use crate::worker::Worker;

/// Longest wait of a stop for its tunnels unless its caller gives one: Azure's own draining default.
const STOP_DRAIN: Duration = Duration::from_secs(30);
/// Time that a child's first message may overtake its keeper's bookkeeping.
const BOOKKEEPING: Duration = Duration::from_secs(2);

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    /// Where it lives.
    pub directories: Directories,
    /// Its configuration file.
    pub config_file: Option<PathBuf>,
    /// Where relative paths of applied documents start.
    pub base_dir: PathBuf,
    /// Revisions on disk.
    pub ledger: Mutex<Ledger>,
    /// Verdicts.
    pub health: Arc<HealthBoard>,
    /// The prober.
    pub prober: Prober,
    /// Who our children are.
    pub children: Arc<Children>,
    /// Starts them.
    pub spawner: Arc<Spawner>,
    /// Listening sockets from workers that outlived a supervisor.
    pub brought: Brought,
    /// What tunnels live on.
    pub vault: Arc<Vault>,
    /// Exposition.
    pub metrics: Arc<Metrics>,
    /// What is exposed, for the next supervisor.
    pub counters: Arc<Counters>,
    /// What sessions of clients are resumed with.
    pub tickets: Tickets,
    /// What is stapled to certificates.
    pub staples: Staples,
    /// What affinity cookies are signed with.
    pub(crate) affinity: AffinityKey,
    /// One change at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// The last reload that is over, for those who wait for it.
    pub(crate) reloading: tokio::sync::Mutex<Option<Reloaded>>,
    /// Another executable in this process's place.
    pub(crate) upgrades: Upgrades,
    /// Admin over the network.
    pub(crate) network: Network,
    /// What the service manager has passed, and keeps.
    pub(crate) service: Service,
    /// Everything ends, tunnels by this time; once set it only comes nearer.
    pub stop: watch::Sender<Option<Instant>>,
    /// The start is over; changes wait for it.
    pub started: watch::Sender<bool>,
    in_force: Mutex<Option<Arc<InForce>>>,
    /// Rings when that is replaced.
    replaced: watch::Sender<()>,
    groups: Mutex<BTreeMap<SocketAddr, Arc<Group>>>,
    retired: Mutex<Vec<Arc<Group>>>,
    problems: Mutex<BTreeMap<&'static str, String>>,
    ready: Mutex<Result<(), String>>,
}

/// The parts that are made before the supervisor is.
#[derive(Debug)]
pub struct Parts {
    /// Where it lives.
    pub directories: Directories,
    /// Its configuration file.
    pub config_file: Option<PathBuf>,
    /// Where relative paths start.
    pub base_dir: PathBuf,
    /// Revisions on disk.
    pub ledger: Ledger,
    /// Who our children are.
    pub children: Arc<Children>,
    /// Starts them.
    pub spawner: Arc<Spawner>,
}

/// The revision that is served.
#[derive(Debug)]
pub struct InForce {
    /// Its number.
    pub revision: u64,
    /// Its document, as given.
    pub document: String,
    /// The model.
    pub gateway: Gateway,
    /// What workers and prober get; `revision` in the snapshots is 0.
    pub compiled: Compiled,
}

// === impl Supervisor ===

impl Supervisor {
    /// A supervisor with nothing in force.
    pub fn new(parts: Parts) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        let counters = Counters::new(&parts.directories.runtime, metrics.clone());
        Arc::new(Self {
            directories: parts.directories,
            config_file: parts.config_file,
            base_dir: parts.base_dir,
            ledger: Mutex::new(parts.ledger),
            health: Arc::default(),
            prober: Prober::default(),
            children: parts.children,
            spawner: parts.spawner,
            brought: Brought::default(),
            vault: Arc::default(),
            metrics,
            counters: Arc::new(counters),
            tickets: Tickets::new(),
            staples: Staples::default(),
            affinity: AffinityKey::default(),
            changing: tokio::sync::Mutex::new(()),
            reloading: tokio::sync::Mutex::default(),
            upgrades: Upgrades::default(),
            network: Network::default(),
            service: Service::default(),
            stop: watch::Sender::new(None),
            started: watch::Sender::new(false),
            in_force: Mutex::default(),
            replaced: watch::Sender::default(),
            groups: Mutex::default(),
            retired: Mutex::default(),
            problems: Mutex::default(),
            ready: Mutex::new(Err("starting".to_owned())),
        })
    }

    /// The ledger, locked: callers hold it for one call only.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// What is in force.
    pub fn in_force(&self) -> Option<Arc<InForce>> {
        lock(&self.in_force).clone()
    }

    /// The revision in force; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.in_force().map_or(0, |it| it.revision)
    }

    pub(crate) fn put_in_force(&self, in_force: InForce) {
        *lock(&self.in_force) = Some(Arc::new(in_force));
        self.replaced.send_replace(());
    }

    /// Rings when what is in force is replaced.
    pub(crate) fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// The listeners that are configured.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        lock(&self.groups).values().cloned().collect()
    }

    /// Configured listeners, and removed ones whose tunnels live on.
    pub fn all_groups(&self) -> Vec<Arc<Group>> {
        let mut retired = lock(&self.retired);
        // Not whoever has no worker: the next one may be being born, and would be known to nobody.
        retired.retain(|group| !group.is_gone());
        self.groups().into_iter().chain(retired.iter().cloned()).collect()
    }

    /// One configured listener.
    pub fn group(&self, address: SocketAddr) -> Option<Arc<Group>> {
        lock(&self.groups).get(&address).cloned()
    }

    /// Starts a listener's group, unless the end has begun: nobody would end its workers.
    pub(crate) fn add_group(&self, start: impl FnOnce() -> Arc<Group>) {
        let mut groups = lock(&self.groups);
        // Under the lock: whoever ends the groups lists them after the stop is set.
        if !self.stopping() {
            let group = start();
            groups.insert(group.address, group);
        }
    }

    pub(crate) fn retire_group(&self, address: SocketAddr) -> Option<Arc<Group>> {
        // Never in neither list for those who look at both, in the same order.
        let mut retired = lock(&self.retired);
        let group = lock(&self.groups).remove(&address)?;
        retired.push(group.clone());
        Some(group)
    }

    pub(crate) fn add_retired_group(&self, group: Arc<Group>) {
        lock(&self.retired).push(group);
    }

    /// What a group's keeper needs.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            spawner: self.spawner.clone(),
            children: self.children.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            counters: self.counters.clone(),
            vault: self.vault.clone(),
        }
    }

    /// The worker of an incarnation; waits a moment, since a child may speak before its keeper has written it down.
    pub async fn worker(&self, incarnation: u64) -> Option<Arc<Worker>> {
        let find = || {
            let groups = self.all_groups();
            let mut workers = groups.iter().flat_map(|group| group.workers());
            workers.find(|worker| worker.incarnation.number == incarnation)
        };
        let deadline = Instant::now() + BOOKKEEPING;
        loop {
            if let Some(worker) = find() {
                return Some(worker);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Says (or, with `None`, takes back) something that an operator should know.
    pub fn problem(&self, about: &'static str, what: Option<String>) {
        let mut problems = lock(&self.problems);
        match what {
            Some(what) => problems.insert(about, what),
            None => problems.remove(about),
        };
    }

    /// What an operator should know.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<_> = lock(&self.problems).values().cloned().collect();
        for group in self.groups().iter().filter(|group| group.looping()) {
            problems.push(format!("workers of {} keep dying by themselves", group.address));
        }
        for worker in self.all_groups().iter().flat_map(|group| group.workers()) {
            if let Some(why) = worker.view().foreign {
                let pid = worker.incarnation.pid();
                problems.push(format!("worker {pid} drains and is not protected: {why}"));
            }
            let view = worker.view();
            if let Some(revision) = view.outgrown.filter(|_| view.state != WorkerState::Draining) {
                let pid = worker.incarnation.pid();
                problems.push(format!(
                    "worker {pid} is of an older build, which would serve revision {revision} in part only; it serves \
                     what it had until it is replaced"
                ));
            }
        }
        if self.prober.looping() {
            problems.push("the prober keeps dying by itself; the last verdicts stand".to_owned());
        }
        problems
    }

    /// Sets what `/readyz` answers.
    pub fn set_ready(&self, ready: Result<(), String>) {
        *lock(&self.ready) = ready;
    }

    /// How long a stop waits for tunnels, unless its caller says: 30 s, or as configured where that is shorter.
    pub fn stop_drain(&self) -> Duration {
        let Some(in_force) = self.in_force() else { return Duration::ZERO };
        let limits = in_force.compiled.listeners.values().filter_map(|it| it.limits.as_ref());
        let limited = limits.map(|limits| limits.drain_timeout_ms).filter(|ms| *ms > 0);
        limited.max().map_or(STOP_DRAIN, |ms| STOP_DRAIN.min(Duration::from_millis(ms)))
    }

    /// When the start is over.
    pub async fn started(&self) {
        // The sender lives as long as we do, so the wait cannot fail.
        drop(self.started.subscribe().wait_for(|started| *started).await);
    }

    /// Whether the end has begun.
    pub fn stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// When the end has begun.
    pub async fn stopped(&self) {
        drop(self.stop.subscribe().wait_for(Option::is_some).await);
    }

    /// Begins the end. A second call can only shorten it.
    pub fn begin_stop(&self, tunnel_deadline: Duration) {
        if self.upgrades.defer_stop(tunnel_deadline, self.service.is_detached()) {
            return;
        }
        self.set_ready(Err("stopping".to_owned()));
        let deadline = Instant::now() + tunnel_deadline;
        self.stop.send_if_modified(|stop| {
            let sooner = stop.is_none_or(|earlier| deadline < earlier);
            if sooner {
                *stop = Some(deadline);
            }
            sooner
        });
    }
}

impl Supervisor {
    /// What those who have died meanwhile had counted stays; the others go on counting.
    pub(crate) fn keep_counts(&self, left: &[Arc<Incarnation>]) {
        // This process itself, too: an upgrade takes nothing from its life.
        let children = left.iter().filter_map(|child| child.process());
        let processes: Vec<_> = children.chain(ProcessId::me().ok()).collect();
        let listener = |child: &Arc<Incarnation>| match child.role {
            Role::Worker { listener, .. } => Some(listener.to_string()),
            Role::Prober => None,
        };
        let listeners: Vec<_> = left.iter().filter_map(listener).collect();
        self.metrics.keep_only(&processes, &listeners);
        self.counters.save();
    }

    /// What is told of the moment.
    fn figures(&self) -> Figures {
        // A listener that was removed and came back has two groups for a while.
        let mut workers: BTreeMap<SocketAddr, Vec<_>> = BTreeMap::new();
        for group in self.all_groups() {
            let states = group.workers().into_iter().map(|it| (it.generation, it.view().state));
            workers.entry(group.address).or_default().extend(states);
        }
        let workers = workers.into_iter().map(|(listener, workers)| {
            WorkerGroup::count(listener.to_string(), workers.into_iter())
        });
        let in_force = self.in_force();
        let certificates = in_force.iter().flat_map(|it| &it.gateway.certificates);
        Figures {
            revision: self.revision(),
            pools: self.health.report().iter().map(PoolHosts::from).collect(),
            vault: self.vault.holdings(),
            workers: workers.collect(),
            prober_up: self.prober.view().connected,
            problems: self.problems().len() as u64,
            certificates: certificates
                .filter_map(|it| Some((it.name.clone(), it.expires()?)))
                .collect(),
        }
    }
}

impl StatusSource for Supervisor {
    fn metrics(&self) -> String {
        self.metrics.set_figures(self.figures());
        if let Ok(myself) = ProcessId::me() {
            self.metrics.supervisor_said(myself, usage::samples("supervisor"));
        }
        // A small file in memory, as a rule; where it is not, this thread is not missed.
        tokio::task::block_in_place(|| self.counters.expose())
    }

    fn ready(&self) -> Result<(), String> {
        lock(&self.ready).clone()
    }
}

impl Reception for Supervisor {
    fn recognise(&self, hello: &Hello, peer_pid: u32) -> Result<Arc<Incarnation>, Stranger> {
        self.children.identify(hello, peer_pid)
    }

    fn came(&self, incarnation: u64, socket: Option<TcpListener>) {
        self.brought.put(incarnation, socket);
    }

    async fn listening_socket(&self, incarnation: u64) -> Result<Option<Arc<TcpListener>>, String> {
        let worker = self.worker(incarnation).await;
        worker.map(|it| it.socket()).ok_or_else(|| "this worker is not known yet".to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
