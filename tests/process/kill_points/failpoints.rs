//! Arming failpoints and planted faults of one gateway (`docs/testing.md`).

use std::fs;
use std::path::Path;

use crate::harness::Gateway;

impl Gateway {
    /// Has the process that comes to that failpoint next do so (`docs/testing.md`).
    pub(crate) fn arm(&self, failpoint: &str, action: &str) {
        let aside = self.write("failpoint", action);
        fs::rename(aside, self.path().join("f").join(failpoint)).unwrap();
    }

    /// Plants something in the directory of a gateway that is not there yet.
    pub(crate) fn plant_in(home: &Path, name: &str, text: &str) {
        fs::create_dir_all(home.join("f")).unwrap();
        fs::write(home.join("f").join(name), text).unwrap();
    }

    /// Whether a process has come to that failpoint since it was armed.
    pub(crate) fn has_fired(&self, failpoint: &str) -> bool {
        !self.path().join("f").join(failpoint).exists()
    }

    /// Takes an action, or a planted fault, back.
    pub(crate) fn disarm(&self, failpoint: &str) {
        fs::remove_file(self.path().join("f").join(failpoint)).ok();
    }
}
