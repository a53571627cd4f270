//! A file system of a test's own that can be full: a small tmpfs, where this user may mount one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Unmounted with this value; what has it open keeps it until it is closed. Outlives the gateway that uses it if it is
/// made first.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Mounts one of so many KiB at `link`, or says aloud that `left_out` is left out.
    pub(crate) fn mount(link: &Path, kib: u32, left_out: &str) -> Option<Self> {
        let directory = super::directory();
        let options = format!("size={kib}k,mode=700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "holdfast-test"])
            .arg(directory.path())
            .output();
        if !mount.is_ok_and(|output| output.status.success()) {
            println!("LEFT OUT: {left_out} (needs the right to mount a tmpfs)");
            return None;
        }
        symlink(directory.path(), link).unwrap();
        Some(Self { directory })
    }

    /// Leaves no room for another byte.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.directory.path().join("filler")).unwrap();
        let end = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(end.kind(), ErrorKind::StorageFull);
    }

    /// Lets nobody write to it.
    pub(crate) fn freeze(&self) {
        self.mount_again("ro");
    }

    /// Takes that back.
    pub(crate) fn thaw(&self) {
        self.mount_again("rw");
    }

    fn mount_again(&self, how: &str) {
        let options = format!("remount,{how}");
        let mount =
            Command::new("mount").args(["-o", &options]).arg(self.directory.path()).output();
        let mount = mount.unwrap();
        assert!(mount.status.success(), "{}", super::words(&mount));
    }

    /// Gives the room back.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.directory.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("--lazy").arg(self.directory.path()).output();
        drop(unmount.unwrap());
    }
}
