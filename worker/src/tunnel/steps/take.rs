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

/// Records in a row that bring nothing. As many as rustls takes of one kind.
const FRUITLESS: u8 = 32;
/// TLS alert (RFC 8446 section 6.2).
const UNEXPECTED_MESSAGE: u8 = 10;

/// What stands at the front of what was peeked.
pub(super) enum Found {
    Step(Step),
    /// The peer's `close_notify`.
    Closed,
    /// A record of which more has to come.
    Part,
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
        if let Some(step) = self.update_key(io)? {
            return Ok(Next::Step(step));
        }
        if !self.prelude.is_empty() {
            return self.take_prelude(io, self.chunk()).map(Next::Step);
        }
        match self.source {
            Some(protocol) => self.take_records(protocol, io),
            None => self.take_bytes(io),
        }
    }

    /// Our key update, before the cipher's limit or because the peer wants it.
    fn update_key(&self, io: &mut Io<'_>) -> Result<Option<Step>, Fault> {
        let Some(protocol) = self.target else { return Ok(None) };
        let worn = self.at.tx_seq >= record::record_limit(protocol);
        let wanted = self.at.answered != io.asked;
        if !worn && !wanted {
            return Ok(None);
        }
        if protocol.version == Version::Tls12 {
            // It has no key update: this is all that one session can carry.
            tracing::warn!(tunnel = io.record.id, "a TLS 1.2 session is worn out");
            return Err((Part::Target, Broken::Protocol));
        }
        let kind = Kind::Update { answered: io.asked };
        self.say(io, record::Kind::Handshake, &record::key_update(false))?;
        self.write_next(io.record, (self.towards, Half::Tx), self.at.tx_generation, protocol)?;
        failpoint!("step.tx_secret");
        Ok(Some(Step { kind, out_records: 1, ..self.giving(io) }))
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
        match self.open(protocol, io, carried + peeked)? {
            Found::Step(step) => Ok(Next::Step(step)),
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

    /// Opens whole records at the front of `scratch`: as many with data as a step takes, or one that is something else.
    pub(super) fn open(
        &mut self,
        protocol: Protocol,
        io: &mut Io<'_>,
        total: usize,
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
            self.note_fruit(record, !bytes.is_empty())?;
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
        let kind = match message {
            Message::Closed => return Ok(Found::Closed),
            Message::PeerAlert(description) => {
                tracing::debug!(tunnel = record.id, description, "a TLS leg's peer gave up");
                return Err((Part::Source, Broken::Alert));
            }
            Message::Data | Message::Nothing => Kind::Skip,
            Message::KeyUpdate { requested } => {
                let key = (self.towards.other(), Half::Rx);
                self.write_next(record, key, self.at.rx_generation, protocol)?;
                failpoint!("step.rx_secret");
                Kind::Updated { asks: requested }
            }
        };
        self.note_fruit(record, false)?;
        Ok(Found::Step(Step { kind, ..step }))
    }

    /// Notes whether a record has brought anything.
    fn note_fruit(&mut self, record: &Record, some: bool) -> Result<(), Fault> {
        if some {
            self.fruitless = 0;
        } else if self.fruitless == FRUITLESS {
            tracing::debug!(tunnel = record.id, "a TLS leg's peer sends nothing but noise");
            self.complaint = Some(UNEXPECTED_MESSAGE);
            return Err((Part::Source, Broken::Protocol));
        } else {
            self.fruitless += 1;
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
