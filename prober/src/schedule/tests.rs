//! Schedules against real servers. Where a test has to see that nothing happens, it counts what did happen instead.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use holdfast_proto::control::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// An hour: a second check never comes within a test.
const RARELY_MS: u64 = 3_600_000;

fn key(address: &str) -> TargetKey {
    TargetKey { pool: "pool".into(), address: address.into(), ..TargetKey::default() }
}

fn probe(port: u16, interval_ms: u64) -> Probe {
    Probe {
        scheme: Scheme::Http.into(),
        port: port.into(),
        path: "/".into(),
        interval_ms,
        timeout_ms: 20_000,
        unhealthy_threshold: 2,
        ..Probe::default()
    }
}

fn set(version: u64, targets: &[(&str, Probe, HealthState)]) -> TargetSet {
    let targets = targets
        .iter()
        .map(|(address, probe, known)| Target {
            key: Some(key(address)),
            probe: Some(probe.clone()),
            known: (*known).into(),
        })
        .collect();
    TargetSet { version, targets }
}

/// A listener that the test answers by hand.
async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn answer(listener: &TcpListener, status: u16) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 1024];
    assert!(stream.read(&mut head).await.unwrap() > 0);
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Only a broken schedule waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(board: &Board) -> Verdict {
    let posted = async {
        loop {
            if let Some(verdict) = board.take_unsent() {
                return verdict;
            }
            board.posted().await;
        }
    };
    tokio::time::timeout(PATIENCE, posted).await.expect("a verdict")
}

fn schedule() -> (Arc<Board>, Schedule) {
    let board = Arc::new(Board::default());
    (board.clone(), Schedule::new(board, Tls::without_system_roots()))
}

#[tokio::test]
async fn the_first_check_comes_at_once_and_makes_a_verdict() {
    let (listener, port) = listen().await;
    let (board, mut schedule) = schedule();
    schedule.apply(set(1, &[("127.0.0.1", probe(port, RARELY_MS), HealthState::Unknown)]));
    answer(&listener, 200).await;
    let verdict = next(&board).await;
    assert_eq!(verdict.key, Some(key("127.0.0.1")));
    assert_eq!((verdict.state(), verdict.last.as_str()), (HealthState::Healthy, "status 200"));
    assert!(verdict.since_unix_ms > 0);
}

#[tokio::test]
async fn a_known_healthy_target_needs_the_full_threshold_to_go_down() {
    let (listener, port) = listen().await;
    let (board, mut schedule) = schedule();
    schedule.apply(set(1, &[("127.0.0.1", probe(port, 20), HealthState::Healthy)]));
    answer(&listener, 500).await;
    assert_eq!(next(&board).await.state(), HealthState::Healthy);
    answer(&listener, 500).await;
    assert_eq!(next(&board).await.state(), HealthState::Unhealthy);
    answer(&listener, 200).await;
    assert_eq!(next(&board).await.state(), HealthState::Healthy);
}

#[tokio::test]
async fn a_target_that_stays_keeps_its_count() {
    let (listener, port) = listen().await;
    let (board, mut schedule) = schedule();
    let stays = ("127.0.0.1", probe(port, 20), HealthState::Healthy);
    schedule.apply(set(1, std::slice::from_ref(&stays)));
    answer(&listener, 500).await;
    assert_eq!(next(&board).await.state(), HealthState::Healthy, "one failure of two");
    let joins = ("127.0.0.2", probe(0, RARELY_MS), HealthState::Unknown);
    schedule.apply(set(2, &[stays, joins]));
    assert_eq!(next(&board).await.key, Some(key("127.0.0.2")));
    answer(&listener, 500).await;
    assert_eq!(next(&board).await.state(), HealthState::Unhealthy, "two failures of two");
}

#[tokio::test]
async fn a_changed_probe_checks_at_once_and_keeps_the_state() {
    let (listener, port) = listen().await;
    let (other, other_port) = listen().await;
    let (board, mut schedule) = schedule();
    schedule.apply(set(1, &[("127.0.0.1", probe(port, RARELY_MS), HealthState::Unknown)]));
    answer(&listener, 200).await;
    assert_eq!(next(&board).await.state(), HealthState::Healthy);
    // What the supervisor knew at birth does not matter any more.
    let changed = ("127.0.0.1", probe(other_port, RARELY_MS), HealthState::Unknown);
    schedule.apply(set(2, &[changed]));
    answer(&other, 500).await;
    let verdict = next(&board).await;
    assert_eq!(verdict.state(), HealthState::Healthy, "one failure of two");
    assert!(verdict.last.contains("500"), "{}", verdict.last);
}

#[tokio::test]
async fn a_changed_probe_does_not_wait_for_the_check_under_the_old_one() {
    let (silent, port) = listen().await;
    let (listener, other_port) = listen().await;
    let (board, mut schedule) = schedule();
    schedule.apply(set(1, &[("127.0.0.1", probe(port, RARELY_MS), HealthState::Unknown)]));
    let (mut stuck, _) = silent.accept().await.unwrap();
    schedule.apply(set(2, &[("127.0.0.1", probe(other_port, RARELY_MS), HealthState::Unknown)]));
    answer(&listener, 200).await;
    assert_eq!(next(&board).await.state(), HealthState::Healthy);
    let mut rest = Vec::new();
    stuck.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_target_that_leaves_is_not_checked_any_more() {
    let (silent, port) = listen().await;
    let (board, mut schedule) = schedule();
    schedule.apply(set(1, &[("127.0.0.1", probe(port, RARELY_MS), HealthState::Unknown)]));
    let (mut stuck, _) = silent.accept().await.unwrap();
    schedule.apply(set(2, &[]));
    let mut rest = Vec::new();
    stuck.read_to_end(&mut rest).await.unwrap();
    assert!(!board.has_unsent());
}

#[tokio::test]
async fn a_probe_that_cannot_run_makes_its_target_unhealthy_with_words() {
    let (board, mut schedule) = schedule();
    schedule.apply(set(1, &[("127.0.0.1", probe(0, RARELY_MS), HealthState::Unknown)]));
    let verdict = next(&board).await;
    assert_eq!(verdict.state(), HealthState::Unhealthy);
    assert_eq!(verdict.last, "the probe cannot be run: 0 is not a TCP port");
}

#[test]
fn intervals_vary_by_a_tenth() {
    let interval = Duration::from_secs(30);
    for (draw, seconds) in [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)] {
        assert!((jittered(interval, draw).as_secs_f64() - seconds).abs() < 1e-6);
    }
}
