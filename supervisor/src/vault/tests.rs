//! The vault over real sockets, with this process as all of its workers.

use std::io::Read;
use std::os::fd::AsFd;

use holdfast_proto::control::vault_reply::{self, Granted, Kind as Reply};
use holdfast_proto::control::vault_request::{self, Attach, Kind as Request};
use holdfast_proto::control::{Held, VaultRequest};
use holdfast_proto::vault::MOST_TUNNELS;

use super::*;

mod stage;

use stage::{Actor, PATIENCE, Stage, VERSION, address, deposit, legs, memfd, release};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_tunnels_go_to_the_successor_within_its_window() {
    let stage = Stage::new().await;
    let total = u64::try_from(2000.min(stage.vault.holdings().descriptors_left / 2)).unwrap();
    let (_reader, leg) = legs();
    let first = stage.worker(1, 1).await;
    let ids: Vec<u64> = (0..total).collect();
    for some in ids.chunks(MOST_TUNNELS) {
        let stored = first.deposit(some, &vec![leg.as_fd(); 2 * some.len()]).await;
        assert_eq!((stored.ids.as_slice(), stored.refused.len()), (some, 0));
    }
    assert_eq!(stage.held(1) as u64, total);
    assert_eq!(stage.vault.protected(address(1), 1) as u64, total);

    let second = stage.actor(1, 2);
    let (granted, fds) = second.attach().await;
    assert!(granted.arena && fds.len() == 1, "{granted:?}");
    assert_eq!(granted.tunnels, total);
    let successor = vault_reply::Successor { generation: 2 };
    assert_eq!(first.hear().await.0, Reply::Successor(successor));
    // Without a window nothing comes: the answer to a deposit is the next thing heard.
    assert_eq!(second.deposit(&[9000], &[leg.as_fd(); 2]).await.ids, [9000]);
    let (mut came, mut window) = (Vec::new(), 0);
    while (came.len() as u64) < total {
        if window == 0 {
            window = 300;
            second.window(300).await;
        }
        let (tunnels, fds) = second.handed().await;
        assert_eq!(fds.len(), 2 * tunnels.len());
        window = tunnels.len().abs_diff(window).min(window - tunnels.len());
        came.extend(tunnels.iter().map(|held| held.id));
        assert!(tunnels.iter().all(|held| u64::from(held.index) == held.id));
    }
    assert_eq!(came, ids);
    assert!(matches!(second.hear().await.0, Reply::HandedAll(_)));
    // What the predecessor deposits from now on comes too.
    second.window(10).await;
    first.deposit(&[8000], &[leg.as_fd(); 2]).await;
    assert_eq!(second.handed().await.0, [Held { id: 8000, index: 8000 }]);
}

#[tokio::test]
async fn a_released_tunnel_is_closed_here_and_told_to_whoever_has_it() {
    let stage = Stage::new().await;
    let first = stage.worker(1, 1).await;
    let (mut reader, leg) = legs();
    first.deposit(&[1, 2], &[leg.as_fd(); 4]).await;
    drop(leg);
    let second = stage.worker(1, 2).await;
    second.window(1).await;
    let (tunnels, legs) = second.handed().await;
    assert_eq!(tunnels, [Held { id: 1, index: 1 }]);
    drop(legs);
    first.say(release(&[1, 2, 3]), &[]).await;
    // The other one was never handed, and never will be.
    assert!(matches!(second.hear().await.0, Reply::HandedAll(_)));
    assert_eq!(second.hear().await.0, Reply::Released(vault_reply::Released { ids: vec![1] }));
    assert_eq!(stage.held(1), 0);
    // Ends when nobody holds the writing end.
    let end = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_handover_is_told_to_both_sides() {
    let stage = Stage::new().await;
    let (_reader, leg) = legs();
    let first = stage.worker(1, 1).await;
    first.deposit(&[1], &[leg.as_fd(); 2]).await;
    let second = stage.worker(1, 2).await;
    assert!(matches!(first.hear().await.0, Reply::Successor(_)));
    first.say(Request::Frozen(vault_request::Frozen { ids: vec![1, 99] }), &[]).await;
    second.window(1).await;
    assert_eq!(second.handed().await.0.len(), 1);
    assert!(matches!(second.hear().await.0, Reply::HandedAll(_)));
    let frozen = vault_reply::Frozen { from_generation: 1, ids: vec![1] };
    assert_eq!(second.hear().await.0, Reply::Frozen(frozen));
    let adopted = vault_request::Adopted { from_generation: 1, ids: vec![1] };
    second.say(Request::Adopted(adopted), &[]).await;
    assert_eq!(first.hear().await.0, Reply::Adopted(vault_reply::Adopted { ids: vec![1] }));
    assert_eq!(stage.vault.protected(address(1), 2), 1);
    // The predecessor is left alone, and would get it back if its successor died.
    first.window(1).await;
    drop(second);
    assert_eq!(first.hear().await.0, Reply::Successor(vault_reply::Successor { generation: 0 }));
    assert_eq!(first.handed().await.0, [Held { id: 1, index: 1 }]);
}

#[tokio::test]
async fn a_deposit_beyond_the_budget_is_refused_with_the_reason() {
    let stage = Stage::with(Vault::within(|| 8)).await;
    let (_reader, leg) = legs();
    let worker = stage.worker(1, 1).await;
    // An arena and a channel are held already.
    let stored = worker.deposit(&[1, 2, 3, 4], &[leg.as_fd(); 8]).await;
    assert_eq!((stored.ids, stored.refused), (vec![1, 2, 3], vec![4]));
    assert!(stored.reason.contains("descriptors"), "{}", stored.reason);
    assert_eq!(stage.vault.holdings().descriptors_left, 0);
    worker.say(release(&[2]), &[]).await;
    assert_eq!(worker.deposit(&[4], &[leg.as_fd(); 2]).await.ids, [4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_reading_holds_up_nobody_else() {
    let stage = Stage::new().await;
    let (_reader, leg) = legs();
    let stuck = Arc::new(stage.worker(1, 1).await);
    stuck.deposit(&[7], &[leg.as_fd(); 2]).await;
    let (sender, fd) = (stuck.clone(), leg.try_clone().unwrap());
    let mut sending = tokio::spawn(async move {
        for _ in 0..20_000 {
            // Refused, so that each has an answer of its own, which is never read.
            let tunnels = vec![Held { id: 7, index: 8 }];
            let wrong = vault_request::Deposit { tunnels };
            sender.say(Request::Deposit(wrong), &[fd.as_fd(); 2]).await;
        }
    });
    let other = stage.worker(2, 1).await;
    for id in 0..500 {
        assert_eq!(other.deposit(&[id], &[leg.as_fd(); 2]).await.ids, [id]);
    }
    assert_eq!(stage.held(2), 500);
    // It has not been read to its end; once it reads, it is.
    let short = tokio::time::timeout(Duration::from_millis(300), &mut sending).await;
    assert!(short.is_err(), "20000 answers cannot wait here");
    let reading = async { while stuck.heard().await.is_some() {} };
    tokio::select! {
        () = reading => panic!("the channel ended"),
        sent = tokio::time::timeout(PATIENCE, sending) => sent.unwrap().unwrap(),
    }
}

#[tokio::test]
async fn another_listener_and_another_layout_get_nothing() {
    let stage = Stage::new().await;
    let (_reader, leg) = legs();
    let worker = stage.worker(1, 1).await;
    worker.deposit(&[1, 2], &[leg.as_fd(); 4]).await;
    let other = stage.worker(2, 9).await;
    other.window(100).await;
    let newer = stage.actor(1, 9);
    let layout = Attach { arena_version: VERSION + 1, ..Attach::default() };
    let (granted, _) = newer.attach_with(layout, &[]).await;
    assert_eq!(granted, Granted::default());
    newer.window(100).await;
    assert!(matches!(newer.hear().await.0, Reply::HandedAll(_)));
    // It knows no arena, so it has nothing to deposit; one in another's arena would be mistaken for the other's.
    let stored = newer.deposit(&[5], &[leg.as_fd(); 2]).await;
    assert_eq!(stored.refused, [5]);
    // Answers, and no more.
    worker.deposit(&[3], &[leg.as_fd(); 2]).await;
    assert_eq!(newer.deposit(&[6], &[leg.as_fd(); 2]).await.refused, [6]);
    assert_eq!(other.deposit(&[1], &[leg.as_fd(); 2]).await.ids, [1]);
    assert_eq!((stage.held(1), stage.held(2)), (3, 1));
}

#[tokio::test]
async fn what_is_deposited_again_is_held_once() {
    let stage = Stage::new().await;
    let (mut reader, leg) = legs();
    let worker = stage.worker(1, 1).await;
    worker.deposit(&[1], &[leg.as_fd(); 2]).await;
    // Dials again, as after a supervisor's death: the earlier channel ends.
    let again = stage.redial(&worker);
    let (granted, _) = again.attach().await;
    assert!(granted.arena);
    assert!(worker.heard().await.is_none());
    assert_eq!(again.deposit(&[1], &[leg.as_fd(); 2]).await.ids, [1]);
    let elsewhere = vault_request::Deposit { tunnels: vec![Held { id: 1, index: 2 }] };
    again.say(Request::Deposit(elsewhere), &[leg.as_fd(); 2]).await;
    let answer = loop {
        if let Reply::Stored(stored) = again.hear().await.0 {
            break stored;
        }
    };
    assert_eq!(answer.refused, [1]);
    assert_eq!(stage.held(1), 1);
    drop(leg);
    again.say(release(&[1]), &[]).await;
    let end = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_first_arena_and_tally_win() {
    let stage = Stage::new().await;
    let (first, second) = (stage.actor(1, 1), stage.actor(1, 2));
    assert_eq!(first.attach().await.0, Granted::default());
    assert_eq!(second.attach().await.0, Granted::default());
    let both = || Request::Keep(vault_request::Keep { arena: true, tally: true });
    let (arena, tally) = (memfd(), memfd());
    first.say(both(), &[arena.as_fd(), tally.as_fd()]).await;
    let (_, other) = (memfd(), memfd());
    let kept = async |worker: &Actor| loop {
        if let (Reply::Kept(_), fds) = worker.hear().await {
            break fds;
        }
    };
    let in_force = kept(&first).await;
    assert!(in_force[0].same(&arena) && in_force[1].same(&tally));
    second.say(both(), &[other.as_fd(), other.as_fd()]).await;
    let in_force = kept(&second).await;
    assert!(in_force[0].same(&arena) && in_force[1].same(&tally));

    // Brought by one that outlived a supervisor: the same ones are not given back, others are.
    let bringing =
        || Attach { arena: true, tally: true, arena_version: VERSION, ..Attach::default() };
    let again = stage.redial(&first);
    let (granted, fds) = again.attach_with(bringing(), &[arena.as_fd(), tally.as_fd()]).await;
    assert!(!granted.arena && !granted.tally && fds.is_empty());
    let stray = stage.actor(1, 3);
    let (granted, fds) = stray.attach_with(bringing(), &[other.as_fd(), tally.as_fd()]).await;
    assert!(granted.arena && !granted.tally && fds[0].same(&arena));
    // Its records are not in the arena in force, so it neither gives nor takes.
    let (_reader, leg) = legs();
    let stored = stray.deposit(&[1], &[leg.as_fd(); 2]).await;
    assert_eq!((stored.refused, stored.reason.is_empty()), (vec![1], false));
    stray.window(10).await;
    again.deposit(&[1], &[leg.as_fd(); 2]).await;
    assert_eq!(stray.deposit(&[2], &[leg.as_fd(); 2]).await.refused, [2]);
}

#[tokio::test]
async fn a_supervisors_death_is_survived_by_what_the_workers_bring() {
    let stage = Stage::new().await;
    let (arena, (_reader, leg)) = (memfd(), legs());
    let bringing = || Attach { arena: true, arena_version: VERSION, ..Attach::default() };
    // The successor is faster; neither has a window for what it has already.
    let (successor, predecessor) = (stage.actor(1, 2), stage.actor(1, 1));
    successor.attach_with(bringing(), &[arena.as_fd()]).await;
    successor.deposit(&[1, 2], &[leg.as_fd(); 4]).await;
    predecessor.attach_with(bringing(), &[arena.as_fd()]).await;
    assert!(matches!(predecessor.hear().await.0, Reply::Successor(_)));
    predecessor.deposit(&[2, 3], &[leg.as_fd(); 4]).await;
    successor.window(100).await;
    assert_eq!(successor.handed().await.0, [Held { id: 3, index: 3 }]);
    assert_eq!(stage.held(1), 3);
}

#[tokio::test]
async fn a_listening_socket_goes_down_once_and_is_brought_back() {
    let stage = Stage::new().await;
    let listening = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let worker = stage.actor(1, 1);
    stage.office.sockets.lock().unwrap().insert(worker.number, Some(listening.clone()));
    let (granted, fds) = worker.attach().await;
    assert!(granted.listening_socket && fds.len() == 1);
    let socket = TcpListener::from(fds.into_iter().next().unwrap());
    assert_eq!(socket.local_addr().unwrap(), listening.local_addr().unwrap());
    let again = stage.redial(&worker);
    let brings = Attach { listening_socket: true, ..Attach::default() };
    let (granted, fds) = again.attach_with(brings, &[socket.as_fd()]).await;
    assert!(!granted.listening_socket && fds.is_empty());
    let came = stage.office.came.lock().unwrap().clone();
    assert_eq!(came, [(worker.number, false), (worker.number, true)]);
    // One that is to drain is let in all the same: it has tunnels.
    let draining = stage.actor(1, 2);
    assert_eq!(draining.attach().await.0, Granted::default());
    // One that nobody has written down yet dials again.
    stage.office.sockets.lock().unwrap().clear();
    let early = stage.redial(&draining);
    assert_eq!(early.attach().await.0.refusal, "unknown");
    assert!(early.heard().await.is_none());
}

#[tokio::test]
async fn strangers_and_bad_messages_end_their_channel_and_no_other() {
    let stage = Stage::new().await;
    let (_reader, leg) = legs();
    let good = stage.worker(1, 1).await;
    let stranger =
        Actor { hello: Hello { token: "guess".into(), ..good.hello.clone() }, ..stage.actor(1, 2) };
    assert!(stranger.attach().await.0.refusal.contains("token"));
    assert!(stranger.heard().await.is_none());

    let first: [(VaultRequest, usize); 4] = [
        (VaultRequest { kind: None }, 0),
        (release(&[1]).into(), 0),
        (Request::Attach(Attach::default()).into(), 1),
        (Request::Attach(Attach { arena: true, ..Attach::default() }).into(), 0),
    ];
    for (message, fds) in first {
        let bad = stage.actor(1, 2);
        bad.end.send(&message, &vec![leg.as_fd(); fds]).await.unwrap();
        assert!(bad.heard().await.is_none(), "{message:?}");
    }
    let later: [(VaultRequest, usize, u32); 6] = [
        (VaultRequest { kind: None }, 0, VERSION),
        (Request::Attach(Attach::default()).into(), 0, VERSION),
        (deposit(&[5]).into(), 1, VERSION),
        (release(&[5]).into(), 2, VERSION),
        (deposit(&[5]).into(), 2, 0),
        (Request::Keep(vault_request::Keep { arena: true, tally: false }).into(), 1, 0),
    ];
    for (message, fds, arena_version) in later {
        let bad = stage.actor(2, 2);
        bad.attach_with(Attach { arena_version, ..Attach::default() }, &[]).await;
        bad.end.send(&message, &vec![leg.as_fd(); fds]).await.unwrap();
        while let Some((reply, _)) = bad.heard().await {
            assert!(matches!(reply, Reply::HandedAll(_)), "{reply:?}");
        }
    }
    assert_eq!(good.deposit(&[1], &[leg.as_fd(); 2]).await.ids, [1]);
    assert_eq!((stage.held(1), stage.held(2)), (1, 0));
}

#[tokio::test]
async fn what_a_listener_has_goes_with_its_last_tenancy() {
    let stage = Stage::new().await;
    let (mut reader, leg) = legs();
    let (one, another) = (stage.vault.tenancy(address(1)), stage.vault.tenancy(address(1)));
    let worker = stage.worker(1, 1).await;
    worker.deposit(&[1], &[leg.as_fd(); 2]).await;
    drop((leg, worker, one));
    assert_eq!(stage.held(1), 1);
    drop(another);
    assert_eq!(stage.vault.holdings().tunnels, BTreeMap::new());
    let end = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_end_hangs_up() {
    let stage = Stage::new().await;
    let worker = stage.worker(1, 1).await;
    stage.vault.end();
    assert!(worker.heard().await.is_none());
}
