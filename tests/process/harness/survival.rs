//! What must hold of a gateway whose workers come and go: where its tunnels are, and that nothing is left behind.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::document::Document;
use super::eventually::{Patience, eventually};
use super::gateway::Gateway;
use super::kernel::{Arenas, arenas};
use super::proc::{alive, kill9};
use super::wire::Wires;

/// How long what has ended may take to be gone everywhere.
const LEFT: Duration = Duration::from_secs(20);

impl Document {
    /// [`Document::simple`] in front of `wires`; with TLS where they have it.
    pub(crate) fn wired(port: u16, wires: &Wires) -> Self {
        let document = Self::new().pool("chat", &[wires.address]);
        let document = match &wires.certificate {
            Some(certificate) => document.tls_site("web", port, certificate, "chat"),
            None => document.site("web", port, "chat"),
        };
        // Where packets are lost, quick checks and a quick dial may well fail, and who comes then is rightly refused.
        let document = document.set("probes", "chat", "timeout", 30);
        let document = document.set("probes", "chat", "unhealthyThreshold", 20);
        let document = document.holdfast("connectTimeoutInSec", 120);
        if wires.is_sealed() { document.with_https_backends("chat") } else { document }
    }
}

impl Gateway {
    /// Kills the only serving worker, and waits until another one serves.
    pub(crate) fn replace_by_force(&self) -> u32 {
        let old = self.worker_pid();
        kill9(old);
        eventually(Patience::USUAL, "another worker to serve", || {
            self.worker_pids().into_iter().find(|pid| *pid != old)
        })
    }

    /// Restarts the worker; all its tunnels move, and then it leaves.
    pub(crate) fn replace_in_order(&self) -> u32 {
        let old = self.worker_pid();
        self.must(&["restart"]);
        eventually(Patience::USUAL, "the predecessor to leave", || (!alive(old)).then_some(()));
        self.worker_pid()
    }

    /// Waits until exactly so many tunnels live, each with one record, and no process is known that is gone.
    pub(crate) fn holds_exactly(&self, tunnels: usize) {
        let goal = (tunnels, Arenas { records: tunnels, processes: 1 });
        let begin = Instant::now();
        loop {
            let now = (self.tunnels().len(), arenas(self.supervisor_pid()));
            if now == goal {
                return;
            }
            assert!(begin.elapsed() < LEFT, "{goal:?} expected, there is {now:?}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// No tunnel was lost, as far as the gateway knows.
    pub(crate) fn has_lost_none(&self) {
        assert_eq!(self.count("holdfast_tunnels_lost_total"), 0);
    }

    /// Waits until so many tunnels are open and each would outlive its worker.
    pub(crate) fn protects(&self, tunnels: u64) {
        eventually(Patience::USUAL, "everything to be protected", || {
            let status = self.status();
            let workers = status["listeners"].as_array().unwrap().iter();
            let workers = workers.flat_map(|listener| listener["workers"].as_array().unwrap());
            let sum = workers.fold((0, 0), |(open, held), worker| {
                let of = |key: &str| worker[key].as_u64().unwrap();
                (open + of("tunnels"), held + of("protected"))
            });
            (sum == (tunnels, tunnels)).then_some(())
        });
    }

    /// Waits for a log line that has all these words in it, and answers it.
    pub(crate) fn says(&self, words: &[&str]) -> String {
        eventually(Patience::USUAL, &format!("a log line with {words:?}"), || {
            let log = self.log();
            let mut lines = log.lines();
            lines.find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// How many log lines have a word in them.
    pub(crate) fn has_said(&self, word: &str) -> usize {
        self.log().lines().filter(|line| line.contains(word)).count()
    }

    /// [`Gateway::metric`] of something that is counted.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a test")]
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.metric(name) as u64
    }

    /// A row of `tunnels --json` by its client's port.
    pub(crate) fn tunnel_of(&self, client_port: u16) -> Option<Value> {
        let end = format!(":{client_port}");
        self.tunnels().into_iter().find(|row| row["client"].as_str().unwrap().ends_with(&end))
    }

    /// The lines that tell of ended tunnels.
    pub(crate) fn ends_told(&self) -> Vec<String> {
        let log = self.log();
        log.lines().filter(|line| line.contains("tunnel ended")).map(str::to_owned).collect()
    }
    /// What those lines say of bytes to backends and to clients, added up.
    pub(crate) fn bytes_told(&self) -> [u64; 2] {
        let ends = self.ends_told();
        ["bytes_in=", "bytes_out="].map(|name| {
            let number = |line: &String| {
                let (_, rest) = line.split_once(name).unwrap();
                rest.split(' ').next().unwrap().parse::<u64>().unwrap()
            };
            ends.iter().map(number).sum()
        })
    }
}
