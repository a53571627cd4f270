//! What this process takes of its host, by `/proc/self`, as the samples that every process of the gateway reports.
//!
//! What cannot be read is left out: a sandbox may hide it, and an older kernel does not count descriptors.

use std::fs;
use std::path::Path;

use crate::control::{Label, Sample, sample::Value};

/// Ticks a second of the times in `/proc/PID/stat`: fixed by the kernel's ABI (proc(5), `USER_HZ`).
const MICROS_A_TICK: u64 = 10_000;

/// The figures of this process, under what it is: `supervisor`, `prober` or `worker`.
pub fn samples(process: &str) -> Vec<Sample> {
    read(Path::new("/proc/self"), process)
}

fn read(directory: &Path, process: &str) -> Vec<Sample> {
    let text = |name| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (stat, status, limits) = (text("stat"), text("status"), text("limits"));
    // The length of that directory is their number, since Linux 6.2; listing it would take as long as there are many.
    let descriptors = fs::metadata(directory.join("fd")).map_or(0, |it| it.len());
    let in_status = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = most.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let gauges = [
        ("holdfast_process_resident_memory_bytes", in_status("VmRSS:").map(|kib| kib * 1024)),
        ("holdfast_process_threads", in_status("Threads:")),
        ("holdfast_process_open_fds", Some(descriptors).filter(|count| *count > 0)),
        ("holdfast_process_max_fds", most),
    ];
    #[allow(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
    let gauge = |(name, value): (_, Option<u64>)| Some((name, Value::Gauge(value? as f64)));
    let cpu = cpu_us(&stat).map(|us| ("holdfast_process_cpu_seconds_total", Value::Counter(us)));
    let all = cpu.into_iter().chain(gauges.into_iter().filter_map(gauge));
    let labels = vec![Label { key: "process".to_owned(), value: process.to_owned() }];
    let sample = |(name, value): (&str, _)| Sample {
        name: name.to_owned(),
        labels: labels.clone(),
        value: Some(value),
    };
    all.map(sample).collect()
}

/// Time in user and kernel mode: fields 14 and 15, the first after the name's bracket being the third.
fn cpu_us(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()??.checked_add(times.next()??)?;
    ticks.checked_mul(MICROS_A_TICK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes() {
        let samples = samples("worker");
        let value = |name: &str| {
            let sample = samples.iter().find(|sample| sample.name == name).unwrap();
            assert_eq!(sample.labels.first().unwrap().value, "worker");
            sample.value.clone().unwrap()
        };
        assert!(matches!(value("holdfast_process_cpu_seconds_total"), Value::Counter(_)));
        for name in ["resident_memory_bytes", "threads", "max_fds"] {
            let value = value(&format!("holdfast_process_{name}"));
            assert!(matches!(value, Value::Gauge(it) if it >= 1.0), "{name}: {value:?}");
        }
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 300 42 0 0 20 0 1 0 4242 1 1";
        assert_eq!(cpu_us(stat), Some(3_420_000));
        assert_eq!(cpu_us(""), None);
    }

    #[test]
    fn where_nothing_can_be_read_nothing_is_said() {
        assert!(read(Path::new("/nowhere"), "worker").is_empty());
    }
}
