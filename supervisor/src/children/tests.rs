//! Who is believed, who is listed, and which numbers are given.

use super::*;

fn hello(token: &str, id: ProcessId) -> Hello {
    Hello {
        protocol: holdfast_proto::PROTOCOL,
        pid: id.pid,
        start_time: id.start_time,
        token: token.to_owned(),
        ..Hello::default()
    }
}

#[tokio::test]
async fn a_child_that_has_ended_is_not_left_behind_even_before_anybody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let id = ProcessId::of(child.id()).unwrap();
    let first = Children::new(dir.path());
    first.born(&first.expect(Role::Prober), id).unwrap();
    holdfast_proto::process::gone(id).await;
    assert!(Children::new(dir.path()).left_behind().is_empty());
    child.wait().unwrap();
}

#[test]
fn a_child_is_known_by_token_pid_and_start_time() {
    let dir = tempfile::tempdir().unwrap();
    let children = Children::new(dir.path());
    let me = ProcessId::me().unwrap();
    let child = children.expect(Role::Prober);
    assert_eq!(
        children.recognise(&hello(&child.token, me), me.pid).unwrap_err(),
        Stranger::Process
    );
    children.born(&child, me).unwrap();
    assert!(children.recognise(&hello(&child.token, me), me.pid).is_ok());
    assert_eq!(children.recognise(&hello("guess", me), me.pid).unwrap_err(), Stranger::Token);
    assert_eq!(children.recognise(&hello(&child.token, me), 1).unwrap_err(), Stranger::Process);
    let later = ProcessId { start_time: me.start_time + 1, ..me };
    let error = children.recognise(&hello(&child.token, later), me.pid).unwrap_err();
    assert_eq!(error, Stranger::Process);
}

#[test]
fn the_list_names_the_living_only() {
    let dir = tempfile::tempdir().unwrap();
    let children = Children::new(dir.path());
    let me = ProcessId::me().unwrap();
    let living = children.expect(Role::Prober);
    children.born(&living, me).unwrap();
    let dead = children.expect(Role::Prober);
    children.born(&dead, ProcessId { pid: me.pid, start_time: 1 }).unwrap();
    let left = Children::new(dir.path()).left_behind();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].token, living.token);
    children.gone(&living);
    assert!(Children::new(dir.path()).left_behind().is_empty());
}

#[test]
fn a_generation_is_above_all_that_live_and_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let children = Children::new(dir.path());
    assert_eq!(children.next_generation(), 1);
    let worker = |port, generation| Role::Worker {
        listener: SocketAddr::from(([127, 0, 0, 1], port)),
        generation,
    };
    children.expect(worker(80, 2));
    let ninth = children.expect(worker(81, 9));
    assert_eq!(children.next_generation(), 10);
    children.gone(&ninth);
    assert_eq!(children.next_generation(), 11);
}

#[test]
fn nobody_waits_behind_the_writing_of_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let children = Children::new(dir.path());
    let me = ProcessId::me().unwrap();
    let child = children.expect(Role::Prober);
    children.born(&child, me).unwrap();
    let writing = children.writing.lock().unwrap();
    assert!(children.recognise(&hello(&child.token, me), me.pid).is_ok());
    drop(writing);
}

#[test]
fn an_adopted_child_is_listed_still_after_another_is_born() {
    let dir = tempfile::tempdir().unwrap();
    let me = ProcessId::me().unwrap();
    let first = Children::new(dir.path());
    first.born(&first.expect(Role::Prober), me).unwrap();
    let second = Children::new(dir.path());
    let adopted = second.adopt_left_behind();
    second.born(&second.expect(Role::Prober), me).unwrap();
    let left = Children::new(dir.path()).left_behind();
    assert!(left.iter().any(|listed| listed.token == adopted[0].token));
}
