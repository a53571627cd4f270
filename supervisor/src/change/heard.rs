//! Who has heard of a change: the waits for workers' answers, and what is told of those that do not serve what was
//! published. Nothing is said of a worker that was not waited for: one that has just come is sent what is in force anyway.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::admin::Refusal;
use holdfast_proto::control::WorkerState;

use crate::state::Supervisor;
use crate::worker::View;

/// Wait for every worker's acknowledgement.
pub(super) const ACKNOWLEDGED: Duration = Duration::from_secs(15);

impl Supervisor {
    /// Waits until every worker has acknowledged a revision. Answers the pids of those that took too long.
    pub(super) async fn acknowledged(&self, revision: u64) -> Vec<u32> {
        let all = async {
            for group in self.groups() {
                group.acknowledged(revision).await;
            }
        };
        if tokio::time::timeout(ACKNOWLEDGED, all).await.is_ok() {
            return Vec::new();
        }
        tracing::error!(revision, "not every worker has acknowledged the revision");
        self.groups().iter().flat_map(|group| group.unanswered(revision)).collect()
    }

    /// Waits until every worker has heard what was published under the revision that is in force, whose number does not
    /// tell. One that is stopped is not waited for long. Answers the pids of those that took too long.
    pub(super) async fn heard(&self) -> Vec<u32> {
        let workers = self.groups().into_iter().flat_map(|group| group.workers());
        let asked: Vec<_> = workers.filter(|worker| worker.view().connected).collect();
        let answers = join_all(asked.iter().map(|worker| worker.answers())).await;
        let late = asked.iter().zip(answers).filter(|(_, answered)| !answered);
        let late: Vec<u32> = late.map(|(worker, _)| worker.incarnation.pid()).collect();
        if !late.is_empty() {
            tracing::warn!(?late, "workers do not say whether they have taken what changed");
        }
        late
    }

    /// Workers that do not serve what was published under a revision, and why; `late` are those that were waited for in
    /// vain.
    pub(super) fn refusals(&self, revision: u64, late: &[u32]) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for group in self.groups() {
            let workers = group.workers().into_iter().map(|it| (it.incarnation.pid(), it.view()));
            let workers: Vec<_> = workers.collect();
            let serves =
                |view: &View| view.state == WorkerState::Serving && view.revision >= revision;
            let is_served = workers.iter().any(|(_, view)| serves(view));
            let told = workers.into_iter().filter_map(|(pid, view)| {
                let reason = reason(&view, revision, late.contains(&pid), is_served)?;
                Some(Refusal { listener: group.address.to_string(), pid, reason })
            });
            refusals.extend(told);
        }
        refusals
    }
}

/// Why a worker does not serve what was published under a revision; `is_served` says that another of its listener does.
fn reason(view: &View, revision: u64, is_late: bool, is_served: bool) -> Option<String> {
    if !view.connected {
        return None;
    }
    // The same revision may come again with other files, so one that serves it may have refused it, too.
    if let Some((refused, why)) = &view.refusal
        && *refused >= revision
    {
        return Some(why.clone());
    }
    // What it serves until its successor has its tunnels is its own matter.
    if view.outgrown.is_some() {
        return (!is_served).then(|| "of an older build, and not replaced yet".to_owned());
    }
    is_late.then(|| "no answer".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(revision: u64) -> View {
        View { connected: true, state: WorkerState::Serving, revision, ..View::default() }
    }

    #[test]
    fn a_worker_that_has_just_come_has_refused_nothing() {
        let starting = View { connected: true, state: WorkerState::Starting, ..View::default() };
        assert_eq!(reason(&starting, 7, false, true), None);
        let redialed = View { revision: 0, ..serving(0) };
        assert_eq!(reason(&redialed, 7, false, true), None);
    }

    #[test]
    fn a_worker_that_was_waited_for_in_vain_is_told_of() {
        assert_eq!(reason(&serving(6), 7, true, false).as_deref(), Some("no answer"));
        // Under the revision in force, its number does not tell.
        assert_eq!(reason(&serving(7), 7, true, true).as_deref(), Some("no answer"));
        let gone = View { connected: false, ..serving(6) };
        assert_eq!(reason(&gone, 7, true, false), None);
    }

    #[test]
    fn a_refusal_counts_for_its_own_revision() {
        let refused = |refused| View { refusal: Some((refused, "bad".to_owned())), ..serving(6) };
        assert_eq!(reason(&refused(7), 7, false, false).as_deref(), Some("bad"));
        assert_eq!(reason(&refused(6), 7, true, false).as_deref(), Some("no answer"));
        let again = View { revision: 7, ..refused(7) };
        assert_eq!(reason(&again, 7, false, true).as_deref(), Some("bad"));
    }

    #[test]
    fn a_worker_of_an_older_build_is_told_of_while_nobody_serves() {
        let outgrown = View { outgrown: Some(7), ..serving(6) };
        assert_eq!(reason(&outgrown, 7, false, true), None);
        assert!(reason(&outgrown, 7, false, false).unwrap().contains("older build"));
    }
}
