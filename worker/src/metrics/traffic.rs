//! What requests take, carry and come to: by site, and by pool and backend settings. A pair or a site has its series
//! from its first request on; their number is the configuration's, never a client's. What is compiled of a configuration keeps
//! hold of its own, so that only the first request under a revision looks names up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use holdfast_proto::control::Sample;
use http::StatusCode;

use super::timing::Timing;
use super::{CLASSES, class_of, counter};

/// The site of a request that none has taken.
const NO_SITE: &str = "none";
/// What clients speak, in the order of the counters. The last one is for what was not foreseen here.
const PROTOCOLS: [&str; 4] = ["none", "TLSv1.2", "TLSv1.3", "other"];

/// Every site's figures and every pair's.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sites: By<Arc<str>, SiteFigures>,
    pairs: By<(Arc<str>, Arc<str>), PairFigures>,
}

/// Figures that are made when they are first asked for.
#[derive(Debug)]
struct By<K, V>(RwLock<BTreeMap<K, Arc<V>>>);

/// Of a site's requests.
#[derive(Debug, Default)]
pub(crate) struct SiteFigures {
    taken: Timing,
    received: AtomicU64,
    sent: AtomicU64,
    protocols: [AtomicU64; PROTOCOLS.len()],
    abandoned: AtomicU64,
}

/// Of the requests that go to a pool with certain settings.
#[derive(Debug, Default)]
pub(crate) struct PairFigures {
    requests: AtomicU64,
    failed: AtomicU64,
    statuses: [AtomicU64; CLASSES.len()],
    connect: Timing,
    first_byte: Timing,
    last_byte: Timing,
}

/// A request that is over, as its site counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over<'a> {
    /// By its name; `none`: no TLS.
    pub(crate) protocol: &'a str,
    /// From its head to the end of its answer.
    pub(crate) taken: Duration,
    /// Bytes of heads and bodies.
    pub(crate) received: u64,
    /// The same of the answer.
    pub(crate) sent: u64,
    /// The client left before its answer began.
    pub(crate) abandoned: bool,
}

// === impl By ===

impl<K, V> Default for By<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Ord + Clone, V: Default> By<K, V> {
    fn get(&self, key: &K) -> Arc<V> {
        // Counters stay counters when a thread died while it held them.
        let found = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        found.unwrap_or_else(|| {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(key.clone()).or_default().clone()
        })
    }

    fn all(&self) -> Vec<(K, Arc<V>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(key, figures)| (key.clone(), figures.clone())).collect()
    }
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn site(&self, name: &Arc<str>) -> Arc<SiteFigures> {
        self.sites.get(name)
    }

    pub(super) fn no_site(&self) -> Arc<SiteFigures> {
        self.sites.get(&NO_SITE.into())
    }

    pub(super) fn pair(&self, pool: &Arc<str>, settings: &Arc<str>) -> Arc<PairFigures> {
        self.pairs.get(&(pool.clone(), settings.clone()))
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let sites = self.sites.all().into_iter().flat_map(|(site, figures)| figures.samples(&site));
        let pairs = self.pairs.all().into_iter();
        let pairs = pairs.flat_map(|((pool, settings), it)| it.samples(&pool, &settings));
        sites.chain(pairs).collect()
    }
}

// === impl SiteFigures ===

impl SiteFigures {
    pub(crate) fn over(&self, over: Over<'_>) {
        self.taken.observe(over.taken);
        self.received.fetch_add(over.received, Relaxed);
        self.sent.fetch_add(over.sent, Relaxed);
        let protocol = PROTOCOLS.iter().position(|it| *it == over.protocol);
        if let Some(count) = self.protocols.get(protocol.unwrap_or(PROTOCOLS.len() - 1)) {
            count.fetch_add(1, Relaxed);
        }
        self.abandoned.fetch_add(over.abandoned.into(), Relaxed);
    }

    fn samples(&self, site: &str) -> Vec<Sample> {
        let labels = [("site", site)];
        let mut samples = vec![
            self.taken.sample("holdfast_request_duration_seconds", &labels),
            counter("holdfast_received_bytes_total", &labels, self.received.load(Relaxed)),
            counter("holdfast_sent_bytes_total", &labels, self.sent.load(Relaxed)),
            counter("holdfast_requests_abandoned_total", &labels, self.abandoned.load(Relaxed)),
        ];
        let counted =
            PROTOCOLS.iter().zip(&self.protocols).map(|(name, it)| (*name, it.load(Relaxed)));
        samples.extend(counted.filter(|(_, count)| *count != 0).map(|(protocol, count)| {
            let labels = [("site", site), ("protocol", protocol)];
            counter("holdfast_requests_by_tls_total", &labels, count)
        }));
        samples
    }
}

// === impl PairFigures ===

impl PairFigures {
    /// A backend was connected to, TLS included.
    pub(crate) fn connected(&self, taken: Duration) {
        self.connect.observe(taken);
    }

    /// A backend has answered, so long after it was turned to.
    pub(crate) fn answered(&self, status: StatusCode, taken: Duration) {
        self.first_byte.observe(taken);
        if let Some(count) = self.statuses.get(class_of(status)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Its answer has come whole.
    pub(crate) fn whole(&self, taken: Duration) {
        self.last_byte.observe(taken);
    }

    /// A request is over, with that status for its client.
    pub(crate) fn over(&self, status: Option<StatusCode>) {
        self.requests.fetch_add(1, Relaxed);
        let failed = status.is_some_and(|status| status.is_server_error());
        self.failed.fetch_add(failed.into(), Relaxed);
    }

    fn samples(&self, pool: &str, settings: &str) -> Vec<Sample> {
        let labels = [("pool", pool), ("settings", settings)];
        let mut samples = vec![
            counter("holdfast_pool_requests_total", &labels, self.requests.load(Relaxed)),
            counter("holdfast_pool_requests_failed_total", &labels, self.failed.load(Relaxed)),
            self.connect.sample("holdfast_backend_connect_duration_seconds", &labels),
            self.first_byte.sample("holdfast_backend_first_byte_seconds", &labels),
            self.last_byte.sample("holdfast_backend_last_byte_seconds", &labels),
        ];
        samples.extend(CLASSES.iter().zip(&self.statuses).map(|(class, count)| {
            let labels = [("pool", pool), ("settings", settings), ("code_class", class)];
            counter("holdfast_backend_responses_total", &labels, count.load(Relaxed))
        }));
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::control::sample::Value;

    fn value(traffic: &Traffic, name: &str, label: &str) -> Option<Value> {
        let wanted = |s: &Sample| s.name == name && s.labels.iter().any(|l| l.value == label);
        traffic.samples().into_iter().find(wanted).and_then(|s| s.value)
    }

    fn over(protocol: &'static str) -> Over<'static> {
        let taken = Duration::from_millis(3);
        Over { protocol, taken, received: 10, sent: 20, abandoned: false }
    }

    #[test]
    fn a_site_counts_what_its_requests_carry_and_speak() {
        let traffic = Traffic::default();
        let site = traffic.site(&"web".into());
        site.over(over("TLSv1.3"));
        site.over(Over { abandoned: true, ..over("TLSv1.3") });
        traffic.no_site().over(over("SSLv2"));
        let by_tls = "holdfast_requests_by_tls_total";
        assert_eq!(value(&traffic, by_tls, "TLSv1.3"), Some(Value::Counter(2)));
        assert_eq!(value(&traffic, by_tls, "other"), Some(Value::Counter(1)));
        assert_eq!(value(&traffic, by_tls, "none"), Some(Value::Counter(1)), "its site");
        for (name, count) in [
            ("holdfast_received_bytes_total", 20),
            ("holdfast_sent_bytes_total", 40),
            ("holdfast_requests_abandoned_total", 1),
        ] {
            assert_eq!(value(&traffic, name, "web"), Some(Value::Counter(count)), "{name}");
        }
    }

    #[test]
    fn only_a_servers_error_is_a_failed_request() {
        let traffic = Traffic::default();
        let pair = traffic.pair(&"chat".into(), &"plain".into());
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            pair.over(Some(status));
        }
        pair.over(None);
        let failed = value(&traffic, "holdfast_pool_requests_failed_total", "chat");
        assert_eq!(failed, Some(Value::Counter(1)));
        let all = value(&traffic, "holdfast_pool_requests_total", "plain");
        assert_eq!(all, Some(Value::Counter(4)));
        pair.answered(StatusCode::BAD_GATEWAY, Duration::ZERO);
        let by_class = value(&traffic, "holdfast_backend_responses_total", "5xx");
        assert_eq!(by_class, Some(Value::Counter(1)));
    }
}
