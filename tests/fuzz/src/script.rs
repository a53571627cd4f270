//! From an input's bytes to what comes over the wire, and to what of it the peer has really sealed.
//!
//! Every input means something, and a short one much: three bytes of setting, then one act after the other until the
//! bytes end. Numbers of acts and settings are what `seeds` and the dictionary are written in.

use std::sync::LazyLock;

use crate::book::Book;
use crate::peer::{Outer, Peer};
use crate::theirs::{Kit, kits};
use crate::tls::keys::Version;

/// Most bytes on the wire: enough for a ticket of the longest kind.
const MOST: usize = 160 * 1024;
/// Most acts, so that no input takes long.
const ACTS: usize = 200;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// What happens.
pub(crate) struct Script {
    pub(crate) kit: &'static Kit,
    /// Number of the first record.
    pub(crate) seq: u64,
    pub(crate) wire: Vec<u8>,
    pub(crate) book: Book,
    /// In what pieces it comes, beside all at once.
    pub(crate) cuts: Vec<u8>,
}

struct Player<'a> {
    input: &'a [u8],
    protocol: crate::tls::keys::Protocol,
    peer: Peer,
    book: Book,
    wire: Vec<u8>,
    /// Where on the wire each record began when it was put there, to aim at.
    begins: Vec<usize>,
    /// Of the next record: not the right first bytes, another nonce.
    outer: Option<Outer>,
    explicit: Option<[u8; 8]>,
    padding: usize,
}

/// Plays an input.
pub(crate) fn play(input: &[u8]) -> Script {
    let kits = kits();
    let (setting, acts) = input.split_at(input.len().min(3));
    let [who, number, cut] = [0, 1, 2].map(|at| setting.get(at).copied().unwrap_or(0));
    let kit = &kits[usize::from(who) % kits.len()];
    let seq = match number {
        0..=223 => kit.seq,
        224..=231 => u64::MAX - u64::from(number - 224),
        232..=239 => (1 << 32) - u64::from(number - 231),
        _ => 1 << (4 * (number - 240)),
    };
    let mut player = Player {
        input: acts,
        protocol: kit.protocol,
        peer: Peer::new(kit.protocol, &kit.secret, seq),
        book: Book::new(kit),
        wire: Vec::new(),
        begins: Vec::new(),
        outer: None,
        explicit: None,
        padding: 0,
    };
    for _ in 0..ACTS {
        if player.input.is_empty() || player.wire.len() > MOST {
            break;
        }
        player.act();
    }
    let cuts = match cut {
        0 => Vec::new(),
        1..=127 => vec![cut - 1],
        _ => vec![0, cut - 128, 0, 3],
    };
    Script { kit, seq, wire: player.wire, book: player.book, cuts }
}

// === impl Player ===

impl Player<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.input.split_first() else { return 0 };
        self.input = rest;
        *first
    }

    fn two(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// So many bytes of the input, or what it still has.
    fn literal(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.input.len());
        let (taken, rest) = self.input.split_at(length);
        self.input = rest;
        taken.to_vec()
    }

    fn act(&mut self) {
        match self.byte() % 26 {
            // Sealed as it should be, whatever it says.
            0 => self.seal_literal(DATA),
            1 => self.seal_literal(HANDSHAKE),
            2 => self.seal_literal(ALERT),
            3 => {
                let kind = self.byte();
                self.seal_literal(kind);
            }
            4 => {
                let (kind, length) = (self.byte(), self.two());
                self.seal(kind, &pattern(length.min(17_500)));
            }
            5 => {
                let around = 16_380 + usize::from(self.byte() % 8);
                self.seal(DATA, &pattern(around));
            }
            6 => self.seal_nothing(),
            7 => self.update(),
            8 => self.tickets(),
            9 => self.in_pieces(),
            10 => {
                let [level, description] = [self.byte(), self.byte()];
                self.seal(ALERT, &[level, description]);
            }
            11 => {
                for _ in 0..self.byte() % 40 {
                    self.seal(DATA, &[]);
                }
            }
            // Of the next record.
            12 => self.padding = self.two() % 17_000,
            13 => {
                let near = 16_640 - usize::from(self.byte());
                self.padding = near;
            }
            14 => self.outer = Some([self.byte(), self.byte(), self.byte()]),
            15 => self.explicit = Some([0; 8].map(|_: u8| self.byte())),
            // Of the peer.
            16 => self.peer.turn(),
            17 => self.peer.seq = self.peer.seq.saturating_add(u64::from(self.byte())),
            // Of the wire.
            18 => {
                let raw = self.literal();
                self.wire.extend(raw);
            }
            19 => self.flip(),
            20 => self.lie(),
            21 => self.cut(),
            22 => self.again(),
            23 => self.swap(),
            24 => self.drop_record(),
            _ => {
                let raw = [self.byte(), 3, 3, self.byte(), self.byte()];
                self.wire.extend(raw);
                let length = usize::from(u16::from_be_bytes([raw[3], raw[4]]));
                self.wire.extend(pattern(length));
            }
        }
    }

    fn seal_literal(&mut self, kind: u8) {
        let plaintext = self.literal();
        self.seal(kind, &plaintext);
    }

    fn seal(&mut self, kind: u8, plaintext: &[u8]) {
        let mut inner = plaintext.to_vec();
        if self.protocol.version == Version::Tls13 {
            inner.push(kind);
            inner.resize(inner.len() + std::mem::take(&mut self.padding), 0);
        }
        self.put(kind, &inner);
    }

    /// Nothing but padding; for TLS 1.2, which has none, as data.
    fn seal_nothing(&mut self) {
        let length = self.two() % 17_000;
        self.put(DATA, &vec![0; length]);
    }

    fn put(&mut self, kind: u8, inner: &[u8]) {
        let right = match self.protocol.version {
            Version::Tls12 => [kind, 3, 3],
            Version::Tls13 => [DATA, 3, 3],
        };
        let outer = self.outer.take().unwrap_or(right);
        // Behind the last number there is none.
        let Some(next) = self.peer.seq.checked_add(1) else { return };
        let honest = self.peer.seal(outer, self.explicit.take(), inner);
        self.begins.push(self.wire.len());
        self.wire.extend_from_slice(&honest.record);
        self.book.note(self.peer.generation, self.peer.seq, honest);
        self.peer.seq = next;
    }

    /// A `KeyUpdate`, most often a right one, whose sender most often does what it says.
    fn update(&mut self) {
        let how = self.byte();
        let request = if how & 4 == 0 { how & 1 } else { how };
        self.seal(HANDSHAKE, &[24, 0, 0, 1, request]);
        if how & 8 == 0 {
            self.peer.turn();
        }
    }

    /// Tickets that are right or nearly, one behind the other, in records of some length.
    fn tickets(&mut self) {
        let (how, piece) = (self.byte(), self.two().max(1));
        let mut messages = Vec::new();
        for _ in 0..=how % 3 {
            let length = if how & 8 == 0 { usize::from(self.byte()) } else { self.two() };
            let mut body = vec![0, 0, 0, 60, 1, 2, 3, 4, 2, 7, 7];
            body.extend(u16::try_from(length).unwrap().to_be_bytes());
            body.extend(pattern(length));
            body.extend([0, 0]);
            let claimed = body.len() + usize::from(how >> 4) * 8191;
            messages.push(4);
            messages.extend(&u32::try_from(claimed).unwrap().to_be_bytes()[1..]);
            messages.append(&mut body);
        }
        for piece in messages.chunks(piece.min(1 << 14)).take(300) {
            self.seal(HANDSHAKE, piece);
        }
    }

    /// Any handshake bytes, in records of some length.
    fn in_pieces(&mut self) {
        let piece = usize::from(self.byte()).max(1);
        let messages = self.literal();
        for piece in messages.chunks(piece) {
            self.seal(HANDSHAKE, piece);
        }
    }

    /// Where the last record begins.
    fn last(&self) -> Option<usize> {
        self.begins.last().copied()
    }

    fn flip(&mut self) {
        let (back, by) = (self.two(), self.byte());
        let length = self.wire.len().max(1);
        if let Some(byte) = self.wire.iter_mut().nth_back(back % length) {
            *byte ^= by;
        }
    }

    /// Writes over the last record's header.
    fn lie(&mut self) {
        let (at, value) = (usize::from(self.byte() % 5), self.byte());
        let begin = self.last().unwrap_or(0);
        if let Some(byte) = self.wire.get_mut(begin + at) {
            *byte = value;
        }
    }

    fn cut(&mut self) {
        let less = self.two();
        self.truncate(self.wire.len().saturating_sub(less));
    }

    /// Sends a record again, counted from the last.
    fn again(&mut self) {
        let back = usize::from(self.byte()) + 1;
        let which = self.begins.len().saturating_sub(back);
        let from = self.begins.get(which).copied().unwrap_or(0);
        let to = self.begins.get(which + 1).copied().unwrap_or(self.wire.len());
        self.wire.extend_from_within(from..to);
    }

    fn swap(&mut self) {
        if let [.., first, second] = self.begins[..]
            && let Some(both) = self.wire.get_mut(first..)
        {
            both.rotate_left(second - first);
        }
    }

    fn drop_record(&mut self) {
        if let Some(begin) = self.last() {
            self.truncate(begin);
        }
    }

    fn truncate(&mut self, length: usize) {
        self.wire.truncate(length);
        self.begins.retain(|begin| *begin < length);
    }
}

/// Bytes that are no secret and of which no two neighbours are alike.
fn pattern(length: usize) -> Vec<u8> {
    static BYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (1..=251).cycle().take(usize::from(u16::MAX)).collect());
    BYTES[..length].to_vec()
}
