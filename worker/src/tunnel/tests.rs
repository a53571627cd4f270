//! Tunnels over real sockets: bytes, ends, deadlines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

mod cells;
mod ends;
mod keys;
mod left;
mod moves;
mod pins;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A tunnel with both of its far ends.
struct Rig {
    tunnels: Arc<Tunnels>,
    id: TunnelId,
    client: Box<dyn Io>,
    backend: Box<dyn Io>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    client_tls: bool,
    backend_tls: bool,
}

const PLAIN: Shape = Shape { client_tls: false, backend_tls: false };
const SHAPES: [Shape; 4] = [
    PLAIN,
    Shape { client_tls: true, backend_tls: false },
    Shape { client_tls: false, backend_tls: true },
    Shape { client_tls: true, backend_tls: true },
];

fn facts(idle_timeout: Duration) -> TunnelFacts {
    TunnelFacts {
        site: "site".into(),
        pool: "pool".into(),
        settings: "settings".into(),
        backend: "127.0.0.1".into(),
        backend_port: 9,
        client: SocketAddr::from(([127, 0, 0, 1], 1)),
        trace_id: "trace".into(),
        logged: false,
        idle_timeout,
        opened: SystemTime::now(),
    }
}

fn tls_configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (active, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (active.unwrap(), accepted.unwrap().0)
}

fn plain(stream: TcpStream) -> Leg {
    Leg::plain(stream.into_std().unwrap().into())
}

/// The far end of a client and the leg that the gateway accepted.
async fn client_end(tls: bool) -> (Box<dyn Io>, Leg) {
    let (far, near) = tcp_pair().await;
    if !tls {
        return (Box::new(far), plain(near));
    }
    let (server, client) = tls_configs();
    let (far, near) = tokio::join!(
        TlsConnector::from(client).connect("localhost".try_into().unwrap(), far),
        TlsAcceptor::from(server).accept(near)
    );
    let (near, session) = near.unwrap().into_inner();
    (Box::new(far.unwrap()), Leg::tls(near.into_std().unwrap().into(), Connection::Server(session)))
}

/// The far end of a backend and the leg that the gateway dialled.
async fn backend_end(tls: bool) -> (Box<dyn Io>, Leg) {
    let (near, far) = tcp_pair().await;
    if !tls {
        return (Box::new(far), plain(near));
    }
    let (server, client) = tls_configs();
    let (near, far) = tokio::join!(
        TlsConnector::from(client).connect("localhost".try_into().unwrap(), near),
        TlsAcceptor::from(server).accept(far)
    );
    let (near, session) = near.unwrap().into_inner();
    (Box::new(far.unwrap()), Leg::tls(near.into_std().unwrap().into(), Connection::Client(session)))
}

impl Rig {
    async fn open(shape: Shape) -> Self {
        Self::open_with(shape, Preludes::default(), Duration::ZERO).await
    }

    async fn open_with(shape: Shape, preludes: Preludes, idle: Duration) -> Self {
        let (client, client_leg) = client_end(shape.client_tls).await;
        let (backend, backend_leg) = backend_end(shape.backend_tls).await;
        let tunnels = Tunnels::start(1, 3).unwrap();
        let id = tunnels.open(client_leg, backend_leg, preludes, facts(idle)).await.unwrap();
        Self { tunnels, id, client, backend }
    }

    async fn expect_end(&self, cause: Cause) {
        patient(self.tunnels.emptied()).await;
        assert_eq!(self.tunnels.totals().closed_by(cause), 1, "{:?}", self.tunnels.totals());
    }
}

async fn patient<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

async fn send_in_pieces(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if random.random_bool(0.5) { 100 } else { 100_000 };
        let (piece, left) = rest.split_at(random.random_range(1..=most).min(rest.len()));
        to.write_all(piece).await.unwrap();
        to.flush().await.unwrap();
        rest = left;
    }
    to.shutdown().await.unwrap();
}

#[tokio::test]
async fn bytes_arrive_both_ways_at_once_over_every_kind_of_leg() {
    for shape in SHAPES {
        let Rig { tunnels, client, backend, .. } = Rig::open(shape).await;
        let (inward, outward) = (noise(1, 3_000_000), noise(2, 5_000_000));
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_backend, mut to_backend) = tokio::io::split(backend);
        let (mut at_backend, mut at_client) = (Vec::new(), Vec::new());
        let (a, b, (), ()) = patient(async {
            tokio::join!(
                from_backend.read_to_end(&mut at_backend),
                from_client.read_to_end(&mut at_client),
                send_in_pieces(&mut to_client, &inward, 3),
                send_in_pieces(&mut to_backend, &outward, 4),
            )
        })
        .await;
        a.and(b).unwrap();
        assert!(at_backend == inward && at_client == outward, "{shape:?}");
        patient(tunnels.emptied()).await;
        assert_eq!(tunnels.bytes(), [3_000_000, 5_000_000]);
    }
}

#[tokio::test]
async fn a_half_closed_tunnel_lives_on_in_the_other_direction() {
    for shape in SHAPES {
        for client_first in [true, false] {
            let mut rig = Rig::open(shape).await;
            let (first, second) = if client_first {
                (&mut rig.client, &mut rig.backend)
            } else {
                (&mut rig.backend, &mut rig.client)
            };
            patient(async {
                first.write_all(b"last words").await.unwrap();
                first.shutdown().await.unwrap();
                let mut heard = Vec::new();
                second.read_to_end(&mut heard).await.unwrap();
                assert_eq!(heard, b"last words");
                let answer = noise(5, 400_000);
                let answering = async {
                    second.write_all(&answer).await.unwrap();
                    second.shutdown().await.unwrap();
                };
                let mut heard = Vec::new();
                let ((), read) = tokio::join!(answering, first.read_to_end(&mut heard));
                read.unwrap();
                assert!(heard == answer);
            })
            .await;
            rig.expect_end(if client_first { Cause::Client } else { Cause::Backend }).await;
        }
    }
}

#[tokio::test]
async fn preludes_precede_what_is_relayed_and_the_head_is_not_counted() {
    for shape in SHAPES {
        let preludes = Preludes {
            head: b"HEAD".to_vec(),
            to_client: noise(6, 200_000),
            to_backend: b"early".to_vec(),
        };
        let expected = [b"HEAD".as_slice(), &preludes.to_client, b"late"].concat();
        let mut rig = Rig::open_with(shape, preludes, Duration::ZERO).await;
        patient(async {
            let mut heard = [0; 5];
            rig.backend.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"early");
            rig.backend.write_all(b"late").await.unwrap();
            rig.backend.flush().await.unwrap();
            let mut heard = vec![0; expected.len()];
            rig.client.read_exact(&mut heard).await.unwrap();
            assert!(heard == expected);
        })
        .await;
        let listed = rig.tunnels.list();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id, rig.id >> 40), (rig.id, 3));
        // Counted at the end of a turn, so possibly after the bytes have arrived: compared when all is over.
        rig.tunnels.close(&[rig.id], Cause::Admin);
        rig.expect_end(Cause::Admin).await;
        assert_eq!(rig.tunnels.bytes(), [5, 200_004]);
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_writer_back_and_loses_nothing() {
    for shape in [PLAIN, SHAPES[3]] {
        let rig = Rig::open(shape).await;
        let (mut from_client, _to_client) = tokio::io::split(rig.client);
        let (_from_backend, mut to_backend) = tokio::io::split(rig.backend);
        let bytes = noise(7, 48 << 20);
        let (mut sent, mut heard) = (0, Vec::new());
        // Write until nothing moves any more: the kernel's queues are full, and nothing else may hold bytes.
        while let Ok(count) =
            tokio::time::timeout(Duration::from_millis(300), to_backend.write(&bytes[sent..])).await
        {
            sent += count.unwrap();
            assert!(sent < bytes.len(), "{shape:?}: no back-pressure");
        }
        let (written, read) = patient(async {
            tokio::join!(
                async {
                    to_backend.write_all(&bytes[sent..]).await?;
                    to_backend.shutdown().await
                },
                from_client.read_to_end(&mut heard)
            )
        })
        .await;
        written.and(read.map(drop)).unwrap();
        assert!(heard == bytes, "{shape:?}");
    }
}

#[test]
fn an_idle_plain_tunnel_is_small() {
    let size = size_of::<super::relay::Tunnel>() + size_of::<super::record::Record>();
    assert!(size <= 400, "{size} bytes");
}
