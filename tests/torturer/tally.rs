//! What became of every tunnel, as both its ends told it, and what that adds up to.
//!
//! The gateway is never asked. A tunnel that neither ended cleanly at both ends nor was found broken is a loss too.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::checker::{Damage, Fault};
use super::endpoint::Counts;
use super::hub::News;
use super::plan::{Legs, Role};

/// A killed process may take so long to be gone, and accept until then.
const DYING: Duration = Duration::from_millis(50);

/// Everything that was told.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    tunnels: HashMap<u64, Tunnel>,
    failures: Vec<Failure>,
    handshakes: Vec<Duration>,
}

#[derive(Debug, Default)]
struct Tunnel {
    /// Since it opened: which legs have TLS, and whether its client's is 1.2 at most.
    opened: Option<(Legs, bool)>,
    clean: [bool; 2],
    counts: [Counts; 2],
    faults: Vec<(Instant, Role, Fault)>,
}

#[derive(Debug)]
struct Failure {
    listener: usize,
    began: Instant,
    ended: Instant,
    reason: String,
}

/// A tunnel that did not live up to the promise.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    pub(crate) id: u64,
    pub(crate) legs: Legs,
    pub(crate) role: Role,
    pub(crate) fault: Fault,
    pub(crate) time: Option<Instant>,
    /// Bytes that were sent and never came, in both directions.
    pub(crate) missing: u64,
}

/// What it adds up to.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    pub(crate) opened: u64,
    pub(crate) clean: u64,
    pub(crate) losses: Vec<Loss>,
    /// Handshakes that failed though no worker was killed under them, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Handshakes that a killed worker took along.
    pub(crate) killed_handshakes: u64,
    /// By the client, and by the backends.
    pub(crate) counts: [Counts; 2],
    pub(crate) handshakes: Vec<Duration>,
    pub(crate) kinds: BTreeMap<Legs, Kind>,
}

/// Tunnels of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kind {
    pub(crate) opened: u64,
    pub(crate) clean: u64,
    /// Whose client spoke no newer TLS than 1.2.
    pub(crate) old: u64,
}

impl Sum {
    /// Losses by what they look like: of all tunnels, or of one kind.
    pub(crate) fn by_damage(&self, of: Option<Legs>) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for loss in self.losses.iter().filter(|loss| of.is_none_or(|legs| loss.legs == legs)) {
            *counts.entry(loss.fault.damage.word()).or_default() += 1;
        }
        counts
    }
}

impl Tally {
    pub(crate) fn note(&mut self, news: News) {
        match news {
            News::Opened { id, legs, old, took } => {
                self.tunnels.entry(id).or_default().opened = Some((legs, old));
                self.handshakes.push(took);
            }
            News::Failed { listener, began, reason } => {
                self.failures.push(Failure { listener, began, ended: Instant::now(), reason });
            }
            News::Clean { id, role, counts } => {
                let tunnel = self.tunnels.entry(id).or_default();
                tunnel.clean[role.index()] = true;
                tunnel.counts[role.index()] = counts;
            }
            News::Broken { id, role, counts, fault, time } => {
                let tunnel = self.tunnels.entry(id).or_default();
                tunnel.counts[role.index()] = counts;
                tunnel.faults.push((time, role, fault));
            }
        }
    }

    /// Tunnels found broken so far.
    pub(crate) fn broken(&self) -> usize {
        self.tunnels.values().filter(|it| it.opened.is_some() && !it.faults.is_empty()).count()
    }

    /// Whether something is still to be told of a tunnel.
    pub(crate) fn waits(&self) -> bool {
        let over = |tunnel: &Tunnel| {
            tunnel.opened.is_none() || tunnel.clean == [true; 2] || !tunnel.faults.is_empty()
        };
        !self.tunnels.values().all(over)
    }

    /// Adds up, once everything is over. `kills`: when a worker was killed, and whose.
    pub(crate) fn sum(&self, kills: &[(Instant, usize)]) -> Sum {
        let mut sum = Sum { handshakes: self.handshakes.clone(), ..Sum::default() };
        for (id, tunnel) in &self.tunnels {
            let Some((legs, old)) = tunnel.opened else { continue };
            sum.opened += 1;
            let kind = sum.kinds.entry(legs).or_default();
            kind.opened += 1;
            kind.old += u64::from(old);
            for (total, counts) in sum.counts.iter_mut().zip(tunnel.counts) {
                total.sent += counts.sent;
                total.received += counts.received;
                total.messages_received += counts.messages_received;
                total.key_updates += counts.key_updates;
            }
            let loss = tunnel.loss(*id, legs);
            sum.clean += u64::from(loss.is_none());
            kind.clean += u64::from(loss.is_none());
            sum.losses.extend(loss);
        }
        sum.losses.sort_by_key(|loss| (loss.fault.damage.rank(), loss.time));
        for failure in &self.failures {
            let under = |(time, listener): &(Instant, usize)| {
                *listener == failure.listener
                    && failure.began <= *time + DYING
                    && *time <= failure.ended
                    && !failure.reason.starts_with("connect")
                    && !failure.reason.starts_with("status")
            };
            if kills.iter().any(under) {
                sum.killed_handshakes += 1;
            } else {
                *sum.refused.entry(failure.reason.clone()).or_default() += 1;
            }
        }
        sum
    }
}

impl Tunnel {
    /// Its worst fault: what one end finds makes the other one hear a reset.
    fn loss(&self, id: u64, legs: Legs) -> Option<Loss> {
        let [client, backend] = &self.counts;
        let missing = client.sent.saturating_sub(backend.received)
            + backend.sent.saturating_sub(client.received);
        let worst = self.faults.iter().min_by_key(|(time, _, fault)| (fault.damage.rank(), *time));
        if let Some((time, role, fault)) = worst {
            let (role, fault, time) = (*role, fault.clone(), Some(*time));
            return Some(Loss { id, legs, role, fault, time, missing });
        }
        let unsaid =
            [Role::Client, Role::Backend].into_iter().find(|role| !self.clean[role.index()]);
        let detail = "this end never told how it ended".to_owned();
        let fault = Fault { position: 0, damage: Damage::Stuck, detail };
        unsaid.map(|role| Loss { id, legs, role, fault, time: None, missing })
    }
}
