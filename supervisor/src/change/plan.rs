//! Desired against running: which listeners come, stay and go, which pools change. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use holdfast_proto::admin::Change;
use holdfast_proto::control::{Target, TargetKey, Tunnel};

use crate::compile::{Compiled, CompiledPool};

/// The difference between two compiled configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Listeners to bind.
    pub added: Vec<SocketAddr>,
    /// Listeners whose socket goes.
    pub removed: Vec<SocketAddr>,
    /// Listeners whose snapshot differs.
    pub updated: Vec<SocketAddr>,
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
        plan
    }

    /// For people.
    pub fn changes(&self) -> Vec<Change> {
        let listener = |kind: &'static str| {
            move |address: &SocketAddr| Change {
                what: format!("listener {address}"),
                kind: kind.to_owned(),
                ..Change::default()
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
    of_pool.flat_map(|it| &it.backends).map(|it| format!("{}:{}", it.address, it.port)).collect()
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

/// Whether a tunnel's backend is still configured.
pub fn keeps(compiled: &Compiled, tunnel: &Tunnel) -> bool {
    compiled.pools.iter().any(|it| {
        it.pool == tunnel.pool
            && it.settings == tunnel.settings
            && it.backends.iter().any(|b| format!("{}:{}", b.address, b.port) == tunnel.backend)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::control::{Backend, ListenerSnapshot};

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
