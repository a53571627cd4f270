//! What an executable finds that was started in another one's place: read first thing in `main`, kept under the numbers
//! that it came with until there is no way back, and then closed. Whoever needs something of it gets a duplicate.
#![allow(
    unsafe_code,
    reason = "numbers of descriptors come from the executable before; the environment is changed"
)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::failpoint;
use nix::sys::prctl;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::guard::{self, Plan};
use super::manifest::{BACK, IMAGE, LISTENER, Manifest, Record, VARIABLE, VERDICT};
use super::{early, leave};

/// Longest manifest and reason, bytes: a line a listener, and a panic's words.
const LONGEST: usize = 4 * 1024 * 1024;

static ARRIVED: Mutex<Option<Inherited>> = Mutex::new(None);

/// What there is from the executable before; nothing after an ordinary start.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    record: Option<Record>,
    rolled_back: Option<String>,
    reload: bool,
    kept: Mutex<Vec<(String, OwnedFd)>>,
}

/// Looks for a takeover, and arms the guard. Must be the first thing that `main` does: no other thread may run.
pub fn arrive() {
    let Some(told) = std::env::var_os(VARIABLE) else { return };
    // SAFETY: the process has one thread.
    unsafe { std::env::remove_var(VARIABLE) };
    let Ok(inherited) = read(&told) else { return };
    // A rolled back one has nothing to go back to, but signals may have waited for it as well.
    early::note();
    // Executed by descriptor, it would be called by the descriptor's number on older kernels.
    prctl::set_name(c"holdfast").unwrap_or_default();
    let back = inherited.rolled_back.is_some();
    *ARRIVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(inherited);
    if !back {
        failpoint!("upgrade.arrived");
    }
}

/// What [`arrive`] found; once.
pub(crate) fn inherited() -> Inherited {
    ARRIVED.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

fn read(told: &OsStr) -> io::Result<Inherited> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let told = told.to_str().ok_or_else(invalid)?;
    let (number, back) = match told.strip_suffix(BACK) {
        Some(number) => (number, true),
        None => (told, false),
    };
    let number: RawFd = number.parse().map_err(|_| invalid())?;
    let mut numbers = vec![number];
    let file = own(number)?;
    let manifest: Manifest = serde_json::from_slice(&contents(&file)?)?;
    let mut kept = vec![(String::new(), file)];
    for (name, number) in &manifest.descriptors {
        if numbers.contains(number) {
            return Err(invalid());
        }
        numbers.push(*number);
        kept.push((name.clone(), own(*number)?));
    }
    let verdict = manifest.number(VERDICT).ok_or_else(invalid)?;
    let image = manifest.number(IMAGE).ok_or_else(invalid)?;
    let rolled_back = back.then(|| {
        let reason = kept.iter().find(|(name, _)| name == VERDICT).map(|(_, fd)| contents(fd));
        let reason = reason.and_then(Result::ok).unwrap_or_default();
        String::from_utf8_lossy(&reason).into_owned()
    });
    if !back {
        let number = format!("{number}{BACK}");
        let arguments: Result<Vec<_>, _> =
            std::env::args_os().map(|it| CString::new(it.into_vec())).collect();
        let plan = Plan {
            image,
            verdict,
            kept: numbers,
            arguments: arguments?,
            environment: leave::environment(&number)?,
        };
        guard::arm(plan, Duration::from_millis(manifest.ready_ms))?;
    }
    let (record, reload) = (Some(manifest.record), manifest.reload);
    Ok(Inherited { record, rolled_back, reload, kept: Mutex::new(kept) })
}

/// Takes a descriptor that is open under `number`, and no longer inheritable by children.
fn own(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: only asked whether it is open, before anything else of this process has opened one.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: it is open, was left for us by the executable before, and each number is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Everything in a memfd, wherever its offset stands.
fn contents(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd.try_clone()?);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

// === impl Inherited ===

impl Inherited {
    /// The upgrade that brought this executable here, or did not bring another one.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Why the new executable did not become ready, where this is the old one again.
    pub(crate) fn rolled_back(&self) -> Option<&str> {
        self.rolled_back.as_deref()
    }

    /// Whether the executable before was told to read its file again, and has not.
    pub(crate) fn owes_reload(&self) -> bool {
        self.reload
    }

    /// Something that the executable before has kept for this one.
    pub(crate) fn duplicate(&self, name: &str) -> Option<OwnedFd> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(it, _)| it == name).and_then(|(_, fd)| fd.try_clone().ok())
    }

    /// The listening sockets.
    pub(crate) fn listeners(&self) -> Vec<TcpListener> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = kept.iter().filter(|(name, _)| name == LISTENER);
        listeners.filter_map(|(_, fd)| fd.try_clone().ok().map(TcpListener::from)).collect()
    }

    /// There is no way back any more.
    pub(super) fn settle(&self) {
        guard::disarm();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
