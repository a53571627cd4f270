//! What two executables, perhaps of different versions, must agree on: the question before a takeover, its answer, and
//! what is handed over. Fields are only ever added, each with a default; a change of meaning is another [`TAKEOVER`].

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_proto::admin::UpgradeStatus;
use holdfast_proto::admin::upgrade_status::Step;
use serde::{Deserialize, Serialize};

/// Version of all of this.
pub(super) const TAKEOVER: u32 = 1;

/// Names the memfd with the manifest in the environment of the executable that takes over: its number, followed by
/// [`BACK`] when that is the old one again.
pub(super) const VARIABLE: &str = "HOLDFAST_TAKEOVER";
/// See [`VARIABLE`].
pub(super) const BACK: &str = "-back";

/// The old executable.
pub(super) const IMAGE: &str = "image";
/// Where the new executable says why it did not become ready.
pub(super) const VERDICT: &str = "verdict";
/// A listening socket for clients; there may be several.
pub(super) const LISTENER: &str = "listener";

/// Asked on the candidate's standard input, as one JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    /// [`TAKEOVER`] of who asks.
    pub(super) takeover: u32,
    /// The control protocol that living workers speak.
    pub(super) protocol: u32,
    /// The arena layout that they share.
    pub(super) arena: u32,
    /// RUNTIME.
    pub(super) runtime_dir: PathBuf,
    /// STATE.
    pub(super) state_dir: PathBuf,
    /// The revision in force.
    pub(super) revision: u64,
    /// The command line that the candidate will be started with.
    pub(super) arguments: Vec<String>,
}

/// Answered on its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The candidate's version.
    pub(super) holdfast: String,
    /// Its [`TAKEOVER`].
    pub(super) takeover: u32,
    /// The control protocol that it speaks.
    pub(super) protocol: u32,
    /// Its arena layout.
    pub(super) arena: u32,
    /// Why it cannot take over; empty: it can.
    #[serde(default)]
    pub(super) refusal: String,
}

/// What the executable that takes over finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The upgrade.
    pub(super) record: Record,
    /// Time to become ready.
    pub(super) ready_ms: u64,
    /// A SIGHUP was heard and not answered.
    #[serde(default)]
    pub(super) reload: bool,
    /// Open descriptors and what they are. Unknown ones are closed when the start is over.
    pub(super) descriptors: Vec<(String, RawFd)>,
}

/// An upgrade, as the one after tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) binary: String,
    pub(crate) from_version: String,
    pub(crate) to_version: String,
    #[serde(default)]
    pub(crate) by: String,
}

// === impl Manifest ===

impl Manifest {
    /// One without descriptors yet.
    pub(super) fn of(status: &UpgradeStatus, by: &str, ready: Duration) -> Self {
        let record = Record {
            id: status.id.clone(),
            binary: status.binary.clone(),
            from_version: status.from_version.clone(),
            to_version: status.to_version.clone(),
            by: by.to_owned(),
        };
        let ready_ms = u64::try_from(ready.as_millis()).unwrap_or(u64::MAX);
        Self { record, ready_ms, reload: false, descriptors: Vec::new() }
    }

    /// The number of the descriptor of that name.
    pub(super) fn number(&self, name: &str) -> Option<RawFd> {
        self.descriptors.iter().find(|(it, _)| it == name).map(|(_, number)| *number)
    }
}

// === impl Record ===

impl Record {
    pub(super) fn status(&self) -> UpgradeStatus {
        UpgradeStatus {
            id: self.id.clone(),
            step: Step::Starting.into(),
            binary: self.binary.clone(),
            from_version: self.from_version.clone(),
            to_version: self.to_version.clone(),
            ..UpgradeStatus::default()
        }
    }
}
