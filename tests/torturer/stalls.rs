//! How long bytes were on the way and nothing came: looks at the board all the time, from a thread of its own.
//!
//! A direction is stalled while its sender has sent more than its receiver has, the receiver wants to read, and nothing
//! comes. What is measured around an event counts for the event, everything else for the quiet between events.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::board::{Board, FIN_SEEN, FIN_SENT, Half, PAUSED, Slot};
use super::client::{Control, Stuck};
use super::plan::Role;

/// How often the board is looked at: what is shorter counts as no stall.
pub(crate) const TICK: Duration = Duration::from_millis(4);
/// How long after an event stalls are its own.
const WINDOW: Duration = Duration::from_millis(1500);

/// Stalls by what they were measured around, in microseconds; `None` is the quiet between events.
pub(crate) type Stalls = BTreeMap<Option<&'static str>, Vec<u32>>;

/// Shared with those who make events.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stalls: Stalls,
    begun: Option<Window>,
    over: bool,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    kind: Option<&'static str>,
    until: Instant,
    /// What the event itself must cost, a pause for example.
    allowance: Duration,
}

impl Watch {
    /// An event begins now.
    pub(crate) fn event(&self, kind: &'static str, allowance: Duration) {
        let until = Instant::now() + WINDOW + allowance;
        self.state.lock().unwrap().begun = Some(Window { kind: Some(kind), until, allowance });
    }

    /// No more is measured. What follows, such as the end of all tunnels, is no stall.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap().over = true;
    }

    pub(crate) fn take(&self) -> Stalls {
        std::mem::take(&mut self.state.lock().unwrap().stalls)
    }

    /// Watches until the clients are told to stop. A tunnel in which nothing moved for `limit` is told to them.
    pub(crate) fn run(&self, board: &Arc<Board>, control: &Control, limit: Duration) {
        let mut watcher = Watcher {
            directions: Vec::new(),
            window: Window {
                kind: None,
                until: Instant::now() + WINDOW,
                allowance: Duration::ZERO,
            },
            limit,
        };
        let mut bytes = Vec::new();
        while !control.stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(TICK);
            let used = control.slots.load(Ordering::Relaxed);
            let Ok(slots) = board.read_all(used, &mut bytes) else { continue };
            let now = Instant::now();
            let mut state = self.state.lock().unwrap();
            let begun = state.begun.take();
            if begun.is_some() || now >= watcher.window.until {
                let (kind, measured) = watcher.flush();
                if !state.over {
                    state.stalls.entry(kind).or_default().extend(measured);
                }
                let quiet = Window { kind: None, until: now + WINDOW, allowance: Duration::ZERO };
                watcher.window = begun.unwrap_or(quiet);
            }
            drop(state);
            let stuck = watcher.look(&slots, now);
            if !stuck.is_empty() {
                control.stuck.lock().unwrap().extend(stuck);
            }
        }
    }
}

/// One direction of one slot.
#[derive(Debug, Clone, Default)]
struct Direction {
    id: u64,
    received: u64,
    since: Option<Instant>,
    /// The longest stall of this window, if anything was on the way in it.
    worst: Option<Duration>,
}

struct Watcher {
    directions: Vec<[Direction; 2]>,
    window: Window,
    limit: Duration,
}

impl Watcher {
    fn look(&mut self, slots: &[Slot], now: Instant) -> Vec<Stuck> {
        self.directions.resize_with(slots.len().max(self.directions.len()), Default::default);
        let mut stuck = Vec::new();
        for (place, (slot, directions)) in slots.iter().zip(&mut self.directions).enumerate() {
            for (direction, from) in directions.iter_mut().zip([Role::Client, Role::Backend]) {
                let stalled = direction.look(slot, from, now);
                if stalled.is_some_and(|stalled| stalled > self.limit) {
                    let detail = format!(
                        "{} bytes {} on the way for {:.1} s, {} have come",
                        slot.in_flight(from),
                        if from == Role::Client { "to the backend" } else { "to the client" },
                        self.limit.as_secs_f64(),
                        direction.received
                    );
                    // Told once; whoever is told gives it up.
                    direction.since = None;
                    stuck.push(Stuck { id: direction.id, slot: place, detail });
                }
            }
        }
        stuck
    }

    fn flush(&mut self) -> (Option<&'static str>, Vec<u32>) {
        let allowance = self.window.allowance;
        let worst = self.directions.iter_mut().flatten().filter_map(|one| one.worst.take());
        let worst = worst.map(|worst| worst.saturating_sub(allowance).as_micros() as u32);
        (self.window.kind, worst.collect())
    }
}

impl Direction {
    /// Takes the latest figures, and says for how long nothing has come by now.
    fn look(&mut self, slot: &Slot, from: Role, now: Instant) -> Option<Duration> {
        let (sender, receiver): (&Half, &Half) =
            (&slot.halves[from.index()], &slot.halves[from.other().index()]);
        if self.id != sender.id {
            *self = Self { id: sender.id, received: receiver.received, ..Self::default() };
        }
        let fin_on_the_way = sender.is(FIN_SENT) && !receiver.is(FIN_SEEN);
        let on_the_way = slot.flows(from) && (slot.in_flight(from) > 0 || fin_on_the_way);
        let progress = receiver.received != self.received;
        self.received = receiver.received;
        let stalled = self.since.map(|since| now - since);
        if let Some(stalled) = stalled.filter(|_| !receiver.is(PAUSED)) {
            self.worst = self.worst.max(Some(stalled));
        }
        if !on_the_way || receiver.is(PAUSED) {
            self.since = None;
        } else if progress || self.since.is_none() {
            self.since = Some(now);
        }
        stalled
    }
}
