//! What checks came to and how long they took, as totals of this process's life, for the metrics. Labels come from the
//! configuration.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::control::sample::Value;
use holdfast_proto::control::{Histogram, Label, Sample, TargetKey};

/// Upper bounds, in seconds: up to Azure's longest usual timeouts.
const BOUNDS_S: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 10.0, 30.0];

/// Counts checks by pool and backend settings.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<BTreeMap<(String, String), Figures>>);

#[derive(Debug, Default, Clone)]
struct Figures {
    passed: u64,
    failed: u64,
    taken: [u64; BOUNDS_S.len() + 1],
    sum: Duration,
}

// === impl Checks ===

impl Checks {
    /// Counts a check that is over.
    pub(crate) fn count(&self, key: &TargetKey, taken: Duration, passed: bool) {
        let mut all = self.lock();
        let figures = all.entry((key.pool.clone(), key.settings.clone())).or_default();
        let count = if passed { &mut figures.passed } else { &mut figures.failed };
        *count += 1;
        let seconds = taken.as_secs_f64();
        let place = BOUNDS_S.iter().position(|bound| seconds <= *bound);
        if let Some(count) = figures.taken.get_mut(place.unwrap_or(BOUNDS_S.len())) {
            *count += 1;
        }
        figures.sum = figures.sum.saturating_add(taken);
    }

    /// Every series.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.lock().iter().flat_map(|(key, figures)| figures.samples(key)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Figures>> {
        // Counters stay counters when a thread died while it held them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Figures ===

impl Figures {
    fn samples(&self, (pool, settings): &(String, String)) -> [Sample; 3] {
        let sample = |name: &str, outcome: Option<&str>, value| {
            let outcome = outcome.map(|outcome| ("outcome", outcome));
            let labels = [("pool", pool.as_str()), ("settings", settings.as_str())]
                .into_iter()
                .chain(outcome);
            let label = |(key, value): (&str, &str)| Label { key: key.into(), value: value.into() };
            Sample { name: name.into(), labels: labels.map(label).collect(), value: Some(value) }
        };
        let histogram = Histogram {
            bounds: BOUNDS_S.to_vec(),
            counts: self.taken.to_vec(),
            sum: self.sum.as_secs_f64(),
        };
        [
            sample("holdfast_probes_total", Some("passed"), Value::Counter(self.passed)),
            sample("holdfast_probes_total", Some("failed"), Value::Counter(self.failed)),
            sample("holdfast_probe_duration_seconds", None, Value::Histogram(histogram)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_counted_by_what_they_came_to() {
        let checks = Checks::default();
        let key =
            TargetKey { pool: "chat".into(), settings: "plain".into(), ..TargetKey::default() };
        checks.count(&key, Duration::from_millis(2), true);
        checks.count(&key, Duration::from_secs(99), false);
        checks.count(&key, Duration::from_secs(99), false);
        let values: Vec<_> = checks.samples().into_iter().filter_map(|it| it.value).collect();
        assert_eq!(values.first(), Some(&Value::Counter(1)));
        assert_eq!(values.get(1), Some(&Value::Counter(2)));
        let counts = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        let sum = Duration::from_millis(198_002).as_secs_f64();
        let histogram = Histogram { bounds: BOUNDS_S.to_vec(), counts, sum };
        assert_eq!(values.get(2), Some(&Value::Histogram(histogram)));
    }
}
