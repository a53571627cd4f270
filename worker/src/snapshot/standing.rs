//! What the document has, routed to by this listener or not: a tunnel whose backend stands here stays, whatever becomes of
//! the site, the rule and the settings that it was opened under.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use holdfast_proto::control as wire;

/// Backends that stand.
#[derive(Debug, Default)]
pub struct Standing {
    /// Addresses in lower case.
    pools: HashMap<String, HashSet<String>>,
    ports: HashSet<u32>,
    /// By name of the settings: how long tunnels of a backend that left live on.
    pub drain_timeouts: HashMap<String, Duration>,
}

// === impl Standing ===

impl Standing {
    pub(super) fn compile(standing: wire::Standing) -> Self {
        let pools = standing.pools.into_iter().map(|pool| {
            let addresses = pool.addresses.iter().map(|address| address.to_ascii_lowercase());
            (pool.name, addresses.collect())
        });
        let ports = standing.settings.iter().map(|settings| settings.port).collect();
        let timeout =
            |it: wire::StandingSettings| (it.name, Duration::from_millis(it.drain_timeout_ms));
        Self {
            pools: pools.collect(),
            ports,
            drain_timeouts: standing.settings.into_iter().map(timeout).collect(),
        }
    }

    /// Whether a backend stands: its address in its pool, or, where the pool is gone, in any; and its port in any settings.
    pub fn has(&self, pool: &str, address: &str, port: u16) -> bool {
        if !self.ports.contains(&u32::from(port)) {
            return false;
        }
        let address = address.to_ascii_lowercase();
        match self.pools.get(pool) {
            Some(addresses) => addresses.contains(&address),
            None => self.pools.values().any(|addresses| addresses.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(pools: &[(&str, &[&str])], ports: &[u32]) -> Standing {
        let pool = |(name, addresses): &(&str, &[&str])| wire::StandingPool {
            name: (*name).into(),
            addresses: addresses.iter().map(|&address| address.into()).collect(),
        };
        let settings = |port: &u32| wire::StandingSettings {
            name: format!("at {port}"),
            port: *port,
            drain_timeout_ms: 7_000,
        };
        Standing::compile(wire::Standing {
            pools: pools.iter().map(pool).collect(),
            settings: ports.iter().map(settings).collect(),
        })
    }

    #[test]
    fn a_backend_stands_by_its_address_in_its_pool_and_its_port_anywhere() {
        let standing =
            standing(&[("chat", &["10.0.0.1", "Chat.Test"]), ("api", &["10.0.0.2"])], &[80, 81]);
        assert!(standing.has("chat", "10.0.0.1", 80) && standing.has("chat", "10.0.0.1", 81));
        assert!(standing.has("chat", "chat.test", 80));
        assert!(!standing.has("chat", "10.0.0.1", 82));
        // It has left its pool, though another one has it.
        assert!(!standing.has("chat", "10.0.0.2", 80));
        assert_eq!(standing.drain_timeouts["at 80"], Duration::from_secs(7));
    }

    #[test]
    fn where_a_pool_is_gone_another_one_keeps_its_backends() {
        let standing = standing(&[("renamed", &["10.0.0.1"]), ("emptied", &[])], &[80]);
        assert!(standing.has("chat", "10.0.0.1", 80));
        assert!(!standing.has("chat", "10.0.0.2", 80));
        assert!(!standing.has("emptied", "10.0.0.1", 80), "a pool without backends is there");
    }
}
