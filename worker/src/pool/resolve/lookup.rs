//! One lookup of a backend's name: the hosts file, then DNS, which tells how long its answer holds, then whatever else
//! this system knows names from.
//!
//! `resolv.conf` and the hosts file are read for each lookup, which are rare: so an edited file counts from the next
//! one on. What only the system's own resolver can find (mDNS, a directory, containers of this host) is found by it,
//! and costs a second at most where no DNS server answers. Nothing is kept here: that is [`super::Addresses`]'s.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::sleep;

use super::Answer;

/// How long an answer holds that nobody has given a time to live: files change, and the system's resolver does not
/// say. Ten seconds follow a change soon enough and ask rarely enough.
const UNDATED: Duration = Duration::from_secs(10);
/// How long DNS may take before the system's resolver is asked beside it.
const HEAD_START: Duration = Duration::from_secs(1);

/// What this system says that names are, as of now.
struct Sources {
    hosts: Hosts,
    /// None where no server is named.
    dns: Option<TokioResolver>,
}

/// The addresses of `host`, and how long they hold.
pub(super) async fn lookup(host: &str) -> io::Result<Answer> {
    let read = tokio::task::spawn_blocking(Sources::read).await;
    let Sources { hosts, dns } = read.map_err(io::Error::other)?;
    if let Some(addresses) = in_file(&hosts, host) {
        return Ok(Answer { addresses, holds: UNDATED });
    }
    let Some(dns) = dns else { return ask_system(host).await };
    let asked = ask_dns(&dns, host);
    tokio::pin!(asked);
    // Cancel-safe: `asked` is only borrowed.
    tokio::select! {
        biased;
        answer = &mut asked => match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                tracing::debug!(host, %error, "not in DNS");
                return ask_system(host).await;
            }
        },
        () = sleep(HEAD_START) => {}
    }
    // Cancel-safe: the system's lookup goes on in its thread, and nobody hears of it.
    tokio::select! {
        biased;
        Ok(answer) = &mut asked => Ok(answer),
        answer = ask_system(host) => answer,
    }
}

async fn ask_dns(dns: &TokioResolver, host: &str) -> Result<Answer, NetError> {
    let found = dns.lookup_ip(host).await?;
    let holds = found.valid_until().saturating_duration_since(Instant::now());
    Ok(Answer { addresses: alternating(found.iter()), holds })
}

async fn ask_system(host: &str) -> io::Result<Answer> {
    let found = tokio::net::lookup_host((host, 0)).await?;
    Ok(Answer { addresses: found.map(|address| address.ip()).collect(), holds: UNDATED })
}

/// What the hosts file says of a name, if anything: then DNS is not asked for what it does not say.
fn in_file(hosts: &Hosts, host: &str) -> Option<Vec<IpAddr>> {
    let name = Name::from_utf8(host).ok()?;
    let found = [RecordType::AAAA, RecordType::A]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    let records: Vec<_> = found.flat_map(|found| found.answers().to_vec()).collect();
    let addresses = alternating(records.iter().filter_map(|record| record.data.ip_addr()));
    (!addresses.is_empty()).then_some(addresses)
}

/// The two families in turns, IPv6 first, each in the order in which it came (RFC 8305, section 4).
fn alternating(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(six.next());
        ordered.extend(four.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

// === impl Sources ===

impl Sources {
    fn read() -> Self {
        let hosts = Hosts::from_system().unwrap_or_else(|error| {
            tracing::debug!(%error, "no hosts file");
            Hosts::default()
        });
        let dns = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            // Both are our own business.
            (options.use_hosts_file, options.cache_size) = (ResolveHosts::Never, 0);
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        let dns = dns.inspect_err(|error| tracing::debug!(%error, "no DNS server")).ok();
        Self { hosts, dns }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use tokio::net::UdpSocket;
    use tokio::task::JoinSet;

    use super::*;

    const TYPE_A: u8 = 1;
    const TYPE_AAAA: u8 = 28;

    /// A DNS server that has one name with two IPv4 addresses and one IPv6 address; it ends with the set.
    async fn server(tasks: &mut JoinSet<()>, ttl: u32) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tasks.spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                socket.send_to(&answer(&buffer[..length], ttl), from).await.unwrap();
            }
        });
        address
    }

    /// RFC 1035, section 4.1: the question, and the records that it asks for.
    fn answer(query: &[u8], ttl: u32) -> Vec<u8> {
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let question = &query[12..end];
        let name = question[..question.len() - 4].to_ascii_lowercase();
        let known = name == b"\x04here\x04test\x00";
        let datas: Vec<Vec<u8>> = match question[question.len() - 3] {
            TYPE_A if known => vec![vec![10, 0, 0, 1], vec![10, 0, 0, 2]],
            TYPE_AAAA if known => vec![Ipv6Addr::LOCALHOST.octets().to_vec()],
            _ => Vec::new(),
        };
        let rcode = if known { 0x80 } else { 0x83 };
        let count = u8::try_from(datas.len()).unwrap();
        let mut bytes =
            [&query[..2], &[0x81, rcode, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
        for data in datas {
            bytes.extend([0xc0, 12, 0, question[question.len() - 3], 0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend([0, u8::try_from(data.len()).unwrap()]);
            bytes.extend(data);
        }
        bytes
    }

    fn resolver(server: SocketAddr) -> TokioResolver {
        let mut udp = ConnectionConfig::udp();
        udp.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![udp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        let options = builder.options_mut();
        (options.use_hosts_file, options.cache_size) = (ResolveHosts::Never, 0);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().unwrap()
    }

    #[tokio::test]
    async fn dns_tells_addresses_and_how_long_they_hold() {
        let mut tasks = JoinSet::new();
        let dns = resolver(server(&mut tasks, 7).await);
        let found = ask_dns(&dns, "here.test").await.unwrap();
        let wanted: [IpAddr; 3] = [
            Ipv6Addr::LOCALHOST.into(),
            Ipv4Addr::new(10, 0, 0, 1).into(),
            Ipv4Addr::new(10, 0, 0, 2).into(),
        ];
        assert_eq!(found.addresses, wanted);
        let seconds = found.holds.as_secs_f64();
        assert!(seconds > 0.0 && seconds <= 7.0, "{seconds}");
        assert!(ask_dns(&dns, "gone.test").await.is_err());
    }

    #[tokio::test]
    async fn the_hosts_file_and_the_system_are_asked_too() {
        // In every hosts file, and known to every resolver.
        let found = lookup("localhost").await.unwrap();
        assert!(found.addresses.iter().all(IpAddr::is_loopback) && !found.addresses.is_empty());
        let found = ask_system("localhost").await.unwrap();
        assert_eq!(found.holds, UNDATED);
        let Sources { hosts, .. } = Sources::read();
        assert!(in_file(&hosts, "no-such-name.invalid").is_none());
    }

    #[test]
    fn families_take_turns() {
        let all = ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.3"].map(|it| it.parse().unwrap());
        let ordered: Vec<String> =
            alternating(all.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(ordered, ["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert!(alternating(std::iter::empty()).is_empty());
    }
}
