//! How a row is asked: one implementation for each protocol that clients speak. What a row means is not known here.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::Ports;
use super::row::{Heard, Request, Row};
use crate::harness::{Certificate, Http2, Response, TlsStream, read_response, tls};

/// A way to ask.
pub(crate) trait Asking {
    /// `http` or `https`.
    fn scheme(&self) -> &'static str;

    /// Whether the protocol has words for a row.
    fn can_ask(&self, row: &Row) -> bool {
        !row.only_http1
    }

    /// Asks on a connection of its own.
    fn ask(&self, row: &Row, port: u16) -> io::Result<Heard>;

    /// The name of the port that a row's door has here.
    fn door(&self, row: &Row) -> &'static str {
        match (row.door.as_str(), self.scheme()) {
            ("main", "http") => "http",
            ("main", _) => "https",
            ("open", "http") => "open",
            ("open", _) => "opens",
            (other, _) => panic!("there is no door {other:?}"),
        }
    }

    /// What stands in braces and depends on the protocol or the connection.
    fn fill(&self, text: &str, heard: &Heard, row: &Row, ports: &Ports) -> String {
        let port = ports.of(self.door(row)).to_string();
        let text = text.replace("{scheme}", self.scheme()).replace("{port}", &port);
        text.replace("{client}", &heard.client)
    }
}

/// HTTP/1.1 in the clear.
pub(crate) struct Overt;

/// HTTP/1.1 over TLS.
pub(crate) struct Sealed(pub(crate) Certificate);

/// HTTP/2.
pub(crate) struct Multiplexed(pub(crate) Certificate);

impl Asking for Multiplexed {
    fn scheme(&self) -> &'static str {
        "https"
    }

    fn can_ask(&self, row: &Row) -> bool {
        !row.only_http1 && fields_of(&row.request).is_some()
    }

    fn ask(&self, row: &Row, port: u16) -> io::Result<Heard> {
        let (request, body) = fields_of(&row.request).unwrap();
        let mut connection = Http2::connect(port, &self.0);
        let client = connection.local.to_string();
        let (response, mut stream) =
            connection.begin(request, body.is_none()).map_err(io::Error::other)?;
        if let Some(body) = body {
            // A whole answer may have come before the body is asked for, and have ended the stream (RFC 9113, section 8.1). What
            // the answer was, or that there is none, is for `finish` to say.
            drop(stream.send_data(body.into(), true));
        }
        let answer = connection.finish(response).map_err(io::Error::other)?;
        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let headers = answer.headers.iter().map(field).collect();
        let answer = Response { status: answer.status, headers, body: answer.body };
        Ok(Heard { answer, client })
    }
}

/// A request as HTTP/2 has it; `None` if it has no words for it.
fn fields_of(request: &Request) -> Option<(http::Request<()>, Option<Vec<u8>>)> {
    const OF_A_HOP: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];
    let Request::Parts { method, target, host, fields, body, .. } = request else { return None };
    let uri = format!("https://{}{target}", host.as_deref()?);
    // The crate would write another one.
    let uri = uri.parse::<http::Uri>().ok().filter(|it| it.to_string() == uri)?;
    if uri.authority()?.as_str() != host.as_deref()? {
        return None;
    }
    let mut asked = http::Request::builder().method(method.as_str()).uri(uri);
    for (name, value) in fields {
        let name = name.to_ascii_lowercase();
        if OF_A_HOP.contains(&name.as_str()) || name == "host" {
            return None;
        }
        // Each character is a byte.
        let bytes: Option<Vec<u8>> =
            value.chars().map(|it| u8::try_from(u32::from(it)).ok()).collect();
        asked = asked.header(name, bytes?);
    }
    let body = body.as_ref().map(|body| body.clone().into_bytes());
    if let Some(body) = &body {
        asked = asked.header("content-length", body.len());
    }
    Some((asked.body(()).ok()?, body))
}

impl Asking for Overt {
    fn scheme(&self) -> &'static str {
        "http"
    }

    fn can_ask(&self, _row: &Row) -> bool {
        true
    }

    fn ask(&self, row: &Row, port: u16) -> io::Result<Heard> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let client = stream.local_addr()?.to_string();
        converse(stream, client, row)
    }
}

impl Asking for Sealed {
    fn scheme(&self) -> &'static str {
        "https"
    }

    fn can_ask(&self, _row: &Row) -> bool {
        true
    }

    fn ask(&self, row: &Row, port: u16) -> io::Result<Heard> {
        let stream: TlsStream = tls(port, &self.0)?;
        let client = stream.get_ref().local_addr()?.to_string();
        converse(stream, client, row)
    }
}

/// No test hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request and its answer, as HTTP/1.1 writes them.
fn converse(stream: impl Read + Write, client: String, row: &Row) -> io::Result<Heard> {
    let mut stream = BufReader::new(stream);
    let bytes = written(&row.request);
    stream.get_mut().write_all(&bytes)?;
    stream.get_mut().flush()?;
    let to_head = bytes.starts_with(b"HEAD ");
    let answer = read_response(&mut stream, to_head)?;
    let closes = answer.headers.iter().any(|it| it.0 == "connection" && it.1 == "close");
    if to_head && !closes {
        // A body that must not be there would come before the next answer.
        stream.get_mut().write_all(b"TRACE / HTTP/1.1\r\nHost: one.test\r\n\r\n")?;
        stream.get_mut().flush()?;
        assert_eq!(read_response(&mut stream, false)?.status, 405, "{}", row.name);
    }
    if to_head && closes {
        // A body that must not be there would come before the end.
        let behind = stream.fill_buf().map_or(0, <[u8]>::len);
        assert_eq!(behind, 0, "{}: a HEAD was answered with a body", row.name);
    }
    Ok(Heard { answer, client })
}

fn written(request: &Request) -> Vec<u8> {
    let text = match request {
        Request::Raw(text) => text.clone(),
        Request::Parts { method, target, version, host, fields, body } => {
            let mut text = vec![format!("{method} {target} {version}\r\n")];
            if let Some(host) = host {
                text.push(format!("Host: {host}\r\n"));
            }
            for (name, value) in fields {
                text.push(format!("{name}: {value}\r\n"));
            }
            let chunked = fields.iter().any(|it| it.0.eq_ignore_ascii_case("transfer-encoding"));
            match body {
                Some(body) if chunked => {
                    text.push(format!("\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
                }
                Some(body) => {
                    text.push(format!("Content-Length: {}\r\n\r\n{body}", body.len()));
                }
                None => text.push("\r\n".to_owned()),
            }
            text.concat()
        }
    };
    // Each character is a byte.
    text.chars().map(|it| u8::try_from(u32::from(it)).unwrap()).collect()
}
