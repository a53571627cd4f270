//! The arena's layout, byte by byte. Whatever changes here changes [`VERSION`].
//!
//! Every field is an atomic, so that a process may die in the middle of anything while others look. A field's value
//! is never trusted: it may be half of what somebody meant to write.
//!
//! Native byte order. Times are `CLOCK_MONOTONIC` milliseconds unless named otherwise.
//! ```text
//! the file
//!       0  header        4 KiB
//!    4096  processes     64 of 2,240 bytes
//!  147456  records       131,072 of 576 bytes
//! 75644928  sessions     131,072 of 1,024 bytes, one a record (`sessions`)
//!     ...  overflow      1 MiB a record (sparse, never mapped): 896 KiB heap, then 128 KiB for carry slots
//!     ...  intakes       64 KiB a thread of a process, from a multiple of that on (sparse; each thread maps its own: `intakes`)
//!
//! header                             process
//!   0  u64  magic                      0  u64  generation (0: free)
//!   8  u32  version                    8  u64  ready: the generation again, when all below is written
//!  12  u32  record size               16  u64  start_time
//!  16  u32  capacity                  24  u32  pid
//!  20  u32  high-water mark           28  u32  zero
//!  24  zero                           32  u32 x 32  hands: record + 1 that thread N has in hand, 0 none
//!                                    160  zero
//!                                    192  32 of 64 bytes  whose bytes the intake of thread N has: u64 tunnel's id
//!                                         (0: nobody's), u64 where they begin << 1 | 1 if they go to the backend, zero
//! record
//!   0  u64  owner: state << 56 | generation; 0 free     128  u32  prelude_to_client, its length
//!   8  u64  id; 0: no tunnel, or no more               132  u32  prelude_uncounted, of it: the 101
//!  16  u64  ends: flags, and the cause's byte           136  u32  prelude_to_backend, its length
//!  24  u64  opened_unix_ms                              140  u32  deaths
//!  32  u64  opened_mono_ms                              144  16 bytes  the client's address (IPv4: the first 4)
//!  40  u64  idle_timeout_ms                             160  u16  its family: 4, 6, or 0 for none
//!  48  u64  moved_ms                                    162  u16  its port
//!  56  u64  stop: ms << 8 | cause; no deadline: max     164  u32  its scope (IPv6)
//!  64  u64  retire_ms; no deadline: max                 168  u32  heap: 0 inline, 1 preludes in overflow, 2 all
//!  72  u64  bytes_in   \ of all tunnels that it has    172  u16 x 5  lengths of site, pool, settings, backend,
//!  80  u64  bytes_out  / held: never wiped                        trace id
//!  88  u64  frozen_at_us                                182  u16  backend_port
//!  96  u64  client_received   \                         184  u8 x 2  protocols of the legs; 0 plain
//! 104  u64  client_accepted    | baselines of the       192  320 bytes  inline heap: texts, then the preludes
//! 112  u64  backend_received   | kernel's counters      512  u64  bytes_in_before   \ of tunnels before
//! 120  u64  backend_accepted  /                         520  u64  bytes_out_before  / this one
//!                                                       528  u64  kept_to_client   \ where the carry slot of a plain
//!                                                       536  u64  kept_to_backend  / direction begins, + 1; 0: empty
//!                                                       544  u64  watched: where its legs are (`watch`); 0: nowhere
//!                                                       552  zero
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::sessions::SessionCell;
use super::{Towards, ends};
use crate::tls::keys::Protocol;
use crate::tunnel::counters::{Baseline, Bases};

/// Changes with every change of the layout or of what a field means.
pub(in crate::tunnel) const VERSION: u32 = 5;
/// "holdfast", as it reads in a dump of a little-endian machine.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"holdfast");
/// Tunnels of a listener: more than a process has descriptors for, in practice.
pub(super) const CAPACITY: u32 = 131_072;
/// Processes of a listener that have tunnels: its generations between a start and the end of a drain.
pub(super) const PROCESSES: usize = 64;
/// Threads of a process.
pub(super) const HANDS: usize = 32;
/// Enough for the usual texts and the head of a 101.
pub(super) const INLINE: usize = 320;
/// Where the overflow regions begin.
pub(super) const OVERFLOW: u64 = size_of::<Layout>() as u64;
/// One record's overflow region.
pub(super) const OVERFLOW_EACH: u64 = 1 << 20;
/// Of it, what the heap may use.
pub(super) const OVERFLOW_HEAP: usize = 896 << 10;
/// One record.
pub(super) const RECORD_SIZE: u32 = {
    assert!(size_of::<Cell>() == 576, "the layout says so");
    576
};
/// One thread's intake: whole pages, however large a kernel has them.
pub(super) const INTAKE_EACH: usize = 64 << 10;
/// Where the intakes begin.
pub(super) const INTAKES: u64 =
    (OVERFLOW + CAPACITY as u64 * OVERFLOW_EACH).next_multiple_of(INTAKE_EACH as u64);
/// The whole file.
pub(super) const SIZE: u64 = INTAKES + (PROCESSES * HANDS * INTAKE_EACH) as u64;

/// What is mapped.
#[repr(C)]
pub(in crate::tunnel) struct Layout {
    pub(super) header: Header,
    pub(super) processes: [Process; PROCESSES],
    pub(super) records: [Cell; CAPACITY as usize],
    pub(super) sessions: [SessionCell; CAPACITY as usize],
}

#[repr(C)]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    pub(super) record_size: AtomicU32,
    pub(super) capacity: AtomicU32,
    /// Records below it have been used; what lies above is untouched memory.
    pub(super) high_water: AtomicU32,
    zero: [AtomicU64; 509],
}

#[repr(C)]
pub(super) struct Process {
    pub(super) generation: AtomicU64,
    pub(super) ready: AtomicU64,
    pub(super) start_time: AtomicU64,
    pub(super) pid: AtomicU32,
    zero: AtomicU32,
    pub(super) hands: [AtomicU32; HANDS],
    zeroes: [AtomicU64; 4],
    pub(super) intakes: [Note; HANDS],
}

/// Whose bytes an intake has. A cache line: threads write theirs with every message.
#[repr(C)]
pub(super) struct Note {
    pub(super) id: AtomicU64,
    pub(super) place: AtomicU64,
    zero: [AtomicU64; 6],
}

/// One tunnel's record. Only the process that its owner word names may change it, but for `stop`, `retire_ms` and
/// the counts, which anybody may.
#[repr(C)]
#[derive(Debug)]
pub(in crate::tunnel) struct Cell {
    pub(in crate::tunnel) owner: AtomicU64,
    pub(in crate::tunnel) id: AtomicU64,
    pub(in crate::tunnel) ends: AtomicU64,
    pub(in crate::tunnel) opened_unix_ms: AtomicU64,
    pub(in crate::tunnel) opened_mono_ms: AtomicU64,
    pub(in crate::tunnel) idle_timeout_ms: AtomicU64,
    pub(in crate::tunnel) moved_ms: AtomicU64,
    pub(in crate::tunnel) stop: AtomicU64,
    pub(in crate::tunnel) retire_ms: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub(in crate::tunnel) frozen_at_us: AtomicU64,
    pub(in crate::tunnel) client_received: AtomicU64,
    pub(in crate::tunnel) client_accepted: AtomicU64,
    pub(in crate::tunnel) backend_received: AtomicU64,
    pub(in crate::tunnel) backend_accepted: AtomicU64,
    pub(in crate::tunnel) prelude_to_client: AtomicU32,
    pub(in crate::tunnel) prelude_uncounted: AtomicU32,
    pub(in crate::tunnel) prelude_to_backend: AtomicU32,
    pub(in crate::tunnel) deaths: AtomicU32,
    client_ip: [AtomicU8; 16],
    client_family: AtomicU16,
    client_port: AtomicU16,
    client_scope: AtomicU32,
    pub(super) heap: AtomicU32,
    /// Lengths of site, pool, settings, backend, trace id.
    pub(super) texts: [AtomicU16; 5],
    pub(in crate::tunnel) backend_port: AtomicU16,
    /// Of the client's leg and the backend's, as [`Protocol::code`].
    protocols: [AtomicU8; 2],
    zero: [AtomicU8; 6],
    pub(super) inline: [AtomicU8; INLINE],
    bytes_in_before: AtomicU64,
    bytes_out_before: AtomicU64,
    kept_to_client: AtomicU64,
    kept_to_backend: AtomicU64,
    pub(in crate::tunnel) watched: AtomicU64,
    zeroes: [AtomicU64; 3],
}

// === impl Cell ===

impl Cell {
    /// Changes the owner word, if it is still `from`. The one who succeeds sees all that `from` has written.
    pub(in crate::tunnel) fn swap_owner(&self, from: impl Into<u64>, to: impl Into<u64>) -> bool {
        self.owner.compare_exchange(from.into(), to.into(), AcqRel, Acquire).is_ok()
    }

    pub(in crate::tunnel) fn set_client(&self, client: SocketAddr) {
        let (family, octets, scope) = match client {
            SocketAddr::V4(v4) => {
                let mut octets = [0; 16];
                for (to, from) in octets.iter_mut().zip(v4.ip().octets()) {
                    *to = from;
                }
                (4, octets, 0)
            }
            SocketAddr::V6(v6) => (6, v6.ip().octets(), v6.scope_id()),
        };
        for (to, from) in self.client_ip.iter().zip(octets) {
            to.store(from, Relaxed);
        }
        self.client_port.store(client.port(), Relaxed);
        self.client_scope.store(scope, Relaxed);
        self.client_family.store(family, Relaxed);
    }

    /// The client's address. None: nobody has set it.
    pub(in crate::tunnel) fn client(&self) -> Option<SocketAddr> {
        let octets = self.client_ip.each_ref().map(|octet| octet.load(Relaxed));
        let port = self.client_port.load(Relaxed);
        match (self.client_family.load(Relaxed), octets) {
            (4, [a, b, c, d, ..]) => Some((IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port).into()),
            (6, octets) => {
                let scope = self.client_scope.load(Relaxed);
                Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
            }
            _ => None,
        }
    }

    pub(in crate::tunnel) fn set_baselines(&self, client: Baseline, backend: Baseline) {
        self.client_received.store(client.received, Relaxed);
        self.client_accepted.store(client.accepted, Relaxed);
        self.backend_received.store(backend.received, Relaxed);
        self.backend_accepted.store(backend.accepted, Relaxed);
    }

    /// The baselines of one direction.
    pub(in crate::tunnel) fn bases(&self, towards: Towards) -> Bases {
        let (received, accepted) = match towards {
            Towards::Client => (&self.backend_received, &self.client_accepted),
            Towards::Backend => (&self.client_received, &self.backend_accepted),
        };
        Bases { received: received.load(Relaxed), accepted: accepted.load(Relaxed) }
    }

    /// The length of one direction's prelude.
    pub(in crate::tunnel) fn prelude_len(&self, towards: Towards) -> u64 {
        let length = match towards {
            Towards::Client => &self.prelude_to_client,
            Towards::Backend => &self.prelude_to_backend,
        };
        length.load(Relaxed).into()
    }

    /// The count of bytes begins, for a new tunnel.
    pub(in crate::tunnel) fn begin_bytes(&self) {
        self.bytes_in_before.store(self.bytes_in.load(Relaxed), Relaxed);
        self.bytes_out_before.store(self.bytes_out.load(Relaxed), Relaxed);
    }

    /// Peers' bytes of its tunnel, to the backend and to the client.
    pub(in crate::tunnel) fn bytes(&self) -> [u64; 2] {
        let [inward, outward] = self.bytes_ever();
        [
            inward.wrapping_sub(self.bytes_in_before.load(Relaxed)),
            outward.wrapping_sub(self.bytes_out_before.load(Relaxed)),
        ]
    }

    /// Those of all tunnels that it has held. This is where they are counted, and nowhere else: a process that dies has
    /// counted or has not, in all sums.
    pub(super) fn bytes_ever(&self) -> [u64; 2] {
        [self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed)]
    }

    /// Counts bytes that have gone to the backend and to the client.
    pub(in crate::tunnel) fn add_bytes(&self, [inward, outward]: [u64; 2]) {
        for (count, moved) in [(&self.bytes_in, inward), (&self.bytes_out, outward)] {
            if moved != 0 {
                count.fetch_add(moved, Relaxed);
            }
        }
    }

    /// Counts what of these has not been counted yet.
    pub(in crate::tunnel) fn raise_bytes(&self, moved: [u64; 2]) {
        let missing = [0, 1].map(|way: usize| {
            let of = |both: [u64; 2]| both.get(way).copied().unwrap_or_default();
            of(moved).saturating_sub(of(self.bytes()))
        });
        self.add_bytes(missing);
    }

    /// Whether somebody has still to be sent his first bytes.
    pub(in crate::tunnel) fn owes_prelude(&self) -> bool {
        let owed = |towards, done| self.prelude_len(towards) > 0 && !self.has_ends(done);
        owed(Towards::Client, ends::TO_CLIENT_PRELUDE_DONE)
            || owed(Towards::Backend, ends::TO_BACKEND_PRELUDE_DONE)
    }

    fn kept_cell(&self, towards: Towards) -> &AtomicU64 {
        match towards {
            Towards::Client => &self.kept_to_client,
            Towards::Backend => &self.kept_to_backend,
        }
    }

    /// Says where the bytes in a plain direction's carry slot begin, counted from the tunnel's first; or that there are none.
    pub(in crate::tunnel) fn set_kept(&self, towards: Towards, from: Option<u64>) {
        self.kept_cell(towards).store(from.map_or(0, |from| from.wrapping_add(1)), Release);
    }

    /// Where they begin. Whether they are still owed, only the counters tell.
    pub(in crate::tunnel) fn kept(&self, towards: Towards) -> Option<u64> {
        self.kept_cell(towards).load(Acquire).checked_sub(1)
    }

    /// Whether a plain direction has, or had, bytes in its carry slot.
    pub(in crate::tunnel) fn has_kept(&self) -> bool {
        self.kept(Towards::Client).is_some() || self.kept(Towards::Backend).is_some()
    }

    /// Before the tunnel is published.
    pub(in crate::tunnel) fn set_protocols(&self, of: [Option<Protocol>; 2]) {
        for (cell, protocol) in self.protocols.iter().zip(of) {
            cell.store(protocol.map_or(0, Protocol::code), Relaxed);
        }
    }

    /// The protocols of the client's leg and the backend's. None: the leg is plain, or nothing that we know.
    pub(in crate::tunnel) fn protocols(&self) -> [Option<Protocol>; 2] {
        self.protocols.each_ref().map(|code| Protocol::from_code(code.load(Relaxed)))
    }

    /// False: a leg has a session, and we do not know its protocol.
    pub(in crate::tunnel) fn knows_protocols(&self) -> bool {
        let known = |code: u8| code == 0 || Protocol::from_code(code).is_some();
        self.protocols.iter().all(|code| known(code.load(Relaxed)))
    }

    /// Whether it has sessions. To look at these themselves would take memory for every plain tunnel.
    pub(super) fn has_sessions(&self) -> bool {
        self.protocols.iter().any(|code| code.load(Relaxed) != 0)
    }

    /// Zeroes everything but the owner word, and what it has counted.
    pub(super) fn wipe(&self) {
        let Self {
            owner: _,
            id,
            ends,
            opened_unix_ms,
            opened_mono_ms,
            idle_timeout_ms,
            moved_ms,
            stop,
            retire_ms,
            bytes_in: _,
            bytes_out: _,
            frozen_at_us,
            client_received,
            client_accepted,
            backend_received,
            backend_accepted,
            prelude_to_client,
            prelude_uncounted,
            prelude_to_backend,
            deaths,
            client_ip,
            client_family,
            client_port,
            client_scope,
            heap,
            texts,
            backend_port,
            protocols,
            zero,
            inline,
            bytes_in_before: _,
            bytes_out_before: _,
            kept_to_client,
            kept_to_backend,
            watched,
            zeroes,
        } = self;
        let longs = [
            id,
            ends,
            opened_unix_ms,
            opened_mono_ms,
            idle_timeout_ms,
            moved_ms,
            stop,
            retire_ms,
            frozen_at_us,
            client_received,
            client_accepted,
            backend_received,
            backend_accepted,
            kept_to_client,
            kept_to_backend,
            watched,
        ];
        longs.into_iter().chain(zeroes).for_each(|long| long.store(0, Relaxed));
        for word in
            [prelude_to_client, prelude_uncounted, prelude_to_backend, deaths, client_scope, heap]
        {
            word.store(0, Relaxed);
        }
        let shorts = [client_family, client_port, backend_port];
        shorts.into_iter().chain(texts).for_each(|short| short.store(0, Relaxed));
        client_ip
            .iter()
            .chain(protocols)
            .chain(zero)
            .chain(inline)
            .for_each(|byte| byte.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of};

    use super::*;

    macro_rules! assert_offsets {
        ($type:ty: $($field:ident $offset:expr),+ $(,)?) => {
            $(assert_eq!(offset_of!($type, $field), $offset, stringify!($field));)+
        };
    }

    #[test]
    fn the_layout_is_as_documented() {
        assert_offsets!(Layout: header 0, processes 4096, records 147_456, sessions 75_644_928);
        assert_offsets!(Header: magic 0, version 8, record_size 12, capacity 16, high_water 20, zero 24);
        assert_offsets!(Process: generation 0, ready 8, start_time 16, pid 24, zero 28, hands 32, zeroes 160, intakes 192);
        assert_offsets!(Note: id 0, place 8, zero 16);
        assert_offsets!(Cell:
            owner 0, id 8, ends 16, opened_unix_ms 24, opened_mono_ms 32, idle_timeout_ms 40, moved_ms 48, stop 56,
            retire_ms 64, bytes_in 72, bytes_out 80, frozen_at_us 88, client_received 96, client_accepted 104,
            backend_received 112, backend_accepted 120, prelude_to_client 128, prelude_uncounted 132,
            prelude_to_backend 136, deaths 140, client_ip 144, client_family 160, client_port 162, client_scope 164,
            heap 168, texts 172, backend_port 182, protocols 184, zero 186, inline 192, bytes_in_before 512,
            bytes_out_before 520, kept_to_client 528, kept_to_backend 536, watched 544, zeroes 552,
        );
        assert_eq!(
            (size_of::<Header>(), size_of::<Process>(), size_of::<Note>(), size_of::<Cell>()),
            (4096, 2240, 64, 576)
        );
        assert_eq!((PROCESSES, HANDS, CAPACITY, INLINE), (64, 32, 131_072, 320));
        assert_eq!(OVERFLOW, 75_644_928 + (128 << 20));
        assert_eq!(INTAKES, (OVERFLOW + (128 << 30)).next_multiple_of(65_536));
        assert_eq!(SIZE, INTAKES + (128 << 20));
        assert!(OVERFLOW.is_multiple_of(4096) && align_of::<Layout>() <= 4096);
        assert_eq!((VERSION, &MAGIC.to_le_bytes()), (5, b"holdfast"));
    }
}
