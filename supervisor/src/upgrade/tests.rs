//! Asking for upgrades. What they do is in tests/process/upgrade.rs: it needs processes.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::upgrade::board::{AskError, Upgrades};

fn upgrades() -> Upgrades {
    let upgrades = Upgrades::default();
    upgrades.allow(Some(Terms { arena: 1 }));
    upgrades
}

#[tokio::test]
async fn one_at_a_time_and_the_second_is_told_of_the_first() {
    let upgrades = upgrades();
    let id = upgrades.ask(Some("/a".into()), "test".to_owned()).unwrap();
    let busy = upgrades.ask(None, "test".to_owned()).unwrap_err().to_string();
    assert!(busy.contains("/a") && busy.contains(&id), "{busy}");
    assert_eq!(upgrades.asked().await.binary, Path::new("/a"));
    upgrades.refuse(&Refusal::Births);
    assert_eq!(upgrades.watch().borrow().step(), Step::Refused);
    assert_ne!(upgrades.ask(None, "test".to_owned()).unwrap(), id);
}

#[tokio::test]
async fn one_that_was_not_begun_with_is_refused_at_the_end() {
    let upgrades = upgrades();
    upgrades.ask(None, "test".to_owned()).unwrap();
    upgrades.end();
    assert!(upgrades.watch().borrow().reason.contains("stops"));
    let late = upgrades.ask(None, "test".to_owned()).unwrap_err();
    assert!(matches!(late, AskError::Stopping));
}

#[test]
fn a_demo_is_not_upgraded() {
    let error = Upgrades::default().ask(None, "test".to_owned()).unwrap_err();
    assert!(matches!(error, AskError::NotHere));
}

#[test]
fn only_files_are_opened_and_none_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, word) in [
        (Path::new("/nonexistent"), "cannot open /nonexistent: No such file"),
        (directory.path(), "is not a file"),
        (pipe.as_path(), "is not a file"),
    ] {
        let reason = chain(&open(path).unwrap_err());
        assert!(reason.contains(word), "{reason}");
    }
    open(&board::own_path().unwrap()).unwrap();
}
