//! What the manager keeps, as far as we know: brought up to date, a pass at a time, with what the vault holds.
//!
//! A pass puts before it takes away, so that a death in its middle leaves a tunnel twice and never not at all. A page whose
//! tunnels have ended is given up by and by: those that are left move to another one. Decides what to put where; who it is
//! that keeps it is a [`Shop`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use holdfast_proto::fd_channel::is_crowded;
use tokio::time::Instant;

use super::name::Name;
use super::page::{MOST, Page};
use crate::vault::{KeptTunnel, Key};

/// What of ended tunnels may wait on a page that is still worth keeping: their sockets are shut down, and cost memory only.
const STALE: Duration = Duration::from_secs(30);

/// Whoever keeps descriptors.
pub(super) trait Shop {
    /// Puts one there.
    fn put(&mut self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()>;
    /// Has all of that name thrown away.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// What would be there: noted before it is put there, so that the next process can have it thrown away.
    fn note(&mut self, names: &BTreeSet<String>);
}

/// What is to be kept.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Everything but tunnels.
    pub(super) single: Vec<(Name, OwnedFd)>,
    pub(super) tunnels: BTreeSet<Key>,
    /// This is all: what an earlier process had kept besides is of no use any more.
    pub(super) is_all: bool,
}

/// What came of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// All is kept.
    Done,
    /// So many tunnels are not: there is no more room.
    Full(usize),
    /// What was put there was not kept.
    Refused,
}

/// What is kept.
#[derive(Debug)]
pub(super) struct Store<S> {
    shop: S,
    /// Which file is kept under that name.
    single: BTreeMap<String, (u64, u64)>,
    pages: BTreeMap<u64, Page>,
    place: HashMap<Key, u64>,
    /// The page that is being filled.
    open: Option<u64>,
    next: u64,
    /// Pages that came back: they are empty since, and only take up room.
    emptied: BTreeSet<String>,
    /// Kept since before this process, until everything is kept anew.
    old: BTreeSet<String>,
    /// Most tunnels.
    most: usize,
    /// Since when a page has stale tunnels.
    stale: HashMap<u64, Instant>,
}

// === impl Store ===

impl<S: Shop> Store<S> {
    /// `passed` came back from whoever keeps them, and was read; `noted` is what an earlier process has left there besides.
    pub(super) fn new(
        shop: S,
        passed: impl IntoIterator<Item = String>,
        noted: impl IntoIterator<Item = String>,
        most: usize,
    ) -> Self {
        let number = |name: &String| match Name::parse(name) {
            Some(Name::Tunnels(number)) => Some(number),
            _ => None,
        };
        let (emptied, single): (BTreeSet<_>, BTreeSet<_>) =
            passed.into_iter().partition(|name| number(name).is_some());
        let noted = noted.into_iter().filter(|name| !emptied.contains(name));
        let old: BTreeSet<String> = single.into_iter().chain(noted).collect();
        let highest = emptied.iter().chain(&old).filter_map(number).max();
        Self {
            shop,
            single: BTreeMap::new(),
            pages: BTreeMap::new(),
            place: HashMap::new(),
            open: None,
            next: highest.map_or(0, |highest| highest.saturating_add(1)),
            emptied,
            old,
            most,
            stale: HashMap::new(),
        }
    }

    /// Brings what is kept up to date. `copy` answers with those tunnels that are still held.
    ///
    /// # Errors
    /// The manager was not reached. The next pass goes on where this one ended.
    pub(super) fn pass(
        &mut self,
        wanted: &Wanted,
        mut copy: impl FnMut(&[Key]) -> Vec<KeptTunnel<OwnedFd>>,
    ) -> io::Result<Pass> {
        while let Some(name) = self.emptied.first().cloned() {
            self.shop.remove(&name)?;
            self.emptied.remove(&name);
        }
        let refused = self.drop_lost();
        self.keep_single(&wanted.single)?;
        self.strike(&wanted.tunnels);
        let fresh = wanted.tunnels.iter().filter(|key| !self.place.contains_key(key));
        let fresh: Vec<Key> = fresh.copied().collect();
        let thin = if refused { Vec::new() } else { self.thin_out() };
        let moved = thin.iter().flat_map(|(_, keys)| keys.iter().copied());
        let missing: Vec<Key> = moved.chain(fresh).collect();
        let room = self.most.saturating_sub(self.place.len());
        let (now, later) = missing.split_at(missing.len().min(room));
        let mut rest = now;
        while !rest.is_empty() && !refused {
            let number = self.open_page()?;
            let room = self.pages.get(&number).map_or(0, Page::room);
            let (some, behind) = rest.split_at(rest.len().min(room.max(1)));
            if !self.write(number, &copy(some))? {
                break;
            }
            rest = behind;
        }
        for (number, moved) in thin {
            let stranded = moved.into_iter().filter(|key| !self.place.contains_key(key));
            let stranded: Vec<Key> = stranded.collect();
            if stranded.is_empty() {
                self.throw_away(number)?;
            } else {
                self.leave_on(number, stranded);
            }
        }
        if refused {
            return Ok(Pass::Refused);
        }
        if !(rest.is_empty() && later.is_empty()) {
            return Ok(Pass::Full(rest.len() + later.len()));
        }
        if wanted.is_all {
            self.throw_old_away(&wanted.single)?;
        }
        Ok(Pass::Done)
    }

    /// Takes everything back.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        for name in self.names() {
            self.shop.remove(&name)?;
        }
        self.shop.note(&BTreeSet::new());
        Ok(())
    }

    fn names(&self) -> BTreeSet<String> {
        let pages = self.pages.keys().map(|number| Name::Tunnels(*number).to_string());
        let left = self.emptied.iter().chain(&self.old).cloned();
        left.chain(self.single.keys().cloned()).chain(pages).collect()
    }

    /// Forgets pages that nobody keeps. Whether there were any.
    fn drop_lost(&mut self) -> bool {
        let lost = self.pages.iter().filter(|(_, page)| page.is_lost()).map(|(number, _)| *number);
        let lost: Vec<u64> = lost.collect();
        for number in &lost {
            self.take_off(*number);
            self.pages.remove(number);
            self.stale.remove(number);
        }
        !lost.is_empty()
    }

    /// Its tunnels are to be kept elsewhere.
    fn take_off(&mut self, number: u64) -> Vec<Key> {
        let live = self.pages.get_mut(&number).map(|page| std::mem::take(&mut page.live));
        let taken: Vec<Key> = live.into_iter().flatten().collect();
        for key in &taken {
            self.place.remove(key);
        }
        if self.open == Some(number) {
            self.open = None;
        }
        taken
    }

    /// There was no room for them elsewhere.
    fn leave_on(&mut self, number: u64, stranded: Vec<Key>) {
        let Some(page) = self.pages.get_mut(&number) else { return };
        self.place.extend(stranded.iter().map(|key| (*key, number)));
        page.live.extend(stranded);
    }

    fn keep_single(&mut self, wanted: &[(Name, OwnedFd)]) -> io::Result<()> {
        let mut names = HashSet::new();
        for (name, fd) in wanted {
            let name = name.to_string();
            let stat = rustix::fs::fstat(fd)?;
            let file = (stat.st_dev, stat.st_ino);
            match self.single.get(&name) {
                Some(kept) if *kept == file => {}
                kept => {
                    if kept.is_some() {
                        self.shop.remove(&name)?;
                    }
                    self.single.insert(name.clone(), file);
                    let all = self.names();
                    self.shop.note(&all);
                    if let Err(error) = self.shop.put(&name, fd.as_fd()) {
                        self.single.remove(&name);
                        return Err(error);
                    }
                }
            }
            names.insert(name);
        }
        let gone: Vec<_> =
            self.single.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.shop.remove(&name)?;
            self.single.remove(&name);
        }
        Ok(())
    }

    /// Strikes out those that have ended.
    fn strike(&mut self, wanted: &BTreeSet<Key>) {
        for (key, number) in self.place.extract_if(|key, _| !wanted.contains(key)) {
            if let Some(page) = self.pages.get_mut(&number) {
                page.live.remove(&key);
            }
            self.stale.entry(number).or_insert_with(Instant::now);
        }
    }

    /// Pages that are no longer worth it, with their tunnels taken off, to be kept elsewhere.
    fn thin_out(&mut self) -> Vec<(u64, Vec<Key>)> {
        let is_thin = |number: &u64, page: &Page| {
            let old = self.stale.get(number).is_some_and(|since| since.elapsed() >= STALE);
            let half = page.written >= MOST / 2 && page.live.len() * 2 <= page.written;
            page.written > 0 && (page.live.is_empty() || half || old)
        };
        let thin: Vec<u64> = self
            .pages
            .iter()
            .filter(|(number, page)| is_thin(number, page))
            .map(|(it, _)| *it)
            .collect();
        thin.into_iter().map(|number| (number, self.take_off(number))).collect()
    }

    fn open_page(&mut self) -> io::Result<u64> {
        if let Some(open) = self.open
            && self.pages.get(&open).is_some_and(|page| page.room() > 0)
        {
            return Ok(open);
        }
        let (page, kept) = Page::new()?;
        let number = self.next;
        self.next += 1;
        self.pages.insert(number, page);
        let all = self.names();
        self.shop.note(&all);
        if let Err(error) = self.shop.put(&Name::Tunnels(number).to_string(), kept.as_fd()) {
            self.pages.remove(&number);
            return Err(error);
        }
        self.open = Some(number);
        Ok(number)
    }

    /// Puts tunnels on a page. `false`: too many descriptors of this user wait in queues already.
    fn write(&mut self, number: u64, tunnels: &[KeptTunnel<OwnedFd>]) -> io::Result<bool> {
        let Some(page) = self.pages.get_mut(&number) else { return Ok(true) };
        let outcome = page.put(tunnels);
        // Also those before the one that failed.
        self.place.extend(page.live.iter().map(|key| (*key, number)));
        let error = match outcome {
            Ok(()) => return Ok(true),
            Err(error) if is_crowded(&error) => return Ok(false),
            Err(error) => error,
        };
        match error.kind() {
            // Its queue is full earlier than thought.
            io::ErrorKind::WouldBlock if page.written > 0 => {}
            // Nobody keeps it, which the next pass sees as well.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {}
            // The page stays open: another one at each attempt would fill the store with empty ones.
            _ => return Err(error),
        }
        self.open = None;
        Ok(true)
    }

    fn throw_away(&mut self, number: u64) -> io::Result<()> {
        self.shop.remove(&Name::Tunnels(number).to_string())?;
        self.pages.remove(&number);
        self.stale.remove(&number);
        Ok(())
    }

    /// What an earlier process had kept is kept anew.
    fn throw_old_away(&mut self, single: &[(Name, OwnedFd)]) -> io::Result<()> {
        if self.old.is_empty() {
            return Ok(());
        }
        while let Some(name) = self.old.first().cloned() {
            self.shop.remove(&name)?;
            // It may have been another file that had this name: both went, and the one that is held comes back.
            if let Some((_, fd)) = single.iter().find(|(it, _)| it.to_string() == name) {
                self.shop.put(&name, fd.as_fd())?;
            }
            self.old.remove(&name);
        }
        let all = self.names();
        self.shop.note(&all);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
