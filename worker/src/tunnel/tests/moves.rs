//! Tunnels that change hands between two engines on one arena, as between two processes.

use std::os::fd::OwnedFd;

use tokio::net::tcp::OwnedWriteHalf;

use super::*;
use crate::tunnel::arena::Arena;
use crate::tunnel::tests::ends::{abort, read_error};

/// Two generations of a listener, and the vault between them.
pub(super) struct Pair {
    pub(super) old: Arc<Tunnels>,
    pub(super) new: Arc<Tunnels>,
}

impl Pair {
    pub(super) fn start() -> Self {
        let shared = Shared::take_up(None, None).unwrap();
        let [arena, tally] = shared.fds().map(|fd| fd.try_clone_to_owned().unwrap());
        let old = shared.start(2, 1).unwrap();
        let new = Shared::take_up(Some(arena), Some(tally)).unwrap().start(2, 2).unwrap();
        old.attach();
        new.attach();
        Self { old, new }
    }

    /// Opens a tunnel that the vault holds, and hands it in to the successor.
    async fn open(&self, preludes: Preludes) -> (TcpStream, TcpStream, TunnelId) {
        let (client, client_leg) = tcp_pair().await;
        let (backend_leg, backend) = tcp_pair().await;
        let id = self.open_between([plain(client_leg), plain(backend_leg)], preludes).await;
        (client, backend, id)
    }

    /// The same of the client's leg and the backend's.
    pub(super) async fn open_between(
        &self,
        [client, backend]: [Leg; 2],
        preludes: Preludes,
    ) -> TunnelId {
        let opening = self.old.open(client, backend, preludes, facts(Duration::ZERO));
        let storing = async {
            self.old.rung().await;
            let mut handed = Vec::new();
            for deposit in self.old.pending(10).deposits {
                let [client, backend]: [OwnedFd; 2] =
                    deposit.sockets().map(|fd| fd.try_clone_to_owned().unwrap());
                handed.push(Handed::new(deposit.id(), deposit.index(), client, backend));
                deposit.answer(true);
            }
            assert_eq!(self.new.hand_in(handed).owners, [1]);
        };
        let (id, ()) = patient(async { tokio::join!(opening, storing) }).await;
        id.unwrap()
    }

    /// The old one lets go, the new one takes.
    pub(super) async fn hand_over(&self) {
        let frozen = self.old.freeze(100).await;
        let taken = self.new.take_frozen(&frozen);
        assert_eq!(frozen, taken);
        self.old.forget(&taken);
        patient(self.old.emptied()).await;
    }
}

/// Sends without an end; gives the writer back.
async fn send(mut to: OwnedWriteHalf, bytes: &[u8]) -> OwnedWriteHalf {
    to.write_all(bytes).await.unwrap();
    to
}

#[tokio::test]
async fn a_tunnel_goes_on_with_the_next_byte() {
    for (inward, outward) in [(1, 1), (300_000, 5), (5, 8_000_000), (6_000_000, 6_000_000)] {
        let pair = Pair::start();
        let (client, backend, id) = pair.open(Preludes::default()).await;
        let (mut from_client, to_client) = client.into_split();
        let (mut from_backend, to_backend) = backend.into_split();
        let (inward, outward) = (noise(1, inward), noise(2, outward));
        let (mut at_backend, mut at_client) = (Vec::new(), Vec::new());
        patient(async {
            let sending =
                async { tokio::join!(send(to_client, &inward), send(to_backend, &outward)) };
            let mut sending = std::pin::pin!(sending);
            // Nobody reads yet: bytes wait in every queue that there is.
            let moment = Duration::from_millis(50);
            let sent = tokio::time::timeout(moment, &mut sending).await.ok();
            pair.hand_over().await;
            assert_eq!(pair.new.list()[0].id, id);
            let (a, b, ()) = tokio::join!(
                from_backend.read_to_end(&mut at_backend),
                from_client.read_to_end(&mut at_client),
                async {
                    let (mut to_client, mut to_backend) = match sent {
                        Some(both) => both,
                        None => sending.await,
                    };
                    to_client.shutdown().await.unwrap();
                    to_backend.shutdown().await.unwrap();
                }
            );
            a.and(b).unwrap();
        })
        .await;
        assert!(at_backend == inward && at_client == outward);
        patient(pair.new.emptied()).await;
        let totals = pair.new.totals();
        assert_eq!(pair.new.bytes(), [inward.len() as u64, outward.len() as u64]);
        assert_eq!((totals.opened, totals.closed.iter().sum::<u64>()), (1, 1));
        assert_eq!((totals.handed_over_by(Handover::Restart), totals.lost), (1, 0));
    }
}

#[tokio::test]
async fn who_leaves_takes_nothing_and_who_lives_goes_on() {
    let pair = Pair::start();
    let (mut client, mut backend, _) = pair.open(Preludes::default()).await;
    assert!(!pair.old.leave(), "it has a tunnel");
    let frozen = pair.old.freeze(100).await;
    assert!(!pair.old.leave(), "it may have to take it back");
    assert!(pair.new.leave());
    assert!(pair.new.take_frozen(&frozen).is_empty());
    assert_eq!(pair.new.active(), 0);
    pair.old.thaw();
    patient(async {
        client.write_all(b"on").await.unwrap();
        let mut got = [0; 2];
        backend.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"on");
    })
    .await;
}

#[tokio::test]
async fn a_first_byte_that_is_owed_is_sent_by_the_successor() {
    for early in [0, 10, 400_000] {
        let pair = Pair::start();
        let preludes = Preludes {
            head: b"HEAD".to_vec(),
            to_client: noise(3, early),
            to_backend: noise(4, early),
        };
        let expected = [b"HEAD".as_slice(), &preludes.to_client, b"late"].concat();
        let inward = preludes.to_backend.clone();
        let (mut client, mut backend, _) = pair.open(preludes).await;
        pair.hand_over().await;
        patient(async {
            backend.write_all(b"late").await.unwrap();
            backend.shutdown().await.unwrap();
            client.shutdown().await.unwrap();
            let (mut at_client, mut at_backend) = (Vec::new(), Vec::new());
            let (a, b) = tokio::join!(
                client.read_to_end(&mut at_client),
                backend.read_to_end(&mut at_backend)
            );
            a.and(b).unwrap();
            assert!(at_client == expected && at_backend == inward, "{early}");
        })
        .await;
        patient(pair.new.emptied()).await;
        assert_eq!(pair.new.bytes()[1], early as u64 + 4);
    }
}

#[tokio::test]
async fn ends_and_resets_of_a_frozen_tunnel_are_told_by_the_successor() {
    for client_ends in [true, false] {
        for reset in [true, false] {
            let pair = Pair::start();
            let (client, backend, _) = pair.open(Preludes::default()).await;
            let (mut ends, mut other, cause) = if client_ends {
                (client, backend, Cause::Client)
            } else {
                (backend, client, Cause::Backend)
            };
            ends.write_all(b"last words").await.unwrap();
            let mut heard = [0; 10];
            patient(other.read_exact(&mut heard)).await.unwrap();
            let frozen = pair.old.freeze(1).await;
            if reset {
                abort(ends);
                pair.new.take_frozen(&frozen);
                assert_eq!(read_error(&mut other).await, io::ErrorKind::ConnectionReset);
            } else {
                ends.shutdown().await.unwrap();
                pair.new.take_frozen(&frozen);
                assert_eq!(patient(other.read(&mut heard)).await.unwrap(), 0);
                other.shutdown().await.unwrap();
                assert_eq!(patient(ends.read(&mut heard)).await.unwrap(), 0);
            }
            pair.old.forget(&frozen);
            patient(pair.new.emptied()).await;
            assert_eq!(pair.new.totals().closed_by(cause), 1);
        }
    }
}

#[tokio::test]
async fn a_half_closed_tunnel_moves_as_one() {
    let pair = Pair::start();
    let (mut client, mut backend, _) = pair.open(Preludes::default()).await;
    patient(async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        backend.read_to_end(&mut heard).await.unwrap();
        pair.hand_over().await;
        backend.write_all(b"answer").await.unwrap();
        backend.shutdown().await.unwrap();
        heard.clear();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
    })
    .await;
    patient(pair.new.emptied()).await;
    assert_eq!(pair.new.totals().closed_by(Cause::Client), 1);
}

#[tokio::test]
async fn whoever_hands_over_hears_when_a_tunnel_that_was_opening_can_be_let_go_of() {
    let pair = Pair::start();
    let (_client, _backend, id) = pair.open(Preludes::default()).await;
    patient(pair.old.rung()).await;
    assert_eq!(pair.old.freeze(1).await, [id]);
}

#[tokio::test]
async fn one_that_thawed_before_it_was_taken_can_be_taken_the_next_time() {
    let pair = Pair::start();
    let (_client, _backend, id) = pair.open(Preludes::default()).await;
    assert_eq!(pair.old.freeze(1).await, [id]);
    pair.old.thaw();
    // The thread obeys in order: once it lists what it lets go of, it has thawed.
    assert!(pair.old.freeze(0).await.is_empty());
    assert!(pair.new.take_frozen(&[id]).is_empty());
    assert_eq!(pair.old.freeze(1).await, [id]);
    assert_eq!(pair.new.take_frozen(&[id]), [id]);
}

#[tokio::test]
async fn what_no_successor_takes_thaws_and_goes_on() {
    let pair = Pair::start();
    let (mut client, mut backend, id) = pair.open(Preludes::default()).await;
    assert_eq!(pair.old.freeze(1).await, [id]);
    let mut heard = [0; 5];
    patient(async {
        client.write_all(b"hello").await.unwrap();
        backend.read_exact(&mut heard).await.unwrap();
    })
    .await;
    // Too late: it is the old one's again.
    assert!(pair.new.take_frozen(&[id]).is_empty());
    assert_eq!(pair.old.active(), 1);
}

#[tokio::test]
async fn a_tunnel_at_rest_has_nothing_in_its_threads_intake() {
    let mut rig = Rig::open(PLAIN).await;
    // Its first look was in vain, and so was the one behind the last byte: neither leaves a note.
    let at_rest = async |rig: &Rig| {
        let left = || rig.tunnels.registry.arena.left_in_intakes(0);
        patient(async {
            while !left().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    rig.client.write_all(b"hello").await.unwrap();
    rig.backend.read_exact(&mut [0; 5]).await.unwrap();
    at_rest(&rig).await;
}

#[test]
fn the_table_of_processes_takes_the_hundredth_generation_of_a_listener() {
    let shared = Shared::take_up(None, None).unwrap();
    let fds = shared.fds().map(|fd| fd.try_clone_to_owned().unwrap());
    for generation in 1..=100 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = holdfast_proto::process::ProcessId::of(child.id()).unwrap();
        child.wait().unwrap();
        let arena = Arena::open(fds[0].try_clone().unwrap()).unwrap();
        arena.enrol(generation, process);
        let [arena, tally] = fds.each_ref().map(|fd| Some(fd.try_clone().unwrap()));
        Shared::take_up(arena, tally).unwrap().start(1, 1000 + generation).unwrap();
    }
}
