//! The stream against a supervisor made in the test, on a real socket.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;

use holdfast_proto::control::prober_control_server::{ProberControl, ProberControlServer};
use holdfast_proto::control::{HealthState, Probe, Scheme, Target, TargetKey, TargetSet, Verdict};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response};

use super::*;
use crate::tls::Tls;

type Conversation = (Streaming<ProberEvent>, mpsc::Sender<Result<ProberDirective, Status>>);

/// Hands every stream to the test, or refuses it.
struct Supervisor {
    streams: mpsc::Sender<Conversation>,
    refusal: Option<Status>,
}

#[tonic::async_trait]
impl ProberControl for Supervisor {
    type SessionStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<ProberDirective, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<ProberEvent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let (directives, queued) = mpsc::channel(8);
        self.streams.send((request.into_inner(), directives)).await.ok();
        Ok(Response::new(Box::pin(ReceiverStream::new(queued))))
    }
}

fn supervise(
    socket: &PathBuf,
    refusal: Option<Status>,
) -> (JoinHandle<()>, mpsc::Receiver<Conversation>) {
    std::fs::remove_file(socket).ok();
    let listener = UnixListener::bind(socket).unwrap();
    let (streams, conversations) = mpsc::channel(8);
    let service = ProberControlServer::new(Supervisor { streams, refusal });
    let task = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .serve_with_incoming(service, UnixListenerStream::new(listener))
            .await
            .ok();
    });
    (task, conversations)
}

fn bootstrap(dir: &Path) -> Bootstrap {
    Bootstrap {
        runtime_dir: dir.to_owned(),
        token: "secret".into(),
        listener: String::new(),
        generation: 0,
        threads: 1,
        deaths: Vec::new(),
    }
}

fn start(bootstrap: Bootstrap) -> JoinHandle<Result<(), ServeError>> {
    tokio::spawn(async move {
        let board = Arc::new(Board::default());
        let mut schedule = Schedule::new(board.clone(), Tls::without_system_roots());
        serve(&bootstrap, ProcessId::me().unwrap(), &mut schedule, &board).await
    })
}

fn targets(version: u64, port: u16) -> ProberDirective {
    let key =
        TargetKey { pool: "pool".into(), address: "127.0.0.1".into(), ..TargetKey::default() };
    let probe = Probe {
        scheme: Scheme::Http.into(),
        port: port.into(),
        interval_ms: 3_600_000,
        timeout_ms: 20_000,
        ..Probe::default()
    };
    let target = Target { key: Some(key), probe: Some(probe), known: HealthState::Unknown.into() };
    let set = TargetSet { version, targets: vec![target] };
    ProberDirective { kind: Some(prober_directive::Kind::Targets(set)) }
}

/// Only a broken stream waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(events: &mut Streaming<ProberEvent>) -> prober_event::Kind {
    loop {
        let message = tokio::time::timeout(PATIENCE, events.message()).await.expect("an event");
        match message.unwrap().unwrap().kind.unwrap() {
            // Comes whenever its time has come.
            prober_event::Kind::Report(_) => {}
            kind => return kind,
        }
    }
}

async fn next_hello(events: &mut Streaming<ProberEvent>) -> Hello {
    match next(events).await {
        prober_event::Kind::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

async fn next_verdict(events: &mut Streaming<ProberEvent>) -> Verdict {
    match next(events).await {
        prober_event::Kind::Verdict(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

async fn next_ack(events: &mut Streaming<ProberEvent>) -> u64 {
    match next(events).await {
        prober_event::Kind::TargetsAck(ack) => ack.version,
        other => panic!("{other:?}"),
    }
}

/// A port at which connections are refused.
async fn refused_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(start_paused = true)]
async fn without_a_supervisor_it_ends_in_an_hour() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    start(bootstrap(dir.path())).await.unwrap().unwrap();
    assert!(begun.elapsed() > ORPHAN_LIFE);
    assert!(begun.elapsed() < 2 * ORPHAN_LIFE);
}

#[tokio::test]
async fn a_new_supervisor_hears_every_verdict_again() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = bootstrap(dir.path());
    let socket = bootstrap.control_socket();
    let port = refused_port().await;
    // Dialled before anybody listens: it has to try again.
    let prober = start(bootstrap);

    let (server, mut conversations) = supervise(&socket, None);
    let (mut events, directives) = conversations.recv().await.unwrap();
    let hello = next_hello(&mut events).await;
    assert_eq!((hello.token.as_str(), hello.pid), ("secret", std::process::id()));
    directives.send(Ok(targets(7, port))).await.unwrap();
    assert_eq!(next_ack(&mut events).await, 7);
    let verdict = next_verdict(&mut events).await;
    assert_eq!(verdict.state(), HealthState::Unhealthy);
    assert!(verdict.last.ends_with("connection refused"), "{}", verdict.last);

    server.abort();
    drop((events, directives, conversations));
    let (server, mut conversations) = supervise(&socket, None);
    let (mut events, directives) = conversations.recv().await.unwrap();
    next_hello(&mut events).await;
    directives.send(Ok(targets(1, port))).await.unwrap();
    assert_eq!(next_ack(&mut events).await, 1);
    // Nothing is due for an hour, so this is the old verdict.
    assert_eq!(next_verdict(&mut events).await, verdict);

    drop(dir);
    server.abort();
    drop((events, directives, conversations));
    prober.await.unwrap().unwrap();
}

#[tokio::test]
async fn as_many_targets_are_taken_as_a_configuration_may_have() {
    use holdfast_proto::control::BackendTls;
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = bootstrap(dir.path());
    let (_server, mut conversations) = supervise(&bootstrap.control_socket(), None);
    let _prober = start(bootstrap);
    let (mut events, directives) = conversations.recv().await.unwrap();
    next_hello(&mut events).await;
    let mut many = targets(7, refused_port().await);
    let Some(prober_directive::Kind::Targets(set)) = &mut many.kind else { panic!("{many:?}") };
    // More than gRPC takes by itself: each target has the roots that its backend is judged by.
    let roots =
        BackendTls { trusted_roots_der: vec![vec![0; 6 * 1024 * 1024]], ..Default::default() };
    set.targets[0].probe.as_mut().unwrap().tls = Some(roots);
    directives.send(Ok(many)).await.unwrap();
    assert_eq!(next_ack(&mut events).await, 7);
}

#[tokio::test]
async fn it_ends_when_the_runtime_directory_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = bootstrap(dir.path());
    drop(dir);
    start(bootstrap).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = bootstrap(dir.path());
    let refusal = Status::permission_denied("not my child");
    let (_server, _conversations) = supervise(&bootstrap.control_socket(), Some(refusal));
    let ended = start(bootstrap).await.unwrap().unwrap_err();
    assert_eq!(ended.to_string(), "the supervisor refuses this prober: not my child");
}
