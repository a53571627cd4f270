//! Keys that change under a tunnel: what a peer that asks for ours gets, and when.

use std::io::{Read as _, Write as _};

use tokio_rustls::TlsStream;

use super::*;
use crate::tls::bounded::Bounded;
use crate::tls::capture::Captured;
use crate::tls::keys::{Protocol, Role, Secret, Suite, Version};
use crate::tls::record::{self, Cipher, Framed, Kind, Message, Skip};
use crate::tls::session::{self, Departed, Flow, Session};
use crate::tunnel::leg::Side;
use crate::tunnel::tests::moves::Pair;

/// What a record adds to what it holds.
const OVERHEAD: usize = 22;
const KEY_UPDATE: usize = OVERHEAD + 5;
const CLOSE_NOTIFY: usize = OVERHEAD + 2;
/// More than rustls takes key updates in a row.
const MANY: usize = 100;
/// As many as we take in a row.
const MOST: usize = 1024;

/// A peer that has its session by rustls, and our leg of it, which has left.
async fn rustls_end(side: Side) -> (TlsStream<TcpStream>, Leg) {
    let (far, near) = tcp_pair().await;
    far.set_nodelay(true).unwrap();
    let near = Bounded::new(near);
    let (server, client) = tls_configs();
    let name = || "localhost".try_into().unwrap();
    let (far, near, captured) = match side {
        Side::Client => {
            let mut server = ServerConfig::clone(&server);
            server.enable_secret_extraction = true;
            let (server, captured) = Captured::server(&server);
            let far = TlsConnector::from(client).connect(name(), far);
            let (far, near) = tokio::join!(far, TlsAcceptor::from(server).accept(near));
            (TlsStream::Client(far.unwrap()), TlsStream::Server(near.unwrap()), captured)
        }
        Side::Backend => {
            let mut client = ClientConfig::clone(&client);
            client.enable_secret_extraction = true;
            let (client, captured) = Captured::client(&client);
            let far = TlsAcceptor::from(server).accept(far);
            let (far, near) = tokio::join!(far, TlsConnector::from(client).connect(name(), near));
            (TlsStream::Server(far.unwrap()), TlsStream::Client(near.unwrap()), captured)
        }
    };
    let Ok(left) = session::leave(near, &captured).await else { panic!("it stayed") };
    (far, Leg::departed(left.socket.into_std().unwrap().into(), left.departed))
}

/// Asks for our next keys so many times.
async fn ask(peer: &mut TlsStream<TcpStream>, times: usize) {
    for _ in 0..times {
        match peer {
            TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
            TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
        }
        peer.flush().await.unwrap();
    }
}

/// A byte gets through.
async fn pass(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    from.write_all(b".").await.unwrap();
    from.flush().await.unwrap();
    patient(to.read_exact(&mut [0])).await.unwrap();
}

/// Asks, and sees each time that it was heard.
async fn ask_many_times(peer: &mut TlsStream<TcpStream>, other: &mut TcpStream) {
    for _ in 0..MANY {
        ask(peer, 1).await;
        pass(peer, other).await;
    }
}

/// How much has come to a peer that it has not read: as soon as that is so much or more.
async fn waiting(peer: &TlsStream<TcpStream>, at_least: usize) -> usize {
    let socket = peer.get_ref().0;
    let mut queue = [0; 4096];
    patient(async {
        loop {
            let count = socket.peek(&mut queue).await.unwrap();
            if count >= at_least {
                return count;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Who asks, and who speaks to it; their legs, the client's first.
async fn sides(asking: Side) -> (TlsStream<TcpStream>, TcpStream, [Leg; 2]) {
    let (peer, leg) = rustls_end(asking).await;
    let (other, other_leg) = tcp_pair().await;
    let legs = match asking {
        Side::Client => [leg, plain(other_leg)],
        Side::Backend => [plain(other_leg), leg],
    };
    (peer, other, legs)
}

/// Two engines on one arena and a tunnel at the first of them; each end has heard from the other.
async fn talking(asking: Side) -> (Pair, TlsStream<TcpStream>, TcpStream) {
    let (mut peer, mut other, legs) = sides(asking).await;
    let pair = Pair::start();
    pair.open_between(legs, Preludes::default()).await;
    pass(&mut peer, &mut other).await;
    pass(&mut other, &mut peer).await;
    (pair, peer, other)
}

#[tokio::test]
async fn who_asks_many_times_is_answered_once_and_just_before_the_next_bytes() {
    for asking in Side::BOTH {
        let (_pair, mut peer, mut other) = talking(asking).await;
        ask_many_times(&mut peer, &mut other).await;
        other.write_all(b"a").await.unwrap();
        let expected = KEY_UPDATE + OVERHEAD + 1;
        assert_eq!(waiting(&peer, expected).await, expected, "{asking:?}");
        patient(peer.read_exact(&mut [0])).await.unwrap();
        other.write_all(b"b").await.unwrap();
        assert_eq!(waiting(&peer, OVERHEAD + 1).await, OVERHEAD + 1, "{asking:?}");
        patient(peer.read_exact(&mut [0])).await.unwrap();
    }
}

#[tokio::test]
async fn a_successor_owes_what_its_predecessor_was_asked_for() {
    for asking in Side::BOTH {
        let (pair, mut peer, mut other) = talking(asking).await;
        ask_many_times(&mut peer, &mut other).await;
        pair.hand_over().await;
        ask(&mut peer, MANY).await;
        pass(&mut peer, &mut other).await;
        other.write_all(b"a").await.unwrap();
        let expected = KEY_UPDATE + OVERHEAD + 1;
        assert_eq!(waiting(&peer, expected).await, expected, "{asking:?}");
        patient(peer.read_exact(&mut [0])).await.unwrap();
    }
}

#[tokio::test]
async fn an_end_needs_no_answer_ahead_of_it() {
    for asking in Side::BOTH {
        let (pair, mut peer, mut other) = talking(asking).await;
        ask(&mut peer, 1).await;
        pass(&mut peer, &mut other).await;
        other.shutdown().await.unwrap();
        assert_eq!(waiting(&peer, CLOSE_NOTIFY).await, CLOSE_NOTIFY, "{asking:?}");
        assert_eq!(patient(peer.read(&mut [0])).await.unwrap(), 0);
        peer.shutdown().await.unwrap();
        patient(other.read_to_end(&mut Vec::new())).await.unwrap();
        patient(pair.old.emptied()).await;
    }
}

#[tokio::test]
async fn who_does_nothing_but_change_keys_is_borne_for_long_and_not_for_ever() {
    for asking in Side::BOTH {
        let (pair, mut peer, mut other) = talking(asking).await;
        ask(&mut peer, MOST).await;
        pass(&mut peer, &mut other).await;
        pass(&mut other, &mut peer).await;
        ask(&mut peer, MOST + 1).await;
        let told = patient(peer.read(&mut [0])).await.unwrap_err();
        assert!(told.to_string().contains("UnexpectedMessage"), "{told}");
        patient(pair.old.emptied()).await;
        assert_eq!(pair.old.totals().closed_by(Cause::ProtocolError), 1);
    }
}

/// A client whose records are made by hand. Its session is one that never was.
struct ByHand {
    socket: std::net::TcpStream,
    tunnels: Arc<Tunnels>,
    /// What it sends, and what it is sent.
    tx: Secret,
    rx: Secret,
}

const PROTOCOL: Protocol = Protocol { version: Version::Tls13, suite: Suite::Aes128Gcm };

fn tcp() -> [std::net::TcpStream; 2] {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    [far, near]
}

fn next(secret: &Secret) -> Secret {
    record::next_secret(PROTOCOL, secret).unwrap()
}

impl ByHand {
    /// With a plain backend. Our first record has this number.
    async fn open(seq: u64) -> (Self, std::net::TcpStream) {
        let [backend, leg] = tcp();
        (Self::open_to(Leg::plain(leg.into()), seq).await, backend)
    }

    async fn open_to(backend: Leg, seq: u64) -> Self {
        let [socket, client] = tcp();
        let [tx, rx] = [1, 2].map(|byte| Secret::new(&[byte; 32]).unwrap());
        let session = Session {
            role: Role::Server,
            protocol: PROTOCOL,
            tx: Flow { secret: rx.clone(), seq },
            rx: Flow { secret: tx.clone(), seq: 0 },
        };
        let departed = Departed { session, partial: Vec::new(), peer_closed: false };
        let client = Leg::departed(client.into(), departed);
        let tunnels = Tunnels::start(1, 1).unwrap();
        let facts = facts(Duration::ZERO);
        tunnels.open(client, backend, Preludes::default(), facts).await.unwrap();
        Self { socket, tunnels, tx, rx }
    }

    fn say(&mut self, records: &[(u64, Kind, &[u8])]) {
        let cipher = Cipher::new(PROTOCOL, &self.tx).unwrap();
        let mut sealed = Vec::new();
        for (seq, kind, bytes) in records {
            cipher.seal(*seq, *kind, bytes, &mut sealed).unwrap();
        }
        self.socket.write_all(&sealed).unwrap();
    }

    /// What the next record says, which has this number, and how much data it holds.
    fn hear(&mut self, seq: u64) -> (Message, Vec<u8>) {
        let mut sealed = vec![0; record::HEADER];
        self.socket.read_exact(&mut sealed).unwrap();
        let Ok(Framed::Partial { missing }) = record::frame(PROTOCOL, &sealed) else { panic!() };
        let mut rest = vec![0; missing];
        self.socket.read_exact(&mut rest).unwrap();
        sealed.extend_from_slice(&rest);
        let cipher = Cipher::new(PROTOCOL, &self.rx).unwrap();
        let opened = cipher.open(seq, &mut sealed).unwrap();
        let message = record::read(PROTOCOL, Role::Client, &opened, &mut Skip::from(0)).unwrap();
        (message, opened.plaintext.to_vec())
    }
}

#[tokio::test]
async fn a_key_that_is_worn_out_changes_before_the_next_bytes_and_answers_as_well() {
    let limit = record::record_limit(PROTOCOL);
    let (mut client, mut backend) = ByHand::open(limit).await;
    let update = record::key_update(true);
    client.say(&[(0, Kind::Handshake, &update)]);
    client.tx = next(&client.tx);
    client.say(&[(0, Kind::Data, b"x")]);
    backend.read_exact(&mut [0]).unwrap();
    backend.write_all(b"a").unwrap();
    assert_eq!(client.hear(limit).0, Message::KeyUpdate { requested: false });
    client.rx = next(&client.rx);
    assert_eq!(client.hear(0), (Message::Data, b"a".to_vec()));
    backend.write_all(b"b").unwrap();
    assert_eq!(client.hear(1), (Message::Data, b"b".to_vec()));
}

#[tokio::test]
async fn a_key_that_is_worn_out_still_says_that_no_more_comes() {
    let limit = record::record_limit(PROTOCOL);
    let (mut client, backend) = ByHand::open(limit).await;
    backend.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.hear(limit).0, Message::Closed);
    client.say(&[(0, Kind::Alert, &record::close_notify())]);
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    patient(client.tunnels.emptied()).await;
}

#[tokio::test]
async fn an_answer_waits_behind_records_without_data() {
    let (mut backend, leg) = rustls_end(Side::Backend).await;
    let mut client = ByHand::open_to(leg, 0).await;
    ask(&mut backend, 1).await;
    backend.write_all(b"x").await.unwrap();
    backend.flush().await.unwrap();
    assert_eq!(client.hear(0), (Message::Data, b"x".to_vec()));
    client.say(&[(0, Kind::Data, b""), (1, Kind::Data, b"y")]);
    let expected = KEY_UPDATE + OVERHEAD + 1;
    assert_eq!(waiting(&backend, expected).await, expected);
    let mut heard = [0];
    patient(backend.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"y");
}
