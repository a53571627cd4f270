//! Label values as a scraper reads them back: escaped by the text format's rules, and never two names for one.

use super::*;

/// A label's value as a scraper reads it: the text format knows these three escapes and no other.
fn read_value(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        value.push(match next {
            '"' | '\n' => return None,
            '\\' => match rest.next()? {
                '\\' => '\\',
                '"' => '"',
                'n' => '\n',
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(value)
}

#[test]
fn names_that_differ_are_series_that_differ_whatever_is_in_them() {
    let parts = ["a", "\\", "\"", "\n", "n"];
    let pairs = parts.iter().flat_map(|one| parts.map(|two| format!("{one}{two}")));
    let names: Vec<String> =
        pairs.flat_map(|pair| parts.map(|three| format!("{pair}{three}"))).collect();
    let metrics = Metrics::new();
    let seconds = "holdfast_backend_first_byte_seconds";
    let samples = names.iter().flat_map(|name| {
        let labels = [("pool", name.as_str()), ("settings", "s")];
        let histogram = Histogram { bounds: vec![1.0], counts: vec![1, 0], sum: 0.5 };
        [
            sample("holdfast_backend_retries_total", &labels[..1], Value::Counter(1)),
            sample(seconds, &labels, Value::Histogram(histogram)),
        ]
    });
    metrics.report(process(1), "a", report(0, samples.collect()));
    let hosts = |name: &String| PoolHosts {
        pool: name.clone(),
        settings: "s".into(),
        healthy: 2,
        unhealthy: 1,
    };
    metrics.set_figures(Figures { pools: names.iter().map(hosts).collect(), ..Figures::default() });
    let lines = scrape(&metrics);
    let mut wanted = names;
    wanted.sort_unstable();
    for (before, after) in [
        ("holdfast_backend_retries_total{pool=\"", "\"}"),
        ("holdfast_healthy_hosts{pool=\"", "\",settings=\"s\"}"),
        ("holdfast_backend_first_byte_seconds_count{pool=\"", "\",settings=\"s\"}"),
    ] {
        let texts = lines.keys().filter_map(|line| line.strip_prefix(before)?.strip_suffix(after));
        let mut read: Vec<_> = texts.map(|text| read_value(text).unwrap()).collect();
        read.sort_unstable();
        assert_eq!(read, wanted, "{before}");
    }
}
