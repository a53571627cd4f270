//! One direction of a tunnel, whichever way it goes about it, and what it works with.

use std::io;

use super::direction::Direction;
use crate::tls::keys::Protocol;
use crate::tunnel::arena::Intake;
use crate::tunnel::ciphers::Ciphers;
use crate::tunnel::flow::Flow;
use crate::tunnel::leg::Leg;
use crate::tunnel::record::Record;
use crate::tunnel::steps::{Io, Steps};

/// What a thread's tunnels take turns with.
#[derive(Debug)]
pub(in crate::tunnel) struct Buffers {
    /// What a peek shows.
    pub(in crate::tunnel) scratch: Box<[u8]>,
    /// What is sealed of it, or put together; empty between turns but for its room.
    pub(super) out: Vec<u8>,
    /// Of the tunnels that had turns lately.
    pub(in crate::tunnel) ciphers: Ciphers,
    /// Where bytes are received that a successor can find. None: plain legs are peeked at, as those that cannot move are.
    pub(super) intake: Option<Intake>,
}

/// One direction.
#[derive(Debug)]
pub(super) enum Way {
    /// Bytes pass as they are; rustls may stand in between, where a session could not leave it.
    Bytes(Direction),
    /// A leg runs TLS, and the session is ours.
    Records(Box<Steps>),
}

// === impl Buffers ===

impl Buffers {
    pub(in crate::tunnel) fn new(scratch: usize, intake: Option<Intake>) -> io::Result<Self> {
        let scratch = vec![0; scratch].into_boxed_slice();
        Ok(Self { scratch, out: Vec::new(), ciphers: Ciphers::new()?, intake })
    }
}

// === impl Way ===

impl Way {
    pub(super) fn pump(
        &mut self,
        source: &mut Leg,
        target: &mut Leg,
        record: &Record,
        buffers: &mut Buffers,
        asked: u32,
    ) -> Flow {
        let mut flow = Flow::default();
        let outcome = match self {
            Self::Bytes(direction) => direction.advance(source, target, record, buffers, &mut flow),
            Self::Records(steps) => {
                let Buffers { scratch, out, ciphers, .. } = buffers;
                let mut io = Io { source, target, record, scratch, out, ciphers, asked };
                steps.advance(&mut io, &mut flow)
            }
        };
        flow.broken = outcome.err();
        flow
    }

    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Bytes(direction) => direction.done,
            Self::Records(steps) => steps.done,
        }
    }

    /// How often the source's peer has asked for a key update.
    pub(super) fn asked(&self) -> u32 {
        match self {
            Self::Bytes(_) => 0,
            Self::Records(steps) => steps.asked(),
        }
    }

    pub(super) fn complaint(&self) -> u8 {
        match self {
            Self::Bytes(_) => 0,
            Self::Records(steps) => steps.complaint(),
        }
    }

    pub(super) fn last_word(&self, target: &mut Leg, record: &Record, alert: [u8; 2]) {
        if let Self::Records(steps) = self {
            steps.last_word(target, record, alert);
        }
    }
}

/// The protocols of a tunnel with sessions of ours: of source and target, towards the backend and towards the client.
pub(super) fn protocols(record: &Record) -> Option<[[Option<Protocol>; 2]; 2]> {
    let [client, backend] = record.cell().protocols();
    (client.is_some() || backend.is_some()).then_some([[client, backend], [backend, client]])
}
