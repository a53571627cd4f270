//! What stands under `holdfast` about clients and the log about them, with defaults.

use serde_json::{Value, json};

use super::put;
use crate::config::gateway::{AccessLog, AccessLogDestination, ClientSource, MILLION};

pub(super) fn access_log(log: &AccessLog) -> Value {
    let share = f64::from(log.sampled_per_million) / f64::from(MILLION);
    let mut value = json!({ "destination": log.destination.as_str(), "sampleRate": share });
    if let AccessLogDestination::File { path } = &log.destination {
        put(&mut value, "file", Some(json!(path)));
    }
    value
}

pub(super) fn source(source: &ClientSource) -> Value {
    let trusted: Vec<_> = source.trusted.iter().map(ToString::to_string).collect();
    let mut value = json!({
        "proxyProtocol": if source.proxy_protocol { "required" } else { "off" },
        "trustForwardedHeaders": source.forwarded_headers,
    });
    put(&mut value, "trustedProxies", (!trusted.is_empty()).then(|| json!(trusted)));
    value
}
