//! What a request adds to the metrics: noted as it happens, counted when the request is over, however that comes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::Conversation;
use super::body::Upload;
use crate::metrics::{Metrics, Over, PairFigures};
use crate::pool::Binding;

/// One request's figures.
#[derive(Debug)]
pub(super) struct Measure {
    metrics: Arc<Metrics>,
    began: Instant,
    protocol: &'static str,
    received_head: u64,
    sent: AtomicU64,
    course: Mutex<Course>,
}

/// How far it has come.
#[derive(Debug, Default)]
struct Course {
    upload: Option<Upload>,
    site: Option<Arc<str>>,
    pair: Option<Arc<PairFigures>>,
    /// Since when the backend at hand is turned to.
    asked: Option<Instant>,
    backend_answered: bool,
    status: Option<StatusCode>,
}

// === impl Measure ===

impl Measure {
    pub(super) fn begin(conversation: &Conversation, received_head: u64) -> Self {
        Self {
            metrics: conversation.shared.metrics.clone(),
            began: Instant::now(),
            protocol: conversation.session_names().map_or("none", |[protocol, _]| protocol),
            received_head,
            sent: AtomicU64::new(0),
            course: Mutex::default(),
        }
    }

    pub(super) fn uploads(&self, upload: &Upload) {
        self.course().upload = Some(upload.clone());
    }

    pub(super) fn routed(&self, site: &Arc<str>) {
        self.course().site = Some(site.clone());
    }

    pub(super) fn forwarded(&self, binding: &Binding) {
        self.course().pair = Some(self.metrics.pair(&binding.pool, &binding.settings));
    }

    pub(super) fn tried(&self) {
        self.course().asked = Some(Instant::now());
    }

    /// A new connection to the backend took so long.
    pub(super) fn connected(&self, taken: Duration) {
        if let Some(pair) = &self.course().pair {
            pair.connected(taken);
        }
    }

    pub(super) fn backend_answered(&self, status: StatusCode) {
        let mut course = self.course();
        course.backend_answered = true;
        if let (Some(pair), Some(asked)) = (&course.pair, course.asked) {
            pair.answered(status, asked.elapsed());
        }
    }

    /// The head of its answer is with hyper.
    pub(super) fn answered(&self, status: StatusCode, head: u64) {
        self.course().status = Some(status);
        self.sent(head);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// hyper has the whole answer.
    pub(super) fn whole(&self) {
        let mut course = self.course();
        let asked = course.asked.take().filter(|_| course.backend_answered);
        if let (Some(pair), Some(asked)) = (&course.pair, asked) {
            pair.whole(asked.elapsed());
        }
    }

    /// It may become a tunnel; until that is open, the client has been answered nothing.
    pub(super) fn unanswered(&self) {
        self.course().status = None;
    }

    pub(super) fn opened(&self) {
        self.course().status = Some(StatusCode::SWITCHING_PROTOCOLS);
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        // Every field is valid by itself, whoever died while it held them.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        let course = self.course();
        let body = course.upload.as_ref().map_or(0, Upload::received);
        if let Some(pair) = &course.pair {
            pair.over(course.status);
        }
        let over = Over {
            protocol: self.protocol,
            taken: self.began.elapsed(),
            received: self.received_head + body,
            sent: self.sent.load(Relaxed),
            abandoned: course.status.is_none(),
        };
        self.metrics.request_over(course.site.as_ref(), over);
    }
}
