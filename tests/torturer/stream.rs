//! What goes through a tunnel in one direction: WebSocket frames whose every byte follows from a seed and a position.
//!
//! Sender and receiver make the same stream by themselves; nothing about it travels beside it. It must never depend on
//! how the network cut it into pieces.

/// An odd number without a pattern (2^64 by the golden ratio).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scrambles a number (splitmix64's last step).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Random numbers that a seed repeats.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// A number from 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// A number from `low` to `high`, each order of magnitude as likely as another.
    pub(crate) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low as f64, high as f64);
        (low * (high / low).powf(self.unit())).round() as u64
    }
}

/// Eight bytes of the pattern.
fn word(seed: u64, index: u64) -> [u8; 8] {
    mix(seed ^ index.wrapping_mul(GOLDEN)).to_le_bytes()
}

/// The bytes at `from` and after it.
fn fill(seed: u64, from: u64, out: &mut [u8]) {
    let skip = (from % 8) as usize;
    let mut index = from / 8;
    let mut whole = out;
    if skip > 0 {
        let count = whole.len().min(8 - skip);
        let (first, rest) = whole.split_at_mut(count);
        first.copy_from_slice(&word(seed, index)[skip..skip + count]);
        (whole, index) = (rest, index + 1);
    }
    let mut chunks = whole.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word(seed, index));
        index += 1;
    }
    let last = chunks.into_remainder();
    last.copy_from_slice(&word(seed, index)[..last.len()]);
}

/// A running hash, the same however the bytes are cut: by words, as checking takes most of the tool's time.
#[derive(Debug, Clone)]
struct Hash {
    state: u64,
    begun: [u8; 8],
    length: u64,
}

impl Hash {
    fn add(&mut self, mut bytes: &[u8]) {
        while let Some(byte) = bytes.first() {
            let place = (self.length % 8) as usize;
            if place == 0 && bytes.len() >= 8 {
                let (words, rest) = bytes.split_at(bytes.len() / 8 * 8);
                self.state = words.chunks_exact(8).fold(self.state, step);
                self.length += words.len() as u64;
                bytes = rest;
            } else {
                self.begun[place] = *byte;
                self.length += 1;
                if place == 7 {
                    self.state = step(self.state, &self.begun);
                }
                bytes = &bytes[1..];
            }
        }
    }

    fn value(&self) -> u64 {
        let place = (self.length % 8) as usize;
        step(self.state, &self.begun[..place]) ^ self.length
    }
}

fn step(state: u64, bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    (state ^ u64::from_le_bytes(word)).wrapping_mul(GOLDEN).rotate_left(29)
}

/// How long a direction's messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Nearly all below 2 KiB.
    Small,
    /// 16 KiB to 4 MiB.
    Bulk,
}

impl Sizes {
    fn draw(self, rng: &mut Rng) -> u64 {
        match self {
            Self::Bulk => rng.magnitude(16 << 10, 4 << 20),
            Self::Small => match rng.between(0, 99) {
                0..60 => rng.between(2, 125),
                60..97 => rng.magnitude(126, 2048),
                _ => rng.magnitude(2048, 70_000),
            },
        }
    }
}

/// What a direction is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    /// A client's frames are masked.
    pub(crate) masked: bool,
    pub(crate) sizes: Sizes,
}

/// A direction's stream, from its first byte on.
#[derive(Debug, Clone)]
pub(crate) struct Framer {
    recipe: Recipe,
    lengths: Rng,
    position: u64,
    frame: Frame,
    hash: Hash,
    messages: u64,
}

#[derive(Debug, Clone, Default)]
struct Frame {
    start: u64,
    head: [u8; 14],
    head_length: usize,
    end: u64,
}

impl Framer {
    pub(crate) fn new(recipe: Recipe) -> Self {
        let lengths = Rng::new(mix(recipe.seed));
        let hash = Hash { state: GOLDEN, begun: [0; 8], length: 0 };
        Self { recipe, lengths, position: 0, frame: Frame::default(), hash, messages: 0 }
    }

    /// Bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Messages begun so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether no message is half done.
    pub(crate) fn at_boundary(&self) -> bool {
        self.position == self.frame.end
    }

    /// Goes on to the next message.
    pub(crate) fn begin_message(&mut self) {
        debug_assert!(self.at_boundary());
        let length = self.recipe.sizes.draw(&mut self.lengths);
        let mut head = Vec::with_capacity(14);
        self.head(&mut head, 0x82, length);
        let mut frame = Frame { start: self.position, ..Frame::default() };
        frame.head_length = head.len();
        frame.head[..head.len()].copy_from_slice(&head);
        frame.end = frame.start + head.len() as u64 + length;
        self.frame = frame;
        self.messages += 1;
    }

    fn head(&self, head: &mut Vec<u8>, opcode: u8, length: u64) {
        let mask_bit = if self.recipe.masked { 0x80 } else { 0 };
        head.push(opcode);
        match length {
            0..126 => head.push(mask_bit | length as u8),
            126..65_536 => {
                head.push(mask_bit | 0x7e);
                head.extend((length as u16).to_be_bytes());
            }
            _ => {
                head.push(mask_bit | 0x7f);
                head.extend(length.to_be_bytes());
            }
        }
        if self.recipe.masked {
            head.extend(self.mask());
        }
    }

    fn mask(&self) -> [u8; 4] {
        (mix(self.recipe.seed ^ !self.position) as u32).to_be_bytes()
    }

    /// The next bytes of the message at hand, as many as fit.
    pub(crate) fn peek(&self, out: &mut [u8]) -> usize {
        let left = (self.frame.end - self.position).min(out.len() as u64) as usize;
        let out = &mut out[..left];
        let inside = self.position - self.frame.start;
        let from_head = match usize::try_from(inside) {
            Ok(inside) if inside < self.frame.head_length => {
                let count = left.min(self.frame.head_length - inside);
                out[..count].copy_from_slice(&self.frame.head[inside..inside + count]);
                count
            }
            _ => 0,
        };
        fill(self.recipe.seed, self.position + from_head as u64, &mut out[from_head..]);
        left
    }

    /// Says that these bytes, which [`Self::peek`] gave, went by.
    pub(crate) fn advance(&mut self, bytes: &[u8]) {
        self.position += bytes.len() as u64;
        debug_assert!(self.position <= self.frame.end);
        self.hash.add(bytes);
    }

    /// The Close frame that ends the direction here: its reason tells how much went before it, and its hash.
    pub(crate) fn close_frame(&self) -> Vec<u8> {
        let mut payload = 1000_u16.to_be_bytes().to_vec();
        payload.extend(format!("{:x} {:016x}", self.position, self.hash.value()).bytes());
        let mut frame = Vec::new();
        self.head(&mut frame, 0x88, payload.len() as u64);
        let mask = if self.recipe.masked { self.mask() } else { [0; 4] };
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// The stream's bytes from `from` to `to`, as they should be.
    pub(crate) fn replay(recipe: Recipe, from: u64, to: u64) -> Vec<u8> {
        let mut framer = Self::new(recipe);
        let mut out = vec![0; usize::try_from(to - from).unwrap_or(0)];
        let mut done = 0;
        while done < out.len() {
            if framer.at_boundary() {
                framer.begin_message();
            }
            if framer.frame.end <= from {
                framer.position = framer.frame.end;
                continue;
            }
            framer.position = framer.position.max(from);
            let count = framer.peek(&mut out[done..]);
            framer.position += count as u64;
            done += count;
        }
        out
    }
}
