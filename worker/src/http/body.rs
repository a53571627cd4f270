//! Bodies on their way through, never held whole: what a client uploads and what it is answered.
//!
//! A body that breaks ends in an error, and so in an aborted message: a message cut short must never look complete.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::fault::{Fault, FaultKind};
use crate::http::RequestInFlight;
use crate::http::note::Note;
use crate::http::returning::Returning;
use crate::respond::{BoxBody, BoxError};

/// Longest silence of a client in the middle of its body (nginx's `client_body_timeout`, and Azure's 60 s).
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// What an upload tells the request that it belongs to; clones share it. One without a body has no state: it is whole, and
/// the backend's turn, from the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    began: Instant,
    state: Option<Arc<Mutex<UploadState>>>,
}

#[derive(Debug)]
struct UploadState {
    waits_for_client: bool,
    whole: bool,
    moved: Instant,
    received: u64,
    failure: Option<Fault>,
}

/// A client's body as a backend is sent it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Incoming,
    upload: Upload,
    left: u64,
    carried: Arc<AtomicU64>,
    silence: Option<Pin<Box<Sleep>>>,
}

/// A body that a client is answered, ours or a backend's.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A page of our own.
    Page(BoxBody, Option<RequestInFlight>),
    /// A backend's.
    Backend(Box<BackendReply>),
}

/// A backend's body. Its end sends the backend connection back to be used again.
pub(crate) struct BackendReply {
    inner: Incoming,
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    ended: bool,
    returning: Option<Returning>,
    in_flight: Option<RequestInFlight>,
}

// === impl Upload ===

impl Upload {
    fn new(began: Instant, has_body: bool) -> Self {
        let (waits_for_client, whole, received) = (false, false, 0);
        let state = UploadState { waits_for_client, whole, moved: began, received, failure: None };
        Self { began, state: has_body.then(|| Arc::new(Mutex::new(state))) }
    }

    /// Whether the client's body has been read to its end. hyper drops what is left of one that has not.
    pub(crate) fn is_whole(&self) -> bool {
        self.state().is_none_or(|state| state.whole)
    }

    /// Why the upload broke, if it did.
    pub(crate) fn failure(&self) -> Option<Fault> {
        self.state()?.failure
    }

    /// Since when it has been the backend's turn; `None` while the client's bytes are waited for.
    pub(crate) fn backend_owes_since(&self) -> Option<Instant> {
        let Some(state) = self.state() else { return Some(self.began) };
        (!state.waits_for_client).then_some(state.moved)
    }

    /// Bytes of the client's body so far.
    pub(crate) fn received(&self) -> u64 {
        self.state().map_or(0, |state| state.received)
    }

    fn state(&self) -> Option<MutexGuard<'_, UploadState>> {
        // Every field is valid by itself, whoever died while it held them.
        Some(self.state.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, waits_for_client: bool, received: u64) {
        let Some(mut state) = self.state() else { return };
        state.received += received;
        if !(waits_for_client && state.waits_for_client) {
            state.moved = Instant::now();
        }
        state.waits_for_client = waits_for_client;
    }

    fn fail(&self, failure: FaultKind) -> BoxError {
        if let Some(mut state) = self.state() {
            state.failure = Some(Fault::new(failure));
            state.waits_for_client = false;
        }
        Box::new(Fault::new(failure))
    }

    fn end(&self) {
        if let Some(mut state) = self.state() {
            state.whole = true;
        }
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// Lets at most `left` bytes through, and counts them in `carried`. The request began at `began`.
    pub(crate) fn new(
        inner: Incoming,
        left: u64,
        carried: Arc<AtomicU64>,
        began: Instant,
    ) -> (Self, Upload) {
        let upload = Upload::new(began, !inner.is_end_stream());
        (Self { inner, upload: upload.clone(), left, carried, silence: None }, upload)
    }

    fn poll_silence(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + CLIENT_PATIENCE)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(self.upload.fail(FaultKind::RequestTimeout))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            self.upload.note(true, 0);
            return self.poll_silence(cx);
        };
        let length = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        self.upload.note(false, length);
        self.silence = None;
        if !matches!(frame, Some(Err(_))) && self.inner.is_end_stream() {
            self.upload.end();
        }
        match frame {
            Some(Ok(frame)) => {
                self.carried.fetch_add(length, Ordering::Relaxed);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => {
                        return Poll::Ready(Some(Err(self.upload.fail(FaultKind::BodyTooLarge))));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a client's body broke off");
                Poll::Ready(Some(Err(self
                    .upload
                    .fail(FaultKind::BadRequest("the body broke off")))))
            }
            None => {
                self.upload.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Reply ===

impl Reply {
    /// A page of our own.
    pub(crate) fn page(page: BoxBody) -> Self {
        Self::Page(page, None)
    }

    /// Keeps the request counted as in flight for as long as its body is.
    pub(super) fn hold(mut self, request: RequestInFlight) -> Self {
        match &mut self {
            Self::Page(_, in_flight) => {
                request.note.whole();
                *in_flight = Some(request);
            }
            Self::Backend(reply) => reply.in_flight = Some(request),
        }
        self
    }

    fn note(&self) -> Option<&Note> {
        let in_flight = match self {
            Self::Page(_, in_flight) => in_flight,
            Self::Backend(reply) => &reply.in_flight,
        };
        in_flight.as_ref().map(|request| &request.note)
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match this {
            Self::Page(page, _) => Pin::new(page).poll_frame(cx),
            Self::Backend(reply) => reply.poll_frame(cx),
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(note)) = (&polled, this.note()) {
            note.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(page, _) => page.is_end_stream(),
            Self::Backend(reply) => reply.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(page, _) => page.size_hint(),
            Self::Backend(reply) => reply.inner.size_hint(),
        }
    }
}

// === impl BackendReply ===

impl BackendReply {
    /// `patience` bounds the backend's silence; the connection is returned when the body has come whole.
    pub(super) fn new(inner: Incoming, patience: Duration, returning: Returning) -> Self {
        let returning = Some(returning);
        Self { inner, patience, silence: None, ended: false, returning, in_flight: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.silence = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.fail(Box::new(error))))),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let patience = self.patience;
                let silence = self
                    .silence
                    .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
                ready!(silence.as_mut().poll(cx));
                Poll::Ready(Some(Err(self.fail(Box::new(Fault::new(FaultKind::BackendTimeout))))))
            }
        }
    }

    fn fail(&mut self, error: BoxError) -> BoxError {
        tracing::debug!(%error, "a backend's body broke off");
        if let Some(request) = &self.in_flight {
            request.broke();
        }
        error
    }
}

impl std::fmt::Debug for BackendReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendReply").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Drop for BackendReply {
    fn drop(&mut self) {
        // hyper does not ask for more than the announced length, so the end is not always seen as `None`.
        if !self.ended && !self.inner.is_end_stream() {
            return;
        }
        if let Some(request) = &self.in_flight {
            request.note.whole();
        }
        if let Some(returning) = self.returning.take() {
            returning.now();
        }
    }
}
