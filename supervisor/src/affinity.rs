//! The key that affinity cookies are signed with: made once, kept in `STATE/affinity.key`, given to every worker whose
//! settings ask for it. So a cookie is good after every reload, restart and upgrade, and for no other gateway.
//!
//! A key that cannot be kept is no reason not to serve: cookies are then good until the supervisor's next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use holdfast_proto::control::ListenerSnapshot;

use crate::state::Supervisor;

/// Length of a key, bytes: that of the hash it is for.
const LENGTH: usize = 32;
/// Where it is, in the state directory.
const NAME: &str = "affinity.key";

type Key = [u8; LENGTH];

/// The key, once somebody has needed it.
#[derive(Default)]
pub(crate) struct AffinityKey(OnceLock<Key>);

/// Why a key is not kept.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}

// === impl AffinityKey ===

impl std::fmt::Debug for AffinityKey {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AffinityKey").field("known", &self.0.get().is_some()).finish()
    }
}

impl Supervisor {
    /// Gives a snapshot the key, if any of its settings need it.
    pub(crate) fn sign(&self, snapshot: &mut ListenerSnapshot) {
        let mut settings = snapshot.bindings.iter().filter_map(|it| it.backend_settings.as_ref());
        if !settings.any(|settings| settings.affinity.is_some()) {
            return;
        }
        let path = self.directories.state.join(NAME);
        let key = self.affinity.0.get_or_init(|| {
            recall(&path).unwrap_or_else(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    path = %path.display(),
                    error,
                    "no key for affinity cookies can be kept: they are good until the next start only"
                );
                let what = format!(
                    "{} cannot be kept: affinity cookies are good until the next start only",
                    path.display()
                );
                self.problem("affinity", Some(what));
                rand::random()
            })
        });
        snapshot.affinity_key = key.to_vec();
    }
}

/// The key that is kept, or a new one that is from now on.
fn recall(path: &Path) -> Result<Key, KeyError> {
    match read(path) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {
            let path = path.display();
            tracing::error!(%path, "no key for affinity cookies: another one is made");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(KeyError::Read(error)),
    }
    let key: Key = rand::random();
    write(path, &key).map_err(KeyError::Write)?;
    Ok(key)
}

/// `None`: what is there is no key.
fn read(path: &Path) -> io::Result<Option<Key>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LENGTH as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Key::try_from(bytes).ok())
}

/// Whole under its name, or not there; the owner's only.
fn write(path: &Path, key: &Key) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(NAME);
        let key = recall(&path).unwrap();
        assert_eq!(recall(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(recall(&other.path().join(NAME)).unwrap(), key);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "nothing stays behind");
    }

    #[test]
    fn what_is_no_key_is_replaced_and_a_directory_that_takes_none_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(NAME);
        for damaged in [0, LENGTH - 1, LENGTH + 1] {
            fs::write(&path, vec![1; damaged]).unwrap();
            let key = recall(&path).unwrap();
            assert_eq!(recall(&path).unwrap(), key);
        }
        assert!(matches!(recall(&state.path().join("none").join(NAME)), Err(KeyError::Write(_))));
        assert!(matches!(recall(state.path()), Err(KeyError::Read(_))));
    }
}
