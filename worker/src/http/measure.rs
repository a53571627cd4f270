//! What a request adds to the metrics: noted as it happens, counted when the request is over, however that comes.
//!
//! On every request's way: nothing here takes a lock or looks a name up. What is noted is one task's at a time; that its
//! fields are atomic is for the compiler, which cannot know.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::Conversation;
use super::body::Upload;
use crate::metrics::{Metrics, Over, PairFigures, SiteFigures};
use crate::pool::Binding;
use crate::route::Site;

/// One request's figures.
#[derive(Debug)]
pub(super) struct Measure {
    metrics: Arc<Metrics>,
    began: Instant,
    protocol: &'static str,
    received_head: u64,
    upload: OnceLock<Upload>,
    site: OnceLock<Arc<SiteFigures>>,
    pair: OnceLock<Arc<PairFigures>>,
    /// When the backend at hand was turned to, in nanoseconds since the beginning; 0: none is.
    asked_ns: AtomicU64,
    backend_answered: AtomicBool,
    /// What the client was told; 0: nothing.
    status: AtomicU16,
    sent: AtomicU64,
}

// === impl Measure ===

impl Measure {
    pub(super) fn begin(conversation: &Conversation, received_head: u64, began: Instant) -> Self {
        Self {
            metrics: conversation.shared.metrics.clone(),
            began,
            protocol: conversation.session_names().map_or("none", |[protocol, _]| protocol),
            received_head,
            upload: OnceLock::new(),
            site: OnceLock::new(),
            pair: OnceLock::new(),
            asked_ns: AtomicU64::new(0),
            backend_answered: AtomicBool::new(false),
            status: AtomicU16::new(0),
            sent: AtomicU64::new(0),
        }
    }

    pub(super) fn uploads(&self, upload: &Upload) {
        self.upload.get_or_init(|| upload.clone());
    }

    pub(super) fn routed(&self, site: &Site) {
        self.site.get_or_init(|| site.figures(&self.metrics).clone());
    }

    pub(super) fn forwarded(&self, binding: &Binding) {
        self.pair.get_or_init(|| binding.figures(&self.metrics).clone());
    }

    /// A backend is turned to.
    pub(super) fn tried(&self, now: Instant) {
        self.asked_ns.store(self.ns_until(now), Relaxed);
    }

    /// A new connection to the backend took so long.
    pub(super) fn connected(&self, taken: Duration) {
        if let Some(pair) = self.pair.get() {
            pair.connected(taken);
        }
    }

    pub(super) fn backend_answered(&self, status: StatusCode) {
        self.backend_answered.store(true, Relaxed);
        if let (Some(pair), Some(taken)) = (self.pair.get(), self.since_asked()) {
            pair.answered(status, taken);
        }
    }

    /// The head of its answer is with hyper.
    pub(super) fn answered(&self, status: StatusCode, head: u64) {
        self.status.store(status.as_u16(), Relaxed);
        self.sent(head);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// hyper has the whole answer.
    pub(super) fn whole(&self) {
        if !self.backend_answered.load(Relaxed) {
            return;
        }
        if let (Some(pair), Some(taken)) = (self.pair.get(), self.since_asked()) {
            pair.whole(taken);
        }
        self.asked_ns.store(0, Relaxed);
    }

    /// It may become a tunnel; until that is open, the client has been answered nothing.
    pub(super) fn unanswered(&self) {
        self.status.store(0, Relaxed);
    }

    pub(super) fn opened(&self) {
        self.status.store(StatusCode::SWITCHING_PROTOCOLS.as_u16(), Relaxed);
    }

    /// Since the beginning. Never 0, which says that there was none.
    fn ns_until(&self, now: Instant) -> u64 {
        let taken = now.saturating_duration_since(self.began);
        u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// For how long the backend at hand has been turned to.
    fn since_asked(&self) -> Option<Duration> {
        let asked_ns = self.asked_ns.load(Relaxed);
        (asked_ns != 0)
            .then(|| Duration::from_nanos(self.ns_until(Instant::now()).saturating_sub(asked_ns)))
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        let status = StatusCode::from_u16(self.status.load(Relaxed)).ok();
        if let Some(pair) = self.pair.get() {
            pair.over(status);
        }
        let over = Over {
            protocol: self.protocol,
            taken: self.began.elapsed(),
            received: self.received_head + self.upload.get().map_or(0, Upload::received),
            sent: self.sent.load(Relaxed),
            abandoned: status.is_none(),
        };
        match self.site.get() {
            Some(site) => site.over(over),
            None => self.metrics.no_site().over(over),
        }
    }
}
