//! What a run comes to: words for people, one line of JSON for programs, and whether it passed.
//!
//! A run passes only if nothing at all was lost, nothing was left behind, and every demanded minimum was reached.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::diary::{Found, Log};
use super::document::Listener;
use super::options::{Kind, Options};
use super::plan::Legs;
use super::stalls::Stalls;
use super::tally::{Loss, Sum};

/// So many losses are told one by one.
const TOLD: usize = 20;

/// Everything that a run has to say.
pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) listeners: &'a [Listener],
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) sum: Sum,
    pub(crate) log: &'a Log,
    pub(crate) stalls: Stalls,
    /// `holdfast_tunnels_lost_total`, where the gateway has it.
    pub(crate) lost_total: Option<f64>,
    pub(crate) left_behind: Vec<String>,
}

/// Median, 99th percentile and the longest, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(milliseconds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = milliseconds.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| sorted[(last as f64 * share).ceil() as usize];
        Some(Self { count: sorted.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) })
    }

    fn of_durations(durations: &[Duration]) -> Option<Self> {
        Self::of(durations.iter().map(|duration| duration.as_secs_f64() * 1000.0))
    }

    fn text(spread: Option<Self>) -> String {
        spread.map_or("-".to_owned(), |one| format!("{:.0}/{:.0}/{:.0}", one.p50, one.p99, one.max))
    }

    fn json(spread: Option<Self>) -> Value {
        let tenth = |value: f64| (value * 10.0).round() / 10.0;
        spread.map_or(Value::Null, |one| {
            json!({"count": one.count, "p50": tenth(one.p50), "p99": tenth(one.p99), "max": tenth(one.max)})
        })
    }
}

impl Report<'_> {
    /// Why the run did not pass; nothing where it did.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let sum = &self.sum;
        for (damage, count) in sum.by_damage(None) {
            reasons.push(format!("{count} tunnels {damage}"));
        }
        reasons.extend(sum.refused.iter().map(|(reason, count)| {
            format!("{count} opening handshakes failed without a kill: {reason}")
        }));
        if sum.opened == 0 {
            reasons.push("no tunnel was ever open".to_owned());
        }
        reasons.extend(self.log.faults.iter().cloned());
        if self.lost_total.is_some_and(|lost| lost > 0.0) {
            reasons.push("holdfast_tunnels_lost_total is not 0".to_owned());
        }
        reasons.extend(self.left_behind.iter().map(|process| format!("left behind: {process}")));
        for kind in Kind::ALL {
            let (made, least) = (self.log.count(kind), self.options.least(kind));
            if made < least {
                reasons.push(format!("{made} {} instead of {least} at least", kind.word()));
            }
        }
        let least = &self.options.least;
        for (share, minimum, what) in [
            (
                self.share(|found| found.directions > 0),
                least.min_in_flight_share,
                "bytes in flight",
            ),
            (
                self.share(|found| found.half_closed > 0),
                least.min_half_closed_share,
                "a half-closed tunnel",
            ),
        ] {
            if share.unwrap_or(0.0) < minimum {
                let share = share.unwrap_or(0.0);
                reasons.push(format!("{share:.1} % of kills found {what} instead of {minimum} %"));
            }
        }
        reasons
    }

    /// Percent of worker kills that found something.
    fn share(&self, which: impl Fn(&Found) -> bool) -> Option<f64> {
        let found = &self.log.found;
        let count = found.iter().filter(|found| which(found)).count();
        (!found.is_empty()).then(|| 100.0 * count as f64 / found.len() as f64)
    }

    /// The event that a loss came after, and by how much.
    fn after(&self, time: Option<Instant>) -> String {
        let Some(time) = time else { return String::new() };
        let before = self.log.begun.iter().enumerate();
        let mut before = before.filter(|(_, (begun, kind, _))| *begun <= time && !kind.beside());
        before.next_back().map_or("before any event".to_owned(), |(number, (begun, kind, what))| {
            let seconds = (time - *begun).as_secs_f64();
            format!("{seconds:.3} s after event {number}, {} {what}", kind.word())
        })
    }

    fn told(&self, loss: &Loss) -> String {
        let Loss { id, legs, role, fault, time, missing } = loss;
        let legs = legs.word();
        let after = self.after(*time);
        format!(
            "tunnel {id} ({legs}), seen by the {role:?}: {fault}; {missing} bytes missing in all; {after}"
        )
    }

    pub(crate) fn print(&self) {
        println!("\n== {:.1} s, seed {}", self.seconds, self.seed);
        self.print_tunnels();
        self.print_events();
        self.print_kills();
        let lost = self.lost_total.map_or("not told".to_owned(), |lost| lost.to_string());
        println!(
            "holdfast_tunnels_lost_total {lost}; {} processes left behind; {} commands interrupted",
            self.left_behind.len(),
            self.log.interrupted
        );
        let losses = &self.sum.losses;
        for loss in losses.iter().take(TOLD) {
            println!("LOSS {}", self.told(loss));
        }
        if losses.len() > TOLD {
            println!("LOSS … and {} more", losses.len() - TOLD);
        }
        let reasons = self.reasons();
        for reason in &reasons {
            println!("FAILED {reason}");
        }
        println!("{}", if reasons.is_empty() { "PASSED" } else { "NOT PASSED" });
    }

    fn print_tunnels(&self) {
        let sum = &self.sum;
        let [client, backend] = sum.counts;
        println!(
            "tunnels     {} opened, {} ended cleanly at both ends, {} lost",
            sum.opened,
            sum.clean,
            sum.losses.len()
        );
        for (legs, kind) in &sum.kinds {
            let old = format!(", {} with a client of TLS 1.2", kind.old);
            let old = if legs.seal_client() { &*old } else { "" };
            println!("  {:14}{} opened, {} clean{old}", legs.word(), kind.opened, kind.clean);
        }
        println!(
            "handshakes  {} ms (p50/p99/max); {} died with a killed worker",
            Spread::text(Spread::of_durations(&sum.handshakes)),
            sum.killed_handshakes
        );
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for (whose, sent, received, messages) in [
            ("backends", client.sent, backend.received, backend.messages_received),
            ("clients", backend.sent, client.received, client.messages_received),
        ] {
            println!(
                "checked     by {whose} {:.1} of {:.1} MiB, {messages} messages",
                mib(received),
                mib(sent)
            );
        }
        if sum.kinds.keys().any(|legs| legs.seal_client()) {
            let [by_clients, by_backends] = [client.key_updates, backend.key_updates];
            println!(
                "keys        changed {by_clients} times by clients, {by_backends} by backends"
            );
        }
    }

    fn print_events(&self) {
        let row = |cells: [&str; 5]| {
            let [kind, count, recovered, command, stall] = cells;
            println!("{kind:18}{count:>6}  {recovered:>18}  {command:>18}  {stall:>18}");
        };
        println!();
        row(["p50/p99/max in ms", "count", "recovered", "command", "stall"]);
        for kind in Kind::ALL {
            let spread = |durations: Option<&Vec<Duration>>| {
                Spread::text(durations.and_then(|durations| Spread::of_durations(durations)))
            };
            row([
                kind.word(),
                &self.log.count(kind).to_string(),
                &spread(self.log.recovered.get(&kind)),
                &spread(self.log.commands.get(&kind)),
                &Spread::text(self.stall(Some(kind.word()))),
            ]);
        }
        row(["quiet", "", "", "", &Spread::text(self.stall(None))]);
    }

    fn print_kills(&self) {
        let Some(share) = self.share(|found| found.directions > 0) else { return };
        let waits = Spread::text(Spread::of_durations(&self.log.waits));
        println!("waits before kills of workers until every tunnel was protected: {waits} ms");
        let median = |of: fn(&Found) -> u64| {
            let found = self.log.found.iter().map(|found| of(found) as f64);
            Spread::of(found).map_or(0.0, |one| one.p50)
        };
        println!(
            "kills of workers: {share:.1} % found bytes in flight (median {} directions, {:.0} KiB), \
             {:.1} % a half-closed tunnel (median {})",
            median(|found| found.directions),
            median(|found| found.bytes) / 1024.0,
            self.share(|found| found.half_closed > 0).unwrap_or(0.0),
            median(|found| found.half_closed)
        );
        for (place, listener) in self.listeners.iter().enumerate() {
            let protocol = listener.protocol().to_lowercase();
            let found = self.log.kills.iter().zip(&self.log.found);
            let found: Vec<_> = found.filter(|((_, one), _)| *one == place).collect();
            let with_bytes = found.iter().filter(|(_, found)| found.directions > 0).count();
            let port = listener.address.port();
            println!(
                "  {protocol} port {port}: {} kills, {with_bytes} under bytes in flight",
                found.len()
            );
        }
    }

    fn kills_of(&self, listener: usize) -> usize {
        self.log.kills.iter().filter(|(_, one)| *one == listener).count()
    }

    /// Those that the quiet has as well tell about the machine, not about the gateway.
    fn stall(&self, kind: Option<&'static str>) -> Option<Spread> {
        let stalls = self.stalls.get(&kind)?;
        Spread::of(stalls.iter().map(|stall| f64::from(*stall) / 1000.0))
    }

    pub(crate) fn json(&self) -> Value {
        let sum = &self.sum;
        let [client, backend] = sum.counts;
        let mut events = Map::new();
        for kind in Kind::ALL {
            let spread = |durations: Option<&Vec<Duration>>| {
                Spread::json(durations.and_then(|durations| Spread::of_durations(durations)))
            };
            let one = json!({
                "count": self.log.count(kind),
                "recovered_ms": spread(self.log.recovered.get(&kind)),
                "command_ms": spread(self.log.commands.get(&kind)),
                "stall_ms": Spread::json(self.stall(Some(kind.word()))),
            });
            events.insert(kind.word().to_owned(), one);
        }
        let kinds = sum.kinds.keys().map(|legs| (legs.word().to_owned(), self.json_of(*legs)));
        let kinds: Map<_, _> = kinds.collect();
        let kills = self.listeners.iter().enumerate().map(|(place, listener)| {
            json!({"protocol": listener.protocol(), "worker_kills": self.kills_of(place)})
        });
        let kills: Vec<_> = kills.collect();
        let missing: u64 = sum.losses.iter().map(|loss| loss.missing).sum();
        let first = sum.losses.first().map(|loss| self.told(loss));
        let reasons = self.reasons();
        let mut tunnels = damages(&sum.by_damage(None));
        tunnels["at_a_time"] = self.options.tunnels.into();
        tunnels["opened"] = sum.opened.into();
        tunnels["clean"] = sum.clean.into();
        tunnels["bytes_missing"] = missing.into();
        tunnels["first_loss"] = first.into();
        json!({
            "passed": reasons.is_empty(),
            "reasons": reasons,
            "seed": self.seed,
            "seconds": (self.seconds * 10.0).round() / 10.0,
            "tunnels": tunnels,
            "kinds": kinds,
            "listeners": kills,
            "handshakes": {
                "ms": Spread::json(Spread::of_durations(&sum.handshakes)),
                "failed": sum.refused,
                "died_with_a_worker": sum.killed_handshakes,
            },
            "bytes": {
                "sent_by_clients": client.sent,
                "received_by_backends": backend.received,
                "sent_by_backends": backend.sent,
                "received_by_clients": client.received,
            },
            "events": events,
            "quiet_stall_ms": Spread::json(self.stall(None)),
            "protected_wait_ms": Spread::json(Spread::of_durations(&self.log.waits)),
            "kills_in_flight_percent": self.share(|found| found.directions > 0),
            "kills_half_closed_percent": self.share(|found| found.half_closed > 0),
            "commands_interrupted": self.log.interrupted,
            "tunnels_lost_total": self.lost_total,
            "left_behind": self.left_behind,
        })
    }

    fn json_of(&self, legs: Legs) -> Value {
        let kind = self.sum.kinds.get(&legs).copied().unwrap_or_default();
        let mut json = damages(&self.sum.by_damage(Some(legs)));
        json["opened"] = kind.opened.into();
        json["clean"] = kind.clean.into();
        json["tls_1_2"] = kind.old.into();
        json
    }
}

/// Counts of losses by what programs ask for.
fn damages(counts: &BTreeMap<&'static str, u64>) -> Value {
    let count = |word: &str| counts.get(word).copied().unwrap_or(0);
    json!({
        "dropped": count("ended_early") + count("reset"),
        "lost": counts.values().sum::<u64>(),
        "stuck": count("stuck"),
        "with_bytes_lost": count("lost"),
        "with_bytes_doubled": count("doubled"),
        "with_bytes_reordered": count("reordered"),
        "with_bytes_corrupted": count("corrupted") + count("went_on"),
    })
}
