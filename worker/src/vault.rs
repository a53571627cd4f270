//! The worker's line to the vault: the listening socket comes down, tunnels go both ways.
//!
//! The supervisor owns the address; a worker only borrows the socket until its drain begins. After a supervisor's
//! death the worker dials again and brings all that it holds. What a tunnel is, is decided elsewhere: here packets
//! become calls, and the order of calls is kept.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::bootstrap::Death;
use holdfast_proto::control::Hello;
use holdfast_proto::control::vault_reply::{Handed, Kind as Reply};
use holdfast_proto::control::vault_request::{
    Adopted, Deposit, Frozen, Keep, KeepPolls, Kind as Request, Release, Window,
};
use holdfast_proto::failpoint;
use holdfast_proto::vault::{MOST_IDS, MOST_TUNNELS, WorkerEnd};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::backoff::Backoff;
use crate::drain::Drain;
use crate::tunnel::{self, Tunnels};

mod attached;
mod departed;
mod handover;
mod line_error;
mod shortage;

pub(crate) use attached::Attached;
use departed::Departed;
use handover::Handover;
pub(crate) use line_error::LineError;
use shortage::Shortage;

/// The listening socket, once it is here.
pub(crate) type Slot = watch::Sender<Option<Arc<TcpListener>>>;

/// Handed tunnels that may be on their way at once: a thousand descriptors, far below any limit on those in flight.
const WINDOW: u32 = 500;
/// Before what the vault had no room for is offered again.
const AGAIN: Duration = Duration::from_secs(1);

/// One worker's line, across supervisors.
pub(crate) struct Line {
    path: PathBuf,
    hello: Hello,
    deaths: Vec<Death>,
    slot: Slot,
    drain: Drain,
    news: News,
}

/// What the rest of the process is told.
#[derive(Debug, Clone)]
pub(crate) struct News {
    /// Every tunnel that can move is a successor's.
    pub(crate) handed_over: watch::Sender<bool>,
    /// What earlier processes had left is here: from now on a count of no tunnels means that there are none.
    pub(crate) settled: watch::Sender<bool>,
    /// How many tunnels of other processes have become ours.
    pub(crate) taken: watch::Sender<u64>,
}

/// One line from its attachment to its end.
struct Session<'a> {
    line: &'a Line,
    channel: WorkerEnd,
    tunnels: &'a Tunnels,
    /// On their way to the vault.
    deposits: HashMap<u64, tunnel::Deposit>,
    /// Some are to be deposited again.
    refused: bool,
    shortage: Shortage,
    /// It has said that it takes tunnels.
    open: bool,
    /// Tunnels of dead generations that were taken and not told of in the log.
    resumed: usize,
    handover: Handover,
    departed: Departed,
    /// The vault takes epoll instances.
    keeps_polls: bool,
}

// === impl Line ===

impl Line {
    pub(crate) fn new(
        path: PathBuf,
        hello: Hello,
        deaths: Vec<Death>,
        slot: Slot,
        drain: Drain,
        news: News,
    ) -> Self {
        Self { path, hello, deaths, slot, drain, news }
    }

    /// The first attachment of this process: without it there is nothing to serve and nothing to take over.
    pub(crate) async fn first(&self, arena_version: u32) -> Result<Attached, LineError> {
        self.attach(arena_version, &[], false).await
    }

    /// Keeps the line up for as long as the process lives, and lets go of the socket when the drain begins. The tunnels
    /// are attached to `first` already.
    pub(crate) async fn keep(self, first: Option<Attached>, tunnels: Arc<Tunnels>) {
        let draining = async {
            self.drain.begun().await;
            self.slot.send_replace(None);
            std::future::pending::<()>().await;
        };
        let attached = async {
            let mut backoff = Backoff::new();
            failpoint!("line.before");
            let mut first = first.map(|attached| (attached.channel, attached.keeps_polls));
            let mut told = false;
            loop {
                let begun = Instant::now();
                let ended = match first.take() {
                    Some((channel, keeps_polls)) => {
                        self.session(channel, keeps_polls, &tunnels, true).await
                    }
                    None => self.dial_again(&tunnels).await,
                };
                tunnels.detach();
                let lived = begun.elapsed() > Backoff::SHORT;
                if let Err(error) = ended {
                    let error: &dyn std::error::Error = &error;
                    // Once an outage: it is dialled many times.
                    if lived || !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            error,
                            "no line to the vault: tunnels are neither protected nor taken over"
                        );
                    } else {
                        tracing::debug!(error, "still no line to the vault");
                    }
                }
                if lived {
                    backoff.reset();
                }
                sleep(backoff.next()).await;
            }
        };
        // Neither ends; cut anywhere, an attachment leaves only a closed channel behind.
        tokio::join!(draining, attached);
    }

    async fn dial_again(&self, tunnels: &Tunnels) -> Result<(), LineError> {
        let version = Tunnels::arena_version();
        let shared = tunnels.shared_fds();
        let Attached { channel, arena, tally, keeps_polls, polls: _ } =
            self.attach(version, &shared, true).await?;
        if arena.is_some() || tally.is_some() {
            // Ours could not be brought in: these tunnels stay here and drain.
            tracing::warn!("the vault holds another arena of this listener");
        }
        self.session(channel, keeps_polls, tunnels, false).await
    }

    async fn session(
        &self,
        channel: WorkerEnd,
        keeps_polls: bool,
        tunnels: &Tunnels,
        made_here: bool,
    ) -> Result<(), LineError> {
        let mut session = Session {
            line: self,
            channel,
            tunnels,
            deposits: HashMap::new(),
            refused: false,
            shortage: Shortage::default(),
            open: false,
            resumed: 0,
            handover: Handover::default(),
            departed: Departed::new(self.deaths.clone()),
            keeps_polls,
        };
        if made_here {
            session.offer_shared().await?;
        } else {
            tunnels.attach();
        }
        session.offer_polls().await?;
        session.run().await
    }
}

// === impl Session ===

impl Session<'_> {
    async fn send(&self, kind: Request, fds: &[BorrowedFd<'_>]) -> Result<(), LineError> {
        self.channel.send(&kind.into(), fds).await.map_err(LineError::Talk)
    }

    /// Gives the vault the arena and the tally; where it has them already these are the same, and it says so.
    async fn offer_shared(&mut self) -> Result<(), LineError> {
        let keep = Request::Keep(Keep { arena: true, tally: true });
        self.send(keep, &self.tunnels.shared_fds()).await
    }

    /// Gives the vault what the tunnels are watched by, for a worker that comes after a death.
    async fn offer_polls(&mut self) -> Result<(), LineError> {
        if !self.keeps_polls {
            return Ok(());
        }
        let (ids, fds) = self.tunnels.polls();
        self.send(Request::KeepPolls(KeepPolls { ids }), &fds).await
    }

    async fn run(&mut self) -> Result<(), LineError> {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orders = self.line.drain.watch();
        loop {
            self.open().await?;
            self.hand_over().await?;
            let thaw_at = self.handover.gives_up_at();
            // Each arm is cancel-safe: a packet comes as a whole, the others wait for a bell, a clock or a process.
            tokio::select! {
                received = self.channel.receive() => {
                    let Some((reply, fds)) = received.map_err(LineError::Talk)? else {
                        return Err(LineError::HungUp);
                    };
                    let Some(kind) = reply.kind else { continue };
                    self.hear(kind, fds).await?;
                }
                () = self.tunnels.rung() => self.flush().await?,
                death = self.departed.next(self.tunnels) => {
                    self.departed.note_taken(death.generation);
                    self.resume(death).await?;
                    self.sweep();
                }
                () = until(thaw_at) => {
                    if self.handover.is_under_way() {
                        tracing::warn!("the successor did not take a batch of tunnels in time: they go on here, \
                            and are offered again");
                    }
                    self.handover.give_up();
                }
                _ = again.tick(), if self.refused || self.shortage.is_told() => {
                    if std::mem::take(&mut self.refused) {
                        // What had no room for a tunnel may have had none for these.
                        self.offer_polls().await?;
                        self.tunnels.deposit_again();
                    } else if !self.tunnels.has_unprotected() {
                        self.shortage.end();
                    }
                }
                changed = orders.changed() => if changed.is_err() { std::future::pending().await }
            }
        }
    }

    /// Asks for what others have left, once everything of its own is deposited: the vault is to know first what is whose.
    async fn open(&mut self) -> Result<(), LineError> {
        if !self.open && !self.tunnels.has_pending() {
            self.open = true;
            self.send(Request::Window(Window { tunnels: WINDOW }), &[]).await?;
        }
        Ok(())
    }

    /// Sends what tunnels have for the vault.
    async fn flush(&mut self) -> Result<(), LineError> {
        let pending = self.tunnels.pending(MOST_TUNNELS);
        if !pending.deposits.is_empty() {
            let held = |one: &tunnel::Deposit| holdfast_proto::control::Held {
                id: one.id(),
                index: one.index(),
            };
            let tunnels = pending.deposits.iter().map(held).collect();
            let fds: Vec<_> = pending.deposits.iter().flat_map(tunnel::Deposit::sockets).collect();
            failpoint!("deposit.before");
            self.send(Request::Deposit(Deposit { tunnels }), &fds).await?;
            failpoint!("deposit.sent");
            drop(fds);
            self.deposits.extend(pending.deposits.into_iter().map(|one| (one.id(), one)));
        }
        for ids in pending.releases.chunks(MOST_IDS) {
            failpoint!("release.before");
            self.send(Request::Release(Release { ids: ids.to_vec() }), &[]).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), LineError> {
        match reply {
            Reply::Stored(stored) => {
                self.tunnels.note_answer();
                failpoint!("deposit.stored");
                for id in stored.ids {
                    if let Some(deposit) = self.deposits.remove(&id) {
                        deposit.answer(true);
                    }
                }
                if !stored.refused.is_empty() {
                    self.refused = true;
                    self.shortage.note_refused(stored.refused.len(), stored.reason);
                }
                for id in stored.refused {
                    if let Some(deposit) = self.deposits.remove(&id) {
                        deposit.answer(false);
                    }
                }
            }
            Reply::Handed(handed) => self.hand_in(handed, fds).await?,
            Reply::HandedAll(all) => {
                self.tunnels.drop_stale();
                for generation in self.tunnels.owners() {
                    self.meet(generation).await?;
                }
                self.departed.note_handed_all(all.attached);
                self.sweep();
                self.line.news.settled.send_replace(true);
            }
            Reply::Departed(departed) => {
                self.departed.note_detached(departed.generation);
                // It may own what it never deposited, and then nobody has met it.
                self.meet(departed.generation).await?;
                self.sweep();
            }
            Reply::Released(released) => self.tunnels.released(&released.ids),
            Reply::Frozen(frozen) => {
                failpoint!("adopt.heard");
                let ids = self.tunnels.take_frozen(&frozen.ids);
                self.note_taken(&ids);
                let from_generation = frozen.from_generation;
                self.send(Request::Adopted(Adopted { from_generation, ids }), &[]).await?;
                failpoint!("adopt.told_predecessor");
            }
            Reply::Adopted(adopted) => {
                self.tunnels.forget(&adopted.ids);
                self.handover.note_adopted(&adopted.ids);
            }
            Reply::Successor(successor) => {
                // What the one before was told of, it may never take.
                if self.handover.set_successor(successor.generation) && self.handover.is_under_way()
                {
                    self.tunnels.thaw();
                    self.handover.give_up();
                }
            }
            // What is in force is what we hold, or the tunnels stay here; a second grant says nothing new.
            Reply::Kept(_) | Reply::Granted(_) => {}
        }
        Ok(())
    }

    async fn hand_in(&mut self, handed: Handed, fds: Vec<OwnedFd>) -> Result<(), LineError> {
        let count = handed.tunnels.len();
        if fds.is_empty() && count > 0 {
            return Err(LineError::Short { tunnels: count });
        }
        if fds.len() != 2 * count {
            return Err(LineError::Manifest { what: "handed tunnels", fds: fds.len() });
        }
        let mut fds = fds.into_iter();
        let mut tunnels = Vec::with_capacity(count);
        for held in handed.tunnels {
            let (Some(client), Some(backend)) = (fds.next(), fds.next()) else { break };
            tunnels.push(tunnel::Handed::new(held.id, held.index, client, backend));
        }
        let tunnel::HandedIn { owners, ended } = self.tunnels.hand_in(tunnels);
        if !ended.is_empty() {
            self.send(Request::Release(Release { ids: ended }), &[]).await?;
        }
        for generation in owners {
            self.meet(generation).await?;
        }
        let tunnels = u32::try_from(count).unwrap_or(0);
        self.send(Request::Window(Window { tunnels }), &[]).await
    }

    /// Takes what an owner has left, or waits for its end.
    async fn meet(&mut self, generation: u64) -> Result<(), LineError> {
        match self.departed.death_of(generation, self.tunnels) {
            Some(death) => self.resume(death).await?,
            None => self.departed.watch(generation, self.tunnels),
        }
        Ok(())
    }

    /// Takes what a dead process has left, and tells the vault whose it is now.
    async fn resume(&mut self, death: Death) -> Result<(), LineError> {
        let taken = self.tunnels.take_from_dead(death);
        self.note_taken(&taken);
        self.resumed += taken.len();
        for ids in taken.chunks(MOST_IDS) {
            let (from_generation, ids) = (death.generation, ids.to_vec());
            self.send(Request::Adopted(Adopted { from_generation, ids }), &[]).await?;
        }
        Ok(())
    }

    fn note_taken(&self, ids: &[u64]) {
        let count = ids.len() as u64;
        self.line.news.taken.send_if_modified(|taken| {
            *taken += count;
            count > 0
        });
    }

    /// Lets go of the next batch, when it is time.
    async fn hand_over(&mut self) -> Result<(), LineError> {
        if !self.line.drain.is_begun() || !self.handover.is_ready() {
            return Ok(());
        }
        let done = !self.tunnels.has_portable();
        self.line.news.handed_over.send_if_modified(|told| std::mem::replace(told, done) != done);
        if done {
            return Ok(());
        }
        let ids = self.tunnels.freeze(handover::BATCH).await;
        if ids.is_empty() {
            self.handover.pause();
            return Ok(());
        }
        failpoint!("handover.frozen");
        self.handover.note_frozen(&ids);
        self.send(Request::Frozen(Frozen { ids }), &[]).await?;
        failpoint!("handover.told");
        Ok(())
    }

    fn sweep(&mut self) {
        if self.resumed > 0 {
            tracing::info!(tunnels = self.resumed, "resumed tunnels of a process that is gone");
            self.resumed = 0;
        }
        for generation in self.departed.sweep_due() {
            self.tunnels.sweep(generation);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.deposits.drain().for_each(|(_, deposit)| deposit.answer(false));
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Generations, by number.
type Generations = std::collections::HashSet<u64>;
