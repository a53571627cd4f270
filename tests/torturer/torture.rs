//! The torture command (`tests/torture` builds and runs it): whether tunnels outlive what is done to a gateway.
//!
//! It sees the gateway from outside only: commands, sockets, signals. What it says about tunnels it has counted itself,
//! at clients and backends of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::exit,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measuring tool: what goes wrong ends the run, and its numbers are small"
)]

use std::process::ExitCode;

use clap::Parser;

mod backend;
mod board;
mod checker;
mod client;
mod diary;
mod document;
mod endpoint;
mod events;
mod faults;
mod gateway;
mod hub;
mod options;
mod plan;
mod poller;
mod report;
mod session;
mod stalls;
mod stream;
mod tally;
mod tls;
mod wire;

#[cfg(test)]
mod relay;
#[cfg(test)]
mod tests;

use options::{Cli, Part};

fn main() -> ExitCode {
    let Cli { part, options } = Cli::parse();
    wire::hush();
    let outcome = match part {
        Some(Part::Backend { listen, listen_tls, certificate, key, board }) => {
            let certificate = certificate.zip(key);
            let certificate =
                certificate.map(|(chain_file, key_file)| tls::Certificate { chain_file, key_file });
            backend::run(listen, listen_tls.zip(certificate), &board).map(|()| true)
        }
        None if options.faults => faults::run(),
        None => session::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAILED {error}");
            ExitCode::FAILURE
        }
    }
}
