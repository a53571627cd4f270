//! The tool's command line: options, defaults and their help texts.
//!
//! Times of events are means in seconds; each event comes at a random moment around its mean, from the seed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::plan::Legs;

/// Torture for a gateway: thousands of checked tunnels, while its processes are killed, stopped and replaced.
///
/// Starts backends, a gateway and clients of its own on loopback addresses. Every byte in both directions of every
/// tunnel is checked at its end. Prints a report and, as its last line, the same as JSON.
#[derive(Debug, Parser)]
#[command(
    name = "torture",
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 nothing was lost and every minimum reached, 1 otherwise, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// One of the backends; started by the tool
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        listen: SocketAddr,
        /// Where it speaks TLS, if it does
        #[arg(long, requires = "certificate", requires = "key")]
        listen_tls: Option<SocketAddr>,
        #[arg(long)]
        certificate: Option<PathBuf>,
        #[arg(long)]
        key: Option<PathBuf>,
        #[arg(long)]
        board: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "a command line")]
pub(crate) struct Options {
    /// How long events go on; starting and ending come on top
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    pub(crate) seconds: f64,
    /// Tunnels open at a time
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) tunnels: usize,
    /// Repeats a run's choices [default: from the clock]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Which tunnels have TLS. thirds: none, wss, and wss to an https backend, a third each; all: only the latter two
    #[arg(long, value_name = "WHICH", default_value = "thirds")]
    pub(crate) tls: Tls,
    /// Listeners, each with a worker of its own; with --tls thirds http and https ones in turn, and one of each at least
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) listeners: u8,
    /// Backends, each a process
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) backends: u8,
    /// Threads of each worker [default: the gateway's]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Traffic: 1 is about 4,000 messages and 30 MiB a second, however many tunnels there are
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub(crate) load: f64,
    /// Mean life of a tunnel in seconds; new ones are opened as they end
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(crate) life: f64,

    /// kill -9 of a worker, while every tunnel is protected
    #[arg(long, value_name = "SECONDS", default_value_t = 0.6)]
    pub(crate) worker_kills_every: f64,
    /// kill -9 of the supervisor, which is started again on the same directories
    #[arg(long, value_name = "SECONDS", default_value_t = 6.5)]
    pub(crate) supervisor_kills_every: f64,
    /// kill -9 of the prober
    #[arg(long, value_name = "SECONDS", default_value_t = 7.0)]
    pub(crate) prober_kills_every: f64,
    /// SIGSTOP of one process, SIGCONT up to two seconds later
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    pub(crate) stops_every: f64,
    /// `holdfast restart`
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    pub(crate) restarts_every: f64,
    /// SIGHUP ten times a second for two seconds, or `holdfast reload`, beside everything else
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub(crate) reloads_every: f64,
    /// `holdfast apply` of a document that changes no tunnel, beside everything else
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub(crate) applies_every: f64,
    /// `holdfast upgrade --binary` with a copy of the executable
    #[arg(long, value_name = "SECONDS", default_value_t = 11.0)]
    pub(crate) upgrades_every: f64,
    #[command(flatten)]
    pub(crate) without: Without,
    #[command(flatten)]
    pub(crate) least: Least,

    /// Kill without waiting until every tunnel is protected, as a gateway without protection would be met
    #[arg(long)]
    pub(crate) unprotected: bool,
    /// How long the gateway may take to have every tunnel protected (again)
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) protected_within: f64,
    /// A tunnel in which bytes are on the way and nothing comes for so long is lost
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub(crate) stuck_after: f64,
    /// Plant faults, one a run, and see that each is caught (needs an executable with the feature `failpoints`)
    #[arg(long)]
    pub(crate) faults: bool,
    /// Plant this fault: a file of that name in `$HOLDFAST_FAILPOINTS`
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) plant: Option<String>,
    /// The executable under torture [default: the one beside this tool]
    #[arg(long, value_name = "PATH")]
    pub(crate) holdfast: Option<PathBuf>,
    /// Keep the directory with the gateway's log, also of a run that was fine
    #[arg(long)]
    pub(crate) keep: bool,
    /// Build without optimization (for `tests/torture`, which builds)
    #[arg(long)]
    #[allow(dead_code, reason = "the script reads it")]
    pub(crate) debug: bool,
}

/// Which tunnels have TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tls {
    Thirds,
    All,
    None,
}

impl Tls {
    /// The kinds of tunnels, each as often as another.
    pub(crate) fn legs(self) -> &'static [Legs] {
        match self {
            Self::Thirds => &Legs::ALL,
            Self::All => &[Legs::Wss, Legs::WssToHttps],
            Self::None => &[Legs::Ws],
        }
    }

    /// Whether each of so many listeners has TLS.
    pub(crate) fn listeners(self, count: u8) -> Vec<bool> {
        match self {
            Self::Thirds => (0..count.max(2)).map(|place| place % 2 == 1).collect(),
            Self::All => vec![true; count.into()],
            Self::None => vec![false; count.into()],
        }
    }
}

#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "a command line")]
pub(crate) struct Without {
    #[arg(long)]
    pub(crate) no_worker_kills: bool,
    #[arg(long)]
    pub(crate) no_supervisor_kills: bool,
    #[arg(long)]
    pub(crate) no_prober_kills: bool,
    #[arg(long)]
    pub(crate) no_stops: bool,
    #[arg(long)]
    pub(crate) no_restarts: bool,
    #[arg(long)]
    pub(crate) no_reloads: bool,
    #[arg(long)]
    pub(crate) no_applies: bool,
    #[arg(long)]
    pub(crate) no_upgrades: bool,
}

/// Fewer of a kind than this fail the run.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_field_names, reason = "they name the options")]
pub(crate) struct Least {
    /// Exit 1 with fewer kills of workers than this; likewise the others
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_worker_kills: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_supervisor_kills: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_prober_kills: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_stops: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_restarts: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_reloads: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_applies: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_upgrades: u64,
    /// Percent of worker kills that must find bytes on the way in the killed worker's tunnels
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) min_in_flight_share: f64,
    /// Percent of worker kills that must find a half-closed tunnel there
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) min_half_closed_share: f64,
}

/// The kinds of events, in the order of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    WorkerKill,
    SupervisorKill,
    ProberKill,
    Stop,
    Restart,
    Reload,
    Apply,
    Upgrade,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::WorkerKill,
        Self::SupervisorKill,
        Self::ProberKill,
        Self::Stop,
        Self::Restart,
        Self::Reload,
        Self::Apply,
        Self::Upgrade,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::WorkerKill => "worker_kills",
            Self::SupervisorKill => "supervisor_kills",
            Self::ProberKill => "prober_kills",
            Self::Stop => "stops",
            Self::Restart => "restarts",
            Self::Reload => "reloads",
            Self::Apply => "applies",
            Self::Upgrade => "upgrades",
        }
    }

    /// Kinds that go on beside the others; the others come one at a time.
    pub(crate) fn beside(self) -> bool {
        matches!(self, Self::Reload | Self::Apply)
    }
}

impl Options {
    /// Mean time between two of that kind; nothing where it is switched off.
    pub(crate) fn every(&self, kind: Kind) -> Option<f64> {
        let without = &self.without;
        let (off, every) = match kind {
            Kind::WorkerKill => (without.no_worker_kills, self.worker_kills_every),
            Kind::SupervisorKill => (without.no_supervisor_kills, self.supervisor_kills_every),
            Kind::ProberKill => (without.no_prober_kills, self.prober_kills_every),
            Kind::Stop => (without.no_stops, self.stops_every),
            Kind::Restart => (without.no_restarts, self.restarts_every),
            Kind::Reload => (without.no_reloads, self.reloads_every),
            Kind::Apply => (without.no_applies, self.applies_every),
            Kind::Upgrade => (without.no_upgrades, self.upgrades_every),
        };
        (!off && every > 0.0).then_some(every)
    }

    pub(crate) fn least(&self, kind: Kind) -> u64 {
        let least = &self.least;
        match kind {
            Kind::WorkerKill => least.min_worker_kills,
            Kind::SupervisorKill => least.min_supervisor_kills,
            Kind::ProberKill => least.min_prober_kills,
            Kind::Stop => least.min_stops,
            Kind::Restart => least.min_restarts,
            Kind::Reload => least.min_reloads,
            Kind::Apply => least.min_applies,
            Kind::Upgrade => least.min_upgrades,
        }
    }
}
