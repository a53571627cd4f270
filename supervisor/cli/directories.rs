//! Where a gateway's sockets are when nobody says so: the same answer for those who run it and those who call it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The runtime directory: systemd's, the system's for root, or the user's own.
pub(crate) fn default_runtime_dir() -> PathBuf {
    runtime_dir(|name| env::var_os(name).filter(|value| !value.is_empty()), geteuid().as_raw())
}

/// The admin socket of the gateway that runs on `runtime_dir`.
pub(crate) fn admin_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

fn runtime_dir(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> PathBuf {
    if let Some(directories) = variable("RUNTIME_DIRECTORY") {
        // systemd lists several with colons between; the first is the service's own.
        if let Some(first) = env::split_paths(&directories).next() {
            return first;
        }
    }
    if uid == 0 {
        return "/run/holdfast".into();
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(directory) => Path::new(&directory).join("holdfast"),
        None => variable("TMPDIR")
            .map_or_else(|| "/tmp".into(), PathBuf::from)
            .join(format!("holdfast-{uid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)], uid: u32) -> PathBuf {
        runtime_dir(
            |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
            uid,
        )
    }

    #[test]
    fn the_runtime_directory_follows_systemd_then_the_user() {
        for (set, uid, expected) in [
            (&[("RUNTIME_DIRECTORY", "/run/a:/run/b")][..], 7, "/run/a"),
            (&[("XDG_RUNTIME_DIR", "/run/user/0")][..], 0, "/run/holdfast"),
            (&[("XDG_RUNTIME_DIR", "/run/user/7")][..], 7, "/run/user/7/holdfast"),
            (&[("TMPDIR", "/var/tmp")][..], 7, "/var/tmp/holdfast-7"),
            (&[][..], 7, "/tmp/holdfast-7"),
        ] {
            assert_eq!(with(set, uid), Path::new(expected));
        }
    }
}
