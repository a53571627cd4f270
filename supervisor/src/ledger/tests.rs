//! The ledger on a real disk, whole and damaged.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

fn new(document: &str) -> NewRevision {
    NewRevision {
        source: "apply".into(),
        by: "uid 0 pid 1".into(),
        base_dir: "/etc/holdfast".into(),
        document: document.into(),
    }
}

fn open(state: &Path) -> Ledger {
    let (ledger, problems) = Ledger::open(state).unwrap();
    assert_eq!(problems, Vec::<String>::new());
    ledger
}

fn path(state: &Path, number: u64) -> PathBuf {
    state.join(format!("revisions/{number:08}.json"))
}

#[test]
fn what_was_appended_is_in_force_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    assert_eq!(ledger.in_force(), None);
    ledger.append(new("one")).unwrap();
    let two = ledger.append(new("two \"ü\u{0}\"")).unwrap();
    assert_eq!((two.revision, ledger.in_force()), (2, Some(&two)));
    drop(ledger);
    let ledger = open(state.path());
    assert_eq!(ledger.in_force(), Some(&two));
    assert_eq!(ledger.get(1).unwrap().unwrap().document, "one");
    assert_eq!(ledger.get(3).unwrap(), None);
    let numbers: Vec<_> = ledger.list().iter().map(|entry| entry.revision).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(fs::metadata(path(state.path(), 1)).unwrap().mode() & 0o777, 0o600);
    two.applied_at.parse::<jiff::Timestamp>().unwrap();
}

#[test]
fn digest_and_drained_outlive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    let drained = |backend: &str| DrainedBackend { pool: "p".into(), backend: backend.into() };
    ledger.set_file_digest(&digest(b"x")).unwrap();
    ledger.set_drained(&[drained("b"), drained("a"), drained("b")]).unwrap();
    drop(ledger);
    let mut ledger = open(state.path());
    assert_eq!(ledger.file_digest(), Some(digest(b"x").as_str()));
    assert_eq!(ledger.drained(), [drained("a"), drained("b")]);
    ledger.set_drained(&[]).unwrap();
    drop(ledger);
    assert_eq!(open(state.path()).drained(), []);
}

#[test]
fn a_damaged_newest_file_leaves_the_older_one_in_force_and_its_number_unused() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    ledger.append(new("one")).unwrap();
    ledger.append(new("two")).unwrap();
    drop(ledger);
    let text = fs::read_to_string(path(state.path(), 2)).unwrap();
    fs::write(path(state.path(), 2), text.replace("two", "six")).unwrap();
    let (mut ledger, problems) = Ledger::open(state.path()).unwrap();
    assert_eq!(ledger.in_force().unwrap().document, "one");
    assert!(problems[0].contains("00000002.json"), "{problems:?}");
    assert!(problems[0].contains("checksum"), "{problems:?}");
    assert!(problems[1].contains("revision 1 is in force"), "{problems:?}");
    assert_eq!(ledger.get(2).unwrap(), None);
    assert_eq!(ledger.append(new("three")).unwrap().revision, 3);
}

#[test]
fn a_file_under_another_number_is_not_loaded() {
    let state = tempfile::tempdir().unwrap();
    open(state.path()).append(new("one")).unwrap();
    fs::copy(path(state.path(), 1), path(state.path(), 9)).unwrap();
    fs::write(state.path().join("revisions/notes.txt"), "hello").unwrap();
    let (ledger, problems) = Ledger::open(state.path()).unwrap();
    assert_eq!(ledger.in_force().unwrap().revision, 1);
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn what_a_killed_writer_left_is_deleted_and_not_loaded() {
    let state = tempfile::tempdir().unwrap();
    open(state.path()).append(new("one")).unwrap();
    let left = state.path().join("revisions/00000002.json.new");
    fs::copy(path(state.path(), 1), &left).unwrap();
    let mut ledger = open(state.path());
    assert!(!left.exists());
    assert_eq!(ledger.append(new("two")).unwrap().revision, 2);
}

#[test]
fn a_failed_write_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    ledger.append(new("one")).unwrap();
    let revisions = state.path().join("revisions");
    let away = state.path().join("away");
    fs::rename(&revisions, &away).unwrap();
    let error = ledger.append(new("two")).unwrap_err();
    assert!(matches!(error, LedgerError::Write { .. }), "{error}");
    assert_eq!(ledger.in_force().unwrap().revision, 1);
    fs::rename(&away, &revisions).unwrap();
    // A directory in the place of the file: the rename fails after the bytes were written.
    fs::create_dir(path(state.path(), 2)).unwrap();
    ledger.append(new("two")).unwrap_err();
    assert_eq!(fs::read_dir(&revisions).unwrap().count(), 2);
    fs::remove_dir(path(state.path(), 2)).unwrap();
    assert_eq!(ledger.append(new("two")).unwrap().revision, 2);
    fs::create_dir(state.path().join("drained.json")).unwrap();
    ledger.set_drained(&[DrainedBackend { pool: "p".into(), backend: "b".into() }]).unwrap_err();
    assert_eq!(ledger.drained(), []);
}

#[test]
fn what_a_restart_could_not_read_is_not_written() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    ledger.append(new("one")).unwrap();
    // Far below what a message may have, and six times as long in JSON.
    let hostile = "\u{1}".repeat(17 * 1024 * 1024);
    let error = ledger.append(new(&hostile)).unwrap_err();
    assert!(matches!(error, LedgerError::TooLong { bytes, .. } if bytes > hostile.len() * 6));
    assert!(error.to_string().contains("00000002.json"), "{error}");
    // Nor with pages that are too much together.
    let page = |n: u8| KeptPage { url: format!("http://a/{n}"), body: vec![n; 1 << 20].into() };
    let error = ledger.append_with(new("two"), (0..80).map(page).collect()).unwrap_err();
    assert!(matches!(error, LedgerError::TooLong { .. }), "{error}");
    let long = DrainedBackend { pool: hostile, backend: "b".into() };
    let error = ledger.set_drained(&[long]).unwrap_err();
    assert!(matches!(error, LedgerError::TooLong { .. }), "{error}");
    assert_eq!((ledger.in_force().unwrap().revision, ledger.list().len()), (1, 1));
    assert_eq!(ledger.drained(), []);
    assert_eq!(fs::read_dir(state.path().join("revisions")).unwrap().count(), 1);
    assert_eq!(ledger.append(new("two")).unwrap().revision, 2);
    drop(ledger);
    assert_eq!(open(state.path()).in_force().unwrap().document, "two");
}

#[test]
fn damaged_notes_are_reported_and_left_out() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("drained.json"), "[{\"pool\":\"p\"").unwrap();
    fs::write(state.path().join("file.json"), "").unwrap();
    let (ledger, problems) = Ledger::open(state.path()).unwrap();
    assert_eq!((ledger.drained(), ledger.file_digest()), (&[][..], None));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn two_supervisors_cannot_share_a_ledger() {
    let state = tempfile::tempdir().unwrap();
    let _first = open(state.path());
    assert!(matches!(Ledger::open(state.path()), Err(LedgerError::InUse { .. })));
}

#[test]
fn only_the_last_hundred_are_kept() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    for n in 1..=103 {
        ledger.append(new(&n.to_string())).unwrap();
    }
    assert_eq!(ledger.list().first().unwrap().revision, 4);
    assert_eq!(fs::read_dir(state.path().join("revisions")).unwrap().count(), 100);
    drop(ledger);
    assert_eq!(open(state.path()).in_force().unwrap().document, "103");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_or_changed_file_is_never_loaded_as_something_else(at in 0_usize..400, byte: Option<u8>) {
        let state = tempfile::tempdir().unwrap();
        let mut ledger = open(state.path());
        ledger.append(new("one")).unwrap();
        let two = ledger.append(new("two")).unwrap();
        drop(ledger);
        let mut bytes = fs::read(path(state.path(), 2)).unwrap();
        let at = at % bytes.len();
        match byte {
            Some(byte) => bytes[at] = byte,
            None => bytes.truncate(at),
        }
        fs::write(path(state.path(), 2), bytes).unwrap();
        let (ledger, _) = Ledger::open(state.path()).unwrap();
        let in_force = ledger.in_force().unwrap();
        prop_assert!(in_force.document == "one" || *in_force == two);
    }
}

#[test]
fn pages_are_kept_with_their_revision_and_a_revision_without_any_looks_as_ever() {
    let state = tempfile::tempdir().unwrap();
    let mut ledger = open(state.path());
    let page = KeptPage { url: "http://a/".into(), body: b"\xff<p>".as_slice().into() };
    ledger.append_with(new("one"), vec![page.clone()]).unwrap();
    ledger.append(new("two")).unwrap();
    drop(ledger);
    let ledger = open(state.path());
    assert_eq!(ledger.get(1).unwrap().unwrap().pages, [page]);
    assert_eq!(ledger.in_force().unwrap().pages, []);
    let text = |number| fs::read_to_string(path(state.path(), number)).unwrap();
    assert!(text(1).contains("pages") && !text(2).contains("pages"));
}
