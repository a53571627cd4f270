//! One task a target: when a check is due, and what its outcome makes of the target.
//!
//! # Invariants
//! - A target that stays with the same probe keeps its task: neither its schedule nor its counts start again.
//! - A changed probe checks at once and keeps the state that the target has.
//! - No check waits for the stream to the supervisor: outcomes go to the board.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_proto::control::{HealthState, Probe, Target, TargetKey, TargetSet, Verdict};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error};

use crate::board::{Board, Place};
use crate::check::check;
use crate::checks::Checks;
use crate::failure::CheckFailure;
use crate::plan::Plan;
use crate::refusal::ProbeRefusal;
use crate::tls::Tls;
use crate::verdict::{Judge, Outcome};

/// Checks that run at the same time. Each takes a descriptor, and TLS handshakes share one thread; 256 checks that
/// all run into the default timeout of 30 s still make 500 checks a minute.
const CONCURRENT_CHECKS: usize = 256;

/// Intervals vary by this share, so that targets do not march in step.
const JITTER: f64 = 0.1;

/// Keeps an interval of 0 from spinning; the document's least is 1 s.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// All targets and their tasks.
#[derive(Debug)]
pub(crate) struct Schedule {
    targets: HashMap<TargetKey, Entry>,
    tasks: JoinSet<()>,
    shared: Shared,
}

/// What all tasks share.
#[derive(Debug, Clone)]
struct Shared {
    board: Arc<Board>,
    permits: Arc<Semaphore>,
    checks: Arc<Checks>,
    tls: Tls,
}

#[derive(Debug)]
struct Entry {
    probe: Option<Probe>,
    orders: watch::Sender<Orders>,
    task: AbortHandle,
}

/// What a task is to do from now on.
#[derive(Debug, Clone)]
struct Orders {
    plan: Arc<Result<Plan, ProbeRefusal>>,
    interval: Duration,
    threshold: u32,
}

// === impl Schedule ===

impl Schedule {
    /// No targets yet.
    pub(crate) fn new(board: Arc<Board>, tls: Tls) -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_CHECKS));
        Self {
            targets: HashMap::new(),
            tasks: JoinSet::new(),
            shared: Shared { board, permits, checks: Arc::default(), tls },
        }
    }

    /// What checks came to.
    pub(crate) fn checks(&self) -> &Checks {
        &self.shared.checks
    }

    /// Takes a target set over: lets targets go that are not in it, starts new ones, and passes changed probes on.
    pub(crate) fn apply(&mut self, set: TargetSet) {
        let mut wanted: HashMap<TargetKey, Target> = HashMap::with_capacity(set.targets.len());
        for mut target in set.targets {
            if let Some(key) = target.key.take() {
                wanted.insert(key, target);
            } else {
                error!(version = set.version, "a target without a key is left out");
            }
        }
        self.targets.retain(|key, entry| {
            let stays = wanted.contains_key(key);
            if !stays {
                entry.task.abort();
                self.shared.board.leave(key);
            }
            stays
        });
        for (key, target) in wanted {
            match self.targets.get_mut(&key) {
                Some(entry) if entry.probe == target.probe => {}
                Some(entry) => {
                    let orders = Orders::new(&key, target.probe.as_ref(), &self.shared.tls);
                    entry.orders.send_replace(orders);
                    entry.probe = target.probe;
                }
                None => self.start(key, target),
            }
        }
        debug!(version = set.version, targets = self.targets.len(), "took a target set over");
    }

    fn start(&mut self, key: TargetKey, target: Target) {
        let orders = Orders::new(&key, target.probe.as_ref(), &self.shared.tls);
        // A state from a newer protocol is as good as none.
        let known = HealthState::try_from(target.known).unwrap_or(HealthState::Unknown);
        let judge = Judge::new(known, orders.threshold, now_unix_ms());
        let (sender, receiver) = watch::channel(orders);
        let place = self.shared.board.enter(&key);
        let target_loop =
            TargetLoop { key: key.clone(), place, judge, shared: self.shared.clone() };
        let task = self.tasks.spawn(target_loop.run(receiver));
        self.targets.insert(key, Entry { probe: target.probe, orders: sender, task });
    }

    /// Resolves only when a task has died of itself, which none should. Cancel-safe.
    pub(crate) async fn died(&mut self) -> JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => return error,
                // Let go.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

// === impl Orders ===

impl Orders {
    fn new(key: &TargetKey, probe: Option<&Probe>, tls: &Tls) -> Self {
        let plan = Plan::new(key, probe, tls);
        if let Err(error) = &plan {
            let error = error as &dyn std::error::Error;
            error!(pool = key.pool, backend = key.address, error, "a probe cannot be run");
        }
        let interval = Duration::from_millis(probe.map_or(u64::MAX, |probe| probe.interval_ms));
        Self {
            plan: Arc::new(plan),
            interval: interval.clamp(LEAST_INTERVAL, LONGEST_INTERVAL),
            threshold: probe.map_or(1, |probe| probe.unhealthy_threshold),
        }
    }
}

/// The document's longest interval: a day. Also keeps times computed from the wire in range.
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);

/// One target's task.
struct TargetLoop {
    key: TargetKey,
    place: Place,
    judge: Judge,
    shared: Shared,
}

// === impl TargetLoop ===

impl TargetLoop {
    /// Checks at once and then at each interval, counted from start to start, until the target is let go.
    async fn run(mut self, mut orders: watch::Receiver<Orders>) {
        loop {
            let now = orders.borrow_and_update().clone();
            self.judge.restart(now.threshold);
            tokio::select! {
                // Dropping a check half way closes its connection; a check under the old probe says nothing any more.
                changed = orders.changed() => if changed.is_err() { return },
                never = self.check_forever(&now) => match never {},
            }
        }
    }

    async fn check_forever(&mut self, orders: &Orders) -> std::convert::Infallible {
        loop {
            let started = Instant::now();
            let outcome = self.check(orders).await;
            self.record(outcome);
            sleep_until(started + jittered(orders.interval, rand::random())).await;
        }
    }

    async fn check(&self, orders: &Orders) -> Outcome {
        match orders.plan.as_ref() {
            Err(error) => Err(CheckFailure::from(error).to_string()),
            Ok(plan) => {
                // Waiting for a permit is not the backend's time. The semaphore is never closed.
                let _permit = self.shared.permits.acquire().await;
                let started = Instant::now();
                let outcome = Box::pin(check(plan)).await;
                self.shared.checks.count(&self.key, started.elapsed(), outcome.is_ok());
                outcome.map_err(|failure| failure.to_string())
            }
        }
    }

    fn record(&mut self, outcome: Outcome) {
        if !self.judge.record(outcome, now_unix_ms()) {
            return;
        }
        let verdict = Verdict {
            key: Some(self.key.clone()),
            state: self.judge.state().into(),
            last: self.judge.words().to_owned(),
            since_unix_ms: self.judge.since_unix_ms(),
        };
        debug!(
            pool = self.key.pool,
            settings = self.key.settings,
            backend = self.key.address,
            port = self.key.port,
            state = self.judge.state().as_str_name(),
            last = verdict.last,
            "verdict"
        );
        self.shared.board.post(&self.place, verdict);
    }
}

/// `interval` ± the jitter; `draw` is uniform in 0..1.
fn jittered(interval: Duration, draw: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * draw)
}

fn now_unix_ms() -> u64 {
    // A clock before 1970 is wrong in any case.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
