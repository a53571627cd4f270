//! Many tunnels that are talked through in turn: each message is numbered, and each answer says which backend it came from.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Patience, WebSocket, eventually, frame};

/// Clients that talk at once.
const THREADS: usize = 4;

/// One tunnel.
pub(super) struct Member {
    socket: WebSocket,
    id: usize,
    /// How it was opened.
    pub(super) group: &'static str,
    /// Who has answered first, and must for ever.
    pub(super) backend: String,
}

/// All of them.
#[derive(Default)]
pub(super) struct Crowd {
    members: Vec<Member>,
    rounds: usize,
    /// So many have ever joined.
    joined: usize,
}

/// Most are short, some take several records or segments.
fn message(round: usize, id: usize) -> String {
    let length = match id {
        id if id.is_multiple_of(97) => 40_000,
        id if id.is_multiple_of(7) => 2_000,
        _ => 0,
    };
    format!("round {round}, tunnel {id}{}", ".".repeat(length))
}

// === impl Member ===

impl Member {
    fn says(&mut self, round: usize) -> io::Result<()> {
        self.socket.write(&frame(message(round, self.id).as_bytes()))
    }

    /// An answer that is not the right one is a failure, one that does not come an error.
    fn hears(&mut self, round: usize) -> io::Result<()> {
        let heard = self.socket.receive()?;
        let (name, rest) = heard.split_once(' ').unwrap();
        if self.backend.is_empty() {
            name.clone_into(&mut self.backend);
        }
        let right = name == self.backend && rest == message(round, self.id);
        assert!(right, "{}: round {round}, and {:.60}", self.told(), heard);
        Ok(())
    }

    fn told(&self) -> String {
        format!("tunnel {} of {:?} at {:?}", self.id, self.group, self.backend)
    }
}

// === impl Crowd ===

impl Crowd {
    /// So many more tunnels, each of which knows its backend after that.
    pub(super) fn join(
        &mut self,
        group: &'static str,
        count: usize,
        open: impl Fn(usize) -> WebSocket + Sync,
    ) {
        let ids: Vec<_> = (self.joined..self.joined + count).collect();
        self.joined += count;
        let open = &open;
        let round = self.rounds;
        let join = move |ids: &[usize]| -> Vec<Member> {
            let open = |&id: &usize| {
                let socket = open(id);
                let mut member = Member { socket, id, group, backend: String::new() };
                member.says(round).and_then(|()| member.hears(round)).unwrap();
                member
            };
            ids.iter().map(open).collect()
        };
        thread::scope(|scope| {
            let parts = ids.chunks(count.div_ceil(THREADS));
            let parts: Vec<_> = parts.map(|ids| scope.spawn(move || join(ids))).collect();
            let joined = parts.into_iter().flat_map(|part| part.join().unwrap());
            self.members.extend(joined);
        });
    }

    /// Everybody is asked, and then everybody has answered.
    pub(super) fn talks(&mut self, after: &str) {
        self.rounds += 1;
        let round = self.rounds;
        let size = self.members.len().div_ceil(THREADS);
        thread::scope(|scope| {
            for part in self.members.chunks_mut(size) {
                scope.spawn(move || {
                    for act in [Member::says, Member::hears] {
                        for member in &mut *part {
                            let told = act(member, round);
                            told.unwrap_or_else(|error| {
                                panic!("{} after {after}: {error}", member.told())
                            });
                        }
                    }
                });
            }
        });
    }

    /// Takes some of them out.
    pub(super) fn leave(&mut self, which: impl Fn(&Member) -> bool) -> Vec<Member> {
        self.members.extract_if(.., |member| which(member)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many are of a kind.
    pub(super) fn count(&self, which: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| which(member)).count()
    }
}

/// Talks to each until it has ended; none may end sooner than `least` after `since`.
pub(super) fn end_in_time(mut members: Vec<Member>, since: Instant, least: Duration) {
    let mut round = 1_000_000;
    eventually(Patience::LONG, "the tunnels of a backend that was removed to end", || {
        round += 1;
        members.retain_mut(|member| {
            let lives = member.says(round).and_then(|()| member.hears(round)).is_ok();
            let lived = since.elapsed();
            assert!(lives || lived >= least, "{} has ended after {lived:?}", member.told());
            lives
        });
        members.is_empty().then_some(())
    });
}
