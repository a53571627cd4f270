//! The PROXY header, versions 1 and 2, as `HAProxy`'s `proxy-protocol.txt` has them. It does no IO, and says how many bytes are to
//! be read next, so that never one is read that stands behind the header.
//!
//! Nothing here trusts a length: a header is bounded before it is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Bytes that both versions have at least, and that tell them apart.
pub(crate) const FIRST: usize = 12;
/// What version 2 begins with.
const SIGNATURE: [u8; FIRST] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// Bytes of version 2 before what its length tells.
pub(crate) const FIXED: usize = 16;
/// Longest line of version 1, its end included.
pub(crate) const LONGEST_LINE: usize = 107;
/// Most bytes of addresses and TLVs that are read: certificates' names among the latter are some hundred.
const MOST: usize = 4096;

/// Which version a header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Line,
    Binary,
}

/// Of whom a header speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Of this client.
    Client(SocketAddr),
    /// Of nobody: the peer speaks for itself, or does not know.
    Peer,
}

/// The connection does not begin with a header, or with one that breaks its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("it does not begin with a PROXY header")]
    Absent,
    #[error("the PROXY header is longer than it may be")]
    TooLong,
    #[error("the PROXY header is not valid")]
    Invalid,
}

/// Which version the first bytes begin.
pub(crate) fn version(first: &[u8; FIRST]) -> Result<Version, Malformed> {
    if *first == SIGNATURE {
        Ok(Version::Binary)
    } else if first.starts_with(WORD) {
        Ok(Version::Line)
    } else {
        Err(Malformed::Absent)
    }
}

/// How many bytes follow the fixed ones of version 2.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Result<usize, Malformed> {
    let [.., version_and_command, _, high, low] = *fixed;
    if version_and_command >> 4 != 2 {
        return Err(Malformed::Invalid);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST { Err(Malformed::TooLong) } else { Ok(length) }
}

/// What a whole header of version 2 says; `rest` is what follows the fixed bytes. TLVs are passed over.
pub(crate) fn binary(fixed: &[u8; FIXED], rest: &[u8]) -> Result<Source, Malformed> {
    let [.., version_and_command, family, _, _] = *fixed;
    match version_and_command & 0xf {
        // LOCAL: a balancer's own, for its checks. Whatever stands in it is to be passed over.
        0 => return Ok(Source::Peer),
        1 => {}
        _ => return Err(Malformed::Invalid),
    }
    match family {
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let (source, rest) = rest.split_first_chunk::<4>().ok_or(Malformed::Invalid)?;
            let (_, ports) = rest.split_first_chunk::<4>().ok_or(Malformed::Invalid)?;
            client(Ipv4Addr::from(*source).into(), ports)
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(Malformed::Invalid)?;
            let (_, ports) = rest.split_first_chunk::<16>().ok_or(Malformed::Invalid)?;
            client(Ipv6Addr::from(*source).into(), ports)
        }
        // UNSPEC, datagrams, Unix sockets: a header all the same, but of no TCP client.
        other if other >> 4 <= 3 && other & 0xf <= 2 => Ok(Source::Peer),
        _ => Err(Malformed::Invalid),
    }
}

fn client(ip: IpAddr, ports: &[u8]) -> Result<Source, Malformed> {
    let ([high, low, _, _], _) = ports.split_first_chunk::<4>().ok_or(Malformed::Invalid)?;
    Ok(Source::Client(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes([*high, *low]))))
}

/// What a whole header of version 1 says, its end included.
pub(crate) fn line(line: &[u8]) -> Result<Source, Malformed> {
    if line.len() > LONGEST_LINE {
        return Err(Malformed::TooLong);
    }
    let line = line.strip_suffix(b"\r\n").and_then(|line| line.strip_prefix(WORD));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed::Invalid)?;
    let mut words = line.split(' ');
    let kind = words.next();
    if kind == Some("UNKNOWN") {
        // What follows is to be passed over.
        return Ok(Source::Peer);
    }
    let [source, target] = [words.next(), words.next()].map(|ip| ip.and_then(|ip| ip.parse().ok()));
    let [from, to] = [words.next(), words.next()].map(|port| port.and_then(port_of));
    let whole = source.zip(target).zip(from.zip(to)).filter(|_| words.next().is_none());
    let ((source, target), (from, _)): ((IpAddr, IpAddr), _) = whole.ok_or(Malformed::Invalid)?;
    let fits = match kind {
        Some("TCP4") => source.is_ipv4() && target.is_ipv4(),
        Some("TCP6") => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    let client = SocketAddr::new(source.to_canonical(), from);
    if fits { Ok(Source::Client(client)) } else { Err(Malformed::Invalid) }
}

/// Digits only: `parse` alone would take a sign.
fn port_of(word: &str) -> Option<u16> {
    word.bytes().all(|digit| digit.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fixed(version_and_command: u8, family: u8, length: u16) -> [u8; FIXED] {
        let mut fixed = [0; FIXED];
        fixed[..FIRST].copy_from_slice(&SIGNATURE);
        fixed[12..14].copy_from_slice(&[version_and_command, family]);
        fixed[14..].copy_from_slice(&length.to_be_bytes());
        fixed
    }

    fn client(text: &str) -> Source {
        Source::Client(text.parse().unwrap())
    }

    #[test]
    fn versions_are_told_apart_by_their_first_bytes() {
        assert_eq!(version(&SIGNATURE), Ok(Version::Binary));
        assert_eq!(version(b"PROXY TCP4 1"), Ok(Version::Line));
        for other in
            [b"GET / HTTP/1", b"proxy TCP4 1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00"]
        {
            assert_eq!(version(other), Err(Malformed::Absent));
        }
    }

    #[test]
    fn lines_name_their_client() {
        let tcp4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
        assert_eq!(line(tcp4), Ok(client("192.0.2.7:5000")));
        let tcp6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n";
        assert_eq!(line(tcp6), Ok(client("[2001:db8::7]:5000")));
        let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5000 443\r\n";
        assert_eq!(line(mapped), Ok(client("192.0.2.7:5000")));
        for unknown in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff:f...f:ffff ? 1\r\n"] {
            assert_eq!(line(unknown), Ok(Source::Peer));
        }
    }

    #[test]
    fn lines_that_break_a_rule_are_no_headers() {
        for broken in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443 9\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000 65536\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +500 443\r\n",
            "PROXY TCP4 192.0.2.7 ::1 5000 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.007 198.51.100.1 5000 443\r\n",
            "PROXY TCP5 192.0.2.7 198.51.100.1 5000 443\r\n",
            "PROXY  \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443 \r\n",
        ] {
            assert_eq!(line(broken.as_bytes()), Err(Malformed::Invalid), "{broken:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE));
        assert_eq!(line(long.as_bytes()), Err(Malformed::TooLong));
        assert_eq!(line(b"PROXY UNKNOWN \xff\r\n"), Err(Malformed::Invalid));
    }

    #[test]
    fn binary_headers_name_their_client_whatever_follows() {
        let four =
            [&[192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb][..], b"\x04\0\x02ab"].concat();
        assert_eq!(binary(&fixed(0x21, 0x11, 12), &four), Ok(client("192.0.2.7:5000")));
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        six[15] = 7;
        six[32..34].copy_from_slice(&[0x13, 0x88]);
        assert_eq!(binary(&fixed(0x21, 0x21, 36), &six), Ok(client("[2001:db8::7]:5000")));
        for local in
            [fixed(0x20, 0x11, 0), fixed(0x20, 0xff, 0), fixed(0x21, 0, 0), fixed(0x21, 0x31, 216)]
        {
            assert_eq!(binary(&local, &[]), Ok(Source::Peer));
        }
    }

    #[test]
    fn binary_headers_that_break_a_rule_are_none() {
        assert_eq!(binary(&fixed(0x21, 0x11, 11), &[0; 11]), Err(Malformed::Invalid));
        assert_eq!(binary(&fixed(0x21, 0x21, 35), &[0; 35]), Err(Malformed::Invalid));
        assert_eq!(binary(&fixed(0x22, 0x11, 12), &[0; 12]), Err(Malformed::Invalid));
        for family in [0x41, 0x13, 0xff] {
            assert_eq!(binary(&fixed(0x21, family, 12), &[0; 12]), Err(Malformed::Invalid));
        }
        assert_eq!(length(&fixed(0x11, 0x11, 12)), Err(Malformed::Invalid));
        assert_eq!(length(&fixed(0x21, 0x11, 65_535)), Err(Malformed::TooLong));
        assert_eq!(length(&fixed(0x21, 0x11, 12)), Ok(12));
    }
}
