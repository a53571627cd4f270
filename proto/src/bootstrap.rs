//! How a child learns who it is: one line of JSON on its standard input, written by the supervisor that spawned it.
//!
//! Not the command line and not the environment, since the token is a secret and other programs can read those.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::Hello;
use crate::process::ProcessId;

/// A child's longest bootstrap line, bytes; paths are short, so a longer one is no bootstrap.
const LONGEST_LINE: u64 = 64 * 1024;

/// What the supervisor tells a child at its birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The runtime directory, where `control.sock` and `fd.sock` are.
    pub runtime_dir: PathBuf,
    /// Proves to the supervisor that this is the child that it spawned.
    pub token: String,
    /// The listener's address (`IP:PORT`); empty for the prober.
    pub listener: String,
    /// The worker's generation; 0 for the prober.
    pub generation: u64,
    /// Relay and accept threads of a worker; at least 1.
    pub threads: u32,
    /// How earlier generations of the listener ended, as far as the supervisor knows; empty for the prober.
    #[serde(default)]
    pub deaths: Vec<Death>,
}

/// How a worker's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which.
    pub generation: u64,
    /// It died of itself: neither told to end nor killed.
    pub by_itself: bool,
    /// When the supervisor noticed, on the kernel's monotonic clock, in microseconds.
    pub at_us: u64,
}

/// Why a child could not learn who it is.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Standard input could not be read.
    #[error("cannot read the bootstrap line on standard input")]
    Read(#[source] std::io::Error),
    /// The line is not a bootstrap.
    #[error("standard input holds no bootstrap line: this command is for the supervisor's own use")]
    Decode(#[source] serde_json::Error),
}

impl Bootstrap {
    /// Reads the line that the supervisor wrote.
    pub fn read(input: impl Read) -> Result<Self, BootstrapError> {
        let mut line = String::new();
        BufReader::new(input.take(LONGEST_LINE))
            .read_line(&mut line)
            .map_err(BootstrapError::Read)?;
        serde_json::from_str(&line).map_err(BootstrapError::Decode)
    }

    /// The line for a child's standard input.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Where the supervisor serves gRPC to its children.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// Where the supervisor passes descriptors.
    pub fn fd_socket(&self) -> PathBuf {
        self.runtime_dir.join("fd.sock")
    }

    /// The first message on either socket.
    pub fn hello(&self, me: ProcessId) -> Hello {
        Hello {
            protocol: crate::protocol(),
            version: crate::VERSION.to_owned(),
            pid: me.pid,
            start_time: me.start_time,
            token: self.token.clone(),
            listener: self.listener.clone(),
            generation: self.generation,
            level: crate::level::level(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample() -> Bootstrap {
        Bootstrap {
            runtime_dir: "/run/holdfast".into(),
            token: "abc".into(),
            listener: "127.0.0.1:80".into(),
            generation: 3,
            threads: 1,
            deaths: vec![Death { generation: 6, by_itself: true, at_us: 7 }],
        }
    }

    #[test]
    fn a_line_reads_back() {
        assert_eq!(Bootstrap::read(sample().to_line().as_bytes()).unwrap(), sample());
    }

    #[test]
    fn an_empty_input_is_refused() {
        assert!(matches!(Bootstrap::read(&b""[..]), Err(BootstrapError::Decode(_))));
    }
}
