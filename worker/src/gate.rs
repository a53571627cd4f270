//! The IO gate between hyper's server and the client's stream.
//!
//! hyper must never put a 101 on the wire itself: what a tunnel says first is said by the engine, once the tunnel
//! is recorded. So the service closes the gate just before it returns a 101, and from then on everything that hyper
//! writes is kept here. What was written earlier goes out in its order; a flush still waits for the client.
//!
//! hyper also refuses a malformed head by itself, with an empty answer, and asks nobody. That is kept here too, so
//! that the connection can say something better: whatever hyper writes while no answer is due is its own. An answer
//! is due from the moment that the service is asked until its body is gone and a flush was through after that; hyper
//! flushes its IO only when it holds nothing back itself. A refusal that leaves hyper in one write with the end of an
//! answer passes as it is: the other mistake would cost an answer, and this one costs a page.
//!
//! Nothing here knows HTTP. No byte of an answer is ever dropped or reordered: what hyper still held back when the
//! gate closed precedes the captured head in the capture, as it would have on the wire.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::Link;

#[cfg(test)]
mod tests;

/// A client's stream with a gate in its writing half.
#[derive(Debug)]
pub struct Gate {
    io: Link,
    state: Arc<State>,
    captured: Vec<u8>,
}

/// The service's hand on the gate of its connection.
#[derive(Debug, Clone)]
pub struct GateHandle(Arc<State>);

#[derive(Debug, Default)]
struct State {
    closed: AtomicBool,
    /// Nothing is ever kept back.
    free: bool,
    /// Answers that the service owes, or whose body hyper still has.
    answers: AtomicUsize,
    /// Whether bytes of an answer may still come.
    due: AtomicBool,
    /// Whether hyper or the TLS session may still hold bytes that the socket has not taken.
    unflushed: AtomicBool,
    written: AtomicU64,
    read: AtomicU64,
}

// === impl Gate ===

impl Gate {
    /// Puts an open gate around a stream.
    pub fn new(io: Link) -> (Self, GateHandle) {
        let state = Arc::new(State::default());
        (Self { io, state: Arc::clone(&state), captured: Vec::new() }, GateHandle(state))
    }

    /// Around a stream of which nothing is kept back: it only counts.
    pub fn open_to_all(io: Link) -> (Self, GateHandle) {
        let state = Arc::new(State { free: true, ..State::default() });
        (Self { io, state: Arc::clone(&state), captured: Vec::new() }, GateHandle(state))
    }

    /// The stream, and what was kept back: the 101 after the gate closed, or hyper's own refusal.
    pub fn into_parts(self) -> (Link, Vec<u8>) {
        (self.io, self.captured)
    }

    fn keeps_back(&self) -> bool {
        let is_kept =
            || self.state.closed.load(Ordering::Acquire) || !self.state.due.load(Ordering::Relaxed);
        !self.state.free && is_kept()
    }

    fn count_written(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = outcome {
            self.state.written.fetch_add(*written as u64, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.state.read.fetch_add(read as u64, Ordering::Relaxed);
        outcome
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back() {
            self.captured.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.state.unflushed.store(true, Ordering::Relaxed);
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count_written(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back() {
            let before = self.captured.len();
            for buf in bufs {
                self.captured.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(self.captured.len() - before));
        }
        self.state.unflushed.store(true, Ordering::Relaxed);
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count_written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Also when closed: on a TLS stream records written before may still wait for the client.
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            // hyper flushes only when it holds nothing back itself.
            self.state.unflushed.store(false, Ordering::Relaxed);
            if self.state.answers.load(Ordering::Relaxed) == 0 {
                self.state.due.store(false, Ordering::Relaxed);
            }
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.captured.is_empty() {
            // Something is still to be said.
            return self.poll_flush(cx);
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// === impl GateHandle ===

impl GateHandle {
    /// Of no stream at all.
    pub fn detached() -> Self {
        Self(Arc::default())
    }

    /// Closes the gate for good: what hyper writes from now on is captured and does not reach the client.
    pub fn capture(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// Whether the gate has been closed.
    pub fn is_capturing(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// The service was asked: until the answer has ended, what hyper writes is the answer's.
    pub fn begin_answer(&self) {
        self.0.answers.fetch_add(1, Ordering::Relaxed);
        self.0.due.store(true, Ordering::Relaxed);
    }

    /// hyper has the whole answer.
    pub fn end_answer(&self) {
        self.0.answers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether an answer is owed, or its body not yet whole with hyper.
    pub fn is_answering(&self) -> bool {
        self.0.answers.load(Ordering::Relaxed) != 0
    }

    /// Whether everything that hyper had to say has gone to the socket.
    pub fn is_flushed(&self) -> bool {
        !self.0.unflushed.load(Ordering::Relaxed)
    }

    /// Plaintext bytes that the stream has taken from hyper.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Plaintext bytes that hyper has been given.
    pub fn read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }
}
