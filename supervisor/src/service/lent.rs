//! Which listening sockets a unit of the manager's (`holdfast.socket`) has as well: it goes on listening when this service has
//! ended, so that whoever connects then waits for the next start. An end must never shut them down.
//!
//! The manager passes them at each start, but to no executable that takes this process's place: that one goes by a list in
//! the runtime directory.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use crate::directories::write_private;

/// The list, an address a line.
const LIST: &str = "lent";

/// Notes what was passed, for the next executable.
pub(super) fn note(runtime: &Path, lent: BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    let lines: Vec<String> = lent.iter().map(ToString::to_string).collect();
    if let Err(error) = write_private(&runtime.join(LIST), lines.join("\n").as_bytes()) {
        tracing::warn!(%error, "after an upgrade it is not known which sockets are the service manager's");
    }
    lent
}

/// What the executable before has noted.
pub(super) fn noted(runtime: &Path) -> BTreeSet<SocketAddr> {
    let text = std::fs::read_to_string(runtime.join(LIST)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_executable_knows_what_was_lent_to_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path();
        assert_eq!(noted(runtime), BTreeSet::new());
        let lent: BTreeSet<SocketAddr> =
            ["0.0.0.0:80", "[::]:443"].map(|it| it.parse().unwrap()).into();
        assert_eq!(note(runtime, lent.clone()), lent);
        assert_eq!(noted(runtime), lent);
        // Another start, without a socket unit.
        note(runtime, BTreeSet::new());
        assert_eq!(noted(runtime), BTreeSet::new());
    }
}
