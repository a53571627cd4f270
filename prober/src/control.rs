//! The stream to the supervisor: target sets down, verdicts up; dialled again whenever it ends.
//!
//! Checks go on while the supervisor is away. What they find waits on the board, and a new stream is told every
//! target's last verdict after its first target set, since its supervisor may be another one.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::bootstrap::Bootstrap;
use holdfast_proto::control::prober_control_client::ProberControlClient;
use holdfast_proto::control::{
    Hello, ProberDirective, ProberEvent, ProberReport, TargetsAck, prober_directive, prober_event,
};
use holdfast_proto::process::ProcessId;
use holdfast_proto::{LONGEST_MESSAGE, log_filter, uds, usage};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use crate::board::Board;
use crate::schedule::Schedule;

/// Events on their way to tonic. Only a few: what waits on the board can still be replaced by something newer.
const EVENT_QUEUE: usize = 16;

/// The first redial comes soon, since most supervisors that go away are back at once (crash, upgrade).
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// Between two reports of what is counted. Less often than a scrape would make figures stand still.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Bounds how long a returning supervisor waits for its prober.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// How long a prober without a supervisor lives on, as a worker without tunnels does: a next supervisor starts its own.
const ORPHAN_LIFE: Duration = Duration::from_secs(60 * 60);

/// Why the prober ends by itself other than in peace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The supervisor does not accept this process: it is another one's child, or of another version.
    #[error("the supervisor refuses this prober: {}", .0.message())]
    Refused(Status),
    /// A target's task panicked.
    #[error("a target's task died")]
    TaskDied(#[source] JoinError),
}

/// Why one stream ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("cannot dial the supervisor")]
    Dial(#[source] tonic::transport::Error),
    #[error("the supervisor ended the stream")]
    Stream(#[source] Status),
    #[error("the supervisor closed the stream")]
    Closed,
    #[error("a target's task died")]
    TaskDied(#[source] JoinError),
}

/// Serves one supervisor after another until the runtime directory is gone, or none has come for an hour.
pub(crate) async fn serve(
    bootstrap: &Bootstrap,
    me: ProcessId,
    schedule: &mut Schedule,
    board: &Arc<Board>,
) -> Result<(), ServeError> {
    let socket = bootstrap.control_socket();
    let (mut delay, mut needed) = (FIRST_DELAY, Instant::now());
    while is_there(&bootstrap.runtime_dir).await {
        let mut session = Session { schedule: &mut *schedule, board, ack: None, caught_up: false };
        let ended = session.run(&socket, bootstrap.hello(me)).await;
        if session.caught_up {
            (delay, needed) = (FIRST_DELAY, Instant::now());
        }
        match ended {
            SessionError::TaskDied(error) => return Err(ServeError::TaskDied(error)),
            SessionError::Stream(status) if is_final(&status) => {
                return Err(ServeError::Refused(status));
            }
            SessionError::Dial(error) => {
                debug!(error = &error as &dyn std::error::Error, "the supervisor is away");
            }
            ended => {
                warn!(
                    error = &ended as &dyn std::error::Error,
                    "lost the supervisor; checks go on"
                );
            }
        }
        if needed.elapsed() > ORPHAN_LIFE {
            info!("no supervisor for an hour");
            return Ok(());
        }
        sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
    info!("the runtime directory is gone");
    Ok(())
}

/// Only a clear "no such file" counts: an error of another kind may pass.
async fn is_there(runtime_dir: &Path) -> bool {
    tokio::fs::try_exists(runtime_dir).await.unwrap_or(true)
}

/// Refusals that dialling again cannot mend.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition
    )
}

/// One stream.
struct Session<'a> {
    schedule: &'a mut Schedule,
    board: &'a Arc<Board>,
    /// The version that is still to be acknowledged. Latest wins.
    ack: Option<u64>,
    /// A target set of this stream has been taken over, so verdicts mean something to this supervisor.
    caught_up: bool,
}

// === impl Session ===

impl Session<'_> {
    async fn run(&mut self, socket: &Path, hello: Hello) -> SessionError {
        match self.open(socket, hello).await {
            Ok((events, directives)) => self.converse(&events, directives).await,
            Err(ended) => ended,
        }
    }

    async fn open(
        &self,
        socket: &Path,
        hello: Hello,
    ) -> Result<(mpsc::Sender<ProberEvent>, Streaming<ProberDirective>), SessionError> {
        let channel = uds::connect(socket).await.map_err(SessionError::Dial)?;
        let (events, queued) = mpsc::channel(EVENT_QUEUE);
        let first = event(prober_event::Kind::Hello(hello));
        // The queue is new and its receiver at hand: there is room.
        events.try_send(first).map_err(|_| SessionError::Closed)?;
        let directives = ProberControlClient::new(channel)
            .max_decoding_message_size(LONGEST_MESSAGE)
            .session(ReceiverStream::new(queued))
            .await
            .map_err(SessionError::Stream)?
            .into_inner();
        Ok((events, directives))
    }

    async fn converse(
        &mut self,
        events: &mpsc::Sender<ProberEvent>,
        mut directives: Streaming<ProberDirective>,
    ) -> SessionError {
        let mut reports = interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_work = self.has_work();
            tokio::select! {
                // Cancel-safe: a message that is half read stays in the stream.
                directive = directives.message() => match directive {
                    Ok(Some(directive)) => self.obey(directive),
                    Ok(None) => return SessionError::Closed,
                    Err(status) => return SessionError::Stream(status),
                },
                // Cancel-safe, but for the place in the queue, for which nobody else waits. What is sent is chosen
                // only now, so the newest verdict goes out.
                permit = events.reserve(), if has_work => match permit {
                    Ok(permit) => if let Some(kind) = self.next_event() {
                        permit.send(event(kind));
                    },
                    Err(_) => return SessionError::Closed,
                },
                // Cancel-safe: the verdict is on the board.
                () = self.board.posted(), if !has_work => {}
                // Cancel-safe: a clock. A supervisor that is behind gets the next one: totals lose nothing by it.
                _ = reports.tick() => drop(events.try_send(event(self.report()))),
                // Cancel-safe: joins nothing halfway.
                error = self.schedule.died() => return SessionError::TaskDied(error),
            }
        }
    }

    fn obey(&mut self, directive: ProberDirective) {
        match directive.kind {
            Some(prober_directive::Kind::Targets(set)) => {
                self.ack = Some(set.version);
                self.schedule.apply(set);
                if !self.caught_up {
                    self.caught_up = true;
                    self.board.resend_all();
                }
            }
            Some(prober_directive::Kind::SetLogFilter(told)) => {
                if let Err(reason) = log_filter::set(&told.filter) {
                    warn!(filter = told.filter, reason, "the log stays as it is");
                }
            }
            // A directive of a newer protocol; that supervisor would have refused this version if it mattered.
            None => warn!("left out a directive that this version does not know"),
        }
    }

    fn report(&self) -> prober_event::Kind {
        let mut samples = usage::samples("prober");
        samples.extend(self.schedule.checks().samples());
        prober_event::Kind::Report(ProberReport { samples })
    }

    fn has_work(&self) -> bool {
        self.ack.is_some() || (self.caught_up && self.board.has_unsent())
    }

    fn next_event(&mut self) -> Option<prober_event::Kind> {
        match self.ack.take() {
            Some(version) => Some(prober_event::Kind::TargetsAck(TargetsAck { version })),
            None => self.board.take_unsent().map(prober_event::Kind::Verdict),
        }
    }
}

fn event(kind: prober_event::Kind) -> ProberEvent {
    ProberEvent { kind: Some(kind) }
}
