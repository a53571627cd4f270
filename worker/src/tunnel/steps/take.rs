//! What a direction does next: what of its source a step takes, and what the target gets for it.
//!
//! Nothing here changes what anybody else sees: a step that was made and not begun has not been. But for the carry slot,
//! which a step begins with.

use std::sync::atomic::Ordering;

use holdfast_proto::failpoint;

use super::give::give;
use super::{Fault, Io, Steps, narrow, number};
use crate::tls::keys::{Protocol, Role, Version};
use crate::tls::record::{self, Cipher, Framed, MOST_PLAINTEXT, Message, Skip, Violation};
use crate::tunnel::arena::sessions::{Half, Kind, Step};
use crate::tunnel::flow::Part;
use crate::tunnel::leg::{Broken, Look, Side};
use crate::tunnel::record::Record;

/// What a peer may do without a byte of data in between; a tunnel whose peer goes on for longer is ended.
const PATIENCE: u16 = 1024;
/// What a record costs of that which brings nothing: 32 in a row are borne, as rustls bears them of one kind.
const NOISE: u16 = 32;
/// What a key update costs: 1,024 in a row are borne. It does bring something, and who changes keys by the clock on a
/// tunnel where nobody speaks would else end it by that. What one costs us is bounded by turns, as are all steps; no
/// bound on those in a row would do that, since a byte of data in between is all that it takes.
const KEY_UPDATE: u16 = 1;
/// TLS alert (RFC 8446 section 6.2).
const UNEXPECTED_MESSAGE: u8 = 10;

/// What stands at the front of what was peeked.
pub(super) enum Found {
    Step(Step),
    /// The peer's `close_notify`.
    Closed,
    /// A record of which more has to come.
    Part,
    /// Data, ahead of which our key update is due.
    Due,
}

/// A record that was opened.
struct One<'a> {
    bytes: &'a [u8],
    message: Message,
    /// Of the record.
    len: usize,
}

/// What comes of a look at the source.
pub(super) enum Next {
    Step(Step),
    /// Something else is to be done now: look again.
    Other,
    /// Nothing until something comes.
    Dry,
}

// === impl Steps ===

impl Steps {
    /// What is to be done next, with its bytes in `out`.
    pub(super) fn next(&mut self, io: &mut Io<'_>) -> Result<Next, Fault> {
        if self.source_end.is_some() && self.prelude.is_empty() {
            return self.close(io).map(Next::Step);
        }
        if !self.prelude.is_empty() {
            if self.owes_update(io) {
                return self.update_key(io).map(Next::Step);
            }
            return self.take_prelude(io, self.chunk()).map(Next::Step);
        }
        match self.source {
            Some(protocol) => self.take_records(protocol, io),
            None => self.take_bytes(io),
        }
    }

    /// Whether our key update has to go ahead of the next data: the cipher has come to its limit, or the peer wants it.
    ///
    /// It does not go before there is data. Its peer may ask as often as it likes while nothing goes its way, and one
    /// answer meets all those wishes (RFC 8446 section 4.6.3); who answers each is cut off by it, for rustls and `BoringSSL`
    /// take no more than 32 key updates in a row. Where no data comes any more, `close_notify` needs none ahead of it.
    fn owes_update(&self, io: &Io<'_>) -> bool {
        let worn = |protocol| self.at.tx_seq >= record::record_limit(protocol);
        self.target.is_some_and(|protocol| worn(protocol) || self.at.answered != io.asked)
    }

    /// Our key update.
    fn update_key(&self, io: &mut Io<'_>) -> Result<Step, Fault> {
        let protocol = self.target.ok_or((Part::Target, Broken::Protocol))?;
        if protocol.version == Version::Tls12 {
            // It has no key update: this is all that one session can carry.
            tracing::warn!(tunnel = io.record.id, "a TLS 1.2 session is worn out");
            return Err((Part::Target, Broken::Protocol));
        }
        let kind = Kind::Update { answered: io.asked };
        self.say(io, record::Kind::Handshake, &record::key_update(false))?;
        self.write_next(io.record, (self.towards, Half::Tx), self.at.tx_generation, protocol)?;
        failpoint!("step.tx_secret");
        Ok(Step { kind, out_records: 1, ..self.giving(io) })
    }

    pub(super) fn close(&self, io: &mut Io<'_>) -> Result<Step, Fault> {
        self.say(io, record::Kind::Alert, &record::close_notify())?;
        Ok(Step { kind: Kind::Close, out_records: 1, ..self.giving(io) })
    }

    /// The next bytes of the prelude, at most so many.
    pub(super) fn take_prelude(&self, io: &mut Io<'_>, most: usize) -> Result<Step, Fault> {
        let from = usize::try_from(self.at.in_pos).unwrap_or(usize::MAX);
        let rest = self.prelude.get(from..).unwrap_or_default();
        let taken = rest.get(..rest.len().min(most)).unwrap_or_default();
        let out_records = self.give(io.ciphers, io.record, taken, io.out)?;
        let uncounted = match self.towards {
            Side::Client => io.record.cell().prelude_uncounted.load(Ordering::Relaxed) as usize,
            Side::Backend => 0,
        };
        let moves = narrow((from + taken.len()).saturating_sub(uncounted.max(from)));
        Ok(Step { in_len: narrow(taken.len()), out_records, moves, ..self.giving(io) })
    }

    fn take_bytes(&mut self, io: &mut Io<'_>) -> Result<Next, Fault> {
        let window = io.scratch.get_mut(..self.chunk()).unwrap_or_default();
        let count = match io.source.look(window).map_err(|broken| (Part::Source, broken))? {
            Look::Dry => return Ok(Next::Dry),
            Look::End { truncated } => {
                self.note_end(io.record, truncated);
                return Ok(Next::Other);
            }
            Look::Data(bytes) => bytes.len(),
        };
        failpoint!("step.peeked");
        if self.owes_update(io) {
            return self.update_key(io).map(Next::Step);
        }
        self.pass(io, count).map(Next::Step)
    }

    /// So many bytes at the front of `scratch`, which are a plain source's.
    pub(super) fn pass(&self, io: &mut Io<'_>, count: usize) -> Result<Step, Fault> {
        let bytes = io.scratch.get(..count).unwrap_or_default();
        let out_records = self.give(io.ciphers, io.record, bytes, io.out)?;
        let taken = narrow(count);
        Ok(Step { in_len: taken, out_records, moves: taken, ..self.giving(io) })
    }

    fn take_records(&mut self, protocol: Protocol, io: &mut Io<'_>) -> Result<Next, Fault> {
        let at_source = |broken| (Part::Source, broken);
        let carried = self.carried.len();
        if let Some(to) = io.scratch.get_mut(..carried) {
            to.copy_from_slice(&self.carried);
        }
        // More than a step takes would be copied in vain; the longest record has to fit.
        let end = (self.chunk() / MOST_PLAINTEXT * protocol.longest_record()).min(io.scratch.len());
        let window = io.scratch.get_mut(carried..end).unwrap_or_default();
        let room = window.len();
        let peeked = match io.source.look(window).map_err(at_source)? {
            Look::Dry => {
                if self.carried.is_empty() {
                    self.drop_carry(io.record);
                }
                return Ok(Next::Dry);
            }
            // RFC 8446 section 6.1: without close_notify, what came may not be all.
            Look::End { .. } => {
                self.note_end(io.record, true);
                return Ok(Next::Other);
            }
            Look::Data(bytes) => bytes.len(),
        };
        failpoint!("step.peeked");
        let owes_update = self.owes_update(io);
        match self.open(protocol, io, carried + peeked, owes_update)? {
            Found::Step(step) => Ok(Next::Step(step)),
            Found::Due => self.update_key(io).map(Next::Step),
            Found::Closed => {
                self.note_end(io.record, false);
                Ok(Next::Other)
            }
            // Behind it there may be an end, whose event has been.
            Found::Part if peeked < room => self.carry(io, carried, peeked).map(|()| Next::Other),
            // No record is longer than the window.
            Found::Part => Err(at_source(Broken::Protocol)),
        }
    }

    /// Opens whole records at the front of `scratch`: as many with data as a step takes, or one that is something else. Of
    /// data none is taken while our key update has to go ahead of it.
    pub(super) fn open(
        &mut self,
        protocol: Protocol,
        io: &mut Io<'_>,
        total: usize,
        owes_update: bool,
    ) -> Result<Found, Fault> {
        let Io { record, scratch, out, ciphers, .. } = io;
        let of = self.opener(record);
        ciphers.ready(of, |of| self.cipher(record, of))?;
        self.ready_sealer(ciphers, record)?;
        let cipher = ciphers.get(of).ok_or((Part::Source, Broken::Protocol))?;
        let sealer = self.get_sealer(ciphers, record)?;
        let role = role(self.towards.other());
        let chunk = self.chunk();
        let mut step = Step { from: self.at, skip: self.at.skip, ..Step::default() };
        let mut from = 0;
        while out.len() < chunk {
            let waiting = scratch.get_mut(from..total).unwrap_or_default();
            let mut skip = Skip::from(step.skip);
            let seq = number(self.at.rx_seq, step.in_records, Part::Source)?;
            let One { bytes, message, len } =
                match open_one(cipher, protocol, role, seq, waiting, &mut skip) {
                    Ok(Some(opened)) => opened,
                    Ok(None) => break,
                    Err(violation) => return self.complain(record, violation),
                };
            failpoint!("step.opened");
            if message != Message::Data {
                if step.in_records > 0 {
                    // In a step of its own: this one is looked at again.
                    break;
                }
                let skip = u32::from(skip);
                let taken = Step { in_len: narrow(len), in_records: 1, skip, ..step };
                return self.heed(protocol, record, message, taken);
            }
            if bytes.is_empty() {
                self.note_fruitless(record, NOISE)?;
            } else if owes_update {
                if step.in_records > 0 {
                    // Empty ones are ahead of it.
                    break;
                }
                return Ok(Found::Due);
            } else {
                self.fruitless = 0;
            }
            let seq = number(self.at.tx_seq, step.out_records, Part::Target)?;
            step.out_records += give(sealer, seq, bytes, out)?;
            step.in_records += 1;
            step.in_len += narrow(len);
            step.moves += narrow(bytes.len());
            from += len;
        }
        if step.in_records == 0 {
            return Ok(Found::Part);
        }
        step.out_len = narrow(out.len());
        Ok(Found::Step(step))
    }

    /// What a record that is no data asks for; `step` takes it.
    fn heed(
        &mut self,
        protocol: Protocol,
        record: &Record,
        message: Message,
        step: Step,
    ) -> Result<Found, Fault> {
        let (kind, costs) = match message {
            Message::Closed => return Ok(Found::Closed),
            Message::PeerAlert(description) => {
                tracing::debug!(tunnel = record.id, description, "a TLS leg's peer gave up");
                return Err((Part::Source, Broken::Alert));
            }
            Message::Data | Message::Nothing => (Kind::Skip, NOISE),
            Message::KeyUpdate { requested } => {
                let key = (self.towards.other(), Half::Rx);
                self.write_next(record, key, self.at.rx_generation, protocol)?;
                failpoint!("step.rx_secret");
                (Kind::Updated { asks: requested }, KEY_UPDATE)
            }
        };
        self.note_fruitless(record, costs)?;
        Ok(Found::Step(Step { kind, ..step }))
    }

    /// Notes a record that has brought no data.
    fn note_fruitless(&mut self, record: &Record, costs: u16) -> Result<(), Fault> {
        self.fruitless = self.fruitless.saturating_add(costs);
        if self.fruitless > PATIENCE {
            tracing::debug!(tunnel = record.id, "a TLS leg's peer sends nothing but noise");
            self.complaint = Some(UNEXPECTED_MESSAGE);
            return Err((Part::Source, Broken::Protocol));
        }
        Ok(())
    }

    fn complain<T>(&mut self, record: &Record, violation: Violation) -> Result<T, Fault> {
        tracing::debug!(tunnel = record.id, %violation, "a TLS leg broke the protocol");
        self.complaint = Some(violation.alert());
        Err((Part::Source, Broken::Protocol))
    }

    /// Moves the part of a record that is here out of the socket.
    fn carry(&mut self, io: &mut Io<'_>, from: usize, count: usize) -> Result<(), Fault> {
        let part = io.scratch.get(from..from + count).unwrap_or_default();
        if self.carried.is_empty() {
            self.cell(io.record).set_carry_pos(self.at.in_pos);
        }
        if let Err(error) = io.record.slot.write_carry(self.towards(), self.carried.len(), part) {
            tracing::error!(tunnel = io.record.id, %error, "a part of a record cannot be carried");
            return Err((Part::Source, Broken::Protocol));
        }
        self.has_carried = true;
        failpoint!("carry.written");
        self.carried.extend_from_slice(part);
        io.source.take(count, io.scratch).map_err(|broken| (Part::Source, broken))?;
        failpoint!("carry.taken");
        Ok(())
    }
}

/// Opens the record at the front of `waiting`: `None` where that is not whole.
fn open_one<'a>(
    cipher: &Cipher,
    protocol: Protocol,
    role: Role,
    seq: u64,
    waiting: &'a mut [u8],
    skip: &mut Skip,
) -> Result<Option<One<'a>>, Violation> {
    let Framed::Whole { len } = record::frame(protocol, waiting)? else { return Ok(None) };
    let opened = cipher.open(seq, waiting.get_mut(..len).unwrap_or_default())?;
    let message = record::read(protocol, role, &opened, skip)?;
    Ok(Some(One { bytes: opened.plaintext, message, len }))
}

/// Which end of a leg's session is ours.
fn role(side: Side) -> Role {
    match side {
        Side::Client => Role::Server,
        Side::Backend => Role::Client,
    }
}
