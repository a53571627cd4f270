//! One direction of a tunnel whose bytes pass as they are.
//!
//! They are received into the thread's intake and sent on; a death in between leaves them where a successor finds them. What
//! the target has no room for goes into the carry slot: from then on, until the target has caught up, bytes are peeked
//! at and leave the source's queue only when the target has them. So it is always for a tunnel that cannot move, in which
//! rustls may stand behind a leg.

use std::ops::Range;

use holdfast_proto::{failpoint, planted};

use super::way::Buffers;
use crate::tunnel::arena::{Intake, Towards};
use crate::tunnel::flow::{End, Flow, Part, TURN, fin_mark, prelude_mark};
use crate::tunnel::leg::{Broken, Leg, Look, Side};
use crate::tunnel::record::Record;

#[derive(Debug)]
pub(super) struct Direction {
    /// Where its bytes go.
    pub(super) towards: Side,
    pub(super) prelude: Option<Box<Prelude>>,
    pub(super) source_end: Option<End>,
    pub(super) done: bool,
    /// The target was full: until it has caught up, bytes stay in the source's queue.
    wary: bool,
    /// Bytes that were taken of the source since the tunnel began.
    pub(super) taken: u64,
    /// Those in the carry slot that the target has not taken yet.
    kept: Range<u32>,
}

#[derive(Debug)]
pub(super) struct Prelude {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    /// Bytes at the front that are not the peers': the 101.
    pub(super) uncounted: usize,
}

/// What came of a look at the source.
enum Moved {
    Some,
    /// Nothing until something comes.
    Dry,
    End,
}

type Fault = (Part, Broken);

// === impl Direction ===

impl Direction {
    pub(super) fn new(towards: Side, bytes: Vec<u8>, uncounted: usize) -> Self {
        let prelude = (!bytes.is_empty()).then(|| Box::new(Prelude { bytes, sent: 0, uncounted }));
        Self { towards, prelude, source_end: None, done: false, wary: false, taken: 0, kept: 0..0 }
    }

    pub(super) fn advance(
        &mut self,
        source: &mut Leg,
        target: &mut Leg,
        record: &Record,
        buffers: &mut Buffers,
        flow: &mut Flow,
    ) -> Result<(), Fault> {
        let Buffers { scratch, intake, .. } = buffers;
        if self.done
            || !self.send_prelude(target, record, flow).map_err(at_target)?
            || !self.send_kept(target, record, scratch, flow).map_err(at_target)?
        {
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
            let intake = intake.as_mut().filter(|_| self.may_receive(record));
            let moved = match intake {
                Some(_) if !source.is_readable() => Moved::Dry,
                Some(intake) => {
                    let moved = self.receive(source, target, record, intake, flow);
                    // Whatever came of it: a note that stays behind would be taken for bytes.
                    intake.end();
                    failpoint!("intake.ended");
                    moved?
                }
                None => self.peek(source, target, scratch, flow)?,
            };
            match moved {
                Moved::Some => {}
                Moved::Dry => return Ok(()),
                Moved::End => record.note_end(self.towards.other(), self.truncated()),
            }
        }
        failpoint!("relay.end_seen");
        record.mark(fin_mark(self.towards));
        failpoint!("relay.fin_marked");
        self.done = target.finish(self.truncated()).map_err(at_target)?;
        failpoint!("relay.fin_sent");
        Ok(())
    }

    fn truncated(&self) -> bool {
        self.source_end.is_some_and(|end| end.truncated)
    }

    /// Whether a successor would find what is received. One that cannot move has none, and may have rustls at a leg.
    fn may_receive(&self, record: &Record) -> bool {
        let peeks = [planted!("peek"), planted!("skip-discard")];
        let receives = [!self.wary, planted!("receive")];
        record.is_portable() && receives.contains(&true) && !peeks.contains(&true)
    }

    /// Receive, send: what the target has no room for goes into the carry slot.
    fn receive(
        &mut self,
        source: &mut Leg,
        target: &mut Leg,
        record: &Record,
        intake: &mut Intake,
        flow: &mut Flow,
    ) -> Result<Moved, Fault> {
        let from = self.taken;
        let room = intake.begin(record.id, self.towards.into(), from);
        failpoint!("intake.noted");
        let bytes = match source.receive(room).map_err(at_source)? {
            Look::Data(bytes) => bytes,
            Look::Dry => return Ok(Moved::Dry),
            Look::End { truncated } => return Ok(self.end(truncated)),
        };
        failpoint!("intake.received");
        self.taken += bytes.len() as u64;
        let sent = target.put(bytes).map_err(at_target)?;
        if planted!("send-twice") {
            target.put(bytes).map_err(at_target)?;
        }
        failpoint!("intake.sent");
        flow.moved += sent as u64;
        let rest = bytes.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            self.keep(record, from, sent, rest).map_err(at_target)?;
        }
        Ok(Moved::Some)
    }

    /// Peek, send, discard: what the target has no room for stays in the source's queue.
    fn peek(
        &mut self,
        source: &mut Leg,
        target: &mut Leg,
        scratch: &mut [u8],
        flow: &mut Flow,
    ) -> Result<Moved, Fault> {
        let most = scratch.len();
        let (moved, all) = match source.look(scratch).map_err(at_source)? {
            Look::Data(bytes) => {
                failpoint!("relay.peeked");
                let moved = target.put(bytes).map_err(at_target)?;
                if planted!("send-twice") {
                    target.put(bytes).map_err(at_target)?;
                }
                failpoint!("relay.sent");
                (moved, moved == bytes.len())
            }
            Look::Dry => return Ok(Moved::Dry),
            Look::End { truncated } => return Ok(self.end(truncated)),
        };
        source.take(moved, scratch).map_err(at_source)?;
        failpoint!("relay.discarded");
        self.taken += moved as u64;
        flow.moved += moved as u64;
        self.wary &= !all || moved == most;
        Ok(Moved::Some)
    }

    fn end(&mut self, truncated: bool) -> Moved {
        self.source_end = Some(End { truncated });
        Moved::End
    }

    /// Puts what the target had no room for where a successor finds it. `from`: of the source, where the received bytes began;
    /// so many of them have been sent.
    fn keep(&mut self, record: &Record, from: u64, sent: usize, rest: &[u8]) -> Result<(), Broken> {
        let towards = self.towards.into();
        record.cell().set_kept(towards, Some(from));
        failpoint!("intake.kept");
        if let Err(error) = record.slot.write_carry(towards, sent, rest) {
            // Or an heir would take a hole for bytes.
            record.cell().set_kept(towards, None);
            tracing::error!(tunnel = record.id, %error, "bytes cannot be kept");
            return Err(Broken::Ours);
        }
        failpoint!("intake.carried");
        self.kept = narrow(sent)..narrow(sent + rest.len());
        self.wary = true;
        Ok(())
    }

    /// Sends what is in the carry slot. True: there is nothing, or nothing any more.
    fn send_kept(
        &mut self,
        target: &mut Leg,
        record: &Record,
        scratch: &mut [u8],
        flow: &mut Flow,
    ) -> Result<bool, Broken> {
        if self.kept.is_empty() {
            return Ok(true);
        }
        let towards = self.towards.into();
        while !self.kept.is_empty() {
            if !target.takes()? {
                return Ok(false);
            }
            let most = self.kept.len().min(scratch.len());
            let bytes = scratch.get_mut(..most).unwrap_or_default();
            let read = record.slot.read_carry(towards, self.kept.start as usize, bytes);
            if read != most {
                tracing::error!(tunnel = record.id, read, kept = ?self.kept, "kept bytes are not there");
                return Err(Broken::Ours);
            }
            let sent = target.put(bytes)?;
            failpoint!("kept.sent");
            self.kept.start += narrow(sent);
            flow.moved += sent as u64;
        }
        drop_kept(record, towards);
        Ok(true)
    }

    /// Takes up what an earlier process has kept: `owed` bytes that follow the `moved` ones.
    pub(super) fn find_kept(&mut self, record: &Record, moved: u64, owed: u64) {
        let towards = self.towards.into();
        let Some(from) = record.cell().kept(towards) else { return };
        if owed == 0 {
            return drop_kept(record, towards);
        }
        // Both lie within a carry slot, or the counters would have been called impossible.
        let start = moved.saturating_sub(from);
        let narrow = |place: u64| u32::try_from(place).unwrap_or(u32::MAX);
        self.kept = narrow(start)..narrow(start + owed);
        self.wary = true;
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
                record.mark(prelude_mark(self.towards));
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

/// Nothing in the carry slot is owed any more.
fn drop_kept(record: &Record, towards: Towards) {
    record.slot.drop_carry(towards);
    failpoint!("kept.dropped");
    record.cell().set_kept(towards, None);
}

fn at_source(broken: Broken) -> Fault {
    (Part::Source, broken)
}

fn at_target(broken: Broken) -> Fault {
    (Part::Target, broken)
}

/// Places within a carry slot.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
