//! Files, FIFOs and who reads them. Every log here is a process of its own, as far as its files are concerned.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::OFlags;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn told(path: &Path, share: u32) -> wire::AccessLog {
    wire::AccessLog {
        destination: wire::AccessLogDestination::File.into(),
        path: path.to_str().unwrap().to_owned(),
        sampled_per_million: share,
    }
}

fn log(path: &Path) -> AccessLog {
    let log = AccessLog::default();
    log.configure(Some(&Settings::compile(told(path, ALL)).unwrap()));
    log
}

fn line(target: &str) -> Line {
    let request = Request::new(([192, 0, 2, 7], 5000).into(), 200, "ERRORINFO_NO_ERROR");
    Line::Request(Box::new(Request { target: Some(target.into()), ..request }))
}

/// Writes lines and waits until they are where they are to be.
fn write(log: &AccessLog, targets: std::ops::Range<u32>) {
    for target in targets {
        log.write(line(&format!("/{target}")));
    }
    log.flush(PATIENCE);
}

/// The targets of whole lines.
fn targets(text: impl Read) -> Vec<String> {
    let lines = BufReader::new(text).lines();
    let target = |line: std::io::Result<String>| {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["properties"]["requestUri"].as_str().unwrap().to_owned()
    };
    lines.map(target).collect()
}

fn in_file(path: &Path) -> Vec<String> {
    targets(File::open(path).unwrap())
}

#[test]
fn lines_of_several_processes_stand_whole_in_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let logs = [log(&path), log(&path), log(&path)];
    std::thread::scope(|scope| {
        for log in &logs {
            scope.spawn(|| {
                for _ in 0..20 {
                    write(log, 0..200);
                }
            });
        }
    });
    assert_eq!(in_file(&path).len(), 3 * 20 * 200);
    assert!(logs.iter().all(|log| log.queue.counts() == [20 * 200, 0]));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let [path, moved, again] = ["log", "log.1", "log.2"].map(|name| directory.path().join(name));
    let log = log(&path);
    write(&log, 0..2);
    fs::rename(&path, &moved).unwrap();
    log.reopen();
    write(&log, 2..4);
    assert_eq!((in_file(&moved).len(), in_file(&path).len()), (2, 2));
    // And nobody need say so: it is looked at now and then.
    fs::rename(&path, &again).unwrap();
    let mut written = 4;
    while !path.exists() {
        write(&log, written..written + 1);
        written += 1;
    }
    let all = [&moved, &again, &path].map(|path| in_file(path)).concat();
    assert_eq!(all, (0..written).map(|target| format!("/{target}")).collect::<Vec<_>>());
}

#[test]
fn a_file_that_was_cut_short_goes_on_at_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = log(&path);
    write(&log, 0..100);
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(&log, 100..102);
    assert_eq!(in_file(&path), ["/100", "/101"]);
}

#[test]
fn a_directory_that_is_not_there_drops_lines_until_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later").join("log");
    let log = log(&path);
    write(&log, 0..3);
    assert_eq!(log.queue.counts(), [0, 3]);
    fs::create_dir(path.parent().unwrap()).unwrap();
    write(&log, 3..5);
    assert_eq!(log.queue.counts(), [2, 3]);
    assert_eq!(in_file(&path), ["/3", "/4"]);
}

#[test]
fn other_settings_lead_elsewhere_and_none_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    let log = log(&one);
    write(&log, 0..1);
    log.configure(Some(&Settings::compile(told(&two, ALL)).unwrap()));
    write(&log, 1..2);
    log.configure(None);
    assert!(!log.takes());
    write(&log, 2..3);
    assert_eq!((in_file(&one), in_file(&two)), (vec!["/0".into()], vec!["/1".into()]));
}

#[test]
fn what_ends_before_a_process_is_told_of_its_log_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let [early, without] = [(); 2].map(|()| AccessLog::default());
    for log in [&early, &without] {
        write(log, 0..2);
    }
    without.configure(None);
    for log in [&early, &without] {
        log.configure(Some(&Settings::compile(told(&path, ALL)).unwrap()));
        log.flush(PATIENCE);
    }
    assert_eq!(in_file(&path), ["/0", "/1"]);
}

#[test]
fn what_a_killed_process_has_left_of_a_line_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = log(&path);
    write(&log, 0..2);
    for part in ["{", "{\"timeStamp\":\"20", "{\"timeStamp\":\"2026\",\"properties\":{\"x\""] {
        let mut other = File::options().append(true).open(&path).unwrap();
        other.write_all(part.as_bytes()).unwrap();
        write(&log, 2..3);
    }
    assert_eq!(in_file(&path), ["/0", "/1", "/2", "/2", "/2"]);
}

#[test]
fn what_somebody_else_has_written_stays() {
    let directory = tempfile::tempdir().unwrap();
    for text in ["no log at all", "one\ntwo", &"x".repeat(200_000)] {
        let path = directory.path().join("log");
        fs::write(&path, text).unwrap();
        let log = log(&path);
        write(&log, 0..1);
        let whole = fs::read_to_string(&path).unwrap();
        let lines = whole.strip_prefix(text).and_then(|rest| rest.strip_prefix('\n'));
        assert_eq!(targets(lines.unwrap().as_bytes()), ["/0"]);
    }
}

#[test]
fn a_file_that_somebody_keeps_for_itself_is_written_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = log(&path);
    write(&log, 0..1);
    let kept = File::open(&path).unwrap();
    kept.lock().unwrap();
    write(&log, 1..3);
    write(&log, 3..4);
    assert_eq!(in_file(&path), ["/0", "/1", "/2", "/3"]);
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

/// Opened without waiting for a writer.
fn reader(path: &Path) -> File {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    File::options().read(true).custom_flags(flags).open(path).unwrap()
}

#[test]
fn a_fifo_without_a_reader_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    fifo(&path);
    let log = log(&path);
    write(&log, 0..50);
    assert_eq!(log.queue.counts(), [0, 50]);
    let mut reader = reader(&path);
    write(&log, 50..52);
    assert_eq!(log.queue.counts(), [2, 50]);
    let mut read = vec![0; 8192];
    let count = reader.read(&mut read).unwrap();
    assert_eq!(targets(&read[..count]), ["/50", "/51"]);
}

#[test]
fn a_reader_that_reads_nothing_costs_lines_and_nobody_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    fifo(&path);
    let mut reader = reader(&path);
    let log = log(&path);
    // More than the pipe and the queue hold.
    let all: u32 = 60_000;
    for target in 0..all {
        log.write(line(&format!("/{target}?{}", "\"".repeat(500))));
    }
    let [_, dropped] = log.queue.counts();
    assert!(dropped > 0);
    log.flush(Duration::from_millis(1));
    // It reads after all: what was kept comes, whole, and nothing twice.
    let mut read = Vec::new();
    while log.queue.counts().into_iter().sum::<u64>() < u64::from(all) {
        drop(reader.read_to_end(&mut read));
    }
    drop(reader.read_to_end(&mut read));
    let [written, _] = log.queue.counts();
    let read = targets(&read[..]);
    assert_eq!(read.len() as u64, written);
    assert!(read.is_sorted_by_key(|target| target[1..].parse::<u32>().unwrap()));
}

#[test]
fn a_share_of_requests_gets_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::default();
    assert!(!log.takes());
    let settings = Settings::compile(told(&directory.path().join("log"), 500_000)).unwrap();
    log.configure(Some(&settings));
    let taken = (0..10_000).filter(|_| log.takes()).count();
    // Sixteen standard deviations.
    assert!((4_200..5_800).contains(&taken), "{taken}");
}

#[test]
fn what_cannot_be_had_is_refused() {
    use AccessLogRefusal::{Destination, Path as NoPath, Share};
    let path = Path::new("/var/log/access.log");
    let nowhere = wire::AccessLog { destination: 77, ..told(path, ALL) };
    let unknown = wire::AccessLog { destination: 0, ..told(path, ALL) };
    for (told, refusal) in [
        (nowhere, Destination),
        (unknown, Destination),
        (told(Path::new("access.log"), ALL), NoPath),
        (told(path, 0), Share),
        (told(path, ALL + 1), Share),
    ] {
        assert_eq!(Settings::compile(told), Err(refusal));
    }
}
