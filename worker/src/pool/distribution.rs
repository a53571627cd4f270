//! Azure's loadDistributionPolicies: one binding that leads to the backends of several, each with a weight.
//!
//! Its backends are those of the bindings that it leads to, not copies: health, drains, tunnels and counters go by the
//! pool that a backend stands in. Which backend gets a request is decided in [`super::rotation`].

use std::sync::Arc;

use holdfast_proto::control as wire;
use thiserror::Error;

use super::{Backend, Binding};

/// Azure's range for `weightPerServer`.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=100;

/// Why a distribution cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DistributionRefusal {
    /// The algorithm is unknown.
    #[error("distribution algorithm {0} is unknown")]
    Algorithm(i32),
    /// It leads nowhere.
    #[error("the distribution has no shares")]
    NoShares,
    /// It has backends of its own.
    #[error("the distribution has backends of its own")]
    OwnBackends,
    /// A share does not lead to a plain binding before this one, under the same settings.
    #[error("share {0} does not lead to a pool under the same settings")]
    Share(u32),
    /// A weight is out of range.
    #[error("weight {0} is out of range")]
    Weight(u32),
}

/// Who is chosen among the backends that are in rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Each in its turn, as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the least in hand for its weight.
    LeastConnections,
    /// Always the same one for a client's address.
    IpHash,
}

/// How a binding shares its requests out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Who is chosen.
    pub algorithm: Algorithm,
    /// One for each of the binding's backends.
    pub(super) weights: Vec<u32>,
}

// === impl Distribution ===

impl Distribution {
    /// Compiles a distribution over `bindings`, those of the snapshot that stand before its own, and lists whom it
    /// leads to. `settings`: those of its own binding.
    pub(super) fn compile(
        distribution: &wire::Distribution,
        settings: &str,
        bindings: &[Arc<Binding>],
    ) -> Result<(Self, Vec<Arc<Backend>>), DistributionRefusal> {
        let algorithm = match distribution.algorithm() {
            wire::DistributionAlgorithm::RoundRobin => Algorithm::RoundRobin,
            wire::DistributionAlgorithm::LeastConnections => Algorithm::LeastConnections,
            wire::DistributionAlgorithm::IpHash => Algorithm::IpHash,
            wire::DistributionAlgorithm::Unspecified => {
                return Err(DistributionRefusal::Algorithm(distribution.algorithm));
            }
        };
        if distribution.shares.is_empty() {
            return Err(DistributionRefusal::NoShares);
        }
        let (mut weights, mut backends) = (Vec::new(), Vec::new());
        for wire::Share { binding, weight } in &distribution.shares {
            if !WEIGHTS.contains(weight) {
                return Err(DistributionRefusal::Weight(*weight));
            }
            let found = usize::try_from(*binding).ok().and_then(|index| bindings.get(index));
            let pool = found
                .filter(|found| found.distribution.is_none() && *found.settings == *settings)
                .ok_or(DistributionRefusal::Share(*binding))?;
            weights.resize(weights.len() + pool.backends.len(), *weight);
            backends.extend(pool.backends.iter().map(Arc::clone));
        }
        Ok((Self { algorithm, weights }, backends))
    }
}

// === impl Binding ===

impl Binding {
    /// Who is chosen among its backends.
    pub fn algorithm(&self) -> Algorithm {
        self.distribution.as_ref().map_or(Algorithm::RoundRobin, |it| it.algorithm)
    }

    /// Every configured backend with its weight.
    pub fn weighted(&self) -> impl Iterator<Item = (&Arc<Backend>, u32)> {
        let weights = self.distribution.as_ref().map_or(&[][..], |it| &it.weights);
        let weights = weights.iter().copied().chain(std::iter::repeat(1));
        self.backends.iter().zip(weights)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::pool::Context;
    use crate::pool::tests::wire_binding;

    fn pool(name: &str, backends: &[(&str, u16)]) -> Arc<Binding> {
        let binding = wire::PoolBinding { pool: name.to_owned(), ..wire_binding(backends) };
        Arc::new(Binding::compile(binding, None, Context::default()).unwrap())
    }

    fn distribution(shares: &[(u32, u32)]) -> wire::Distribution {
        wire::Distribution {
            algorithm: wire::DistributionAlgorithm::RoundRobin.into(),
            shares: shares
                .iter()
                .map(|&(binding, weight)| wire::Share { binding, weight })
                .collect(),
        }
    }

    fn compile(
        distribution: &wire::Distribution,
    ) -> Result<(Distribution, Vec<Arc<Backend>>), DistributionRefusal> {
        let pools = [pool("blue", &[("10.0.0.1", 80), ("10.0.0.2", 80)]), pool("green", &[])];
        Distribution::compile(distribution, "settings", &pools)
    }

    #[test]
    fn a_weight_is_each_servers_and_backends_stay_their_pools() {
        let pools = [pool("blue", &[("10.0.0.1", 80), ("10.0.0.2", 80)]), pool("red", &[("a", 1)])];
        let (compiled, backends) =
            Distribution::compile(&distribution(&[(1, 3), (0, 1)]), "settings", &pools).unwrap();
        assert_eq!(compiled.weights, [3, 1, 1]);
        assert!(Arc::ptr_eq(&backends[0], &pools[1].backends[0]));
        let of: Vec<&str> = backends.iter().map(|backend| &*backend.pool).collect();
        assert_eq!(of, ["red", "blue", "blue"]);
    }

    #[test]
    fn what_cannot_be_shared_out_is_refused() {
        let refused = |shares: &[(u32, u32)]| compile(&distribution(shares)).unwrap_err();
        assert_eq!(refused(&[]), DistributionRefusal::NoShares);
        assert_eq!(refused(&[(2, 1)]), DistributionRefusal::Share(2));
        assert_eq!(refused(&[(0, 0)]), DistributionRefusal::Weight(0));
        assert_eq!(refused(&[(0, 101)]), DistributionRefusal::Weight(101));
        let unknown = wire::Distribution { algorithm: 9, ..distribution(&[(0, 1)]) };
        assert_eq!(compile(&unknown).unwrap_err(), DistributionRefusal::Algorithm(9));
        let pools = [pool("blue", &[])];
        let other = Distribution::compile(&distribution(&[(0, 1)]), "others", &pools);
        assert_eq!(other.unwrap_err(), DistributionRefusal::Share(0));
    }
}
