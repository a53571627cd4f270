//! The clients' part: opens tunnels through the gateway until there are enough, and opens new ones as they end.
//!
//! They come from several loopback addresses. One thread holds them all; what becomes of each is told, never printed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use rustls::ClientConfig;

use super::backend::{ACCEPT, KEY, end_of_head};
use super::board::{Board, DONE, Half};
use super::checker::{Damage, Fault};
use super::document::Listener;
use super::endpoint::{Counts, Endpoint, Opening};
use super::hub::{Connection, Hub, News};
use super::plan::{Legs, Role, Ticket};
use super::poller::Event;
use super::stream::mix;
use super::tls::Starter;
use super::wire::Wire;

/// Handshakes at once: enough to fill up quickly, few enough that a kill meets only some.
const AT_ONCE: usize = 32;
/// How long a handshake may take; a stopped worker and a queue behind it are not the end of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Behind this time a backend that has not begun a tunnel never will.
const QUARANTINE: Duration = Duration::from_secs(20);
/// The clients' addresses: 127.0.1.1 and so on.
const SOURCES: u64 = 16;

/// What the clients are to do.
pub(crate) struct Orders {
    pub(crate) listeners: Vec<Listener>,
    /// Kinds of tunnels, each as often as another.
    pub(crate) legs: Vec<Legs>,
    /// How sessions begin; needed where there are listeners with TLS.
    pub(crate) tls: Option<Starter<ClientConfig>>,
    pub(crate) tunnels: usize,
    pub(crate) slots: usize,
    pub(crate) stretch: u32,
    pub(crate) life: u32,
    pub(crate) seed: u64,
}

/// What others tell the clients, and see of them, while they run.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Give up whatever is left.
    pub(crate) stop: AtomicBool,
    /// Tunnels that are open now.
    pub(crate) live: AtomicUsize,
    /// Slots of the board that have been used so far.
    pub(crate) slots: AtomicUsize,
    /// Tunnels that somebody found to be stuck.
    pub(crate) stuck: Mutex<Vec<Stuck>>,
}

/// A tunnel in which something should come, and does not.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) id: u64,
    pub(crate) slot: usize,
    pub(crate) detail: String,
}

/// Runs until told to finish and every tunnel has ended.
pub(crate) fn run(
    orders: Orders,
    control: &Control,
    board: Arc<Board>,
    tell: Box<dyn FnMut(News) + Send>,
) -> io::Result<()> {
    let hub = Hub::new(Role::Client, board, tell)?;
    let mut clients = Clients { orders, hub, next: 0, slots: VecDeque::new(), used: 0, shaking: 0 };
    loop {
        if control.stop.load(Ordering::Relaxed) {
            clients.hub.give_up_on(|_| Some("still open when the run was over".to_owned()));
            return Ok(());
        }
        if !clients.hub.finishing && clients.hub.board.finishing() {
            clients.hub.finish();
        }
        if clients.hub.finishing && clients.hub.table.count() == 0 {
            return Ok(());
        }
        clients.open_more();
        for event in clients.hub.poller.wait(Duration::from_millis(20))? {
            clients.handle(event);
        }
        let stuck = std::mem::take(&mut *control.stuck.lock().unwrap());
        if !stuck.is_empty() {
            clients.give_up_on(&stuck);
        }
        control.live.store(clients.hub.table.count() - clients.shaking, Ordering::Relaxed);
        control.slots.store(clients.used, Ordering::Relaxed);
    }
}

struct Clients {
    orders: Orders,
    hub: Hub<Shaking>,
    /// Tunnels tried so far.
    next: u64,
    /// Slots that were used, the oldest first.
    slots: VecDeque<(usize, Instant)>,
    used: usize,
    shaking: usize,
}

struct Shaking {
    wire: Wire,
    ticket: Ticket,
    listener: usize,
    began: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
    opening: Opening,
}

impl Orders {
    /// One of those that the tunnel's kind needs.
    fn listener_for(&self, ticket: &Ticket) -> usize {
        let fits = |one: &Listener| one.sealed == ticket.legs.seal_client();
        let places = self.listeners.iter().enumerate().filter(|(_, one)| fits(one));
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        places[(mix(ticket.seed) % places.len() as u64) as usize]
    }

    fn dial(&self, listener: usize, ticket: &Ticket) -> io::Result<Wire> {
        let socket = dial(self.listeners[listener].address, ticket.id)?;
        match &self.tls {
            Some(tls) if ticket.legs.seal_client() => tls.begin(socket, ticket.is_old()),
            _ => Ok(Wire::Plain(socket)),
        }
    }
}

impl Clients {
    fn open_more(&mut self) {
        while !self.hub.finishing
            && self.shaking < AT_ONCE
            && self.hub.table.count() < self.orders.tunnels
        {
            let Some(slot) = self.slot() else { return };
            self.next += 1;
            let id = self.next;
            let Orders { stretch, life, .. } = self.orders;
            let legs = self.orders.legs[id as usize % self.orders.legs.len()];
            let seed = mix(self.orders.seed ^ id);
            let ticket = Ticket { id, legs, slot, seed, stretch, life };
            let listener = self.orders.listener_for(&ticket);
            let began = Instant::now();
            let half = Half { id, ..Half::default() }.on_listener(listener);
            let begun = self.hub.board.write(slot, Role::Client, &half).and_then(|()| {
                let wire = self.orders.dial(listener, &ticket)?;
                let opening = Opening::new(&ticket.plan(), Role::Client);
                let mut request = format!(
                    "GET {} HTTP/1.1\r\nHost: torture\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
                    ticket.path()
                )
                .into_bytes();
                request.extend_from_slice(opening.bytes());
                let answer = Vec::new();
                Ok(Shaking { wire, ticket, listener, began, request, answer, opening })
            });
            let registered = begun.and_then(|shaking| {
                let token = self.hub.table.insert(Connection::Shaking(shaking));
                self.shaking += 1;
                let Some(Connection::Shaking(shaking)) = self.hub.table.take(token) else {
                    return Ok(());
                };
                let added = self.hub.poller.add(shaking.wire.socket(), token);
                self.hub.poller.wake_at(began + PATIENCE, token);
                self.hub.table.put(token, Connection::Shaking(shaking));
                added
            });
            if let Err(error) = registered {
                self.slots.push_back((slot, began));
                self.hub.tell(News::Failed { listener, began, reason: told("connect", &error) });
                // Whatever it is, it is not cured by trying again at once.
                return;
            }
        }
    }

    fn give_up_on(&mut self, stuck: &[Stuck]) {
        let detail = |id| stuck.iter().find(|one| one.id == id).map(|one| one.detail.clone());
        let given_up = self.hub.give_up_on(detail);
        for one in stuck.iter().filter(|one| !given_up.contains(&one.id)) {
            // The client has left the tunnel in good order, so it is the backend that waits for something.
            let [_, half] = self.hub.board.read(one.slot).unwrap_or_default().halves;
            let counts = Counts { sent: half.sent, received: half.received, ..Counts::default() };
            let (damage, detail) = (Damage::Stuck, one.detail.clone());
            let fault = Fault { position: half.received, damage, detail };
            let (id, role, time) = (one.id, Role::Backend, Instant::now());
            self.hub.tell(News::Broken { id, role, counts, fault, time });
        }
    }

    /// A place on the board that neither end uses any more.
    fn slot(&mut self) -> Option<usize> {
        if let Some((slot, since)) = self.slots.front().copied() {
            let [client, backend] = self.hub.board.read(slot).ok()?.halves;
            let same = client.id == backend.id;
            if (same && backend.is(DONE)) || (!same && since.elapsed() > QUARANTINE) {
                self.slots.pop_front();
                return Some(slot);
            }
            // The oldest goes to the end: one that hangs must not hold up the others.
            self.slots.rotate_left(1);
        }
        (self.used < self.orders.slots).then(|| {
            self.used += 1;
            self.used - 1
        })
    }

    fn handle(&mut self, event: Event) {
        match self.hub.table.take(event.token) {
            Some(Connection::Live(endpoint)) => {
                let slot = endpoint.ticket.slot;
                let before = self.hub.table.count();
                self.hub.live(event, endpoint);
                if self.hub.table.count() < before {
                    self.slots.push_back((slot, Instant::now()));
                }
            }
            Some(Connection::Shaking(shaking)) => self.shake(event, shaking),
            None => {}
        }
    }

    fn shake(&mut self, event: Event, mut shaking: Shaking) {
        let slot = shaking.ticket.slot;
        let outcome = advance(&mut shaking, &mut self.hub.scratch.came);
        let outcome = match outcome {
            Ok(None) if shaking.began.elapsed() < PATIENCE => {
                return self.hub.table.put(event.token, Connection::Shaking(shaking));
            }
            Ok(None) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Some(end)) => Ok(end),
            Err(reason) => Err(reason),
        };
        self.shaking -= 1;
        let Shaking { wire, ticket, listener, began, answer, opening, .. } = shaking;
        match outcome {
            Ok(end) => {
                let (id, legs, old) = (ticket.id, ticket.legs, ticket.is_old());
                self.hub.tell(News::Opened { id, legs, old, took: began.elapsed() });
                let endpoint = Endpoint::new(wire, ticket, Role::Client, opening, listener);
                let before = self.hub.table.count();
                self.hub.begin(event.token, Box::new(endpoint), &answer[end..]);
                if self.hub.table.count() < before {
                    self.slots.push_back((slot, Instant::now()));
                }
            }
            Err(reason) => {
                self.hub.table.free(event.token);
                self.slots.push_back((slot, Instant::now()));
                self.hub.tell(News::Failed { listener, began, reason });
            }
        }
    }
}

/// Sends what is left of the request and reads the answer; says where the tunnel's bytes begin.
fn advance(shaking: &mut Shaking, buffer: &mut [u8]) -> Result<Option<usize>, String> {
    loop {
        while !shaking.request.is_empty() {
            match shaking.wire.write(&shaking.request) {
                Ok(count) => drop(shaking.request.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
                Err(error) => return Err(told("send", &error)),
            }
        }
        if let Some(end) = end_of_head(&shaking.answer) {
            let head = String::from_utf8_lossy(&shaking.answer[..end]).into_owned();
            if !head.starts_with("HTTP/1.1 101 ") {
                return Err(format!("status {}", head.get(9..12).unwrap_or_default()));
            }
            if !head.contains(ACCEPT) {
                return Err("another Sec-WebSocket-Accept".to_owned());
            }
            if shaking.request.is_empty() {
                return Ok(Some(end));
            }
        }
        match shaking.wire.read(buffer) {
            Ok(0) => return Err("ended before the 101".to_owned()),
            Ok(count) => shaking.answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(told("before the 101", &error)),
        }
    }
}

fn told(step: &str, error: &io::Error) -> String {
    match error.kind() {
        // TLS has more to say than that.
        ErrorKind::Other => format!("{step}: {error}"),
        kind => format!("{step}: {kind}"),
    }
}

fn dial(target: SocketAddr, id: u64) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    let source = (id % SOURCES) as u8 + 1;
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 1, source, 0))?;
    let SocketAddr::V4(target) = target else { return Err(ErrorKind::Unsupported.into()) };
    match connect(fd.as_raw_fd(), &SockaddrIn::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = TcpStream::from(fd);
    socket.set_nodelay(true)?;
    Ok(socket)
}
