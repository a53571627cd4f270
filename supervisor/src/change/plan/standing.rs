//! Which tunnels a change ends: those whose backend no longer stands in the document. Pure.
//!
//! What a worker ends follows the same rule (`worker/src/snapshot/standing.rs`).

use holdfast_proto::backend_name::bare_address;
use holdfast_proto::control::{Standing, Tunnel};

/// Whether a tunnel's backend stands: its address in its pool, or, where the pool is gone, in any; and its port in any
/// settings.
pub(super) fn keeps(standing: &Standing, tunnel: &Tunnel) -> bool {
    let Some((address, port)) = tunnel.backend.rsplit_once(':') else { return false };
    let address = bare_address(address);
    let Ok(port) = port.parse::<u32>() else { return false };
    if !standing.settings.iter().any(|settings| settings.port == port) {
        return false;
    }
    let has = |addresses: &[String]| {
        addresses.iter().any(|it| bare_address(it).eq_ignore_ascii_case(address))
    };
    match standing.pools.iter().find(|pool| pool.name == tunnel.pool) {
        Some(pool) => has(&pool.addresses),
        None => standing.pools.iter().any(|pool| has(&pool.addresses)),
    }
}

/// Whether any address or port is left out that was there: only then can a tunnel lose its backend.
pub(super) fn loses(before: &Standing, after: &Standing) -> bool {
    let port_stays = |port: u32| after.settings.iter().any(|settings| settings.port == port);
    let pool_stays = |name: &str, addresses: &[String]| {
        let is = after.pools.iter().find(|is| is.name == name);
        is.is_some_and(|is| addresses.iter().all(|address| is.addresses.contains(address)))
    };
    !before.settings.iter().all(|settings| port_stays(settings.port))
        || !before.pools.iter().all(|pool| pool_stays(&pool.name, &pool.addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::control::{StandingPool, StandingSettings};

    fn standing(pools: &[(&str, &[&str])], ports: &[u32]) -> Standing {
        let pool = |(name, addresses): &(&str, &[&str])| StandingPool {
            name: (*name).into(),
            addresses: addresses.iter().map(|&address| address.into()).collect(),
        };
        let settings = |&port: &u32| StandingSettings { port, ..StandingSettings::default() };
        Standing {
            pools: pools.iter().map(pool).collect(),
            settings: ports.iter().map(settings).collect(),
        }
    }

    fn tunnel(backend: &str) -> Tunnel {
        Tunnel { pool: "p".into(), backend: backend.into(), ..Tunnel::default() }
    }

    #[test]
    fn a_tunnel_keeps_its_backend_by_address_and_port() {
        let standing = standing(&[("p", &["::1", "Chat.Test"]), ("q", &["10.0.0.1"])], &[80]);
        assert!(keeps(&standing, &tunnel("[::1]:80")));
        assert!(keeps(&standing, &tunnel("chat.test:80")));
        assert!(!keeps(&standing, &tunnel("[::1]:81")));
        assert!(!keeps(&standing, &tunnel("10.0.0.1:80")), "of another pool");
    }

    #[test]
    fn a_pool_that_is_gone_leaves_its_tunnels_to_any_that_has_their_backend() {
        let standing = standing(&[("q", &["10.0.0.1"])], &[80]);
        assert!(keeps(&standing, &tunnel("10.0.0.1:80")));
        assert!(!keeps(&standing, &tunnel("10.0.0.2:80")));
    }

    #[test]
    fn only_what_is_left_out_can_cost_anybody_a_backend() {
        let before = standing(&[("p", &["10.0.0.1"])], &[80]);
        let more = standing(&[("q", &[]), ("p", &["10.0.0.2", "10.0.0.1"])], &[81, 80]);
        assert!(!loses(&before, &before) && !loses(&before, &more));
        assert!(loses(&more, &before));
        assert!(loses(&before, &standing(&[("p", &["10.0.0.1"])], &[81])));
        assert!(loses(&before, &standing(&[("renamed", &["10.0.0.1"])], &[80])));
    }
}
