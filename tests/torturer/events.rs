//! What is done to the gateway: kills, pauses, restarts, reloads, upgrades, at random moments that the seed repeats.
//!
//! Deaths and replacements come one at a time, each once the gateway has recovered from the one before: the promise is
//! about one fault at a time. Reloads and applies go on beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::board::Board;
use super::client::Control;
use super::diary::{Found, Log};
use super::document::Document;
use super::gateway::{Done, Gateway, Status, Worker, alive, signal};
use super::options::{Kind, Options};
use super::plan::Role;
use super::stalls::Watch;
use super::stream::Rng;

/// Between two looks at the status, each a process of its own.
const LOOK: Duration = Duration::from_millis(20);
/// For everything that waited to have gone on.
const AFTER_PAUSE: Duration = Duration::from_millis(300);
/// SIGHUPs of one burst, and the time between them.
const BURST: u32 = 20;
const BETWEEN_HANGUPS: Duration = Duration::from_millis(100);

/// What the events need.
pub(crate) struct Events {
    pub(crate) options: Options,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) board: Arc<Board>,
    pub(crate) control: Arc<Control>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) document: Document,
    /// The supervisor was killed, and its successor has not answered yet.
    pub(crate) starting: AtomicBool,
    /// There is no supervisor at all.
    pub(crate) away: AtomicBool,
    /// Another executable takes the supervisor's place about now.
    pub(crate) upgrading: AtomicBool,
    /// Counts interruptions under which a command may fail.
    pub(crate) interruptions: AtomicU64,
    pub(crate) log: Mutex<Log>,
}

impl Events {
    /// Makes events of the given sort until `end`, or until the gateway has ended by itself.
    pub(crate) fn run(&self, beside: bool, mut rng: Rng, end: Instant) {
        let mut next = BTreeMap::new();
        let due = |every: f64, rng: &mut Rng| {
            Instant::now() + Duration::from_secs_f64(every * (0.5 + rng.unit()))
        };
        for kind in Kind::ALL.into_iter().filter(|kind| kind.beside() == beside) {
            if let Some(every) = self.options.every(kind) {
                next.insert(kind, due(every * 0.7, &mut rng));
            }
        }
        loop {
            let first =
                next.iter().min_by_key(|(_, time)| **time).map(|(kind, time)| (*kind, *time));
            let time = first.map_or(end, |(_, time)| time.min(end));
            while Instant::now() < time {
                std::thread::park_timeout(time - Instant::now().min(time));
            }
            if self.over() || Instant::now() >= end {
                return;
            }
            let Some((kind, _)) = first else { return };
            self.make(kind, &mut rng);
            next.insert(kind, due(self.options.every(kind).unwrap_or(1.0), &mut rng));
        }
    }

    /// Whether the gateway has ended, which nobody asked it to.
    pub(crate) fn over(&self) -> bool {
        if self.away.load(Ordering::SeqCst) {
            return false;
        }
        let Some(how) = self.gateway.ended() else { return false };
        let told = format!("the supervisor ended by itself: {how}");
        let mut log = self.log.lock().unwrap();
        if !log.faults.contains(&told) {
            log.faults.push(told);
        }
        true
    }

    fn make(&self, kind: Kind, rng: &mut Rng) {
        match kind {
            Kind::WorkerKill => self.kill_worker(rng),
            Kind::SupervisorKill => self.kill_supervisor(rng),
            Kind::ProberKill => self.kill_prober(),
            Kind::Stop => self.stop_and_go_on(rng),
            Kind::Restart => self.command(kind, &["restart"]),
            Kind::Upgrade => self.upgrade(),
            Kind::Reload => self.reload(rng),
            Kind::Apply => self.apply(rng),
        }
    }

    fn begin(&self, kind: Kind, what: String, allowance: Duration) -> Instant {
        let now = Instant::now();
        if !kind.beside() {
            self.watch.event(kind.word(), allowance);
        }
        self.log.lock().unwrap().begun.push((now, kind, what));
        now
    }

    fn fault(&self, what: &str) {
        // On one line, whatever a command has said.
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        println!("FAULT {what}");
        self.log.lock().unwrap().faults.push(what);
    }

    /// Waits until every tunnel is protected, as the gateway says, and it knows of nearly as many as the clients do.
    pub(crate) fn settle(&self, after: &str) -> Option<Status> {
        let limit = Duration::from_secs_f64(self.options.protected_within);
        let begin = Instant::now();
        let mut last = None;
        while begin.elapsed() < limit && !self.over() {
            let status = self.gateway.status();
            if let Some(status) = status.as_ref().filter(|status| self.settled(status)) {
                return Some(status.clone());
            }
            last = status.or(last);
            std::thread::park_timeout(LOOK);
        }
        let live = self.control.live.load(Ordering::Relaxed);
        let told = last.map_or("no status".to_owned(), |status| format!("{:?}", status.workers));
        let seconds = begin.elapsed().as_secs_f64();
        self.fault(&format!(
            "{after}: not settled within {seconds:.1} s; clients hold {live}, {told}"
        ));
        None
    }

    fn settled(&self, status: &Status) -> bool {
        let serving = |address: &str| {
            status.workers.iter().any(|one| one.address == address && one.state == "serving")
        };
        let all = self.document.listeners.iter().all(|one| serving(&one.address.to_string()));
        let live = self.control.live.load(Ordering::Relaxed) as u64;
        // Between the client's count and the gateway's some have come and gone.
        let known = status.tunnels() + live / 20 + 20 >= live;
        all && (self.options.unprotected || (status.protected() && known))
    }

    fn note_recovery(&self, kind: Kind, since: Instant) {
        if self.settle(kind.word()).is_some() {
            let mut log = self.log.lock().unwrap();
            log.recovered.entry(kind).or_default().push(since.elapsed());
        }
    }

    fn kill_worker(&self, rng: &mut Rng) {
        let begin = Instant::now();
        let Some(status) = self.settle("before a worker's kill") else { return };
        self.log.lock().unwrap().waits.push(begin.elapsed());
        // Each listener's in turn, so that none is spared.
        let listeners = &self.document.listeners;
        let listener = self.log.lock().unwrap().kills.len() % listeners.len();
        let address = listeners[listener].address.to_string();
        let Some(victim) = pick(&status, rng, |one| one.address == address) else { return };
        // Not always at the same distance from the status call.
        std::thread::park_timeout(Duration::from_micros(rng.between(0, 30_000)));
        let time = self.begin(Kind::WorkerKill, format!("{}", victim.pid), Duration::ZERO);
        signal(victim.pid, Signal::SIGKILL);
        let found = self.look(listener);
        let mut log = self.log.lock().unwrap();
        log.kills.push((time, listener));
        log.found.push(found);
        drop(log);
        self.wait_gone(victim.pid, "a killed worker");
        self.note_recovery(Kind::WorkerKill, time);
    }

    /// What is on the way in a listener's tunnels right now.
    fn look(&self, listener: usize) -> Found {
        let used = self.control.slots.load(Ordering::Relaxed);
        let slots = self.board.read_all(used, &mut Vec::new()).unwrap_or_default();
        let mut found = Found::default();
        for slot in slots.iter().filter(|slot| slot.halves[0].listener() == listener) {
            let on_the_way = [Role::Client, Role::Backend].map(|from| slot.in_flight(from));
            found.directions += on_the_way.iter().filter(|bytes| **bytes > 0).count() as u64;
            found.bytes += on_the_way.iter().sum::<u64>();
            found.half_closed += u64::from(slot.half_closed());
        }
        found
    }

    fn kill_supervisor(&self, rng: &mut Rng) {
        if self.settle("before the supervisor's kill").is_none() {
            return;
        }
        self.away.store(true, Ordering::SeqCst);
        self.starting.store(true, Ordering::SeqCst);
        self.interruptions.fetch_add(1, Ordering::SeqCst);
        let pid = self.gateway.supervisor();
        self.begin(Kind::SupervisorKill, format!("{pid}"), Duration::ZERO);
        signal(pid, Signal::SIGKILL);
        self.wait_gone(pid, "the killed supervisor");
        if rng.chance(0.5) {
            std::thread::park_timeout(Duration::from_millis(rng.between(1, 1500)));
        }
        // How long nobody started it is not the gateway's doing.
        let time = Instant::now();
        let started = self.gateway.start_again();
        self.away.store(false, Ordering::SeqCst);
        match started {
            Ok(()) => self.note_recovery(Kind::SupervisorKill, time),
            Err(error) => self.fault(&format!("starting the supervisor again: {error}")),
        }
        self.interruptions.fetch_add(1, Ordering::SeqCst);
        self.starting.store(false, Ordering::SeqCst);
    }

    fn kill_prober(&self) {
        let Some(status) = self.settle("before the prober's kill") else { return };
        let time = self.begin(Kind::ProberKill, format!("{}", status.prober), Duration::ZERO);
        if status.prober == 0 {
            return;
        }
        signal(status.prober, Signal::SIGKILL);
        self.wait_gone(status.prober, "the killed prober");
        let limit = Duration::from_secs_f64(self.options.protected_within);
        while time.elapsed() < limit {
            let now = self.gateway.status().map_or(0, |status| status.prober);
            if now != 0 && now != status.prober {
                let mut log = self.log.lock().unwrap();
                log.recovered.entry(Kind::ProberKill).or_default().push(time.elapsed());
                return;
            }
            std::thread::park_timeout(LOOK);
        }
        self.fault("no new prober after a kill");
    }

    fn stop_and_go_on(&self, rng: &mut Rng) {
        let Some(status) = self.settle("before a pause") else { return };
        let supervisor = self.gateway.supervisor();
        let (name, pid) = match rng.between(0, 2) {
            0 => ("supervisor", supervisor),
            1 => ("prober", status.prober),
            _ => ("worker", pick(&status, rng, |_| true).map_or(0, |worker| worker.pid)),
        };
        if pid == 0 {
            return;
        }
        let span = Duration::from_millis(rng.between(50, 2000));
        if name == "supervisor" {
            self.interruptions.fetch_add(1, Ordering::SeqCst);
        }
        let allowance = if name == "worker" { span } else { Duration::ZERO };
        self.begin(Kind::Stop, format!("{name} {pid}"), allowance);
        signal(pid, Signal::SIGSTOP);
        std::thread::park_timeout(span);
        let time = Instant::now();
        signal(pid, Signal::SIGCONT);
        self.note_recovery(Kind::Stop, time);
        // What waited for a paused worker must not be taken for the next event's stall.
        std::thread::park_timeout(AFTER_PAUSE);
    }

    fn command(&self, kind: Kind, arguments: &[&str]) {
        if !kind.beside() && self.settle("before a command").is_none() {
            return;
        }
        let interruptions = self.interruptions.load(Ordering::SeqCst);
        let time = self.begin(kind, arguments.join(" "), Duration::ZERO);
        let done = self.gateway.cli(arguments);
        self.note_command(kind, arguments, &done, interruptions);
        if !kind.beside() {
            self.note_recovery(kind, time);
        }
    }

    fn note_command(&self, kind: Kind, arguments: &[&str], done: &Done, interruptions: u64) {
        let mut log = self.log.lock().unwrap();
        if done.ok {
            log.commands.entry(kind).or_default().push(done.took);
        } else if self.interruptions.load(Ordering::SeqCst) != interruptions
            || (kind.beside() && self.upgrading.load(Ordering::SeqCst))
        {
            log.interrupted += 1;
        } else {
            drop(log);
            self.fault(&format!("holdfast {}: {}", arguments.join(" "), done.said));
        }
    }

    fn upgrade(&self) {
        if self.settle("before an upgrade").is_none() {
            return;
        }
        let number = self.log.lock().unwrap().count(Kind::Upgrade);
        let copy = |number: u64| self.gateway.directory.join(format!("holdfast-{number}"));
        if let Some(older) = number.checked_sub(2) {
            drop(fs::remove_file(copy(older)));
        }
        let binary = copy(number);
        if let Err(error) = fs::copy(self.gateway.binary(), &binary) {
            return self.fault(&format!("copying the executable: {error}"));
        }
        let path = binary.display().to_string();
        let pid = self.gateway.supervisor();
        let time = self.begin(Kind::Upgrade, path.clone(), Duration::ZERO);
        self.upgrading.store(true, Ordering::SeqCst);
        self.interruptions.fetch_add(1, Ordering::SeqCst);
        let before = self.interruptions.load(Ordering::SeqCst);
        let arguments = ["upgrade", "--binary", &path];
        let done = self.gateway.cli(&arguments);
        let ok = done.ok;
        self.note_command(Kind::Upgrade, &arguments, &done, before);
        let runs = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if ok && runs != binary {
            self.fault(&format!("after `upgrade` process {pid} runs {}", runs.display()));
        }
        self.note_recovery(Kind::Upgrade, time);
        self.interruptions.fetch_add(1, Ordering::SeqCst);
        self.upgrading.store(false, Ordering::SeqCst);
    }

    /// Whether the supervisor was killed and its successor has not answered yet.
    fn starting(&self) -> bool {
        self.starting.load(Ordering::SeqCst)
    }

    fn reload(&self, rng: &mut Rng) {
        if self.starting() {
            return;
        }
        if rng.chance(0.5) {
            self.write("gateway.json", rng);
        }
        if rng.chance(0.3) {
            return self.command(Kind::Reload, &["reload"]);
        }
        for _ in 0..BURST {
            // A supervisor that has only just been started may not have got so far as to catch signals.
            if self.starting() {
                return;
            }
            let pid = self.gateway.supervisor();
            self.begin(Kind::Reload, "SIGHUP".to_owned(), Duration::ZERO);
            signal(pid, Signal::SIGHUP);
            std::thread::park_timeout(BETWEEN_HANGUPS);
        }
    }

    fn apply(&self, rng: &mut Rng) {
        if self.starting() {
            return;
        }
        let file = self.write("applied.json", rng).display().to_string();
        self.command(Kind::Apply, &["apply", &file]);
    }

    /// Another document that changes no tunnel, put in its place at once.
    fn write(&self, name: &str, rng: &mut Rng) -> PathBuf {
        let file = self.gateway.directory.join(name);
        let fresh = file.with_extension("new");
        let written = fs::write(&fresh, self.document.text(rng.next()));
        if let Err(error) = written.and_then(|()| fs::rename(&fresh, &file)) {
            self.fault(&format!("writing {name}: {error}"));
        }
        file
    }

    fn wait_gone(&self, pid: u32, who: &str) {
        let begin = Instant::now();
        while alive(pid) {
            if begin.elapsed() > Duration::from_secs(10) {
                return self.fault(&format!("{who} ({pid}) is still there"));
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// One of these workers, also of those that drain.
fn pick(status: &Status, rng: &mut Rng, which: impl Fn(&Worker) -> bool) -> Option<Worker> {
    let workers = status.workers.iter().filter(|worker| worker.pid > 0 && which(worker));
    let workers: Vec<_> = workers.collect();
    let last = workers.len().checked_sub(1)?;
    workers.get(rng.between(0, last as u64) as usize).map(|worker| (*worker).clone())
}
