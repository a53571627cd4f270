//! What workers are told of who their clients are, and of the log about them.

use std::net::IpAddr;

use holdfast_proto::control;

use crate::config::gateway::{AccessLog, AccessLogDestination, ClientSource, Listener};

/// `None`: there is none, or no request ever gets a line.
pub(super) fn access_log(log: &AccessLog) -> Option<control::AccessLog> {
    use control::AccessLogDestination as To;
    let (destination, path) = match &log.destination {
        AccessLogDestination::Off => return None,
        AccessLogDestination::Stdout => (To::Stdout, String::new()),
        AccessLogDestination::File { path } => (To::File, path.clone()),
    };
    let sampled_per_million = log.sampled_per_million;
    let log = control::AccessLog { destination: destination.into(), path, sampled_per_million };
    (sampled_per_million > 0).then_some(log)
}

/// All sites of a listener agree on it. `None`: the connection's peer is the client.
pub(super) fn client_source(listener: &Listener) -> Option<control::ClientSource> {
    let source = listener.sites.first().map(|site| &site.source)?;
    let ClientSource { proxy_protocol, trusted, forwarded_headers } = source;
    let trusted = trusted.iter().map(|network| control::Network {
        address: match network.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        },
        prefix: network.prefix.into(),
    });
    (*proxy_protocol || *forwarded_headers).then(|| control::ClientSource {
        proxy_protocol: *proxy_protocol,
        trusted: trusted.collect(),
        forwarded_headers: *forwarded_headers,
    })
}
