//! The stream under rustls, which never gives it a byte past the end of the record that it is reading.
//!
//! rustls has no way to return ciphertext that it has read and not opened. So what it may hold is bounded to the one
//! record that is not complete yet, and of that record a copy is kept here: it goes with the session when it leaves.
//!
//! Only the framing is known here (RFC 8446 section 5.1); whether a record is any good is for rustls to say. No byte
//! is ever held back: what this stream has read, its reader has got. Of a client's first words a copy can be had.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Type, version and length.
const HEADER: u8 = 5;
/// The longest body of a record that rustls reads on at (RFC 5246 section 6.2.3: 2^14 + 2048; RFC 8446 allows less).
const LONGEST_BODY: usize = 16_384 + 2_048;

/// A stream that reads record by record: the header first, then exactly the body.
pub(crate) struct Bounded<S> {
    stream: S,
    /// Header of the record that is not complete, as far as it has come.
    header: [u8; HEADER as usize],
    /// How many bytes of it have come.
    headed: u8,
    /// What the body lacks, once the header is complete.
    lacks: u16,
    /// What has come of a body that did not come whole. Most do, and nothing is allocated.
    body: Vec<u8>,
    /// What all records have held, until somebody takes it.
    heard: Option<Vec<u8>>,
}

// === impl Bounded ===

impl<S> Bounded<S> {
    /// From the beginning of a record.
    pub(crate) const fn new(stream: S) -> Self {
        let header = [0; HEADER as usize];
        Self { stream, header, headed: 0, lacks: 0, body: Vec::new(), heard: None }
    }

    /// The same, with a copy of what records hold until it is taken: to be taken soon, for it has no bound but rustls's.
    pub(crate) fn listening(stream: S) -> Self {
        let mut bounded = Self::new(stream);
        bounded.heard = Some(Vec::new());
        bounded
    }

    /// What records have held since the beginning, if somebody wanted to know; no more is kept from here on.
    pub(crate) fn take_heard(&mut self) -> Vec<u8> {
        self.heard.take().unwrap_or_default()
    }

    /// The stream beneath.
    pub(crate) const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, and the bytes of a record that is not complete: all of them have been read, and the reader has
    /// them too.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        let mut partial = self.header.get(..self.headed.into()).unwrap_or_default().to_vec();
        partial.extend_from_slice(&self.body);
        (self.stream, partial)
    }

    /// How many bytes may be read without passing an end; never zero.
    fn wanted(&self) -> usize {
        match HEADER.saturating_sub(self.headed) {
            0 => self.lacks.into(),
            missing => missing.into(),
        }
    }

    /// Notes what has been read, of the header or of the body.
    fn note(&mut self, read: &[u8]) {
        // It is not longer than what was wanted.
        let count = u16::try_from(read.len()).unwrap_or(u16::MAX);
        if self.headed < HEADER {
            for (place, byte) in self.header.iter_mut().skip(self.headed.into()).zip(read) {
                *place = *byte;
                self.headed += 1;
            }
            if self.headed < HEADER {
                return;
            }
            let [_, _, _, high, low] = self.header;
            self.lacks = u16::from_be_bytes([high, low]);
        } else {
            self.lacks = self.lacks.saturating_sub(count);
            if let Some(heard) = &mut self.heard {
                heard.extend_from_slice(read);
            }
            if self.lacks > 0 {
                self.keep(read);
            }
        }
        if self.lacks == 0 {
            self.headed = 0;
            self.body = Vec::new();
        }
    }

    /// A body has come in part.
    fn keep(&mut self, read: &[u8]) {
        // A record that is longer than any: rustls has refused it by its header, and no session will leave.
        let whole = self.body.len() + read.len() + usize::from(self.lacks);
        if whole > LONGEST_BODY {
            return;
        }
        if self.body.is_empty() {
            self.body.reserve_exact(whole);
        }
        self.body.extend_from_slice(read);
    }
}

impl<S> fmt::Debug for Bounded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded")
            .field("headed", &self.headed)
            .field("lacks", &self.lacks)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let want = this.wanted().min(buf.remaining());
        if want == 0 {
            return Poll::Ready(Ok(()));
        }
        // One read only: a second one that failed would have to keep its error for later.
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(want));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
        this.note(piece.filled());
        let count = piece.filled().len();
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
