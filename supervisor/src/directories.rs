//! The two directories of a gateway: RUNTIME (sockets, lock, list of children) and STATE (revisions, drained backends).
//!
//! Owns where they are by default, that they exist, and that nobody else can write to them. A directory that belongs
//! to somebody else is never used: who can replace a socket in it could speak for the supervisor.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_proto::uds::LONGEST_SOCKET_PATH;
use nix::unistd::Uid;

/// Appended to a socket's name while it is bound and not yet renamed into place; the longer name has to fit too.
pub const TEMPORARY_SUFFIX: &str = ".new";

/// The sockets that live in RUNTIME.
const SOCKETS: [&str; 3] = ["admin.sock", "control.sock", "fd.sock"];
/// What a directory that we create allows: everything to the owner, nothing to others.
const MODE: u32 = 0o700;
/// The bit of a mode that lets everybody write.
const WORLD_WRITABLE: u32 = 0o002;

/// Where a gateway keeps what lives as long as the machine is up, and what lives longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Sockets, lock, pid, list of children.
    pub runtime: PathBuf,
    /// Revisions and drained backends.
    pub state: PathBuf,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// No default for the state directory.
    #[error(
        "no default for the state directory: neither XDG_STATE_HOME nor HOME is an absolute path; \
         give --state-dir"
    )]
    NoHome,
    /// A relative path could not be made absolute.
    #[error("cannot make {} absolute", path.display())]
    Absolute {
        /// As given.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It does not exist and could not be created.
    #[error("cannot create the directory {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It exists, but could not be looked at.
    #[error("cannot look at the directory {}", path.display())]
    Inspect {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something else has that name.
    #[error("{} is not a directory", path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to uid {owner}, and this process runs as uid {uid}: give a directory of your own, \
         or change its owner",
        path.display()
    )]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// Anybody can put files into it.
    #[error(
        "{} is writable by everybody (mode {mode:04o}): run `chmod o-w {}`",
        path.display(),
        path.display()
    )]
    WorldWritable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A socket in it would have a name that the kernel does not take.
    #[error(
        "the socket path {} is {length} bytes long and at most {LONGEST_SOCKET_PATH} fit: \
         give a shorter --runtime-dir",
        path.display()
    )]
    SocketPathTooLong {
        /// The socket, under its temporary name.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
}

/// What defaults depend on; a value of its own so that tests need not touch the environment.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    uid: u32,
}

// === impl Surroundings ===

impl Surroundings<'_> {
    /// An absolute path from a variable. The XDG specification has relative ones ignored, and one that starts where
    /// a child happens to run would be no help for TMPDIR and HOME either.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from((self.variable)(name)?);
        path.is_absolute().then_some(path)
    }

    /// The first of the directories that systemd made for the unit; the list is colon-separated (systemd.exec(5)).
    fn systemd(&self, name: &str) -> Option<PathBuf> {
        let list = (self.variable)(name)?;
        let first = list.as_bytes().split(|byte| *byte == b':').next()?;
        let path = PathBuf::from(OsStr::from_bytes(first));
        path.is_absolute().then_some(path)
    }

    fn runtime(&self) -> PathBuf {
        if let Some(path) = self.systemd("RUNTIME_DIRECTORY") {
            return path;
        }
        if self.uid == 0 {
            return PathBuf::from("/run/holdfast");
        }
        if let Some(path) = self.absolute("XDG_RUNTIME_DIR") {
            return path.join("holdfast");
        }
        let temporary = self.absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"));
        temporary.join(format!("holdfast-{}", self.uid))
    }

    fn state(&self) -> Result<PathBuf, DirectoryError> {
        if let Some(path) = self.systemd("STATE_DIRECTORY") {
            return Ok(path);
        }
        if self.uid == 0 {
            return Ok(PathBuf::from("/var/lib/holdfast"));
        }
        if let Some(path) = self.absolute("XDG_STATE_HOME") {
            return Ok(path.join("holdfast"));
        }
        let home = self.absolute("HOME").ok_or(DirectoryError::NoHome)?;
        Ok(home.join(".local/state/holdfast"))
    }
}

fn environment() -> Surroundings<'static> {
    Surroundings { variable: &|name| std::env::var_os(name), uid: Uid::effective().as_raw() }
}

/// Where a gateway of this user keeps its sockets unless told otherwise; the CLI looks for `admin.sock` there.
pub fn runtime_default() -> PathBuf {
    environment().runtime()
}

// === impl Directories ===

impl Directories {
    /// The given directories, or the defaults; absolute, since children run elsewhere. Creates nothing.
    pub fn resolve(
        runtime: Option<PathBuf>,
        state: Option<PathBuf>,
    ) -> Result<Self, DirectoryError> {
        let surroundings = environment();
        let state = match state {
            Some(path) => path,
            None => surroundings.state()?,
        };
        let runtime = runtime.unwrap_or_else(|| surroundings.runtime());
        Ok(Self { runtime: absolute(runtime)?, state: absolute(state)? })
    }

    /// Creates what is missing and refuses what is unsafe.
    pub fn prepare(&self) -> Result<(), DirectoryError> {
        self.check_socket_paths()?;
        secure(&self.runtime)?;
        secure(&self.state)
    }

    fn check_socket_paths(&self) -> Result<(), DirectoryError> {
        for name in SOCKETS {
            let path = self.runtime.join(format!("{name}{TEMPORARY_SUFFIX}"));
            let length = path.as_os_str().len();
            if length > LONGEST_SOCKET_PATH {
                return Err(DirectoryError::SocketPathTooLong { path, length });
            }
        }
        Ok(())
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, DirectoryError> {
    std::path::absolute(&path).map_err(|source| DirectoryError::Absolute { path, source })
}

fn secure(path: &Path) -> Result<(), DirectoryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(path)
        .map_err(|source| DirectoryError::Create { path: path.to_owned(), source })?;
    let inspect = |source| DirectoryError::Inspect { path: path.to_owned(), source };
    let uid = Uid::effective().as_raw();
    // A link of root's or our own is fine (systemd's DynamicUser= makes one); anybody else could turn it elsewhere.
    let name = fs::symlink_metadata(path).map_err(inspect)?;
    if name.is_symlink() && name.uid() != 0 && name.uid() != uid {
        return Err(DirectoryError::ForeignOwner { path: path.to_owned(), owner: name.uid(), uid });
    }
    let directory = fs::metadata(path).map_err(inspect)?;
    if !directory.is_dir() {
        return Err(DirectoryError::NotDirectory { path: path.to_owned() });
    }
    if directory.uid() != uid {
        let owner = directory.uid();
        return Err(DirectoryError::ForeignOwner { path: path.to_owned(), owner, uid });
    }
    let mode = directory.mode() & 0o7777;
    if mode & WORLD_WRITABLE != 0 {
        return Err(DirectoryError::WorldWritable { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Writes beside and renames, so that no reader sees half a file. Mode 0600.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&beside)?.write_all(bytes)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// (environment, uid, runtime, state; empty: refused)
    type Case = (&'static [(&'static str, &'static str)], u32, &'static str, &'static str);

    #[test]
    fn defaults_follow_systemd_then_root_then_xdg_then_tmpdir() {
        let cases: &[Case] = &[
            (&[], 0, "/run/holdfast", "/var/lib/holdfast"),
            (&[("XDG_RUNTIME_DIR", "/x")], 0, "/run/holdfast", "/var/lib/holdfast"),
            (
                &[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("STATE_DIRECTORY", "/var/lib/a")],
                7,
                "/run/a",
                "/var/lib/a",
            ),
            (
                &[("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_STATE_HOME", "/s"), ("HOME", "/h")],
                7,
                "/run/user/7/holdfast",
                "/s/holdfast",
            ),
            (&[("TMPDIR", "/t"), ("HOME", "/h")], 7, "/t/holdfast-7", "/h/.local/state/holdfast"),
            (
                &[("XDG_RUNTIME_DIR", "rel"), ("HOME", "/h")],
                7,
                "/tmp/holdfast-7",
                "/h/.local/state/holdfast",
            ),
            (&[("HOME", "")], 7, "/tmp/holdfast-7", ""),
        ];
        for (environment, uid, runtime, state) in cases {
            let variable = |name: &str| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            };
            let surroundings = Surroundings { variable: &variable, uid: *uid };
            assert_eq!(surroundings.runtime(), Path::new(runtime), "{environment:?}");
            let expected = (!state.is_empty()).then(|| PathBuf::from(state));
            assert_eq!(surroundings.state().ok(), expected, "{environment:?}");
        }
    }

    #[test]
    fn missing_directories_are_made_for_the_owner_only() {
        let top = tempfile::tempdir().unwrap();
        let directories =
            Directories { runtime: top.path().join("a/run"), state: top.path().join("b/state") };
        directories.prepare().unwrap();
        directories.prepare().unwrap();
        for path in [&directories.runtime, &directories.state] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
        }
    }

    #[test]
    fn a_directory_that_everybody_can_write_to_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let open = top.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = secure(&open).unwrap_err();
        assert!(matches!(error, DirectoryError::WorldWritable { mode: 0o777, .. }), "{error}");
    }

    #[test]
    fn a_file_in_the_place_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(secure(file.path()).is_err());
    }

    #[test]
    fn the_owner_is_checked() {
        if Uid::effective().is_root() {
            let top = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(top.path(), Some(12345), None).unwrap();
            let error = secure(top.path()).unwrap_err();
            assert!(matches!(error, DirectoryError::ForeignOwner { owner: 12345, .. }), "{error}");
        } else {
            assert!(matches!(secure(Path::new("/")), Err(DirectoryError::ForeignOwner { .. })));
        }
    }

    #[test]
    fn a_socket_path_that_is_too_long_names_path_length_and_mend() {
        let state = PathBuf::from("/s");
        let longest = "control.sock.new".len() + 1;
        let fits = "/".to_owned() + &"x".repeat(LONGEST_SOCKET_PATH - longest - 1);
        let runtime = PathBuf::from(&fits);
        Directories { runtime, state: state.clone() }.check_socket_paths().unwrap();
        let runtime = PathBuf::from(fits + "x");
        let error = Directories { runtime, state }.check_socket_paths().unwrap_err().to_string();
        assert!(error.contains("control.sock"), "{error}");
        assert!(error.contains("108 bytes"), "{error}");
        assert!(error.contains("--runtime-dir"), "{error}");
    }
}
