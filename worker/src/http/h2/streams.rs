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
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::STREAM_WINDOW;
use crate::http::body::Reply;
use crate::http::clock::STALL;
use crate::respond::BoxError;

/// Requests that a client may take back in about a minute before it is looked at how many it has let be answered. Browsers reset some
/// when a page is left; an attack, all (CVE-2023-44487).
const RESETS: u64 = 100;
/// What is handed to h2 at once.
const PIECE: usize = 16 * 1024;
const MINUTE: Duration = Duration::from_secs(60);
/// What may come beside what requests and their bodies need, at once: some heads that are too large, and what a client says of
/// itself. A flood costs this much for each time that it dials.
const IDLE_TALK: u64 = 256 * 1024;
/// And for each second of the connection's life: sixty PINGs.
const IDLE_TALK_A_SECOND: u64 = 1024;
/// And for each byte that they need.
const TALK_FOR_A_BYTE: u64 = 8;
/// A request without a field still needs its frame, and an answer's window its updates.
const A_REQUEST: u64 = 1024;

/// The streams of a connection; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    since: Instant,
    begun: AtomicU64,
    lately: Mutex<Lately>,
    alarm: Notify,
    /// Bytes of bodies, both ways, and of heads.
    carried: Arc<AtomicU64>,
    /// Of the stream whose task comes next.
    next: Mutex<Option<Watch>>,
}

/// Requests of about the last minute, and those whose client did not wait for their answer.
#[derive(Debug)]
struct Lately {
    since: Instant,
    begun: u64,
    taken_back: u64,
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
    /// Of a frame that is handed out in pieces.
    rest: Bytes,
    streams: Streams,
    watch: Watch,
}

// === impl Streams ===

impl Streams {
    /// `carried`: where the bytes of uploads are counted, too.
    pub(super) fn new(carried: Arc<AtomicU64>) -> Self {
        let since = Instant::now();
        Self(Arc::new(Inner {
            since,
            begun: AtomicU64::new(0),
            lately: Mutex::new(Lately { since, begun: 0, taken_back: 0 }),
            alarm: Notify::new(),
            carried,
            next: Mutex::new(None),
        }))
    }

    /// A request has come. The stream's task must follow before another request.
    pub(super) fn begin(&self, headers: &HeaderMap, has_body: bool) -> Begun {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.lately().begun += 1;
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        self.carry(A_REQUEST + fields.sum::<usize>() as u64);
        if has_body {
            // So much may have come when the request is answered, and nobody reads it.
            self.carry(u64::from(STREAM_WINDOW) / TALK_FOR_A_BYTE);
        }
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
        let owed = read.saturating_sub(carried.saturating_mul(TALK_FOR_A_BYTE));
        // The clock is not looked at for those who owe little.
        owed > IDLE_TALK && owed - IDLE_TALK > self.0.since.elapsed().as_secs() * IDLE_TALK_A_SECOND
    }

    fn carry(&self, bytes: u64) {
        self.0.carried.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_back(&self) {
        let mut lately = self.lately();
        lately.taken_back += 1;
        if lately.taken_back > RESETS && lately.taken_back.saturating_mul(2) > lately.begun {
            self.0.alarm.notify_one();
        }
    }

    /// What is long ago counts half: who polls for long, and gives up each time, is no attacker.
    fn lately(&self) -> MutexGuard<'_, Lately> {
        let mut lately = self.0.lately.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.since.elapsed() > MINUTE {
            *lately = Lately {
                since: Instant::now(),
                begun: lately.begun / 2,
                taken_back: lately.taken_back / 2,
            };
        }
        lately
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
        // What sends an upgraded stream's bytes comes from that stream's task, at any moment.
        let is_stream = !std::any::type_name::<Task>().contains("Upgraded");
        match self.next().take_if(|_| is_stream) {
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
        Answered {
            reply,
            rest: Bytes::new(),
            streams: self.streams.clone(),
            watch: self.watch.clone(),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.answered {
            self.streams.take_back();
        }
    }
}

/// The next bytes: few, so that a client that takes them slowly is seen to take them.
fn piece(rest: &mut Bytes) -> Bytes {
    rest.split_to(rest.len().min(PIECE))
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
        let Self { reply, rest, streams, watch } = self.get_mut();
        *watch.lock() = None;
        let frame = if rest.is_empty() {
            match ready!(Pin::new(reply).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        *rest = data;
                        Some(Ok(Frame::data(piece(rest))))
                    }
                    Err(other) => Some(Ok(other)),
                },
                other => other,
            }
        } else {
            Some(Ok(Frame::data(piece(rest))))
        };
        if let Some(Ok(frame)) = &frame {
            streams.carry(frame.data_ref().map_or(0, |data| data.len() as u64));
            *watch.lock() = Some(Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (behind, rest) = (self.reply.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = behind.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(behind.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::respond;
    use http_body_util::BodyExt as _;

    fn streams() -> Streams {
        Streams::new(Arc::default())
    }

    #[tokio::test]
    async fn a_large_frame_is_handed_out_in_pieces_and_nothing_of_it_is_lost() {
        let whole: Vec<u8> = (0..50_000_u32).map(|index| index.to_le_bytes()[0]).collect();
        let reply = Reply::page(respond::full(Bytes::from(whole.clone())));
        let mut body = streams().begin(&HeaderMap::new(), false).answer(reply);
        assert_eq!(body.size_hint().exact(), Some(50_000));
        let mut got = Vec::new();
        while !body.is_end_stream() {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            got.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some(50_000 - got.len() as u64));
        }
        assert_eq!(got, whole);
    }

    #[tokio::test]
    async fn who_takes_most_requests_back_is_found_and_who_takes_some_is_not() {
        let streams = streams();
        let alarm = || tokio::time::timeout(Duration::ZERO, streams.alarm());
        for _ in 0..RESETS {
            drop(streams.begin(&HeaderMap::new(), false));
        }
        alarm().await.unwrap_err();
        drop(streams.begin(&HeaderMap::new(), false));
        alarm().await.unwrap();
        // As many are answered.
        for _ in 0..RESETS + 10 {
            streams.begin(&HeaderMap::new(), false).answer(Reply::page(respond::empty()));
        }
        drop(streams.begin(&HeaderMap::new(), false));
        alarm().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_for_long_may_say_more_of_it() {
        let streams = streams();
        assert!(!streams.carries_nothing(IDLE_TALK));
        assert!(streams.carries_nothing(IDLE_TALK + 1));
        tokio::time::advance(60 * MINUTE).await;
        assert!(!streams.carries_nothing(IDLE_TALK + 3600 * IDLE_TALK_A_SECOND));
        assert!(streams.carries_nothing(IDLE_TALK + 3700 * IDLE_TALK_A_SECOND));
    }

    #[test]
    fn uploads_that_nobody_reads_are_no_idle_talk() {
        let streams = streams();
        for count in 1..=1000_u64 {
            drop(streams.begin(&HeaderMap::new(), true));
            assert!(!streams.carries_nothing(count * u64::from(STREAM_WINDOW)));
        }
        assert!(streams.carries_nothing(1 << 40));
    }
}
