//! An HTTP/1.1 client that shows everything: bytes out as given, answers one at a time, resets as resets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every header of that name (lower case).
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body as text, trimmed.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// One TCP connection to the gateway.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; reads time out after ten seconds, so that no test hangs.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The same from one of this host's addresses.
    pub(crate) fn open_from(source: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
        let gateway = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        connect(socket.as_raw_fd(), &SockaddrIn::from(gateway))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a GET and reads its answer.
    pub(crate) fn get(&mut self, path: &str, host: &str) -> io::Result<Response> {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        self.response()
    }

    /// Sends a GET with a Cookie header and reads its answer.
    pub(crate) fn get_with(&mut self, path: &str, cookie: &str) -> io::Result<Response> {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"))?;
        self.response()
    }

    /// Reads the next answer.
    pub(crate) fn response(&mut self) -> io::Result<Response> {
        let (status, headers) = read_head(&mut self.stream)?;
        let body = read_body(&mut self.stream, status, &headers)?;
        Ok(Response { status, headers, body })
    }

    /// Reads one byte; 0 means that the gateway ended the connection in order.
    pub(crate) fn read_byte(&mut self) -> io::Result<usize> {
        self.stream.read(&mut [0])
    }
}

/// A GET of its own connection.
pub(crate) fn get(port: u16, path: &str) -> io::Result<Response> {
    get_host(port, path, "localhost")
}

/// A GET for a host name.
pub(crate) fn get_host(port: u16, path: &str, host: &str) -> io::Result<Response> {
    let mut connection = Connection::open(port)?;
    connection
        .write(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))?;
    connection.response()
}

/// Reads one answer, of a HEAD without the body that its fields announce.
pub(crate) fn read_response(stream: &mut impl BufRead, to_head: bool) -> io::Result<Response> {
    let (status, headers) = read_head(stream)?;
    let body = if to_head { Vec::new() } else { read_body(stream, status, &headers)? };
    Ok(Response { status, headers, body })
}

/// Reads a status line and headers.
pub(super) fn read_head(stream: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let first = read_line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status line: {first:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (key, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads what follows a head.
pub(super) fn read_body(
    stream: &mut impl BufRead,
    status: u16,
    headers: &[(String, String)],
) -> io::Result<Vec<u8>> {
    let find = |name| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if status < 200 || status == 204 || status == 304 {
        return Ok(body);
    }
    if find("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = usize::from_str_radix(&read_line(stream)?, 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk)?;
            body.append(&mut chunk);
            read_line(stream)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match find("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
