//! Backends that tell what they were sent: each request is answered with `X-Saw-…` fields that repeat it, so that a HEAD
//! shows as much as a GET.
//!
//! `/status/NNN` has that status; `/hop` has fields that live on one hop.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A telling backend; its threads end with the test's process.
pub(crate) struct Oracle {
    pub(crate) address: SocketAddr,
}

impl Oracle {
    /// Starts it on 127.0.0.1.
    pub(crate) fn start(name: &'static str) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                thread::spawn(move || drop(serve(&stream, name)));
            }
        });
        Self { address }
    }
}

fn serve(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            match shown(&line).trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let fields: Vec<(String, String)> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = read_body(&mut reader, &fields)?;
        let mut words = lines[0].split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let status = target.strip_prefix("/status/").unwrap_or("200 OK");
        let mut answer = vec![format!(
            "HTTP/1.1 {status}\r\nX-Backend: {name}\r\nX-Saw-Method: {method}\r\nX-Saw-Target: {target}\r\n\
             X-Saw-Length: {}\r\n",
            body.len()
        )];
        for (field, value) in &fields {
            answer.push(format!("X-Saw-{field}: {value}\r\n"));
        }
        if target == "/hop" {
            answer.push(
                "Connection: X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=9\r\nX-Kept: 1\r\n"
                    .to_owned(),
            );
        }
        let said = if method == "HEAD" { String::new() } else { format!("this is {name}") };
        let length = "this is ".len() + name.len();
        answer.push(format!("Content-Length: {length}\r\n\r\n{said}"));
        stream.write_all(answer.concat().as_bytes())?;
    }
}

/// Bytes as text, those that are not ASCII as `%NN`.
fn shown(bytes: &[u8]) -> String {
    let show = |byte: &u8| match byte {
        0..0x80 => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().map(show).collect()
}

fn read_body(reader: &mut impl BufRead, fields: &[(String, String)]) -> io::Result<Vec<u8>> {
    let find = |name| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
    let mut body = Vec::new();
    if find("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    let length = find("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    body.resize(length, 0);
    reader.read_exact(&mut body)?;
    Ok(body)
}
