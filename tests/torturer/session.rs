//! One run from its first process to its last: starts everything, lets events happen, ends everything, reports.
//!
//! It is bounded in time whatever the gateway does, and leaves no process and no file behind that it does not name.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use tempfile::TempDir;

use super::backend;
use super::board::Board;
use super::client::{self, Control, Orders};
use super::diary::Log;
use super::document::{Document, Listener};
use super::events::Events;
use super::gateway::Gateway;
use super::options::Options;
use super::report::Report;
use super::stalls::Watch;
use super::stream::{Rng, mix};
use super::tally::Tally;
use super::tls::{Certificate, Starter};

/// For the gateway to be ready, and for every tunnel to be open.
const START: Duration = Duration::from_secs(90);
/// For every tunnel to end, at the end.
const FINISH: Duration = Duration::from_secs(60);
/// What a run may take beyond its seconds, starting and ending included; then it is ended by force.
const GRACE: Duration = Duration::from_secs(420);

/// A backend's process; it ends with this value.
struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Ends the gateway on every way out.
struct Ending(Arc<Gateway>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.kill_everything();
    }
}

/// Everything that runs, and where; it ends in this order.
struct Setting {
    _ending: Ending,
    gateway: Arc<Gateway>,
    backends: Vec<Backend>,
    document: Document,
    board: Arc<Board>,
    slots: usize,
    tally: Arc<Mutex<Tally>>,
    _shared: TempDir,
    directory: TempDir,
}

/// Runs, reports, and says whether it passed.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or_else(|| u64::from(clock.subsec_nanos()));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let setting = prepare(options, clock.as_nanos() as u64)?;
    println!("seed {seed}; {} tunnels; {}", options.tunnels, setting.directory.path().display());
    let control = Arc::new(Control::default());
    let clients = start_clients(options, &setting, &control, seed)?;
    fill(&control, options.tunnels)?;
    println!("{} tunnels are open", control.live.load(Ordering::Relaxed));

    let events = Arc::new(Events {
        options: options.clone(),
        gateway: setting.gateway.clone(),
        board: setting.board.clone(),
        control: control.clone(),
        watch: Arc::new(Watch::default()),
        document: setting.document.clone(),
        starting: AtomicBool::new(false),
        away: AtomicBool::new(false),
        upgrading: AtomicBool::new(false),
        interruptions: AtomicU64::new(0),
        log: Mutex::new(Log::default()),
    });
    plant(options, &setting.gateway)?;
    let begin = Instant::now();
    let watcher = {
        let (watch, board, control) =
            (events.watch.clone(), setting.board.clone(), control.clone());
        let limit = Duration::from_secs_f64(options.stuck_after);
        thread::spawn(move || watch.run(&board, &control, limit))
    };
    torment(&events, &setting.tally, mix(seed), begin);
    let seconds = begin.elapsed().as_secs_f64();

    events.settle("at the end");
    events.watch.end();
    finish(&setting.board, &control, &setting.tally, &clients)?;
    let ended = clients.join().map_err(|_| io::Error::other("the clients' thread panicked"))?;
    ended?;
    control.stop.store(true, Ordering::Relaxed);
    watcher.join().map_err(|_| io::Error::other("the watcher's thread panicked"))?;
    Ok(conclude(options, setting, &events, seed, seconds))
}

/// Starts backends and the gateway.
fn prepare(options: &Options, chance: u64) -> io::Result<Setting> {
    // In every thread that comes, so that only the one that waits for them gets them.
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    ends.thread_block()?;
    let directory = tempfile::Builder::new().prefix("hftort").tempdir_in("/tmp")?;
    let shared = shared_directory(directory.path())?;
    let slots = options.tunnels * 2 + 4096;
    let board = Arc::new(Board::create(&shared.path().join("board"), slots)?);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut ports = Ports(Rng::new(chance ^ u64::from(std::process::id())));
    let listeners = options.tls.listeners(options.listeners).into_iter();
    let listeners: Vec<_> =
        listeners.map(|sealed| Listener { address: ports.free(), sealed }).collect();
    let sealed = listeners.iter().any(|listener| listener.sealed).then(|| {
        Certificate::make(directory.path()).map(|certificate| (ports.free().port(), certificate))
    });
    let document = Document {
        listeners,
        sealed: sealed.transpose()?,
        backends: (0..options.backends).map(|last| Ipv4Addr::new(127, 0, 0, last + 2)).collect(),
        backend_port: ports.free().port(),
        threads: options.threads,
    };
    let backends = start_backends(&document, shared.path(), &tally)?;
    let (binary, text) = (binary(options)?, document.text(0));
    let gateway = Arc::new(Gateway::start(directory.path(), &binary, ports.free(), &text)?);
    let ending = Ending(gateway.clone());
    end_in_time(options, &gateway, shared.path(), ends);
    let sides = if document.sealed.is_some() { 2 } else { 1 };
    wait_ready(&gateway, backends.len() * sides)?;
    Ok(Setting {
        _ending: ending,
        gateway,
        backends,
        document,
        board,
        slots,
        tally,
        _shared: shared,
        directory,
    })
}

fn start_clients(
    options: &Options,
    setting: &Setting,
    control: &Arc<Control>,
    seed: u64,
) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    let sealed = setting.document.sealed.as_ref();
    let tls = sealed.map(|(_, certificate)| Starter::of_client(certificate));
    let orders = Orders {
        listeners: setting.document.listeners.clone(),
        legs: options.tls.legs().to_vec(),
        tls: tls.transpose()?,
        tunnels: options.tunnels,
        slots: setting.slots,
        // Plans are made for 2,000 tunnels.
        stretch: (options.tunnels as f64 / 20.0 / options.load.max(0.01)).ceil() as u32,
        life: (options.life * 1000.0) as u32,
        seed,
    };
    let (control, board, tally) = (control.clone(), setting.board.clone(), setting.tally.clone());
    let tell = Box::new(move |news| tally.lock().unwrap().note(news));
    Ok(thread::spawn(move || client::run(orders, &control, board, tell)))
}

/// Stops the gateway, looks at what is left, and reports.
fn conclude(options: &Options, setting: Setting, events: &Events, seed: u64, seconds: f64) -> bool {
    let lost_total = setting.gateway.metric("holdfast_tunnels_lost_total");
    let (stopped, left_behind) = setting.gateway.stop();
    if !stopped.ok {
        events.log.lock().unwrap().faults.push(format!("holdfast stop: {}", stopped.said));
    }
    drop(setting.backends);
    let listeners = &setting.document.listeners;
    let log = events.log.lock().unwrap();
    let sum = setting.tally.lock().unwrap().sum(&log.kills);
    let stalls = events.watch.take();
    let log = &*log;
    let report =
        Report { options, listeners, seed, seconds, sum, log, stalls, lost_total, left_behind };
    report.print();
    let passed = report.reasons().is_empty();
    if options.keep || !passed {
        println!("the gateway's log: {}/log", setting.directory.keep().display());
    }
    println!("{}", report.json());
    passed
}

/// The board's directory: in memory, where there is such a place.
fn shared_directory(otherwise: &Path) -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { otherwise };
    tempfile::Builder::new().prefix("hftort").tempdir_in(place)
}

/// The executable under torture.
pub(crate) fn binary(options: &Options) -> io::Result<PathBuf> {
    if let Some(path) = &options.holdfast {
        return path.canonicalize();
    }
    let own = std::env::current_exe()?;
    // target/PROFILE/examples/torture
    let profile = own.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    profile.join("holdfast").canonicalize()
}

fn start_backends(
    document: &Document,
    shared: &Path,
    tally: &Arc<Mutex<Tally>>,
) -> io::Result<Vec<Backend>> {
    let mut backends = Vec::new();
    for address in &document.backends {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["backend", "--listen", &format!("{address}:{}", document.backend_port)])
            .arg("--board")
            .arg(shared.join("board"));
        if let Some((port, certificate)) = &document.sealed {
            command.args(["--listen-tls", &format!("{address}:{port}"), "--certificate"]);
            command.arg(&certificate.chain_file).arg("--key").arg(&certificate.key_file);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines =
            child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        backends.push(Backend(child));
        if lines.next().and_then(Result::ok).as_deref() != Some("ready") {
            return Err(io::Error::other(format!("the backend at {address} does not start")));
        }
        let tally = tally.clone();
        thread::spawn(move || {
            for news in lines.map_while(Result::ok).filter_map(|line| backend::parse(&line)) {
                tally.lock().unwrap().note(news);
            }
        });
    }
    Ok(backends)
}

/// Whatever happens, it is over some time; and what a person interrupts leaves nothing behind.
fn end_in_time(options: &Options, gateway: &Arc<Gateway>, shared: &Path, ends: SigSet) {
    let limit = GRACE + Duration::from_secs_f64(options.seconds);
    let shared = shared.to_owned();
    let end = move |gateway: &Gateway, why: &str, code: i32| {
        drop(fs::remove_dir_all(&shared));
        println!("ENDED {why}; the gateway's log was {}/log", gateway.directory.display());
        gateway.kill_everything();
        std::process::exit(code);
    };
    let (own, ending) = (gateway.clone(), end.clone());
    thread::spawn(move || {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            thread::park_timeout(limit.saturating_sub(begin.elapsed()));
        }
        ending(&own, "because it takes too long", 1);
    });
    let own = gateway.clone();
    thread::spawn(move || {
        ends.wait().ok();
        end(&own, "by a signal", 130);
    });
}

/// Ready, and so many backends found to be healthy; one that speaks TLS as well is two.
fn wait_ready(gateway: &Gateway, backends: usize) -> io::Result<()> {
    let begin = Instant::now();
    let healthy =
        || gateway.cli(&["health", "--json"]).said.matches("\"Healthy\"").count() == backends;
    while !(gateway.ready() && healthy()) {
        if let Some(how) = gateway.ended() {
            let log = fs::read_to_string(gateway.directory.join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("the gateway does not start: {how}\n{log}")));
        }
        if begin.elapsed() > START {
            return Err(io::Error::other("the gateway is not ready"));
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

fn fill(control: &Control, tunnels: usize) -> io::Result<()> {
    let begin = Instant::now();
    // Some end while the last ones are opened.
    while control.live.load(Ordering::Relaxed) < tunnels * 95 / 100 {
        if begin.elapsed() > START {
            let live = control.live.load(Ordering::Relaxed);
            return Err(io::Error::other(format!("only {live} tunnels could be opened")));
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn plant(options: &Options, gateway: &Gateway) -> io::Result<()> {
    match &options.plant {
        Some(name) => fs::write(gateway.directory.join("failpoints").join(name), ""),
        None => Ok(()),
    }
}

/// The events, and a line about them every ten seconds.
fn torment(events: &Arc<Events>, tally: &Mutex<Tally>, seed: u64, begin: Instant) {
    let end = begin + Duration::from_secs_f64(events.options.seconds);
    let threads = [false, true].map(|beside| {
        let (events, rng) = (events.clone(), Rng::new(seed ^ u64::from(beside)));
        thread::spawn(move || events.run(beside, rng, end))
    });
    let mut told = begin;
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        thread::park_timeout(Duration::from_millis(100));
        if told.elapsed() >= Duration::from_secs(10) {
            told = Instant::now();
            let (made, live) = (events.log.lock().unwrap().begun.len(), &events.control.live);
            let broken = tally.lock().unwrap().broken();
            println!(
                "{:4.0} s: {made} events, {} tunnels open, {broken} lost",
                begin.elapsed().as_secs_f64(),
                live.load(Ordering::Relaxed)
            );
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            events.log.lock().unwrap().faults.push("a thread of the tool panicked".to_owned());
        }
    }
}

/// Lets every tunnel come to its end; what has not by then is given up.
fn finish(
    board: &Board,
    control: &Control,
    tally: &Mutex<Tally>,
    clients: &thread::JoinHandle<io::Result<()>>,
) -> io::Result<()> {
    board.finish()?;
    let begin = Instant::now();
    while !clients.is_finished() {
        if begin.elapsed() > FINISH {
            control.stop.store(true, Ordering::Relaxed);
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    let begin = Instant::now();
    while tally.lock().unwrap().waits() && begin.elapsed() < Duration::from_secs(10) {
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// Ports for documents, which cannot say 0: below the kernel's ephemeral range, free on every address.
struct Ports(Rng);

impl Ports {
    fn free(&mut self) -> SocketAddr {
        loop {
            let port = self.0.between(10_000, 30_000) as u16;
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
                return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            }
        }
    }
}
