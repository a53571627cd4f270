//! A successor that finds anything at all where a tunnel's sessions are written down: it ends the tunnel or goes on with
//! it, and neither panics nor runs for ever.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use proptest::array::{uniform3, uniform32};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::event::epoll::EventFlags;

use super::facts;
use crate::tls::keys::{Protocol, Secret};
use crate::tls::record::{Cipher, Kind};
use crate::tunnel::arena::{Arena, Texts};
use crate::tunnel::ciphers::Ciphers;
use crate::tunnel::counters::Snapshot;
use crate::tunnel::flow::Flow;
use crate::tunnel::leg::{Leg, Side};
use crate::tunnel::memfd;
use crate::tunnel::record::Record;
use crate::tunnel::slot::Slot;
use crate::tunnel::steps::{Io, Steps};

/// Where the arena's sessions begin, and how long each is (`arena/layout.rs`).
const SESSIONS: (u64, u64) = (75_644_928, 1024);
/// `include/net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
/// Turns that a direction gets.
const TURNS: usize = 4;

/// An entry, in the order of its layout: wide fields and narrow ones.
#[derive(Debug, Clone)]
struct Entry {
    in_pos: u64,
    out_pos: u64,
    lengths: [u32; 2],
    records: [u32; 2],
    seqs: [u64; 2],
    generations: [u32; 2],
    kind: u32,
    narrow: [u32; 3],
    moved: u64,
    ends: [u32; 2],
}

/// What a successor finds of one tunnel.
#[derive(Debug, Clone)]
struct Found {
    protocols: [Option<Protocol>; 2],
    in_force: u64,
    entry: Entry,
    carry_pos: u64,
    /// The beginning of every secret.
    secret: [u8; 32],
    /// Counters say that the target has so much more than the entry began with, and the source's reader so much; none:
    /// all that it gives.
    has: Option<u64>,
    taken: u64,
    /// What the source's peer has sealed, a record each, under the numbers that are due; then comes `queue`.
    sealed: Vec<Vec<u8>>,
    prelude: Vec<u8>,
    queue: Vec<u8>,
    towards: Side,
}

fn wide() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        4 => 0..300_u64,
        1 => any::<u64>(),
        1 => (0..9_u64).prop_map(|below| u64::MAX - below),
    ]
}

fn narrow() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => Just(0),
        4 => 0..300_u32,
        1 => any::<u32>(),
        1 => (0..9_u32).prop_map(|below| u32::MAX - below),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let pair = || [narrow(), narrow()];
    (
        (wide(), wide(), pair(), pair(), [wide(), wide()]),
        (pair(), 0..7_u32, uniform3(narrow()), wide(), pair()),
    )
        .prop_map(|((in_pos, out_pos, lengths, records, seqs), rest)| {
            let (generations, kind, narrow, moved, ends) = rest;
            Entry {
                in_pos,
                out_pos,
                lengths,
                records,
                seqs,
                generations,
                kind,
                narrow,
                moved,
                ends,
            }
        })
}

fn found() -> impl Strategy<Value = Found> {
    let protocol = || {
        let known: Vec<_> =
            (0..=u8::MAX).filter_map(Protocol::from_code).map(Some).chain([None]).collect();
        proptest::sample::select(known)
    };
    (
        ([protocol(), protocol()], prop_oneof![9 => 0..2_u64, 1 => any::<u64>()], entry(), wide()),
        (
            uniform32(any::<u8>()),
            proptest::option::of(wide()),
            prop_oneof![4 => Just(0), 1 => wide()],
        ),
        (vec(any::<u8>(), 0..40), vec(vec(any::<u8>(), 0..40), 0..4), vec(any::<u8>(), 0..300)),
        any::<bool>(),
    )
        .prop_map(|((protocols, in_force, entry, carry_pos), of, rest, inward)| {
            let (secret, has, taken) = of;
            let (prelude, sealed, queue) = rest;
            let towards = if inward { Side::Backend } else { Side::Client };
            Found {
                protocols,
                in_force,
                entry,
                carry_pos,
                secret,
                has,
                taken,
                sealed,
                prelude,
                queue,
                towards,
            }
        })
}

// === impl Entry ===

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let wide = |values: &[u64]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        let narrow =
            |values: &[u32]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        let [skip, asked, answered] = self.narrow;
        let bytes = [
            wide(&[self.in_pos, self.out_pos]),
            narrow(&self.lengths),
            narrow(&self.records),
            wide(&self.seqs),
            narrow(&self.generations),
            narrow(&[self.kind, skip, asked, answered]),
            wide(&[self.moved]),
            narrow(&self.ends),
        ];
        bytes.concat()
    }
}

// === impl Found ===

impl Found {
    /// The session cell: either direction has the entry twice, and every secret is the same.
    fn cell(&self) -> Vec<u8> {
        let entry = self.entry.bytes();
        let direction = [
            self.in_force.to_ne_bytes().to_vec(),
            entry.clone(),
            entry,
            self.carry_pos.to_ne_bytes().to_vec(),
        ]
        .concat();
        [direction.clone(), direction, self.secret().repeat(8)].concat()
    }

    fn secret(&self) -> Vec<u8> {
        self.secret.iter().copied().cycle().take(Secret::LONGEST).collect()
    }

    /// What waits at the source.
    fn waiting(&self) -> Vec<u8> {
        let mut waiting = Vec::new();
        if let [Some(protocol), _] = self.protocols {
            let secret = Secret::new(self.secret().get(..protocol.secret_len()).unwrap()).unwrap();
            let cipher = Cipher::new(protocol, &secret).unwrap();
            let [first, _] = self.entry.seqs;
            for (seq, plaintext) in (first..=u64::MAX).zip(&self.sealed) {
                cipher.seal(seq, Kind::Data, plaintext, &mut waiting).unwrap();
            }
        }
        [waiting.as_slice(), &self.queue].concat()
    }

    /// Whether the direction is refused, sooner or later.
    fn is_refused(&self, arena: &Arc<Arena>) -> bool {
        let slot = Slot::claim(arena, 1).unwrap();
        let (at, each) = SESSIONS;
        slot.set_protocols(self.protocols);
        let texts = [(); 5].map(|()| Arc::from(""));
        let [site, pool, settings, backend, trace_id] = texts;
        let texts = Texts { site, pool, settings, backend, trace_id };
        slot.write_heap(&texts, &[&self.prelude], &self.prelude).unwrap();
        let cell_at = at + u64::from(slot.index()) * each;
        memfd::write_at(arena.fd(), &self.cell(), cell_at).unwrap();
        let ((mut source_peer, source), (_target_peer, target)) = (tcp(), tcp());
        source_peer.write_all(&self.waiting()).unwrap();
        let sockets = [Arc::new(source), Arc::new(target)];
        let [mut source, mut target] = sockets.clone().map(Leg::resumed);
        source.note(EventFlags::IN);
        let record = Record::new(1, facts(Duration::ZERO), 0, None, slot, sockets);
        let counted = |received, acked| Snapshot {
            received,
            acked,
            in_queue: 0,
            out_queue: 0,
            state: ESTABLISHED,
            last_data_recv_ms: 0,
        };
        let came = self.entry.in_pos.saturating_sub(self.prelude.len() as u64);
        let [_, gives] = self.entry.lengths;
        let has = self.has.unwrap_or(gives.into());
        let source_now = counted(came.wrapping_add(self.taken), 0);
        let target_now = counted(0, self.entry.out_pos.wrapping_add(has));
        let mut scratch = vec![0; 63 * 1024];
        let mut ciphers = Ciphers::new().unwrap();
        let mut io = Io {
            source: &mut source,
            target: &mut target,
            record: &record,
            scratch: &mut scratch,
            out: &mut Vec::new(),
            ciphers: &mut ciphers,
            asked: 0,
        };
        let steps =
            Steps::resume(self.towards, self.protocols, [&source_now, &target_now], &mut io);
        let refused = steps.map_or(true, |mut steps| {
            (0..TURNS).any(|_| steps.advance(&mut io, &mut Flow::default()).is_err())
        });
        record.slot.free();
        refused
    }
}

/// A connection over loopback, its far end first.
fn tcp() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (far, listener.accept().unwrap().0.into())
}

#[test]
fn whatever_is_found_of_a_session_is_taken_up_or_refused() {
    let arena = Arc::new(Arena::create().unwrap());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&found(), |found| {
            found.is_refused(&arena);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_last_number_of_all_is_never_used() {
    let arena = Arc::new(Arena::create().unwrap());
    for protocol in (0..=u8::MAX).filter_map(Protocol::from_code).map(Some) {
        for (protocols, number, is_refused) in [
            ([protocol, None], u64::MAX - 4, false),
            ([protocol, None], u64::MAX - 1, true),
            ([protocol, None], u64::MAX, true),
            ([None, protocol], u64::MAX, true),
        ] {
            let entry = Entry {
                in_pos: 0,
                out_pos: 0,
                lengths: [0; 2],
                records: [0; 2],
                seqs: [number; 2],
                generations: [0; 2],
                kind: 0,
                narrow: [0; 3],
                moved: 0,
                ends: [0; 2],
            };
            let found = Found {
                protocols,
                in_force: 0,
                entry,
                carry_pos: 0,
                secret: [7; 32],
                has: None,
                taken: 0,
                prelude: Vec::new(),
                sealed: vec![vec![1], vec![2], vec![3]],
                queue: if matches!(protocols, [None, _]) { vec![1] } else { Vec::new() },
                towards: Side::Backend,
            };
            assert_eq!(found.is_refused(&arena), is_refused, "{found:?}");
        }
    }
}
