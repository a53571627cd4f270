//! The backend's part: a small server in a process of its own that answers probes and opens what its requests ask for.
//!
//! It prints what becomes of its tunnels, a line each, and ends with its standard input.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::board::Board;
use super::checker::{Damage, Fault};
use super::endpoint::{Counts, Endpoint, Opening};
use super::hub::{Connection, Hub, News};
use super::plan::{Role, Ticket};
use super::poller::Event;
use super::tls::{Certificate, Starter};
use super::wire::Wire;

/// The key that the clients send (RFC 6455, section 1.3), and the answer to it.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A request's head is shorter, or it is none of ours.
const LONGEST_HEAD: usize = 64 << 10;
/// Tokens of listening sockets count down from here.
const LISTENER: u64 = u64::MAX;
/// Every so many sessions speak no newer TLS than 1.2.
const OLD: u64 = 4;

/// The role as a process: at the first address plain, at the second with TLS.
pub(crate) fn run(
    plain: SocketAddr,
    sealed: Option<(SocketAddr, Certificate)>,
    board: &Path,
) -> io::Result<()> {
    let mut doors = vec![Door { socket: TcpListener::bind(plain)?, tls: None }];
    if let Some((address, certificate)) = sealed {
        let tls = Some(Starter::of_server(&certificate)?);
        doors.push(Door { socket: TcpListener::bind(address)?, tls });
    }
    println!("ready");
    std::thread::spawn(|| {
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        std::process::exit(0);
    });
    let tell = Box::new(|news| println!("{}", line(&news)));
    serve(&doors, Arc::new(Board::open(board)?), tell)
}

/// Where connections come in.
pub(crate) struct Door {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Starter<ServerConfig>>,
}

/// Serves for as long as the process lives.
pub(crate) fn serve(
    doors: &[Door],
    board: Arc<Board>,
    tell: Box<dyn FnMut(News) + Send>,
) -> io::Result<()> {
    let mut hub = Hub::new(Role::Backend, board, tell)?;
    for (token, door) in tokens(doors) {
        door.socket.set_nonblocking(true)?;
        hub.poller.add(&door.socket, token)?;
    }
    let mut sessions = 0;
    loop {
        for event in hub.poller.wait(Duration::from_millis(100))? {
            if let Some((_, door)) = tokens(doors).find(|(token, _)| *token == event.token) {
                accept(&mut hub, door, &mut sessions);
                continue;
            }
            match hub.table.take(event.token) {
                Some(Connection::Live(endpoint)) => hub.live(event, endpoint),
                Some(Connection::Shaking(shaking)) => shake(&mut hub, event, shaking),
                None => {}
            }
        }
        if !hub.finishing && hub.board.finishing() {
            hub.finish();
        }
    }
}

fn tokens(doors: &[Door]) -> impl Iterator<Item = (u64, &Door)> {
    doors.iter().enumerate().map(|(place, door)| (LISTENER - place as u64, door))
}

/// A connection that is no tunnel yet.
struct Shaking {
    wire: Wire,
    head: Vec<u8>,
    /// What is still to be sent, and what the connection is when that is done.
    answer: Vec<u8>,
    opens: Option<(Ticket, Opening)>,
}

fn accept(hub: &mut Hub<Shaking>, door: &Door, sessions: &mut u64) {
    // Also ends at EMFILE and the like: the next connection's event tries again.
    while let Ok((socket, _)) = door.socket.accept() {
        let Ok(wire) = begin(socket, door, sessions) else { continue };
        let shaking = Shaking { wire, head: Vec::new(), answer: Vec::new(), opens: None };
        let token = hub.table.insert(Connection::Shaking(shaking));
        if let Some(Connection::Shaking(shaking)) = hub.table.take(token) {
            match hub.poller.add(shaking.wire.socket(), token) {
                Ok(()) => hub.table.put(token, Connection::Shaking(shaking)),
                Err(_) => hub.table.free(token),
            }
        }
    }
}

fn begin(socket: TcpStream, door: &Door, sessions: &mut u64) -> io::Result<Wire> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let Some(tls) = &door.tls else { return Ok(Wire::Plain(socket)) };
    *sessions += 1;
    tls.begin(socket, sessions.is_multiple_of(OLD))
}

fn shake(hub: &mut Hub<Shaking>, event: Event, mut shaking: Shaking) {
    match advance(&mut shaking, &mut hub.scratch.came) {
        Ok(true) => {}
        Ok(false) => return hub.table.put(event.token, Connection::Shaking(shaking)),
        Err(_) => return hub.table.free(event.token),
    }
    let Shaking { wire, head, opens, .. } = shaking;
    let Some((ticket, opening)) = opens else { return hub.table.free(event.token) };
    let endpoint = Endpoint::new(wire, ticket, Role::Backend, opening, 0);
    hub.begin(event.token, Box::new(endpoint), &head);
}

/// Reads and answers; true once the connection is a tunnel, and what the head's buffer still holds belongs to it.
fn advance(shaking: &mut Shaking, buffer: &mut [u8]) -> io::Result<bool> {
    loop {
        while !shaking.answer.is_empty() {
            match shaking.wire.write(&shaking.answer) {
                Ok(count) => drop(shaking.answer.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if shaking.opens.is_some() {
            return Ok(true);
        }
        match shaking.wire.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => shaking.head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(end) = end_of_head(&shaking.head) {
            let rest = shaking.head.split_off(end);
            let head = std::mem::replace(&mut shaking.head, rest);
            respond(shaking, &String::from_utf8_lossy(&head));
        } else if shaking.head.len() > LONGEST_HEAD {
            return Err(ErrorKind::InvalidData.into());
        }
    }
}

/// Where what follows an HTTP head begins.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn respond(shaking: &mut Shaking, head: &str) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    // A tunnel that the gateway has led to the wrong settings does not open.
    let fits = |ticket: &Ticket| ticket.legs.seal_backend() == shaking.wire.is_sealed();
    let Some(ticket) = Ticket::parse(path).filter(|it| fits(it) && head.contains(KEY)) else {
        shaking.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        return;
    };
    let opening = Opening::new(&ticket.plan(), Role::Backend);
    shaking.answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    .into_bytes();
    shaking.answer.extend_from_slice(opening.bytes());
    shaking.opens = Some((ticket, opening));
}

/// News as a line; [`parse`] reads it.
fn line(news: &News) -> String {
    let numbers = |id: u64, counts: &Counts| {
        let Counts { sent, received, messages_received, key_updates } = counts;
        format!("{id} {sent} {received} {messages_received} {key_updates}")
    };
    match news {
        News::Clean { id, counts, .. } => format!("clean {}", numbers(*id, counts)),
        News::Broken { id, counts, fault, .. } => {
            let Fault { position, damage, detail } = fault;
            format!("broken {} {position} {} {detail}", numbers(*id, counts), damage.word())
        }
        News::Opened { .. } | News::Failed { .. } => String::new(),
    }
}

/// What a backend's line says.
pub(crate) fn parse(line: &str) -> Option<News> {
    let mut words = line.splitn(9, ' ');
    let kind = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let id = number()?;
    let counts = Counts {
        sent: number()?,
        received: number()?,
        messages_received: number()?,
        key_updates: number()?,
    };
    let role = Role::Backend;
    match kind {
        "clean" => Some(News::Clean { id, role, counts }),
        "broken" => {
            let position = number()?;
            let damage = Damage::parse(words.next()?)?;
            let detail = words.next().unwrap_or_default().to_owned();
            let fault = Fault { position, damage, detail };
            Some(News::Broken { id, role, counts, fault, time: Instant::now() })
        }
        _ => None,
    }
}
