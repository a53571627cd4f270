//! Listening sockets that a socket unit of the manager's (`holdfast.socket`) has, too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl};

use super::Manager;
use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, directory, eventually, free_port,
    get, kill9,
};

/// A gateway whose listening socket is the manager's, which has it block, as systemd does.
struct Lent {
    gateway: Gateway,
    manager: Manager,
    port: u16,
    socket: OwnedFd,
    _backend: Backend,
}

impl Lent {
    fn start() -> Self {
        let backend = Backend::start("one");
        let port = free_port();
        let directory = directory();
        let manager = Manager::in_directory(&directory);
        let document = Document::simple(port, &[backend.address]);
        let socket = OwnedFd::from(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        pass(&manager, directory.path(), &socket);
        let gateway = Gateway::start_in(directory, &document);
        Self { gateway, manager, port, socket, _backend: backend }
    }

    fn start_again(&self) {
        let listener = TcpListener::from(self.socket.try_clone().unwrap());
        // Of every process that has it, at each start.
        listener.set_nonblocking(false).unwrap();
        pass(&self.manager, self.gateway.path(), &self.socket);
        self.gateway.start_again();
    }

    fn stop(&self) {
        self.gateway.must(&["stop"]);
        eventually(Patience::USUAL, "the end", || self.gateway.has_ended().then_some(()));
    }
}

fn pass(manager: &Manager, directory: &Path, socket: &OwnedFd) {
    manager.pass_on_with(directory, &[("holdfast.socket", socket)]);
}

#[test]
fn who_connects_to_a_stopped_gateway_waits_where_the_manager_listens() {
    let lent = Lent::start();
    assert_eq!(get(lent.port, "/whoami").unwrap().text(), "one");
    for upgraded in [false, true] {
        if upgraded {
            // Another executable, which the manager has passed nothing.
            lent.gateway.must(&["upgrade", "--binary", HOLDFAST]);
        }
        lent.stop();
        let mut early = TcpStream::connect((Ipv4Addr::LOCALHOST, lent.port)).unwrap();
        early.write_all(b"GET /whoami HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        lent.start_again();
        let mut answer = String::new();
        early.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("one"), "{answer}");
    }
}

#[test]
fn a_worker_that_lives_on_does_not_block_in_the_managers_socket() {
    let lent = Lent::start();
    let mut socket = WebSocket::open(lent.port, "/echo");
    lent.manager.keeps_a_tunnel();
    let worker = lent.gateway.worker_pid();
    kill9(lent.gateway.supervisor_pid());
    lent.start_again();
    assert_eq!(lent.gateway.worker_pid(), worker);
    assert!(fcntl_getfl(&lent.socket).unwrap().contains(OFlags::NONBLOCK));
    assert!(socket.echoes("still here"));
    assert_eq!(get(lent.port, "/whoami").unwrap().text(), "one");
    // It came twice: from the unit, and as it was kept.
    assert_eq!(lent.gateway.has_said("a listening socket was passed that no listener asks for"), 0);
}
