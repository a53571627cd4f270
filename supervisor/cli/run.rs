//! The long-running roles: the gateway itself, and the children that it starts from this executable.
//!
//! Each role is a library's; here they only get their logging, their name in the process table and their own session.

use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use holdfast_proto::bootstrap::Bootstrap;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::setsid;

use crate::args::RunArgs;
use crate::logging;

/// Runs the supervisor in the foreground until it is told to stop.
pub(crate) fn gateway(args: RunArgs) -> anyhow::Result<()> {
    let _log = logging::start("supervisor");
    supervise(Options {
        config: Some(args.config),
        document: None,
        runtime_dir: args.runtime_dir,
        state_dir: args.state_dir,
        status_listen: args.status_listen,
        on_ready: None,
    })
}

/// Runs one listener's worker, as told on standard input.
pub(crate) fn worker() -> anyhow::Result<()> {
    let _log = logging::start("worker");
    let bootstrap = become_child(c"holdfast-wrk")?;
    work(bootstrap)
}

/// Runs the prober, as told on standard input.
pub(crate) fn prober() -> anyhow::Result<()> {
    let _log = logging::start("prober");
    let bootstrap = become_child(c"holdfast-prb")?;
    probe(bootstrap)
}

/// A child has its own session, so that a terminal's signals reach only the supervisor, and a name of its own in
/// the process table (15 bytes at most: prctl(2)).
fn become_child(name: &CStr) -> anyhow::Result<Bootstrap> {
    let bootstrap = Bootstrap::read(io::stdin().lock())?;
    match setsid() {
        // EPERM: whoever spawned it has made it a group leader already; the group keeps signals away as well.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error).context("cannot start a session"),
    }
    if let Err(error) = prctl::set_name(name) {
        tracing::warn!(%error, "cannot set the process name");
    }
    Ok(bootstrap)
}

// === the only calls into the libraries ===

/// What the supervisor is to run with.
pub(crate) struct Options {
    /// The gateway document's file.
    pub(crate) config: Option<std::path::PathBuf>,
    /// The gateway document itself, in place of a file.
    pub(crate) document: Option<String>,
    /// Where sockets and the lock live.
    pub(crate) runtime_dir: Option<std::path::PathBuf>,
    /// Where revisions are kept.
    pub(crate) state_dir: Option<std::path::PathBuf>,
    /// Where metrics and readiness are served.
    pub(crate) status_listen: Option<SocketAddr>,
    /// Called once, when every listener serves.
    pub(crate) on_ready: Option<Box<dyn FnOnce(&Ready) + Send>>,
}

/// What `on_ready` is told.
pub(crate) struct Ready;

/// WIRE: `holdfast_supervisor::run::run(options)`.
pub(crate) fn supervise(options: Options) -> anyhow::Result<()> {
    drop(options);
    anyhow::bail!("this build has no supervisor")
}

/// WIRE: `holdfast_worker::run::run(bootstrap)`.
fn work(bootstrap: Bootstrap) -> anyhow::Result<()> {
    drop(bootstrap);
    anyhow::bail!("this build has no worker")
}

/// WIRE: `holdfast_prober::run::run(bootstrap)`.
fn probe(bootstrap: Bootstrap) -> anyhow::Result<()> {
    drop(bootstrap);
    anyhow::bail!("this build has no prober")
}
