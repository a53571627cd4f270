//! Desired against running: which listeners come, stay and go, which pools change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use holdfast_proto::admin::Change;
use holdfast_proto::control::{ListenerSnapshot, Target, TargetKey, Tunnel};

use crate::compile::{Compiled, CompiledPool};

mod listener;
mod standing;

/// The difference between two compiled configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Listeners to bind.
    pub added: Vec<SocketAddr>,
    /// Listeners whose socket goes.
    pub removed: Vec<SocketAddr>,
    /// Listeners whose snapshot differs.
    pub updated: Vec<SocketAddr>,
    /// What changes for each of those, in words.
    details: BTreeMap<SocketAddr, String>,
    /// Some backend no longer stands: tunnels of any listener may be at it.
    loses: bool,
    pools: Vec<(String, &'static str, String)>,
}

impl Plan {
    /// From what runs (nothing at a first start) to what is wanted.
    pub fn between(running: Option<&Compiled>, wanted: &Compiled) -> Self {
        let nothing = Compiled::default();
        let running = running.unwrap_or(&nothing);
        let mut plan = Self::default();
        for (address, snapshot) in &wanted.listeners {
            match running.listeners.get(address) {
                None => plan.added.push(*address),
                Some(before) if before != snapshot => plan.updated.push(*address),
                Some(_) => {}
            }
        }
        let gone = |address: &&SocketAddr| !wanted.listeners.contains_key(address);
        plan.removed = running.listeners.keys().filter(gone).copied().collect();
        plan.pools = pools(running, wanted);
        let nowhere = ListenerSnapshot::default();
        for address in plan.added.iter().chain(&plan.removed).chain(&plan.updated) {
            let before = running.listeners.get(address).unwrap_or(&nowhere);
            let after = wanted.listeners.get(address).unwrap_or(&nowhere);
            plan.details.insert(*address, listener::detail(before, after));
        }
        plan.loses = standing::loses(&running.standing, &wanted.standing);
        plan
    }

    /// Whether the change may touch tunnels of a listener at all.
    pub fn touches_tunnels_of(&self, address: &SocketAddr) -> bool {
        self.loses || self.removed.contains(address)
    }

    /// Notes one live tunnel of a listener with its pool, where that has lost the backend. A listener that is removed
    /// keeps its tunnels whatever changes.
    pub fn note_tunnel(
        &self,
        changes: &mut Vec<Change>,
        (running, wanted): (&Compiled, &Compiled),
        address: &SocketAddr,
        tunnel: &Tunnel,
    ) {
        let stays = |compiled: &Compiled| standing::keeps(&compiled.standing, tunnel);
        // What does not stand now had lost its backend before this change.
        if self.removed.contains(address) || !stays(running) || stays(wanted) {
            return;
        }
        let what = format!("pool {}", tunnel.pool);
        if let Some(change) = changes.iter_mut().find(|change| change.what == what) {
            change.tunnels += 1;
            return;
        }
        // Nobody was routed there any more, so that it has no row of its own.
        let is_there = wanted.standing.pools.iter().any(|pool| pool.name == tunnel.pool);
        changes.push(Change {
            what,
            kind: if is_there { "update" } else { "remove" }.to_owned(),
            detail: format!("-{}", tunnel.backend),
            tunnels: 1,
        });
    }

    /// Says of a listener that is removed how many tunnels it leaves behind: no configuration ends them.
    pub fn note_left_behind(&self, changes: &mut [Change], address: &SocketAddr, tunnels: usize) {
        let what = format!("listener {address}");
        let row = changes.iter_mut().find(|change| change.what == what);
        if let Some(change) = row.filter(|_| tunnels > 0 && self.removed.contains(address)) {
            let left = format!("; {tunnels} tunnels live on until they end by themselves");
            change.detail.push_str(&left);
        }
    }

    /// For people.
    pub fn changes(&self) -> Vec<Change> {
        let listener = |kind: &'static str| {
            move |address: &SocketAddr| Change {
                what: format!("listener {address}"),
                kind: kind.to_owned(),
                detail: self.details.get(address).cloned().unwrap_or_default(),
                tunnels: 0,
            }
        };
        let pool = |(name, kind, detail): &(String, &'static str, String)| Change {
            what: format!("pool {name}"),
            kind: (*kind).to_owned(),
            detail: detail.clone(),
            tunnels: 0,
        };
        let listeners = self.added.iter().map(listener("add"));
        let listeners = listeners.chain(self.removed.iter().map(listener("remove")));
        let listeners = listeners.chain(self.updated.iter().map(listener("update")));
        listeners.chain(self.pools.iter().map(pool)).collect()
    }
}

fn addresses(compiled: &Compiled, pool: &str) -> BTreeSet<String> {
    let of_pool = compiled.pools.iter().filter(|it| it.pool == pool);
    of_pool.flat_map(|it| &it.backends).map(listener::text).collect()
}

fn pools(running: &Compiled, wanted: &Compiled) -> Vec<(String, &'static str, String)> {
    let all = running.pools.iter().chain(&wanted.pools);
    let names: BTreeSet<&String> = all.map(|it: &CompiledPool| &it.pool).collect();
    let mut changes = Vec::new();
    for name in names {
        let (before, after) = (addresses(running, name), addresses(wanted, name));
        let kind = match (before.is_empty(), after.is_empty()) {
            _ if before == after => continue,
            (true, _) => "add",
            (_, true) => "remove",
            _ => "update",
        };
        let came = after.difference(&before).map(|it| format!("+{it}"));
        let went = before.difference(&after).map(|it| format!("-{it}"));
        changes.push((name.clone(), kind, came.chain(went).collect::<Vec<_>>().join(" ")));
    }
    changes
}

/// Targets and minServers of both; where both know a target, the wanted probe counts.
pub fn union(running: &Compiled, wanted: &Compiled) -> (Vec<Target>, Vec<(String, String, u32)>) {
    let key = |target: &Target| {
        let key: TargetKey = target.key.clone().unwrap_or_default();
        (key.pool, key.settings, key.address, key.port)
    };
    let known: BTreeSet<_> = wanted.targets.iter().map(key).collect();
    let old = running.targets.iter().filter(|target| !known.contains(&key(target)));
    let targets = wanted.targets.iter().chain(old).cloned().collect();
    let named = |min: &&(String, String, u32)| {
        !wanted.min_servers.iter().any(|it| it.0 == min.0 && it.1 == min.1)
            && !wanted.pools.iter().any(|it| it.pool == min.0 && it.settings == min.1)
    };
    let least = running.min_servers.iter().filter(named);
    (targets, wanted.min_servers.iter().chain(least).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::control::Backend;

    fn compiled(listeners: &[&str], backends: &[&str]) -> Compiled {
        let mut compiled = Compiled::default();
        for address in listeners {
            let snapshot = ListenerSnapshot { listener: (*address).into(), ..Default::default() };
            compiled.listeners.insert(address.parse().unwrap(), snapshot);
        }
        compiled.pools.push(CompiledPool {
            pool: "p".into(),
            settings: "s".into(),
            backends: backends
                .iter()
                .map(|it| Backend { address: (*it).into(), port: 80 })
                .collect(),
            drain_timeout: std::time::Duration::ZERO,
        });
        compiled
    }

    #[test]
    fn a_listener_comes_and_another_goes() {
        let before = compiled(&["127.0.0.1:1", "127.0.0.1:2"], &["a"]);
        let after = compiled(&["127.0.0.1:2", "127.0.0.1:3"], &["a", "b"]);
        let plan = Plan::between(Some(&before), &after);
        assert_eq!(plan.added, ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!(plan.removed, ["127.0.0.1:1".parse().unwrap()]);
        assert!(plan.updated.is_empty());
        assert_eq!(plan.changes()[2].detail, "+b:80");
    }

    #[test]
    fn the_same_twice_is_nothing() {
        let it = compiled(&["127.0.0.1:1"], &["a"]);
        assert_eq!(Plan::between(Some(&it), &it), Plan::default());
    }
}
