//! A worker that speaks another protocol: it outlived a supervisor of another version.
//!
//! Of every protocol, now and later, this much stands: a Hello, the listening socket in an Attach, `Drain`, and the
//! count of tunnels in a report. So such a worker is asked to drain and nothing else. It serves what it has with the
//! snapshot that it had, for as long as that lives; never is it ended for its age, and never is it shown anything that it
//! might misunderstand.

use std::sync::Arc;

use holdfast_proto::control::{Drain, WorkerDirective, WorkerEvent, WorkerState};
use holdfast_proto::control::{worker_directive, worker_event};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::children::Stranger;
use crate::worker::{Intent, Worker};

type Directives = mpsc::Sender<Result<WorkerDirective, Status>>;

/// Has it drain, and hears how many tunnels it has, until it hangs up.
pub(super) async fn see_out(
    worker: Arc<Worker>,
    stranger: Stranger,
    directives: Directives,
    events: Streaming<WorkerEvent>,
) {
    let pid = worker.incarnation.pid();
    let why = format!("it {stranger}");
    tracing::warn!(
        pid,
        why,
        "a worker of another version drains: its tunnels live on with what it \
        was told last, and are not protected"
    );
    worker.note(|view| {
        view.state = WorkerState::Draining;
        view.foreign = Some(why.clone());
    });
    // Whichever side ends first ends the session.
    tokio::select! {
        () = ask_to_drain(&worker, &why, &directives) => {}
        () = listen(&worker, events) => {}
    }
}

/// For as long as somebody listens.
async fn ask_to_drain(worker: &Worker, why: &str, directives: &Directives) {
    let mut intent = worker.intent();
    loop {
        let wanted = intent.borrow_and_update().clone();
        if let Intent::Drain { tunnel_deadline, .. } = wanted {
            let reason = why.to_owned();
            let drain = Drain { tunnel_deadline_ms: super::deadline_ms(tunnel_deadline), reason };
            let kind = Some(worker_directive::Kind::Drain(drain));
            if directives.send(Ok(WorkerDirective { kind })).await.is_err() {
                return;
            }
        }
        // Cancel-safe, both: they only wait.
        tokio::select! {
            changed = intent.changed() => if changed.is_err() { return },
            () = directives.closed() => return,
        }
    }
}

async fn listen(worker: &Worker, mut events: Streaming<WorkerEvent>) {
    while let Ok(Some(event)) = events.message().await {
        if let Some(worker_event::Kind::Report(report)) = event.kind {
            worker.note(|view| view.tunnels = report.tunnels_active);
        }
    }
}
