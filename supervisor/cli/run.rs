//! The long-running roles: the gateway itself, and the children that it starts from this executable.
//!
//! Each role is a library's; here they only get their logging, their name in the process table and their own session.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use anyhow::Context;
use holdfast_proto::bootstrap::Bootstrap;
use holdfast_supervisor::change::ChangeError;
use holdfast_supervisor::directories::{DirectoryError, runtime_default};
use holdfast_supervisor::lock::LockError;
use holdfast_supervisor::mend;
use holdfast_supervisor::run::{self as supervisor, Options, RunError};
use holdfast_supervisor::upgrade::Terms;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::setsid;

use crate::args::RunArgs;
use crate::failure::{Kind, fail};
use crate::validate::as_answered;
use crate::{left, logging, output};

/// What an executable that takes over from this one, or this one from another, must know as well.
pub(crate) fn terms() -> Terms {
    Terms { arena: holdfast_worker::arena_version() }
}

/// Runs the supervisor in the foreground until it is told to stop.
pub(crate) fn gateway(args: RunArgs) -> anyhow::Result<()> {
    let _log = logging::start("supervisor");
    supervise(Options {
        config: Some(args.config),
        runtime_dir: args.runtime_dir,
        state_dir: args.state_dir,
        status_listen: args.status_listen,
        status_token_file: args.status_token_file,
        upgrade: Some(terms()),
        on_ready: None,
    })
}

/// Runs the supervisor; a document that it refuses at the start is explained as `validate` would.
pub(crate) fn supervise(options: Options) -> anyhow::Result<()> {
    let file = options.config.clone().unwrap_or_default();
    let runtime_dir = options.runtime_dir.clone().unwrap_or_else(runtime_default);
    supervisor::run(options).map_err(|error| {
        if let RunError::Change(change) = &error {
            let found: Vec<_> = change.diagnostics().iter().map(as_answered).collect();
            output::complain(&output::diagnostics_text(&file.display().to_string(), &found));
        }
        let (mend, runs) = (mend_of(&error), what_runs(&error, &runtime_dir));
        let what = mend::with(format!("{:#}", anyhow::Error::new(error)), mend);
        fail(Kind::Failed, format!("{what}. {runs}"))
    })
}

/// What there is, now that a gateway could not be started.
fn what_runs(error: &RunError, runtime_dir: &Path) -> String {
    if matches!(error, RunError::Lock(LockError::Held { .. })) {
        return "That gateway runs as before: `holdfast apply` changes it, and `holdfast upgrade` puts another executable in \
                its place"
            .to_owned();
    }
    match left::adopted(runtime_dir) {
        told if told.is_empty() => "No gateway was started".to_owned(),
        told => told.trim_end_matches([' ', '.']).to_owned(),
    }
}

/// What to do about a start that failed, where the failure does not say so itself.
fn mend_of(error: &RunError) -> Option<&'static str> {
    match error {
        RunError::Change(ChangeError::Invalid(_)) => {
            Some("mend it; `holdfast validate FILE` tells when it is good")
        }
        RunError::Change(change) => change.mend(),
        RunError::Socket { source, .. } => match source.kind() {
            kind @ (io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                Some(mend::of_address(kind))
            }
            _ => mend::of(error),
        },
        RunError::Directory(
            DirectoryError::Create { source, .. } | DirectoryError::Inspect { source, .. },
        ) if source.kind() == io::ErrorKind::PermissionDenied => {
            Some("choose a directory that this user may write to (--runtime-dir, --state-dir)")
        }
        _ => mend::of(error),
    }
}

/// Runs one listener's worker, as told on standard input.
pub(crate) fn worker() -> anyhow::Result<()> {
    let _log = logging::start("worker");
    let bootstrap = become_child(c"holdfast-wrk")?;
    holdfast_worker::run(bootstrap).map_err(Into::into)
}

/// Runs the prober, as told on standard input.
pub(crate) fn prober() -> anyhow::Result<()> {
    let _log = logging::start("prober");
    let bootstrap = become_child(c"holdfast-prb")?;
    holdfast_prober::run(bootstrap).map_err(Into::into)
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
    // Where huge pages come unasked, one small block left of a burst would hold 2 MiB (docs/adr/0007).
    if let Err(error) = prctl::set_thp_disable(true) {
        tracing::warn!(%error, "cannot do without huge pages");
    }
    Ok(bootstrap)
}
