//! Moves the bytes of one tunnel, and knows when it is over.
//!
//! A direction, source to target:
//! ```text
//! prelude -> relaying -> source ended -> done
//!            peek, send, discard         FIN passed on
//! ```
//! Each direction waits only for what it lacks. A tunnel in which nothing can move costs nothing, yet a reset of
//! either leg ends it at once. Here no byte is looked at.
//!
//! Between any two calls the process may die: what a successor must know of a tunnel is in the kernel, or in its
//! record before the call that changes it (`resume` is the successor's side).

use std::sync::Arc;

use super::arena::ends;
use super::leg::{Broken, Leg, Look, Side};
use super::record::Record;
use super::steps::Steps;
use super::{Cause, Preludes};
use crate::tls::record::{close_notify, fatal_alert};
use holdfast_proto::{failpoint, planted};

mod resume;
mod way;

pub(super) use way::Buffers;

use way::{Way, protocols};

/// What one direction may move before the other tunnels of the thread get their turn.
pub(super) const TURN: u64 = 256 * 1024;

/// A tunnel as its thread runs it. Kept small: there are many, and nearly all are idle.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) client: Leg,
    pub(super) backend: Leg,
    pub(super) record: Arc<Record>,
    /// Waits for its turn.
    pub(super) queued: bool,
    /// Taken over, and how far its directions have come is not known yet.
    fresh: bool,
    to_backend: Way,
    to_client: Way,
}

#[derive(Debug)]
struct Direction {
    /// Where its bytes go.
    towards: Side,
    prelude: Option<Box<Prelude>>,
    source_end: Option<End>,
    done: bool,
}

/// The source says that no more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) truncated: bool,
}

#[derive(Debug)]
struct Prelude {
    bytes: Vec<u8>,
    sent: usize,
    /// Bytes at the front that are not the peers': the 101.
    uncounted: usize,
}

/// What a turn has done.
#[derive(Debug)]
pub(super) struct Turn {
    /// Peers' bytes, to the backend and to the client.
    pub(super) moved: [u64; 2],
    pub(super) next: Next,
}

/// What a tunnel needs after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing can move until an event comes.
    Wait,
    /// More can move at once.
    Again,
    /// It is over: [`Tunnel::end`] it.
    End(Over),
}

/// The end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) cause: Cause,
    manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Both legs get a FIN, if they have not.
    Orderly,
    /// One leg broke, so the other one is reset.
    Broken(Side, Broken),
}

/// What a turn has done for one direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Peers' bytes.
    pub(super) moved: u64,
    /// What it has cost, in bytes; where that is not the same.
    pub(super) spent: u64,
    /// The turn's bound came first.
    pub(super) more: bool,
    broken: Option<(Part, Broken)>,
}

/// Which of a direction's legs.
#[derive(Debug)]
pub(super) enum Part {
    Source,
    Target,
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(
        client: Leg,
        backend: Leg,
        preludes: Preludes,
        partials: [Vec<u8>; 2],
        record: Arc<Record>,
    ) -> Self {
        let Preludes { head, to_client, to_backend } = preludes;
        let uncounted = head.len();
        let mut towards_client = head;
        towards_client.extend_from_slice(&to_client);
        let (to_backend, to_client) = if let Some([inward, outward]) = protocols(&record) {
            let [from_client, from_backend] = partials;
            let steps = |towards, protocols, prelude, partial| {
                let steps = Steps::new(towards, protocols, &record, prelude, partial);
                Way::Records(Box::new(steps))
            };
            (
                steps(Side::Backend, inward, to_backend, from_client),
                steps(Side::Client, outward, towards_client, from_backend),
            )
        } else {
            (
                Way::Bytes(Direction::new(Side::Backend, to_backend, 0)),
                Way::Bytes(Direction::new(Side::Client, towards_client, uncounted)),
            )
        };
        Self { client, backend, record, queued: false, fresh: false, to_backend, to_client }
    }

    /// One of its legs.
    pub(super) fn leg(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    /// Moves what can be moved, within a turn's bound. Comes after [`Tunnel::catch_up`].
    pub(super) fn turn(&mut self, buffers: &mut Buffers) -> Turn {
        self.note_resets();
        let asked = [self.to_client.asked(), self.to_backend.asked()];
        let Self { client, backend, record, to_backend, to_client, .. } = self;
        let inward = to_backend.pump(client, backend, record, buffers, asked[0]);
        // A call that reports a reset consumes it, and a further look would take it for an end: so none is made.
        let mut outward = Flow::default();
        if inward.broken.is_none() {
            outward = to_client.pump(backend, client, record, buffers, to_backend.asked());
            // The other direction answers it.
            outward.more |= to_client.asked() != asked[0];
        }
        let moved = [inward.moved, outward.moved];

        let next = if let Some((side, broken)) = self.find_break(&inward, &outward) {
            self.record.mark(reset_mark(side));
            Next::End(self.break_up(side, broken))
        } else if self.to_backend.is_done() && self.to_client.is_done() {
            Next::End(Over::orderly(self.record.first_end().unwrap_or(Cause::Lost)))
        } else if inward.more || outward.more {
            Next::Again
        } else {
            Next::Wait
        };
        Turn { moved, next }
    }

    /// Ends both legs as `over` says.
    pub(super) fn end(&mut self, over: Over, scratch: &mut [u8]) {
        let Self { client, backend, record, to_backend, to_client, .. } = self;
        match over.manner {
            Manner::Orderly => {
                to_client.last_word(client, record, close_notify());
                to_backend.last_word(backend, record, close_notify());
                client.hang_up(scratch);
                backend.hang_up(scratch);
            }
            Manner::Broken(side, broken) => {
                let (broke, other, from, towards) = match side {
                    Side::Client => (client, backend, &*to_backend, &*to_client),
                    Side::Backend => (backend, client, &*to_client, &*to_backend),
                };
                if broken == Broken::Protocol {
                    towards.last_word(broke, record, fatal_alert(from.complaint()));
                    broke.reproach();
                } else {
                    broke.abort();
                }
                other.abort();
            }
        }
    }

    /// What went wrong, on either leg, seen by a call or by poll.
    fn find_break(&mut self, inward: &Flow, outward: &Flow) -> Option<(Side, Broken)> {
        let seen = match (&inward.broken, &outward.broken) {
            (Some((Part::Source, broken)), _) | (None, Some((Part::Target, broken))) => {
                Some((Side::Client, *broken))
            }
            (Some((Part::Target, broken)), _) | (None, Some((Part::Source, broken))) => {
                Some((Side::Backend, *broken))
            }
            (None, None) => None,
        };
        // A session may have something of its own to say: a key update's answer, an alert.
        seen.or_else(|| Some((Side::Client, self.client.broken()?)))
            .or_else(|| Some((Side::Backend, self.backend.broken()?)))
            .or_else(|| Some((Side::Client, self.client.flush().err()?)))
            .or_else(|| Some((Side::Backend, self.backend.flush().err()?)))
    }

    fn break_up(&self, side: Side, broken: Broken) -> Over {
        let cause = match (broken, side) {
            (Broken::Protocol, _) => Cause::ProtocolError,
            (Broken::PeerLost, _) => Cause::PeerLost,
            (Broken::Reset, Side::Client) => self.record.first_end().unwrap_or(Cause::Client),
            (Broken::Reset, Side::Backend) => self.record.first_end().unwrap_or(Cause::Backend),
        };
        Over { cause, manner: Manner::Broken(side, broken) }
    }

    /// A reset is on record before a call can consume it.
    fn note_resets(&self) {
        for (leg, side) in [(&self.client, Side::Client), (&self.backend, Side::Backend)] {
            if leg.is_reset() {
                self.record.mark(reset_mark(side));
            }
        }
    }
}

fn reset_mark(side: Side) -> u64 {
    match side {
        Side::Client => ends::CLIENT_RESET,
        Side::Backend => ends::BACKEND_RESET,
    }
}

// === impl Over ===

impl Over {
    /// An end that we or the peers chose: FIN both ways.
    pub(super) fn orderly(cause: Cause) -> Self {
        Self { cause, manner: Manner::Orderly }
    }

    /// An end for which nobody may take a FIN for the end of the bytes: both legs are reset.
    pub(super) fn abrupt(cause: Cause) -> Self {
        Self { cause, manner: Manner::Broken(Side::Client, Broken::Reset) }
    }

    pub(super) fn is_orderly(self) -> bool {
        self.manner == Manner::Orderly
    }
}

// === impl Direction ===

impl Direction {
    fn new(towards: Side, bytes: Vec<u8>, uncounted: usize) -> Self {
        let prelude = (!bytes.is_empty()).then(|| Box::new(Prelude { bytes, sent: 0, uncounted }));
        Self { towards, prelude, source_end: None, done: false }
    }

    fn advance(
        &mut self,
        source: &mut Leg,
        target: &mut Leg,
        record: &Record,
        scratch: &mut [u8],
        flow: &mut Flow,
    ) -> Result<(), (Part, Broken)> {
        let at_source = |broken| (Part::Source, broken);
        let at_target = |broken| (Part::Target, broken);
        if self.done || !self.send_prelude(target, record, flow).map_err(at_target)? {
            return Ok(());
        }
        while self.source_end.is_none() {
            if flow.moved >= TURN {
                flow.more = true;
                return Ok(());
            }
            if !target.takes().map_err(at_target)? {
                return Ok(());
            }
            let moved = match source.look(scratch).map_err(at_source)? {
                Look::Data(bytes) => {
                    failpoint!("relay.peeked");
                    let moved = target.put(bytes).map_err(at_target)?;
                    if planted!("send-twice") {
                        target.put(bytes).map_err(at_target)?;
                    }
                    failpoint!("relay.sent");
                    moved
                }
                Look::Dry => return Ok(()),
                Look::End { truncated } => {
                    self.source_end = Some(End { truncated });
                    record.note_end(self.source(), truncated);
                    failpoint!("relay.end_seen");
                    break;
                }
            };
            source.take(moved, scratch).map_err(at_source)?;
            failpoint!("relay.discarded");
            flow.moved += moved as u64;
        }
        if let Some(end) = self.source_end {
            record.mark(self.fin_mark());
            failpoint!("relay.fin_marked");
            self.done = target.finish(end.truncated).map_err(at_target)?;
            failpoint!("relay.fin_sent");
        }
        Ok(())
    }

    fn source(&self) -> Side {
        match self.towards {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    fn fin_mark(&self) -> u64 {
        match self.towards {
            Side::Client => ends::CLIENT_FIN_SENT,
            Side::Backend => ends::BACKEND_FIN_SENT,
        }
    }

    fn prelude_mark(&self) -> u64 {
        match self.towards {
            Side::Client => ends::TO_CLIENT_PRELUDE_DONE,
            Side::Backend => ends::TO_BACKEND_PRELUDE_DONE,
        }
    }

    /// True: there is none, or none any more.
    fn send_prelude(
        &mut self,
        target: &mut Leg,
        record: &Record,
        flow: &mut Flow,
    ) -> Result<bool, Broken> {
        while let Some(prelude) = self.prelude.as_mut() {
            let rest = prelude.bytes.get(prelude.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.prelude = None;
                record.mark(self.prelude_mark());
                record.slot.drop_preludes();
                break;
            }
            failpoint!("prelude.before");
            let sent = target.put(rest)?;
            failpoint!("prelude.sent");
            if sent == 0 {
                return Ok(false);
            }
            prelude.sent += sent;
            let uncounted = sent.min(prelude.uncounted);
            prelude.uncounted -= uncounted;
            flow.moved += (sent - uncounted) as u64;
        }
        Ok(true)
    }
}
