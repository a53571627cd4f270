//! Start and end of the supervisor, in order: directories, lock, ledger, sockets of children and operators, prober,
//! children that live on, listeners, ready; then until it is told to stop.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::failpoint;
use tokio::net::UnixListener;

use crate::brought::Came;
use crate::change::file::Occasion;
use crate::change::{self, ChangeError, FIRST_VERDICTS};
use crate::children::{Children, Incarnation, Role};
use crate::directories::{Directories, DirectoryError};
use crate::group::Adopted;
use crate::grpc;
use crate::ledger::{Ledger, LedgerError};
use crate::lock::{Lock, LockError};
use crate::signals::Signals;
use crate::spawn::Spawner;
use crate::state::{Parts, Supervisor};
use crate::ui;
use crate::upgrade::{self, Inherited};
use crate::{files, reap, service, sockets, staples, tickets};

mod admin;
mod end;

use admin::Admin;
use end::{end, remove_sockets};

/// Wait for workers of an earlier supervisor to redial with their listening sockets.
const ADOPTION: Duration = Duration::from_secs(5);
/// Wait for the first worker of every listener, at a start.
const FIRST_SERVING: Duration = Duration::from_secs(30);
/// Threads of the supervisor: gRPC and bookkeeping; bytes of clients are elsewhere.
const THREADS: usize = 2;

/// What `holdfast run` was told.
#[derive(Default)]
pub struct Options {
    /// The configuration file; without one the ledger must hold a revision.
    pub config: Option<PathBuf>,
    /// RUNTIME; the default otherwise.
    pub runtime_dir: Option<PathBuf>,
    /// STATE; the default otherwise.
    pub state_dir: Option<PathBuf>,
    /// Where /metrics and /ui are; 127.0.0.1:9180 otherwise.
    pub status_listen: Option<SocketAddr>,
    /// Who looks at the status page must know what is in this file.
    pub status_token_file: Option<PathBuf>,
    /// Without it, upgrades are refused.
    pub upgrade: Option<upgrade::Terms>,
    /// Called once, when every listener is served.
    pub on_ready: Option<OnReady>,
}

/// Told once that everything is served.
pub type OnReady = Box<dyn FnOnce(&Ready) + Send>;

/// What is ready.
#[derive(Debug)]
pub struct Ready {
    /// Revision in force.
    pub revision: u64,
    /// Bound listeners.
    pub listeners: Vec<SocketAddr>,
    /// RUNTIME.
    pub runtime_dir: PathBuf,
    /// Where /metrics is.
    pub status: SocketAddr,
}

/// Why the supervisor could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// RUNTIME or STATE can't be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Another supervisor has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The ledger can't be opened.
    #[error("cannot open the ledger of revisions")]
    Ledger(#[from] LedgerError),
    /// The first configuration is not good.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Nothing to serve.
    #[error(
        "there is no configuration: give --config FILE (the state directory holds no revision)"
    )]
    NothingToServe,
    /// A socket of ours can't be made.
    #[error("cannot listen on {at}")]
    Socket {
        /// Path or address.
        at: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused something basic.
    #[error("cannot {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the supervisor until it is told to stop.
pub fn run(options: Options) -> Result<(), RunError> {
    let inherited = Arc::new(upgrade::inherited());
    let mut lock = None;
    let result = run_locked(options, &inherited, &mut lock);
    if let Err(error) = &result {
        // Before the lock is let go of; comes back where there is nothing to roll back.
        upgrade::failed(error);
    }
    drop(lock);
    if result.is_err() {
        service::pause_after_failure();
    }
    result
}

fn run_locked(
    options: Options,
    inherited: &Arc<Inherited>,
    lock: &mut Option<Lock>,
) -> Result<(), RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let directories = Directories::resolve(options.runtime_dir.clone(), options.state_dir.clone())?;
    directories.prepare()?;
    let lock = lock.insert(match inherited.duplicate(upgrade::LOCK) {
        Some(held) => Lock::inherit(held, &directories.runtime),
        None => Lock::take(&directories.runtime)?,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("supervisor")
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let result = runtime.block_on(start(options, directories, inherited, lock));
    // Threads that wait on foreign pidfds must not hold the end up.
    runtime.shutdown_background();
    result
}

async fn start(
    mut options: Options,
    directories: Directories,
    inherited: &Arc<Inherited>,
    lock: &Lock,
) -> Result<(), RunError> {
    let system = |what| move |source| RunError::System { what, source };
    // Signals are caught before anything else: a SIGHUP during the start must not end the process.
    let signals = Signals::catch().map_err(system("catch signals"))?;
    let held = inherited.duplicate(upgrade::LEDGER);
    let (ledger, damaged) = Ledger::open_with(&directories.state, held)?;
    let children = Arc::new(Children::new(&directories.runtime));
    let spawner = Spawner::new(directories.runtime.clone(), children.clone());
    let config_file = options.config.as_ref().map(std::path::absolute).transpose();
    let config_file = config_file.map_err(system("find the configuration file"))?;
    let base_dir = config_file.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let supervisor = Supervisor::new(Parts {
        base_dir: base_dir.unwrap_or_else(|| directories.state.clone()),
        directories,
        config_file,
        ledger,
        spawner: Arc::new(spawner.map_err(system("open the own executable"))?),
        children,
    });
    let keep = system("keep what an upgrade needs");
    supervisor.upgrades.allow(options.upgrade);
    supervisor.upgrades.keep(upgrade::LOCK, lock).map_err(keep)?;
    supervisor.upgrades.keep(upgrade::LEDGER, supervisor.ledger().locked()).map_err(keep)?;
    upgrade::resume(&supervisor, inherited).map_err(keep)?;
    tickets::begin(&supervisor, inherited);
    tokio::spawn(staples::tend(supervisor.clone()));
    for problem in &damaged {
        tracing::error!(problem, "ledger");
    }
    supervisor.problem("ledger", (!damaged.is_empty()).then(|| damaged.join("; ")));
    // Before anybody can ask for a figure.
    supervisor.counters.recall();
    let status = ui::serve(&supervisor, &options)?;
    service::begin(&supervisor, inherited.record().is_some());
    // Before the first child is born: its birth rewrites the list, and whoever is not in it is lost to a next start.
    let left = supervisor.children.adopt_left_behind();
    supervisor.keep_counts(&left);
    tokio::spawn(supervisor.children.clone().mend());
    if inherited.record().is_some() {
        let is_worker = |child: &&Arc<Incarnation>| matches!(child.role, Role::Worker { .. });
        // Workers have keepers that wait for them.
        let workers: Vec<_> = left.iter().filter(is_worker).map(|child| child.pid()).collect();
        reap::tend(&workers);
    }
    let restored = restore(&supervisor)?;
    // How long a stop waits depends on what is in force.
    tokio::spawn(signals.heed(supervisor.clone()));
    serve_private(&supervisor).await?;
    // From here on `status` tells how far the start has come; changes wait for its end.
    let mut admin = Admin::serve(&supervisor)?;
    failpoint!("upgrade.started", return Err(planned()));
    // Cancel-safe: what a stop during the start leaves is taken in at the end, or is what the next start puts right.
    let configured = tokio::select! {
        // First, so that there is a keeper to see an earlier prober off, however early the stop comes.
        biased;
        configured = configure(&supervisor, restored, left.clone(), inherited) => configured,
        () = supervisor.stopped() => Ok(()),
    };
    if let Err(error) = configured {
        // Living workers of an earlier supervisor stay: they serve on.
        supervisor.prober.stop().await;
        if inherited.record().is_none() {
            remove_sockets(&supervisor);
        }
        return Err(error);
    }
    upgrade::settle(&supervisor, inherited);
    if !supervisor.stopping() {
        begin_service(&supervisor, options.on_ready.take(), status);
        tokio::spawn(upgrade::finish(supervisor.clone(), inherited.clone()));
        admin = admin.serve_until_stopped(&supervisor).await;
    }
    supervisor.upgrades.end();
    end(&supervisor, &left).await;
    admin.end().await;
    Ok(())
}

#[cfg(feature = "failpoints")]
fn planned() -> RunError {
    RunError::System { what: "start", source: std::io::Error::other("a test said so") }
}

fn begin_service(supervisor: &Arc<Supervisor>, tell: Option<OnReady>, status: SocketAddr) {
    let ready = Ready {
        revision: supervisor.revision(),
        listeners: supervisor.groups().iter().map(|group| group.address).collect(),
        runtime_dir: supervisor.directories.runtime.clone(),
        status,
    };
    supervisor.set_ready(Ok(()));
    supervisor.started.send_replace(true);
    tokio::spawn(files::watch(supervisor.clone()));
    service::ready(supervisor);
    tracing::info!(revision = ready.revision, listeners = ?ready.listeners, "ready");
    if let Some(tell) = tell {
        tell(&ready);
    }
}

fn named(supervisor: &Supervisor, name: &str, mode: u32) -> Result<UnixListener, RunError> {
    let path = supervisor.directories.runtime.join(name);
    let fail = |source| RunError::Socket { at: path.display().to_string(), source };
    let bound = sockets::put_in_place(&path, mode, |at| StdUnixListener::bind(at)).map_err(fail)?;
    bound.set_nonblocking(true).map_err(fail)?;
    UnixListener::from_std(bound).map_err(fail)
}

/// The two sockets that children dial.
async fn serve_private(supervisor: &Arc<Supervisor>) -> Result<(), RunError> {
    let control = named(supervisor, "control.sock", 0o600)?;
    let serving = supervisor.clone();
    tokio::spawn(async move {
        if let Err(error) = grpc::serve_children(serving, control, std::future::pending()).await {
            tracing::error!(error = &error as &dyn std::error::Error, "control socket");
        }
    });
    let path = supervisor.directories.runtime.join("fd.sock");
    let bound = supervisor.vault.serve(path.clone(), supervisor.clone()).await;
    bound.map_err(|source| RunError::Socket { at: path.display().to_string(), source })
}

/// What the ledger says is in force, or why it cannot be. Nothing is started yet, so that a first document that is
/// refused has nothing beside its diagnostics in the log.
fn restore(supervisor: &Supervisor) -> Result<Result<(), ChangeError>, RunError> {
    let restored = change::restore(supervisor);
    match &restored {
        Ok(warnings) => {
            for warning in warnings.iter().flatten() {
                tracing::warn!("{warning}");
            }
        }
        Err(error) => {
            // A certificate file that is gone, say. The configuration file may have the mend.
            tracing::error!(
                error = error as &dyn std::error::Error,
                "cannot restore the revision in force"
            );
            for diagnostic in error.diagnostics() {
                tracing::error!("{diagnostic}");
            }
        }
    }
    if supervisor.in_force().is_none() {
        supervisor.check_file()?;
    }
    Ok(restored.map(drop))
}

/// From ledger and file to served listeners.
async fn configure(
    supervisor: &Arc<Supervisor>,
    restored: Result<(), ChangeError>,
    left: Vec<Arc<Incarnation>>,
    inherited: &Inherited,
) -> Result<(), RunError> {
    supervisor.health.set_drained(supervisor.ledger().drained());
    keep_prober(supervisor, &left);
    if restored.is_ok() {
        resume(supervisor, left, inherited).await?;
    }
    // An upgrade changes no configuration: a file that was edited meanwhile waits for its reload.
    let settled = inherited.record().is_some() && supervisor.in_force().is_some();
    if supervisor.config_file.is_some() && !settled {
        match supervisor.read_again(Occasion::Start, "holdfast".to_owned()).await.1 {
            Ok(outcome) => {
                for warning in &outcome.warnings {
                    tracing::warn!("{warning}");
                }
            }
            // By chance, it has heard of it first.
            Err(ChangeError::Stopping) => return Ok(()),
            Err(error) if supervisor.in_force().is_none() => return Err(error.into()),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    revision = supervisor.revision(),
                    "the configuration file was not taken; the last good revision is served"
                );
                for diagnostic in error.diagnostics() {
                    tracing::error!("{diagnostic}");
                }
            }
        }
    }
    if supervisor.in_force().is_none() {
        restored?;
        return Err(RunError::NothingToServe);
    }
    let serving = async {
        for group in supervisor.groups() {
            group.serving().await;
        }
    };
    if tokio::time::timeout(FIRST_SERVING, serving).await.is_err() {
        tracing::error!("not every listener is served yet");
    }
    // A worker says what it was told of health before it says that it serves.
    supervisor.health.end_recalling();
    Ok(())
}

fn keep_prober(supervisor: &Arc<Supervisor>, left: &[Arc<Incarnation>]) {
    let mut earlier = Vec::new();
    for prober in left.iter().filter(|child| child.role == Role::Prober) {
        // A fresh one learns every target at once; this one's state is worth nothing.
        supervisor.children.gone(prober);
        if let Some(id) = prober.process() {
            supervisor.metrics.ended(id);
            earlier.push(id);
        }
    }
    supervisor.prober.is_to_be_kept();
    let keeping = supervisor.clone();
    tokio::spawn(async move {
        let Supervisor { prober, spawner, children, metrics, .. } = &*keeping;
        prober.keep(earlier, spawner, children, metrics).await;
    });
}

/// Serves the ledger's revision: with the workers that an earlier supervisor left, where there are any.
async fn resume(
    supervisor: &Arc<Supervisor>,
    left: Vec<Arc<Incarnation>>,
    inherited: &Inherited,
) -> Result<(), RunError> {
    let Some(in_force) = supervisor.in_force() else { return Ok(()) };
    let compiled = &in_force.compiled;
    if left.iter().any(|child| child.role != Role::Prober) {
        supervisor.health.begin_recalling();
    }
    supervisor.health.set_targets(compiled.targets.clone(), compiled.min_servers.clone());
    let mut adopted: BTreeMap<SocketAddr, Vec<Adopted>> = BTreeMap::new();
    let mut workers = Vec::new();
    for incarnation in left {
        if let Role::Worker { listener, generation } = incarnation.role {
            tracing::info!(pid = incarnation.pid(), %listener, generation, "found a living worker");
            workers.push(incarnation.clone());
            adopted.entry(listener).or_default().push(Adopted { incarnation, generation });
        }
    }
    let mut came = supervisor.brought.take(&workers, ADOPTION).await;
    // Those that crossed an exec were brought by nobody: no worker has the highest numbers.
    let inherited = inherited.listeners().into_iter().map(Some);
    came.extend((0..u64::MAX).rev().zip(inherited));
    let health = supervisor.health.clone();
    let keys = health_keys(&in_force);
    tokio::spawn(async move { health.first_verdicts(&keys, FIRST_VERDICTS).await });
    let mut bound = Vec::new();
    for address in compiled.listeners.keys() {
        let found = adopted.remove(address).unwrap_or_default();
        // Where a worker has brought it, this is another descriptor of the same.
        let passed = supervisor.service.take_socket(*address);
        let socket = match take_socket(&mut came, *address).or(passed) {
            Some(socket) => socket,
            None => bind(*address, &found, &came)
                .await
                .map_err(|why| ChangeError::Bind { address: *address, why })?,
        };
        bound.push((*address, socket, found));
    }
    // Once every address is had: a start that fails leaves no worker that it has started.
    for (address, socket, found) in bound {
        supervisor.start_group(address, socket, found);
    }
    // Listeners that an earlier supervisor had removed: their workers live on until their tunnels end.
    for (address, found) in adopted {
        supervisor.resume_retired(address, found);
    }
    Ok(())
}

/// The listening socket of that address, if anybody brought it. Not one that was given back: its worker has not heard of it
/// yet, and an earlier supervisor has died in between.
fn take_socket(came: &mut Came, address: SocketAddr) -> Option<TcpListener> {
    let is_it = |socket: &TcpListener| {
        sockets::listens(socket) && socket.local_addr().is_ok_and(|it| it == address)
    };
    came.values_mut().find_map(|brought| brought.take_if(|socket| is_it(socket)))
}

/// Binds an address whose socket nobody brought. A worker that has it and does not come serves nobody that could be
/// replaced or told anything: it is ended, and the others' traffic is not held up for it.
async fn bind(address: SocketAddr, found: &[Adopted], came: &Came) -> io::Result<TcpListener> {
    let in_use = match sockets::listen(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        outcome => return outcome,
    };
    let silent = found.iter().filter(|it| !came.contains_key(&it.incarnation.number));
    let silent: Vec<_> = silent.filter_map(|it| it.incarnation.process()).collect();
    if silent.is_empty() {
        return Err(in_use);
    }
    for id in silent {
        tracing::error!(pid = id.pid, listener = %address, "a worker does not come; ending it");
        crate::children::signal(id, rustix::process::Signal::KILL);
        // One that cannot be ended, on a dead disk say, still has the address then.
        drop(tokio::time::timeout(ADOPTION, holdfast_proto::process::gone(id)).await);
    }
    sockets::listen(address)
}

fn health_keys(in_force: &crate::state::InForce) -> Vec<holdfast_proto::control::TargetKey> {
    in_force.compiled.targets.iter().filter_map(|target| target.key.clone()).collect()
}
