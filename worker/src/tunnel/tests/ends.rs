//! How tunnels end.

use super::*;

pub(super) fn abort(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A plain tunnel with its far ends as sockets.
async fn sockets() -> (Arc<Tunnels>, TcpStream, TcpStream) {
    let (client, client_leg) = tcp_pair().await;
    let (backend_leg, backend) = tcp_pair().await;
    let tunnels = Tunnels::start(1, 1).unwrap();
    let facts = facts(Duration::ZERO);
    tunnels.open(plain(client_leg), plain(backend_leg), Preludes::default(), facts).await.unwrap();
    (tunnels, client, backend)
}

async fn fill(stream: &mut TcpStream) {
    let bytes = vec![1; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(300), stream.write(&bytes)).await.is_ok() {}
}

pub(super) async fn read_error(stream: &mut TcpStream) -> io::ErrorKind {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match patient(stream.read(&mut buffer)).await {
            Ok(0) => panic!("an end, not a reset"),
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_both_ways() {
    for client_resets in [true, false] {
        let (tunnels, client, backend) = sockets().await;
        let (broken, mut other, cause) = if client_resets {
            (client, backend, Cause::Client)
        } else {
            (backend, client, Cause::Backend)
        };
        abort(broken);
        assert_eq!(read_error(&mut other).await, io::ErrorKind::ConnectionReset);
        patient(tunnels.emptied()).await;
        assert_eq!(tunnels.totals().closed_by(cause), 1);
    }
}

#[tokio::test]
async fn a_reset_is_noticed_at_once_behind_bytes_that_nobody_reads() {
    for client_resets in [true, false] {
        let (tunnels, client, backend) = sockets().await;
        let (mut broken, mut other, cause) = if client_resets {
            (client, backend, Cause::Client)
        } else {
            (backend, client, Cause::Backend)
        };
        fill(&mut broken).await;
        abort(broken);
        patient(tunnels.emptied()).await;
        assert_eq!(tunnels.totals().closed_by(cause), 1);
        assert_eq!(read_error(&mut other).await, io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_blocked_target_that_resets_ends_the_tunnel() {
    let (tunnels, mut client, backend) = sockets().await;
    fill(&mut client).await;
    abort(backend);
    patient(tunnels.emptied()).await;
    assert_eq!(tunnels.totals().closed_by(Cause::Backend), 1);
    assert_eq!(read_error(&mut client).await, io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_end_waits_behind_bytes_that_nobody_reads_yet() {
    let (tunnels, mut client, mut backend) = sockets().await;
    fill(&mut client).await;
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    patient(backend.read_to_end(&mut heard)).await.unwrap();
    backend.shutdown().await.unwrap();
    patient(tunnels.emptied()).await;
    assert_eq!(heard.len() as u64, tunnels.bytes()[0]);
    assert_eq!(tunnels.totals().closed_by(Cause::Client), 1);
}

#[tokio::test]
async fn blocked_tunnels_cost_no_turns() {
    let (tunnels, mut client, backend) = sockets().await;
    fill(&mut client).await;
    client.shutdown().await.unwrap();
    let before = tunnels.totals();
    let moved = tokio::time::timeout(Duration::from_millis(500), tunnels.emptied()).await;
    assert!(moved.is_err(), "it ended");
    assert_eq!(tunnels.totals(), before);
    assert!(tunnels.turns() < 10_000, "{} turns", tunnels.turns());
    drop(backend);
}

#[tokio::test]
async fn silence_ends_a_tunnel_and_bytes_put_it_off() {
    for shape in SHAPES {
        let idle = Duration::from_millis(600);
        let mut rig = Rig::open_with(shape, Preludes::default(), idle).await;
        let start = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        for _ in 0..5 {
            ticks.tick().await;
            rig.client.write_all(b".").await.unwrap();
            rig.client.flush().await.unwrap();
            patient(rig.backend.read_exact(&mut [0])).await.unwrap();
        }
        let mut rest = Vec::new();
        patient(rig.client.read_to_end(&mut rest)).await.unwrap();
        patient(rig.backend.read_to_end(&mut rest)).await.unwrap();
        let lived = start.elapsed();
        assert!(lived >= Duration::from_millis(1400), "{lived:?}");
        assert!(lived < Duration::from_secs(5), "{lived:?}");
        rig.expect_end(Cause::Idle).await;
    }
}

#[tokio::test]
async fn a_tls_end_without_close_notify_is_called_truncated() {
    let (mut far, leg) = bared_client().await;
    let (mut backend, backend_leg) = backend_end(false).await;
    let tunnels = Tunnels::start(1, 1).unwrap();
    tunnels.open(leg, backend_leg, Preludes::default(), facts(Duration::ZERO)).await.unwrap();
    far.shutdown().await.unwrap();
    patient(backend.read_to_end(&mut Vec::new())).await.unwrap();
    backend.shutdown().await.unwrap();
    patient(tunnels.emptied()).await;
    assert_eq!(tunnels.totals().closed_by(Cause::Truncated), 1);
}

/// A client that has done its TLS handshake and then forgets about TLS.
async fn bared_client() -> (TcpStream, Leg) {
    let (far, near) = tcp_pair().await;
    let (server, config) = tls_configs();
    let (far, near) = tokio::join!(
        TlsConnector::from(config).connect("localhost".try_into().unwrap(), far),
        TlsAcceptor::from(server).accept(near)
    );
    let (near, session) = near.unwrap().into_inner();
    let leg = Leg::tls(near.into_std().unwrap().into(), Connection::Server(session));
    (far.unwrap().into_inner().0, leg)
}

#[tokio::test]
async fn garbage_on_a_tls_leg_is_a_protocol_error_and_resets_the_other() {
    let (mut far, leg) = bared_client().await;
    let (backend_leg, mut backend) = tcp_pair().await;
    let tunnels = Tunnels::start(1, 1).unwrap();
    tunnels
        .open(leg, plain(backend_leg), Preludes::default(), facts(Duration::ZERO))
        .await
        .unwrap();
    far.write_all(&noise(8, 4000)).await.unwrap();
    assert_eq!(read_error(&mut backend).await, io::ErrorKind::ConnectionReset);
    patient(tunnels.emptied()).await;
    assert_eq!(tunnels.totals().closed_by(Cause::ProtocolError), 1);
}

#[tokio::test]
async fn a_peer_that_no_longer_answers_is_lost() {
    let (mut client, client_leg) = tcp_pair().await;
    let (backend_leg, backend) = tcp_pair().await;
    // The kernel gives a peer up that takes nothing for so long.
    let patience = nix::sys::socket::sockopt::TcpUserTimeout;
    nix::sys::socket::setsockopt(&backend_leg, patience, &300).unwrap();
    let tunnels = Tunnels::start(1, 1).unwrap();
    let facts = facts(Duration::ZERO);
    tunnels.open(plain(client_leg), plain(backend_leg), Preludes::default(), facts).await.unwrap();
    let bytes = vec![1; 1 << 20];
    let error = loop {
        if let Err(error) = patient(client.write(&bytes)).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    patient(tunnels.emptied()).await;
    assert_eq!(tunnels.totals().closed_by(Cause::PeerLost), 1);
    drop(backend);
}

#[tokio::test]
async fn tunnels_are_closed_by_id_and_by_deadline() {
    let mut rig = Rig::open(PLAIN).await;
    assert_eq!(rig.tunnels.close(&[rig.id, 99], Cause::Admin), [rig.id]);
    patient(rig.client.read_to_end(&mut Vec::new())).await.unwrap();
    rig.expect_end(Cause::Admin).await;

    let rig = Rig::open(PLAIN).await;
    rig.tunnels.close_all_at(Instant::now() + Duration::from_secs(3600), Cause::Shutdown);
    rig.tunnels.close_all_at(Instant::now() + Duration::from_millis(100), Cause::Drain);
    rig.expect_end(Cause::Drain).await;
}

#[tokio::test]
async fn a_removed_backend_leaves_its_tunnels_some_time_unless_it_returns() {
    let rig = Rig::open(PLAIN).await;
    rig.tunnels.retire(|_| Some(Duration::from_millis(300)));
    rig.tunnels.retire(|_| None);
    let ended = tokio::time::timeout(Duration::from_millis(900), rig.tunnels.emptied()).await;
    assert!(ended.is_err());
    rig.tunnels.retire(|facts| (facts.backend_port == 9).then_some(Duration::from_millis(100)));
    rig.expect_end(Cause::BackendRemoved).await;
}

#[tokio::test]
async fn dropping_the_engine_ends_everything() {
    let Rig { tunnels, mut client, mut backend, .. } = Rig::open(PLAIN).await;
    let tally = Arc::clone(&tunnels.registry.tally);
    drop(tunnels);
    assert_eq!(patient(client.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(patient(backend.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(tally.totals().closed_by(Cause::Shutdown), 1);
}

#[tokio::test]
async fn urgent_bytes_stay_in_line() {
    let (_tunnels, mut client, mut backend) = sockets().await;
    for round in 0..20 {
        client.write_all(b"abc").await.unwrap();
        socket2::SockRef::from(&client).send_out_of_band(b"U").unwrap();
        client.write_all(b"def").await.unwrap();
        let mut heard = [0; 7];
        patient(backend.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"abcUdef", "round {round}");
    }
}

#[tokio::test]
async fn many_blocked_tunnels_keep_their_thread_asleep() {
    let tunnels = Tunnels::start(1, 1).unwrap();
    let mut far = Vec::new();
    for _ in 0..40 {
        let (client, client_leg) = tcp_pair().await;
        let (backend_leg, backend) = tcp_pair().await;
        let facts = facts(Duration::from_secs(60));
        tunnels
            .open(plain(client_leg), plain(backend_leg), Preludes::default(), facts)
            .await
            .unwrap();
        far.push((client, backend));
    }
    let bytes = vec![1; 16 << 20];
    for (client, _) in &far {
        // Beyond what the queues of both legs hold, as far as the kernel takes it.
        while client.try_write(&bytes).is_ok() {}
    }
    // Until nothing moves, then a while longer.
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let mut before = tunnels.bytes()[0];
    loop {
        ticks.tick().await;
        ticks.tick().await;
        for (client, _) in &far {
            while client.try_write(&bytes).is_ok() {}
        }
        let now = tunnels.bytes()[0];
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    let turns = tunnels.turns();
    ticks.tick().await;
    ticks.tick().await;
    assert!(tunnels.turns() - turns < 400, "{} turns while blocked", tunnels.turns() - turns);
    // A reset is noticed in all of them.
    let (clients, backends): (Vec<_>, Vec<_>) = far.into_iter().unzip();
    clients.into_iter().for_each(abort);
    patient(tunnels.emptied()).await;
    assert_eq!(tunnels.totals().closed_by(Cause::Client), 40);
    drop(backends);
}
