//! A backend that shows what has reached it: it answers every request with the request's own head, and keeps it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A mirror; its threads end with the test's process.
pub(crate) struct Mirror {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    /// Starts one on 127.0.0.1 whose answers carry these header lines, too.
    pub(crate) fn start(fields: &'static [&'static str]) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || drop(serve(&stream, fields, &kept)));
            }
        });
        Self { address, heads }
    }

    /// Heads of the requests that have come, probes left out.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// The value of a header in a head; its lines joined with `|`.
pub(crate) fn field(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let values: Vec<_> =
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.join("|"))
}

fn serve(mut stream: &TcpStream, fields: &[&str], heads: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if lines.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.contains(" /healthz ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        heads.lock().unwrap().push(head.clone());
        let more: String = fields.iter().flat_map(|field| [field, "\r\n"]).collect();
        if field(&head, "upgrade").is_none() {
            let length = head.len();
            let answer = format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n{head}");
            stream.write_all(answer.as_bytes())?;
            continue;
        }
        if head.starts_with("GET /refuse") {
            let answer = format!("HTTP/1.1 403 Forbidden\r\n{more}Content-Length: 2\r\n\r\nno");
            return stream.write_all(answer.as_bytes());
        }
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\n{more}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        stream.write_all(answer.as_bytes())?;
        return echo(&mut lines, stream);
    }
}

/// Sends short messages back, without the mask of zeroes that the tests' clients use.
fn echo(from: &mut impl Read, mut to: &TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 6];
        from.read_exact(&mut head)?;
        let length = head[1] & 0x7f;
        assert!(length < 126, "the mirror echoes short messages only");
        let mut payload = vec![0; usize::from(length)];
        from.read_exact(&mut payload)?;
        to.write_all(&[&[head[0], length], payload.as_slice()].concat())?;
    }
}
