//! How a thread's tunnels are watched: registered, gone on with where a dead process has registered them, and taken out.
//!
//! A tunnel's record says that both legs are watched once they are, and that they are not before they are not: a successor
//! may find either, and registers what it need not rather than miss what it must.

use std::collections::VecDeque;
use std::io;

use holdfast_proto::failpoint;
use rustix::event::epoll::EventFlags;

use super::{Engine, is_movable};
use crate::tunnel::Cause;
use crate::tunnel::leg::{Leg, Side};
use crate::tunnel::poll::{self, Change};
use crate::tunnel::relay::{Over, Tunnel};
use crate::tunnel::watch::{Mark, Token};

/// Tunnels whose legs are looked at with one call.
const LOOK: usize = 128;

impl Engine {
    pub(super) fn note(&mut self, Change { token, flags }: Change) {
        let mark = Mark::of(token);
        if let Some((key, tunnel)) = self.tunnels.find(mark) {
            note_ready(&mut self.ready, key, tunnel, mark.side, flags);
        }
    }

    pub(super) fn watch(&mut self, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let watched = Side::BOTH.into_iter().try_for_each(|side| {
            let token = token(tunnel, side);
            let leg = tunnel.leg(side);
            let room = leg.begin_watch();
            self.poll.add(leg.fd(), token, room)
        });
        match watched {
            Ok(()) => {
                failpoint!("watch.begun");
                self.note_watched(key);
            }
            Err(error) => self.cannot_watch(key, &error),
        }
    }

    /// Has a successor know what it need not watch anew.
    fn note_watched(&mut self, key: usize) {
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let Some(poll) = self.poll_id else { return tunnel.record.cell().set_unwatched() };
        let room = [&tunnel.client, &tunnel.backend].map(Leg::is_watched_for_room);
        tunnel.record.cell().set_watched(poll, room);
    }

    /// Once nothing is left that could move: tunnels that a successor has would be reported here, too, where a dead process
    /// has registered them, for as long as this process stays for the others.
    pub(super) fn leave_left_poll(&mut self) {
        let is_left = self.poll_id.is_some_and(|poll| !poll.is_of(self.registry.generation));
        if !is_left
            || !self.frozen.is_empty()
            || self.tunnels.iter().any(|(_, tunnel)| is_movable(tunnel))
        {
            return;
        }
        if let Err(error) = self.poll.renew() {
            return tracing::debug!(%error, "no epoll instance of our own: the one that was left serves on");
        }
        self.poll_id = None;
        let keys: Vec<usize> = self.tunnels.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.watch(key);
        }
    }

    /// Whether a dead process has registered it where this thread waits.
    pub(super) fn is_watched_already(&self, tunnel: &Tunnel) -> bool {
        tunnel.record.cell().watched_by().is_some_and(|poll| Some(poll) == self.poll_id)
    }

    /// Looks once at tunnels that are watched already: what the dead process was told, nobody is told again.
    pub(super) fn go_on_watching(&mut self, keys: &[usize]) {
        keys.chunks(LOOK).for_each(|some| self.look_at(some));
    }

    fn look_at(&mut self, keys: &[usize]) {
        let legs: Vec<_> = keys
            .iter()
            .filter_map(|key| self.tunnels.get(*key))
            .flat_map(|tunnel| [tunnel.client.fd(), tunnel.backend.fd()])
            .collect();
        let ready = poll::ready(&legs).unwrap_or_else(|error| {
            tracing::warn!(%error, "tunnels that were taken over get a turn each: poll does not say which are ready");
            vec![EventFlags::IN; legs.len()]
        });
        failpoint!("watch.kept");
        for (key, flags) in keys.iter().zip(ready.chunks(2)) {
            let Some(tunnel) = self.tunnels.get_mut(*key) else { continue };
            let room = tunnel.record.cell().watched_for_room();
            tunnel.client.go_on_watched(room[0]);
            tunnel.backend.go_on_watched(room[1]);
            for (side, flags) in Side::BOTH.into_iter().zip(flags).filter(|it| !it.1.is_empty()) {
                note_ready(&mut self.ready, *key, tunnel, side, *flags);
            }
        }
    }

    fn cannot_watch(&mut self, key: usize, error: &io::Error) {
        tracing::error!(%error, "a tunnel cannot be watched");
        self.end(key, Over::orderly(Cause::Lost));
    }

    /// Has poll say when there is room again where a turn has found none.
    pub(super) fn watch_for_room(&mut self, key: usize) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let mut changed = false;
        let watched = Side::BOTH.into_iter().try_for_each(|side| {
            if tunnel.leg(side).begin_watch_for_room() {
                changed = true;
                let token = token(tunnel, side);
                self.poll.watch_room(tunnel.leg(side).fd(), token)?;
            }
            Ok(())
        });
        match watched {
            Ok(()) if changed => {
                failpoint!("watch.room");
                self.note_watched(key);
            }
            Ok(()) => {}
            Err(error) => self.cannot_watch(key, &error),
        }
    }

    /// Takes a tunnel out of the slab, and out of the epoll instance as far as we have put it in: a duplicate elsewhere would
    /// keep it firing.
    pub(super) fn unwatch(&mut self, key: usize) -> Option<Tunnel> {
        let tunnel = self.tunnels.remove(key)?;
        tunnel.record.cell().set_unwatched();
        self.poll.remove(tunnel.client.fd());
        self.poll.remove(tunnel.backend.fd());
        Some(tunnel)
    }
}

/// Notes what poll says of a leg, and that its tunnel is to have a turn.
fn note_ready(
    ready: &mut VecDeque<usize>,
    key: usize,
    tunnel: &mut Tunnel,
    side: Side,
    flags: EventFlags,
) {
    tunnel.leg(side).note(flags);
    if !std::mem::replace(&mut tunnel.queued, true) {
        ready.push_back(key);
    }
}

fn token(tunnel: &Tunnel, side: Side) -> Token {
    Token::new(tunnel.record.id, tunnel.record.slot.index(), side)
}
