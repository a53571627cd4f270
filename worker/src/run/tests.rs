//! The whole worker against a supervisor of the test's own: born, told, asked, drained, gone.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::os::fd::AsFd;
use std::pin::Pin;

use holdfast_proto::control as wire;
use holdfast_proto::control::worker_control_server::{WorkerControl, WorkerControlServer};
use holdfast_proto::control::worker_directive::Kind as Directive;
use holdfast_proto::control::worker_event::Kind as Event;
use holdfast_proto::fd_channel::FdListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

type Directives = Pin<Box<dyn Stream<Item = Result<wire::WorkerDirective, Status>> + Send>>;

/// Hands the one session of the test over as two channels.
struct Supervisor {
    events: mpsc::Sender<Event>,
    directives: Mutex<Option<mpsc::Receiver<Result<wire::WorkerDirective, Status>>>>,
}

#[tonic::async_trait]
impl WorkerControl for Supervisor {
    type SessionStream = Directives;

    async fn session(
        &self,
        request: Request<Streaming<wire::WorkerEvent>>,
    ) -> Result<Response<Directives>, Status> {
        let mut incoming = request.into_inner();
        let events = self.events.clone();
        let directives = self.directives.lock().await.take();
        let directives = directives.ok_or_else(|| Status::unavailable("one session only"))?;
        let (told, outbox) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut directives = ReceiverStream::new(directives);
            loop {
                tokio::select! {
                    event = incoming.next() => match event {
                        Some(Ok(event)) => events.send(event.kind.unwrap()).await.unwrap(),
                        _ => break,
                    },
                    Some(directive) = directives.next() => told.send(directive).await.unwrap(),
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }
}

fn redirecting(revision: u64) -> wire::ListenerSnapshot {
    let redirect = wire::Redirect {
        status: 302,
        target_url: "http://elsewhere.example/".into(),
        ..wire::Redirect::default()
    };
    let action =
        wire::Action { kind: Some(wire::action::Kind::Redirect(redirect)), ..Default::default() };
    let site =
        wire::Site { name: "s".into(), default_action: Some(action), ..wire::Site::default() };
    wire::ListenerSnapshot {
        revision,
        sites: vec![site],
        limits: Some(wire::Limits::default()),
        ..wire::ListenerSnapshot::default()
    }
}

/// The next event that is not a report.
async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    loop {
        match events.recv().await.unwrap() {
            Event::Report(_) => {}
            event => return event,
        }
    }
}

fn state(state: WorkerState) -> Event {
    Event::State(wire::StateChange { state: state.into() })
}

fn acknowledged(revision: u64) -> Event {
    Event::SnapshotAck(wire::SnapshotAck { revision, refusal: String::new() })
}

#[tokio::test]
async fn a_worker_is_born_serves_refuses_drains_and_leaves() {
    let dir = std::env::temp_dir().join(format!("holdfast-run-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).unwrap();
    let (events, mut heard) = mpsc::channel(64);
    let (tell, directives) = mpsc::channel(8);
    let service = Supervisor { events, directives: Mutex::new(Some(directives)) };
    let control = UnixListener::bind(dir.join("control.sock")).unwrap();
    let fds = FdListener::bind(&dir.join("fd.sock")).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let incoming = UnixListenerStream::new(control);
        let server = tonic::transport::Server::builder();
        drop(server.serve_with_incoming(WorkerControlServer::new(service), incoming).await);
    });
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let kept = socket.try_clone().unwrap();
    tasks.spawn(async move {
        let channel = fds.accept::<wire::VaultReply, wire::VaultRequest>().await.unwrap();
        channel.receive().await.unwrap().unwrap();
        let granted = wire::vault_reply::Granted { listening_socket: true, ..Default::default() };
        let granted = wire::vault_reply::Kind::Granted(granted);
        channel.send(&granted.into(), &[socket.as_fd()]).await.unwrap();
        std::future::pending::<()>().await;
    });
    let bootstrap = Bootstrap {
        runtime_dir: dir.clone(),
        token: "t".into(),
        listener: address.to_string(),
        generation: 4,
        threads: 1,
        deaths: Vec::new(),
    };
    let mut worker = JoinSet::new();
    worker.spawn(work(bootstrap, 1));

    let say = |kind| {
        let tell = tell.clone();
        async move { tell.send(Ok(wire::WorkerDirective { kind: Some(kind) })).await.unwrap() }
    };
    assert!(matches!(next(&mut heard).await, Event::Hello(hello) if hello.generation == 4));
    assert_eq!(next(&mut heard).await, state(WorkerState::Starting));
    say(Directive::Snapshot(redirecting(7))).await;
    assert_eq!(next(&mut heard).await, acknowledged(7));
    let broken = wire::ListenerSnapshot { limits: None, ..redirecting(8) };
    say(Directive::Snapshot(broken)).await;
    let refused = next(&mut heard).await;
    assert!(
        matches!(refused, Event::SnapshotAck(ack) if ack.revision == 8 && !ack.refusal.is_empty())
    );
    say(Directive::Serve(wire::StartServing {})).await;
    assert_eq!(next(&mut heard).await, state(WorkerState::Serving));

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    drop(client);

    say(Directive::ListTunnels(wire::ListTunnels { request: 1 })).await;
    let list = wire::TunnelList { request: 1, tunnels: Vec::new(), last: true };
    assert_eq!(next(&mut heard).await, Event::Tunnels(list));
    say(Directive::Drain(wire::Drain { tunnel_deadline_ms: 0, reason: "test".into() })).await;
    assert_eq!(next(&mut heard).await, state(WorkerState::Draining));
    worker.join_next().await.unwrap().unwrap().unwrap();
    // The queue stays open for the successor, whose socket it is too.
    TcpStream::connect(kept.local_addr().unwrap()).await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
