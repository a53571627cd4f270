//! All tunnels of one process, driven by one thread, whichever end it holds.
//!
//! What a client and a backend do differently ends with the opening handshake; from there on a tunnel is the hub's.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::Board;
use super::checker::{Damage, Fault};
use super::endpoint::{Counts, Endpoint, Scratch, Turn};
use super::plan::{Legs, Role};
use super::poller::{Event, Poller, Table};

/// What is told about tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The client has the 101.
    Opened { id: u64, legs: Legs, old: bool, took: Duration },
    /// There was no 101.
    Failed { listener: usize, began: Instant, reason: String },
    /// An end has sent everything, and everything has come.
    Clean { id: u64, role: Role, counts: Counts },
    /// An end found something wrong.
    Broken { id: u64, role: Role, counts: Counts, fault: Fault, time: Instant },
}

/// A connection: still in its handshake, which `H` knows, or a tunnel.
pub(crate) enum Connection<H> {
    Shaking(H),
    Live(Box<Endpoint>),
}

/// The connections and what drives them.
pub(crate) struct Hub<H> {
    pub(crate) poller: Poller,
    pub(crate) table: Table<Connection<H>>,
    pub(crate) board: Arc<Board>,
    pub(crate) scratch: Scratch,
    pub(crate) finishing: bool,
    role: Role,
    tell: Box<dyn FnMut(News) + Send>,
}

impl<H> Hub<H> {
    pub(crate) fn new(
        role: Role,
        board: Arc<Board>,
        tell: Box<dyn FnMut(News) + Send>,
    ) -> io::Result<Self> {
        let (table, scratch) = (Table::new(), Scratch::new());
        Ok(Self { poller: Poller::new()?, table, board, scratch, finishing: false, role, tell })
    }

    pub(crate) fn tell(&mut self, news: News) {
        (self.tell)(news);
    }

    /// From here on it is a tunnel; `came` was behind the handshake.
    pub(crate) fn begin(&mut self, token: u64, mut endpoint: Box<Endpoint>, came: &[u8]) {
        if self.finishing {
            endpoint.finish();
        }
        match endpoint.feed(came, &mut self.scratch) {
            Ok(()) => self.turn(token, endpoint),
            Err(fault) => self.give_up(token, endpoint, fault),
        }
    }

    /// A tunnel's event.
    pub(crate) fn live(&mut self, event: Event, mut endpoint: Box<Endpoint>) {
        endpoint.is_ready(event.readable, event.writable);
        self.turn(event.token, endpoint);
    }

    fn turn(&mut self, token: u64, mut endpoint: Box<Endpoint>) {
        match endpoint.turn(&self.board, &mut self.scratch) {
            Turn::Wait(time) => {
                let now = Instant::now();
                let due = time.filter(|time| {
                    endpoint.timer.is_none_or(|timer| *time < timer || timer <= now)
                });
                if let Some(time) = due {
                    endpoint.timer = Some(time);
                    self.poller.wake_at(time, token);
                }
                self.table.put(token, Connection::Live(endpoint));
            }
            Turn::Again => {
                self.poller.again(token);
                self.table.put(token, Connection::Live(endpoint));
            }
            Turn::Clean => {
                self.table.free(token);
                let (id, counts) = (endpoint.ticket.id, endpoint.counts());
                self.tell(News::Clean { id, role: self.role, counts });
            }
            Turn::Broken(fault) => self.tell_broken(token, &endpoint, fault),
        }
    }

    fn give_up(&mut self, token: u64, mut endpoint: Box<Endpoint>, fault: Fault) {
        endpoint.abort(&self.board);
        self.tell_broken(token, &endpoint, fault);
    }

    fn tell_broken(&mut self, token: u64, endpoint: &Endpoint, fault: Fault) {
        self.table.free(token);
        let (id, counts) = (endpoint.ticket.id, endpoint.counts());
        self.tell(News::Broken { id, role: self.role, counts, fault, time: Instant::now() });
    }

    /// Lets every tunnel come to its end.
    pub(crate) fn finish(&mut self) {
        self.finishing = true;
        for token in self.table.tokens() {
            match self.table.take(token) {
                Some(Connection::Live(mut endpoint)) => {
                    endpoint.finish();
                    self.turn(token, endpoint);
                }
                Some(other) => self.table.put(token, other),
                None => {}
            }
        }
    }

    /// Gives tunnels up, for the reason that `which` has; says which ones.
    pub(crate) fn give_up_on(&mut self, which: impl Fn(u64) -> Option<String>) -> Vec<u64> {
        let mut given_up = Vec::new();
        for token in self.table.tokens() {
            match self.table.take(token) {
                Some(Connection::Live(endpoint)) => match which(endpoint.ticket.id) {
                    Some(detail) => {
                        given_up.push(endpoint.ticket.id);
                        let fault = endpoint.fault(Damage::Stuck, detail);
                        self.give_up(token, endpoint, fault);
                    }
                    None => self.table.put(token, Connection::Live(endpoint)),
                },
                Some(other) => self.table.put(token, other),
                None => {}
            }
        }
        given_up
    }
}
