//! How long things take: a histogram with fixed bounds, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use holdfast_proto::control::{Histogram, Sample, sample::Value};

use super::sample;

/// Upper bounds, in seconds: from what a loopback takes to Azure's longest usual timeouts.
const BOUNDS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Durations of one kind.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    counts: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

// === impl Timing ===

impl Timing {
    pub(super) fn observe(&self, taken: Duration) {
        let seconds = taken.as_secs_f64();
        let place = BOUNDS_S.iter().position(|bound| seconds <= *bound);
        if let Some(count) = self.counts.get(place.unwrap_or(BOUNDS_S.len())) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(u64::try_from(taken.as_micros()).unwrap_or_default(), Relaxed);
    }

    pub(super) fn sample(&self, name: &str, labels: &[(&str, &str)]) -> Sample {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let sum = Duration::from_micros(self.sum_us.load(Relaxed)).as_secs_f64();
        let histogram = Histogram { bounds: BOUNDS_S.to_vec(), counts, sum };
        sample(name, labels, Value::Histogram(histogram))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_what_is_beyond_to_the_last() {
        let timing = Timing::default();
        timing.observe(Duration::from_millis(1));
        timing.observe(Duration::from_micros(1001));
        timing.observe(Duration::from_secs(3600));
        let sample = timing.sample("name", &[]);
        let Some(Value::Histogram(histogram)) = sample.value else { panic!("no histogram") };
        assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
        assert_eq!((histogram.counts[1], histogram.counts[2], histogram.counts[14]), (1, 1, 1));
        assert!((histogram.sum - 3_600.002_001).abs() < 1e-6, "{histogram:?}");
    }
}
