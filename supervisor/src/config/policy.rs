//! The part of the model that says how requests are shared out among pools (Azure's `loadDistributionPolicies`).

use std::sync::Arc;

use super::gateway::Pool;

/// One Azure `loadDistributionPolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Name as spelled.
    pub name: String,
    /// Who is chosen.
    pub algorithm: Algorithm,
    /// The pools, each once, at least one.
    pub shares: Vec<Share>,
}

/// One pool's part in a [`Policy`].
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Name as spelled, if it has one.
    pub name: Option<String>,
    /// The backends.
    pub pool: Arc<Pool>,
    /// Of each of them, 1 to 100.
    pub weight: u32,
}

/// Who is chosen among the backends that are in rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Each in its turn.
    RoundRobin,
    /// The one with the least in hand.
    LeastConnections,
    /// Always the same one for a client's address.
    IpHash,
}

// === impl Algorithm ===

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastConnections, Self::IpHash];

    /// Azure's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::LeastConnections => "LeastConnections",
            Self::IpHash => "IpHash",
        }
    }
}
