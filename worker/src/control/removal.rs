//! What becomes of tunnels whose backend has left: they live on for the drain timeout of their backend settings.
//!
//! A backend leaves by a new revision or by `holdfast drain`; one that only fails its probes keeps its tunnels. So does one
//! that stands in the document still, whether or not this listener is routed there: a change of sites, rules and settings
//! ends no tunnel.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use holdfast_proto::control::{Drained, HealthSnapshot, TargetHealth, TargetKey};

use crate::snapshot::Table;
use crate::tunnel::TunnelFacts;

/// For settings that this process has never seen: Azure's figure where draining is off.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Which backends are drained, and how long the tunnels of settings may outlive their backend.
#[derive(Debug, Default)]
pub(super) struct Removal {
    drained: HashSet<Name>,
    /// The same as operators have said it, wherever anybody is routed; `None`: an older supervisor does not tell.
    told: Option<Drained>,
    /// Which backends are drained is known.
    has_health: bool,
    has_table: bool,
    /// By settings. Kept when these leave too: their tunnels were opened under them.
    patience: HashMap<String, Duration>,
}

/// Pool, address and port: an operator drains a backend under whichever settings.
type Name = (String, String, u32);

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
        let name = |key: TargetKey| (key.pool, key.address, key.port);
        let keys = |targets: &mut dyn Iterator<Item = &TargetHealth>| -> HashSet<Name> {
            targets.filter_map(|target| target.key.clone()).map(name).collect()
        };
        let known = keys(&mut health.targets.iter());
        self.told.clone_from(&health.drained);
        // A pool that nobody is routed to has no health; what was drained there stays so, for all that an older one tells.
        self.drained.retain(|name| !known.contains(name));
        self.drained.extend(keys(&mut health.targets.iter().filter(|target| target.drained)));
    }

    /// Learns the drain timeouts in force.
    pub(super) fn note_table(&mut self, table: &Table) {
        self.has_table = true;
        for binding in &table.bindings {
            self.patience.insert(binding.settings.to_string(), binding.drain_timeout);
        }
        let all = table.standing.iter().flat_map(|standing| &standing.drain_timeouts);
        self.patience.extend(all.map(|(settings, timeout)| (settings.clone(), *timeout)));
    }

    /// How long a tunnel may live on; `None`: its backend is there.
    pub(super) fn time_left(&self, table: &Table, facts: &TunnelFacts) -> Option<Duration> {
        let TunnelFacts { pool, settings, backend, backend_port, .. } = facts;
        let stands = match &table.standing {
            Some(standing) => standing.has(pool, backend, *backend_port),
            None => table
                .binding(pool, settings)
                .is_some_and(|binding| binding.backend(backend, *backend_port).is_some()),
        };
        let port = u32::from(*backend_port);
        let is_drained = match &self.told {
            Some(told) => told.backends.iter().any(|it| it.names(pool, backend, port)),
            None if self.drained.is_empty() => false,
            None => self.drained.contains(&(pool.to_string(), backend.to_string(), port)),
        };
        if stands && !is_drained {
            return None;
        }
        Some(self.patience.get(&**settings).copied().unwrap_or(DEFAULT_DRAIN))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use holdfast_proto::control::{
        Backend, BackendSettings, DrainedBackend, HostChoice, Limits, ListenerSnapshot,
        PoolBinding, Scheme, Standing, StandingPool, StandingSettings,
    };
    use std::time::SystemTime;

    fn table(ports: &[u32]) -> Table {
        Table::compile(snapshot(ports), None).unwrap()
    }

    fn snapshot(ports: &[u32]) -> ListenerSnapshot {
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
        ListenerSnapshot {
            bindings: vec![binding],
            limits: Some(Limits::default()),
            ..ListenerSnapshot::default()
        }
    }

    /// Nothing is routed to; the document has these backends of the pool, and the settings under another name.
    fn unrouted(addresses: &[&str], ports: &[u32]) -> Table {
        let settings = |&port: &u32| StandingSettings {
            name: format!("at {port}"),
            port,
            drain_timeout_ms: 1_000,
        };
        let addresses = addresses.iter().map(|&address| address.into()).collect();
        let standing = Standing {
            pools: vec![StandingPool { name: "chat".into(), addresses }],
            settings: ports.iter().map(settings).collect(),
        };
        let bare = ListenerSnapshot { bindings: Vec::new(), ..snapshot(&[]) };
        Table::compile(ListenerSnapshot { standing: Some(standing), ..bare }, None).unwrap()
    }

    fn health(targets: &[(&str, u32, bool)]) -> HealthSnapshot {
        let target = |&(settings, port, drained): &(&str, u32, bool)| TargetHealth {
            key: Some(TargetKey {
                pool: "chat".into(),
                settings: settings.into(),
                address: "10.0.0.1".into(),
                port,
            }),
            drained,
            ..TargetHealth::default()
        };
        let targets = targets.iter().map(target).collect();
        HealthSnapshot { version: 1, targets, drained: None }
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
        removal.note_health(&health(&[("plain", 80, true), ("plain", 81, false)]));
        assert_eq!(removal.time_left(&table, &facts(80)), Some(Duration::from_secs(7)));
        assert_eq!(removal.time_left(&table, &facts(81)), None);
    }

    #[test]
    fn a_backend_that_stands_keeps_its_tunnels_though_nobody_is_routed_there() {
        let mut removal = Removal::default();
        removal.note_table(&table(&[80, 81]));
        let (seven, facts) = (Some(Duration::from_secs(7)), facts(80));
        assert_eq!(removal.time_left(&unrouted(&["10.0.0.1"], &[80]), &facts), None);
        assert_eq!(removal.time_left(&unrouted(&["10.0.0.1"], &[81]), &facts), seven);
        assert_eq!(removal.time_left(&unrouted(&["10.0.0.2"], &[80]), &facts), seven);
        assert_eq!(removal.time_left(&unrouted(&[], &[80]), &facts), seven);
    }

    #[test]
    fn a_drained_backend_stays_so_under_other_settings_and_when_nobody_is_routed_there() {
        let (mut removal, unrouted) = (Removal::default(), unrouted(&["10.0.0.1"], &[80]));
        removal.note_table(&unrouted);
        removal.note_health(&health(&[("other", 80, true)]));
        let default = Some(DEFAULT_DRAIN);
        assert_eq!(removal.time_left(&unrouted, &facts(80)), default);
        removal.note_health(&health(&[]));
        assert_eq!(removal.time_left(&unrouted, &facts(80)), default);
        removal.note_health(&health(&[("other", 80, false)]));
        assert_eq!(removal.time_left(&unrouted, &facts(80)), None);
    }

    #[test]
    fn what_is_drained_where_nobody_is_routed_is_drained_for_as_long_as_it_is_said() {
        let (mut removal, unrouted) = (Removal::default(), unrouted(&["10.0.0.1"], &[80]));
        removal.note_table(&unrouted);
        let told = |backends: &[&str]| {
            let drained =
                |&backend: &&str| DrainedBackend { pool: "Chat".into(), backend: backend.into() };
            let drained = Drained { backends: backends.iter().map(drained).collect() };
            HealthSnapshot { drained: Some(drained), ..health(&[]) }
        };
        for (backends, left) in [
            (&["10.0.0.2", "10.0.0.1"] as &[&str], Some(DEFAULT_DRAIN)),
            (&[], None),
            (&["10.0.0.1:80"], Some(DEFAULT_DRAIN)),
            (&["10.0.0.1:81"], None),
        ] {
            removal.note_health(&told(backends));
            assert_eq!(removal.time_left(&unrouted, &facts(80)), left, "{backends:?}");
        }
    }

    #[test]
    fn the_drain_timeout_of_settings_is_known_before_anybody_is_routed_by_them() {
        let mut removal = Removal::default();
        let facts = TunnelFacts { settings: "at 80".into(), ..facts(80) };
        removal.note_table(&unrouted(&["10.0.0.1"], &[80]));
        let gone = unrouted(&[], &[81]);
        removal.note_table(&gone);
        assert_eq!(removal.time_left(&gone, &facts), Some(Duration::from_secs(1)));
    }
}
