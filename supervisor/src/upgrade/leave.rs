//! The exec itself: what the next executable needs is made inheritable, written down, and this one is gone. When it is
//! not, everything is as before.

use std::convert::Infallible;
use std::ffi::{CString, NulError, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use holdfast_proto::failpoint;
use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};

use super::manifest::{IMAGE, Manifest, VARIABLE, VERDICT};

/// Time for a new executable to become ready: what a start takes at most (`FIRST_SERVING`) and is never needed.
const READY: Duration = Duration::from_secs(30);
/// Another time, in milliseconds; for tests.
const READY_VARIABLE: &str = "HOLDFAST_UPGRADE_READY_MS";

/// Why this executable still runs.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaveError {
    /// Descriptors or the manifest.
    #[error("cannot put together what it needs")]
    Prepare(#[from] io::Error),
    /// An argument of ours has a zero in it: impossible, as it came from the kernel.
    #[error("cannot pass the command line on")]
    Arguments(#[from] NulError),
    /// The kernel refused.
    #[error("exec failed")]
    Exec(#[source] io::Error),
}

/// How long a new executable may take.
pub(super) fn patience() -> Duration {
    let asked = std::env::var(READY_VARIABLE).ok().and_then(|text| text.parse().ok());
    asked.map_or(READY, Duration::from_millis)
}

/// Starts `binary` in this process's place, with `kept`. The caller sees to it that nobody forks meanwhile, and that no
/// signal comes.
pub(super) fn leave(
    binary: &File,
    mut manifest: Manifest,
    mut kept: Vec<(String, OwnedFd)>,
) -> Result<Infallible, LeaveError> {
    // Open for as long as it may be needed; another file may lie under its name already.
    kept.push((IMAGE.to_owned(), File::open("/proc/self/exe")?.into()));
    kept.push((VERDICT.to_owned(), memfd("holdfast-verdict")?));
    manifest.descriptors = kept.iter().map(|(name, fd)| (name.clone(), fd.as_raw_fd())).collect();
    let mut file = File::from(memfd("holdfast-takeover")?);
    file.write_all(&serde_json::to_vec(&manifest).map_err(io::Error::from)?)?;
    let number = file.as_raw_fd();
    kept.push((String::new(), file.into()));
    let arguments: Result<Vec<_>, _> =
        std::env::args_os().map(|it| CString::new(it.into_vec())).collect();
    let (arguments, environment) = (arguments?, environment(&number.to_string())?);

    let inheritable = |flags| -> io::Result<()> {
        kept.iter().try_for_each(|(_, fd)| Ok(fcntl_setfd(fd, flags)?))
    };
    let result = inheritable(FdFlags::empty()).map_err(LeaveError::from).and_then(|()| {
        failpoint!("upgrade.exec", return Err(LeaveError::Exec(io::ErrorKind::Other.into())));
        nix::unistd::fexecve(binary, &arguments, &environment)
            .map_err(|error| LeaveError::Exec(error.into()))
    });
    inheritable(FdFlags::CLOEXEC)?;
    result
}

fn memfd(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// This process's environment, with the manifest's number.
pub(super) fn environment(takeover: &str) -> Result<Vec<CString>, NulError> {
    let ours = std::env::vars_os().filter(|(key, _)| key != VARIABLE);
    let all = ours.chain([(VARIABLE.into(), OsString::from(takeover))]);
    all.map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect()
}
