//! The worker process: wiring, order of start, order of end.
//!
//! ```text
//! starting ──table, health, socket, StartServing──> serving ──Drain or SIGTERM──> draining ──nothing left──> exit 0
//! ```
//!
//! It ends only when its drain has begun and its last connection and tunnel have ended, or when one of its core
//! tasks has died: a process without its line or its accept loop must be replaced, not limp on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::bootstrap::Bootstrap;
use holdfast_proto::control::WorkerState;
use holdfast_proto::failpoint;
use holdfast_proto::process::ProcessId;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::accept::{self, Acceptor};
use crate::backoff::Backoff;
use crate::control::{Control, Duties};
use crate::drain::{Drain, Order};
use crate::http::Shared;
use crate::memory;
use crate::metrics::Metrics;
use crate::revocation::Revocation;
use crate::snapshot::Current;
use crate::tunnel::{self, Cause, StartError, Tunnels};
use crate::vault::{self, Attached, Line};

#[cfg(test)]
mod tests;

/// How long the last report may take: a supervisor that does not read must not keep this process alive.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between two looks at the tunnels of a draining process: it has nothing else to do.
const TUNNELS_EVERY: Duration = Duration::from_millis(50);
/// How long a draining process waits for what the vault holds for it: it comes within milliseconds, unless the supervisor
/// is gone.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a new process tries to reach the vault: a supervisor that started it is there, or dies and is back soon.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// How long the last lines of the access log may take: a pipe that nobody reads must not keep this process alive.
const LAST_LINES: Duration = Duration::from_secs(1);
/// What may still run when everything has ended: a blocking name look-up, nothing else.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No event loop.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    /// `/proc` does not tell who this process is.
    #[error("cannot read this process's start time")]
    Identity(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// No relay threads.
    #[error("cannot start the tunnels' threads")]
    Tunnels(#[source] StartError),
    /// The supervisor does not take this process.
    #[error("no line to the vault")]
    Vault(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The listening socket cannot be used.
    #[error("cannot accept on the listening socket")]
    Listen(#[source] io::Error),
    /// A task that the process cannot do without has ended.
    #[error("the {0} task ended")]
    CoreTask(&'static str, #[source] JoinError),
}

/// Signals that this process answers, or receives only to survive them.
struct Signals {
    terminate: Signal,
    ignored: [Signal; 2],
}

/// Runs a worker until it has drained. It needs the process for itself: it sets signal handlers.
pub fn run(bootstrap: Bootstrap) -> Result<(), RunError> {
    let threads = usize::try_from(bootstrap.threads).unwrap_or(1).max(1);
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("holdfast-http")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let ended = runtime.block_on(Box::pin(work(bootstrap, threads)));
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

async fn work(bootstrap: Bootstrap, threads: usize) -> Result<(), RunError> {
    let signals = Signals::new().map_err(RunError::Signals)?;
    let me = ProcessId::me().map_err(RunError::Identity)?;
    let hello = bootstrap.hello(me);
    let drain = Drain::default();
    let slot = vault::Slot::new(None);
    let duties = Arc::new(Duties::default());
    let vault = Line::new(
        bootstrap.fd_socket(),
        hello.clone(),
        bootstrap.deaths.clone(),
        slot.clone(),
        drain.clone(),
        duties.news.clone(),
    );
    let (attached, tunnels) = take_up(&vault, threads, bootstrap.generation).await?;
    let shared = Arc::new(Shared {
        current: Arc::new(Current::default()),
        drain,
        metrics: Arc::new(Metrics::default()),
        idle: Arc::default(),
        access_log: Arc::default(),
        revocation: Revocation::default(),
        tunnels: tunnels.clone(),
    });
    tunnels.log_ends(&shared.access_log);

    let mut core = JoinSet::new();
    core.spawn(signals.obey(shared.clone()));
    core.spawn(end_tunnels(shared.clone()));
    let idle = shared.idle.clone();
    core.spawn(async move { idle.tend().await });
    core.spawn(give_memory_back(duties.news.settled.subscribe()));
    if attached.is_none() {
        duties.news.settled.send_replace(true);
    }
    core.spawn(vault.keep(attached, tunnels));
    let mut line = JoinSet::new();
    line.spawn(Control::new(bootstrap, hello, shared.clone(), duties.clone()).keep());

    let serving = serve(&shared, &duties, &slot, threads);
    let mut serving = std::pin::pin!(serving);
    loop {
        // Cancel-safe: join_next by contract, and `serving` is only borrowed.
        tokio::select! {
            ended = &mut serving => {
                ended?;
                break;
            }
            Some(ended) = core.join_next() => {
                ended.map_err(|died| RunError::CoreTask("core", died))?;
            }
            Some(ended) = line.join_next() => {
                ended.map_err(|died| RunError::CoreTask("control", died))?;
            }
        }
    }
    let log = shared.access_log.clone();
    // Before the last report, which counts its lines.
    if let Err(died) = tokio::task::spawn_blocking(move || log.flush(LAST_LINES)).await {
        tracing::error!(%died, "the access log's last lines were not waited for");
    }
    duties.leaving.send_replace(true);
    match timeout(FAREWELL, line.join_next()).await {
        Ok(Some(Err(died))) => return Err(RunError::CoreTask("control", died)),
        Ok(_) => {}
        Err(_) => tracing::warn!("the supervisor did not take the last report"),
    }
    tracing::info!("worker has drained");
    Ok(())
}

/// Not before everything is here that earlier processes have left: that comes in many pieces, and to give each back costs
/// a tenth of the time in which its tunnels stand still.
async fn give_memory_back(mut settled: watch::Receiver<bool>) {
    if settled.wait_for(|settled| *settled).await.is_ok() {
        memory::give_back_at_once();
    }
}

/// Attaches to the vault, and starts the engine on what the listener's earlier processes have left.
async fn take_up(
    vault: &Line,
    threads: usize,
    generation: u64,
) -> Result<(Option<Attached>, Arc<Tunnels>), RunError> {
    let mut backoff = Backoff::new();
    let mut attached = loop {
        match vault.first(Tunnels::arena_version()).await {
            Ok(attached) => break attached,
            Err(error) if backoff.is_older_than(FIRST_LINE) => {
                return Err(RunError::Vault(error.into()));
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the vault does not answer yet"
                );
                sleep(backoff.next()).await;
            }
        }
    };
    let (arena, tally) = (attached.arena.take(), attached.tally.take());
    let polls = std::mem::take(&mut attached.polls);
    let taken_up = tunnel::Shared::take_up(arena, tally)
        .and_then(|shared| shared.with_polls(polls).start(threads, generation));
    match taken_up {
        Ok(tunnels) => {
            // Before anything is served: a tunnel that opens before the line runs waits for it.
            tunnels.attach();
            Ok((Some(attached), tunnels))
        }
        Err(error) => {
            // Serving comes first: what is in there stays with its owner, which drains.
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                error,
                "tunnels of earlier processes cannot be taken over: they stay with their owners"
            );
            let tunnels = Tunnels::start(threads, generation).map_err(RunError::Tunnels)?;
            Ok((None, tunnels))
        }
    }
}

/// Everything between `StartServing` and the last tunnel's end.
async fn serve(
    shared: &Arc<Shared>,
    duties: &Duties,
    slot: &vault::Slot,
    threads: usize,
) -> Result<(), RunError> {
    let mut told = duties.serve.subscribe();
    let mut filled = slot.subscribe();
    let ready = async {
        // The senders are held by the caller: neither wait can fail.
        if told.wait_for(|serve| *serve).await.is_err() {
            return None;
        }
        filled.wait_for(Option::is_some).await.ok().and_then(|socket| socket.clone())
    };
    // Cancel-safe: nothing is taken out of the slot.
    let socket = tokio::select! {
        socket = ready => socket,
        () = shared.drain.begun() => None,
    };
    if let Some(socket) = socket {
        failpoint!("serve.before");
        let acceptor = Acceptor::new(shared.current.clone(), threads);
        let own = socket.try_clone().map_err(RunError::Listen)?;
        drop(socket);
        let listener = TcpListener::from_std(own).map_err(RunError::Listen)?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept::accept(listener, acceptor, shared.clone()));
        duties.state.send_replace(WorkerState::Serving);
        shared.drain.begun().await;
        duties.state.send_replace(WorkerState::Draining);
        while let Some(ended) = accepting.join_next().await {
            ended.map_err(|died| RunError::CoreTask("accept", died))?;
        }
    } else {
        duties.state.send_replace(WorkerState::Draining);
    }
    // A worker that was born to look after tunnels has to have them first.
    let mut settled = duties.news.settled.subscribe();
    if timeout(SETTLED, settled.wait_for(|settled| *settled)).await.is_err() {
        tracing::warn!("the vault has not handed everything in; not waiting any longer");
    }
    // Nothing opens tunnels any more.
    while !shared.tunnels.leave() {
        sleep(TUNNELS_EVERY).await;
    }
    Ok(())
}

/// Closes the tunnels when the drain's deadline has come; an order may still bring it forward.
async fn end_tunnels(shared: Arc<Shared>) {
    let mut orders = shared.drain.watch();
    loop {
        let deadline = orders.borrow_and_update().as_ref().and_then(|order| order.tunnel_deadline);
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        // Both arms are cancel-safe.
        tokio::select! {
            () = due => {
                // A request that was in flight may still become a tunnel: look again until the process ends.
                shared.tunnels.close_where(|_| true, Cause::Drain, None);
                sleep(TUNNELS_EVERY).await;
            }
            changed = orders.changed() => if changed.is_err() { return },
        }
    }
}

// === impl Signals ===

impl Signals {
    /// SIGPIPE is ignored by Rust's start-up. A terminal's Ctrl-C and hang-up reach the whole process group, but
    /// they are the supervisor's to answer.
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            ignored: [signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?],
        })
    }

    async fn obey(mut self, shared: Arc<Shared>) {
        while self.terminate.recv().await.is_some() {
            let most = shared.current.load().table.limits.drain_timeout;
            let tunnel_deadline = Some(Instant::now() + most);
            tracing::info!("SIGTERM: draining");
            shared.drain.begin(Order { tunnel_deadline, reason: "SIGTERM".to_owned() });
        }
        drop(self.ignored);
    }
}
