//! Ends under TLS see each byte once and each end for what it is, and take nothing for an end that is none.

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use crate::checker::Damage;
use crate::tls::{Certificate, Starter};
use crate::wire::{Wire, damage};

/// More than a session keeps, and than the kernel does.
const MUCH: usize = 8 << 20;
/// No divisor of a record's length.
const PIECE: usize = 10_007;

/// Both ends of a connection that blocks, in different hands; `old`: of TLS 1.2.
fn pair(old: bool) -> [Wire; 2] {
    let directory = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(directory.path()).unwrap();
    let [client, server] = connection();
    let client = Starter::of_client(&certificate).unwrap().begin(client, old).unwrap();
    [client, Starter::of_server(&certificate).unwrap().begin(server, old).unwrap()]
}

fn connection() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    [one, listener.accept().unwrap().0]
}

/// After a byte each way, so that the handshake is over.
fn talking(old: bool) -> [Wire; 2] {
    let [mut client, mut server] = pair(old);
    let serving = thread::spawn(move || {
        assert_eq!(server.read(&mut [0; 9]).unwrap(), 1);
        send(&mut server, b"b", 0);
        server
    });
    send(&mut client, b"a", 0);
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 1);
    [client, serving.join().unwrap()]
}

/// Sends all of it, with a key update every so many pieces.
fn send(wire: &mut Wire, bytes: &[u8], every: usize) {
    for (place, piece) in bytes.chunks(PIECE).enumerate() {
        if every > 0 && place % every == 0 {
            wire.change_keys().unwrap();
        }
        let mut rest = piece;
        while !rest.is_empty() {
            match wire.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => assert!(wire.hesitates(), "{error}"),
            }
        }
    }
    while !wire.flush().unwrap() {}
}

fn end(wire: &mut Wire) {
    while !wire.end().unwrap() {}
}

/// Everything up to the end, or what is there in its place.
fn receive(wire: &mut Wire) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 5000]);
    loop {
        match wire.read(&mut buffer) {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn pattern() -> Vec<u8> {
    (0..MUCH).map(|place| (place % 251) as u8).collect()
}

#[test]
fn a_half_that_has_ended_leaves_the_other_one_alone() {
    for old in [false, true] {
        let [mut client, mut server] = pair(old);
        let serving = thread::spawn(move || {
            let (came, how) = receive(&mut server);
            how.unwrap();
            // The handshake is over, so that every record can be in pieces.
            server.shred(7);
            send(&mut server, &came, 100);
            end(&mut server);
            server.key_updates()
        });
        send(&mut client, &pattern(), 100);
        end(&mut client);
        let (came, how) = receive(&mut client);
        how.unwrap();
        assert!(came == pattern(), "{} bytes came back", came.len());
        let updates = [client.key_updates(), serving.join().unwrap()];
        // With every hundredth piece, though the other side says nothing meanwhile; the client's first one comes before
        // there are keys.
        let all = MUCH.div_ceil(PIECE).div_ceil(100) as u64;
        assert_eq!(updates, if old { [0, 0] } else { [all - 1, all] });
    }
}

#[test]
fn an_end_without_close_notify_is_none() {
    for old in [false, true] {
        let [mut client, mut server] = talking(old);
        send(&mut server, b"last words", 0);
        server.socket().shutdown(Shutdown::Write).unwrap();
        let (came, end) = receive(&mut client);
        assert_eq!(came, b"last words");
        assert_eq!(damage(&end.unwrap_err()), Damage::EndedEarly);
    }
}

#[test]
fn a_record_that_was_not_sealed_is_told_and_the_other_side_hears_of_it() {
    for old in [false, true] {
        let [mut client, mut server] = talking(old);
        let record = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
        server.socket().write_all(&record).unwrap();
        let (came, end) = receive(&mut client);
        assert_eq!(came, b"");
        assert_eq!(damage(&end.unwrap_err()), Damage::Corrupted);
        assert!(client.flush().unwrap());
        assert_eq!(damage(&receive(&mut server).1.unwrap_err()), Damage::Reset);
    }
}

#[test]
fn nobody_else_is_taken_for_the_gateway() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, other] = directories.each_ref().map(|it| Certificate::make(it.path()).unwrap());
    let [client, server] = connection();
    let mut server = Starter::of_server(&other).unwrap().begin(server, false).unwrap();
    let serving = thread::spawn(move || server.read(&mut [0; 9]).is_err());
    let mut client = Starter::of_client(&one).unwrap().begin(client, false).unwrap();
    client.write(b"a").unwrap_err();
    drop(client);
    assert!(serving.join().unwrap());
}
