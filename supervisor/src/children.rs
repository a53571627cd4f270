//! Who our children are: one token an incarnation, and the file that outlives this process.
//!
//! A child is believed when its token is known, the kernel names the same pid on its socket, and that pid started
//! when the child says. Nothing here starts or ends a process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use holdfast_proto::control::Hello;
use holdfast_proto::process::{ProcessId, open, runs};
use serde::{Deserialize, Serialize};

use crate::directories::write_private;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// Between two looks at whether the list could be written.
const MEND_EVERY: Duration = Duration::from_secs(1);

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Serves one listener.
    Worker {
        /// The listener's address.
        listener: SocketAddr,
        /// Number of the worker in its group.
        generation: u64,
    },
    /// Checks backends.
    Prober,
}

/// One life of one child.
#[derive(Debug)]
pub struct Incarnation {
    /// Told apart from every other incarnation of this supervisor.
    pub number: u64,
    /// What it is for.
    pub role: Role,
    /// Known to the child and to nobody else.
    pub token: String,
    id: OnceLock<ProcessId>,
}

/// A line of `RUNTIME/children`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What it is for.
    pub role: Role,
    /// Its pid.
    pub pid: u32,
    /// Its start time, as in [`ProcessId`].
    pub start_time: u64,
    /// Its token.
    pub token: String,
}

/// Every living child.
#[derive(Debug)]
pub struct Children {
    by_token: Mutex<HashMap<String, Arc<Incarnation>>>,
    /// Held across a write, and taken before the table is: an older list never replaces a newer one, and nobody who asks
    /// for a child waits for a disk.
    writing: Mutex<()>,
    next: AtomicU64,
    /// The highest generation that was given.
    generations: AtomicU64,
    list: PathBuf,
    /// The list on disk is not the present one.
    stale: AtomicBool,
    /// Who was turned away last, for the log.
    turned_away: Mutex<Option<(u32, Stranger)>>,
}

/// Why somebody on a private socket was turned away.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum Stranger {
    /// Other protocol version.
    #[error("speaks control protocol {theirs}, this supervisor {ours}")]
    Protocol {
        /// What it speaks.
        theirs: u32,
        /// What we speak.
        ours: u32,
    },
    /// No such token.
    #[error("its token is not one of ours")]
    Token,
    /// It cannot be told: there are no descriptors left.
    #[error("its process cannot be looked at: {0}")]
    Unseen(std::io::ErrorKind),
    /// The kernel or `/proc` names another process.
    #[error("its socket belongs to another process than the token does")]
    Process,
}

// === impl Incarnation ===

impl Incarnation {
    /// The process, once it is spawned.
    pub fn process(&self) -> Option<ProcessId> {
        self.id.get().copied()
    }

    /// Its pid; 0 before it is spawned.
    pub fn pid(&self) -> u32 {
        self.process().map_or(0, |id| id.pid)
    }
}

// === impl Children ===

impl Children {
    /// An empty list, to be kept at `RUNTIME/children`.
    pub fn new(runtime: &Path) -> Self {
        Self {
            by_token: Mutex::default(),
            writing: Mutex::default(),
            next: AtomicU64::new(1),
            generations: AtomicU64::new(0),
            list: runtime.join("children"),
            stale: AtomicBool::new(false),
            turned_away: Mutex::default(),
        }
    }

    /// The living children that an earlier supervisor left behind.
    pub(crate) fn left_behind(&self) -> Vec<Listed> {
        let Ok(text) = std::fs::read_to_string(&self.list) else { return Vec::new() };
        let listed = text.lines().filter_map(|line| serde_json::from_str::<Listed>(line).ok());
        // Also of those that have died since: their tunnels' records may still name them.
        let note = |listed: &Listed| {
            if let Role::Worker { generation, .. } = listed.role {
                self.generations.fetch_max(generation, Ordering::Relaxed);
            }
        };
        listed
            .inspect(note)
            .filter(|listed| runs(ProcessId { pid: listed.pid, start_time: listed.start_time }))
            .collect()
    }

    /// Some of that generation's tunnels are there: no later worker gets its number.
    pub(crate) fn note_generation(&self, generation: u64) {
        self.generations.fetch_max(generation, Ordering::Relaxed);
    }

    /// Makes a new incarnation, known by its token before its process exists.
    pub fn expect(&self, role: Role) -> Arc<Incarnation> {
        let bytes: [u8; TOKEN_BYTES] = rand::random();
        let token = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        self.insert(role, token, OnceLock::new())
    }

    /// Takes over the living children of an earlier supervisor; from now on the list names them as ours.
    pub fn adopt_left_behind(&self) -> Vec<Arc<Incarnation>> {
        let adopt = |listed: Listed| {
            let id = ProcessId { pid: listed.pid, start_time: listed.start_time };
            self.insert(listed.role, listed.token, OnceLock::from(id))
        };
        self.left_behind().into_iter().map(adopt).collect()
    }

    fn insert(&self, role: Role, token: String, id: OnceLock<ProcessId>) -> Arc<Incarnation> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let incarnation = Arc::new(Incarnation { number, role, token, id });
        self.table().insert(incarnation.token.clone(), incarnation.clone());
        incarnation
    }

    /// Notes the process of an expected incarnation, and writes the list. A list that cannot be written keeps nobody
    /// from serving: [`Children::mend`] tries again.
    pub fn born(&self, incarnation: &Incarnation, id: ProcessId) -> std::io::Result<()> {
        if incarnation.id.set(id).is_err() {
            return Err(std::io::Error::other("this incarnation has a process already"));
        }
        self.update();
        Ok(())
    }

    /// Forgets an incarnation whose process is gone.
    pub fn gone(&self, incarnation: &Incarnation) {
        self.table().remove(&incarnation.token);
        self.update();
    }

    /// Writes the list again whenever it could not be written.
    pub async fn mend(self: Arc<Self>) {
        loop {
            tokio::time::sleep(MEND_EVERY).await;
            if !self.is_listed() {
                tokio::task::block_in_place(|| self.update());
            }
        }
    }

    /// Whether the next supervisor would know everybody.
    pub fn is_listed(&self) -> bool {
        !self.stale.load(Ordering::Relaxed)
    }

    /// Tells the log who was turned away: once, as long as nobody else is.
    pub fn note_stranger(&self, pid: u32, stranger: Stranger) {
        let mut last = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&(pid, stranger)) {
            let error: &dyn std::error::Error = &stranger;
            tracing::warn!(pid, error, "turned a stranger away; it may dial again");
            *last = Some((pid, stranger));
        }
    }

    fn update(&self) {
        match self.write() {
            Ok(()) => {
                if self.stale.swap(false, Ordering::Relaxed) {
                    tracing::info!("the list of children is written again");
                }
            }
            // Once an outage. Serving comes first.
            Err(error) if !self.stale.swap(true, Ordering::Relaxed) => {
                let (error, path): (&dyn std::error::Error, _) = (&error, self.list.display());
                tracing::error!(error, %path, "cannot write the list of children: a supervisor \
                    that is started now would not know those who were born since");
            }
            Err(_) => {}
        }
    }

    /// The number of the next worker, whichever its listener: above those of all that live, and never given twice. A
    /// tunnel's id begins with it, and operators name tunnels by nothing else.
    pub fn next_generation(&self) -> u64 {
        let generation = |child: &Arc<Incarnation>| match child.role {
            Role::Worker { generation, .. } => Some(generation),
            Role::Prober => None,
        };
        let highest = self.table().values().filter_map(generation).max().unwrap_or_default();
        self.generations.fetch_max(highest, Ordering::Relaxed);
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Who says `hello` on a socket whose other end is `peer_pid`, and speaks our protocol.
    pub fn recognise(&self, hello: &Hello, peer_pid: u32) -> Result<Arc<Incarnation>, Stranger> {
        let incarnation = self.identify(hello, peer_pid)?;
        match foreign(hello) {
            Some(stranger) => Err(stranger),
            None => Ok(incarnation),
        }
    }

    /// Who says `hello`, in whatever protocol.
    pub fn identify(&self, hello: &Hello, peer_pid: u32) -> Result<Arc<Incarnation>, Stranger> {
        let incarnation = self.table().get(&hello.token).cloned().ok_or(Stranger::Token)?;
        let said = ProcessId { pid: hello.pid, start_time: hello.start_time };
        let real = ProcessId::of(peer_pid).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData => Stranger::Process,
            kind => Stranger::Unseen(kind),
        })?;
        if incarnation.process() == Some(said) && said == real {
            Ok(incarnation)
        } else {
            Err(Stranger::Process)
        }
    }

    /// Writes beside and renames, so that no reader sees half a list. Mode 0600: it holds tokens.
    fn write(&self) -> std::io::Result<()> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let children: Vec<_> = self.table().values().cloned().collect();
        let mut text = String::new();
        for child in children {
            let Some(id) = child.process() else { continue };
            let listed = Listed {
                role: child.role,
                pid: id.pid,
                start_time: id.start_time,
                token: child.token.clone(),
            };
            text += &serde_json::to_string(&listed)?;
            text.push('\n');
        }
        let written = write_private(&self.list, text.as_bytes());
        drop(writing);
        written
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Incarnation>>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why not everything can be said to somebody who says `hello`.
pub fn foreign(hello: &Hello) -> Option<Stranger> {
    let (theirs, ours) = (hello.protocol, holdfast_proto::protocol());
    (theirs != ours).then_some(Stranger::Protocol { theirs, ours })
}

/// Sends a signal, to that very process: the pidfd is opened first and the start time compared after.
pub fn signal(id: ProcessId, signal: rustix::process::Signal) {
    match open(id) {
        Ok(None) => {}
        Ok(Some(pidfd)) => {
            if let Err(error) = rustix::process::pidfd_send_signal(&pidfd, signal) {
                tracing::debug!(pid = id.pid, %error, "the process was gone before the signal");
            }
        }
        Err(error) => {
            tracing::error!(pid = id.pid, ?signal, %error, "a process was not signalled: it goes on");
        }
    }
}

#[cfg(test)]
mod tests;
