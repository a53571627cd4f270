//! What the document has, routed to or not: a tunnel stays for as long as its backend stands here.

use holdfast_proto::control::{Standing, StandingPool, StandingSettings};

use super::{DRAIN_WHEN_OFF, millis};
use crate::config::gateway::Gateway;

/// Every pool and all backend settings, in the document's order.
pub(super) fn standing(gateway: &Gateway) -> Standing {
    let pools = gateway
        .pools
        .iter()
        .map(|pool| StandingPool { name: pool.name.clone(), addresses: pool.backends.clone() });
    let settings = gateway.settings.iter().map(|settings| StandingSettings {
        name: settings.name.clone(),
        port: settings.port.into(),
        drain_timeout_ms: millis(settings.drain_timeout.unwrap_or(DRAIN_WHEN_OFF)),
    });
    Standing { pools: pools.collect(), settings: settings.collect() }
}
