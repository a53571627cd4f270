//! Adding up what the incarnations of all workers report, what each listener's shared pages say, and what the
//! supervisor counts itself.
//!
//! # Invariants
//! - The sum of a counter never falls: a smaller report is ignored, an ended incarnation's last total is kept.
//! - At most [`MOST_SERIES`] label sets a metric are ever known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_proto::control::{Histogram, PageReport, Sample, WorkerReport, sample::Value};

use super::table::{self, Definition, Kind, LISTENER, Reporter};

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
    Histogram(Buckets),
}

/// A histogram whose sum is a whole number: sums of fractions depend on their order, and would now and then fall.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buckets {
    pub(super) bounds: Vec<f64>,
    /// Not cumulative; one more than bounds.
    pub(super) counts: Vec<u64>,
    pub(super) sum_us: u64,
}

pub(super) type AllSeries = BTreeMap<Series, Total>;

/// A process, by pid and start time.
pub(super) type Life = (u32, u64);

/// A page that a listener's workers share: the listener, and which of the host's pages.
pub(super) type Page = (String, u64);

/// What each incarnation last said, and the base of those that ended.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) living: BTreeMap<Life, AllSeries>,
    /// Totals of a listener's life, counted by all of its processes on one page: the highest stands.
    pub(super) pages: BTreeMap<Page, AllSeries>,
    pub(super) base: AllSeries,
    known: BTreeSet<Series>,
    known_by_name: BTreeMap<&'static str, usize>,
    ended: VecDeque<Life>,
}

// === impl Totals ===

impl Totals {
    /// Takes in a report; returns how many samples were left out.
    pub(super) fn report(&mut self, life: Life, listener: &str, report: WorkerReport) -> u64 {
        if self.ended.contains(&life) {
            return 0;
        }
        let worker = Reporter::Worker(listener);
        let mut samples = report.samples;
        for (name, value) in [
            ("holdfast_tunnels_active", report.tunnels_active),
            ("holdfast_connections_active", report.connections_active),
        ] {
            #[allow(clippy::cast_precision_loss, reason = "no host has 2^52 connections")]
            let value = Some(Value::Gauge(value as f64));
            samples.push(Sample { name: name.to_owned(), labels: Vec::new(), value });
        }
        let mut refused = self.said(life, worker, samples);
        for PageReport { page, samples } in report.pages {
            let key = (listener.to_owned(), page);
            let mut page = self.pages.remove(&key).unwrap_or_default();
            for sample in samples {
                if self.take(&mut page, worker, sample).is_none() {
                    refused += 1;
                }
            }
            self.pages.insert(key, page);
        }
        refused
    }

    /// Takes in what a process says of its life so far; returns how many samples were left out.
    pub(super) fn said(&mut self, life: Life, who: Reporter<'_>, samples: Vec<Sample>) -> u64 {
        if self.ended.contains(&life) {
            return 0;
        }
        let mut series = self.living.remove(&life).unwrap_or_default();
        // A gauge that is no longer reported no longer is.
        series.retain(|_, total| !matches!(total, Total::Gauge(_)));
        let mut refused = 0;
        for sample in samples {
            if self.take(&mut series, who, sample).is_none() {
                refused += 1;
            }
        }
        self.living.insert(life, series);
        refused
    }

    /// The listener's last process is gone, and its pages with it: what is said of it later begins at zero.
    pub(super) fn closed(&mut self, listener: &str) {
        let theirs = self.pages.keys().filter(|(of, _)| of == listener);
        for page in theirs.cloned().collect::<Vec<_>>() {
            let last = self.pages.remove(&page).unwrap_or_default();
            self.fold(last);
        }
    }

    /// Folds the incarnation's last totals into the base.
    pub(super) fn ended(&mut self, life: Life) {
        if self.ended.contains(&life) {
            return;
        }
        let last = self.living.remove(&life).unwrap_or_default();
        self.fold(last);
        self.ended.push_back(life);
        if self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// Only these processes and listeners have lived on: everything else that was written down has ended.
    pub(super) fn keep_only(&mut self, lives: &[Life], listeners: &[String]) {
        let gone: Vec<_> = self.living.keys().filter(|it| !lives.contains(it)).copied().collect();
        for life in gone {
            self.ended(life);
        }
        let pages = self.pages.keys().map(|(listener, _)| listener.clone());
        let closed: BTreeSet<_> = pages.filter(|listener| !listeners.contains(listener)).collect();
        for listener in closed {
            self.closed(&listener);
        }
    }

    fn fold(&mut self, last: AllSeries) {
        for (series, total) in last {
            if !matches!(total, Total::Gauge(_)) {
                add(&mut self.base, &series, &total);
            }
        }
    }

    /// Counts something that the supervisor knows itself.
    pub(super) fn count(&mut self, name: &'static str, values: Vec<String>, more: u64) {
        let series = Series { name, values };
        if self.admit(&series).is_some() {
            add(&mut self.base, &series, &Total::Counter(more));
        }
    }

    /// Every series with its value over all incarnations; metrics without labels are there from the start.
    pub(super) fn sum(&self) -> AllSeries {
        let mut sum = self.base.clone();
        for (series, total) in self.living.values().chain(self.pages.values()).flatten() {
            add(&mut sum, series, total);
        }
        for definition in table::all().filter(|definition| definition.labels.is_empty()) {
            let zero = match definition.kind {
                Kind::Counter | Kind::Seconds => Total::Counter(0),
                Kind::Gauge => Total::Gauge(0.0),
                Kind::Histogram => continue,
            };
            sum.entry(Series { name: definition.name, values: Vec::new() }).or_insert(zero);
        }
        sum
    }

    /// `None`: left out.
    fn take(&mut self, into: &mut AllSeries, who: Reporter<'_>, sample: Sample) -> Option<()> {
        let definition = who.find(&sample.name)?;
        let values = values_of(definition, who, &sample)?;
        let series = Series { name: definition.name, values };
        let before = into.get(&series);
        let total = match (definition.kind, sample.value?) {
            (Kind::Counter | Kind::Seconds, Value::Counter(value)) => match before {
                Some(Total::Counter(before)) => Total::Counter(value.max(*before)),
                _ => Total::Counter(value),
            },
            (Kind::Gauge, Value::Gauge(value)) if value.is_finite() => Total::Gauge(value),
            (Kind::Histogram, Value::Histogram(value)) => {
                let value = sound(value)?;
                Total::Histogram(match before {
                    Some(Total::Histogram(before)) => later(before, value)?,
                    _ => value,
                })
            }
            _ => return None,
        };
        self.admit(&series)?;
        into.insert(series, total);
        Some(())
    }

    /// Whether there is room for the series. `None`: there is none.
    pub(super) fn admit(&mut self, series: &Series) -> Option<()> {
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
fn values_of(definition: &Definition, who: Reporter<'_>, sample: &Sample) -> Option<Vec<String>> {
    let sent = sample.labels.iter().filter(|label| label.key != LISTENER).count();
    let wanted = definition.labels.iter().filter(|label| **label != LISTENER).count();
    if sent != wanted {
        return None;
    }
    definition
        .labels
        .iter()
        .map(|key| {
            if *key == LISTENER {
                return Some(who.listener());
            }
            let label = sample.labels.iter().find(|label| label.key == *key)?;
            (label.value.len() <= LONGEST_LABEL).then(|| label.value.clone())
        })
        .collect()
}

/// The histogram, if it is one.
fn sound(histogram: Histogram) -> Option<Buckets> {
    let Histogram { bounds, counts, sum } = histogram;
    if !sum.is_finite() || sum < 0.0 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let sum_us = (sum * 1e6).round() as u64;
    Some(Buckets { bounds, counts, sum_us }).filter(is_sound)
}

/// Whether its parts fit together.
pub(super) fn is_sound(histogram: &Buckets) -> bool {
    let Buckets { bounds, counts, .. } = histogram;
    bounds.windows(2).all(|pair| matches!(pair, [a, b] if a < b))
        && bounds.iter().all(|bound| bound.is_finite())
        && bounds.len() <= MOST_BUCKETS
        && counts.len() == bounds.len() + 1
}

/// Two looks at the same histogram, whichever came first: none of its parts ever falls. Workers that share a page may
/// overtake each other. `None`: it is another one.
fn later(one: &Buckets, other: Buckets) -> Option<Buckets> {
    let counts = one.counts.iter().zip(&other.counts).map(|(one, other)| *one.max(other));
    let counts = counts.collect();
    let sum_us = one.sum_us.max(other.sum_us);
    (one.bounds == other.bounds).then_some(Buckets { counts, sum_us, ..other })
}

pub(super) fn add(into: &mut AllSeries, series: &Series, total: &Total) {
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
fn add_histogram(sum: &mut Buckets, more: &Buckets) {
    for (index, count) in more.counts.iter().enumerate() {
        let bound = more.bounds.get(index).copied().unwrap_or(f64::INFINITY);
        let place = sum.bounds.iter().position(|it| *it >= bound).unwrap_or(sum.bounds.len());
        if let Some(total) = sum.counts.get_mut(place) {
            *total = total.saturating_add(*count);
        }
    }
    sum.sum_us = sum.sum_us.saturating_add(more.sum_us);
}
