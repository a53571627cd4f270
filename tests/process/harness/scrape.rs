//! The exposition as a scraper sees it over time: no counter may ever go back, or vanish.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::http::get;

/// Between two scrapes: often, and not all that the machine does.
const PAUSE: Duration = Duration::from_millis(10);

/// Every series of a counter or a histogram.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let rows = text.lines().filter_map(|line| line.rsplit_once(' '));
    let is_counter = |name: &str| {
        let name = name.split('{').next().unwrap();
        ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
    };
    let rows = rows.filter(|(name, _)| !name.starts_with('#') && is_counter(name));
    rows.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Scrapes on and on; the counters of the last exposition, and how many there were.
pub(crate) fn watch_counters(
    status_port: u16,
    done: &AtomicBool,
) -> (BTreeMap<String, f64>, usize) {
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    let mut scrapes = 0;
    while !done.load(Ordering::Relaxed) {
        // Nobody answers while there is no supervisor, or half an answer comes of one that is killed.
        let Some(answer) = get(status_port, "/metrics").ok().filter(|it| it.status == 200) else {
            continue;
        };
        let now = counters(&answer.text());
        for (name, before) in &last {
            let after = now.get(name);
            assert!(
                after.is_some_and(|after| after >= before),
                "{name}: {before}, then {after:?} in scrape {scrapes}"
            );
        }
        last = now;
        scrapes += 1;
        thread::park_timeout(PAUSE);
    }
    (last, scrapes)
}
