//! The health table: what the prober last said of every target, and what workers may use.
//!
//! Pure but for the clock that it is given. A dead prober changes nothing here: the last verdict stands until another
//! one replaces it, and a target that stays in the configuration keeps its state through every revision.

use std::collections::HashMap;

use holdfast_proto::admin::{BackendHealth, PoolHealth};
use holdfast_proto::control::{
    self, Drained, HealthSnapshot, HealthState, Target, TargetHealth, TargetKey, Verdict,
};
use serde::{Deserialize, Serialize};

/// A backend that an operator took out of rotation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainedBackend {
    /// Pool name; case does not matter.
    pub pool: String,
    /// Address, or `address:port`.
    pub backend: String,
}

/// Stands for a probe's last words until it has said some.
const RECALLED: &str = "as it was before the supervisor was started again";

/// All targets in the order of the configuration, and their health.
#[derive(Debug)]
pub struct HealthTable {
    entries: Vec<Entry>,
    /// (pool, settings, how many of its first backends count as healthy whatever the probes say)
    min_servers: Vec<(String, String, u32)>,
    drained: Vec<control::DrainedBackend>,
    snapshot: HealthSnapshot,
    /// Not taken yet, oldest first.
    turns: Vec<Turn>,
    /// Workers of an earlier supervisor are still to say what they were told: what is judged meanwhile may be no turn.
    is_recalling: bool,
    now_unix_ms: fn() -> u64,
}

/// A backend has become unhealthy, or healthy after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Which, under which settings.
    pub key: TargetKey,
    /// To what.
    pub is_healthy: bool,
    /// The probe's words.
    pub reason: String,
}

#[derive(Debug)]
struct Entry {
    key: TargetKey,
    target: Target,
    state: HealthState,
    /// Judged for the first time while an earlier supervisor's verdict may still be recalled.
    is_unsaid: bool,
    since_unix_ms: u64,
    last: String,
    drained_since_unix_ms: Option<u64>,
}

// === impl DrainedBackend ===

impl DrainedBackend {
    /// As workers and this table understand it.
    pub fn wire(&self) -> control::DrainedBackend {
        let Self { pool, backend } = self.clone();
        control::DrainedBackend { pool, backend }
    }
}

// === impl HealthTable ===

impl Default for HealthTable {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthTable {
    /// No targets yet.
    pub fn new() -> Self {
        Self::with_clock(now_unix_ms)
    }

    fn with_clock(now_unix_ms: fn() -> u64) -> Self {
        // Versions begin at the time, so that a worker that outlived a supervisor never sees one go back.
        let version = now_unix_ms();
        let snapshot = HealthSnapshot { version, ..HealthSnapshot::default() };
        Self {
            entries: Vec::new(),
            min_servers: Vec::new(),
            drained: Vec::new(),
            snapshot,
            turns: Vec::new(),
            is_recalling: false,
            now_unix_ms,
        }
    }

    /// The targets of a new revision, in pool order. What stays keeps its health; what is new has `known` (Unknown).
    pub fn set_targets(&mut self, targets: Vec<Target>, min_servers: Vec<(String, String, u32)>) {
        let now = (self.now_unix_ms)();
        let mut before: HashMap<TargetKey, Entry> =
            self.entries.drain(..).map(|entry| (entry.key.clone(), entry)).collect();
        let mut seen = std::collections::HashSet::new();
        for target in targets {
            let Some(key) = target.key.clone() else { continue };
            if !seen.insert(key.clone()) {
                continue;
            }
            self.entries.push(match before.remove(&key) {
                Some(entry) => Entry { target, ..entry },
                None => Entry {
                    key,
                    state: target.known(),
                    is_unsaid: false,
                    target,
                    since_unix_ms: now,
                    last: String::new(),
                    drained_since_unix_ms: None,
                },
            });
        }
        self.min_servers = min_servers;
        self.mark_drained(now);
        self.publish();
    }

    /// Takes in a verdict: did state or words change? One of a target that is not (or no longer) configured, or
    /// without a known state, is ignored. Only a changed state makes a new snapshot.
    pub fn verdict(&mut self, verdict: Verdict) -> bool {
        let state = verdict.state();
        if state == HealthState::Unknown {
            return false;
        }
        let entry = self.entries.iter_mut().find(|entry| Some(&entry.key) == verdict.key.as_ref());
        let Some(entry) = entry else { return false };
        if entry.state == state && entry.last == verdict.last {
            return false;
        }
        if entry.state != state {
            // A new prober does not know since when: the state's beginning is the first that we heard.
            entry.since_unix_ms = verdict.since_unix_ms;
        }
        entry.last = verdict.last;
        let before = std::mem::replace(&mut entry.state, state);
        entry.is_unsaid |= before == HealthState::Unknown && self.is_recalling;
        if !entry.is_unsaid {
            self.turns.extend(entry.turn_from(before));
        }
        self.publish();
        true
    }

    /// There are workers that an earlier supervisor has told about health: what they were told is no news, however early
    /// the prober's verdict comes.
    pub fn begin_recalling(&mut self) {
        self.is_recalling = true;
    }

    /// They have said it, as far as they will.
    pub fn end_recalling(&mut self) {
        self.is_recalling = false;
        for entry in self.entries.iter_mut().filter(|it| it.is_unsaid) {
            entry.is_unsaid = false;
            self.turns.extend(entry.turn_from(HealthState::Unknown));
        }
    }

    /// Takes what a worker was told by an earlier supervisor, where nothing is known yet: did anything change?
    pub fn recall(&mut self, told: &HealthSnapshot) -> bool {
        let mut changed = false;
        let open = |it: &&mut Entry| it.state == HealthState::Unknown || it.is_unsaid;
        for entry in self.entries.iter_mut().filter(open) {
            let same = |it: &&TargetHealth| it.key.as_ref() == Some(&entry.key);
            let Some(told) = told.targets.iter().find(same) else { continue };
            if told.state() == HealthState::Unknown {
                continue;
            }
            if std::mem::take(&mut entry.is_unsaid) {
                self.turns.extend(entry.turn_from(told.state()));
                continue;
            }
            entry.state = told.state();
            RECALLED.clone_into(&mut entry.last);
            changed = true;
        }
        if changed {
            self.publish();
        }
        changed
    }

    /// Who has turned since this was last asked.
    pub fn take_turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    /// The backends that are out of rotation by an operator's wish; those that match nothing wait for their target.
    pub fn set_drained(&mut self, drained: &[DrainedBackend]) {
        self.drained = drained.iter().map(DrainedBackend::wire).collect();
        self.mark_drained((self.now_unix_ms)());
        self.publish();
    }

    /// Has every target a verdict? Workers wait for this (bounded) before they serve.
    pub fn complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.state != HealthState::Unknown)
    }

    /// Is there one among `keys` that has no verdict yet?
    pub fn missing(&self, keys: &[TargetKey]) -> bool {
        let judged: std::collections::HashSet<&TargetKey> = self
            .entries
            .iter()
            .filter(|entry| entry.state != HealthState::Unknown)
            .map(|entry| &entry.key)
            .collect();
        keys.iter().any(|key| !judged.contains(key))
    }

    /// What workers get. The version is higher whenever the content differs.
    pub fn snapshot(&self) -> HealthSnapshot {
        self.snapshot.clone()
    }

    /// What operators get, by pool and backend settings in the order of the configuration.
    pub fn report(&self) -> Vec<PoolHealth> {
        let mut pools: Vec<PoolHealth> = Vec::new();
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        for entry in &self.entries {
            let pair = (entry.key.pool.as_str(), entry.key.settings.as_str());
            let place = *places.entry(pair).or_insert_with(|| {
                pools.push(PoolHealth {
                    pool: entry.key.pool.clone(),
                    settings: entry.key.settings.clone(),
                    backends: Vec::new(),
                });
                pools.len() - 1
            });
            if let Some(pool) = pools.get_mut(place) {
                pool.backends.push(entry.report());
            }
        }
        pools
    }

    /// The targets for a prober that starts now, with what is known, so that it flaps nothing.
    pub fn targets_with_known(&self) -> Vec<Target> {
        self.entries
            .iter()
            .map(|entry| Target { known: entry.state.into(), ..entry.target.clone() })
            .collect()
    }

    fn mark_drained(&mut self, now: u64) {
        for entry in &mut self.entries {
            let TargetKey { pool, address, port, .. } = &entry.key;
            let drained = self.drained.iter().any(|drained| drained.names(pool, address, *port));
            entry.drained_since_unix_ms =
                drained.then(|| entry.drained_since_unix_ms.unwrap_or(now));
        }
    }

    fn publish(&mut self) {
        let mut places: HashMap<(&str, &str), u32> = HashMap::new();
        let mut kept: HashMap<(&str, &str), u32> = HashMap::new();
        for (pool, settings, count) in &self.min_servers {
            kept.insert((pool, settings), *count);
        }
        let mut targets = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let pair = (entry.key.pool.as_str(), entry.key.settings.as_str());
            let place = places.entry(pair).or_default();
            let is_kept = *place < kept.get(&pair).copied().unwrap_or(0);
            *place += 1;
            let drained = entry.drained_since_unix_ms.is_some();
            targets.push(TargetHealth {
                key: Some(entry.key.clone()),
                state: entry.state.into(),
                in_rotation: !drained && (is_kept || entry.state == HealthState::Healthy),
                drained,
            });
        }
        // All of them: tunnels may be left where nobody is routed any more.
        let drained = Some(Drained { backends: self.drained.clone() });
        if targets != self.snapshot.targets || drained != self.snapshot.drained {
            self.snapshot.targets = targets;
            self.snapshot.drained = drained;
            self.snapshot.version = self.snapshot.version.saturating_add(1);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// The turn that its state is after another one. That somebody new is well is none.
    fn turn_from(&self, before: HealthState) -> Option<Turn> {
        let is_healthy = match (before, self.state) {
            (HealthState::Unhealthy, HealthState::Healthy) => true,
            (HealthState::Unknown | HealthState::Healthy, HealthState::Unhealthy) => false,
            _ => return None,
        };
        Some(Turn { key: self.key.clone(), is_healthy, reason: self.last.clone() })
    }

    fn report(&self) -> BackendHealth {
        let (state, since) = match (self.drained_since_unix_ms, self.state) {
            (Some(since), _) => ("Draining", since),
            (None, HealthState::Unknown) => ("Unknown", self.since_unix_ms),
            (None, HealthState::Healthy) => ("Healthy", self.since_unix_ms),
            (None, HealthState::Unhealthy) => ("Unhealthy", self.since_unix_ms),
        };
        BackendHealth {
            address: self.key.address.clone(),
            port: self.key.port,
            state: state.to_owned(),
            since: rfc3339(since),
            last: self.last.clone(),
        }
    }
}

fn now_unix_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// A time that no calendar holds (only a broken prober sends one) is shown as the epoch.
fn rfc3339(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default()
        .to_string()
}

#[cfg(test)]
mod tests;
