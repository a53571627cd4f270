//! The worker's line to its supervisor: directives come down, acknowledgements, states and reports go up.
//!
//! A worker serves on without a supervisor. It redials for as long as there is a reason to live, and says on each
//! new line who it is, which revision it serves and in which state it is. What a directive means for a connection is
//! decided elsewhere: here it only becomes a table, a health, a drain order or a list.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::bootstrap::Bootstrap;
use holdfast_proto::control::worker_control_client::WorkerControlClient;
use holdfast_proto::control::worker_directive::Kind as Directive;
use holdfast_proto::control::worker_event::Kind as Event;
use holdfast_proto::control::{
    CloseResult, CloseTunnels, Explained, HandedOver, HealthSnapshot, Hello, ListTunnels,
    ListenerSnapshot, SnapshotAck, StateChange, TunnelList, WorkerEvent, WorkerState,
};
use holdfast_proto::{LONGEST_MESSAGE, log_filter, uds};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;

use crate::backoff::Backoff;
use crate::drain::Order;
use crate::http::{Shared, explain};
use crate::snapshot::Table;
use crate::tunnel::Cause;
use crate::vault::News;

mod removal;
mod report;

/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Reports until a tunnel whose handshake was over when a change came is in the list for certain: more than one, since the
/// first may come at once.
const LOOKS: u8 = 2;
/// Events that wait for a slow supervisor: a tunnel list's parts, a report, an answer. Reports are then skipped.
const EVENTS: usize = 32;
/// Tunnels in one message: far below gRPC's 4 MiB, and long lists must not hold up a report.
const TUNNELS_A_MESSAGE: usize = 1_000;
/// How long a worker without a supervisor and without tunnels lives on.
const ORPHAN_LIFE: Duration = Duration::from_secs(60 * 60);
/// How long the last report may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What run and control tell one another.
#[derive(Debug)]
pub(crate) struct Duties {
    /// Set by the supervisor's `StartServing`.
    pub(crate) serve: watch::Sender<bool>,
    /// What this worker does now.
    pub(crate) state: watch::Sender<WorkerState>,
    /// What the line to the vault has to say.
    pub(crate) news: News,
    /// Set when everything has ended: send the last report and hang up.
    pub(crate) leaving: watch::Sender<bool>,
}

/// One worker's line, across supervisors.
pub(crate) struct Control {
    bootstrap: Bootstrap,
    hello: Hello,
    shared: Arc<Shared>,
    duties: Arc<Duties>,
    /// The last revision installed.
    revision: Option<u64>,
    /// The last one that came.
    health: Option<HealthSnapshot>,
    removal: removal::Removal,
    /// Reports at which tunnels are looked at again: some were on their way into the list when what is configured changed.
    looks: u8,
}

/// Why a line ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("cannot dial the supervisor at {path}")]
    Dial { path: PathBuf, source: tonic::transport::Error },
    #[error("the supervisor refused or ended the session")]
    Session(#[from] Box<tonic::Status>),
    #[error("the supervisor hung up")]
    HungUp,
}

type Events = mpsc::Sender<WorkerEvent>;

// === impl Duties ===

impl Default for Duties {
    fn default() -> Self {
        Self {
            serve: watch::Sender::new(false),
            state: watch::Sender::new(WorkerState::Starting),
            news: News {
                handed_over: watch::Sender::new(false),
                settled: watch::Sender::new(false),
                taken: watch::Sender::new(0),
            },
            leaving: watch::Sender::new(false),
        }
    }
}

impl Duties {
    /// Waits until this worker leaves. Cancel-safe.
    async fn left(&self) {
        if self.leaving.subscribe().wait_for(|leaving| *leaving).await.is_err() {
            // The sender is `self`, so the channel cannot close while this waits.
            std::future::pending::<()>().await;
        }
    }
}

// === impl Control ===

impl Control {
    pub(crate) fn new(
        bootstrap: Bootstrap,
        hello: Hello,
        shared: Arc<Shared>,
        duties: Arc<Duties>,
    ) -> Self {
        Self {
            bootstrap,
            hello,
            shared,
            duties,
            revision: None,
            health: None,
            removal: removal::Removal::default(),
            looks: 0,
        }
    }

    /// Keeps the line up until this worker leaves.
    pub(crate) async fn keep(mut self) {
        let mut backoff = Backoff::new();
        let mut needed = Instant::now();
        let mut told = false;
        loop {
            let dialled = Instant::now();
            let ended = self.session().await;
            let lived = dialled.elapsed() > Backoff::SHORT;
            match ended {
                Ok(()) => return,
                Err(error) => {
                    let error: &dyn Error = &error;
                    if lived || !std::mem::replace(&mut told, true) {
                        tracing::warn!(error, "no line to the supervisor; serving on");
                    } else {
                        tracing::debug!(error, "still no line to the supervisor");
                    }
                }
            }
            if *self.duties.leaving.borrow() {
                return;
            }
            if lived {
                backoff.reset();
                needed = Instant::now();
            }
            if self.shared.tunnels.active() != 0 {
                needed = Instant::now();
            }
            self.end_if_orphaned(needed);
            // Both arms are cancel-safe.
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = self.duties.left() => return,
            }
        }
    }

    fn end_if_orphaned(&self, needed: Instant) {
        let reason = if !self.bootstrap.runtime_dir.exists() {
            "the runtime directory is gone"
        } else if needed.elapsed() > ORPHAN_LIFE {
            "no supervisor and no tunnels for an hour"
        } else {
            return;
        };
        if !self.shared.drain.is_begun() {
            tracing::warn!(reason, "worker ends");
        }
        let tunnel_deadline = Some(Instant::now());
        self.shared.drain.begin(Order { tunnel_deadline, reason: reason.to_owned() });
    }

    /// One line from its hello to its end; `Ok` when this worker has said farewell.
    async fn session(&mut self) -> Result<(), SessionError> {
        let path = self.bootstrap.control_socket();
        let channel =
            uds::connect(&path).await.map_err(|source| SessionError::Dial { path, source })?;
        let mut client =
            WorkerControlClient::new(channel).max_decoding_message_size(LONGEST_MESSAGE);
        let (events, outbox) = mpsc::channel(EVENTS);
        say(&events, Event::Hello(self.hello.clone())).await?;
        if let Some(health) = &self.health {
            say(&events, Event::KnownHealth(health.clone())).await?;
        }
        if let Some(revision) = self.revision {
            say(&events, acknowledgement(revision, String::new())).await?;
        }
        let mut state = self.duties.state.subscribe();
        let standing = *state.borrow_and_update();
        say(&events, Event::State(StateChange { state: standing.into() })).await?;
        let mut handed_over = self.duties.news.handed_over.subscribe();
        handed_over.mark_changed();
        let mut taken = self.duties.news.taken.subscribe();
        let outbox = ReceiverStream::new(outbox);
        let mut directives = client.session(outbox).await.map_err(Box::new)?.into_inner();

        let duties = self.duties.clone();
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // message() keeps a half-read frame in the stream itself; the other arms are cancel-safe by contract.
            tokio::select! {
                directive = directives.message() => {
                    let directive = directive.map_err(Box::new)?.ok_or(SessionError::HungUp)?.kind;
                    if let Some(directive) = directive {
                        self.obey(directive, &events).await?;
                    } else {
                        tracing::warn!("a directive of an unknown kind was ignored");
                    }
                }
                Ok(()) = state.changed() => {
                    let state = (*state.borrow_and_update()).into();
                    say(&events, Event::State(StateChange { state })).await?;
                }
                Ok(()) = handed_over.changed() => {
                    if *handed_over.borrow_and_update() {
                        let tunnels_left = self.shared.tunnels.active();
                        say(&events, Event::HandedOver(HandedOver { tunnels_left })).await?;
                    }
                }
                _ = reports.tick() => {
                    // A backend may have left while nobody had those that were taken over; not looked at for each
                    // batch, since a look is at all of them.
                    let lingered = self.shared.current.take_lingering();
                    let again = self.looks > 0;
                    if taken.has_changed().unwrap_or(false) || lingered || again {
                        self.looks = self.looks.saturating_sub(1);
                        taken.mark_unchanged();
                        self.retire_tunnels();
                    }
                    // A supervisor that is behind gets the next one: totals lose nothing by it.
                    let report = report::report(&self.shared, 0);
                    drop(events.try_send(event(Event::Report(report))));
                }
                () = duties.left() => break,
            }
        }
        // A worker with nothing to drain leaves in the same breath, and its supervisor must not take it for a crash.
        if state.has_changed().unwrap_or(false) {
            let state = (*state.borrow_and_update()).into();
            say(&events, Event::State(StateChange { state })).await?;
        }
        say(&events, Event::Report(report::report(&self.shared, 0))).await?;
        drop(events);
        // The supervisor hangs up when it has read everything.
        let farewell = async { while let Ok(Some(_)) = directives.message().await {} };
        drop(tokio::time::timeout(FAREWELL, farewell).await);
        Ok(())
    }

    async fn obey(&mut self, directive: Directive, events: &Events) -> Result<(), SessionError> {
        match directive {
            Directive::Health(health) => {
                self.removal.note_health(&health);
                self.health = Some(health.clone());
                self.shared.current.install_health(health);
                self.looks = LOOKS;
                self.retire_tunnels();
            }
            Directive::Snapshot(snapshot) => say(events, self.install(snapshot)).await?,
            Directive::Serve(_) => {
                self.duties.serve.send_replace(true);
            }
            Directive::Drain(drain) => {
                tracing::info!(reason = drain.reason, "draining");
                let left = Duration::from_millis(drain.tunnel_deadline_ms);
                let tunnel_deadline = (!left.is_zero()).then(|| Instant::now() + left);
                self.shared.drain.begin(Order { tunnel_deadline, reason: drain.reason });
            }
            Directive::ReopenLogs(_) => self.shared.access_log.reopen(),
            Directive::ListTunnels(ask) => self.list(&ask, events).await?,
            Directive::CloseTunnels(ask) => say(events, self.close(&ask)).await?,
            Directive::Explain(ask) => {
                let question = ask.question.unwrap_or_default();
                let answer = explain::explain(&self.shared.current.load(), &question);
                let (request, answer) = (ask.request, Some(answer));
                say(events, Event::Explained(Explained { request, answer })).await?;
            }
            Directive::SetLogFilter(told) => {
                if let Err(reason) = log_filter::set(&told.filter) {
                    tracing::warn!(filter = told.filter, reason, "the log stays as it is");
                }
            }
            Directive::AskReport(ask) => {
                say(events, Event::Report(report::report(&self.shared, ask.request))).await?;
            }
        }
        Ok(())
    }

    fn install(&mut self, snapshot: ListenerSnapshot) -> Event {
        let revision = snapshot.revision;
        let current = &self.shared.current;
        match Table::compile(snapshot, Some(&current.load().table)) {
            Ok(table) => {
                self.removal.note_table(&table);
                self.shared.idle.keep_only(&table.bindings);
                current.install_table(table);
                self.looks = LOOKS;
                self.shared.access_log.configure(current.load().table.access_log.as_ref());
                self.retire_tunnels();
                if self.revision.replace(revision) == Some(revision) {
                    tracing::info!(
                        revision,
                        "serving the revision with other keys or certificates"
                    );
                } else {
                    tracing::info!(revision, "serving a new revision");
                }
                acknowledgement(revision, String::new())
            }
            Err(refusal) => {
                let refusal = refusal.text();
                tracing::warn!(revision, refusal, "refused a revision");
                acknowledgement(revision, refusal)
            }
        }
    }

    fn retire_tunnels(&self) {
        if !self.removal.knows_all() {
            return;
        }
        let serving = self.shared.current.load();
        self.shared.tunnels.retire(|facts| self.removal.time_left(&serving.table, facts));
    }

    async fn list(&self, ask: &ListTunnels, events: &Events) -> Result<(), SessionError> {
        let tunnels = self.shared.tunnels.list();
        let parts = tunnels.len().div_ceil(TUNNELS_A_MESSAGE).max(1);
        let mut tunnels = tunnels.into_iter();
        for part in 1..=parts {
            let tunnels = tunnels.by_ref().take(TUNNELS_A_MESSAGE).collect();
            let list = TunnelList { request: ask.request, tunnels, last: part == parts };
            say(events, Event::Tunnels(list)).await?;
        }
        Ok(())
    }

    fn close(&self, ask: &CloseTunnels) -> Event {
        let closed = self.shared.tunnels.close(&ask.ids, Cause::Admin);
        Event::Closed(CloseResult { request: ask.request, closed })
    }
}

fn acknowledgement(revision: u64, refusal: String) -> Event {
    Event::SnapshotAck(SnapshotAck { revision, refusal })
}

fn event(kind: Event) -> WorkerEvent {
    WorkerEvent { kind: Some(kind) }
}

async fn say(events: &Events, kind: Event) -> Result<(), SessionError> {
    events.send(event(kind)).await.map_err(|_| SessionError::HungUp)
}
