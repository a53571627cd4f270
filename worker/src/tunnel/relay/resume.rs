//! A successor's first look at a tunnel: how far each direction has come, by the kernel's counters.
//!
//! Whatever call the predecessor died between, the next byte is found: what the target has taken and the source still
//! holds is discarded, what has left the source and not arrived comes from the carry slot, a first byte that is still owed is sent, an end that was passed on stays passed on. Counters
//! that make no sense end the tunnel; nothing is guessed.

use std::sync::atomic::Ordering;

use super::direction::{Direction, Prelude};
use super::{Buffers, Cause, Flow, Over, Record, Side, Steps, Tunnel, Way, protocols};
use crate::tls::keys::Protocol;
use crate::tunnel::arena::{Towards, ends};
use crate::tunnel::counters::{Progress, Snapshot, progress, state};
use crate::tunnel::flow::prelude_mark;
use crate::tunnel::leg::Leg;
use crate::tunnel::steps::Io;

type Error = Box<dyn std::error::Error>;

/// A leg's session is of a protocol that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("its TLS session is of a protocol that is not known here")]
struct UnknownProtocol;

impl Tunnel {
    /// A tunnel that another process has let go of. Its counters are looked at when its first turn comes: at once where it
    /// may owe somebody its first bytes, else when there is something to do.
    pub(in crate::tunnel) fn resumed(record: std::sync::Arc<Record>) -> Self {
        let [client, backend] = record.sockets().map(|socket| Leg::resumed(socket.clone()));
        // An end that an earlier process has seen may no longer show in the socket.
        let queued = record.cell().owes_prelude()
            || record.cell().has_kept()
            || record.is_marked(ends::CLIENT_CLOSED)
            || record.is_marked(ends::BACKEND_CLOSED);
        Self {
            client,
            backend,
            record,
            queued,
            fresh: true,
            // What they really are, and how far they have come, its first turn finds out.
            to_backend: Way::Bytes(Direction::new(Side::Backend, Vec::new(), 0)),
            to_client: Way::Bytes(Direction::new(Side::Client, Vec::new(), 0)),
        }
    }

    /// Begins the first turn of a tunnel that was taken over.
    pub(in crate::tunnel) fn catch_up(&mut self, buffers: &mut Buffers) -> Result<(), Over> {
        if std::mem::take(&mut self.fresh) { self.resume(buffers) } else { Ok(()) }
    }

    /// Finds out how far it has come and puts the directions right.
    fn resume(&mut self, buffers: &mut Buffers) -> Result<(), Over> {
        let record = self.record.clone();
        let lost = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(tunnel = record.id, error, "a tunnel cannot be carried on");
            Over::abrupt(Cause::Lost)
        };
        let read = |leg: &Leg| Snapshot::read(leg.fd()).map_err(|error| lost(&error));
        let (client, backend) = (read(&self.client)?, read(&self.backend)?);
        self.find_consumed_reset(Side::Client, &client);
        self.find_consumed_reset(Side::Backend, &backend);
        self.note_resets();
        // Here and now: a look at what is left would show bytes again that the other leg has had.
        if let Some((side, broken)) = self.find_break(&Flow::default(), &Flow::default()) {
            return Err(self.break_up(side, broken));
        }
        if !record.cell().knows_protocols() {
            return Err(lost(&UnknownProtocol));
        }
        let moved = match protocols(&record) {
            Some(protocols) => self.resume_steps(protocols, [&client, &backend], buffers),
            None => self.resume_bytes([&client, &backend], &mut buffers.scratch),
        };
        let moved = moved.map_err(|error| lost(&*error))?;
        // What the counters say is exact; what the predecessor had added up may miss its last turn. Before anything
        // moves, so that who dies in the turn leaves it to nobody.
        record.cell().raise_bytes(moved);
        Ok(())
    }

    /// Answers how many of the peers' bytes have gone to the backend and to the client.
    fn resume_bytes(
        &mut self,
        [client, backend]: [&Snapshot; 2],
        scratch: &mut [u8],
    ) -> Result<[u64; 2], Error> {
        let cell = self.record.cell();
        let come = |source, target, towards| {
            let (bases, prelude_len) = (cell.bases(towards), cell.prelude_len(towards));
            progress(source, target, bases, prelude_len, cell.kept(towards), false)
        };
        let inward = come(client, backend, Towards::Backend)?;
        let outward = come(backend, client, Towards::Client)?;
        let mut to_backend = Direction::new(Side::Backend, Vec::new(), 0);
        let mut to_client = Direction::new(Side::Client, Vec::new(), 0);
        let moved = [
            to_backend.resume(inward, (&self.client, client), &self.record, scratch),
            to_client.resume(outward, (&self.backend, backend), &self.record, scratch),
        ];
        self.to_backend = Way::Bytes(to_backend);
        self.to_client = Way::Bytes(to_client);
        Ok(moved.map(Option::unwrap_or_default))
    }

    /// The same, where a leg runs TLS.
    fn resume_steps(
        &mut self,
        [inward, outward]: [[Option<Protocol>; 2]; 2],
        [client, backend]: [&Snapshot; 2],
        buffers: &mut Buffers,
    ) -> Result<[u64; 2], Error> {
        let Self { client: client_leg, backend: backend_leg, record, .. } = self;
        let Buffers { scratch, out, ciphers, .. } = buffers;
        // Wishes for a key update are looked at in a turn.
        let (source, target) = (client_leg, backend_leg);
        let mut io = Io { source, target, record, scratch, out, ciphers, asked: 0 };
        let to_backend = Steps::resume(Side::Backend, inward, [client, backend], &mut io)?;
        std::mem::swap(&mut io.source, &mut io.target);
        let to_client = Steps::resume(Side::Client, outward, [backend, client], &mut io)?;
        let moved = [to_backend.moved(), to_client.moved()];
        self.to_backend = Way::Records(Box::new(to_backend));
        self.to_client = Way::Records(Box::new(to_client));
        Ok(moved)
    }

    /// A reset whose error somebody has consumed: on record, or told by a connection that is closed although we never
    /// sent our FIN.
    fn find_consumed_reset(&mut self, side: Side, snapshot: &Snapshot) {
        let (leg, reset, fin) = match side {
            Side::Client => (&mut self.client, ends::CLIENT_RESET, ends::CLIENT_FIN_SENT),
            Side::Backend => (&mut self.backend, ends::BACKEND_RESET, ends::BACKEND_FIN_SENT),
        };
        let closed_by_peer = snapshot.state == state::CLOSE && !self.record.is_marked(fin);
        if self.record.is_marked(reset) || closed_by_peer {
            leg.note_reset();
        }
    }
}

impl Direction {
    /// Takes up where the counters say. Answers how many of the peers' bytes have gone this way, where it is known.
    fn resume(
        &mut self,
        progress: Progress,
        (source, source_now): (&Leg, &Snapshot),
        record: &Record,
        scratch: &mut [u8],
    ) -> Option<u64> {
        let uncounted = record.cell().prelude_uncounted.load(Ordering::Relaxed);
        let (towards, uncounted) = match self.towards {
            Side::Client => (Towards::Client, uncounted as usize),
            Side::Backend => (Towards::Backend, 0),
        };
        let counted = record.cell().prelude_len(towards).saturating_sub(uncounted as u64);
        match progress {
            Progress::Done => {
                self.done = true;
                // It was passed on to its end, so all of it was consumed.
                let base = record.cell().bases(towards).received;
                let moved = source_now.consumed(false).checked_sub(base)?;
                Some(moved + counted)
            }
            Progress::Prelude { sent } => {
                let bytes = record.slot.read_prelude(towards);
                let sent = usize::try_from(sent).unwrap_or(bytes.len());
                let uncounted_left = uncounted.saturating_sub(sent);
                self.prelude = Some(Box::new(Prelude { bytes, sent, uncounted: uncounted_left }));
                Some(sent.saturating_sub(uncounted) as u64)
            }
            Progress::Stream { moved, discard, owed } => {
                record.mark(prelude_mark(self.towards));
                self.taken = moved + owed;
                self.find_kept(record, moved, owed);
                let mut left = discard;
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
                    // It may stop at an urgent byte; a queue that holds less than the counters say breaks the tunnel
                    // at its next look, not here.
                    match source.discard(most, scratch) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => left = left.saturating_sub(count as u64),
                    }
                }
                Some(moved + counted)
            }
        }
    }
}
