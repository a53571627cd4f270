//! What the kernel tells about a gateway's processes: descriptors, and the arenas that they share.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By the layout's documentation in `worker/src/tunnel/arena/layout.rs`.
const PROCESSES: u64 = 4096;
const PROCESS: u64 = 2240;
const RECORDS: u64 = 147_456;
const RECORD: u64 = 576;

/// What the arenas of a process hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arenas {
    /// Records that are not free.
    pub(crate) records: usize,
    /// Processes in the tables.
    pub(crate) processes: usize,
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The lowest number that a process has no descriptor of: as its limit, it lets the process open nothing more.
pub(crate) fn first_free_descriptor(pid: u32) -> u32 {
    (0..1 << 20).find(|number| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists()).unwrap()
}

/// Sets how many descriptors a process may have.
pub(crate) fn limit_descriptors(pid: u32, limit: u32) {
    let limit = format!("--nofile={limit}:20000");
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(done.unwrap().success());
}

/// How many sockets a process has open.
pub(crate) fn sockets(pid: u32) -> usize {
    links(pid).filter(|(_, name)| name.starts_with("socket:")).count()
}

/// What is in the arenas that a process has open.
pub(crate) fn arenas(pid: u32) -> Arenas {
    let mut sum = Arenas { records: 0, processes: 0 };
    for (link, _) in links(pid).filter(|(_, name)| name.starts_with("/memfd:holdfast-arena")) {
        let file = File::open(link).unwrap();
        let word = |at: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).unwrap();
            u64::from_ne_bytes(bytes)
        };
        let high_water = word(16) >> 32;
        let owned = (0..high_water).filter(|index| word(RECORDS + index * RECORD) != 0);
        sum.records += owned.count();
        sum.processes += (0..64).filter(|index| word(PROCESSES + index * PROCESS) != 0).count();
    }
    sum
}

/// How many sockets a worker's tunnel threads watch. What wakes such a thread has tokens of its own, the highest two.
pub(crate) fn watched_legs(pid: u32) -> usize {
    let tokens = |(link, _): (PathBuf, String)| -> Vec<u64> {
        let number = link.file_name().unwrap().to_string_lossy();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let tokens = info.lines().filter_map(|line| line.split_once(" data:"));
        let token = |text: &str| u64::from_str_radix(text.split_whitespace().next()?, 16).ok();
        tokens.filter_map(|(_, text)| token(text)).collect()
    };
    let polls = links(pid).filter(|(_, name)| name == "anon_inode:[eventpoll]").map(tokens);
    let threads = polls.filter(|tokens| tokens.contains(&u64::MAX));
    threads.map(|tokens| tokens.iter().filter(|token| **token < u64::MAX - 1).count()).sum()
}

#[cfg(feature = "failpoints")]
/// Has every arena of a process say that it was laid out by another version.
pub(crate) fn stamp_arenas(pid: u32, version: u32) {
    for (link, _) in links(pid).filter(|(_, name)| name.starts_with("/memfd:holdfast-arena")) {
        let file = File::options().write(true).open(link).unwrap();
        file.write_all_at(&version.to_ne_bytes(), 8).unwrap();
    }
}

fn links(pid: u32) -> impl Iterator<Item = (PathBuf, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = fs::read_link(entry.path()).ok()?;
        Some((entry.path(), name.to_string_lossy().into_owned()))
    })
}
