//! A successor's first look at such a direction: which step was under way, and how much of it is done.
//!
//! The step that is written down says where it begins and what it gives; the kernel says how much of that the target has.
//! What is lacking is made again from what the source still holds. Counters that fit no step end the tunnel.

use thiserror::Error;

use super::take::Found;
use super::{End, Fault, Io, Steps, UnderWay, narrow};
use crate::tls::keys::Protocol;
use crate::tls::record;
use crate::tunnel::arena::CARRY;
use crate::tunnel::arena::sessions::{Kind, Step};
use crate::tunnel::counters::Snapshot;
use crate::tunnel::flow::prelude_mark;
use crate::tunnel::leg::Side;

/// What stands in the arena and what the kernel has counted do not belong together.
#[derive(Debug, Error)]
pub(in crate::tunnel) enum Unfit {
    /// No step is written down, or none that this version knows.
    #[error("no step is written down")]
    NoStep,
    /// The target has less than the step began with, or more than it gives.
    #[error("the target has {has} bytes, and {step:?} was under way")]
    Given {
        /// What it has.
        has: u64,
        /// The step.
        step: Box<Step>,
    },
    /// The source is short of where the step began, or too far ahead.
    #[error("{taken} bytes of the source are taken, and {step:?} was under way")]
    Taken {
        /// How many are.
        taken: u64,
        /// The step.
        step: Box<Step>,
    },
    /// Its first bytes are not all there.
    #[error("{bytes} bytes of a prelude of {length} are written down")]
    Prelude {
        /// How many there are.
        bytes: usize,
        /// How many there should be.
        length: u64,
    },
    /// What the source holds does not make what was given.
    #[error("the source does not hold what {step:?} was made of")]
    Source {
        /// The step.
        step: Box<Step>,
    },
}

// === impl Steps ===

impl Steps {
    /// Takes a direction up. What the target has wholly is discarded from the source here; what it has in part is made
    /// again.
    pub(in crate::tunnel) fn resume(
        towards: Side,
        protocols: [Option<Protocol>; 2],
        [source, target]: [&Snapshot; 2],
        io: &mut Io<'_>,
    ) -> Result<Self, Unfit> {
        let mut this = Self::new(towards, protocols, io.record, Vec::new(), Vec::new());
        let cell = io.record.cell();
        let bases = cell.bases(this.towards());
        this.prelude_len = cell.prelude_len(this.towards());
        this.has_carried = this.cell(io.record).carry_pos() != 0;
        let step = this.cell(io.record).step().ok_or(Unfit::NoStep)?;
        this.at = step.end();
        if target.own_fin() {
            this.done = true;
            return Ok(this);
        }
        let unfit_given = |has| Unfit::Given { has, step: Box::new(step) };
        let given = target.accepted().wrapping_sub(bases.accepted);
        let sent = given.checked_sub(step.from.out_pos).filter(|sent| *sent <= step.out_len.into());
        let sent = sent.ok_or_else(|| unfit_given(given))?;
        let unfit_taken = |taken| Unfit::Taken { taken, step: Box::new(step) };
        let consumed = source.consumed(io.source.is_reset()).wrapping_sub(bases.received);
        let taken = this.prelude_len.wrapping_add(consumed);
        // What was taken of the prelude, nobody counts.
        let base = |pos: u64| pos.max(this.prelude_len);
        let is_through = sent == u64::from(step.out_len);
        let end = base(if is_through { this.at.in_pos } else { step.from.in_pos });
        if taken < base(step.from.in_pos) {
            return Err(unfit_taken(taken));
        }
        if is_through && taken < end {
            discard(end - taken, io);
        } else {
            let carried = taken - end;
            if carried > 0 {
                if this.cell(io.record).carry_pos() != end {
                    return Err(unfit_taken(taken));
                }
                let carried = usize::try_from(carried).map_err(|_| unfit_taken(taken))?;
                this.carried = vec![0; carried.min(CARRY)];
                let read = io.record.slot.read_carry(this.towards(), 0, &mut this.carried);
                if read != carried {
                    return Err(unfit_taken(taken));
                }
            }
        }
        if !is_through {
            this.at = step.from;
        }
        if this.at.in_pos < this.prelude_len {
            this.prelude = io.record.slot.read_prelude(this.towards());
            if this.prelude.len() as u64 != this.prelude_len {
                return Err(Unfit::Prelude { bytes: this.prelude.len(), length: this.prelude_len });
            }
        } else if this.prelude_len > 0 {
            io.record.mark(prelude_mark(towards));
            io.record.slot.drop_preludes();
        }
        if step.kind == Kind::Close {
            this.source_end = Some(End { truncated: false });
            this.closed = is_through;
        }
        if !is_through {
            this.make_again(step, sent, io)?;
        }
        Ok(this)
    }

    fn make_again(&mut self, step: Step, sent: u64, io: &mut Io<'_>) -> Result<(), Unfit> {
        io.out.clear();
        let made = self.again(&step, io);
        let same = matches!(made, Ok(Some(again)) if again == step);
        let rest = usize::try_from(sent).ok().and_then(|sent| io.out.get(sent..));
        let Some(rest) = rest.filter(|_| same) else {
            return Err(Unfit::Source { step: Box::new(step) });
        };
        self.under_way = Some(Box::new(UnderWay { step, rest: rest.to_vec(), sent: 0 }));
        Ok(())
    }

    /// Makes what a step gives from what is left of what it takes; answers the step that comes of it.
    fn again(&mut self, step: &Step, io: &mut Io<'_>) -> Result<Option<Step>, Fault> {
        let length = step.in_len as usize;
        match step.kind {
            Kind::Skip | Kind::Updated { .. } => Ok(None),
            Kind::Update { .. } => {
                self.say(io, record::Kind::Handshake, &record::key_update(false))?;
                Ok(Some(Step { kind: step.kind, out_records: 1, ..self.giving(io) }))
            }
            Kind::Close => self.close(io).map(Some),
            Kind::Data if !self.prelude.is_empty() => self.take_prelude(io, length).map(Some),
            Kind::Data => {
                let carried = self.carried.len();
                let (Some(front), Some(window)) =
                    (io.scratch.get_mut(..carried), step.in_len.checked_sub(narrow(carried)))
                else {
                    return Ok(None);
                };
                front.copy_from_slice(&self.carried);
                let window = io.scratch.get_mut(carried..carried + window as usize);
                let Some(window) = window else { return Ok(None) };
                if io.source.peek_again(window) != window.len() {
                    return Ok(None);
                }
                match self.source {
                    // Whether a key update goes ahead of it was decided before it was written down.
                    Some(protocol) => match self.open(protocol, io, length, false)? {
                        Found::Step(step) => Ok(Some(step)),
                        Found::Closed | Found::Part | Found::Due => Ok(None),
                    },
                    None => self.pass(io, length).map(Some),
                }
            }
        }
    }
}

/// The target has these already.
fn discard(count: u64, io: &mut Io<'_>) {
    let mut left = count;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(io.scratch.len());
        // A queue that holds less than the counters say breaks the tunnel at its next look, not here.
        match io.source.discard(most, io.scratch) {
            Ok(0) | Err(_) => break,
            Ok(count) => left = left.saturating_sub(count as u64),
        }
    }
}
