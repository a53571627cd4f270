//! The status page: `/ui` and the documents that it follows, on the status address.
//!
//! Shows what `holdfast status`, `health`, `tunnels` and `revisions` say, by their own code, and what has passed through in
//! the last minutes. It changes nothing, and there is nothing here to change anything with. What it says comes from
//! documents, clients and backends, so the page only ever shows it as text; and nothing that is asked of the page may
//! cost the workers more the more people ask.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_proto::admin::{HealthResponse, RevisionsResponse};
use http_body_util::Full;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, SET_COOKIE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::facts;
use crate::grpc::{history, view};
use crate::run::{Options, RunError};
use crate::sockets;
use crate::state::Supervisor;
use crate::status::{self, PageAnswer, StatusSource};
use crate::upgrade;

mod access;
pub(crate) mod difference;
mod listing;
mod query;
mod traffic;

use access::{Guard, Verdict};
use listing::Listing;
use query::Query;
use traffic::Traffic;

/// One point of the plots; workers report as often.
const POINT: Duration = Duration::from_secs(1);
/// Points between two looks at the token's file: who has broken it hears of it.
const POINTS_A_LOOK: u32 = 10;
/// Facts are good for so long: any number of pages costs the workers five questions a second. With the second that a page
/// waits and what a worker may take to answer it is the time after which a page shows a change, at the latest.
const FRESH: Duration = Duration::from_millis(200);

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The page, in one piece, and what a browser may do with it: run this script, use this style, ask where it came from.
static PAGE: LazyLock<(String, HeaderValue)> = LazyLock::new(|| {
    let script = [
        include_str!("ui/page/elements.js"),
        include_str!("ui/page/plots.js"),
        include_str!("ui/page.js"),
    ];
    let (script, style) = (script.concat(), include_str!("ui/page.css"));
    let page = include_str!("ui/page.html");
    let page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", &script);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        STANDARD.encode(digest(&SHA256, script.as_bytes())),
        STANDARD.encode(digest(&SHA256, style.as_bytes())),
    );
    // Base64 has no character that a header must not have.
    let policy = HeaderValue::try_from(policy);
    (page, policy.unwrap_or(HeaderValue::from_static("default-src 'none'")))
});

/// Whom the status address tells about, and how.
struct Told {
    supervisor: Arc<Supervisor>,
    guard: Guard,
    traffic: Mutex<Traffic>,
    listing: Listing,
    /// The last facts, as the text that every page gets; held while they are asked for.
    facts: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
    /// One at a time: it reads two documents, which may be large.
    comparing: tokio::sync::Mutex<()>,
}

/// Serves the status address: metrics, probes and the page.
pub(crate) fn serve(
    supervisor: &Arc<Supervisor>,
    options: &Options,
) -> Result<SocketAddr, RunError> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9180));
    let address = options.status_listen.unwrap_or(default);
    let fail = |source| RunError::Socket { at: format!("status address {address}"), source };
    let listener = match supervisor.upgrades.kept(upgrade::STATUS) {
        Some(held) => TcpListener::from(held),
        None => sockets::listen(address).map_err(fail)?,
    };
    supervisor.upgrades.keep(upgrade::STATUS, &listener).map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let told = Arc::new(Told::new(supervisor.clone(), bound, options.status_token_file.clone()));
    told.look_at_token();
    tokio::spawn(told.clone().follow());
    tokio::spawn(async move {
        // It never ends by itself.
        let Err(error) = status::serve(listener, told).await;
        tracing::error!(%error, "the status address is no longer served");
    });
    Ok(bound)
}

// === impl Told ===

impl StatusSource for Told {
    fn metrics(&self) -> String {
        self.supervisor.metrics()
    }

    fn ready(&self) -> Result<(), String> {
        self.supervisor.ready()
    }

    fn page(self: Arc<Self>, request: Parts) -> PageAnswer {
        Box::pin(async move { self.answer(&request).await })
    }
}

impl Told {
    fn new(supervisor: Arc<Supervisor>, bound: SocketAddr, token_file: Option<PathBuf>) -> Self {
        let guard = Guard::new(bound, token_file);
        if matches!(guard, Guard::Shut) {
            tracing::info!(
                %bound,
                "the status page /ui is not shown on this address without --status-token-file"
            );
        }
        Self {
            supervisor,
            guard,
            traffic: Mutex::new(Traffic::new(format!("{:016x}", rand::random::<u64>()))),
            listing: Listing::default(),
            facts: tokio::sync::Mutex::default(),
            comparing: tokio::sync::Mutex::default(),
        }
    }

    /// Takes the figures down, a point a second, for as long as there is a supervisor.
    async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(POINT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut points = 0_u32;
        loop {
            ticks.tick().await;
            let readings = self.supervisor.metrics.readings();
            self.traffic().add(Timestamp::now().as_millisecond(), readings);
            self.listing.forget();
            points = points.wrapping_add(1);
            if points.is_multiple_of(POINTS_A_LOOK) {
                self.look_at_token();
            }
        }
    }

    /// Tells operators of a token that lets nobody in, or too many.
    fn look_at_token(&self) {
        let problem = tokio::task::block_in_place(|| self.guard.problem());
        self.supervisor.problem("status token", problem);
    }

    async fn answer(&self, request: &Parts) -> Response<Full<Bytes>> {
        let now = Timestamp::now().as_second();
        let headers = &request.headers;
        // A small file, as a rule; where it is not, this thread is not missed.
        let verdict = tokio::task::block_in_place(|| self.guard.judge(headers, now));
        let mut response = match verdict {
            Verdict::Allowed => self.show(request).await,
            Verdict::TokenNeeded => sign_in(request.uri.path()),
            Verdict::OtherHost => status::text(
                StatusCode::MISDIRECTED_REQUEST,
                "the status page is at http://localhost:PORT/ui or http://127.0.0.1:PORT/ui; over another name, it needs a \
                 token (holdfast run --status-token-file FILE)\n",
            ),
            Verdict::Shut => status::text(
                StatusCode::FORBIDDEN,
                "the status page is shown on a loopback address, or to who has a token: start the gateway with \
                 --status-token-file FILE\n",
            ),
            Verdict::NoToken => status::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the status page is shut: its token cannot be read. `holdfast status` says why\n",
            ),
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let resources = HeaderName::from_static("cross-origin-resource-policy");
        headers.insert(resources, HeaderValue::from_static("same-origin"));
        response
    }

    async fn show(&self, request: &Parts) -> Response<Full<Bytes>> {
        let query = Query(request.uri.query().unwrap_or_default());
        match request.uri.path() {
            "/ui" | "/ui/" => page(StatusCode::OK, "open"),
            "/ui/state.json" => document(self.state(query).await),
            "/ui/tunnels.json" => document(self.listing.json(&self.supervisor, query).await),
            "/ui/difference.json" => document(self.difference(query).await.to_string()),
            "/ui/session" => self.session(request),
            _ => status::text(StatusCode::NOT_FOUND, "not found: try /ui\n"),
        }
    }

    /// Gives a browser that has sent the token a cookie, so that it need not keep the token.
    fn session(&self, request: &Parts) -> Response<Full<Bytes>> {
        let now = Timestamp::now().as_second();
        let cookie = tokio::task::block_in_place(|| self.guard.cookie(&request.headers, now));
        let mut response = document(json!({ "signed_in": cookie.is_some() }).to_string());
        // Made of digits and base64.
        if let Some(cookie) = cookie.and_then(|it| HeaderValue::try_from(it).ok()) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }

    /// What the page follows: the facts of this moment, and the points that it lacks.
    async fn state(&self, query: Query<'_>) -> String {
        let facts = self.facts().await;
        let (run, after) = (query.text("run"), query.number("after").unwrap_or(0));
        with_member(&facts, "traffic", &self.traffic().json(&run, after))
    }

    async fn facts(&self) -> Arc<str> {
        let mut last = self.facts.lock().await;
        if let Some((_, facts)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return facts.clone();
        }
        let supervisor = &self.supervisor;
        let status = view::status_now(supervisor).await;
        let health = HealthResponse { pools: supervisor.health.report() };
        let revisions = RevisionsResponse { revisions: history::revisions(supervisor) };
        let facts = json!({
            "now_ms": Timestamp::now().as_millisecond(),
            "status": facts::status_json(&status),
            "health": facts::health_json(&health),
            "revisions": facts::revisions_json(&revisions),
            "stopping": supervisor.stopping(),
        });
        let facts: Arc<str> = facts.to_string().into();
        *last = Some((Instant::now(), facts.clone()));
        facts
    }

    /// What changed from one revision to another.
    async fn difference(&self, query: Query<'_>) -> Value {
        let (Some(from), Some(to)) = (query.number("from"), query.number("to")) else {
            return json!({ "error": "two numbers of revisions are needed: ?from=1&to=2" });
        };
        let _one_at_a_time = self.comparing.lock().await;
        let told = tokio::task::block_in_place(|| {
            let (_, before) = history::effective(&self.supervisor, Some(from))?;
            let (_, after) = history::effective(&self.supervisor, Some(to))?;
            Ok::<_, tonic::Status>(difference::between(&before, &after))
        });
        let mut told = told.unwrap_or_else(|error| json!({ "error": error.message() }));
        if let Some(members) = told.as_object_mut() {
            members.insert("from".to_owned(), json!(from));
            members.insert("to".to_owned(), json!(to));
        }
        told
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        // Each change leaves it whole.
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the token: a browser gets the page's form, everything else a word.
fn sign_in(path: &str) -> Response<Full<Bytes>> {
    let mut response = match path {
        "/ui" | "/ui/" => page(StatusCode::UNAUTHORIZED, "token"),
        _ => status::text(
            StatusCode::UNAUTHORIZED,
            "a token is needed: send \"Authorization: Bearer TOKEN\", or open /ui in a browser\n",
        ),
    };
    let challenge = HeaderValue::from_static("Bearer realm=\"holdfast\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// The page itself: there is nothing of this gateway in it.
fn page(status: StatusCode, access: &str) -> Response<Full<Bytes>> {
    let (text, policy) = &*PAGE;
    let text = text.replacen("data-access=\"open\"", &format!("data-access=\"{access}\""), 1);
    let mut response = status::answer(status, HTML, text);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy.clone());
    response
}

/// An object that was written already and has members, with one more: what everybody gets is not made anew for each.
fn with_member(object: &str, name: &str, value: &Value) -> String {
    let open = object.strip_suffix('}').unwrap_or(object);
    format!("{open},\"{name}\":{value}}}")
}

fn document(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = status::answer(StatusCode::OK, JSON, body);
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{FRESH_PATIENCE, QUERY_PATIENCE};

    #[test]
    fn the_page_is_in_one_piece_and_its_policy_allows_nothing_else() {
        let (page, policy) = &*PAGE;
        assert!(!page.contains("/*SCRIPT*/") && !page.contains("/*STYLE*/"));
        let policy = policy.to_str().unwrap_or_default();
        for (tag, name) in [("script", "script-src"), ("style", "style-src")] {
            let [open, close] = [format!("<{tag}>"), format!("</{tag}>")];
            let body = page.split(&open).nth(1).and_then(|it| it.split(&close).next());
            let hash = STANDARD.encode(digest(&SHA256, body.unwrap_or_default().as_bytes()));
            assert!(policy.contains(&format!("{name} 'sha256-{hash}'")), "{tag}: {policy}");
            assert_eq!(page.matches(&open).count(), 1, "{tag}");
        }
        assert!(!policy.contains("unsafe") && policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(page.matches("data-access=\"open\"").count(), 1);
        for elsewhere in ["http:", "https:", "//cdn", "src=", "@import", "url("] {
            let inside = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!inside.contains(elsewhere), "{elsewhere}");
        }
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!page.contains(sink), "{sink}");
        }
    }

    #[test]
    fn a_change_is_on_the_page_within_two_seconds() {
        let number = |name: &str| {
            let rest = PAGE.0.split(&format!("{name} = ")).nth(1).unwrap_or_default();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Duration::from_millis(digits.parse().unwrap_or(u64::MAX))
        };
        // It happens just after an answer: the page asks a period later, and may be told what was asked just before.
        let bound = Duration::from_secs(2);
        assert!(number("PERIOD_MS") + FRESH + FRESH_PATIENCE <= bound);
        assert!(number("PERIOD_MS") + listing::SHORTEST_PAUSE <= bound);
        // Who is kept waiting for workers that do not answer is not the first to give up.
        assert!(number("LIST_PATIENCE_MS") > QUERY_PATIENCE);
    }

    #[test]
    fn a_member_is_added_to_what_was_written() {
        let all = with_member(&json!({"a": "}"}).to_string(), "b", &json!([{"c": 1}]));
        let read: Value = serde_json::from_str(&all).unwrap_or_default();
        assert_eq!(read, json!({"a": "}", "b": [{"c": 1}]}));
    }
}
