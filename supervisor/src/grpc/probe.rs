//! The prober's session: targets down, verdicts up.

use std::sync::Arc;

use futures_util::Stream;
use holdfast_proto::control::prober_control_server::ProberControl;
use holdfast_proto::control::{
    ProberDirective, ProberEvent, SetLogFilter, prober_directive, prober_event,
};
use holdfast_proto::log_filter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{peer, recognise};
use crate::children::{Incarnation, Role};
use crate::state::Supervisor;

type Directive = Result<ProberDirective, Status>;

pub(super) struct Probers {
    supervisor: Arc<Supervisor>,
}

impl Probers {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }
}

#[tonic::async_trait]
impl ProberControl for Probers {
    type SessionStream = std::pin::Pin<Box<dyn Stream<Item = Directive> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<ProberEvent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = peer(&request);
        let mut events = request.into_inner();
        let first = events.message().await?.and_then(|event| event.kind);
        let hello = match &first {
            Some(prober_event::Kind::Hello(hello)) => Some(hello),
            _ => None,
        };
        let incarnation = recognise(&self.supervisor, hello, peer)?;
        if incarnation.role != Role::Prober {
            return Err(Status::permission_denied("this child is no prober"));
        }
        let version = hello.map(|hello| hello.version.clone()).unwrap_or_default();
        self.supervisor.prober.note(&incarnation, |view| {
            view.connected = true;
            view.version = version;
        });
        // One: a target set is latest-wins and waits in its watch.
        let (directives, stream) = mpsc::channel(1);
        let supervisor = self.supervisor.clone();
        tokio::spawn(async move {
            // Either side's end is the session's.
            tokio::select! {
                () = send(&supervisor, &directives) => {}
                () = listen(&supervisor, &incarnation, events) => {}
            }
            supervisor.prober.note(&incarnation, |view| view.connected = false);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn send(supervisor: &Supervisor, directives: &mpsc::Sender<Directive>) {
    let mut targets = supervisor.health.watch_targets();
    targets.mark_changed();
    let mut filters = log_filter::watch();
    filters.mark_changed();
    loop {
        let mut due = Vec::new();
        if filters.has_changed().unwrap_or(false) {
            let filter = filters.borrow_and_update().clone();
            let told = (!filter.is_empty()).then_some(SetLogFilter { filter });
            due.extend(told.map(prober_directive::Kind::SetLogFilter));
        }
        if targets.has_changed().unwrap_or(false) {
            targets.mark_unchanged();
            let set = supervisor.health.targets_with_known();
            due.push(prober_directive::Kind::Targets(set));
        }
        for kind in due {
            if directives.send(Ok(ProberDirective { kind: Some(kind) })).await.is_err() {
                return;
            }
        }
        // Cancel-safe: two watches and a close notice.
        tokio::select! {
            changed = targets.changed() => match changed {
                Ok(()) => targets.mark_changed(),
                Err(_) => return,
            },
            Ok(()) = filters.changed() => filters.mark_changed(),
            () = directives.closed() => return,
        }
    }
}

async fn listen(
    supervisor: &Supervisor,
    incarnation: &Incarnation,
    mut events: Streaming<ProberEvent>,
) {
    while let Ok(Some(event)) = events.message().await {
        match event.kind {
            Some(prober_event::Kind::TargetsAck(ack)) => {
                supervisor.prober.note(incarnation, |view| view.targets = ack.version);
            }
            Some(prober_event::Kind::Verdict(verdict)) => supervisor.health.verdict(verdict),
            Some(prober_event::Kind::Report(report)) => {
                let Some(process) = incarnation.process() else { return };
                supervisor.metrics.prober_reported(process, report);
            }
            Some(prober_event::Kind::Hello(_)) | None => return,
        }
    }
}
