//! What a keeper waits for: a worker's first service, its end, a predecessor's tunnels. Nothing here starts or replaces a
//! worker; what came is told as an [`Event`].

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::control::WorkerState;
use holdfast_proto::process::{self, ProcessId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use crate::children::Incarnation;
use crate::health_board::HealthBoard;
use crate::reap;
use crate::worker::{Intent, View, Worker};

/// Longest time that a new worker may take from its start until it serves.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a predecessor may take to say that it drains before it counts as stopped and is killed: its successor then
/// takes its tunnels as after a crash. It says so within milliseconds; a machine that swaps may take seconds.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a restart waits for the predecessor's tunnels to move. Thousands take well under a second.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a predecessor's tunnels are its successor's, or it is gone. Answers how many are pinned, and stay.
pub(super) async fn see_off(predecessor: &Worker) -> u64 {
    let pid = predecessor.incarnation.pid();
    let mut view = predecessor.watch_view();
    let drains = |view: &View| view.gone || view.state == WorkerState::Draining;
    if tokio::time::timeout(DRAIN_PATIENCE, view.wait_for(drains)).await.is_err() {
        tracing::error!(
            pid,
            "a predecessor does not answer; its successor takes its tunnels by force"
        );
        kill(&predecessor.incarnation);
    }
    let over = |view: &View| view.gone || view.handed_over;
    let begun = Instant::now();
    while tokio::time::timeout(DRAIN_PATIENCE, view.wait_for(over)).await.is_err() {
        if view.borrow().connected && !predecessor.answers().await && !view.borrow().gone {
            tracing::error!(
                pid,
                "a predecessor has stopped in its handover; its successor takes the rest by force"
            );
            kill(&predecessor.incarnation);
        } else if begun.elapsed() > HANDOVER_PATIENCE {
            let tunnels = view.borrow().tunnels;
            tracing::warn!(
                pid,
                tunnels,
                "a predecessor's tunnels have not moved in {HANDOVER_PATIENCE:?}"
            );
            break;
        }
    }
    let left = view.borrow();
    if left.gone || left.pinned == 0 {
        return 0;
    }
    tracing::info!(pid, tunnels = left.pinned, "pinned tunnels stay with a predecessor, and drain");
    left.pinned
}

pub(super) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Sees a worker from its snapshot's acknowledgement to its serving.
pub(super) async fn usher(
    worker: Arc<Worker>,
    health: Arc<HealthBoard>,
    events: mpsc::Sender<Event>,
) {
    let number = worker.incarnation.number;
    let mut view = worker.watch_view();
    let ready = async {
        let answered = |view: &View| {
            let heard = view.connected || view.foreign.is_some();
            let drains = heard && view.state == WorkerState::Draining;
            view.gone || drains || view.revision > 0 || view.refusal.is_some()
        };
        let first = view.wait_for(answered).await.map(|view| view.clone()).unwrap_or_default();
        if let (0, Some((revision, reason))) = (first.revision, &first.refusal) {
            return Err(format!("it refused revision {revision}: {reason}"));
        }
        if first.state == WorkerState::Draining {
            return Ok(Event::Drains(number));
        }
        health.published().await;
        worker.want(Intent::Serve);
        let begun = |view: &View| view.gone || view.state != WorkerState::Starting;
        let state = view.wait_for(begun).await.map(|view| view.state).unwrap_or_default();
        let drains = state == WorkerState::Draining;
        Ok(if drains { Event::Drains(number) } else { Event::Serving(number) })
    };
    let event = match tokio::time::timeout(READY_PATIENCE, ready).await {
        Ok(Ok(event)) => event,
        Ok(Err(reason)) => Event::NotReady(number, reason),
        Err(_) => Event::NotReady(number, format!("not ready after {READY_PATIENCE:?}")),
    };
    // A keeper that is gone has no use for it.
    drop(events.send(event).await);
}

/// Tells whenever a worker is not sent what is in force.
pub(super) async fn outgrown(worker: Arc<Worker>, events: mpsc::Sender<Event>) {
    let mut view = worker.watch_view();
    loop {
        let is_over = |view: &View| view.gone || view.outgrown.is_some();
        // Ends with the worker: its sender lives in what we hold.
        let gone = view.wait_for(is_over).await.map_or(true, |view| view.gone);
        if gone || events.send(Event::Outgrown).await.is_err() {
            return;
        }
        if view.wait_for(|view| view.gone || view.outgrown.is_none()).await.is_err() {
            return;
        }
    }
}

/// Waits for a worker's end: a child's, or an adopted one's.
pub(super) async fn wait(worker: Arc<Worker>, events: mpsc::Sender<Event>) {
    let status = match worker.incarnation.process() {
        Some(id) => {
            // Cut anywhere, neither has done anything.
            let status = tokio::select! {
                status = reap::ended(id) => status,
                status = taken_apart(&worker, id) => Some(status),
            };
            reap::bury(id);
            status
        }
        None => None,
    };
    drop(events.send(Event::Gone(worker.incarnation.number, status)).await);
}

/// The kernel closes a dead worker's descriptors before anybody can wait for it, and its stream is among the first:
/// from then on it does nothing any more, and its tunnels stand still until its successor is there.
async fn taken_apart(worker: &Worker, id: ProcessId) -> ExitStatus {
    let mut view = worker.watch_view();
    loop {
        for connected in [true, false] {
            if view.wait_for(|view| view.connected == connected).await.is_err() {
                return std::future::pending().await;
            }
        }
        if let Some(status) = process::ending(id) {
            return ExitStatus::from_raw(status);
        }
    }
}

pub(super) fn kill(incarnation: &Incarnation) {
    if let Some(id) = incarnation.process() {
        crate::children::signal(id, rustix::process::Signal::KILL);
    }
}
