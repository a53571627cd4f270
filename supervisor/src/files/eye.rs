//! One look-out, by inotify(7), for changes of files: of their contents, and of where their paths lead.
//!
//! Directories are watched and not files: whoever replaces a file renames another one into its place, or a symbolic link
//! somewhere above it. Nothing is read here but what the kernel says.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// As many as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Sees changes from when it was opened.
#[derive(Debug)]
pub(super) struct Eye {
    events: AsyncFd<OwnedFd>,
}

// === impl Eye ===

impl Eye {
    /// On every directory that a path of `files` leads through by a link, or to.
    pub(super) fn open(files: &BTreeSet<PathBuf>) -> io::Result<Self> {
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let directories: BTreeSet<_> = files.iter().flat_map(|file| directories(file)).collect();
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        for directory in directories {
            match add_watch(&events, &directory, changes) {
                // Gone meanwhile: that is a change of what is above it, which is watched, or was looked at before.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        #[expect(deprecated, reason = "an OwnedFd keeps the promise that its successor asks for")]
        let events = AsyncFd::new(events)?;
        Ok(Self { events })
    }

    /// Waits until something has changed; several changes count as one. Cancel-safe.
    pub(super) async fn stirred(&self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            let (any, end) = {
                let mut buffer = [MaybeUninit::uninit(); 4096];
                drain(&mut Reader::new(self.events.get_ref(), &mut buffer))
            };
            if end != Errno::AGAIN {
                return Err(end.into());
            }
            ready.clear_ready();
            if any {
                return Ok(());
            }
        }
    }
}

/// Whether there was any event, and what came instead of the next one.
fn drain(reader: &mut Reader<'_, &OwnedFd>) -> (bool, Errno) {
    let mut any = false;
    loop {
        match reader.next() {
            Ok(_) => any = true,
            Err(Errno::INTR) => {}
            Err(end) => return (any, end),
        }
    }
}

/// Directories whose entries decide where a path leads: that of each link on the way, and the last one. Where the path
/// breaks off, the last that there is.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match first_link(&path) {
            Step::Link { directory, leads_to } => {
                found.insert(directory);
                path = leads_to;
            }
            Step::End { directory } => {
                found.insert(directory);
                break;
            }
        }
    }
    found
}

enum Step {
    Link { directory: PathBuf, leads_to: PathBuf },
    End { directory: PathBuf },
}

fn first_link(path: &Path) -> Step {
    let mut at = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        if component == Component::ParentDir {
            // Every link before it has been followed already.
            at.pop();
            continue;
        }
        let directory = at.clone();
        at.push(component);
        match std::fs::symlink_metadata(&at) {
            Ok(it) if it.is_symlink() => {
                if let Ok(target) = std::fs::read_link(&at) {
                    let leads_to = directory.join(target).join(components.as_path());
                    return Step::Link { directory, leads_to };
                }
                return Step::End { directory };
            }
            Ok(_) => {}
            Err(_) => return Step::End { directory },
        }
    }
    Step::End { directory: at.parent().map(Path::to_path_buf).unwrap_or(at) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// As a Kubernetes volume is laid out: `tls.crt -> ..data/tls.crt`, `..data -> v1`.
    fn volume() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("v1")).unwrap();
        fs::write(root.join("v1/tls.crt"), "one").unwrap();
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/tls.crt", root.join("tls.crt")).unwrap();
        (directory, root)
    }

    #[test]
    fn every_directory_that_decides_where_a_path_leads_is_found() {
        let (_keep, root) = volume();
        let found = directories(&root.join("tls.crt"));
        assert_eq!(found, BTreeSet::from([root.clone(), root.join("v1")]));
        let roundabout = directories(&root.join("v1/../tls.crt"));
        assert_eq!(roundabout, found);
        assert_eq!(directories(&root.join("not/there")), BTreeSet::from([root.clone()]));
        symlink("around", root.join("around")).unwrap();
        assert_eq!(directories(&root.join("around")), BTreeSet::from([root]));
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_swapped_link_are_seen() {
        let (_keep, root) = volume();
        let files = BTreeSet::from([root.join("tls.crt")]);
        let eye = Eye::open(&files).unwrap();
        fs::write(root.join("v1/tls.crt"), "two").unwrap();
        eye.stirred().await.unwrap();
        fs::write(root.join("aside"), "three").unwrap();
        fs::rename(root.join("aside"), root.join("v1/tls.crt")).unwrap();
        eye.stirred().await.unwrap();
        fs::create_dir(root.join("v2")).unwrap();
        fs::write(root.join("v2/tls.crt"), "four").unwrap();
        symlink("v2", root.join("..new")).unwrap();
        let eye = Eye::open(&files).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        eye.stirred().await.unwrap();
        let eye = Eye::open(&files).unwrap();
        fs::write(root.join("v2/tls.crt"), "five").unwrap();
        eye.stirred().await.unwrap();
    }
}
