//! The worker's report: HTTP's counters and the tunnels' totals under the names that operators know.

use holdfast_proto::control::{PageReport, Sample, WorkerReport};
use holdfast_proto::usage;

use crate::http::Shared;
use crate::metrics::{counter, gauge, histogram};
use crate::tunnel::{Cause, Census, DURATION_BOUNDS_S, Handover, PAUSE_BOUNDS_S, Pin, Totals};

/// Everything that the supervisor is told about this process's work.
pub(super) fn report(shared: &Shared, request: u64) -> WorkerReport {
    let mut samples = shared.metrics.samples();
    samples.extend(usage::samples("worker"));
    let Census { active: tunnels_active, protected: tunnels_protected, pinned } =
        shared.tunnels.census();
    samples.push(gauge("holdfast_tunnels_active", &[], tunnels_active));
    samples.extend(shared.access_log.samples());
    let [arena, tally] = shared.tunnels.shared_pages();
    let unprotected = tunnels_active.saturating_sub(tunnels_protected);
    samples.push(gauge("holdfast_tunnels_unprotected", &[], unprotected));
    samples.extend(
        Pin::ALL.into_iter().zip(pinned).map(|(pin, count)| {
            gauge("holdfast_tunnels_pinned", &[("cause", pin.as_str())], count)
        }),
    );
    WorkerReport {
        tunnels_active,
        tunnels_protected,
        tunnels_pinned: pinned.iter().sum(),
        connections_active: shared.metrics.connections_active(),
        samples,
        pages: vec![
            page_report(arena, byte_samples(shared.tunnels.bytes())),
            page_report(tally, tunnel_samples(&shared.tunnels.totals())),
        ],
        request,
    }
}

fn page_report(page: u64, samples: Vec<Sample>) -> PageReport {
    PageReport { page, samples }
}

fn byte_samples([inward, outward]: [u64; 2]) -> Vec<Sample> {
    [("in", inward), ("out", outward)]
        .map(|way| counter("holdfast_tunnels_bytes_total", &[("direction", way.0)], way.1))
        .into()
}

fn tunnel_samples(totals: &Totals) -> Vec<Sample> {
    let mut samples = vec![
        counter("holdfast_tunnels_opened_total", &[], totals.opened),
        histogram(
            "holdfast_tunnels_duration_seconds",
            DURATION_BOUNDS_S.to_vec(),
            totals.durations.to_vec(),
            totals.duration_sum_s,
        ),
        histogram(
            "holdfast_handover_pause_seconds",
            PAUSE_BOUNDS_S.to_vec(),
            totals.pauses.to_vec(),
            totals.pause_sum_s,
        ),
        counter("holdfast_tunnels_lost_total", &[], totals.lost),
    ];
    samples.extend(Handover::ALL.into_iter().map(|handover| {
        let labels = [("cause", handover.as_str())];
        counter("holdfast_tunnels_handed_over_total", &labels, totals.handed_over_by(handover))
    }));
    samples.extend(Cause::ALL.into_iter().map(|cause| {
        let labels = [("cause", cause.as_str())];
        counter("holdfast_tunnels_closed_total", &labels, totals.closed_by(cause))
    }));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::control::sample::Value;

    #[test]
    fn every_cause_is_a_series_from_the_start() {
        let samples = tunnel_samples(&Totals::default());
        let closed = samples.iter().filter(|s| s.name == "holdfast_tunnels_closed_total");
        assert_eq!(closed.count(), Cause::ALL.len());
    }

    #[test]
    fn the_histogram_has_one_count_more_than_bounds() {
        for sample in tunnel_samples(&Totals::default()) {
            if let Some(Value::Histogram(histogram)) = sample.value {
                assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
            }
        }
    }
}
