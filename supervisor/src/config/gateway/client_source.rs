//! How a site learns who its client is, where another balancer stands in front of it.

use std::fmt;
use std::net::IpAddr;

/// Whose word about clients is taken. By default nobody's: the connection's peer is the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSource {
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Peers that may speak for others.
    pub trusted: Vec<Network>,
    /// X-Forwarded-* of these is taken.
    pub forwarded_headers: bool,
}

/// A block of addresses, without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// How many bits its addresses share.
    pub prefix: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
