//! What of a gateway still runs whose supervisor does not answer: told by the list of children beside its socket.
//!
//! Only told: nothing here touches a process or a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_proto::process::{self, ProcessId};
use holdfast_supervisor::children::{Listed, Role};
use nix::unistd::{Uid, User};

/// Where the host's gateway has its sockets.
const OF_THE_HOST: &str = "/run/holdfast";

/// The living children of the gateway on a runtime directory, for people; `None`: it cannot be told.
fn running(runtime_dir: &Path) -> Option<Vec<String>> {
    let list = fs::read_to_string(runtime_dir.join("children")).ok()?;
    let listed = list.lines().filter_map(|line| serde_json::from_str::<Listed>(line).ok());
    Some(listed.filter(is_alive).map(|child| name(&child)).collect())
}

/// A sentence about them, of a supervisor that is gone.
pub(crate) fn sentence(runtime_dir: &Path) -> String {
    match running(runtime_dir) {
        Some(running) if running.is_empty() => "Nothing of it runs any more. ".to_owned(),
        _ => adopted(runtime_dir),
    }
}

/// The same where there was perhaps never anything.
pub(crate) fn adopted(runtime_dir: &Path) -> String {
    match serving(runtime_dir) {
        told if told.is_empty() => told,
        told => format!(
            "{told}They are adopted with their connections by the next `holdfast run` on the same directories. "
        ),
    }
}

/// Those that serve on, whatever has become of their supervisor; empty where there are none, or it cannot be told.
pub(crate) fn serving(runtime_dir: &Path) -> String {
    let running = running(runtime_dir).unwrap_or_default();
    if running.is_empty() {
        return String::new();
    }
    format!("What still runs, and serves as before: {}. ", running.join(", "))
}

/// Where else to look: a user's commands look in the user's own place, and the host's gateway is in root's.
pub(crate) fn elsewhere(runtime_dir: &Path) -> &'static str {
    if runtime_dir != Path::new(OF_THE_HOST) && Path::new(OF_THE_HOST).exists() {
        return "The host's own gateway is at /run/holdfast: ask it with `sudo`, or with --admin \
                unix:/run/holdfast/admin.sock. ";
    }
    ""
}

fn is_alive(child: &Listed) -> bool {
    process::runs(ProcessId { pid: child.pid, start_time: child.start_time })
}

fn name(child: &Listed) -> String {
    match child.role {
        Role::Worker { listener, .. } => format!("worker {} of {listener}", child.pid),
        Role::Prober => format!("prober {}", child.pid),
    }
}

/// Whose a socket is that may not be opened, and who asks.
pub(crate) fn owner(path: &Path) -> String {
    let me = user(Uid::effective().as_raw());
    // Where not even its directory may be looked into, that one's owner is who matters.
    let known = path.ancestors().find_map(|place| Some((place, fs::metadata(place).ok()?)));
    match known {
        Some((place, metadata)) => {
            format!("{} belongs to {}, and you are {me}", place.display(), user(metadata.uid()))
        }
        None => format!("you are {me}"),
    }
}

fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_processes_that_are_still_the_same_are_told() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(sentence(directory.path()), "", "nothing is known without a list");
        let me = ProcessId::me().unwrap();
        let child = |start_time| Listed {
            role: Role::Worker { listener: "127.0.0.1:80".parse().unwrap(), generation: 1 },
            pid: me.pid,
            start_time,
            token: String::new(),
        };
        let write = |children: &[Listed]| {
            let lines = children.iter().map(|it| serde_json::to_string(it).unwrap());
            let list = lines.chain(["not a child".to_owned()]).collect::<Vec<_>>().join("\n");
            fs::write(directory.path().join("children"), list).unwrap();
        };
        write(&[child(me.start_time + 1)]);
        assert!(sentence(directory.path()).contains("Nothing of it runs"));
        write(&[child(me.start_time), child(me.start_time + 1)]);
        let told = sentence(directory.path());
        assert!(told.contains(&format!("worker {} of 127.0.0.1:80.", me.pid)), "{told}");
    }
}
