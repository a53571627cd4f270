//! What one tunnel will do, worked out from its seed alone, so that client and backend agree without a word.
//!
//! Its path carries what both need. The mix decides what a run is worth: most tunnels are quiet, some are not, and some
//! read slowly or close one half early.

use std::time::Duration;

use super::stream::{Recipe, Rng, Sizes, mix};

/// How one side sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) sizes: Sizes,
    /// Mean time between two sendings.
    pub(crate) interval: Duration,
    /// Messages at once.
    pub(crate) batch: u32,
}

/// How one side reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// At once.
    Fast,
    /// So many bytes at most, then nothing for a while.
    Slow { chunk: usize, pause: Duration },
}

/// Who says first that it has no more to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    ClientFirst,
    BackendFirst,
    Together,
}

/// Everything about a tunnel that is not chance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    seed: u64,
    /// Index 0 is the client's, 1 the backend's, here and below.
    pub(crate) paces: [Pace; 2],
    pub(crate) readers: [Reader; 2],
    /// Whether records, where there is TLS, go out in pieces.
    pub(crate) shreds: [bool; 2],
    /// Messages that are sent along with the request and with the 101.
    pub(crate) early: [u32; 2],
    pub(crate) life: Duration,
    pub(crate) ending: Ending,
    /// What the other side still sends after the first FIN, and for how long.
    pub(crate) tail_bytes: u64,
    pub(crate) tail_span: Duration,
}

/// Which end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Backend,
}

impl Role {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Backend => 1,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// Which legs of a tunnel have TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Legs {
    Ws,
    Wss,
    WssToHttps,
}

impl Legs {
    pub(crate) const ALL: [Self; 3] = [Self::Ws, Self::Wss, Self::WssToHttps];

    /// In paths and reports.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::WssToHttps => "wss_to_https",
        }
    }

    pub(crate) fn seal_client(self) -> bool {
        self != Self::Ws
    }

    pub(crate) fn seal_backend(self) -> bool {
        self == Self::WssToHttps
    }
}

/// What a tunnel's path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Its number in this run; no two have the same.
    pub(crate) id: u64,
    pub(crate) legs: Legs,
    /// Its place on the board.
    pub(crate) slot: usize,
    pub(crate) seed: u64,
    /// Percent by which times between messages are longer than planned for 2,000 tunnels.
    pub(crate) stretch: u32,
    /// Mean life in milliseconds.
    pub(crate) life: u32,
}

impl Ticket {
    pub(crate) fn path(&self) -> String {
        let Self { id, legs, slot, seed, stretch, life } = self;
        format!("/{}/{id}/{slot}/{seed}/{stretch}/{life}", legs.word())
    }

    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let word = parts.next()?;
        let ticket = Self {
            legs: Legs::ALL.into_iter().find(|legs| legs.word() == word)?,
            id: parts.next()?.parse().ok()?,
            slot: parts.next()?.parse().ok()?,
            seed: parts.next()?.parse().ok()?,
            stretch: parts.next()?.parse().ok()?,
            life: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(ticket)
    }

    /// Whether the client speaks no newer TLS than 1.2: every fourth does not.
    pub(crate) fn is_old(&self) -> bool {
        self.legs.seal_client() && mix(self.seed ^ 31).is_multiple_of(4)
    }

    pub(crate) fn plan(&self) -> Plan {
        let mut rng = Rng::new(self.seed);
        let (paces, readers) = habits(&mut rng, self.stretch);
        let bulk = paces.iter().any(|pace| pace.sizes == Sizes::Bulk);
        // Lives differ by a factor of 20, so that ends are spread from the first seconds on.
        let life = f64::from(self.life) * (0.1 + 1.9 * rng.unit());
        let ending = match rng.between(0, 99) {
            0..45 => Ending::ClientFirst,
            45..90 => Ending::BackendFirst,
            _ => Ending::Together,
        };
        let tail_bytes = match rng.between(0, 9) {
            0..2 => 0,
            _ if bulk => rng.magnitude(64 << 10, 4 << 20),
            _ => rng.magnitude(64, 32 << 10),
        };
        let early = paces.map(|pace| match pace.sizes {
            Sizes::Small if rng.chance(0.3) => rng.between(1, 3) as u32,
            _ => 0,
        });
        let shreds = [51, 52].map(|salt| mix(self.seed ^ salt).is_multiple_of(8));
        Plan {
            seed: self.seed,
            paces,
            readers,
            shreds,
            early,
            life: Duration::from_millis(life as u64),
            ending,
            tail_bytes,
            tail_span: Duration::from_millis(rng.magnitude(50, 4000)),
        }
    }
}

fn habits(rng: &mut Rng, stretch: u32) -> ([Pace; 2], [Reader; 2]) {
    let pace = |sizes, milliseconds: u64, batch| Pace {
        sizes,
        interval: Duration::from_millis((milliseconds * u64::from(stretch) / 100).max(10)),
        batch,
    };
    let idle = pace(Sizes::Small, 20_000, 1);
    let chat = pace(Sizes::Small, 1000, 1);
    let burst = pace(Sizes::Small, 8000, 20);
    let bulk = pace(Sizes::Bulk, 12_000, 1);
    let fast = [Reader::Fast; 2];
    match rng.between(0, 99) {
        0..35 => ([idle, idle], fast),
        35..75 => ([chat, chat], fast),
        75..88 => ([burst, burst], fast),
        88..91 => ([bulk, chat], fast),
        91..94 => ([chat, bulk], fast),
        94..96 => ([bulk, bulk], fast),
        // Nearly always something waits for these readers, in either direction.
        slow => {
            let chunk = rng.magnitude(2000, 60_000) as usize;
            let pause = Duration::from_millis(rng.between(20, 400));
            let reader = Reader::Slow { chunk, pause };
            if slow % 2 == 0 {
                ([chat, bulk], [reader, Reader::Fast])
            } else {
                ([bulk, chat], [Reader::Fast, reader])
            }
        }
    }
}

impl Plan {
    /// What that side sends.
    pub(crate) fn recipe(&self, sender: Role) -> Recipe {
        Recipe {
            seed: mix(self.seed ^ (sender.index() as u64 + 1)),
            masked: sender == Role::Client,
            sizes: self.paces[sender.index()].sizes,
        }
    }

    /// Whether that side ends by the clock; if not, it ends after the other.
    pub(crate) fn ends_first(&self, role: Role) -> bool {
        match self.ending {
            Ending::Together => true,
            Ending::ClientFirst => role == Role::Client,
            Ending::BackendFirst => role == Role::Backend,
        }
    }
}
