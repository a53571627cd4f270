//! One direction of a tunnel whose bytes pass as they are: peek, send, discard. rustls may stand behind a leg, where its
//! session could not leave; here that is all the same.

use holdfast_proto::{failpoint, planted};

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
}

#[derive(Debug)]
pub(super) struct Prelude {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    /// Bytes at the front that are not the peers': the 101.
    pub(super) uncounted: usize,
}

// === impl Direction ===

impl Direction {
    pub(super) fn new(towards: Side, bytes: Vec<u8>, uncounted: usize) -> Self {
        let prelude = (!bytes.is_empty()).then(|| Box::new(Prelude { bytes, sent: 0, uncounted }));
        Self { towards, prelude, source_end: None, done: false }
    }

    pub(super) fn advance(
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
                    record.note_end(self.towards.other(), truncated);
                    failpoint!("relay.end_seen");
                    break;
                }
            };
            source.take(moved, scratch).map_err(at_source)?;
            failpoint!("relay.discarded");
            flow.moved += moved as u64;
        }
        if let Some(end) = self.source_end {
            record.mark(fin_mark(self.towards));
            failpoint!("relay.fin_marked");
            self.done = target.finish(end.truncated).map_err(at_target)?;
            failpoint!("relay.fin_sent");
        }
        Ok(())
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
