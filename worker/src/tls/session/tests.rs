//! Sessions that leave, over real TCP, against a peer that stays with rustls and gives its own secrets out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod peers;

use std::time::Duration;

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::peers::{ALL_SUITES, Configs, Pair, TLS13};
use super::*;

const BOTH: [Role; 2] = [Role::Client, Role::Server];

/// Compares what has left with what the peer's rustls says. All that was sent must have been read.
fn assert_same(session: &Session, peer: &rustls::ExtractedSecrets) {
    for (flow, (seq, keys)) in [(&session.tx, &peer.rx), (&session.rx, &peer.tx)] {
        let (suite, keys) = key_and_iv(keys).unwrap();
        assert_eq!(session.protocol.suite, suite);
        assert_eq!(flow.secret.bytes().len(), session.protocol.secret_len());
        let found = match session.protocol.version {
            Version::Tls12 => flow.secret.clone(),
            Version::Tls13 => {
                let keys = record::key_of(session.protocol, &flow.secret).unwrap();
                Secret::new(&[keys.key(), keys.iv()].concat()).unwrap()
            }
        };
        assert!(found == keys, "keys differ: {session:?}");
        assert_eq!(flow.seq, *seq, "{session:?}");
    }
}

#[tokio::test]
async fn sessions_of_every_suite_leave_in_both_roles() {
    for suite in ALL_SUITES {
        for role in BOTH {
            let mut pair = Pair::open(&Configs::of(*suite), role).await;
            pair.exchange().await;
            pair.exchange().await;
            let left = leave(pair.near, &pair.captured).await.unwrap();
            assert_eq!(left.departed.session.role, role);
            assert_eq!(
                Some(left.departed.session.protocol.version),
                version_of(suite.version().version)
            );
            assert_same(&left.departed.session, &pair.far.secrets());
            assert!(
                left.early.is_empty()
                    && left.departed.partial.is_empty()
                    && !left.departed.peer_closed
            );
        }
    }
}

#[tokio::test]
async fn what_rustls_has_opened_comes_along() {
    for role in BOTH {
        let mut pair = Pair::open(&Configs::of(TLS13), role).await;
        pair.exchange().await;
        let wire = pair.far.seal(&[b"early".repeat(3000).as_slice()]);
        pair.far.send(&wire).await;
        let mut first = [0; 7];
        pair.near.read_exact(&mut first).await.unwrap();
        let left = leave(pair.near, &pair.captured).await.unwrap();
        assert_eq!([&first[..], &left.early].concat(), b"early".repeat(3000));
        assert!(left.departed.partial.is_empty());
        assert_same(&left.departed.session, &pair.far.secrets());
    }
}

#[tokio::test]
async fn the_next_records_stay_in_the_socket() {
    let mut pair = Pair::open(&Configs::of(TLS13), Role::Server).await;
    pair.exchange().await;
    let (first, second) = (pair.far.seal(&[b"first"]), pair.far.seal(&[b"second", b"third"]));
    pair.far.send(&[first, second.clone()].concat()).await;
    let mut read = [0; 5];
    pair.near.read_exact(&mut read).await.unwrap();
    let mut left = leave(pair.near, &pair.captured).await.unwrap();
    let mut rest = vec![0; second.len() - left.departed.partial.len()];
    left.socket.read_exact(&mut rest).await.unwrap();
    assert!(left.early.is_empty());
    assert_eq!([left.departed.partial, rest].concat(), second);
    assert_eq!(left.departed.session.rx.seq + 2, pair.far.secrets().tx.0);
}

#[tokio::test]
async fn a_cut_record_comes_along_as_it_came() {
    for suite in ALL_SUITES {
        for role in BOTH {
            let configs = Configs::of(*suite);
            for cut in [1, 4, 5, 6, 500, 9000] {
                let mut pair = Pair::open(&configs, role).await;
                pair.exchange().await;
                let wire = pair.far.seal(&[&[7; 10_000]]);
                pair.far.send(&wire[..cut]).await;
                pair.read_in_vain(cut).await;
                let left = leave(pair.near, &pair.captured).await.unwrap();
                assert_eq!(left.departed.partial, wire[..cut]);
                assert!(left.early.is_empty());
                assert_eq!(left.departed.session.rx.seq + 1, pair.far.secrets().tx.0);
            }
        }
    }
}

#[tokio::test]
async fn keys_that_the_peer_has_changed_are_found() {
    for (suite, role) in ALL_SUITES[..3].iter().flat_map(|suite| BOTH.map(|role| (suite, role))) {
        for updates in [1, 2, 5] {
            let mut pair = Pair::open(&Configs::of(*suite), role).await;
            pair.exchange().await;
            for _ in 0..updates {
                pair.far.refresh();
                pair.exchange().await;
            }
            let left = leave(pair.near, &pair.captured).await.unwrap();
            assert_same(&left.departed.session, &pair.far.secrets());
        }
    }
}

#[tokio::test]
async fn an_answer_to_a_key_update_is_said_before_the_session_leaves() {
    for role in BOTH {
        let mut pair = Pair::open(&Configs::of(TLS13), role).await;
        pair.exchange().await;
        pair.far.refresh();
        let wire = pair.far.seal(&[b"after"]);
        pair.far.send(&wire).await;
        let mut after = [0; 5];
        pair.near.read_exact(&mut after).await.unwrap();
        // The answer waits inside rustls, which has changed its own key already.
        assert!(!pair.near.get_ref().1.wants_write());
        let left = leave(pair.near, &pair.captured).await.unwrap();
        assert_eq!(left.departed.session.tx.seq, 0);
        pair.far.read_record().await;
        assert_same(&left.departed.session, &pair.far.secrets());
    }
}

#[tokio::test]
async fn keys_that_we_have_changed_are_found() {
    let mut pair = Pair::open(&Configs::of(TLS13), Role::Client).await;
    pair.exchange().await;
    let TlsStream::Client(near) = &mut pair.near else { panic!("{:?}", pair.near) };
    near.get_mut().1.refresh_traffic_keys().unwrap();
    pair.exchange().await;
    pair.exchange().await;
    let left = leave(pair.near, &pair.captured).await.unwrap();
    assert_same(&left.departed.session, &pair.far.secrets());
}

#[tokio::test]
async fn a_peers_farewell_is_seen_and_what_follows_is_not_read() {
    for suite in ALL_SUITES {
        let mut pair = Pair::open(&Configs::of(*suite), Role::Server).await;
        pair.exchange().await;
        let last = pair.far.seal(&[b"last words"]);
        let farewell = pair.far.farewell();
        pair.far.send(&[last, farewell, vec![0; 9]].concat()).await;
        let mut read = [0; 4];
        pair.near.read_exact(&mut read).await.unwrap();
        let mut rest = [0; 6];
        pair.near.read_exact(&mut rest).await.unwrap();
        assert_eq!(pair.near.read(&mut [0; 1]).await.unwrap(), 0);
        let mut left = leave(pair.near, &pair.captured).await.unwrap();
        assert!(
            left.departed.peer_closed && left.early.is_empty() && left.departed.partial.is_empty()
        );
        assert_same(&left.departed.session, &pair.far.secrets());
        let mut ignored = [1; 9];
        left.socket.read_exact(&mut ignored).await.unwrap();
        assert_eq!(ignored, [0; 9]);
    }
}

#[tokio::test]
async fn what_we_have_written_is_on_the_wire_before_the_session_leaves() {
    let mut pair = Pair::open(&Configs::of(TLS13), Role::Server).await;
    pair.exchange().await;
    // Sealed, and nobody has flushed it.
    let TlsStream::Server(near) = &mut pair.near else { panic!("{:?}", pair.near) };
    near.get_mut().1.writer().write_all(b"unflushed").unwrap();
    let left = leave(pair.near, &pair.captured).await.unwrap();
    let mut read = [0; 9];
    pair.far.read(&mut read).await;
    assert_eq!(&read, b"unflushed");
    assert_same(&left.departed.session, &pair.far.secrets());
}

#[tokio::test]
async fn cloned_configurations_resume_each_others_sessions() {
    for suite in [ALL_SUITES[0], ALL_SUITES[3]] {
        for role in BOTH {
            let configs = Configs::of(suite);
            let mut first = Pair::open(&configs, role).await;
            first.exchange().await;
            let kind = |pair: &Pair| pair.near.get_ref().1.handshake_kind().unwrap();
            assert_eq!(kind(&first), HandshakeKind::Full);
            let mut second = Pair::open(&configs, role).await;
            assert_eq!(kind(&second), HandshakeKind::Resumed, "{suite:?}");
            second.exchange().await;
            let left = leave(second.near, &second.captured).await.unwrap();
            assert_same(&left.departed.session, &second.far.secrets());
            let left = leave(first.near, &first.captured).await.unwrap();
            assert_same(&left.departed.session, &first.far.secrets());
        }
    }
}

#[tokio::test]
async fn without_captured_secrets_a_session_stays_and_goes_on() {
    for role in BOTH {
        let mut pair = Pair::open(&Configs::of(TLS13), role).await;
        pair.exchange().await;
        let (opened, cut) = (pair.far.seal(&[b"opened"]), pair.far.seal(&[b"cut"]));
        pair.far.send(&[&opened[..], &cut[..10]].concat()).await;
        let mut first = [0; 1];
        pair.near.read_exact(&mut first).await.unwrap();
        let stayed = leave(pair.near, &Captured::default()).await.err().unwrap();
        let Stayed::Pinned { mut connection, socket, why: Why::NotCaptured } = stayed else {
            panic!("{stayed:?}")
        };
        // As a leg does: what has been opened comes first, and the record goes on where it was cut.
        pair.far.send(&cut[10..]).await;
        let mut socket = socket.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        let mut read = first.to_vec();
        while read.len() < 9 {
            let mut reader = connection.reader();
            let some = reader.fill_buf().map(<[u8]>::to_vec).unwrap_or_default();
            reader.consume(some.len());
            read.extend(some);
            if read.len() < 9 {
                connection.read_tls(&mut socket).unwrap();
                connection.process_new_packets().unwrap();
            }
        }
        assert_eq!(read, b"openedcut");
    }
}

#[tokio::test]
async fn without_captured_secrets_tls_12_leaves_all_the_same() {
    let mut pair = Pair::open(&Configs::of(ALL_SUITES[3]), Role::Client).await;
    pair.exchange().await;
    let left = leave(pair.near, &Captured::default()).await.unwrap();
    assert_same(&left.departed.session, &pair.far.secrets());
}

#[tokio::test]
async fn a_failed_session_stays_to_say_so_again() {
    let mut pair = Pair::open(&Configs::of(TLS13), Role::Server).await;
    pair.exchange().await;
    pair.far.send(&[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    pair.near.read(&mut [0; 1]).await.unwrap_err();
    let stayed = leave(pair.near, &pair.captured).await.err().unwrap();
    assert!(matches!(stayed, Stayed::Pinned { why: Why::Failed(_), .. }), "{stayed:?}");
}

#[tokio::test]
async fn a_session_whose_secrets_do_not_come_out_is_lost() {
    let mut configs = Configs::of(TLS13);
    configs.server.enable_secret_extraction = false;
    let pair = Pair::open(&configs, Role::Server).await;
    let stayed = leave(pair.near, &pair.captured).await.err().unwrap();
    assert!(matches!(stayed, Stayed::Lost(Loss::Refused(_))), "{stayed:?}");
    let configs = Configs::of(TLS13);
    let (pair, other) =
        (Pair::open(&configs, Role::Server).await, Pair::open(&configs, Role::Server).await);
    let stayed = leave(pair.near, &other.captured).await.err().unwrap();
    assert!(matches!(stayed, Stayed::Lost(Loss::NoGeneration)), "{stayed:?}");
}

#[tokio::test]
async fn a_handshake_that_has_not_finished_makes_no_plan() {
    let (config, captured) = Captured::client(&Configs::of(TLS13).client);
    let name = "localhost".try_into().unwrap();
    let fresh = rustls::ClientConnection::new(config, name).unwrap();
    let planned = Plan::of(&Connection::Client(fresh), &captured);
    assert!(matches!(planned, Err(Why::Handshaking)));
}

#[tokio::test]
async fn a_peer_that_does_not_read_keeps_the_session_waiting() {
    let mut pair = Pair::open(&Configs::of(TLS13), Role::Server).await;
    pair.exchange().await;
    let TlsStream::Server(near) = &mut pair.near else { panic!("{:?}", pair.near) };
    near.get_mut().1.set_buffer_limit(None);
    near.get_mut().1.writer().write_all(&vec![0; 32 << 20]).unwrap();
    let leaving = leave(pair.near, &pair.captured);
    assert!(tokio::time::timeout(Duration::from_millis(100), leaving).await.is_err());
}
