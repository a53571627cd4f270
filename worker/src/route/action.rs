//! What a route does: forward to a binding, or redirect.

use holdfast_proto::control as wire;
use http::StatusCode;

use super::RouteRefusal;
use super::host::without_port;

/// What happens with a routed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes to a pool under its settings.
    Forward {
        /// Index into the table's bindings.
        binding: usize,
        /// Index into the table's rewrite sets.
        rewrite: Option<usize>,
    },
    /// Is answered with a redirect; no backend is involved.
    Redirect(Redirect),
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303 or 307.
    pub status: StatusCode,
    target: Target,
    include_path: bool,
    include_query: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Url(String),
    /// Empty scheme or host, or port 0: the request's own.
    Listener {
        scheme: String,
        host: String,
        port: u16,
    },
}

// === impl Action ===

impl Action {
    pub(super) fn compile(
        action: Option<wire::Action>,
        site: &str,
        bindings: usize,
    ) -> Result<Option<Self>, RouteRefusal> {
        let set = action.as_ref().and_then(|action| action.rewrite_set);
        match action.and_then(|action| action.kind) {
            None => Ok(None),
            Some(wire::action::Kind::Forward(wire::Forward { binding })) => {
                let index = usize::try_from(binding).ok().filter(|index| *index < bindings);
                let refusal = || RouteRefusal::Binding { site: site.to_owned(), binding };
                // Whether there is such a set was checked where the sets are.
                let rewrite = set.and_then(|index| usize::try_from(index).ok());
                Ok(Some(Self::Forward { binding: index.ok_or_else(refusal)?, rewrite }))
            }
            Some(wire::action::Kind::Redirect(redirect)) => Redirect::compile(redirect)
                .map(|redirect| Some(Self::Redirect(redirect)))
                .map_err(|reason| RouteRefusal::Redirect { site: site.to_owned(), reason }),
        }
    }
}

// === impl Redirect ===

impl Redirect {
    fn compile(redirect: wire::Redirect) -> Result<Self, &'static str> {
        let status = match redirect.status {
            301 => StatusCode::MOVED_PERMANENTLY,
            302 => StatusCode::FOUND,
            303 => StatusCode::SEE_OTHER,
            307 => StatusCode::TEMPORARY_REDIRECT,
            _ => return Err("status is none of 301, 302, 303, 307"),
        };
        let target = if redirect.target_url.is_empty() {
            let port = u16::try_from(redirect.target_port).map_err(|_| "port out of range")?;
            Target::Listener { scheme: redirect.target_scheme, host: redirect.target_host, port }
        } else {
            if !redirect.target_url.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("target URL holds characters that a URL cannot");
            }
            Target::Url(redirect.target_url)
        };
        let (include_path, include_query) = (redirect.include_path, redirect.include_query);
        Ok(Self { status, target, include_path, include_query })
    }

    /// The Location for a request that came as `scheme`, `host` (as in its Host header) and `port`.
    pub fn location(&self, scheme: &str, host: &str, port: u16, path_and_query: &str) -> String {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        // `OPTIONS *` has no path that could be appended.
        let path = if path.starts_with('/') { path } else { "/" };
        let mut location = match &self.target {
            Target::Url(url) => {
                let (base, own_query) = match url.split_once('?') {
                    Some((base, query)) => (base, Some(query)),
                    None => (url.as_str(), None),
                };
                let mut location = base.to_owned();
                if self.include_path {
                    location.truncate(base.trim_end_matches('/').len());
                    location.push_str(path);
                }
                if let Some(own) = own_query {
                    location.push('?');
                    location.push_str(own);
                }
                location
            }
            Target::Listener { scheme: to_scheme, host: to_host, port: to_port } => {
                let scheme = if to_scheme.is_empty() { scheme } else { to_scheme };
                let host = if to_host.is_empty() { host } else { to_host };
                let port = if *to_port == 0 { port } else { *to_port };
                let mut location = origin(scheme, host, port);
                location.push_str(if self.include_path { path } else { "/" });
                location
            }
        };
        if let Some(query) = query.filter(|query| self.include_query && !query.is_empty()) {
            location.push(if location.contains('?') { '&' } else { '?' });
            location.push_str(query);
        }
        location
    }
}

/// `scheme://host[:port]`, the scheme's default port left out.
fn origin(scheme: &str, host: &str, port: u16) -> String {
    let name = without_port(host);
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    match (scheme, port) {
        ("http", 80) | ("https", 443) => format!("{scheme}://{name}"),
        _ => format!("{scheme}://{name}:{port}"),
    }
}
