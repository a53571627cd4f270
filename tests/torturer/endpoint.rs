//! One end of one tunnel once it is open, the same for clients and backends: it sends by its plan and checks what comes.
//!
//! It must never wait for anything: each turn does what can be done now, within a bound, and says when to look again.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::board::{Board, DONE, FIN_SEEN, FIN_SENT, Half, OPEN, PAUSED};
use super::checker::{Checker, Damage, Fault};
use super::plan::{Plan, Reader, Role, Ticket};
use super::stream::{Framer, Rng, mix};
use super::wire::{self, Wire};

/// What an end may read, and write, before others get their turn.
const TURN: usize = 256 << 10;
/// What one call may move.
const CHUNK: usize = 64 << 10;
/// Parts that a tail is sent in.
const TAIL_PARTS: u32 = 8;
/// Within this time everything ends that is told to finish, spread out.
const FINISHING: Duration = Duration::from_secs(2);
/// How many writes begin with new keys, where there is TLS: some in every long message.
const NEW_KEYS: f64 = 0.1;

/// What became of a turn.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Look again at that time, or when something happens.
    Wait(Option<Instant>),
    /// More can be done at once.
    Again,
    /// Everything was sent, everything has come.
    Clean,
    Broken(Fault),
}

/// Room to work in, the same for every tunnel of a thread.
pub(crate) struct Scratch {
    /// What came.
    pub(crate) came: Vec<u8>,
    /// What is due.
    pub(crate) due: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { came: vec![0; CHUNK], due: vec![0; CHUNK] }
    }
}

/// What an end has counted, for the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) messages_received: u64,
    pub(crate) key_updates: u64,
}

/// One end of a tunnel.
#[allow(clippy::struct_excessive_bools, reason = "facts that come in every combination")]
pub(crate) struct Endpoint {
    wire: Wire,
    pub(crate) ticket: Ticket,
    role: Role,
    plan: Plan,
    out: Outgoing,
    checker: Checker,
    rng: Rng,
    readable: bool,
    writable: bool,
    fin_seen: bool,
    paused_until: Option<Instant>,
    next_send: Instant,
    ends_at: Option<Instant>,
    finishing: bool,
    tail_parts: u32,
    listener: usize,
    published: Half,
    /// The timer that is set.
    pub(crate) timer: Option<Instant>,
}

struct Outgoing {
    framer: Framer,
    /// Messages that may be begun.
    owed: u32,
    /// Messages may be begun as long as the position is below this one.
    until: u64,
    closing: bool,
    close: Option<(Vec<u8>, usize)>,
    fin_sent: bool,
}

impl Outgoing {
    fn sent(&self) -> u64 {
        self.framer.position() + self.close.as_ref().map_or(0, |(_, done)| *done as u64)
    }

    /// The next bytes, or nothing for now.
    fn next(&mut self, scratch: &mut [u8]) -> usize {
        if let Some((frame, done)) = &self.close {
            let left = &frame[*done..];
            scratch[..left.len()].copy_from_slice(left);
            return left.len();
        }
        if self.framer.at_boundary() {
            if self.owed == 0 && self.framer.position() >= self.until {
                if !self.closing {
                    return 0;
                }
                self.close = Some((self.framer.close_frame(), 0));
                return self.next(scratch);
            }
            self.owed = self.owed.saturating_sub(1);
            self.framer.begin_message();
        }
        self.framer.peek(scratch)
    }

    fn sent_now(&mut self, bytes: &[u8]) {
        match &mut self.close {
            Some((_, done)) => *done += bytes.len(),
            None => self.framer.advance(bytes),
        }
    }
}

/// The first messages, for whoever sends them along with the handshake; the endpoint goes on behind them.
pub(crate) struct Opening(Framer, Vec<u8>);

impl Opening {
    pub(crate) fn new(plan: &Plan, role: Role) -> Self {
        let mut framer = Framer::new(plan.recipe(role));
        let mut bytes = Vec::new();
        for _ in 0..plan.early[role.index()] {
            framer.begin_message();
            while !framer.at_boundary() {
                let mut chunk = [0; 4096];
                let count = framer.peek(&mut chunk);
                framer.advance(&chunk[..count]);
                bytes.extend_from_slice(&chunk[..count]);
            }
        }
        Self(framer, bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.1
    }
}

impl Endpoint {
    /// The tunnel is open, and `opening` is sent. What came behind the handshake is fed by [`Self::feed`].
    pub(crate) fn new(
        mut wire: Wire,
        ticket: Ticket,
        role: Role,
        opening: Opening,
        listener: usize,
    ) -> Self {
        let plan = ticket.plan();
        let now = Instant::now();
        let mut rng = Rng::new(mix(ticket.seed ^ (role.index() as u64 + 11)));
        let pace = plan.paces[role.index()];
        if plan.shreds[role.index()] {
            wire.shred(rng.next());
        }
        Self {
            wire,
            ticket,
            role,
            out: Outgoing {
                framer: opening.0,
                owed: 0,
                until: 0,
                closing: false,
                close: None,
                fin_sent: false,
            },
            checker: Checker::new(plan.recipe(role.other())),
            readable: true,
            writable: true,
            fin_seen: false,
            paused_until: None,
            next_send: now + pace.interval.mul_f64(rng.unit()),
            ends_at: plan.ends_first(role).then(|| now + plan.life),
            finishing: false,
            tail_parts: 0,
            listener,
            published: Half::default(),
            timer: None,
            plan,
            rng,
        }
    }

    /// Bytes that came along with the handshake.
    pub(crate) fn feed(&mut self, bytes: &[u8], scratch: &mut Scratch) -> Result<(), Fault> {
        self.checker.feed(bytes, &mut scratch.due)
    }

    pub(crate) fn is_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            sent: self.out.sent(),
            received: self.checker.position(),
            messages_received: self.checker.messages(),
            key_updates: self.wire.key_updates(),
        }
    }

    /// Ends soon, whatever its plan says, and reads as fast as it can.
    pub(crate) fn finish(&mut self) {
        if !self.finishing {
            self.finishing = true;
            let soon = Instant::now() + FINISHING.mul_f64(self.rng.unit());
            self.ends_at = Some(self.ends_at.map_or(soon, |time| time.min(soon)));
        }
    }

    /// Does what can be done now.
    pub(crate) fn turn(&mut self, board: &Board, scratch: &mut Scratch) -> Turn {
        let now = Instant::now();
        let mut more = false;
        // Asked before reading, which may send a session's last piece.
        self.writable |= self.wire.hesitates();
        match self.read(now, scratch) {
            Ok(left) => more |= left,
            Err(fault) => return self.left(board, Turn::Broken(fault)),
        }
        self.grant(now);
        match self.write(&mut scratch.due) {
            Ok(left) => more |= left || self.wire.hesitates(),
            Err(fault) => return self.left(board, Turn::Broken(fault)),
        }
        if self.fin_seen && self.out.fin_sent {
            return self.left(board, Turn::Clean);
        }
        self.publish(board, OPEN);
        if more { Turn::Again } else { Turn::Wait(self.next_look()) }
    }

    /// Gives up: the other side hears a reset.
    pub(crate) fn abort(&mut self, board: &Board) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(self.wire.socket(), sockopt::Linger, &linger).ok();
        self.publish(board, OPEN | DONE);
    }

    pub(crate) fn fault(&self, damage: Damage, detail: String) -> Fault {
        Fault { position: self.checker.position(), damage, detail }
    }

    fn broke(&self, step: &str, error: &io::Error) -> Fault {
        self.fault(wire::damage(error), format!("{step}: {error}"))
    }

    fn left(&mut self, board: &Board, turn: Turn) -> Turn {
        if matches!(turn, Turn::Broken(_)) {
            self.abort(board);
        } else {
            self.publish(board, OPEN | DONE);
        }
        turn
    }

    fn publish(&mut self, board: &Board, mut flags: u64) {
        let set = [
            (FIN_SENT, self.out.fin_sent),
            (FIN_SEEN, self.fin_seen),
            (PAUSED, self.paused_until.is_some()),
        ];
        flags |= set.iter().filter(|(_, on)| *on).map(|(flag, _)| flag).sum::<u64>();
        let (sent, received) = (self.out.sent(), self.checker.position());
        let half = Half { id: self.ticket.id, sent, received, flags }.on_listener(self.listener);
        if half != self.published {
            self.published = half;
            // The board lies in memory: a write that fails would show at once as a tunnel that is stuck.
            drop(board.write(self.ticket.slot, self.role, &half));
        }
    }

    fn read(&mut self, now: Instant, scratch: &mut Scratch) -> Result<bool, Fault> {
        if self.paused_until.is_some_and(|time| now >= time || self.finishing) {
            self.paused_until = None;
        }
        let mut done = 0;
        while self.readable && !self.fin_seen && self.paused_until.is_none() {
            if done >= TURN {
                return Ok(true);
            }
            let (most, pause) = match self.plan.readers[self.role.index()] {
                Reader::Slow { chunk, pause } if !self.finishing => (chunk, Some(pause)),
                _ => (CHUNK, None),
            };
            match self.wire.read(&mut scratch.came[..most]) {
                Ok(0) => {
                    self.checker.finish()?;
                    self.fin_seen = true;
                }
                Ok(count) => {
                    self.checker.feed(&scratch.came[..count], &mut scratch.due)?;
                    done += count;
                    self.paused_until = pause.map(|pause| now + pause);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broke("reading", &error)),
            }
        }
        Ok(false)
    }

    /// Decides what may be sent.
    fn grant(&mut self, now: Instant) {
        let out = &mut self.out;
        if out.closing {
            return;
        }
        if self.ends_at.is_some_and(|time| now >= time) {
            (out.closing, out.owed, out.until) = (true, 0, 0);
            return;
        }
        if self.fin_seen && self.tail_parts == 0 {
            // The other half has ended: this one sends its tail, and then it ends too.
            self.next_send = now;
        }
        if now < self.next_send || out.owed > 0 {
            return;
        }
        if self.fin_seen {
            self.tail_parts += 1;
            out.closing = self.tail_parts == TAIL_PARTS || self.finishing;
            out.until = out.framer.position() + self.plan.tail_bytes / u64::from(TAIL_PARTS);
            self.next_send = now + self.plan.tail_span / TAIL_PARTS;
        } else {
            let pace = self.plan.paces[self.role.index()];
            out.owed = pace.batch;
            self.next_send = now + pace.interval.mul_f64(0.2 + 1.6 * self.rng.unit());
        }
    }

    fn write(&mut self, scratch: &mut [u8]) -> Result<bool, Fault> {
        let mut done = 0;
        if self.writable && !self.out.fin_sent {
            // What a session says by itself, such as the answer to a key update.
            self.writable = self.wire.flush().map_err(|error| self.broke("writing", &error))?;
        }
        while self.writable && !self.out.fin_sent {
            if done >= TURN {
                return Ok(true);
            }
            let count = self.out.next(scratch);
            if count == 0 {
                if self.out.close.is_some() {
                    let end = self.wire.end();
                    let ended = end.map_err(|error| self.broke("ending the stream", &error))?;
                    (self.out.fin_sent, self.writable) = (ended, ended);
                }
                break;
            }
            if self.rng.chance(NEW_KEYS) {
                let changed = self.wire.change_keys();
                changed.map_err(|error| self.broke("changing keys", &error))?;
            }
            match self.wire.write(&scratch[..count]) {
                Ok(count) => {
                    self.out.sent_now(&scratch[..count]);
                    done += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broke("writing", &error)),
            }
        }
        Ok(false)
    }

    fn next_look(&self) -> Option<Instant> {
        let out = &self.out;
        let sending = (!out.closing && out.owed == 0 && self.writable).then_some(self.next_send);
        let ending = if out.closing { None } else { self.ends_at };
        [sending, ending, self.paused_until].into_iter().flatten().min()
    }
}
