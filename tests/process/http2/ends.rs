//! Ends of HTTP/2 connections: nobody loses the tail of an answer over one, nor the reason.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::Stage;
use crate::harness::Frames;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// `END_STREAM` of an answer, and ACK of PING and SETTINGS.
const END: u8 = 1;
/// `END_HEADERS` and `END_STREAM`.
const WHOLE: u8 = 5;
/// Requests of a connection.
const MOST: u32 = 1000;
/// More than a kernel keeps for a client that has yet to read it.
const LARGE: usize = 6 << 20;

/// A backend that answers `/N` with N bytes, and anything else with two.
fn sized_backend() -> SocketAddr {
    fn serve(mut stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if lines.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let size = head.split(' ').nth(1).and_then(|path| path[1..].parse().ok()).unwrap_or(2);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(answer.as_bytes())?;
            stream.write_all(&vec![b'z'; size])?;
        }
    }
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            std::thread::spawn(move || drop(serve(&stream)));
        }
    });
    address
}

/// Asks so many times for something small and waits for the answers; answers the next stream's number.
fn ask_often(client: &mut Frames, times: u32) -> u32 {
    let request = Frames::get("chat.test");
    let mut stream = 1;
    let mut left = times;
    while left > 0 {
        let batch = left.min(100);
        for _ in 0..batch {
            client.write(HEADERS, WHOLE, stream, &request).unwrap();
            stream += 2;
        }
        let mut ended = 0;
        while ended < batch {
            let frame = client.read().unwrap();
            let is_answers = frame.kind == DATA || frame.kind == HEADERS;
            ended += u32::from(is_answers && frame.flags & END != 0);
        }
        left -= batch;
    }
    stream
}

#[test]
fn the_last_answer_is_whole_for_a_slow_client_that_goes_on_talking() {
    let stage = Stage::before(sized_backend(), |document| document);
    let mut client = Frames::connect_narrow(stage.port, &stage.certificate, 32 * 1024);
    // It would take everything at once, and has room for little: what it is sent waits in the gateway's kernel.
    let window = 1_u32 << 30;
    client.write(SETTINGS, 0, 0, &[&[0, 4], &window.to_be_bytes()[..]].concat()).unwrap();
    client.write(WINDOW_UPDATE, 0, 0, &window.to_be_bytes()).unwrap();
    let stream = ask_often(&mut client, MOST - 1);

    let request = Frames::get_path("chat.test", &format!("/{LARGE}"));
    client.write(HEADERS, WHOLE, stream, &request).unwrap();
    let (mut whole, mut ended, mut told) = (0, false, false);
    while !ended {
        // Its reading is slow beside that: the gateway is done with it long before it has all.
        for _ in 0..20 {
            let said = client.write(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
            said.expect("the connection breaks off");
        }
        let frame = client.read().expect("the answer breaks off");
        match frame.kind {
            DATA if frame.stream == stream => {
                whole += frame.payload.len();
                ended = frame.flags & END != 0;
            }
            PING if frame.flags & END == 0 => client.write(PING, END, 0, &frame.payload).unwrap(),
            GOAWAY => told = true,
            _ => {}
        }
    }
    assert_eq!(whole, LARGE);
    assert!(told, "it is the last one");
    client.end();
}

#[test]
fn a_client_in_error_hears_which_though_it_goes_on_sending() {
    let stage = Stage::before(sized_backend(), |document| document);
    let mut client = stage.frames();
    // DATA of no stream: PROTOCOL_ERROR (RFC 9113, section 6.1).
    client.write(DATA, 0, 0, b"x").unwrap();
    // It must be through before the gateway has lingered long enough.
    for _ in 0..64 {
        client.write(DATA, 0, 1, &[0; 16 * 1024]).expect("the connection breaks off");
    }
    loop {
        let frame = client.read().expect("no reason is told");
        if frame.kind == GOAWAY {
            assert_eq!(frame.payload[4..8], 1_u32.to_be_bytes(), "{frame:?}");
            break;
        }
    }
    client.end();
}
