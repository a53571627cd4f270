//! Host names and patterns: `*` stands for any run of characters, dots included, `?` for exactly one.

/// A compiled host pattern, compared without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    text: Vec<u8>,
    wild: bool,
}

// === impl HostPattern ===

impl HostPattern {
    /// Compiles a pattern; an empty one, or one with white space, control or non-ASCII characters, is none.
    pub fn new(pattern: &str) -> Option<Self> {
        let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
        if pattern.is_empty() || !pattern.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let wild = pattern.contains(['*', '?']);
        Some(Self { text: pattern.to_ascii_lowercase().into_bytes(), wild })
    }

    /// Whether a host (without port) matches.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.as_bytes();
        if self.wild { glob(&self.text, host) } else { self.text.eq_ignore_ascii_case(host) }
    }
}

/// Matches with one point to go back to: the latest `*`. Linear in practice, never exponential, no allocation.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
                continue;
            }
            Some(wanted) if *wanted == b'?' || *wanted == byte.to_ascii_lowercase() => {
                at += 1;
                seen += 1;
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = star else { return false };
        star = Some((after, from + 1));
        at = after;
        seen = from + 1;
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// The name in a Host header: the port, the brackets of an IPv6 literal and the root dot removed.
pub fn without_port(host: &str) -> &str {
    if let Some(inside) = host.strip_prefix('[') {
        return inside.split_once(']').map_or(inside, |(address, _)| address);
    }
    let name = match host.split_once(':') {
        // More than one colon: an IPv6 literal without brackets, which cannot carry a port.
        Some((_, rest)) if rest.contains(':') => host,
        Some((name, _)) => name,
        None => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}
