//! Who may look at the status page: on a loopback address everybody of this host, elsewhere whoever knows the token.
//!
//! The token's file is read at every look, so that another token counts at once, and a file that cannot be read keeps
//! everybody out instead of nobody in. The token goes nowhere: no log, no answer, and the cookie is only signed with it.
//! Comparisons take the same time whatever is compared.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HOST};
use ring::hmac;

/// The cookie that a browser is given for the token; RFC 6265 has no place for a scheme of our own in it.
const COOKIE_NAME: &str = "holdfast-ui";
/// How long a browser is let in without the token being typed again, seconds.
const SESSION_SECONDS: i64 = 12 * 60 * 60;
/// Longest token, bytes.
const LONGEST: u64 = 4096;
/// A shorter one can be guessed; it is taken, and said to be short.
const SHORTEST: usize = 16;

/// How the page is guarded.
#[derive(Debug)]
pub(super) enum Guard {
    /// By its address: a loopback one.
    Address,
    /// By a token in a file.
    Token(PathBuf),
    /// It is not shown: the address is not a loopback one, and there is no token.
    Shut,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Allowed,
    /// Its token is missing, wrong or too old.
    TokenNeeded,
    /// It names a host that this address is not: a page of somebody else's asks through a browser, say.
    OtherHost,
    /// See [`Guard::Shut`].
    Shut,
    /// The token cannot be read.
    NoToken,
}

/// What is wrong with a token's file.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it cannot be read ({0})")]
    Read(#[source] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it has more than 4096 bytes")]
    TooLong,
    #[error("a token is printable ASCII without spaces, in one line")]
    Odd,
}

/// The token, and what an operator should know of it.
struct Token {
    key: hmac::Key,
    doubts: Vec<&'static str>,
}

// === impl Guard ===

impl Guard {
    /// How a page on this address is guarded.
    pub(super) fn new(bound: SocketAddr, token_file: Option<PathBuf>) -> Self {
        match token_file {
            Some(file) => Self::Token(file),
            None if bound.ip().to_canonical().is_loopback() => Self::Address,
            None => Self::Shut,
        }
    }

    /// What an operator should know, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        let Self::Token(file) = self else { return None };
        let file_name = file.display();
        match read(file) {
            Ok(token) if token.doubts.is_empty() => None,
            Ok(token) => {
                let doubts = token.doubts.join(", and ");
                Some(format!("the status page's token in {file_name}: {doubts}"))
            }
            Err(error) => {
                Some(format!("the status page is shut: the token in {file_name}: {error}"))
            }
        }
    }

    /// Whether who asks may look, at a moment of Unix time.
    pub(super) fn judge(&self, headers: &HeaderMap, now: i64) -> Verdict {
        match self {
            Self::Shut => Verdict::Shut,
            Self::Address if names_this_host(headers) => Verdict::Allowed,
            Self::Address => Verdict::OtherHost,
            Self::Token(file) => match read(file) {
                Err(_) => Verdict::NoToken,
                Ok(token) if token.is_in(headers) || token.signed_one_of(headers, now) => {
                    Verdict::Allowed
                }
                Ok(_) => Verdict::TokenNeeded,
            },
        }
    }

    /// The cookie for who has sent the token itself: a cookie is not renewed by a cookie.
    pub(super) fn cookie(&self, headers: &HeaderMap, now: i64) -> Option<String> {
        let Self::Token(file) = self else { return None };
        let token = read(file).ok().filter(|token| token.is_in(headers))?;
        let end = now.saturating_add(SESSION_SECONDS);
        let signed = URL_SAFE_NO_PAD.encode(hmac::sign(&token.key, &pass(end)));
        Some(format!(
            "{COOKIE_NAME}={end}.{signed}; Path=/ui; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict"
        ))
    }
}

// === impl Token ===

impl Token {
    /// Whether the request brings the token itself.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
            let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        // The keyed digests are compared, in constant time: neither length nor beginning of the token shows.
        bearers.any(|presented| {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, presented.as_bytes()), PROOF);
            hmac::verify(&self.key, PROOF, tag.as_ref()).is_ok()
        })
    }

    /// Whether the request has a cookie that was signed with this token and is not over.
    fn signed_one_of(&self, headers: &HeaderMap, now: i64) -> bool {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut ours = cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='));
        ours.any(|cookie| self.signed(cookie, now).is_some())
    }

    fn signed(&self, cookie: &str, now: i64) -> Option<()> {
        let (end, tag) = cookie.split_once('.')?;
        let end: i64 = end.parse().ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, &pass(end), &tag).ok()?;
        (now < end).then_some(())
    }
}

/// Signed by whoever knows the token.
const PROOF: &[u8] = b"holdfast status page: the token";

/// What a cookie is signed for.
fn pass(end: i64) -> Vec<u8> {
    format!("holdfast status page: until {end}").into_bytes()
}

fn read(path: &Path) -> Result<Token, TokenError> {
    // Never waits for a pipe's other end: that is nobody's token.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(TokenError::Read)?;
    let open_to_all = file.metadata().is_ok_and(|it| it.is_file() && it.mode() & 0o004 != 0);
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(TokenError::Read)?;
    if bytes.len() as u64 > LONGEST {
        return Err(TokenError::TooLong);
    }
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(TokenError::Odd);
    }
    let mut doubts = Vec::new();
    if token.len() < SHORTEST {
        doubts.push("it is short enough to be guessed (make one with `openssl rand -hex 32`)");
    }
    if open_to_all {
        doubts.push("every user of this host may read the file (chmod o-r)");
    }
    Ok(Token { key: hmac::Key::new(hmac::HMAC_SHA256, token), doubts })
}

/// A browser says whom it means to talk to: a name that somebody else has pointed at this address (DNS rebinding) is not
/// this host's own. Who is no browser may leave it out.
fn names_this_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    match (first, second) {
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(is_loopback),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a Host is a loopback address or `localhost`, with any port.
fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().to_canonical().is_loopback();
    }
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests;
