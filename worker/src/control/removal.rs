//! What becomes of tunnels whose backend has left: they live on for the drain timeout of their backend settings.
//!
//! A backend leaves by a new revision or by `holdfast drain`; one that only fails its probes keeps its tunnels.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use holdfast_proto::control::HealthSnapshot;

use crate::snapshot::Table;
use crate::tunnel::TunnelFacts;

/// For settings that this process has never seen: Azure's figure where draining is off.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Which backends are drained, and how long the tunnels of settings may outlive their backend.
#[derive(Debug, Default)]
pub(super) struct Removal {
    drained: HashSet<(String, String, String, u32)>,
    /// Which backends are drained is known.
    has_health: bool,
    has_table: bool,
    /// Kept when the settings leave too: their tunnels were opened under them.
    patience: HashMap<(String, String), Duration>,
}

// === impl Removal ===

impl Removal {
    /// Whether both the table and the health are here. Before that a backend that is gone looks present, and time that
    /// runs already for a tunnel that was taken over would be stopped.
    pub(super) fn knows_all(&self) -> bool {
        self.has_health && self.has_table
    }

    /// Learns which backends an operator has taken out.
    pub(super) fn note_health(&mut self, health: &HealthSnapshot) {
        self.has_health = true;
        let drained = health.targets.iter().filter(|target| target.drained);
        self.drained = drained
            .filter_map(|target| target.key.clone())
            .map(|key| (key.pool, key.settings, key.address, key.port))
            .collect();
    }

    /// Learns the drain timeouts in force.
    pub(super) fn note_table(&mut self, table: &Table) {
        self.has_table = true;
        for binding in &table.bindings {
            let key = (binding.pool.to_string(), binding.settings.to_string());
            self.patience.insert(key, binding.drain_timeout);
        }
    }

    /// How long a tunnel may live on; `None`: its backend is there.
    pub(super) fn time_left(&self, table: &Table, facts: &TunnelFacts) -> Option<Duration> {
        let (pool, settings) = (facts.pool.to_string(), facts.settings.to_string());
        let key = (pool, settings, facts.backend.to_string(), u32::from(facts.backend_port));
        let configured = table
            .binding(&facts.pool, &facts.settings)
            .is_some_and(|binding| binding.backend(&facts.backend, facts.backend_port).is_some());
        if configured && !self.drained.contains(&key) {
            return None;
        }
        let (pool, settings, ..) = key;
        Some(self.patience.get(&(pool, settings)).copied().unwrap_or(DEFAULT_DRAIN))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use holdfast_proto::control::{
        Backend, BackendSettings, HostChoice, Limits, ListenerSnapshot, PoolBinding, Scheme,
        TargetHealth, TargetKey,
    };
    use std::time::SystemTime;

    fn table(ports: &[u32]) -> Table {
        let backend = |port: &u32| Backend { address: "10.0.0.1".into(), port: *port };
        let settings = BackendSettings {
            scheme: Scheme::Http.into(),
            host: HostChoice::Client.into(),
            drain_timeout_ms: 7_000,
            ..BackendSettings::default()
        };
        let binding = PoolBinding {
            pool: "chat".into(),
            settings: "plain".into(),
            backends: ports.iter().map(backend).collect(),
            backend_settings: Some(settings),
            distribution: None,
        };
        let snapshot = ListenerSnapshot {
            bindings: vec![binding],
            limits: Some(Limits::default()),
            ..ListenerSnapshot::default()
        };
        Table::compile(snapshot, None).unwrap()
    }

    fn facts(port: u16) -> TunnelFacts {
        TunnelFacts {
            site: "s".into(),
            pool: "chat".into(),
            settings: "plain".into(),
            backend: "10.0.0.1".into(),
            backend_port: port,
            client: ([127, 0, 0, 1], 1).into(),
            trace_id: "".into(),
            logged: false,
            idle_timeout: Duration::ZERO,
            opened: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_backend_that_left_the_table_gives_its_tunnels_the_drain_timeout() {
        let mut removal = Removal::default();
        removal.note_table(&table(&[80, 81]));
        let later = table(&[80]);
        assert_eq!(removal.time_left(&later, &facts(80)), None);
        assert_eq!(removal.time_left(&later, &facts(81)), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_drained_backend_is_as_good_as_gone_and_an_unhealthy_one_is_not() {
        let (mut removal, table) = (Removal::default(), table(&[80, 81]));
        removal.note_table(&table);
        let target = |port, drained| TargetHealth {
            key: Some(TargetKey {
                pool: "chat".into(),
                settings: "plain".into(),
                address: "10.0.0.1".into(),
                port,
            }),
            drained,
            ..TargetHealth::default()
        };
        let targets = vec![target(80, true), target(81, false)];
        removal.note_health(&HealthSnapshot { version: 1, targets });
        assert_eq!(removal.time_left(&table, &facts(80)), Some(Duration::from_secs(7)));
        assert_eq!(removal.time_left(&table, &facts(81)), None);
    }
}
