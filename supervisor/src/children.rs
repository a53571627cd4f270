//! Who our children are: one token an incarnation, and the file that outlives this process.
//!
//! A child is believed when its token is known, the kernel names the same pid on its socket, and that pid started
//! when the child says. Nothing here starts or ends a process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holdfast_proto::control::Hello;
use holdfast_proto::process::{ProcessId, open, runs};
use serde::{Deserialize, Serialize};

use crate::directories::write_private;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

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
}

/// Why somebody on a private socket was turned away.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
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
        }
    }

    /// The living children that an earlier supervisor left behind.
    fn left_behind(&self) -> Vec<Listed> {
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

    /// Notes the process of an expected incarnation, and writes the list.
    pub fn born(&self, incarnation: &Incarnation, id: ProcessId) -> std::io::Result<()> {
        if incarnation.id.set(id).is_err() {
            return Err(std::io::Error::other("this incarnation has a process already"));
        }
        self.write()
    }

    /// Forgets an incarnation whose process is gone.
    pub fn gone(&self, incarnation: &Incarnation) {
        self.table().remove(&incarnation.token);
        if let Err(error) = self.write() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot write the list of children"
            );
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

    /// Who says `hello` on a socket whose other end is `peer_pid`.
    pub fn recognise(&self, hello: &Hello, peer_pid: u32) -> Result<Arc<Incarnation>, Stranger> {
        if hello.protocol != holdfast_proto::PROTOCOL {
            let ours = holdfast_proto::PROTOCOL;
            return Err(Stranger::Protocol { theirs: hello.protocol, ours });
        }
        let incarnation = self.table().get(&hello.token).cloned().ok_or(Stranger::Token)?;
        let said = ProcessId { pid: hello.pid, start_time: hello.start_time };
        let real = ProcessId::of(peer_pid).map_err(|_| Stranger::Process)?;
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

/// Sends a signal, to that very process: the pidfd is opened first and the start time compared after.
pub fn signal(id: ProcessId, signal: rustix::process::Signal) {
    if let Some(pidfd) = open(id)
        && let Err(error) = rustix::process::pidfd_send_signal(&pidfd, signal)
    {
        tracing::debug!(pid = id.pid, %error, "the process was gone before the signal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(token: &str, id: ProcessId) -> Hello {
        Hello {
            protocol: holdfast_proto::PROTOCOL,
            pid: id.pid,
            start_time: id.start_time,
            token: token.to_owned(),
            ..Hello::default()
        }
    }

    #[tokio::test]
    async fn a_child_that_has_ended_is_not_left_behind_even_before_anybody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let first = Children::new(dir.path());
        first.born(&first.expect(Role::Prober), id).unwrap();
        holdfast_proto::process::gone(id).await;
        assert!(Children::new(dir.path()).left_behind().is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn a_child_is_known_by_token_pid_and_start_time() {
        let dir = tempfile::tempdir().unwrap();
        let children = Children::new(dir.path());
        let me = ProcessId::me().unwrap();
        let child = children.expect(Role::Prober);
        assert_eq!(
            children.recognise(&hello(&child.token, me), me.pid).unwrap_err(),
            Stranger::Process
        );
        children.born(&child, me).unwrap();
        assert!(children.recognise(&hello(&child.token, me), me.pid).is_ok());
        assert_eq!(children.recognise(&hello("guess", me), me.pid).unwrap_err(), Stranger::Token);
        assert_eq!(children.recognise(&hello(&child.token, me), 1).unwrap_err(), Stranger::Process);
        let later = ProcessId { start_time: me.start_time + 1, ..me };
        let error = children.recognise(&hello(&child.token, later), me.pid).unwrap_err();
        assert_eq!(error, Stranger::Process);
    }

    #[test]
    fn the_list_names_the_living_only() {
        let dir = tempfile::tempdir().unwrap();
        let children = Children::new(dir.path());
        let me = ProcessId::me().unwrap();
        let living = children.expect(Role::Prober);
        children.born(&living, me).unwrap();
        let dead = children.expect(Role::Prober);
        children.born(&dead, ProcessId { pid: me.pid, start_time: 1 }).unwrap();
        let left = Children::new(dir.path()).left_behind();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].token, living.token);
        children.gone(&living);
        assert!(Children::new(dir.path()).left_behind().is_empty());
    }

    #[test]
    fn a_generation_is_above_all_that_live_and_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let children = Children::new(dir.path());
        assert_eq!(children.next_generation(), 1);
        let worker = |port, generation| Role::Worker {
            listener: SocketAddr::from(([127, 0, 0, 1], port)),
            generation,
        };
        children.expect(worker(80, 2));
        let ninth = children.expect(worker(81, 9));
        assert_eq!(children.next_generation(), 10);
        children.gone(&ninth);
        assert_eq!(children.next_generation(), 11);
    }

    #[test]
    fn nobody_waits_behind_the_writing_of_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let children = Children::new(dir.path());
        let me = ProcessId::me().unwrap();
        let child = children.expect(Role::Prober);
        children.born(&child, me).unwrap();
        let writing = children.writing.lock().unwrap();
        assert!(children.recognise(&hello(&child.token, me), me.pid).is_ok());
        drop(writing);
    }

    #[test]
    fn an_adopted_child_is_listed_still_after_another_is_born() {
        let dir = tempfile::tempdir().unwrap();
        let me = ProcessId::me().unwrap();
        let first = Children::new(dir.path());
        first.born(&first.expect(Role::Prober), me).unwrap();
        let second = Children::new(dir.path());
        let adopted = second.adopt_left_behind();
        second.born(&second.expect(Role::Prober), me).unwrap();
        let left = Children::new(dir.path()).left_behind();
        assert!(left.iter().any(|listed| listed.token == adopted[0].token));
    }
}
