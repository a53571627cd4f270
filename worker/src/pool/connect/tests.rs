//! Real sockets on the loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::pool::Context;
use crate::pool::tests::wire_binding;

const PATIENCE: Duration = Duration::from_secs(10);

fn binding(address: &str, port: u16) -> Binding {
    Binding::compile(wire_binding(&[(address, port)]), None, Context::default()).unwrap()
}

#[tokio::test]
async fn a_connection_carries_bytes_and_the_options_of_a_leg() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let binding = binding("127.0.0.1", listener.local_addr().unwrap().port());
    let mut io = connect(&binding, &binding.backends[0], "h", PATIENCE).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    io.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    peer.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    let socket = io.tcp();
    assert!(io.is_write_vectored());
    assert!(socket::tests::is_prepared(socket));
}

#[tokio::test]
async fn a_name_is_resolved_and_each_of_its_addresses_tried() {
    // `localhost` may give ::1 first; nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let binding = binding("localhost", listener.local_addr().unwrap().port());
    assert!(connect(&binding, &binding.backends[0], "h", PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_closed_port_is_a_backend_that_may_be_passed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let binding = binding("127.0.0.1", listener.local_addr().unwrap().port());
    drop(listener);
    let error = connect(&binding, &binding.backends[0], "h", PATIENCE).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp { .. }));
    assert!(error.fault().retryable());
}

#[tokio::test]
async fn a_silent_tls_backend_runs_into_the_timeout() {
    use holdfast_proto::control as wire;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut https = wire_binding(&[("127.0.0.1", listener.local_addr().unwrap().port())]);
    https.backend_settings.as_mut().unwrap().scheme = wire::Scheme::Https.into();
    let binding = Binding::compile(https, None, Context::default()).unwrap();
    let patience = Duration::from_millis(50);
    let error = connect(&binding, &binding.backends[0], "h", patience).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }));
    let error = connect(&binding, &binding.backends[0], "not a name", PATIENCE).await.unwrap_err();
    assert!(matches!(error, ConnectError::ServerName { .. }));
}

#[test]
fn running_out_is_not_the_backends_fault() {
    for errno in [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL] {
        assert!(is_exhaustion(&io::Error::from(errno)));
    }
    assert!(!is_exhaustion(&io::Error::from(Errno::ECONNREFUSED)));
    let source = io::Error::from(Errno::EMFILE);
    let error = ConnectError::Exhausted { backend: "b".to_owned(), source };
    assert_eq!(error.fault().kind, FaultKind::Busy);
    assert!(!error.fault().retryable());
}
