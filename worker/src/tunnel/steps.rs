//! One direction of a tunnel with a TLS leg: bytes come in, records are opened or sealed, bytes go out.
//!
//! It goes by steps. A step takes bytes of the source and gives bytes to the target, and is written down (what it takes,
//! what it gives, under which numbers) before the first of these goes out; only when all have gone are the former
//! discarded. What it gives depends on nothing but what is written down and what it takes, so a successor that finds a
//! step half done makes the same bytes again and sends the rest: whatever dies when, no number is ever used for two
//! plaintexts. There is one exception, for the last word of a tunnel that is being ended: after it nobody seals anything.
//!
//! A record that is not whole is moved into the carry slot: left in the socket it could keep its own rest from coming.

use holdfast_proto::{failpoint, planted};

use super::arena::sessions::{DirectionCell, Half, Kind, Position, Step};
use super::arena::{Towards, ends};
use super::ciphers::{Ciphers, Of};
use super::flow::{End, Flow, Part, TURN, fin_mark, prelude_mark};
use super::leg::{Broken, Leg, Side};
use super::record::Record;
use crate::tls::keys::{Protocol, Secret};
use crate::tls::record::{self, Cipher};

mod give;
mod resume;
mod take;

use take::Next;

/// What a step costs at least, in bytes of a turn: a hostile peer may make each of them move next to nothing.
const LEAST: u64 = 4096;
/// TLS alert (RFC 8446 section 6.2): our fault.
const INTERNAL_ERROR: u8 = 80;

/// One direction.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Steps {
    towards: Side,
    /// Of the leg that bytes come from. None: plain.
    source: Option<Protocol>,
    target: Option<Protocol>,
    /// The end of the last step that is done.
    at: Position,
    under_way: Option<Box<UnderWay>>,
    /// Bytes that come before those of the source, from [`Position::in_pos`] 0 on. Empty when they are through.
    prelude: Vec<u8>,
    prelude_len: u64,
    /// Of a record that is not whole; they are in the carry slot.
    carried: Vec<u8>,
    /// The slot has memory, for these or for earlier ones.
    has_carried: bool,
    source_end: Option<End>,
    /// The last step said that no more comes.
    closed: bool,
    pub(super) done: bool,
    /// The last step went out at once.
    has_room: bool,
    /// What the source's peer has done since its last byte of data.
    fruitless: u16,
    /// The alert that the source's peer deserves.
    complaint: Option<u8>,
}

/// A step whose bytes did not all go out at once.
#[derive(Debug)]
struct UnderWay {
    step: Step,
    rest: Vec<u8>,
    sent: usize,
}

/// What a step works with.
pub(super) struct Io<'a> {
    pub(super) source: &'a mut Leg,
    pub(super) target: &'a mut Leg,
    pub(super) record: &'a Record,
    pub(super) scratch: &'a mut [u8],
    /// What the step at hand gives.
    pub(super) out: &'a mut Vec<u8>,
    pub(super) ciphers: &'a mut Ciphers,
    /// How often the target's peer has asked for a key update. What it is owed shows in the difference to what was
    /// [answered](Position::answered), which a successor finds as well.
    pub(super) asked: u32,
}

type Fault = (Part, Broken);

// === impl Steps ===

impl Steps {
    /// A direction that begins where its cell says. `partial` are bytes of the source's first record that are in the
    /// carry slot.
    pub(super) fn new(
        towards: Side,
        [source, target]: [Option<Protocol>; 2],
        record: &Record,
        prelude: Vec<u8>,
        partial: Vec<u8>,
    ) -> Self {
        let at = record.slot.sessions().direction(towards.into()).step();
        let mut this = Self {
            towards,
            source,
            target,
            at: at.unwrap_or_default().end(),
            under_way: None,
            prelude_len: prelude.len() as u64,
            prelude,
            has_carried: !partial.is_empty(),
            carried: partial,
            source_end: None,
            closed: false,
            done: false,
            has_room: true,
            fruitless: 0,
            complaint: None,
        };
        if record.is_marked(this.closed_mark()) {
            this.source_end = Some(End { truncated: false });
            record.note_end(this.towards.other(), false);
        }
        this
    }

    /// Peers' bytes that have gone this way.
    pub(super) fn moved(&self) -> u64 {
        self.at.moved
    }

    /// How often the source's peer has asked for a key update.
    pub(super) fn asked(&self) -> u32 {
        self.at.asked
    }

    /// The alert that the source's peer deserves, should it have broken the protocol.
    pub(super) fn complaint(&self) -> u8 {
        self.complaint.unwrap_or(INTERNAL_ERROR)
    }

    /// Goes on as far as source, target and the turn's bound allow.
    pub(super) fn advance(&mut self, io: &mut Io<'_>, flow: &mut Flow) -> Result<(), Fault> {
        while !self.done {
            if !self.send_rest(io, flow)? {
                return Ok(());
            }
            if flow.spent >= 2 * TURN {
                flow.more = true;
                return Ok(());
            }
            let unsaid = |end: End| end.truncated || self.target.is_none();
            if self.closed || self.prelude.is_empty() && self.source_end.is_some_and(unsaid) {
                return self.finish(io);
            }
            if !io.target.takes().map_err(|broken| (Part::Target, broken))? {
                return Ok(());
            }
            io.out.clear();
            match self.next(io)? {
                Next::Step(step) => self.begin(step, io, flow)?,
                Next::Other => {}
                Next::Dry => return Ok(()),
            }
        }
        Ok(())
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        io.record.mark(fin_mark(self.towards));
        failpoint!("step.fin_marked");
        // A session of ours has had its close_notify; rustls's is told what to say.
        let truncated = self.source_end.is_none_or(|end| end.truncated);
        self.done = io.target.finish(truncated).map_err(|broken| (Part::Target, broken))?;
        failpoint!("step.fin_sent");
        Ok(())
    }

    /// Writes a step down and carries it out, as far as the target has room.
    fn begin(&mut self, step: Step, io: &mut Io<'_>, flow: &mut Flow) -> Result<(), Fault> {
        failpoint!("step.before");
        self.cell(io.record).begin(&step);
        failpoint!("step.begun");
        let sent = if io.out.is_empty() {
            0
        } else {
            io.target.put(io.out).map_err(|broken| (Part::Target, broken))?
        };
        if planted!("send-twice") {
            io.target.put(io.out).map_err(|broken| (Part::Target, broken))?;
        }
        failpoint!("step.sent");
        self.has_room = sent == io.out.len();
        if self.has_room {
            return self.end_step(&step, io, flow);
        }
        // Data that comes meanwhile must not be taken for what was seen here.
        io.source.forget_look();
        let rest = io.out.get(sent..).unwrap_or_default().to_vec();
        self.under_way = Some(Box::new(UnderWay { step, rest, sent: 0 }));
        Ok(())
    }

    /// False: the target has no room.
    fn send_rest(&mut self, io: &mut Io<'_>, flow: &mut Flow) -> Result<bool, Fault> {
        while let Some(under_way) = self.under_way.as_mut() {
            let rest = under_way.rest.get(under_way.sent..).unwrap_or_default();
            if rest.is_empty() {
                let step = under_way.step;
                self.under_way = None;
                self.end_step(&step, io, flow)?;
                break;
            }
            let sent = io.target.put(rest).map_err(|broken| (Part::Target, broken))?;
            failpoint!("step.sent");
            if sent == 0 {
                return Ok(false);
            }
            under_way.sent += sent;
        }
        Ok(true)
    }

    /// All has gone out: what it was made of can go.
    fn end_step(&mut self, step: &Step, io: &mut Io<'_>, flow: &mut Flow) -> Result<(), Fault> {
        let from_prelude = step.from.in_pos < self.prelude_len;
        if step.in_len > 0 && !from_prelude {
            let in_socket = (step.in_len as usize).saturating_sub(self.carried.len());
            io.source.take(in_socket, io.scratch).map_err(|broken| (Part::Source, broken))?;
            failpoint!("step.taken");
            self.carried = Vec::new();
        }
        self.drop_superseded(step, io);
        self.at = step.end();
        if from_prelude && self.at.in_pos >= self.prelude_len {
            self.prelude = Vec::new();
            io.record.mark(prelude_mark(self.towards));
            io.record.slot.drop_preludes();
        }
        self.closed |= step.kind == Kind::Close;
        flow.moved += u64::from(step.moves);
        flow.spent += u64::from(step.in_len).saturating_add(step.out_len.into()).max(LEAST);
        Ok(())
    }

    /// What opens the source's records.
    fn opener(&self, record: &Record) -> Of {
        Of::new(record, (self.towards.other(), Half::Rx), self.at.rx_generation)
    }

    /// What seals the target's.
    fn sealer(&self, record: &Record) -> Of {
        Of::new(record, (self.towards, Half::Tx), self.at.tx_generation)
    }

    fn cipher(&self, record: &Record, of: Of) -> Result<Cipher, Fault> {
        let (part, protocol) = match of.half.1 {
            Half::Rx => (Part::Source, self.source),
            Half::Tx => (Part::Target, self.target),
        };
        let secret = self.secret(record, of.half, of.generation)?;
        let cipher = protocol.and_then(|protocol| Cipher::new(protocol, &secret).ok());
        cipher.ok_or((part, Broken::Protocol))
    }

    /// What was sealed or opened under the secret before stays as it is: nobody makes it again.
    fn drop_superseded(&self, step: &Step, io: &mut Io<'_>) {
        match step.kind {
            Kind::Updated { .. } => io.ciphers.supersede(self.opener(io.record)),
            Kind::Update { .. } => io.ciphers.supersede(self.sealer(io.record)),
            Kind::Data | Kind::Skip | Kind::Close => {}
        }
    }

    fn secret(&self, record: &Record, of: (Side, Half), generation: u32) -> Result<Secret, Fault> {
        let (part, protocol) = match of.1 {
            Half::Rx => (Part::Source, self.source),
            Half::Tx => (Part::Target, self.target),
        };
        let secret =
            protocol.and_then(|protocol| record.slot.sessions().secret(of, generation, protocol));
        secret.ok_or((part, Broken::Protocol))
    }

    /// Writes the secret after that of `generation` down.
    fn write_next(
        &self,
        record: &Record,
        of: (Side, Half),
        generation: u32,
        protocol: Protocol,
    ) -> Result<(), Fault> {
        let secret = self.secret(record, of, generation)?;
        let next = record::next_secret(protocol, &secret);
        let part = if of.1 == Half::Rx { Part::Source } else { Part::Target };
        let next = next.ok_or((part, Broken::Protocol))?;
        record.slot.sessions().set_secret(of, generation.wrapping_add(1), &next);
        Ok(())
    }

    fn note_end(&mut self, record: &Record, truncated: bool) {
        self.source_end = Some(End { truncated });
        record.note_end(self.towards.other(), truncated);
        if !truncated && self.source.is_some() {
            record.mark(self.closed_mark());
        }
        self.carried = Vec::new();
        self.drop_carry(record);
        failpoint!("step.end_seen");
    }

    fn drop_carry(&mut self, record: &Record) {
        if std::mem::take(&mut self.has_carried) {
            record.slot.drop_carry(self.towards());
        }
    }

    fn cell<'a>(&self, record: &'a Record) -> &'a DirectionCell {
        record.slot.sessions().direction(self.towards())
    }

    fn closed_mark(&self) -> u64 {
        match self.towards.other() {
            Side::Client => ends::CLIENT_CLOSED,
            Side::Backend => ends::BACKEND_CLOSED,
        }
    }

    fn towards(&self) -> Towards {
        self.towards.into()
    }
}

/// Lengths within a step: far below 2^32.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The number of the record that comes so many after `first`. The last one is not used: a count that is written down could not
/// tell that it was, and no number may come again (RFC 8446 section 5.3).
fn number(first: u64, later: u32, part: Part) -> Result<u64, Fault> {
    let number = first.checked_add(later.into()).filter(|number| *number < u64::MAX);
    number.ok_or((part, Broken::Protocol))
}
