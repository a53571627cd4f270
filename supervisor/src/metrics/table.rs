//! The metrics that workers may report: names, kinds, labels and help. Nothing else gets in.

/// What a metric is; decides how generations add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// In the order in which a series keeps their values. `listener` is filled in by the supervisor.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

pub(super) const LISTENER: &str = "listener";

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Counter, labels, help }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Gauge, labels, help }
}

/// What workers count.
pub(super) static TABLE: &[Definition] = &[
    counter(
        "holdfast_requests_total",
        &[LISTENER, "code_class"],
        "HTTP requests answered, by class of status.",
    ),
    counter(
        "holdfast_requests_refused_total",
        &["reason"],
        "Requests that the gateway answered with a fault of its own, by reason.",
    ),
    gauge("holdfast_connections_active", &[LISTENER], "Client connections that are open."),
    gauge("holdfast_tunnels_active", &[], "Tunnels (upgraded connections) that are open."),
    counter("holdfast_tunnels_opened_total", &[], "Tunnels that were opened."),
    counter("holdfast_tunnels_closed_total", &["cause"], "Tunnels that ended, by cause."),
    Definition {
        name: "holdfast_tunnels_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "How long tunnels that ended had been open.",
    },
    counter(
        "holdfast_tunnels_bytes_total",
        &["direction"],
        "Bytes that tunnels carried, by direction.",
    ),
    gauge(
        "holdfast_tunnels_unprotected",
        &[],
        "Tunnels that would not survive the death of their worker.",
    ),
    gauge(
        "holdfast_tunnels_pinned",
        &["cause"],
        "Tunnels that cannot move and drain with their worker, by what keeps them.",
    ),
    counter("holdfast_tunnels_lost_total", &[], "Tunnels lost by the gateway's own fault."),
    counter(
        "holdfast_tunnels_handed_over_total",
        &["cause"],
        "Tunnels that a worker took over from an earlier one, by what became of that.",
    ),
    Definition {
        name: "holdfast_handover_pause_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "How long a tunnel stood still while it changed hands.",
    },
    counter(
        "holdfast_http2_connections_cut_off_total",
        &[],
        "HTTP/2 connections that were cut off because their clients misbehaved.",
    ),
    counter(
        "holdfast_backend_connect_failures_total",
        &["pool"],
        "Attempts to connect to a backend that failed.",
    ),
    counter(
        "holdfast_backend_retries_total",
        &["pool"],
        "Requests that were tried again on another connection or backend.",
    ),
    counter(
        "holdfast_access_log_lines_total",
        &[LISTENER, "outcome"],
        "Lines of the access log, written or dropped.",
    ),
];

pub(super) const WORKER_DEATHS: &str = "holdfast_worker_deaths_total";
pub(super) const RELOADS_REFUSED: &str = "holdfast_reloads_refused_total";
pub(super) const SAMPLES_REFUSED: &str = "holdfast_samples_refused_total";

/// What the supervisor counts itself.
static OWN: &[Definition] = &[
    counter(
        WORKER_DEATHS,
        &[LISTENER, "cause"],
        "Worker processes that ended, by listener and cause.",
    ),
    counter(RELOADS_REFUSED, &[], "Configurations that were refused; what ran went on."),
    counter(SAMPLES_REFUSED, &[], "Figures of workers that were unknown, malformed or too many."),
];

/// Everything that is added up.
pub(super) fn all() -> impl Iterator<Item = &'static Definition> {
    TABLE.iter().chain(OWN)
}

/// The metric with that name that a worker may report.
pub(super) fn find(name: &str) -> Option<&'static Definition> {
    TABLE.iter().find(|definition| definition.name == name)
}
