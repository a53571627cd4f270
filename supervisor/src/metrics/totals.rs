//! Adding up what the incarnations of all workers report, and what each listener's shared page says.
//!
//! # Invariants
//! - The sum of a counter never falls: a smaller report is ignored, an ended incarnation's last total is kept.
//! - At most [`MOST_SERIES`] label sets a metric are ever known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_proto::control::{Histogram, Sample, WorkerReport, sample::Value};

use super::table::{self, Definition, Kind, LISTENER};

/// Label sets of one metric. Listeners, pools and causes of a big gateway stay below; more is a broken worker.
const MOST_SERIES: usize = 1000;
/// Longest label value, bytes; Azure's names have at most 80 characters.
const LONGEST_LABEL: usize = 256;
/// Buckets of one histogram.
const MOST_BUCKETS: usize = 64;
/// Ended incarnations that are remembered, so that a report that was still on its way counts nothing twice.
const REMEMBERED: usize = 1024;

/// One line of the exposition: a metric and the values of its labels, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) values: Vec<String>,
}

/// A series' value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Total {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

/// What each incarnation last said, and the base of those that ended.
#[derive(Debug, Default)]
pub(super) struct Totals {
    living: BTreeMap<u64, BTreeMap<Series, Total>>,
    /// Totals of a listener's life, counted by all of its processes on one page: the latest stands.
    listeners: BTreeMap<String, BTreeMap<Series, Total>>,
    base: BTreeMap<Series, Total>,
    known: BTreeSet<Series>,
    known_by_name: BTreeMap<&'static str, usize>,
    ended: VecDeque<u64>,
}

// === impl Totals ===

impl Totals {
    /// Takes in a report; returns how many samples were left out.
    pub(super) fn report(&mut self, incarnation: u64, listener: &str, report: WorkerReport) -> u64 {
        if self.ended.contains(&incarnation) {
            return 0;
        }
        let mut series = self.living.remove(&incarnation).unwrap_or_default();
        // A gauge that is no longer reported no longer is.
        series.retain(|_, total| !matches!(total, Total::Gauge(_)));
        let mut refused = 0;
        for sample in report.samples {
            if self.take(&mut series, listener, sample).is_none() {
                refused += 1;
            }
        }
        for (name, value) in [
            ("holdfast_tunnels_active", report.tunnels_active),
            ("holdfast_connections_active", report.connections_active),
        ] {
            #[allow(clippy::cast_precision_loss, reason = "no host has 2^52 connections")]
            let value = Some(Value::Gauge(value as f64));
            let sample = Sample { name: name.to_owned(), labels: Vec::new(), value };
            if self.take(&mut series, listener, sample).is_none() {
                refused += 1;
            }
        }
        self.living.insert(incarnation, series);
        let mut page = self.listeners.remove(listener).unwrap_or_default();
        for sample in report.listener_samples {
            if self.take(&mut page, listener, sample).is_none() {
                refused += 1;
            }
        }
        self.listeners.insert(listener.to_owned(), page);
        refused
    }

    /// The listener's last process is gone, and its page with it: what it says later begins at zero.
    pub(super) fn closed(&mut self, listener: &str) {
        for (series, total) in self.listeners.remove(listener).unwrap_or_default() {
            if !matches!(total, Total::Gauge(_)) {
                add(&mut self.base, &series, &total);
            }
        }
    }

    /// Folds the incarnation's last totals into the base.
    pub(super) fn ended(&mut self, incarnation: u64) {
        if self.ended.contains(&incarnation) {
            return;
        }
        for (series, total) in self.living.remove(&incarnation).unwrap_or_default() {
            if !matches!(total, Total::Gauge(_)) {
                add(&mut self.base, &series, &total);
            }
        }
        self.ended.push_back(incarnation);
        if self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// Every series with its value over all incarnations; metrics without labels are there from the start.
    pub(super) fn sum(&self) -> BTreeMap<Series, Total> {
        let mut sum = self.base.clone();
        for (series, total) in self.living.values().chain(self.listeners.values()).flatten() {
            add(&mut sum, series, total);
        }
        for definition in table::TABLE.iter().filter(|definition| definition.labels.is_empty()) {
            let zero = match definition.kind {
                Kind::Counter => Total::Counter(0),
                Kind::Gauge => Total::Gauge(0.0),
                Kind::Histogram => continue,
            };
            sum.entry(Series { name: definition.name, values: Vec::new() }).or_insert(zero);
        }
        sum
    }

    /// `None`: left out.
    fn take(
        &mut self,
        into: &mut BTreeMap<Series, Total>,
        listener: &str,
        sample: Sample,
    ) -> Option<()> {
        let definition = table::find(&sample.name)?;
        let values = values_of(definition, listener, &sample)?;
        let series = Series { name: definition.name, values };
        let before = into.get(&series);
        let total = match (definition.kind, sample.value?) {
            (Kind::Counter, Value::Counter(value)) => match before {
                Some(Total::Counter(before)) => Total::Counter(value.max(*before)),
                _ => Total::Counter(value),
            },
            (Kind::Gauge, Value::Gauge(value)) if value.is_finite() => Total::Gauge(value),
            (Kind::Histogram, Value::Histogram(value)) => {
                if !is_sound(&value) || before.is_some_and(|before| !follows(&value, before)) {
                    return None;
                }
                Total::Histogram(value)
            }
            _ => return None,
        };
        self.admit(&series)?;
        into.insert(series, total);
        Some(())
    }

    fn admit(&mut self, series: &Series) -> Option<()> {
        if self.known.contains(series) {
            return Some(());
        }
        let count = self.known_by_name.entry(series.name).or_default();
        if *count >= MOST_SERIES {
            return None;
        }
        *count += 1;
        self.known.insert(series.clone());
        Some(())
    }
}

/// The label values in the table's order, if the labels are exactly the table's.
fn values_of(definition: &Definition, listener: &str, sample: &Sample) -> Option<Vec<String>> {
    let sent = sample.labels.iter().filter(|label| label.key != LISTENER).count();
    let wanted = definition.labels.iter().filter(|label| **label != LISTENER).count();
    if sent != wanted {
        return None;
    }
    definition
        .labels
        .iter()
        .map(|key| {
            // Which listener a worker serves, the supervisor knows better than the worker.
            if *key == LISTENER {
                return Some(listener.to_owned());
            }
            let label = sample.labels.iter().find(|label| label.key == *key)?;
            (label.value.len() <= LONGEST_LABEL).then(|| label.value.clone())
        })
        .collect()
}

fn is_sound(histogram: &Histogram) -> bool {
    let ascending = histogram.bounds.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
    ascending
        && histogram.bounds.iter().all(|bound| bound.is_finite())
        && histogram.bounds.len() <= MOST_BUCKETS
        && histogram.counts.len() == histogram.bounds.len() + 1
        && histogram.sum.is_finite()
        && histogram.sum >= 0.0
}

/// Could `after` be a later state of the same histogram?
fn follows(after: &Histogram, before: &Total) -> bool {
    let Total::Histogram(before) = before else { return false };
    before.bounds == after.bounds
        && before.sum <= after.sum
        && before.counts.iter().zip(&after.counts).all(|(before, after)| before <= after)
}

fn add(into: &mut BTreeMap<Series, Total>, series: &Series, total: &Total) {
    let Some(sum) = into.get_mut(series) else {
        into.insert(series.clone(), total.clone());
        return;
    };
    match (sum, total) {
        (Total::Counter(sum), Total::Counter(more)) => *sum = sum.saturating_add(*more),
        (Total::Gauge(sum), Total::Gauge(more)) => *sum += more,
        (Total::Histogram(sum), Total::Histogram(more)) => add_histogram(sum, more),
        // One name has one kind: `take` lets nothing else in.
        _ => {}
    }
}

/// Bounds of another version of the worker: each count goes to the first bucket that holds its whole range, so that
/// no cumulated count is ever too high and the total is exact.
fn add_histogram(sum: &mut Histogram, more: &Histogram) {
    for (index, count) in more.counts.iter().enumerate() {
        let bound = more.bounds.get(index).copied().unwrap_or(f64::INFINITY);
        let place = sum.bounds.iter().position(|it| *it >= bound).unwrap_or(sum.bounds.len());
        if let Some(total) = sum.counts.get_mut(place) {
            *total = total.saturating_add(*count);
        }
    }
    sum.sum += more.sum;
}
