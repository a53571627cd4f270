//! The streams of one HTTP/2 connection: their tasks, and what the client has drawn of its budgets.
//!
//! hyper hands each stream to its executor, which this is: so a stream whose client takes nothing of its answer can be
//! reset alone. hyper calls the service and then, before anything else, the executor; the watch of a stream goes from the one
//! to the other that way.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::body::Reply;
use crate::http::clock::STALL;
use crate::respond::BoxError;

/// Requests that a client may take back before it is looked at how many it has let be answered. Browsers reset some
/// when a page is left; an attack, all (CVE-2023-44487).
const RESETS: u64 = 100;
/// What may come beside what requests and their bodies need, at once.
const IDLE_TALK: u64 = 1 << 20;
/// And for each byte that they need.
const TALK_FOR_A_BYTE: u64 = 8;
/// A request without a field still needs its frame, and an answer's window its updates.
const A_REQUEST: u64 = 1024;

/// The streams of a connection; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: AtomicU64,
    /// Requests whose client did not wait for their answer.
    taken_back: AtomicU64,
    alarm: Notify,
    /// Bytes of bodies, both ways, and of heads.
    carried: Arc<AtomicU64>,
    /// Of the stream whose task comes next.
    next: Mutex<Option<Watch>>,
}

/// Since when a stream's client owes to take what it was answered last.
#[derive(Debug, Clone, Default)]
struct Watch(Arc<Mutex<Option<Instant>>>);

/// A request until its answer is there.
#[derive(Debug)]
pub(super) struct Begun {
    streams: Streams,
    watch: Watch,
    answered: bool,
}

/// An answer's body, watched.
#[derive(Debug)]
pub(super) struct Answered {
    reply: Reply,
    streams: Streams,
    watch: Watch,
}

// === impl Streams ===

impl Streams {
    /// `carried`: where the bytes of uploads are counted, too.
    pub(super) fn new(carried: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Inner {
            begun: AtomicU64::new(0),
            taken_back: AtomicU64::new(0),
            alarm: Notify::new(),
            carried,
            next: Mutex::new(None),
        }))
    }

    /// A request has come. The stream's task must follow before another request.
    pub(super) fn begin(&self, headers: &HeaderMap) -> Begun {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        self.carry(A_REQUEST + fields.sum::<usize>() as u64);
        let watch = Watch::default();
        *self.next() = Some(watch.clone());
        Begun { streams: self.clone(), watch, answered: false }
    }

    /// Requests so far.
    pub(super) fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Ends when too many requests were taken back.
    pub(super) fn alarm(&self) -> impl Future<Output = ()> + '_ {
        self.0.alarm.notified()
    }

    /// Whether most of so many bytes that have come were for nothing: settings, pings, empty frames.
    pub(super) fn carries_nothing(&self, read: u64) -> bool {
        let carried = self.0.carried.load(Ordering::Relaxed);
        read > IDLE_TALK.saturating_add(carried.saturating_mul(TALK_FOR_A_BYTE))
    }

    fn carry(&self, bytes: u64) {
        self.0.carried.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_back(&self) {
        let taken_back = self.0.taken_back.fetch_add(1, Ordering::Relaxed) + 1;
        if taken_back > RESETS && taken_back.saturating_mul(2) > self.begun() {
            self.0.alarm.notify_one();
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<Watch>> {
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Task> hyper::rt::Executor<Task> for Streams
where
    Task: Future + Send + 'static,
    Task::Output: Send,
{
    fn execute(&self, task: Task) {
        match self.next().take() {
            Some(watch) => drop(tokio::spawn(run(task, watch))),
            None => drop(tokio::spawn(async move { drop(task.await) })),
        }
    }
}

/// A stream's task. When it is dropped before its end, h2 resets the stream.
async fn run(task: impl Future, watch: Watch) {
    let mut task = pin!(task);
    let mut sleep: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = *watch.lock() else { return Poll::Pending };
        let due = since + STALL;
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        ready!(sleep.as_mut().poll(cx));
        tracing::debug!("a stream's client does not take its answer");
        Poll::Ready(())
    })
    .await;
}

// === impl Watch ===

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Begun ===

impl Begun {
    /// The answer has come in time.
    pub(super) fn answer(mut self, reply: Reply) -> Answered {
        self.answered = true;
        Answered { reply, streams: self.streams.clone(), watch: self.watch.clone() }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.answered {
            self.streams.take_back();
        }
    }
}

// === impl Answered ===

impl Body for Answered {
    type Data = Bytes;
    type Error = BoxError;

    /// hyper asks for more when the client has room for what it was given.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { reply, streams, watch } = self.get_mut();
        *watch.lock() = None;
        let frame = ready!(Pin::new(reply).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            streams.carry(frame.data_ref().map_or(0, |data| data.len() as u64));
            *watch.lock() = Some(Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
