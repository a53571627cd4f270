//! Counters that are read while the peer is busy on another processor.

use super::*;

/// The far end talks, listens and ends while the near end is looked at all the time.
fn race(seed: u64, length: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let (opener, acceptor) = tcp_pair();
    let (far, near) = if random.random() { (opener, acceptor) } else { (acceptor, opener) };
    let base = snapshot(&near).baseline();
    let (said, told) = (noise(seed, length), noise(seed + 1, length));
    std::thread::scope(|scope| {
        let (said, told_len) = (&said, told.len());
        // Closed when a check fails, so that the far end gives up.
        let near = near;
        scope.spawn(move || {
            let (mut sent, mut heard) = (0, 0);
            let mut buffer = vec![0; 4096];
            loop {
                if sent < said.len() {
                    let end = said.len().min(sent + 1500);
                    sent += progress_of(sys::send(far.as_fd(), &said[sent..end]));
                    if sent == said.len() {
                        sys::finish(far.as_fd());
                    }
                }
                match sys::receive(far.as_fd(), &mut buffer) {
                    Ok(0) if sent == said.len() => break,
                    outcome => heard += progress_of(outcome),
                }
            }
            assert_eq!(heard, told_len);
        });
        let (mut read, mut sent, mut ended) = (0_u64, 0_usize, false);
        let mut buffer = vec![0; 4096];
        while !(ended && sent == told.len()) {
            let found = snapshot(&near);
            assert_eq!(found.consumed(false), base.received + read, "{found:?}");
            assert!(
                found.own_fin() || found.accepted() == base.accepted + sent as u64,
                "{found:?}"
            );
            if sent < told.len() {
                let end = told.len().min(sent + random.random_range(1..3000));
                sent += progress_of(sys::send(near.as_fd(), &told[sent..end]));
                if sent == told.len() {
                    sys::finish(near.as_fd());
                }
            }
            let most = random.random_range(1..=buffer.len());
            if random.random() {
                match sys::receive(near.as_fd(), &mut buffer[..most]) {
                    Ok(0) => ended = true,
                    outcome => read += progress_of(outcome) as u64,
                }
            }
        }
        assert_eq!(read, said.len() as u64);
        for _ in 0..20 {
            assert_eq!(snapshot(&near).consumed(false), base.received + read);
        }
    });
}

fn progress_of(outcome: Result<usize, Errno>) -> usize {
    outcome.or_else(|error| if error == Errno::AGAIN { Ok(0) } else { Err(error) }).unwrap()
}

#[test]
fn counters_hold_while_the_peer_sends_and_acknowledges() {
    for seed in 0..2 {
        race(seed, 1_000_000);
    }
}

#[test]
fn counters_hold_while_the_connection_ends() {
    // Several at once: where packets are lost, a SYN costs a second.
    std::thread::scope(|scope| {
        for part in 0..6 {
            scope.spawn(move || (50 * part..50 * (part + 1)).for_each(|seed| race(seed, 2000)));
        }
    });
}
