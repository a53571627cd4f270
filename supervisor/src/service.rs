//! The service manager (systemd): what it has passed to this process, what it is told, and what it keeps for the next one.
//!
//! Without a manager all of this does nothing. It decides nothing about tunnels: it copies what the vault holds, and gives
//! back what was copied. `passed` takes descriptors over at the start of the process, `lent` knows which of them the manager
//! listens on itself, `notify` speaks the manager's protocol, `store` keeps the copies up to date on a thread of its own,
//! `page` packs tunnels, `name` names what is stored.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use tokio::time::{MissedTickBehavior, interval};

use crate::state::Supervisor;

mod keeping;
mod lent;
mod name;
mod notify;
mod page;
mod passed;
mod store;

pub use passed::{arrive, withhold};

use keeping::Keeping;
use name::Name;
use notify::{manager, tell};
use passed::Passed;

/// Signs of life in the time that the manager allows between two.
const SIGNS: u32 = 3;
/// What an end takes beside its drain.
const LEAVING: Duration = Duration::from_secs(20);
/// Long enough that a document which is refused does not keep a core busy, and short enough to wait for.
const FAILED_SECONDS: i64 = 1;

/// Reloads that are under way: the manager hears of the first one's begin and of the last one's end.
static RELOADS: AtomicUsize = AtomicUsize::new(0);

/// The service that this supervisor is.
#[derive(Debug, Default)]
pub(crate) struct Service {
    /// Listening sockets that were passed, until somebody takes them.
    sockets: Mutex<Vec<TcpListener>>,
    /// Addresses of sockets that a unit of the manager's has, too.
    lent: Mutex<BTreeSet<SocketAddr>>,
    keeping: Mutex<Option<Keeping>>,
    detached: AtomicBool,
}

/// The manager is told that a reload is under way, as long as this lives.
pub(crate) struct Reloading(());

// === impl Service ===

impl Service {
    /// The passed listening socket of an address.
    pub(crate) fn take_socket(&self, address: SocketAddr) -> Option<TcpListener> {
        let mut sockets = lock(&self.sockets);
        let is_it = |socket: &TcpListener| socket.local_addr().is_ok_and(|it| it == address);
        let passed = std::mem::take(&mut *sockets).into_iter();
        // A socket unit's comes twice, where it was kept as well.
        let (found, others): (Vec<_>, Vec<_>) = passed.partition(is_it);
        *sockets = others;
        found.into_iter().next()
    }

    /// Whether the manager listens there itself, and goes on when this service has ended.
    pub(crate) fn is_lent(&self, address: SocketAddr) -> bool {
        lock(&self.lent).contains(&address)
    }

    /// Whether the end leaves the workers to the next supervisor.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// Ends the copying. What was copied stays where the end is no end for the tunnels, and is taken back otherwise.
    pub(crate) async fn end(&self) {
        let keeping = lock(&self.keeping).take();
        if let Some(keeping) = keeping {
            keeping.end(!self.is_detached()).await;
        }
    }
}

impl Supervisor {
    /// Begins the end of this supervisor alone: workers and tunnels live on for the next one. Where everything drains
    /// already, that goes on: to come to its end at once would cut what it waits for. Says which it is.
    pub(crate) fn begin_detach(&self) -> &'static str {
        if self.stopping() || self.upgrades.owes_a_stop() {
            return "a drain is under way and goes on";
        }
        self.service.detached.store(true, Ordering::Relaxed);
        self.begin_stop(Duration::ZERO);
        "detaches: tunnels wait for the next start"
    }
}

// === impl Reloading ===

impl Reloading {
    pub(crate) fn begin() -> Self {
        if RELOADS.fetch_add(1, Ordering::Relaxed) == 0 {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let now_us = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
            tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
        }
        Self(())
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        if RELOADS.fetch_sub(1, Ordering::Relaxed) == 1 {
            tell("READY=1");
        }
    }
}

// === what a start and an end tell ===

/// Gives the vault back what the manager has kept, and notes what else it has passed; begins to give signs of life. Before
/// the first worker comes. `took_over`: another executable has run in this process, and was passed what there is.
pub(crate) fn begin(supervisor: &Arc<Supervisor>, took_over: bool) {
    let restored = Restored::from(passed::take());
    *lock(&supervisor.service.sockets) = restored.sockets;
    let runtime = &supervisor.directories.runtime;
    *lock(&supervisor.service.lent) =
        if took_over { lent::noted(runtime) } else { lent::note(runtime, restored.lent) };
    if let Some(highest) = restored.kept.highest_generation() {
        supervisor.children.note_generation(highest);
        tracing::info!(
            tunnels = restored.kept.tunnels.len(),
            "tunnels came back from the service manager"
        );
    }
    supervisor.vault.restore(restored.kept);
    // At once: what was taken from the manager's pages is there no more.
    *lock(&supervisor.service.keeping) = keeping::begin(supervisor, restored.names);
    tokio::spawn(give_signs(supervisor.clone()));
}

/// Tells that everything is served, and lets go of what nobody has asked for.
pub(crate) fn ready(supervisor: &Arc<Supervisor>) {
    let me = std::process::id();
    tell(&format!("READY=1\nMAINPID={me}\nSTATUS=serves; see holdfast status"));
    supervisor.vault.forget_unclaimed();
    for socket in std::mem::take(&mut *lock(&supervisor.service.sockets)) {
        let address = socket.local_addr().map(|it| it.to_string()).unwrap_or_default();
        tracing::warn!(
            address,
            "a listening socket was passed that no listener asks for; it is closed here"
        );
    }
}

/// Before a start that has failed ends: the manager would have the next one fail a tenth of a second later, and so on.
pub(crate) fn pause_after_failure() {
    if manager().is_some() {
        let long = Timespec { tv_sec: FAILED_SECONDS, tv_nsec: 0 };
        // Nothing is waited for but the time.
        poll(&mut [], Some(&long)).unwrap_or_default();
    }
}

/// Tells that the end has begun, and how long it may take beside what the manager allows: else it kills what still drains,
/// and starts it anew.
pub(crate) fn stopping(detached: bool, at_most: Duration) {
    let how = if detached { "leaves its workers to the next one" } else { "drains" };
    let patience_us = at_most.saturating_add(LEAVING).as_micros();
    tell(&format!("STOPPING=1\nSTATUS={how}\nEXTEND_TIMEOUT_USEC={patience_us}"));
}

/// Signs of life, which need this runtime and the vault's books.
async fn give_signs(supervisor: Arc<Supervisor>) {
    let Some(patience) = notify::watchdog() else { return };
    let mut ticks = interval(patience / SIGNS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Whoever holds the vault up holds this up.
        supervisor.vault.orphans();
        notify::sign();
    }
}

/// What was passed, sorted.
#[derive(Default)]
struct Restored {
    sockets: Vec<TcpListener>,
    lent: BTreeSet<SocketAddr>,
    kept: crate::vault::Kept<OwnedFd>,
    names: Vec<String>,
}

impl From<Vec<Passed>> for Restored {
    fn from(passed: Vec<Passed>) -> Self {
        let mut this = Self::default();
        for Passed { name, fd } in passed {
            match Name::parse(&name) {
                Some(Name::Arena { listener, version }) => {
                    this.kept.arenas.push((listener, version, fd));
                }
                Some(Name::Tally(listener)) => this.kept.tallies.push((listener, fd)),
                Some(Name::Tunnels(_)) => {
                    let (tunnels, fault) = page::unpack(&fd);
                    this.kept.tunnels.extend(tunnels);
                    if let Some(error) = fault {
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(
                            error,
                            name,
                            "not everything that the service manager kept can be taken back"
                        );
                    }
                }
                Some(Name::Listener(_)) => this.sockets.extend(passed::listening(fd)),
                None => {
                    // The unit of a socket names them as it likes, and they are that unit's.
                    let socket = passed::listening(fd);
                    this.lent.extend(socket.as_ref().and_then(|it| it.local_addr().ok()));
                    this.sockets.extend(socket);
                    continue;
                }
            }
            this.names.push(name);
        }
        this
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
