//! Cookie affinity: a client that has been given a backend comes back to it.
//!
//! A cookie's value is a keyed hash of the backend it names, its pool and its settings. The key is the gateway's and
//! outlives every worker, so a cookie does too; a client can only give back what it was given. Whether the named
//! backend may take work is not known here: `snapshot` joins it with health. Nothing here may ever take a value for
//! valid that was not computed from the key.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use holdfast_proto::control as wire;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use ring::hmac;
use thiserror::Error;

use super::Backend;

/// What Azure appends to the name of the cookie for other sites' pages.
const TWIN: &str = "CORS";
/// Bytes of the hash that a cookie shows: 32 hexadecimal characters, as Azure's.
const SHOWN: usize = 16;
/// Least length of a key, bytes. The supervisor makes them of 32.
const SHORTEST_KEY: usize = 16;

/// Why affinity cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AffinityRefusal {
    /// The name cannot stand in a cookie.
    #[error("cookie name {0:?} is not valid")]
    Name(String),
    /// There is nothing to sign with.
    #[error("no key for affinity cookies")]
    NoKey,
}

/// The cookies of one binding.
#[derive(Debug)]
pub struct Affinity {
    name: String,
    twin: String,
    /// From a cookie's value to the backend that it names.
    named: HashMap<Box<str>, Arc<Backend>>,
    /// From a backend's id to its cookie's value.
    values: HashMap<u64, Box<str>>,
}

// === impl Affinity ===

impl Affinity {
    /// Signs a cookie for each of a binding's backends.
    pub(super) fn compile(
        affinity: wire::Affinity,
        key: &[u8],
        settings: &str,
        backends: &[Arc<Backend>],
    ) -> Result<Self, AffinityRefusal> {
        let name = affinity.cookie_name;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(AffinityRefusal::Name(name));
        }
        if key.len() < SHORTEST_KEY {
            return Err(AffinityRefusal::NoKey);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let (mut named, mut values) = (HashMap::new(), HashMap::new());
        for backend in backends {
            let value = value(&key, settings, backend);
            values.insert(backend.id, value.clone());
            named.insert(value, Arc::clone(backend));
        }
        Ok(Self { twin: format!("{name}{TWIN}"), name, named, values })
    }

    /// The backend that a request's cookies name, if they name one of ours. A browser sends one of the two, both, or
    /// what is left of earlier ones; the first that is valid counts.
    pub fn named_by(&self, headers: &HeaderMap) -> Option<&Arc<Backend>> {
        [&self.name, &self.twin].into_iter().find_map(|name| {
            cookies(headers, name.as_bytes())
                .filter_map(|value| str::from_utf8(value).ok())
                .find_map(|value| self.named.get(value))
        })
    }

    /// Adds the cookies that lead back to `backend`.
    pub fn set(&self, backend: &Backend, headers: &mut HeaderMap) {
        let Some(value) = self.values.get(&backend.id) else { return };
        let cookies = [
            format!("{}={value}; Path=/", self.name),
            format!("{}={value}; Path=/; SameSite=None; Secure", self.twin),
        ];
        for cookie in cookies {
            // A token and hexadecimal digits always fit.
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(SET_COOKIE, cookie);
            }
        }
    }
}

/// The values that a request gives for a cookie: there may be several lines, and several of one name in each.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let (found, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        let value = value.strip_prefix(b"=")?;
        (found.trim_ascii() == name).then_some(value.trim_ascii())
    })
}

/// What names a backend: every part with its length before it, so that no two backends read the same.
fn value(key: &hmac::Key, settings: &str, backend: &Backend) -> Box<str> {
    let mut context = hmac::Context::with_key(key);
    // Names and host names are the same whatever their case.
    for part in [&*backend.pool, settings, &*backend.address] {
        let part = part.to_lowercase();
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(&backend.port.to_be_bytes());
    let tag = context.sign();
    let shown = tag.as_ref().iter().take(SHOWN);
    let text = shown.fold(String::with_capacity(2 * SHOWN), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    });
    text.into_boxed_str()
}

/// RFC 9110, section 5.6.2; what a cookie's name is made of (RFC 6265, section 4.1.1).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
