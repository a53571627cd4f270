//! The successor's side: tunnels that the vault has handed in, until they are this process's.
//!
//! A tunnel is taken when its owner has let go of it (frozen) or is gone; whoever wins the compare-and-swap of its
//! owner word has it. Planned handover and crash differ in nothing else.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use holdfast_proto::bootstrap::Death;
use holdfast_proto::failpoint;

use super::arena::{Owner, State, ends};
use super::engine::Order;
use super::front::Tunnels;
use super::record::Record;
use super::relay::{Over, Tunnel};
use super::slot::Slot;
use super::{Cause, Handover, TunnelFacts, TunnelId};

/// A tunnel that was in hand when so many processes in a row died of themselves is what they died of.
const DEADLY: u32 = 3;

/// What the vault has handed in and nobody has let go of yet.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<TunnelId, Handed>>);

/// One tunnel from the vault.
#[derive(Debug)]
pub struct Handed {
    /// Which.
    pub id: TunnelId,
    /// Its cell.
    pub index: u32,
    /// The client's connection.
    pub client: OwnedFd,
    /// The backend's.
    pub backend: OwnedFd,
}

/// What came of tunnels that were handed in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HandedIn {
    /// Generations that own some of them.
    pub owners: Vec<u64>,
    /// Those that have ended: the vault may let go of them, should nobody have told it.
    pub ended: Vec<TunnelId>,
}

/// Why a tunnel may be taken from its owner.
#[derive(Debug, Clone, Copy)]
enum Claim {
    LetGo,
    Dead(Death),
}

impl Tunnels {
    /// Takes in what the vault holds.
    pub fn hand_in(&self, handed: Vec<Handed>) -> HandedIn {
        let mut into = HandedIn::default();
        let mut waiting = self.waiting.lock();
        for one in handed {
            match self.owner_of(one.id, one.index).map(|owner| owner.generation) {
                Some(generation) if generation == self.registry.generation => {}
                Some(generation) => {
                    if !into.owners.contains(&generation) {
                        into.owners.push(generation);
                    }
                    waiting.insert(one.id, one);
                }
                None => into.ended.push(one.id),
            }
        }
        into
    }

    /// The vault has let go of these: so do we.
    pub fn released(&self, ids: &[TunnelId]) {
        let mut waiting = self.waiting.lock();
        for id in ids {
            waiting.remove(id);
        }
    }

    /// Drops what was handed in and is no tunnel any more: its end was told to a vault that is gone.
    pub fn drop_stale(&self) {
        self.waiting.lock().retain(|_, one| self.owner_of(one.id, one.index).is_some());
    }

    /// Other generations that own records.
    pub fn owners(&self) -> Vec<u64> {
        let owners = self.registry.arena.occupied().filter_map(|(_, cell)| cell.owner());
        let others: std::collections::BTreeSet<_> = owners
            .map(|owner| owner.generation)
            .filter(|generation| *generation != self.registry.generation)
            .collect();
        others.into_iter().collect()
    }

    /// Takes what a predecessor has frozen. Answers which tunnels are ours now.
    pub fn take_frozen(&self, ids: &[TunnelId]) -> Vec<TunnelId> {
        let found: Vec<_> = {
            let mut waiting = self.waiting.lock();
            ids.iter().filter_map(|id| waiting.remove(id)).collect()
        };
        self.take(found, Claim::LetGo)
    }

    /// Takes everything of a generation whose process is gone. Answers which tunnels are ours now.
    pub fn take_from_dead(&self, death: Death) -> Vec<TunnelId> {
        let found: Vec<_> = {
            let mut waiting = self.waiting.lock();
            let theirs = |one: &Handed| {
                let owner = self.owner_of(one.id, one.index);
                owner.is_none_or(|owner| owner.generation == death.generation)
            };
            let ids: Vec<_> =
                waiting.values().filter(|one| theirs(one)).map(|one| one.id).collect();
            ids.into_iter().filter_map(|id| waiting.remove(&id)).collect()
        };
        let taken = self.take(found, Claim::Dead(death));
        if !taken.is_empty() {
            tracing::info!(tunnels = taken.len(), from = death.generation, "resumed tunnels");
        }
        taken
    }

    /// After everything that the vault held was handed in: what a dead generation still owns has no sockets any more.
    pub fn sweep(&self, generation: u64) {
        let arena = &self.registry.arena;
        let theirs: Vec<_> = (arena.occupied())
            .filter(|(_, cell)| cell.owner().is_some_and(|owner| owner.generation == generation))
            .filter_map(|(index, _)| Slot::of(arena, index))
            .collect();
        for cell in theirs {
            let slot = &cell;
            let heard = cell.has_ends(ends::OPENED) && !cell.has_ends(ends::COUNTED);
            if heard {
                let facts = facts_of(slot);
                let id = cell.id.load(Ordering::Relaxed);
                tracing::error!(tunnel = id, client = %facts.client, site = &*facts.site,
                    backend = &*facts.backend, trace_id = &*facts.trace_id, cause = "lost",
                    "tunnel ended: it was not protected when its process died");
                self.registry.tally.count_lost(1);
                let age = self.registry.clock.now_ms();
                let age = age.saturating_sub(cell.opened_mono_ms.load(Ordering::Relaxed));
                self.registry.tally.count_end(Cause::Lost, Duration::from_millis(age));
            }
            slot.free();
        }
        self.registry.arena.leave(generation);
    }

    fn owner_of(&self, id: TunnelId, index: u32) -> Option<Owner> {
        let cell = self.registry.arena.cell(index)?;
        cell.owner().filter(|_| cell.id.load(Ordering::Acquire) == id)
    }

    fn take(&self, found: Vec<Handed>, claim: Claim) -> Vec<TunnelId> {
        let mut batches: Vec<Vec<Tunnel>> = self.threads.iter().map(|_| Vec::new()).collect();
        let mut taken = Vec::new();
        for one in found {
            let id = one.id;
            failpoint!("adopt.before");
            let Some(tunnel) = self.take_one(one, claim) else { continue };
            failpoint!("adopt.owned");
            taken.push(id);
            if let Some(batch) = batches.get_mut(tunnel.record.thread) {
                batch.push(tunnel);
            }
        }
        for (thread, batch) in self.threads.iter().zip(batches) {
            if !batch.is_empty() && !thread.tell(Order::Adopt(batch)) {
                tracing::error!("a tunnel thread does not take the tunnels that it must");
                std::process::abort();
            }
        }
        failpoint!("adopt.told");
        taken
    }

    /// Makes a tunnel ours; `None`: it is not to be had, or had to be ended at once.
    fn take_one(&self, one: Handed, claim: Claim) -> Option<Tunnel> {
        let registry = &self.registry;
        let slot = Slot::of(&registry.arena, one.index)?;
        let owner = self.owner_of(one.id, one.index)?;
        let ours = match (owner.state, claim) {
            (State::Frozen, _) | (State::Owned, Claim::Dead(_)) => {
                Owner::owned(registry.generation)
            }
            (State::Ending, Claim::Dead(_)) => Owner::ending(registry.generation),
            _ => return None,
        };
        let dead = |death: Death| death.generation == owner.generation;
        if matches!(claim, Claim::Dead(death) if !dead(death)) || !slot.swap_owner(owner, ours) {
            return None;
        }
        let facts = facts_of(&slot);
        let sockets = [Arc::new(one.client), Arc::new(one.backend)];
        let record = Record::new(one.id, facts, self.next_thread(), true, slot, sockets);
        record.protect(true);
        let record = Arc::new(record);
        registry.live().insert(one.id, record.clone());
        if !record.is_marked(ends::OPENED) {
            record.mark(ends::OPENED);
            registry.tally.count_opened();
        }
        if ours.state == State::Ending {
            self.finish_end(&record);
            return None;
        }
        self.note_taken(&record, claim);
        if self.is_deadly(&record, claim) {
            let over = Over::abrupt(Cause::Lost);
            tracing::error!(
                tunnel = record.id,
                deaths = DEADLY,
                "giving up a tunnel: processes that had it in hand died of themselves"
            );
            registry.tally.count_lost(1);
            registry.begin_end(&record, over);
            self.finish_end(&record);
            return None;
        }
        Some(Tunnel::resumed(record))
    }

    fn note_taken(&self, record: &Record, claim: Claim) {
        let tally = &self.registry.tally;
        let (since_us, cause) = match claim {
            Claim::LetGo => (record.cell().frozen_at_us.load(Ordering::Relaxed), Handover::Restart),
            Claim::Dead(death) => (death.at_us, Handover::Crash),
        };
        tally.count_handed_over(cause, 1);
        let pause_us = self.registry.clock.now_us().saturating_sub(since_us);
        tally.observe_pause(Duration::from_micros(pause_us));
    }

    /// Whether its owners die of it.
    fn is_deadly(&self, record: &Record, claim: Claim) -> bool {
        let Claim::Dead(Death { generation, by_itself: true, .. }) = claim else { return false };
        let arena = &self.registry.arena;
        let held = record.slot.index() + 1;
        let in_hand = (0..).map_while(|thread| arena.hand(generation, thread));
        if !in_hand.into_iter().any(|hand| hand.load(Ordering::Relaxed) == held) {
            return false;
        }
        record.cell().deaths.fetch_add(1, Ordering::Relaxed) + 1 >= DEADLY
    }

    /// Ends what a process that is gone had begun to end, the way it had decided.
    fn finish_end(&self, record: &Arc<Record>) {
        let cause = record.cell().decided().unwrap_or(Cause::Lost);
        let abrupt = record.is_marked(ends::ABRUPT);
        let over = if abrupt { Over::abrupt(cause) } else { Over::orderly(cause) };
        Tunnel::resumed(record.clone()).end(over, &mut [0; 4096]);
        self.registry.end(record, cause);
    }
}

fn facts_of(slot: &Slot) -> TunnelFacts {
    let texts = slot.read_texts();
    TunnelFacts {
        site: texts.site,
        pool: texts.pool,
        settings: texts.settings,
        backend: texts.backend,
        backend_port: slot.backend_port.load(Ordering::Relaxed),
        client: slot.client().unwrap_or((std::net::Ipv4Addr::UNSPECIFIED, 0).into()),
        trace_id: texts.trace_id,
        idle_timeout: Duration::from_millis(slot.idle_timeout_ms.load(Ordering::Relaxed)),
        opened: UNIX_EPOCH + Duration::from_millis(slot.opened_unix_ms.load(Ordering::Relaxed)),
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<TunnelId, Handed>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
