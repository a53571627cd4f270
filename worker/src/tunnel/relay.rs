//! Moves the bytes of one tunnel, and knows when it is over.
//!
//! A direction, source to target:
//! ```text
//! prelude -> relaying -> source ended -> done
//!            receive, send               FIN passed on
//! ```
//! Each direction waits only for what it lacks. A tunnel in which nothing can move costs nothing, yet a reset of
//! either leg ends it at once. Here no byte is looked at.
//!
//! Between any two calls the process may die: what a successor must know of a tunnel is in the kernel, or in the arena
//! before the call that changes it (`resume` is the successor's side).

use std::sync::Arc;

use super::arena::ends;
use super::flow::{Flow, Part};
use super::leg::{Broken, Leg, Side};
use super::leg_end::{alert_mark, broke_mark};
use super::record::Record;
use super::steps::Steps;
use super::{Cause, Preludes};
use crate::tls::record::{close_notify, fatal_alert};

mod direction;
mod resume;
mod way;

pub(super) use way::Buffers;

use direction::Direction;
use way::{Way, protocols};

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
        let Self { client, backend, record, to_backend, to_client, .. } = self;
        let inward = to_backend.pump(client, backend, record, buffers, to_client.asked());
        // A call that reports a reset consumes it, and a further look would take it for an end: so none is made.
        let mut outward = Flow::default();
        if inward.broken.is_none() {
            outward = to_client.pump(backend, client, record, buffers, to_backend.asked());
        }
        let moved = [inward.moved, outward.moved];

        let next = if let Some((side, broken)) = self.find_break(&inward, &outward) {
            let seen = match broken {
                Broken::Reset => 0,
                Broken::Alert => alert_mark(side),
                Broken::PeerLost | Broken::Protocol | Broken::Ours => broke_mark(side),
            };
            self.record.mark(reset_mark(side) | seen);
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
            (Broken::Ours, _) => Cause::Lost,
            (Broken::Reset | Broken::Alert, Side::Client) => {
                self.record.first_end().unwrap_or(Cause::Client)
            }
            (Broken::Reset | Broken::Alert, Side::Backend) => {
                self.record.first_end().unwrap_or(Cause::Backend)
            }
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
