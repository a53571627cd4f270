//! What was refused, and why: requests that the gateway answered with a fault. The reasons are a closed set; what a
//! client wrote never becomes one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use holdfast_proto::control::Sample;

use super::counter;
use crate::fault::FaultKind;

/// Label values of `holdfast_requests_refused_total`, in the order of the counters. The last one is for what was not
/// foreseen here.
const REASONS: [&str; 26] = [
    "no_site",
    "no_backend",
    "connect_failed",
    "backend_closed",
    "backend_protocol",
    "backend_timeout",
    "request_timeout",
    "uri_too_long",
    "header_too_large",
    "body_too_large",
    "method_not_allowed",
    "http_to_https",
    "internal",
    "rewrite",
    "no_client_certificate",
    "bad_client_certificate",
    "misdirected",
    "busy",
    "not_http",
    "host",
    "target",
    "duplicate_field",
    "framing",
    "body_broke_off",
    "websocket",
    OTHER,
];
const OTHER: &str = "bad_request";

/// Counts refusals by reason.
#[derive(Debug, Default)]
pub(super) struct Refusals([AtomicU64; REASONS.len()]);

// === impl Refusals ===

impl Refusals {
    pub(super) fn count(&self, kind: FaultKind) {
        let reason = reason(kind);
        let known = REASONS.iter().position(|it| *it == reason).unwrap_or(REASONS.len() - 1);
        if let Some(counter) = self.0.get(known) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// One series for each reason that there was.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample> {
        let counted = REASONS.iter().zip(&self.0).map(|(reason, it)| (*reason, it.load(Relaxed)));
        counted.filter(|(_, count)| *count != 0).map(|(reason, count)| {
            counter("holdfast_requests_refused_total", &[("reason", reason)], count)
        })
    }
}

/// One word for a fault. A bad request's is taken from its sentence, by what that is about.
fn reason(kind: FaultKind) -> &'static str {
    let FaultKind::BadRequest(sentence) = kind else { return kind.label() };
    let about = [
        ("Host ", "host"),
        ("the request target", "target"),
        ("more than one", "duplicate_field"),
        ("Content-Length", "framing"),
        ("Transfer-Encoding", "framing"),
        ("POST without", "framing"),
        ("the body broke off", "body_broke_off"),
        ("the request is not valid HTTP", "not_http"),
        ("a WebSocket", "websocket"),
        ("an upgrade", "websocket"),
        ("not exactly one Sec-WebSocket", "websocket"),
        ("Sec-WebSocket", "websocket"),
    ];
    about.iter().find(|(begin, _)| sentence.starts_with(begin)).map_or(OTHER, |(_, word)| word)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use holdfast_proto::control::sample::Value;

    #[test]
    fn a_reason_is_one_of_a_closed_set() {
        for (kind, word) in [
            (FaultKind::NoSite, "no_site"),
            (FaultKind::Busy, "busy"),
            (FaultKind::BadRequest("Host is missing"), "host"),
            (FaultKind::BadRequest("Host is not valid"), "host"),
            (FaultKind::BadRequest("more than one Host"), "duplicate_field"),
            (FaultKind::BadRequest("Content-Length is not a number"), "framing"),
            (FaultKind::BadRequest("the request is not valid HTTP"), "not_http"),
            (FaultKind::BadRequest("a WebSocket handshake has no body"), "websocket"),
            (FaultKind::BadRequest("what nobody foresaw"), "bad_request"),
        ] {
            assert_eq!(reason(kind), word, "{kind:?}");
            assert!(REASONS.contains(&word));
        }
    }

    #[test]
    fn what_never_was_has_no_series() {
        let refusals = Refusals::default();
        assert_eq!(refusals.samples().count(), 0);
        refusals.count(FaultKind::BadRequest("Host is missing"));
        refusals.count(FaultKind::BadRequest("Host is not valid"));
        refusals.count(FaultKind::BadRequest("what nobody foresaw"));
        let samples: Vec<_> = refusals.samples().collect();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].labels[0].value, "host");
        assert_eq!(samples[0].value, Some(Value::Counter(2)));
        assert_eq!(samples[1].labels[0].value, "bad_request");
    }
}
