//! The metrics that are added up: names, kinds, labels and help, and who may report them. Nothing else gets in.

/// What a metric is; decides how generations add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    /// A counter of time: reported in whole microseconds, shown in seconds.
    Seconds,
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

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Histogram, labels, help }
}

/// What workers count.
static WORKERS: &[Definition] = &[
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
    histogram(
        "holdfast_request_duration_seconds",
        &[LISTENER, "site"],
        "From a request's complete head to the last byte of its answer.",
    ),
    counter(
        "holdfast_requests_abandoned_total",
        &[LISTENER, "site"],
        "Requests whose clients left before their answer began.",
    ),
    counter(
        "holdfast_requests_by_tls_total",
        &[LISTENER, "site", "protocol"],
        "Requests by the TLS protocol that they came by; none: without TLS.",
    ),
    counter(
        "holdfast_received_bytes_total",
        &[LISTENER, "site"],
        "Bytes of requests, heads and bodies, without TLS and tunnels.",
    ),
    counter(
        "holdfast_sent_bytes_total",
        &[LISTENER, "site"],
        "Bytes of answers, heads and bodies, without TLS and tunnels.",
    ),
    counter(
        "holdfast_connections_accepted_total",
        &[LISTENER],
        "Client connections that were accepted.",
    ),
    counter(
        "holdfast_tls_handshakes_failed_total",
        &[LISTENER, "reason"],
        "Client connections whose TLS never came about, by reason.",
    ),
    histogram(
        "holdfast_client_rtt_seconds",
        &[LISTENER],
        "Round trip to the client, as the kernel measured it when the connection was opened.",
    ),
    counter(
        "holdfast_pool_requests_total",
        &["pool", "settings"],
        "Requests that went to a pool with certain backend settings.",
    ),
    counter(
        "holdfast_pool_requests_failed_total",
        &["pool", "settings"],
        "Of these, those whose clients got a 5xx, the backend's or the gateway's.",
    ),
    counter(
        "holdfast_backend_responses_total",
        &["pool", "settings", "code_class"],
        "Answers of backends, by class of status.",
    ),
    histogram(
        "holdfast_backend_connect_duration_seconds",
        &["pool", "settings"],
        "Time to connect to a backend, TLS included; counts the connections.",
    ),
    histogram(
        "holdfast_backend_first_byte_seconds",
        &["pool", "settings"],
        "From turning to a backend to the head of its answer.",
    ),
    histogram(
        "holdfast_backend_last_byte_seconds",
        &["pool", "settings"],
        "From turning to a backend to the end of its answer.",
    ),
    gauge("holdfast_connections_active", &[LISTENER], "Client connections that are open."),
    gauge("holdfast_tunnels_active", &[], "Tunnels (upgraded connections) that are open."),
    counter("holdfast_tunnels_opened_total", &[], "Tunnels that were opened."),
    counter("holdfast_tunnels_closed_total", &["cause"], "Tunnels that ended, by cause."),
    histogram(
        "holdfast_tunnels_duration_seconds",
        &[],
        "How long tunnels that ended had been open.",
    ),
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
    histogram(
        "holdfast_handover_pause_seconds",
        &[],
        "How long a tunnel stood still while it changed hands.",
    ),
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

/// What the prober counts.
static PROBER: &[Definition] = &[
    counter(
        "holdfast_probes_total",
        &["pool", "settings", "outcome"],
        "Checks of backends, by what they came to.",
    ),
    histogram(
        "holdfast_probe_duration_seconds",
        &["pool", "settings"],
        "How long checks of backends took.",
    ),
];

/// What every process says of itself. Of several workers of a listener it is the sum.
static PROCESSES: &[Definition] = &[
    Definition {
        name: "holdfast_process_cpu_seconds_total",
        kind: Kind::Seconds,
        labels: &["process", LISTENER],
        help: "Time that processes have spent on processors, in user and kernel mode.",
    },
    gauge(
        "holdfast_process_resident_memory_bytes",
        &["process", LISTENER],
        "Memory that is resident; pages that processes share count in each.",
    ),
    gauge("holdfast_process_threads", &["process", LISTENER], "Threads."),
    gauge("holdfast_process_open_fds", &["process", LISTENER], "Open file descriptors."),
    gauge(
        "holdfast_process_max_fds",
        &["process", LISTENER],
        "Most file descriptors that may be open.",
    ),
];

pub(super) const WORKER_DEATHS: &str = "holdfast_worker_deaths_total";
pub(super) const REVISIONS_APPLIED: &str = "holdfast_revisions_applied_total";
pub(super) const RELOADS_REFUSED: &str = "holdfast_reloads_refused_total";
pub(super) const SAMPLES_REFUSED: &str = "holdfast_samples_refused_total";

/// What the supervisor counts itself.
static OWN: &[Definition] = &[
    counter(
        WORKER_DEATHS,
        &[LISTENER, "cause"],
        "Worker processes that ended, by listener and cause.",
    ),
    counter(REVISIONS_APPLIED, &[], "Revisions of the configuration that were put in force."),
    counter(RELOADS_REFUSED, &[], "Configurations that were refused; what ran went on."),
    counter(SAMPLES_REFUSED, &[], "Figures of workers that were unknown, malformed or too many."),
];

/// Everything that is added up.
pub(super) fn all() -> impl Iterator<Item = &'static Definition> {
    WORKERS.iter().chain(PROBER).chain(PROCESSES).chain(OWN)
}

/// Who reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reporter<'a> {
    /// A worker of that listener.
    Worker(&'a str),
    Prober,
    Supervisor,
}

// === impl Reporter ===

impl Reporter<'_> {
    /// The metric with that name that it may report.
    pub(super) fn find(self, name: &str) -> Option<&'static Definition> {
        let own = match self {
            Self::Worker(_) => WORKERS,
            Self::Prober => PROBER,
            Self::Supervisor => &[],
        };
        own.iter().chain(PROCESSES).find(|definition| definition.name == name)
    }

    /// Which listener it serves, the supervisor knows better than it does itself.
    pub(super) fn listener(self) -> String {
        match self {
            Self::Worker(listener) => listener.to_owned(),
            Self::Prober | Self::Supervisor => String::new(),
        }
    }
}
