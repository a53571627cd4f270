//! The counters as text, for the next supervisor: bases, what each living process said last, each listener's pages.
//! Gauges are not in it: they are asked for anew. Pure.

use serde::{Deserialize, Serialize};

use super::table::{self, Kind};
use super::totals::{AllSeries, Buckets, Series, Total, Totals, is_sound};

/// Of the text's form. Another one is not read.
const VERSION: u32 = 1;

/// Why a text was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is none of ours, or cut.
    #[error("it does not hold counters")]
    Text(#[from] serde_json::Error),
    /// Written by another version.
    #[error("it has form {0}, this supervisor reads {VERSION}")]
    Version(u32),
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    base: Vec<Line>,
    living: Vec<Living>,
    pages: Vec<Page>,
}

/// The one field that every version has.
#[derive(Debug, Deserialize)]
struct Form {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Living {
    pid: u32,
    start_time: u64,
    series: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    listener: String,
    number: u64,
    series: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    labels: Vec<String>,
    #[serde(flatten)]
    value: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Value {
    Counter(u64),
    Histogram {
        /// The numbers' bits: a bound that came back a little smaller would take counts back.
        bounds: Vec<u64>,
        counts: Vec<u64>,
        sum_us: u64,
    },
}

/// The counters as text.
pub(super) fn write(totals: &Totals) -> String {
    let living = totals.living.iter().map(|(&(pid, start_time), series)| Living {
        pid,
        start_time,
        series: lines(series),
    });
    let pages = totals.pages.iter().map(|((listener, number), series)| Page {
        listener: listener.clone(),
        number: *number,
        series: lines(series),
    });
    let (living, pages) = (living.collect(), pages.collect());
    let saved = Saved { version: VERSION, base: lines(&totals.base), living, pages };
    // Strings and whole numbers only: it cannot fail.
    serde_json::to_string(&saved).unwrap_or_default()
}

/// The counters of a text. What this version does not count is left out.
pub(super) fn read(text: &str) -> Result<Totals, SavedError> {
    let Form { version } = serde_json::from_str(text)?;
    if version != VERSION {
        return Err(SavedError::Version(version));
    }
    let saved: Saved = serde_json::from_str(text)?;
    let mut totals = Totals::default();
    totals.base = known(&mut totals, saved.base);
    for Living { pid, start_time, series } in saved.living {
        let series = known(&mut totals, series);
        totals.living.insert((pid, start_time), series);
    }
    for Page { listener, number, series } in saved.pages {
        let series = known(&mut totals, series);
        totals.pages.insert((listener, number), series);
    }
    Ok(totals)
}

fn lines(series: &AllSeries) -> Vec<Line> {
    let line = |(series, total): (&Series, &Total)| {
        let value = match total {
            Total::Counter(value) => Value::Counter(*value),
            Total::Histogram(it) => Value::Histogram {
                bounds: it.bounds.iter().map(|bound| bound.to_bits()).collect(),
                counts: it.counts.clone(),
                sum_us: it.sum_us,
            },
            Total::Gauge(_) => return None,
        };
        Some(Line { name: series.name.to_owned(), labels: series.values.clone(), value })
    };
    series.iter().filter_map(line).collect()
}

fn known(totals: &mut Totals, lines: Vec<Line>) -> AllSeries {
    let mut all = AllSeries::new();
    for Line { name, labels, value } in lines {
        let Some(definition) = table::all().find(|it| it.name == name) else { continue };
        let total = match (definition.kind, value) {
            (Kind::Counter | Kind::Seconds, Value::Counter(value)) => Total::Counter(value),
            (Kind::Histogram, Value::Histogram { bounds, counts, sum_us }) => {
                let bounds = bounds.into_iter().map(f64::from_bits).collect();
                let buckets = Buckets { bounds, counts, sum_us };
                if !is_sound(&buckets) {
                    continue;
                }
                Total::Histogram(buckets)
            }
            _ => continue,
        };
        let series = Series { name: definition.name, values: labels };
        if series.values.len() == definition.labels.len() && totals.admit(&series).is_some() {
            all.insert(series, total);
        }
    }
    all
}
