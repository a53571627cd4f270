//! Starting a child: from this process's own executable, by descriptor, so that a package upgrade never mixes versions.
//!
//! A child gets its bootstrap on standard input, shares standard error for its log (a worker also standard output, for the
//! access log), and inherits nothing else. It is
//! never tied to this process's life (no `PR_SET_PDEATHSIG`): workers outlive a supervisor.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use holdfast_proto::bootstrap::{Bootstrap, Death};
use holdfast_proto::process::ProcessId;
use tokio::sync::{RwLock, RwLockWriteGuard};

use crate::children::{Children, Incarnation, Role};

/// Starts children.
#[derive(Debug)]
pub struct Spawner {
    executable: File,
    runtime: PathBuf,
    children: Arc<Children>,
    /// Held for reading while a child is born.
    births: RwLock<()>,
}

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// fork or exec failed.
    #[error("cannot start a child process")]
    Start(#[source] io::Error),
    /// It died at once, or its list entry could not be written.
    #[error("the child process was gone before it could be told who it is")]
    Tell(#[source] io::Error),
}

// === impl Spawner ===

impl Spawner {
    /// Opens this process's executable; it stays the children's even when the file is replaced.
    pub fn new(runtime: PathBuf, children: Arc<Children>) -> io::Result<Self> {
        Ok(Self {
            executable: File::open("/proc/self/exe")?,
            runtime,
            children,
            births: RwLock::default(),
        })
    }

    /// Waits until no child is being born; none is before the guard is dropped. Whoever makes descriptors inheritable,
    /// or ends this process's threads, needs that.
    pub(crate) async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.births.write().await
    }

    /// Starts a child of `role` with `threads` event loops. A worker is told how earlier ones died. Somebody else has to
    /// wait for it.
    pub async fn spawn(
        &self,
        role: Role,
        threads: u32,
        deaths: Vec<Death>,
    ) -> Result<Arc<Incarnation>, SpawnError> {
        let _birth = self.births.read().await;
        let incarnation = self.children.expect(role);
        if let Err(error) = self.start(&incarnation, threads, deaths) {
            self.children.gone(&incarnation);
            return Err(error);
        }
        Ok(incarnation)
    }

    /// Runs this executable with other arguments, for an answer on its standard output. It is no child of the gateway's:
    /// it is told nothing but its arguments, and ends with the value that is returned.
    pub(crate) async fn run(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> io::Result<tokio::process::Child> {
        let _birth = self.births.read().await;
        tokio::process::Command::new(format!("/proc/self/fd/{}", self.executable.as_raw_fd()))
            .arg0("holdfast")
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C is for the gateway.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    fn start(
        &self,
        incarnation: &Incarnation,
        threads: u32,
        deaths: Vec<Death>,
    ) -> Result<(), SpawnError> {
        let (subcommand, listener, generation) = match incarnation.role {
            Role::Worker { listener, generation } => ("worker", listener.to_string(), generation),
            Role::Prober => ("prober", String::new(), 0),
        };
        let title = match incarnation.role {
            Role::Worker { .. } => format!("holdfast: worker {listener} generation {generation}"),
            Role::Prober => "holdfast: prober".to_owned(),
        };
        let output = match incarnation.role {
            Role::Worker { .. } => Stdio::inherit(),
            Role::Prober => Stdio::null(),
        };
        // The path is resolved in the child, before exec closes the descriptor.
        let mut child = Command::new(format!("/proc/self/fd/{}", self.executable.as_raw_fd()))
            .arg0(title)
            .arg(subcommand)
            .stdin(Stdio::piped())
            .stdout(output)
            .spawn()
            .map_err(SpawnError::Start)?;
        let bootstrap = Bootstrap {
            runtime_dir: self.runtime.clone(),
            token: incarnation.token.clone(),
            listener,
            generation,
            threads,
            deaths,
        };
        self.tell(incarnation, &mut child, &bootstrap).map_err(|error| {
            // There may be none to kill any more.
            child.kill().unwrap_or_default();
            tokio::task::spawn_blocking(move || child.wait());
            SpawnError::Tell(error)
        })
    }

    fn tell(
        &self,
        incarnation: &Incarnation,
        child: &mut Child,
        bootstrap: &Bootstrap,
    ) -> io::Result<()> {
        // Known before it can say Hello: it can't before it has read its bootstrap.
        self.children.born(incarnation, ProcessId::of(child.id())?)?;
        let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // Far less than a pipe holds.
        input.write_all(bootstrap.to_line().as_bytes())
    }
}
