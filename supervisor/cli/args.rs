//! The command line as clap sees it: commands, options, defaults and their help texts.
//!
//! Nothing here does anything: what a command means is decided in `admin`, `run`, `validate` and `demo`. Names and
//! exit codes are a contract with scripts (0 done, 1 refused or failed, 2 usage), so they only ever grow.

mod ask;
mod form;
mod passport;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::ask::{ExplainArgs, TunnelFilter, TunnelsArgs, WatchArgs};
pub(crate) use self::passport::Passport;

/// A WebSocket-native application gateway whose connections outlive its processes.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version = holdfast_proto::VERSION,
    about,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.\n\
        First steps: `holdfast demo`, then in a second terminal `holdfast status`."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Everything that the executable can be told to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway in the foreground
    #[command(
        after_help = "SIGHUP reads the configuration file again, SIGTERM drains and ends, SIGUSR2 upgrades.\n\
        Under systemd the directories default to $RUNTIME_DIRECTORY and $STATE_DIRECTORY.\n\
        HOLDFAST_LOG sets what is logged: error, warn, info (the default), debug, trace."
    )]
    Run(RunArgs),
    /// Run a gateway in front of two built-in chat backends, to see what it does
    Demo(DemoArgs),
    /// Check a configuration as a start would, without a running gateway
    Validate(ValidateArgs),
    /// Turn an ARM template, or what `az network application-gateway show` prints, into a document
    #[command(
        after_help = "What is missing (a parameter without a value, a key that Azure does not print, another resource's \
        state)\nis listed with the name that --set takes. What has an effect in Azure only is listed too.\n\
        Exit code: 0 the document is valid, 1 it is not, or there is none."
    )]
    Import(ImportArgs),
    /// Print the JSON Schema of documents, for editors
    Schema,
    /// Put a configuration in force; answers once every worker serves it
    Apply(ApplyArgs),
    /// Make the gateway read its configuration file again (as SIGHUP does), and fetch error pages again
    Reload(Admin),
    /// Print the effective configuration, defaults filled in and secrets left out
    Config(ConfigArgs),
    /// List the configurations that were in force
    Revisions(Admin),
    /// Put an older revision's configuration in force again, as a new revision
    Rollback(RollbackArgs),
    /// Show processes, listeners and the revision in force
    Status(WatchArgs),
    /// Show every backend's health and its probe's last words
    Health(WatchArgs),
    /// List live WebSocket tunnels
    Tunnels(TunnelsArgs),
    /// Tell what would become of a request: site, rule, rewrites, pool, backends
    #[command(
        after_help = "The listener's own worker is asked, or with --config a document's tables: what it says is what it would do.\n\
        Nothing is sent to a backend. A ws or wss URL is asked as an opening handshake.\n\
        Exit code: 0 the request would be answered by a backend or a redirect, 1 it would be refused."
    )]
    Explain(ExplainArgs),
    /// End tunnels by their ids
    Close(CloseArgs),
    /// Take a backend out of rotation, keeping its tunnels
    Drain(DrainArgs),
    /// Put a drained backend back into rotation
    Undrain(UndrainArgs),
    /// Replace workers one by one, without refusing or closing a connection
    Restart(RestartArgs),
    /// Put another executable in the running one's place, without closing a connection (same as SIGUSR2)
    #[command(
        after_help = "The new executable is asked first whether it can take over; where it cannot, nothing is \
        changed.\nThe supervisor then executes it under its own pid, which stays, and replaces every worker.\n\
        Where it does not become ready, the old executable runs again. No connection is closed by any of this.\n\
        Exit code: 0 every worker is the new executable's, 1 refused, rolled back, or a worker was not replaced."
    )]
    Upgrade(UpgradeArgs),
    /// Show or change what the gateway logs, in all of its processes, until its next start
    #[command(
        after_help = "A filter is error, warn, info, debug or trace, or one for each part:\n  holdfast log-level info,holdfast_worker=debug"
    )]
    LogLevel(LogLevelArgs),
    /// Drain the gateway, then end it (same as SIGTERM)
    Stop(StopArgs),
    /// Print a shell's completions: `source <(holdfast completions bash)`
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write a page for each command
    Man {
        /// Write them here
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// One listener's process; started by the supervisor
    #[command(hide = true)]
    Worker,
    /// The process that checks backends; started by the supervisor
    #[command(hide = true)]
    Prober,
    /// Prints an error page for the supervisor
    #[command(hide = true)]
    FetchPage {
        /// An absolute http or https URL; a token in it is safer in the environment than among the arguments
        #[arg(env = "HOLDFAST_PAGE_URL", hide_env_values = true)]
        url: String,
        /// Asks an OCSP responder this, in hexadecimal, instead of for a page
        #[arg(long, env = "HOLDFAST_PAGE_QUESTION", hide_env_values = true)]
        question: Option<String>,
    },
    /// Says whether this executable could take over from a running gateway; asked by the supervisor
    #[command(hide = true)]
    TakeoverCheck,
    /// One of the demo's backends; reports `listening IP:PORT`, ends with its standard input
    #[command(hide = true)]
    DemoBackend(DemoBackendArgs),
}

/// How to reach a running gateway, and in which form to print its answer.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_field_names, reason = "as the options are called")]
pub(crate) struct Admin {
    /// Where the gateway is: `unix:PATH` of its socket, or `https://HOST:PORT` [default: unix:RUNTIME/admin.sock]
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_ADMIN")]
    pub(crate) admin: Option<String>,
    #[command(flatten)]
    pub(crate) passport: Passport,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `holdfast run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The gateway document (Azure Application Gateway's JSON; comments allowed)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Where sockets and the lock live [default: /run/holdfast, or the user's own place]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Where revisions are kept [default: /var/lib/holdfast, or the user's own place]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where /metrics, /healthz, /readyz and the status page /ui are served [default: 127.0.0.1:9180]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) status_listen: Option<SocketAddr>,
    /// A file with the token that /ui asks for; without one, /ui is shown on a loopback address only
    #[arg(long, value_name = "FILE")]
    pub(crate) status_token_file: Option<PathBuf>,
}

/// `holdfast demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Port of the http listener on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) http_port: u16,
    /// Port of the https listener on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) https_port: u16,
    /// Where sockets, certificate and configuration go [default: as for `holdfast run`]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Where /metrics, /healthz, /readyz and the status page /ui are served [default: 127.0.0.1:9180]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) status_listen: Option<SocketAddr>,
}

/// `holdfast validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The gateway document, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print {"valid", "diagnostics", "effective"} as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `holdfast import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The template, gateway resource or printed gateway, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Write the document here instead of to standard output
    #[arg(long, short, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output: Option<PathBuf>,
    /// Write every gateway to NAME.json in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Of several gateways, the one of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) gateway: Option<String>,
    /// A parameter file of the template; a later one's values count before an earlier one's
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Vec<PathBuf>,
    /// A value for a parameter, or for whatever else is missing
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// The same from a file: its text, or base64 where it is no text (a PFX)
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) set_file: Vec<String>,
    /// A linked template that is not beside the template, by its deployment's name or its URL
    #[arg(long, value_name = "NAME|URL=FILE")]
    pub(crate) linked: Vec<String>,
    /// Where certificates without their keys have NAME.pem and NAME.key
    #[arg(long, value_name = "DIR")]
    pub(crate) certificates_dir: Option<PathBuf>,
    /// Address of this host for a frontend, or for all [default: every address]
    #[arg(long, value_name = "[FRONTEND=]IP")]
    pub(crate) listen: Vec<String>,
    /// Write the document even if it is not valid, with `<NAME>` where a value is missing
    #[arg(long)]
    pub(crate) allow_incomplete: bool,
    /// Print {"gateways", "findings"} as JSON: each gateway's document, or the file where it is, and its findings
    #[arg(long)]
    pub(crate) json: bool,
}

/// `holdfast apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The gateway document, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Refuse unless this revision is in force
    #[arg(long, value_name = "N")]
    pub(crate) if_revision: Option<u64>,
    /// Only show what would change, and how many live tunnels each change ends
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// An older revision instead of the one in force
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The revision to go back to (see `holdfast revisions`)
    #[arg(value_name = "N")]
    pub(crate) revision: u64,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast close`.
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    /// Ids of tunnels (see `holdfast tunnels`)
    #[arg(value_name = "TUNNEL", required = true)]
    pub(crate) tunnels: Vec<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Pool and backend address, with or without the port: `chat/10.0.0.4` or `chat/10.0.0.4:8080`
    #[arg(value_name = "POOL/BACKEND", value_parser = parse_pooled_backend)]
    pub(crate) target: PooledBackend,
    /// Wait until its last tunnel has ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: fail if some live on after this long
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub(crate) timeout: Option<u32>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast undrain`.
#[derive(Debug, Args)]
pub(crate) struct UndrainArgs {
    /// Pool and backend address, with or without the port: `chat/10.0.0.4` or `chat/10.0.0.4:8080`
    #[arg(value_name = "POOL/BACKEND", value_parser = parse_pooled_backend)]
    pub(crate) target: PooledBackend,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Only this listener's workers [default: every listener's]
    #[arg(value_name = "IP:PORT")]
    pub(crate) listener: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast upgrade`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The new executable [default: the file that the running one was started from, which may be another by now]
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast log-level`.
#[derive(Debug, Args)]
pub(crate) struct LogLevelArgs {
    /// What is logged from now on [default: only show it]
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// End after this long even with connections open [default: 30, or the configured drain where shorter]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_timeout: Option<u32>,
    /// Called by the systemd unit: a restart leaves the workers to the next supervisor, a stop drains; waits for the end
    #[arg(long, conflicts_with = "drain_timeout")]
    pub(crate) from_systemd: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast demo-backend`.
#[derive(Debug, Args)]
pub(crate) struct DemoBackendArgs {
    /// What the backend calls itself
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
}

/// A backend as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PooledBackend {
    /// The pool's name.
    pub(crate) pool: String,
    /// `address` or `address:port`.
    pub(crate) backend: String,
}

fn parse_pooled_backend(text: &str) -> Result<PooledBackend, String> {
    match text.split_once('/') {
        Some((pool, backend))
            if !pool.is_empty() && !backend.is_empty() && !backend.contains('/') =>
        {
            Ok(PooledBackend { pool: pool.to_owned(), backend: backend.to_owned() })
        }
        _ => {
            Err("expected POOL/BACKEND, for example `chat/10.0.0.4` (see `holdfast health`)"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shown_command_explains_itself() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn the_commands_of_the_supervisor_are_hidden() {
        let command = Cli::command();
        let hidden: Vec<_> = command
            .get_subcommands()
            .filter(|command| command.is_hide_set())
            .map(clap::Command::get_name)
            .collect();
        assert_eq!(hidden, ["worker", "prober", "fetch-page", "takeover-check", "demo-backend"]);
    }

    #[test]
    fn a_backend_is_named_with_its_pool() {
        let Command::Drain(args) = parse("holdfast drain chat/10.0.0.4:80").unwrap().command else {
            panic!("not a drain");
        };
        assert_eq!(
            args.target,
            PooledBackend { pool: "chat".into(), backend: "10.0.0.4:80".into() }
        );
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        for line in [
            "holdfast",
            "holdfast fly",
            "holdfast run",
            "holdfast import",
            "holdfast import x --output a --output-dir b",
            "holdfast close",
            "holdfast drain chat",
            "holdfast drain /x",
            "holdfast drain a/b/c",
            "holdfast restart localhost",
            "holdfast rollback -1",
            "holdfast demo --http-port 0",
            "holdfast config --revision x",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn asking_for_help_is_no_failure() {
        let error = parse("holdfast apply --help").unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
    }

    #[test]
    fn apply_carries_its_conditions() {
        let line = "holdfast apply - --if-revision 7 --dry-run --json --admin unix:/x/admin.sock";
        let Command::Apply(args) = parse(line).unwrap().command else { panic!("not an apply") };
        assert_eq!(args.if_revision, Some(7));
        assert!(args.dry_run && args.admin.json);
        assert_eq!(args.admin.admin.as_deref(), Some("unix:/x/admin.sock"));
    }
}
