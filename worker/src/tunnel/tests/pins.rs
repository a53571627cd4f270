//! Tunnels that cannot move: they are told apart, and stay when the others go.

use super::*;

fn pinned(tunnels: &Tunnels) -> Vec<String> {
    tunnels.list().into_iter().map(|tunnel| tunnel.pinned).collect()
}

#[tokio::test]
async fn a_session_that_stays_with_rustls_pins_its_tunnel() {
    for shape in SHAPES {
        let rig = Rig::open(shape).await;
        let stays = shape.client_tls || shape.backend_tls;
        let tls = u64::from(stays);
        assert_eq!(pinned(&rig.tunnels), [if stays { "tls" } else { "" }]);
        let census = Census { active: 1, protected: 0, pinned: [tls, 0, 0] };
        assert_eq!(rig.tunnels.census(), census);
        assert_eq!(rig.tunnels.has_portable(), !stays);
    }
}

#[tokio::test]
async fn counters_that_are_not_trusted_pin_every_tunnel() {
    let arena = arena::Arena::create().unwrap();
    let tally = tally::Tally::create().unwrap();
    let tunnels = Tunnels::start_on(1, 1, arena, tally, false, Vec::new()).unwrap();
    tunnels.attach();
    let (mut client, near) = tcp_pair().await;
    let (dialled, mut backend) = tcp_pair().await;
    // It opens without waiting for a vault that will never hold it.
    let opening =
        tunnels.open(plain(near), plain(dialled), Preludes::default(), facts(Duration::ZERO));
    patient(opening).await.unwrap();
    assert!(!tunnels.has_pending());
    assert_eq!(pinned(&tunnels), ["counters"]);
    assert_eq!(tunnels.census().pinned, [0, 0, 1]);
    assert!(patient(tunnels.freeze(10)).await.is_empty());
    client.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    patient(backend.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
}
