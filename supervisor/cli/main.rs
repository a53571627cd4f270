//! The one executable, whatever it runs as: picks the command, prints what went wrong, sets the exit code.
//!
//! Only this package sees the supervisor, the worker and the prober together; no logic of theirs belongs here.

mod admin;
mod args;
mod demo;
mod dial;
mod drain;
mod explain;
mod failure;
mod fetch;
mod hello;
mod import;
mod left;
mod logging;
mod manual;
mod output;
mod progress;
mod run;
mod tunnels;
mod unit;
mod upgrade;
mod validate;
mod watch;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use nix::sys::signal::SigSet;

use crate::args::{Cli, Command};

/// Gives memory back after a burst of handshakes; the system's keeps it (docs/adr/0007).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How a command ended that did not fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Done,
    /// Exit code 1; the reason has been printed.
    Refused,
}

fn main() -> ExitCode {
    // Before there is a second thread: where this executable takes over from another one, whatever goes wrong from here on
    // leads back to that.
    holdfast_supervisor::upgrade::arrive();
    holdfast_supervisor::service::arrive();
    holdfast_supervisor::service::withhold();
    hear_signals();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return failure::usage(&error),
    };
    let as_json = command.wants_json();
    match execute(command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::FAILURE,
        // `holdfast tunnels | head` is nobody's mistake.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failure::end(&error, as_json),
    }
}

fn execute(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(args) => run::gateway(args).map(|()| Outcome::Done),
        Command::Demo(args) => demo::run(&args).map(|()| Outcome::Done),
        Command::Validate(args) => validate::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Schema => {
            output::print_json(&holdfast_supervisor::config::schema())?;
            Ok(Outcome::Done)
        }
        Command::Worker => run::worker().map(|()| Outcome::Done),
        Command::Prober => run::prober().map(|()| Outcome::Done),
        Command::Completions { shell } => manual::completions(shell).map(|()| Outcome::Done),
        Command::Man { directory } => manual::man(directory.as_deref()).map(|()| Outcome::Done),
        Command::FetchPage { url, question } => {
            fetch::run(&url, question.as_deref()).map(|()| Outcome::Done)
        }
        Command::TakeoverCheck => upgrade::check().map(|()| Outcome::Done),
        Command::DemoBackend(args) => {
            demo::backend::run(&args.name, args.listen).map(|()| Outcome::Done)
        }
        call => admin::call(call),
    }
}

/// A mask of blocked signals is inherited, from whoever has started us and by whomever we start: without this, all of our
/// processes might be deaf to SIGTERM. Before there is a second thread.
fn hear_signals() {
    // The one error is an unknown way of unblocking.
    SigSet::all().thread_unblock().unwrap_or_default();
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
