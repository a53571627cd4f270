//! The vault: duplicates of every tunnel's two descriptors, kept for the worker that comes next, and each listener's
//! arena and tally. Workers deposit, release and are handed tunnels on `RUNTIME/fd.sock`; listening sockets go down there
//! too.
//!
//! It runs on a thread of its own, so that nothing else that the supervisor does delays a tunnel's opening, and it is
//! blind: it interprets no arena and reads no leg. Its lock is held for as long as the books take to change and never
//! across a wait. `books` decides, `channel` talks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::control::Hello;
use holdfast_proto::fd_channel::FdListener;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::children::{Incarnation, Stranger};
use crate::sockets;

mod books;
mod budget;
mod channel;
mod copies;

pub use books::Holdings;
use books::{Abandoned, Books, Descriptor, Luggage, Name, Party};
pub(crate) use copies::{Kept, KeptTunnel, Key};

/// Diallers that have not said yet who they are, at once.
const AT_ONCE: usize = 64;
/// Before the next accept when there are no descriptors left: they come back when something is closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Knows who may attach, and has the listening sockets.
pub trait Reception: Send + Sync + 'static {
    /// Who says `hello` on a socket whose other end is `peer_pid`, in whatever protocol.
    fn recognise(&self, hello: &Hello, peer_pid: u32) -> Result<Arc<Incarnation>, Stranger>;

    /// That worker is here, and may have brought the listening socket that it holds.
    fn came(&self, incarnation: u64, socket: Option<TcpListener>);

    /// What that worker is to accept on: nothing when it is to drain. `Err` where it is not known yet.
    fn listening_socket(
        &self,
        incarnation: u64,
    ) -> impl Future<Output = Result<Option<Arc<TcpListener>>, String>> + Send;
}

/// The vault, for the rest of the supervisor.
#[derive(Debug)]
pub struct Vault {
    desk: Arc<Desk>,
    ended: watch::Sender<bool>,
}

/// As long as a listener has one of these, what it has in the vault stays.
#[derive(Debug)]
pub struct Tenancy {
    desk: Arc<Desk>,
    listener: SocketAddr,
    ended: bool,
}

#[derive(Debug)]
struct Desk {
    open: Mutex<Open>,
    /// Rung when the books may have changed.
    changed: Notify,
    /// How many descriptors may be held, now.
    budget: fn() -> usize,
}

#[derive(Debug, Default)]
struct Open {
    books: Books<OwnedFd>,
    /// Rung when a party has something to hear.
    bells: HashMap<Party, Arc<Notify>>,
    tenancies: BTreeMap<SocketAddr, usize>,
}

// === impl Vault ===

impl Default for Vault {
    fn default() -> Self {
        Self::within(budget::now)
    }
}

impl Vault {
    fn within(budget: fn() -> usize) -> Self {
        let desk = Arc::new(Desk { open: Mutex::default(), changed: Notify::new(), budget });
        Self { desk, ended: watch::Sender::new(false) }
    }

    /// Serves the socket at `path`, on a thread of its own, until [`Vault::end`].
    pub async fn serve<R: Reception>(&self, path: PathBuf, reception: Arc<R>) -> io::Result<()> {
        budget::raise();
        let (desk, ended) = (self.desk.clone(), self.ended.subscribe());
        let (tell, bound) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async move {
                // Here, since it belongs to this runtime.
                match sockets::put_in_place(&path, 0o600, FdListener::bind) {
                    Ok(listener) => {
                        drop(tell.send(Ok(())));
                        accept(listener, desk, reception, ended).await;
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        };
        std::thread::Builder::new().name("vault".to_owned()).spawn(run)?;
        bound.await.unwrap_or_else(|_| Err(io::Error::other("the vault's thread died")))
    }

    /// Hangs up. What is held is held until the process ends.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Keeps what a listener has here for as long as the tenancy, or another one of that listener, lives.
    pub fn tenancy(&self, listener: SocketAddr) -> Tenancy {
        *self.desk.lock().tenancies.entry(listener).or_default() += 1;
        Tenancy { desk: self.desk.clone(), listener, ended: false }
    }

    /// What is held.
    pub fn holdings(&self) -> Holdings {
        let budget = (self.desk.budget)();
        self.desk.change(|books| {
            books.set_budget(budget);
            books.holdings()
        })
    }

    /// How many tunnels of a listener are held.
    pub fn tunnels_of(&self, listener: SocketAddr) -> usize {
        self.desk.lock().books.tunnels_of(listener)
    }

    /// Which tunnels of a listener are held.
    pub fn ids_of(&self, listener: SocketAddr) -> BTreeSet<u64> {
        self.desk.lock().books.ids_of(listener)
    }

    /// How many tunnels nobody else holds: they end with this process.
    pub fn orphans(&self) -> usize {
        self.desk.lock().books.orphans()
    }

    /// How many held tunnels that worker had last: they would outlive it.
    pub fn protected(&self, listener: SocketAddr, generation: u64) -> usize {
        self.desk.lock().books.lent_to(Name { listener, generation })
    }
}

// === impl Tenancy ===

impl Tenancy {
    /// Ends it. Whether it was the listener's last: what the listener had here is no more.
    pub fn end(mut self) -> bool {
        self.give_up()
    }

    /// Ends it if the listener has others, who then look after what it has here. The last one stays: of two that end at
    /// once, one does.
    pub fn leave_to_others(&mut self) -> bool {
        if self.ended {
            return true;
        }
        let mut open = self.desk.lock();
        let left = open.tenancies.entry(self.listener).or_default();
        if *left < 2 {
            return false;
        }
        *left -= 1;
        self.ended = true;
        true
    }

    fn give_up(&mut self) -> bool {
        if std::mem::replace(&mut self.ended, true) {
            return false;
        }
        let mut open = self.desk.lock();
        let left = open.tenancies.entry(self.listener).or_default();
        *left = left.saturating_sub(1);
        let is_last = *left == 0;
        if is_last {
            open.tenancies.remove(&self.listener);
            // Under the same lock: the listener may come back at any moment.
            open.books.forget(self.listener);
        }
        drop(open);
        self.desk.change(|_| ());
        is_last
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.give_up();
    }
}

// === impl Desk ===

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the books, wakes whom it concerns, and closes what was let go of.
    fn change<T>(&self, change: impl FnOnce(&mut Books<OwnedFd>) -> T) -> T {
        let (outcome, closing, polls, abandoned) = {
            let mut open = self.lock();
            let outcome = change(&mut open.books);
            for party in open.books.take_rung() {
                if let Some(bell) = open.bells.get(&party) {
                    bell.notify_one();
                }
            }
            let books = &mut open.books;
            (outcome, books.take_bin(), books.take_old_polls(), books.take_abandoned())
        };
        self.changed.notify_one();
        drop(closing);
        close_aside(polls);
        for Abandoned { listener, version, tunnels } in abandoned {
            tracing::error!(%listener, version, tunnels, "tunnels were let go of: their worker is gone, \
                and no other one knows their arena's layout");
        }
        outcome
    }

    fn attach(&self, name: Name, luggage: Luggage<OwnedFd>) -> (Party, Arc<Notify>) {
        let bell = Arc::new(Notify::new());
        bell.notify_one();
        let mut open = self.lock();
        let party = open.books.attach(name, luggage);
        open.bells.insert(party, bell.clone());
        drop(open);
        // For those who hear of it.
        self.change(|_| ());
        (party, bell)
    }

    fn detach(&self, party: Party) {
        self.change(|books| books.detach(party));
        self.lock().bells.remove(&party);
    }
}

/// Closes epoll instances without having anybody wait for it: one that thousands of sockets are registered with takes the
/// kernel tens of milliseconds.
fn close_aside(polls: Vec<OwnedFd>) {
    if !polls.is_empty() {
        let closing = std::thread::Builder::new().name("closing".to_owned());
        // Where there is no thread to be had, they are closed here.
        drop(closing.spawn(move || drop(polls)));
    }
}

impl Descriptor for OwnedFd {
    fn same(&self, other: &Self) -> bool {
        match (rustix::fs::fstat(self), rustix::fs::fstat(other)) {
            (Ok(one), Ok(two)) => (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino),
            _ => false,
        }
    }
}

async fn accept<R: Reception>(
    listener: FdListener,
    desk: Arc<Desk>,
    reception: Arc<R>,
    mut ended: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut channels = JoinSet::new();
    let accepting = async {
        let mut short = false;
        loop {
            while channels.try_join_next().is_some() {}
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(end) => {
                    short = false;
                    let (desk, reception) = (desk.clone(), reception.clone());
                    channels.spawn(channel::serve(end, desk, reception, slot));
                }
                Err(error) => {
                    // Once a shortage: it is asked for many times.
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(%error,
                            "cannot accept on the fd socket: workers that dial wait in its queue");
                    }
                    // EMFILE lasts until something is closed; asking again at once would only spin.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    // Cut anywhere: the channels are dropped with their set, and that ends them.
    tokio::select! {
        () = accepting => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
}

#[cfg(test)]
mod tests;
