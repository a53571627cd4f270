//! What both ends of every tunnel have sent and received, in one file that the tool and its backends share.
//!
//! It is the account at the moment of a kill: it never asks the gateway. Each end writes its own half only. Plain reads
//! and writes of a file that lies in memory: a look at 2,000 tunnels costs microseconds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::plan::Role;

/// Numbers in a half.
const WORDS: usize = 4;
const HALF: usize = WORDS * 8;
const SLOT: usize = 2 * HALF;
/// The slots begin here; before them is the word that tells backends to finish.
const HEAD: usize = 64;

/// In [`Half::flags`]: the 101 was received, or sent.
pub(crate) const OPEN: u64 = 1;
/// Everything that was to be sent is sent, FIN included.
pub(crate) const FIN_SENT: u64 = 2;
/// The other side's FIN has come.
pub(crate) const FIN_SEEN: u64 = 4;
/// This end has left the tunnel.
pub(crate) const DONE: u64 = 8;
/// It does not read now, by its own choice.
pub(crate) const PAUSED: u64 = 16;
/// The client is connected to the listener of this number, in the bits from here on.
const LISTENER_SHIFT: u32 = 32;

/// One end's account of one tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Half {
    /// The tunnel; 0 while there was none.
    pub(crate) id: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) flags: u64,
}

impl Half {
    pub(crate) fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn on_listener(mut self, listener: usize) -> Self {
        self.flags |= (listener as u64) << LISTENER_SHIFT;
        self
    }

    pub(crate) fn listener(&self) -> usize {
        (self.flags >> LISTENER_SHIFT) as usize
    }

    fn to_bytes(self) -> [u8; HALF] {
        let mut bytes = [0; HALF];
        let words = [self.id, self.sent, self.received, self.flags];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let word = |index: usize| {
            let place = bytes.get(index * 8..index * 8 + 8);
            place.and_then(|place| place.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        Self { id: word(0), sent: word(1), received: word(2), flags: word(3) }
    }
}

/// Both ends' accounts of one tunnel, the client's first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    pub(crate) halves: [Half; 2],
}

impl Slot {
    /// Whether what that side has sent is still waited for: by the other end of the same tunnel, though the sender itself
    /// may have left it.
    pub(crate) fn flows(&self, from: Role) -> bool {
        let [client, backend] = &self.halves;
        let receiver = &self.halves[from.other().index()];
        client.id == backend.id && client.is(OPEN) && backend.is(OPEN) && !receiver.is(DONE)
    }

    /// Bytes on the way from that side.
    pub(crate) fn in_flight(&self, from: Role) -> u64 {
        if !self.flows(from) {
            return 0;
        }
        let receiver = &self.halves[from.other().index()];
        self.halves[from.index()].sent.saturating_sub(receiver.received)
    }

    /// Whether one direction has ended and the other has not.
    pub(crate) fn half_closed(&self) -> bool {
        let [client, backend] = &self.halves;
        let open = self.flows(Role::Client) || self.flows(Role::Backend);
        open && client.is(FIN_SENT) != backend.is(FIN_SENT)
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Board(File);

impl Board {
    pub(crate) fn create(path: &Path, slots: usize) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len((HEAD + slots * SLOT) as u64)?;
        Ok(Self(file))
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::options().read(true).write(true).open(path)?))
    }

    pub(crate) fn write(&self, slot: usize, role: Role, half: &Half) -> io::Result<()> {
        let place = HEAD + slot * SLOT + role.index() * HALF;
        self.0.write_all_at(&half.to_bytes(), place as u64)
    }

    pub(crate) fn read(&self, slot: usize) -> io::Result<Slot> {
        let mut bytes = [0; SLOT];
        self.0.read_exact_at(&mut bytes, (HEAD + slot * SLOT) as u64)?;
        Ok(parse(&bytes))
    }

    /// The first `count` slots.
    pub(crate) fn read_all(&self, count: usize, bytes: &mut Vec<u8>) -> io::Result<Vec<Slot>> {
        bytes.resize(count * SLOT, 0);
        self.0.read_exact_at(bytes, HEAD as u64)?;
        Ok(bytes.chunks_exact(SLOT).map(parse).collect())
    }

    /// Tells every end to finish what it is at.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.0.write_all_at(&[1], 0)
    }

    pub(crate) fn finishing(&self) -> bool {
        let mut byte = [0];
        self.0.read_exact_at(&mut byte, 0).is_ok_and(|()| byte == [1])
    }
}

fn parse(bytes: &[u8]) -> Slot {
    let (client, backend) = bytes.split_at(HALF);
    Slot { halves: [Half::from_bytes(client), Half::from_bytes(backend)] }
}
