//! Tunnels both of whose ends are in the test's own hands: raw sockets, no frames.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::certs::Certificate;
use super::client::upgrade_request;
use super::eventually::{Patience, eventually};
use super::shroud::{Manner, Shroud};

/// What a backend says along with its 101.
pub(crate) const FROM_BACKEND: &[u8] = b"early from the backend;";
/// What a client says along with its request.
pub(crate) const FROM_CLIENT: &[u8] = b"early from the client;";

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Longer than any test waits for a byte that is to come.
const SILENCE: Duration = Duration::from_secs(60);

type Upgraded = Arc<Mutex<HashMap<String, TcpStream>>>;

/// A backend that upgrades whatever is asked for, and hands the connections to the test.
pub(crate) struct Wires {
    pub(crate) address: SocketAddr,
    upgraded: Upgraded,
    next: Mutex<u32>,
    /// What the gateway shows its clients, if they have TLS.
    pub(crate) certificate: Option<Certificate>,
    manner: Manner,
    client: Option<Shroud>,
    backend: Option<Shroud>,
}

/// Which legs of a tunnel have TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealed {
    Client,
    Backend,
    Both,
}

/// One tunnel.
pub(crate) struct Wire {
    pub(crate) client: TcpStream,
    pub(crate) backend: TcpStream,
}

impl Wires {
    /// Starts it on 127.0.0.1; its threads end with the test's process.
    pub(crate) fn start() -> Self {
        Self::start_with(None, None, Manner::default())
    }

    /// The same with TLS towards the gateway, which those who hold a [`Wire`] do not notice.
    pub(crate) fn start_sealed(directory: &Path, sealed: Sealed, manner: Manner) -> Self {
        let certificate = Certificate::make(directory, "wires", "localhost");
        let backend = Shroud::of_server(&certificate, manner);
        let backend = Some(backend).filter(|_| sealed != Sealed::Client);
        Self::start_with(Some(certificate).filter(|_| sealed != Sealed::Backend), backend, manner)
    }

    fn start_with(
        certificate: Option<Certificate>,
        backend: Option<Shroud>,
        manner: Manner,
    ) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let upgraded = Upgraded::default();
        let (table, shroud) = (Arc::clone(&upgraded), backend.clone());
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let stream = shrouded(shroud.as_ref(), stream, manner).unwrap();
                let table = Arc::clone(&table);
                thread::spawn(move || drop(serve(&stream, &table)));
            }
        });
        let client = certificate.as_ref().map(|it| Shroud::of_client(it, manner));
        let next = Mutex::new(0);
        Self { address, upgraded, next, certificate, manner, client, backend }
    }

    /// Whether the gateway reaches it by https.
    pub(crate) fn is_sealed(&self) -> bool {
        self.backend.is_some()
    }

    /// A client's session, for a test that has every record in its own hands.
    #[cfg(feature = "failpoints")]
    pub(crate) fn client_session(&self) -> rustls::Connection {
        self.client.as_ref().unwrap().session()
    }

    /// The backend's end of a tunnel that was opened by somebody else.
    pub(crate) fn backend_of(&self, path: &str) -> TcpStream {
        let upgraded = || self.upgraded.lock().unwrap().remove(path);
        eventually(Patience::USUAL, "the backend's end", upgraded)
    }

    /// Opens a tunnel through the gateway.
    pub(crate) fn open(&self, port: u16) -> Wire {
        self.try_open(port, false).unwrap().expect("the gateway hung up before it answered")
    }

    /// The same, with bytes from both sides before the tunnel is there, if `early`; those are checked. `None`: the
    /// connection ended without a byte.
    pub(crate) fn try_open(&self, port: u16, early: bool) -> io::Result<Option<Wire>> {
        let path = self.next_path(early);
        let client = TcpStream::connect(("127.0.0.1", port))?;
        let mut client = shrouded(self.client.as_ref(), client, self.manner)?;
        client.set_read_timeout(Some(SILENCE))?;
        client.set_nodelay(true)?;
        let mut request = upgrade_request(&path, "localhost").into_bytes();
        request.extend_from_slice(if early { FROM_CLIENT } else { b"" });
        if client.write_all(&request).is_err() {
            return Ok(None);
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match client.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) | Err(_) if head.is_empty() => return Ok(None),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
            }
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let mut backend = self.backend_of(&path);
        if early {
            assert_eq!(read_exact(&mut client, FROM_BACKEND.len())?, FROM_BACKEND);
            assert_eq!(read_exact(&mut backend, FROM_CLIENT.len())?, FROM_CLIENT);
        }
        Ok(Some(Wire { client, backend }))
    }

    fn next_path(&self, early: bool) -> String {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        format!("/wire/{next}{}", if early { "/early" } else { "" })
    }
}

impl Wire {
    /// Whether a few bytes get through both ways.
    pub(crate) fn carries(&mut self, text: &str) -> io::Result<()> {
        for (from, to) in [(&self.client, &self.backend), (&self.backend, &self.client)] {
            let (mut from, mut to) = (from, to);
            from.write_all(text.as_bytes())?;
            let mut heard = vec![0; text.len()];
            to.read_exact(&mut heard)?;
            assert_eq!(String::from_utf8_lossy(&heard), text);
        }
        Ok(())
    }

    /// Both ends, the ending one first.
    pub(crate) fn ends(self, client_first: bool) -> [TcpStream; 2] {
        if client_first { [self.client, self.backend] } else { [self.backend, self.client] }
    }
}

/// Says that nothing more will be sent.
pub(crate) fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    drop(stream);
}

/// Reads to the end: what came, and whether the end was a reset.
pub(crate) fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Ok(_) => (heard, false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (heard, true),
        Err(error) => panic!("{error} after {} bytes", heard.len()),
    }
}

fn shrouded(shroud: Option<&Shroud>, stream: TcpStream, manner: Manner) -> io::Result<TcpStream> {
    match shroud {
        Some(shroud) => shroud.around(stream, manner),
        None => Ok(stream),
    }
}

fn read_exact(stream: &mut TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn serve(mut stream: &TcpStream, upgraded: &Upgraded) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if !path.starts_with("/wire/") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            continue;
        }
        // What a client said early comes behind the 101, never with the request.
        assert!(lines.buffer().is_empty());
        let answer = if path.ends_with("/early") {
            // Too long to stand in a tunnel's record: a cookie, as backends set them.
            let cookie = format!("\r\nSet-Cookie: session={:0500}\r\n\r\n", 1);
            [ANSWER.trim_end().as_bytes(), cookie.as_bytes(), FROM_BACKEND].concat()
        } else {
            ANSWER.as_bytes().to_vec()
        };
        stream.write_all(&answer)?;
        upgraded.lock().unwrap().insert(path, stream.try_clone()?);
        return Ok(());
    }
}
