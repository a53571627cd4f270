//! Who takes a URL, where that is certainly this gateway: its host is one that a site names, or it is a listener's address.
//! Looked up, never searched for: there may be tens of thousands of listeners, each with a redirect.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::config::gateway::{Listener, Protocol};
use crate::config::validate::hosts::{Hosts, Wildcards};

/// All listeners, by what a URL says.
pub(super) struct Directory<'a> {
    ports: HashMap<(u16, bool), Port<'a>>,
    literal: HashSet<&'a str>,
    wild: Wildcards<'a>,
}

/// Those of one port that speak one protocol; of several that would do, the first.
#[derive(Default)]
struct Port<'a> {
    literal: HashMap<&'a str, usize>,
    wild: Wildcards<'a>,
    /// With a site for any host.
    any: Option<usize>,
    /// The same by address, and on every address.
    by_address: HashMap<IpAddr, usize>,
    on_all: Option<usize>,
}

/// What a URL says of who is asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'u> {
    pub(super) protocol: Protocol,
    pub(super) host: &'u str,
    pub(super) port: u16,
}

// === impl Directory ===

impl<'a> Directory<'a> {
    /// Of listeners and their hosts, both in the same order.
    pub(super) fn of(listeners: &[Listener], hosts: &[Hosts<'a>]) -> Self {
        let mut directory =
            Self { ports: HashMap::new(), literal: HashSet::new(), wild: Wildcards::default() };
        for (at, (listener, hosts)) in listeners.iter().zip(hosts).enumerate() {
            directory.literal.extend(hosts.literals());
            for pattern in hosts.patterns() {
                directory.wild.add(pattern, at);
            }
            let Some(site) = listener.sites.first() else { continue };
            let key = (listener.address.port(), site.protocol == Protocol::Https);
            directory.ports.entry(key).or_default().add(at, listener.address.ip(), hosts);
        }
        directory
    }

    /// How many patterns are compared with a host, and one.
    pub(super) fn cost(&self, asked: Asked<'_>) -> usize {
        1 + self.wild.cost(asked.host) + self.port(asked).map_or(0, |it| it.wild.cost(asked.host))
    }

    /// Whether any site names the host, or a pattern that it matches.
    pub(super) fn names(&self, host: &str) -> bool {
        self.literal.contains(host) || self.wild.first(host, |_| true).is_some()
    }

    /// The first listener that certainly takes it.
    pub(super) fn first(&self, asked: Asked<'_>) -> Option<usize> {
        let port = self.port(asked)?;
        if self.names(asked.host) {
            let literal = port.literal.get(asked.host).copied();
            let wild = port.wild.first(asked.host, |_| true);
            return port.any.into_iter().chain(literal).chain(wild).min();
        }
        let address: IpAddr = asked.host.parse().ok()?;
        let own = port.by_address.get(&address).copied();
        let on_all = port.on_all.filter(|_| address.is_loopback());
        own.into_iter().chain(on_all).min()
    }

    fn port(&self, asked: Asked<'_>) -> Option<&Port<'a>> {
        self.ports.get(&(asked.port, asked.protocol == Protocol::Https))
    }
}

// === impl Port ===

impl<'a> Port<'a> {
    fn add(&mut self, at: usize, address: IpAddr, hosts: &Hosts<'a>) {
        for host in hosts.literals() {
            self.literal.entry(host).or_insert(at);
        }
        for pattern in hosts.patterns() {
            self.wild.add(pattern, at);
        }
        if hosts.takes_any() {
            self.any = self.any.or(Some(at));
            self.by_address.entry(address).or_insert(at);
            self.on_all = self.on_all.or(address.is_unspecified().then_some(at));
        }
    }
}
