//! Policies that share requests out among pools: one binding that leads to those of its pools.
//!
//! Its pools are compiled as if each were a rule's own, so that health, probes and drains go by pool as everywhere.

use std::sync::Arc;

use holdfast_proto::control;

use super::{Snapshot, backend_settings};
use crate::config::gateway::{Action, Algorithm, Policy, Pool, Settings, Share};

/// The pools that an action joins with its settings.
pub(super) fn joins(action: &Action) -> Vec<(&Arc<Pool>, &Arc<Settings>)> {
    match action {
        Action::Forward { pool, settings, .. } => vec![(pool, settings)],
        Action::Distribute { policy, settings, .. } => {
            policy.shares.iter().map(|share| (&share.pool, settings)).collect()
        }
        Action::Redirect(_) => Vec::new(),
    }
}

// === impl Snapshot ===

impl Snapshot<'_> {
    /// The index of a policy's binding; those that it leads to stand before it.
    pub(super) fn shared(&mut self, policy: &Policy, settings: &Settings) -> u32 {
        let known = self.bindings.iter().position(|it| {
            it.distribution.is_some() && it.pool == policy.name && it.settings == settings.name
        });
        let index = known.unwrap_or_else(|| {
            let share = |share: &Share| control::Share {
                binding: self.binding(&share.pool, settings),
                weight: share.weight,
            };
            let shares = policy.shares.iter().map(share).collect();
            let algorithm = algorithm(policy.algorithm).into();
            self.bindings.push(control::PoolBinding {
                pool: policy.name.clone(),
                settings: settings.name.clone(),
                backends: Vec::new(),
                backend_settings: Some(backend_settings(settings)),
                distribution: Some(control::Distribution { algorithm, shares }),
            });
            self.bindings.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

fn algorithm(algorithm: Algorithm) -> control::DistributionAlgorithm {
    match algorithm {
        Algorithm::RoundRobin => control::DistributionAlgorithm::RoundRobin,
        Algorithm::LeastConnections => control::DistributionAlgorithm::LeastConnections,
        Algorithm::IpHash => control::DistributionAlgorithm::IpHash,
    }
}
