//! What a rewrite may hold: the dialect of its patterns, and the headers that are not to be touched. The supervisor tells
//! people by it, and a worker relies on it; so both ask here, and nobody ever compiles a pattern in another way.

use regex::bytes::RegexBuilder;
pub use regex::bytes::{Match, Regex};

/// Largest compiled pattern. Patterns for headers and paths need some hundred bytes; a repetition of repetitions, many
/// megabytes.
const PATTERN_BYTES: usize = 256 * 1024;
/// Most that a pattern's search may remember of itself, for each thread that searches.
const SEARCH_BYTES: usize = 512 * 1024;
/// Deepest nesting of groups.
const NESTING: u32 = 64;

/// Which message a header belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client's request.
    Request,
    /// A backend's answer.
    Response,
}

/// Why a header cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouchable {
    /// It belongs to one hop, or says where a message ends: the gateway writes it.
    Framing,
    /// The two ends of a WebSocket prove by it that they have understood each other.
    Handshake,
    /// It vouches for what the client has sent.
    Witness,
    /// What both ends agree on: it may be taken out of a request, but not invented.
    OnlyRemoved,
}

/// Compiles a pattern: RE2's syntax, searched for anywhere in linear time, on bytes; classes such as `\d` and `\w` are
/// those of ASCII.
///
/// # Errors
/// It is no pattern, or too large.
pub fn pattern(text: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .case_insensitive(ignore_case)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(SEARCH_BYTES)
        .nest_limit(NESTING)
        .build()
}

/// Whether, and why, a header is not to be rewritten; `removes`: the rewrite only takes it away.
pub fn untouchable(name: &str, side: Side, removes: bool) -> Option<Untouchable> {
    let name = name.to_ascii_lowercase();
    match (name.as_str(), side) {
        (
            "connection" | "upgrade" | "keep-alive" | "proxy-connection" | "te" | "trailer"
            | "transfer-encoding" | "content-length" | "expect" | "http2-settings",
            _,
        ) => Some(Untouchable::Framing),
        ("x-original-host", Side::Request) => Some(Untouchable::Witness),
        ("sec-websocket-protocol" | "sec-websocket-extensions", Side::Request) => {
            (!removes).then_some(Untouchable::OnlyRemoved)
        }
        (name, _) if name.starts_with("sec-websocket-") => Some(Untouchable::Handshake),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_as_people_write_them_are_taken() {
        let matched =
            |text: &str, value: &str| pattern(text, false).unwrap().is_match(value.as_bytes());
        assert!(matched(
            r"(https?):\/\/.*azurewebsites\.net(.*)$",
            "https://a.azurewebsites.net/x"
        ));
        assert!(matched(r"^\/api\/(\d+)", "/api/42"));
        assert!(matched("é", "café"));
        assert!(!matched(r"^\d$", "٣"), "a digit is one of ASCII");
        assert!(pattern("CHAT", true).unwrap().is_match(b"chat"));
        assert!(pattern(".", false).unwrap().is_match(b"\xff"), "a header may hold any byte");
    }

    #[test]
    fn patterns_that_would_cost_much_are_refused() {
        for text in ["(((a{100}){100}){100})", "(?=x)", r"(a)\1", "(", &"(".repeat(100)] {
            assert!(pattern(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn what_holds_a_message_together_is_not_to_be_touched() {
        for side in [Side::Request, Side::Response] {
            for name in ["Connection", "UPGRADE", "transfer-encoding", "Content-Length"] {
                assert_eq!(untouchable(name, side, true), Some(Untouchable::Framing), "{name}");
            }
            for name in ["Sec-WebSocket-Key", "sec-websocket-accept", "Sec-WebSocket-Version"] {
                assert_eq!(untouchable(name, side, true), Some(Untouchable::Handshake), "{name}");
            }
            assert_eq!(untouchable("X-Anything", side, false), None);
        }
        let protocol = |side, removes| untouchable("Sec-WebSocket-Protocol", side, removes);
        assert_eq!(protocol(Side::Request, true), None);
        assert_eq!(protocol(Side::Request, false), Some(Untouchable::OnlyRemoved));
        assert_eq!(protocol(Side::Response, true), Some(Untouchable::Handshake));
        assert_eq!(untouchable("X-Original-Host", Side::Response, false), None);
    }
}
