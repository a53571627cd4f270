//! Sessions that have left rustls, on their way into the arena. From then on they are nowhere else.

use std::sync::atomic::{Ordering, fence};

use super::arena::sessions::{Half, Position, Step};
use super::arena::{ArenaError, Towards, ends};
use super::leg::Side;
use super::slot::Slot;
use crate::tls::session::Departed;

/// Writes the sessions of the client's and the backend's leg down, before the record is published. The preludes are there
/// already.
pub(super) fn write_down(
    slot: &Slot,
    departed: &[Option<Box<Departed>>; 2],
) -> Result<(), ArenaError> {
    let [client, backend] = departed.each_ref().map(Option::as_deref);
    if client.is_none() && backend.is_none() {
        return Ok(());
    }
    // Noted first: whoever frees the record overwrites the secrets.
    slot.set_protocols([client, backend].map(|leg| leg.map(|leg| leg.session.protocol)));
    fence(Ordering::Release);
    for (leg, side) in [(client, Side::Client), (backend, Side::Backend)] {
        let Some(Departed { session, .. }) = leg else { continue };
        slot.sessions().set_secret((side, Half::Rx), 0, &session.rx.secret);
        slot.sessions().set_secret((side, Half::Tx), 0, &session.tx.secret);
    }
    for (source, target, towards, closed) in [
        (client, backend, Towards::Backend, ends::CLIENT_CLOSED),
        (backend, client, Towards::Client, ends::BACKEND_CLOSED),
    ] {
        let at = Position {
            rx_seq: source.map_or(0, |leg| leg.session.rx.seq),
            tx_seq: target.map_or(0, |leg| leg.session.tx.seq),
            ..Position::default()
        };
        let cell = slot.sessions().direction(towards);
        cell.begin(&Step::rest(at));
        let Some(source) = source else { continue };
        if !source.partial.is_empty() {
            cell.set_carry_pos(slot.prelude_len(towards));
            slot.write_carry(towards, 0, &source.partial)?;
        }
        if source.peer_closed {
            slot.set_ends(closed);
        }
    }
    Ok(())
}

/// How many bytes of a leg are in its carry slot.
pub(super) fn partial(departed: Option<&Departed>) -> u64 {
    departed.map_or(0, |departed| departed.partial.len() as u64)
}
