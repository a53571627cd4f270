//! A death at every named step of records that are opened and sealed: TLS on either side, and on both.

use std::io::Read;

use rustls::Connection;

use super::*;
use crate::harness::{Manner, Sealed, upgrade_request};
use crate::survive::wired_with;

/// Peers that change their keys, and whose records come in pieces.
const RESTLESS: Manner = Manner { old: false, shreds: true, rekeys: 1, rude: false };
const LEGS: [Sealed; 3] = [Sealed::Client, Sealed::Backend, Sealed::Both];

fn kill_at_each_sealed(sealed: Sealed, manner: Manner, steps: &[&str], skips: &[u32]) {
    kill_at_each_of(Stage::begin(1, wired_with(sealed, manner)), steps, skips, by_itself);
}

fn kill_while_records_pass(sealed: Sealed, manner: Manner) {
    let steps =
        ["step.peeked", "step.opened", "step.before", "step.begun", "step.sent", "step.taken"];
    kill_at_each_sealed(sealed, manner, &steps, &[0, 60]);
}

#[test]
fn a_worker_killed_while_it_opens_a_clients_records() {
    kill_while_records_pass(Sealed::Client, Manner::default());
}

#[test]
fn a_worker_killed_while_it_seals_records_for_a_backend() {
    kill_while_records_pass(Sealed::Backend, Manner::default());
}

#[test]
fn a_worker_killed_while_it_seals_anew_what_it_opens() {
    kill_while_records_pass(Sealed::Both, Manner::default());
}

#[test]
fn a_worker_killed_while_it_passes_records_of_tls_1_2() {
    kill_while_records_pass(Sealed::Both, Manner { old: true, ..Manner::default() });
}

#[test]
fn a_worker_killed_between_close_notify_and_fin() {
    let steps = ["step.end_seen", "step.fin_marked", "step.fin_sent", "end.marked", "end.shut"];
    for sealed in LEGS {
        kill_at_each_sealed(sealed, Manner::default(), &steps, &[0, 2]);
    }
}

#[test]
fn a_worker_killed_while_keys_change() {
    let steps = ["step.tx_secret", "step.rx_secret", "step.begun", "step.sent", "step.taken"];
    for sealed in LEGS {
        kill_at_each_sealed(sealed, RESTLESS, &steps, &[0, 3]);
    }
}

#[test]
fn a_worker_killed_while_it_has_a_part_of_a_record() {
    for sealed in LEGS {
        kill_at_each_sealed(sealed, RESTLESS, &["carry.written", "carry.taken"], &[0, 9]);
    }
}

#[test]
fn a_predecessor_or_its_successor_killed_while_sealed_tunnels_move() {
    let steps = ["freeze.frozen", "handover.told", "adopt.before", "adopt.owned", "adopt.told"];
    let stage = Stage::begin(1, wired_with(Sealed::Both, RESTLESS));
    kill_at_each_of(stage, &steps, &[0], by_restart);
}

#[test]
fn a_worker_killed_while_a_sealed_tunnel_opens() {
    let steps = ["open.published", "open.deposited", "deposit.stored"];
    let stage = Stage::begin(1, wired_with(Sealed::Both, Manner::default()));
    kill_at_each_of(stage, &steps, &[0, 2], by_itself);
}

#[test]
fn a_checker_that_notices_nothing_of_sealed_bytes_would_be_told() {
    for sealed in [Sealed::Client, Sealed::Backend] {
        let (gateway, port, wires) = wired_with(sealed, Manner::default());
        let traffic = traffic(&wires, port, 1);
        gateway.arm("skip-discard", "");
        let unwatched = std::panic::AssertUnwindSafe(|| {
            traffic.moves(300_000);
            traffic.finish();
        });
        assert!(std::panic::catch_unwind(unwatched).is_err(), "nobody has noticed, {sealed:?}");
    }
}

/// A wss tunnel whose client's records are sent by hand.
struct ByHand {
    gateway: Gateway,
    session: Connection,
    socket: TcpStream,
    backend: TcpStream,
}

impl ByHand {
    fn open(manner: Manner) -> Self {
        let (gateway, port, wires) = wired_with(Sealed::Client, manner);
        let mut session = wires.client_session();
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        session.writer().write_all(upgrade_request("/wire/hand", "localhost").as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            session.complete_io(&mut socket).unwrap();
            // Nothing yet is an error.
            session.reader().read_to_end(&mut head).ok();
        }
        let backend = wires.backend_of("/wire/hand");
        Self { gateway, session, socket, backend }
    }

    /// Sends what the session has to say in so many pieces. The worker is killed with each of them but the last in hand.
    fn send_in(&mut self, pieces: usize, step: &str) {
        let mut sealed = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut sealed).unwrap();
        }
        let pieces: Vec<_> = sealed.chunks(sealed.len().div_ceil(pieces)).collect();
        let (last, first) = pieces.split_last().unwrap();
        for piece in first {
            self.gateway.arm(step, "kill");
            self.socket.write_all(piece).unwrap();
            eventually(Patience::USUAL, step, || self.gateway.has_fired(step).then_some(()));
        }
        self.socket.write_all(last).unwrap();
    }

    /// Waits for so many bytes.
    fn hears(&mut self, count: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < count {
            self.session.complete_io(&mut self.socket).unwrap();
            // Nothing yet is an error.
            self.session.reader().read_to_end(&mut heard).ok();
        }
        heard
    }
}

#[test]
fn a_worker_killed_with_each_part_of_a_record_in_hand() {
    for step in ["carry.written", "carry.taken"] {
        for old in [false, true] {
            let mut tunnel = ByHand::open(Manner { old, ..Manner::default() });
            for length in [1, 16 * 1024] {
                let said = vec![b'x'; length];
                tunnel.session.writer().write_all(&said).unwrap();
                tunnel.send_in(3, step);
                let mut heard = vec![0; length];
                tunnel.backend.read_exact(&mut heard).unwrap();
                assert!(heard == said);
            }
            if !old {
                tunnel.session.refresh_traffic_keys().unwrap();
                tunnel.send_in(2, step);
            }
            tunnel.session.writer().write_all(b"last words").unwrap();
            tunnel.session.send_close_notify();
            tunnel.send_in(2, step);
            finish(&tunnel.socket);
            assert_eq!(rest(&mut tunnel.backend), (b"last words".to_vec(), false));
            finish(&tunnel.backend);
            tunnel.gateway.holds_exactly(0);
            tunnel.gateway.says(&["tunnel ended", "cause=\"client\"", "bytes_in=16395"]);
            tunnel.gateway.has_lost_none();
        }
    }
}

/// The answer is a step of its own, and the first one that the backend's next word leads to.
#[test]
fn a_worker_killed_with_an_owed_key_update_in_hand() {
    let mut tunnel = ByHand::open(Manner::default());
    let steps = ["step.peeked", "step.tx_secret", "step.before", "step.begun", "step.sent"];
    for step in steps {
        for _ in 0..40 {
            tunnel.session.refresh_traffic_keys().unwrap();
        }
        tunnel.session.writer().write_all(b"asked").unwrap();
        tunnel.send_in(1, step);
        let mut heard = [0; 5];
        tunnel.backend.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"asked");
        tunnel.gateway.arm(step, "kill");
        tunnel.backend.write_all(step.as_bytes()).unwrap();
        eventually(Patience::USUAL, step, || tunnel.gateway.has_fired(step).then_some(()));
        assert_eq!(tunnel.hears(step.len()), step.as_bytes());
        tunnel.gateway.holds_exactly(1);
    }
    tunnel.gateway.has_lost_none();
}
