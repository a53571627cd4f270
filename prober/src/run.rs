//! The process: runtime, signals, and the ways in which it ends in peace.
//!
//! SIGTERM ends it; so does the end of the runtime directory, or an hour without a supervisor. SIGINT and SIGHUP are for the
//! supervisor: a terminal sends them to everybody, and a prober must not die of them.

use std::io;
use std::sync::Arc;

use holdfast_proto::bootstrap::Bootstrap;
use holdfast_proto::process::ProcessId;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::board::Board;
use crate::control::{self, ServeError};
use crate::schedule::Schedule;
use crate::tls::Tls;

/// Threads for the system's resolver, which blocks. A resolver that hangs holds them for its own timeout, longer
/// than a check waits; the bound keeps such threads from piling up.
const RESOLVER_THREADS: usize = 32;

/// Why the prober failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The event loop cannot be built.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    /// `/proc` does not tell who this process is.
    #[error("cannot read this process's own identity")]
    Identify(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The supervisor does not accept this process.
    #[error("the supervisor refuses this prober: {0}")]
    Refused(String),
    /// A task that never ends has ended.
    #[error("a target's task died")]
    TaskDied(#[source] tokio::task::JoinError),
}

/// Runs the prober in this process until SIGTERM, or until the runtime directory is gone.
///
/// # Errors
/// See [`RunError`]. The supervisor being away is none: it is dialled until it is back, or an hour is over.
pub fn run(bootstrap: Bootstrap) -> Result<(), RunError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS)
        .build()
        .map_err(RunError::Runtime)?;
    let result = runtime.block_on(Box::pin(serve(bootstrap)));
    // A resolver that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(bootstrap: Bootstrap) -> Result<(), RunError> {
    let mut signals = Signals::install()?;
    let me = ProcessId::me().map_err(RunError::Identify)?;
    let board = Arc::new(Board::default());
    let mut schedule = Schedule::new(board.clone(), Tls::load());
    info!(pid = me.pid, "prober started");
    tokio::select! {
        served = control::serve(&bootstrap, me, &mut schedule, &board) => served.map_err(RunError::from),
        // Dropping the stream tells the supervisor; checks in progress are dropped with the schedule.
        () = signals.terminate() => {
            info!("prober stops on SIGTERM");
            Ok(())
        }
    }
}

// === impl RunError ===

impl From<ServeError> for RunError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Refused(status) => Self::Refused(status.message().to_owned()),
            ServeError::TaskDied(error) => Self::TaskDied(error),
        }
    }
}

/// The signals that a prober has an opinion on.
struct Signals {
    terminate: Signal,
    /// Held, never read: receiving a signal takes its default action away.
    _ignored: [Signal; 2],
}

// === impl Signals ===

impl Signals {
    fn install() -> Result<Self, RunError> {
        let receive = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self {
            terminate: receive(SignalKind::terminate())?,
            _ignored: [receive(SignalKind::interrupt())?, receive(SignalKind::hangup())?],
        })
    }

    async fn terminate(&mut self) {
        if self.terminate.recv().await.is_none() {
            // The runtime is going down, and this task with it.
            std::future::pending::<()>().await;
        }
    }
}
