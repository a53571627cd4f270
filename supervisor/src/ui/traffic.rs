//! What the page plots: one point a second for the last ten minutes, so that a page that was just opened shows what led
//! to this moment. Bounded; reads no clock: whoever calls says when it is.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::metrics::{Pauses, Readings};

/// Points that are kept: ten minutes of seconds.
const KEPT: usize = 600;
/// Rates are of so many seconds: workers report once in each, but not on the same beat.
const SMOOTHED: usize = 3;

/// The last points, oldest first.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Tells this supervisor's points from those of one before it.
    run: String,
    points: VecDeque<Point>,
    next: u64,
    /// The last readings, oldest first.
    read: VecDeque<(i64, Readings)>,
}

/// One second.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    number: u64,
    at_ms: i64,
    connections: f64,
    tunnels: f64,
    /// A second; `None` of the first point, before which nothing is known.
    rates: Option<Rates>,
    /// Tunnels that changed hands meanwhile.
    moved: u64,
    /// The longest of them stood still for at most so long, in seconds.
    pause: Option<f64>,
    /// It was longer than that: longer than any bucket.
    beyond: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Rates {
    bytes_in: f64,
    bytes_out: f64,
    requests: f64,
}

// === impl Traffic ===

impl Traffic {
    /// Nothing yet.
    pub(super) fn new(run: String) -> Self {
        Self { run, points: VecDeque::new(), next: 1, read: VecDeque::new() }
    }

    /// Adds what is read at a moment of Unix time.
    pub(super) fn add(&mut self, at_ms: i64, now: Readings) {
        let (moved, pause, beyond) =
            moved(self.read.back().map(|(_, last)| &last.pauses), &now.pauses);
        let rates = self.read.front().and_then(|(then, first)| rates(*then, first, at_ms, &now));
        let (connections, tunnels) = (now.connections, now.tunnels);
        let number = self.next;
        let point = Point { number, at_ms, connections, tunnels, rates, moved, pause, beyond };
        self.points.push_back(point);
        if self.points.len() > KEPT {
            self.points.pop_front();
        }
        self.next += 1;
        self.read.push_back((at_ms, now));
        if self.read.len() > SMOOTHED {
            self.read.pop_front();
        }
    }

    /// The points after one that the caller has: all, if that was another run's.
    pub(super) fn json(&self, run: &str, after: u64) -> Value {
        let after = if run == self.run { after } else { 0 };
        let points = self.points.iter().filter(|point| point.number > after);
        json!({
            "run": self.run,
            "last": self.next - 1,
            "kept": KEPT,
            "points": points.map(Point::json).collect::<Vec<_>>(),
        })
    }
}

impl Point {
    fn json(&self) -> Value {
        let rate = |of: fn(&Rates) -> f64| self.rates.as_ref().map(of);
        json!({
            "at_ms": self.at_ms,
            "connections": self.connections,
            "tunnels": self.tunnels,
            "bytes_in": rate(|it| it.bytes_in),
            "bytes_out": rate(|it| it.bytes_out),
            "requests": rate(|it| it.requests),
            "moved": self.moved,
            "pause": self.pause,
            "beyond": self.beyond,
        })
    }
}

/// `None` where the clock was set back: no time has passed that could be divided by.
fn rates(then_ms: i64, then: &Readings, now_ms: i64, now: &Readings) -> Option<Rates> {
    let passed = u64::try_from(now_ms.checked_sub(then_ms)?).ok().filter(|ms| *ms > 0)?;
    let rate = |then: u64, now: u64| precise(now.saturating_sub(then)) * 1000.0 / precise(passed);
    Some(Rates {
        bytes_in: rate(then.bytes_in, now.bytes_in),
        bytes_out: rate(then.bytes_out, now.bytes_out),
        requests: rate(then.requests, now.requests),
    })
}

/// How many tunnels have changed hands between two readings, the bound of the slowest one's bucket, and whether it lies
/// beyond that.
fn moved(last: Option<&Pauses>, now: &Pauses) -> (u64, Option<f64>, bool) {
    // Of the first reading nobody knows when they moved.
    let Some(last) = last else { return (0, None, false) };
    let before = |index: usize| last.counts.get(index).copied().unwrap_or(0);
    let counts = now.counts.iter().enumerate();
    let fresh = counts.map(|(index, count)| (index, count.saturating_sub(before(index))));
    let fresh: Vec<_> = fresh.filter(|(_, count)| *count > 0).collect();
    let moved = fresh.iter().map(|(_, count)| count).sum();
    let Some((slowest, _)) = fresh.last() else { return (0, None, false) };
    match now.bounds.get(*slowest) {
        Some(bound) => (moved, Some(*bound), false),
        None => (moved, now.bounds.last().copied(), true),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate is an estimate")]
fn precise(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(bytes_in: u64, counts: &[u64]) -> Readings {
        let pauses = Pauses { bounds: vec![0.001, 0.01], counts: counts.to_vec() };
        Readings { connections: 2.0, bytes_in, pauses, ..Readings::default() }
    }

    fn points(traffic: &Traffic, run: &str, after: u64) -> Vec<Value> {
        traffic.json(run, after)["points"].as_array().cloned().unwrap_or_default()
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_pauses_of_the_last_one() {
        let mut traffic = Traffic::new("a".into());
        traffic.add(1000, reading(500, &[9, 9, 9]));
        traffic.add(3000, reading(1500, &[9, 11, 9]));
        traffic.add(4000, reading(2000, &[12, 11, 10]));
        traffic.add(5000, reading(0, &[12, 11, 10]));
        let told = points(&traffic, "a", 0);
        let told: Vec<_> = told
            .iter()
            .map(|it| json!([it["bytes_in"], it["moved"], it["pause"], it["beyond"]]))
            .collect();
        let expected = [
            json!([null, 0, null, false]),
            json!([500.0, 2, 0.01, false]),
            json!([500.0, 4, 0.01, true]),
            json!([0.0, 0, null, false]),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_page_is_sent_what_it_lacks_and_everything_after_a_new_start() {
        let mut traffic = Traffic::new("a".into());
        for second in 0..3 {
            traffic.add(second * 1000, reading(0, &[]));
        }
        assert_eq!(points(&traffic, "a", 2).len(), 1);
        assert_eq!(points(&traffic, "a", 3).len(), 0);
        assert_eq!(points(&traffic, "a", u64::MAX).len(), 0);
        assert_eq!(points(&traffic, "b", 3).len(), 3);
        assert_eq!(traffic.json("a", 0)["last"], 3);
    }

    #[test]
    fn old_points_go_and_a_clock_that_goes_back_gives_no_rate() {
        let mut traffic = Traffic::new("a".into());
        for second in 0..i64::try_from(KEPT).unwrap_or_default() + 5 {
            traffic.add(second * 1000, reading(0, &[]));
        }
        assert_eq!(points(&traffic, "a", 0).len(), KEPT);
        traffic.add(0, reading(9, &[]));
        let last = points(&traffic, "a", 0).pop();
        assert_eq!(last.map(|it| it["bytes_in"].clone()), Some(Value::Null));
    }
}
