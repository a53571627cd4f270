//! The successor's side: tunnels that the vault has handed in, until they are this process's.
//!
//! A tunnel is taken when its owner has let go of it (frozen) or is gone; whoever wins the compare-and-swap of its
//! owner word has it. Planned handover and crash differ in nothing else.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use holdfast_proto::bootstrap::Death;
use holdfast_proto::{failpoint, planted};

use super::arena::{Left, Owner, State, ends};
use super::engine::Order;
use super::front::Tunnels;
use super::record::Record;
use super::relay::{Over, Tunnel};
use super::slot::Slot;
use super::waiting::Handed;
use super::{Cause, Handover, TunnelFacts, TunnelId};

/// A tunnel that was in hand when so many processes in a row died of themselves is what they died of.
const DEADLY: u32 = 3;

/// What came of an attempt to take a tunnel.
enum Attempt {
    Ours(Tunnel),
    /// Its owner has not let go of it after all.
    NotYet(Handed),
    /// There is no such tunnel any more, or it had to be ended at once.
    Over,
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
        let is_stale = |one: &Handed| self.owner_of(one.id, one.index).is_none();
        let stale: Vec<_> = self.waiting.lock().extract_if(|_, one| is_stale(one)).collect();
        self.registry.outbox.release_ended(stale.iter().map(|(id, _)| *id));
    }

    /// The vault that has handed these in is gone.
    pub(super) fn note_vault_gone(&self) {
        self.waiting.lock().values_mut().for_each(|one| one.held = false);
    }

    /// Earlier generations that own records.
    pub fn owners(&self) -> Vec<u64> {
        let owners = self.registry.arena.occupied().filter_map(|(_, cell)| cell.owner());
        let others: std::collections::BTreeSet<_> = owners
            .map(|owner| owner.generation)
            .filter(|generation| *generation < self.registry.generation)
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
        self.take(found, Claim::Dead(death))
    }

    /// After everything that the vault held was handed in: what a dead generation still owns has no sockets any more.
    ///
    /// Earlier generations only: what a later one has left is handed to the one that follows it, not to us.
    pub fn sweep(&self, generation: u64) {
        if generation >= self.registry.generation {
            return;
        }
        let arena = &self.registry.arena;
        let theirs: Vec<_> = (arena.occupied())
            .filter(|(_, cell)| cell.owner().is_some_and(|owner| owner.generation == generation))
            .filter_map(|(index, _)| Slot::of(arena, index))
            .collect();
        for cell in theirs {
            let slot = &cell;
            let heard = cell.has_ends(ends::OPENED) && !cell.has_ends(ends::COUNTED);
            let ending = cell.owner().is_some_and(|owner| owner.state == State::Ending);
            let now_ms = self.registry.clock.now_ms();
            let opened_ms = cell.opened_mono_ms.load(Ordering::Relaxed);
            let age = Duration::from_millis(now_ms.saturating_sub(opened_ms));
            let (id, facts) = (cell.id.load(Ordering::Relaxed), facts_of(slot));
            if let (true, true, Some(cause)) = (heard, ending, cell.decided()) {
                // Whose sockets went with the process that was ending it anyway.
                self.registry.log_end(id, &facts, slot, cause, age);
                self.registry.tally.count_end(cause, age);
            } else if heard {
                tracing::error!(tunnel = id, client = %facts.client, site = &*facts.site,
                    backend = &*facts.backend, trace_id = &*facts.trace_id, cause = "lost",
                    "tunnel ended: it was not protected when its process died");
                self.registry.log_end(id, &facts, slot, Cause::Lost, age);
                self.registry.tally.count_lost(1);
                self.registry.tally.count_end(Cause::Lost, age);
            }
            slot.free();
        }
        self.registry.arena.tidy_intakes(generation);
        self.registry.arena.leave(generation);
    }

    fn owner_of(&self, id: TunnelId, index: u32) -> Option<Owner> {
        let cell = self.registry.arena.cell(index)?;
        cell.owner().filter(|_| cell.id.load(Ordering::Acquire) == id)
    }

    fn take(&self, found: Vec<Handed>, claim: Claim) -> Vec<TunnelId> {
        let leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        if *leaving {
            // Whoever comes next takes them.
            return Vec::new();
        }
        let mut batches: Vec<Vec<Tunnel>> = self.threads.iter().map(|_| Vec::new()).collect();
        let mut taken = Vec::new();
        // A tunnel is let go of between two turns, when its thread has nothing of it, whatever a note said a moment ago.
        let left = match claim {
            Claim::LetGo => Vec::new(),
            Claim::Dead(_) => self.registry.arena.left_in_intakes(self.registry.generation),
        };
        for (place, one) in found.into_iter().enumerate() {
            let id = one.id;
            failpoint!("adopt.before");
            if place.is_multiple_of(16) && planted!("drop-tunnel") {
                continue;
            }
            let tunnel = match self.take_one(one, claim, &left) {
                Attempt::Ours(tunnel) => tunnel,
                Attempt::NotYet(one) => {
                    // Nobody hands it in twice.
                    self.waiting.lock().insert(id, one);
                    continue;
                }
                Attempt::Over => continue,
            };
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

    fn take_one(&self, one: Handed, claim: Claim, left: &[Left]) -> Attempt {
        let registry = &self.registry;
        let slot = Slot::of(&registry.arena, one.index);
        let Some((slot, owner)) = slot.zip(self.owner_of(one.id, one.index)) else {
            // Who ended it died before the vault heard of it.
            registry.outbox.release_ended(std::iter::once(one.id));
            return Attempt::Over;
        };
        let ours = match (owner.state, claim) {
            (State::Frozen, _) | (State::Owned, Claim::Dead(_)) => {
                Owner::owned(registry.generation)
            }
            (State::Ending, Claim::Dead(_)) => Owner::ending(registry.generation),
            _ => return Attempt::NotYet(one),
        };
        let dead = |death: Death| death.generation == owner.generation;
        if matches!(claim, Claim::Dead(death) if !dead(death)) || !slot.swap_owner(owner, ours) {
            return Attempt::NotYet(one);
        }
        let facts = facts_of(&slot);
        let sockets = [Arc::new(one.client), Arc::new(one.backend)];
        let thread = self.thread_for(&slot);
        let record = Arc::new(Record::new(one.id, facts, thread, None, slot, sockets));
        record.protect(one.held);
        // By its predecessor, if not by us.
        record.note_offered();
        registry.live().insert(one.id, record.clone());
        if !record.is_marked(ends::OPENED) {
            record.mark(ends::OPENED);
            registry.tally.count_opened();
        }
        if ours.state == State::Ending {
            self.finish_end(&record);
            return Attempt::Over;
        }
        failpoint!("adopt.won");
        for left in left.iter().filter(|left| left.id == record.id) {
            if let Err(error) = record.slot.salvage(left) {
                // Should a byte of it be owed, the counters will ask for it in vain, and end the tunnel.
                tracing::error!(tunnel = record.id, %error, "what a thread had in hand cannot be read");
            }
        }
        self.note_taken(&record, claim);
        if self.is_deadly(&record, claim) {
            self.give_up(&record);
            return Attempt::Over;
        }
        if !one.held {
            registry.outbox.deposit_all(std::iter::once(record.clone()));
        }
        Attempt::Ours(Tunnel::resumed(record))
    }

    fn give_up(&self, record: &Arc<Record>) {
        tracing::error!(
            tunnel = record.id,
            deaths = DEADLY,
            "giving up a tunnel: processes that had it in hand died of themselves"
        );
        self.registry.tally.count_lost(1);
        self.registry.begin_end(record, Over::abrupt(Cause::Lost));
        self.finish_end(record);
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
        logged: slot.has_ends(ends::LOGGED),
        idle_timeout: Duration::from_millis(slot.idle_timeout_ms.load(Ordering::Relaxed)),
        opened: UNIX_EPOCH + Duration::from_millis(slot.opened_unix_ms.load(Ordering::Relaxed)),
    }
}
