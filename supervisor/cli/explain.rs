//! `holdfast explain`: asks the worker that a request would come to, or by a document the same code without a worker.
//!
//! Owns how a URL becomes a question: which listener, which headers. What becomes of it is the worker's to say.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow, bail};
use holdfast_proto::admin::{ExplainHeader, ExplainRequest, ExplainResponse, StatusRequest};
use holdfast_supervisor::{compile, config};
use holdfast_worker::explain::explain_offline;
use hyper::Uri;

use crate::Outcome;
use crate::args::ExplainArgs;
use crate::dial::{connect, failed, show};
use crate::failure::invalid_json;
use crate::output;
use crate::validate::{as_answered, base_directory, read_document};

/// RFC 6455's own example: whoever is asked only looks at its form.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A URL's parts.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    websocket: bool,
    /// Without the port, without brackets.
    host: String,
    port: u16,
    /// As it stands in a Host header.
    authority: String,
    target: String,
}

/// Explains one request.
pub(crate) async fn explain(args: ExplainArgs) -> anyhow::Result<Outcome> {
    let address = parse(&args.url)?;
    let mut question = question(&args, &address);
    let answer = if args.config.is_some() {
        match by_document(&args, &address, &mut question)? {
            Some(answer) => answer,
            None => return Ok(Outcome::Refused),
        }
    } else {
        by_gateway(&args, &address, &mut question).await?
    };
    let known = args.config.is_none();
    show(
        &args.admin,
        || output::explain_json(&answer, known),
        || output::explain_text(&question, &answer, known),
    )?;
    Ok(if answer.refusal.is_none() { Outcome::Done } else { Outcome::Refused })
}

async fn by_gateway(
    args: &ExplainArgs,
    address: &Address,
    question: &mut ExplainRequest,
) -> anyhow::Result<ExplainResponse> {
    let mut client = connect(&args.admin).await?;
    let status = client.status(StatusRequest {}).await.map_err(|error| failed(&error))?;
    let listeners: Vec<SocketAddr> =
        status.into_inner().listeners.iter().filter_map(|it| it.address.parse().ok()).collect();
    question.listener = choose(&listeners, args.listener, address)?.to_string();
    let answer = client.explain(question.clone()).await;
    Ok(answer.map_err(|error| failed(&error))?.into_inner())
}

/// Nothing: the document is refused, which has been told.
fn by_document(
    args: &ExplainArgs,
    address: &Address,
    question: &mut ExplainRequest,
) -> anyhow::Result<Option<ExplainResponse>> {
    let Some(file) = &args.config else { return Ok(None) };
    let document = read_document(file)?;
    let loaded = match config::load(&document, &base_directory(file)?) {
        Ok(loaded) => loaded,
        Err(found) => {
            let found: Vec<_> = found.iter().map(as_answered).collect();
            if args.admin.json {
                output::print_json(&invalid_json(&found))?;
            } else {
                output::complain(&output::diagnostics_text(&file.display().to_string(), &found));
            }
            return Ok(None);
        }
    };
    let mut listeners = compile::compile(&loaded.gateway)?.listeners;
    let addresses: Vec<_> = listeners.keys().copied().collect();
    let listener = choose(&addresses, args.listener, address)?;
    question.listener = listener.to_string();
    let snapshot = listeners.remove(&listener).context("the listener is gone")?;
    let answer = explain_offline(snapshot, question)
        .map_err(|refusal| anyhow!("a worker would refuse the document: {}", refusal.text()))?;
    Ok(Some(answer))
}

fn question(args: &ExplainArgs, address: &Address) -> ExplainRequest {
    let given = |name: &str| args.header.iter().any(|(it, _)| it.eq_ignore_ascii_case(name));
    let mut headers: Vec<(&str, &str)> =
        args.header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if address.websocket {
        let handshake = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", WEBSOCKET_KEY),
        ];
        headers.extend(handshake.iter().filter(|(name, _)| !given(name)));
    }
    let says_length = given("content-length") || given("transfer-encoding");
    if ["POST", "PUT", "PATCH"].contains(&args.method.as_str()) && !says_length {
        headers.push(("Content-Length", "0"));
    }
    let header = |(name, value): (&str, &str)| ExplainHeader {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    ExplainRequest {
        listener: String::new(),
        tls: address.tls,
        method: args.method.clone(),
        target: address.target.clone(),
        host: args.host.clone().unwrap_or_else(|| address.authority.clone()),
        headers: headers.into_iter().map(header).collect(),
        client: args.client.clone().unwrap_or_default(),
        server_name: args.server_name.clone().unwrap_or_default(),
    }
}

fn parse(url: &str) -> anyhow::Result<Address> {
    let wrong = || anyhow!("{url:?} is not a URL: write http://HOST/PATH, or https, ws or wss");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (tls, websocket) = match uri.scheme_str() {
        Some("http") => (false, false),
        Some("https") => (true, false),
        Some("ws") => (false, true),
        Some("wss") => (true, true),
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?.as_str();
    let host = uri.host().ok_or_else(wrong)?;
    if authority.contains('@') {
        bail!("leave user and password out of the URL; --header 'Authorization: …' sends them");
    }
    let port = match uri.port_u16() {
        Some(port) => port,
        // `host:` and `host:99999` have no port that anybody could dial.
        None if authority.len() > host.len() => return Err(wrong()),
        None if tls => 443,
        None => 80,
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    Ok(Address {
        tls,
        websocket,
        host: bare.to_owned(),
        port,
        authority: authority.to_owned(),
        target: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
    })
}

/// The listener that a client would come to: the one that is named, else by address and port.
fn choose(
    listeners: &[SocketAddr],
    named: Option<SocketAddr>,
    address: &Address,
) -> anyhow::Result<SocketAddr> {
    let list =
        |of: &[SocketAddr]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(named) = named {
        if listeners.contains(&named) {
            return Ok(named);
        }
        bail!("there is no listener {named}; there are: {}", list(listeners));
    }
    let port = address.port;
    let on_port: Vec<_> = listeners.iter().copied().filter(|it| it.port() == port).collect();
    if on_port.is_empty() {
        bail!("no listener has port {port}; there are: {}", list(listeners));
    }
    let Ok(ip) = address.host.parse::<IpAddr>() else {
        return match on_port.as_slice() {
            [only] => Ok(*only),
            several => bail!(
                "several listeners have port {port}: say which with --listener: {}",
                list(several)
            ),
        };
    };
    let exact = on_port.iter().find(|it| it.ip() == ip);
    // A socket on every IPv6 address may take IPv4 clients, too; one of IPv4's own goes before it.
    let wild = |same: bool| {
        on_port.iter().find(|it| it.ip().is_unspecified() && (it.is_ipv4() == ip.is_ipv4()) == same)
    };
    let found =
        exact.or_else(|| wild(true)).or_else(|| if ip.is_ipv4() { wild(false) } else { None });
    found.copied().ok_or_else(|| {
        anyhow!(
            "nothing listens on {}; on that port there are: {} (--listener asks one of them)",
            SocketAddr::new(ip, port),
            list(&on_port)
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chosen(listeners: &[&str], url: &str) -> Result<String, String> {
        let listeners: Vec<_> = listeners.iter().map(|it| it.parse().unwrap()).collect();
        let found = choose(&listeners, None, &parse(url).unwrap());
        found.map(|it| it.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_says_port_host_and_whether_it_opens_a_websocket() {
        let parsed = parse("wss://chat.test/room?a=b#part").unwrap();
        assert!(parsed.tls && parsed.websocket);
        assert_eq!((parsed.host.as_str(), parsed.port), ("chat.test", 443));
        assert_eq!((parsed.authority.as_str(), parsed.target.as_str()), ("chat.test", "/room?a=b"));
        let parsed = parse("http://[::1]:8080").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.target.as_str()), ("::1", 8080, "/"));
        assert_eq!(parsed.authority, "[::1]:8080");
    }

    #[test]
    fn what_is_no_url_is_told_how_to_write_one() {
        for url in ["", "chat.test", "/room", "ftp://chat.test/", "http://", "http://a:99999/"] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains("http://HOST/PATH"), "{url}: {error}");
        }
        assert!(parse("http://me:secret@chat.test/").unwrap_err().to_string().contains("--header"));
    }

    #[test]
    fn a_listener_is_found_by_port_and_where_there_is_one_by_address() {
        let both = ["127.0.0.1:80", "0.0.0.0:80", "10.0.0.1:443"];
        assert_eq!(chosen(&both, "http://127.0.0.1/").unwrap(), "127.0.0.1:80");
        assert_eq!(chosen(&both, "http://10.9.9.9/").unwrap(), "0.0.0.0:80");
        assert_eq!(chosen(&both, "https://chat.test/").unwrap(), "10.0.0.1:443");
        assert_eq!(chosen(&["[::]:80"], "http://10.9.9.9/").unwrap(), "[::]:80");
        for (listeners, url, says) in [
            (&both[..], "http://chat.test/", "--listener"),
            (&both[..], "http://chat.test:81/", "no listener has port 81"),
            (&both[..], "https://10.0.0.2/", "nothing listens on 10.0.0.2:443"),
            (&["0.0.0.0:80"][..], "http://[::1]/", "nothing listens on [::1]:80"),
        ] {
            let error = chosen(listeners, url).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
