//! Records cut anywhere, buffers of any size, and nothing read too far.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Gives its pieces one by one; a read never joins two.
#[derive(Default)]
struct Pieces {
    left: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Pieces {
    fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let left = pieces.into_iter().filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec);
        Self { left: left.collect(), ..Self::default() }
    }

    fn remaining(&self) -> usize {
        self.left.iter().map(Vec::len).sum()
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.left.front_mut() {
            let count = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..count]);
            piece.drain(..count);
            if piece.is_empty() {
                self.left.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        for buf in bufs {
            self.written.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

fn record(len: u16) -> Vec<u8> {
    let mut record = vec![23, 3, 3];
    record.extend(len.to_be_bytes());
    record.extend((0..len).map(|at| at.to_le_bytes()[0] ^ 0x5a));
    record
}

/// Where records end in a stream of them.
fn ends(lens: &[u16]) -> Vec<usize> {
    lens.iter()
        .scan(0, |end, &len| {
            *end += usize::from(len) + 5;
            Some(*end)
        })
        .collect()
}

/// Reads everything with buffers of this size, and checks the bounds and the copy after each read.
async fn check(wire: &[u8], ends: &[usize], stream: Pieces, size: usize) {
    let mut bounded = Bounded::new(stream);
    let mut seen = Vec::new();
    loop {
        let before = seen.len();
        let mut buffer = vec![0; size];
        let count = bounded.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..count]);
        // Nothing is held back, and no read passes the end of a record.
        assert_eq!(bounded.get_ref().remaining(), wire.len() - seen.len());
        assert!(!ends.iter().any(|end| (before + 1..seen.len()).contains(end)));
        let begun = ends.iter().rfind(|end| **end <= seen.len()).copied().unwrap_or(0);
        let (stream, partial) = bounded.into_parts();
        assert_eq!(partial, &wire[begun..seen.len()]);
        // As it was: what was read of this record, then the rest.
        bounded = Bounded::new(stream);
        bounded.note(&partial[..partial.len().min(5)]);
        if partial.len() > 5 {
            bounded.note(&partial[5..]);
        }
    }
    assert_eq!(seen, wire);
}

#[tokio::test]
async fn no_read_passes_a_record_wherever_the_stream_is_cut() {
    let lens = [1, 0, 7, 64, 3];
    let wire: Vec<u8> = lens.iter().flat_map(|&len| record(len)).collect();
    let ends = ends(&lens);
    for cut in 0..=wire.len() {
        for size in [1, 2, 4, 5, 6, 9, 4096] {
            let (head, tail) = wire.split_at(cut);
            check(&wire, &ends, Pieces::of([head, tail]), size).await;
        }
    }
    for piece in 1..12 {
        check(&wire, &ends, Pieces::of(wire.chunks(piece)), 4096).await;
    }
}

#[tokio::test]
async fn long_records_are_kept_until_they_are_complete() {
    let lens = [18_432, 16_401, 2];
    let wire: Vec<u8> = lens.iter().flat_map(|&len| record(len)).collect();
    for (piece, size) in [(4096, 4096), (65_536, 4096), (999, 65_536), (65_536, 65_536)] {
        check(&wire, &ends(&lens), Pieces::of(wire.chunks(piece)), size).await;
    }
}

#[tokio::test]
async fn a_record_that_comes_whole_allocates_nothing_and_a_cut_one_gives_back() {
    let mut wire = record(300);
    wire.extend(record(300));
    let mut bounded = Bounded::new(Pieces::of([&wire[..400], &wire[400..]]));
    let mut buffer = [0; 4096];
    for (read, kept) in [(5, 0), (300, 0), (5, 0), (90, 300), (210, 0)] {
        assert_eq!(bounded.read(&mut buffer).await.unwrap(), read);
        assert_eq!(bounded.body.capacity(), kept);
    }
}

#[tokio::test]
async fn the_copy_of_a_record_longer_than_any_is_not_kept() {
    let wire = record(u16::MAX);
    let mut bounded = Bounded::new(Pieces::of(wire.chunks(1000)));
    let mut all = Vec::new();
    for _ in 0..10 {
        bounded.read_buf(&mut all).await.unwrap();
        assert_eq!(bounded.body.capacity(), 0);
    }
    assert_eq!(all, wire[..all.len()]);
}

#[tokio::test]
async fn a_read_of_nothing_and_the_end_of_the_stream_change_nothing() {
    let wire = record(9);
    let mut bounded = Bounded::new(Pieces::of([&wire[..8]]));
    let mut buffer = [0; 64];
    assert_eq!(bounded.read(&mut buffer).await.unwrap(), 5);
    assert_eq!(bounded.read(&mut []).await.unwrap(), 0);
    assert_eq!(bounded.read(&mut buffer).await.unwrap(), 3);
    assert_eq!(bounded.read(&mut buffer).await.unwrap(), 0);
    assert_eq!(bounded.into_parts().1, wire[..8]);
}

#[tokio::test]
async fn writing_passes_through() {
    let mut bounded = Bounded::new(Pieces::default());
    assert!(bounded.is_write_vectored());
    bounded.write_all(b"one").await.unwrap();
    let pieces = [IoSlice::new(b"two"), IoSlice::new(b"three")];
    assert_eq!(bounded.write_vectored(&pieces).await.unwrap(), 8);
    bounded.flush().await.unwrap();
    assert_eq!(bounded.shutdown().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(bounded.into_parts().0.written, b"onetwothree");
}

#[tokio::test]
async fn what_records_hold_is_heard_without_their_heads_until_it_is_taken() {
    let lens = [3, 0, 70, 1];
    let wire: Vec<u8> = lens.iter().flat_map(|&len| record(len)).collect();
    let bodies: Vec<u8> = lens.iter().flat_map(|&len| record(len).split_off(5)).collect();
    for piece in 1..=wire.len() {
        let mut bounded = Bounded::listening(Pieces::of(wire.chunks(piece)));
        bounded.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(bounded.take_heard(), bodies, "{piece}");
        assert!(bounded.take_heard().is_empty() && bounded.heard.is_none());
    }
    let mut bounded = Bounded::new(Pieces::of([&wire[..]]));
    bounded.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(bounded.take_heard().is_empty());
}
