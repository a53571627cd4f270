//! Moves the bytes of one tunnel, and knows when it is over.
//!
//! A direction, source to target:
//! ```text
//! prelude -> relaying -> source ended -> done
//!            peek, send, discard         FIN passed on
//! ```
//! Each direction waits only for what it lacks. A tunnel in which nothing can move costs nothing, yet a reset of
//! either leg ends it at once. Here no byte is looked at.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::leg::{Broken, Leg, Look};
use super::record::Record;
use super::{Cause, Preludes};

/// What one direction may move before the other tunnels of the thread get their turn.
const TURN: u64 = 256 * 1024;

/// A tunnel as its thread runs it. Kept small: there are many, and nearly all are idle.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) client: Leg,
    pub(super) backend: Leg,
    pub(super) record: Arc<Record>,
    /// Waits for its turn.
    pub(super) queued: bool,
    to_backend: Direction,
    to_client: Direction,
    first_end: Option<Cause>,
}

#[derive(Debug)]
struct Direction {
    prelude: Option<Box<Prelude>>,
    source_end: Option<End>,
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    truncated: bool,
}

#[derive(Debug)]
struct Prelude {
    bytes: Vec<u8>,
    sent: usize,
    /// Bytes at the front that are not the peers': the 101.
    uncounted: usize,
}

/// Which leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
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

#[derive(Debug, Default)]
struct Flow {
    moved: u64,
    more: bool,
    broken: Option<(Role, Broken)>,
}

#[derive(Debug)]
enum Role {
    Source,
    Target,
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(client: Leg, backend: Leg, preludes: Preludes, record: Arc<Record>) -> Self {
        let Preludes { head, to_client, to_backend } = preludes;
        let uncounted = head.len();
        let mut towards_client = head;
        towards_client.extend_from_slice(&to_client);
        Self {
            client,
            backend,
            record,
            queued: false,
            to_backend: Direction::new(to_backend, 0),
            to_client: Direction::new(towards_client, uncounted),
            first_end: None,
        }
    }

    /// Moves what can be moved, within a turn's bound.
    pub(super) fn turn(&mut self, scratch: &mut [u8]) -> Turn {
        let inward = self.to_backend.pump(&mut self.client, &mut self.backend, scratch);
        self.note_end(Side::Client);
        // A call that reports a reset consumes it, and a further look would take it for an end: so none is made.
        let outward = if inward.broken.is_some() {
            Flow::default()
        } else {
            self.to_client.pump(&mut self.backend, &mut self.client, scratch)
        };
        self.note_end(Side::Backend);
        let moved = [inward.moved, outward.moved];
        self.record.bytes_in.fetch_add(inward.moved, Ordering::Relaxed);
        self.record.bytes_out.fetch_add(outward.moved, Ordering::Relaxed);

        let next = if let Some((side, broken)) = self.find_break(&inward, &outward) {
            Next::End(self.break_up(side, broken))
        } else if self.to_backend.done && self.to_client.done {
            Next::End(Over::orderly(self.first_end.unwrap_or(Cause::Lost)))
        } else if inward.more || outward.more {
            Next::Again
        } else {
            Next::Wait
        };
        Turn { moved, next }
    }

    /// Ends both legs as `over` says.
    pub(super) fn end(&mut self, over: Over, scratch: &mut [u8]) {
        match over.manner {
            Manner::Orderly => {
                self.client.hang_up(scratch);
                self.backend.hang_up(scratch);
            }
            Manner::Broken(side, broken) => {
                let (broke, other) = match side {
                    Side::Client => (&mut self.client, &self.backend),
                    Side::Backend => (&mut self.backend, &self.client),
                };
                if broken == Broken::Protocol {
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
            (Some((Role::Source, broken)), _) | (None, Some((Role::Target, broken))) => {
                Some((Side::Client, *broken))
            }
            (Some((Role::Target, broken)), _) | (None, Some((Role::Source, broken))) => {
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
            (Broken::Reset, Side::Client) => self.first_end.unwrap_or(Cause::Client),
            (Broken::Reset, Side::Backend) => self.first_end.unwrap_or(Cause::Backend),
        };
        Over { cause, manner: Manner::Broken(side, broken) }
    }

    fn note_end(&mut self, side: Side) {
        let (direction, cause) = match side {
            Side::Client => (&self.to_backend, Cause::Client),
            Side::Backend => (&self.to_client, Cause::Backend),
        };
        if let (None, Some(end)) = (self.first_end, direction.source_end) {
            self.first_end = Some(if end.truncated { Cause::Truncated } else { cause });
        }
    }
}

// === impl Over ===

impl Over {
    /// An end that we or the peers chose: FIN both ways.
    pub(super) fn orderly(cause: Cause) -> Self {
        Self { cause, manner: Manner::Orderly }
    }
}

// === impl Direction ===

impl Direction {
    fn new(bytes: Vec<u8>, uncounted: usize) -> Self {
        let prelude = (!bytes.is_empty()).then(|| Box::new(Prelude { bytes, sent: 0, uncounted }));
        Self { prelude, source_end: None, done: false }
    }

    fn pump(&mut self, source: &mut Leg, target: &mut Leg, scratch: &mut [u8]) -> Flow {
        let mut flow = Flow::default();
        if let Err(broken) = self.advance(source, target, scratch, &mut flow) {
            flow.broken = Some(broken);
        }
        flow
    }

    fn advance(
        &mut self,
        source: &mut Leg,
        target: &mut Leg,
        scratch: &mut [u8],
        flow: &mut Flow,
    ) -> Result<(), (Role, Broken)> {
        let at_source = |broken| (Role::Source, broken);
        let at_target = |broken| (Role::Target, broken);
        if self.done || !self.send_prelude(target, flow).map_err(at_target)? {
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
                Look::Data(bytes) => target.put(bytes).map_err(at_target)?,
                Look::Dry => return Ok(()),
                Look::End { truncated } => {
                    self.source_end = Some(End { truncated });
                    break;
                }
            };
            source.take(moved, scratch).map_err(at_source)?;
            flow.moved += moved as u64;
        }
        if let Some(end) = self.source_end {
            self.done = target.finish(end.truncated).map_err(at_target)?;
        }
        Ok(())
    }

    /// True: there is none, or none any more.
    fn send_prelude(&mut self, target: &mut Leg, flow: &mut Flow) -> Result<bool, Broken> {
        while let Some(prelude) = self.prelude.as_mut() {
            let rest = prelude.bytes.get(prelude.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.prelude = None;
                break;
            }
            let sent = target.put(rest)?;
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
