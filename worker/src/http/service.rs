//! One request, from hyper to its answer: check, route, act, answer. Every branch of a request is here.
//!
//! Nothing here touches a socket. A fault of any kind becomes an answer in one place, by `respond`; a request keeps
//! the revision that it began under.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::headers::{self, TraceId};
use crate::http::admittance;
use crate::http::body::{Reply, RequestBody, Upload};
use crate::http::forward::{Answer, Errand};
use crate::http::note::Note;
use crate::http::opening::PendingTunnel;
use crate::http::outbound::{Outbound, announced_length, host_of, target_of};
use crate::http::returning::Keep;
use crate::http::rewritten::{self, Course, Kept};
use crate::http::{Conversation, RequestInFlight, h2};
use crate::pool::rotation::Preference;
use crate::pool::{Backend, Binding};
use crate::respond;
use crate::rewrite::facts::Facts;
use crate::route::{Action, MatchedPrefix, Redirect, Routed};
use crate::snapshot::{Serving, Table};
use crate::tls::client_auth::Verdict;
use crate::tunnel::TunnelFacts;
use crate::websocket::Opening;

/// A request that goes to a pool.
struct Call<'a> {
    conversation: &'a Conversation,
    /// The peer's, or whom a trusted one names.
    client: SocketAddr,
    note: &'a Note,
    serving: &'a Serving,
    index: usize,
    binding: &'a Binding,
    routed: Routed<'a>,
    prefix: MatchedPrefix,
    host: &'a HeaderValue,
    trace_id: TraceId,
    /// What came of looking at the client's certificate.
    verdict: Verdict,
    opening: Option<Opening>,
    by_connect: bool,
}

/// Answers one request. It never fails: a fault is an answer too.
pub(super) async fn answer(
    mut request: Request<Incoming>,
    conversation: &Conversation,
    mut in_flight: RequestInFlight,
) -> Response<Reply> {
    let serving = conversation.shared.current.load();
    let began = Instant::now();
    let is_head = request.method() == Method::HEAD;
    let told = || (request.method().clone(), request.uri().clone());
    let told = tracing::enabled!(tracing::Level::DEBUG).then(told);
    let (old_client, multiplexed) =
        (request.version() == Version::HTTP_10, request.version() == Version::HTTP_2);
    in_flight.note = Note::begin(conversation, &serving, &request, began);
    if request.extensions().get::<OnUpgrade>().is_some() {
        *conversation.upgrade() = Some(hyper::upgrade::on(&mut request));
    }
    let (parts, body) = request.into_parts();
    // Boxed: it is handed on from one step to the next, and each would have room for it.
    let parts = Box::new(parts);
    let most = serving.table.limits.max_body_bytes;
    let (body, upload) = RequestBody::new(body, most, conversation.carried.clone(), began);
    in_flight.note.uploads(&upload);
    let mut site = None;
    let acted = act(parts, body, &upload, conversation, &serving, &in_flight.note, &mut site).await;
    let acted = acted.inspect_err(|fault| in_flight.note.failed(fault));
    let refuse = |fault| refuse(&fault, site.as_deref(), &serving, conversation);
    let mut response = acted.unwrap_or_else(refuse);
    let status = response.status();
    // Looked at as late as possible: an answer that leaves after the drain began must be the last one. So must one
    // that comes before the client's body is read: if nobody reads the rest, hyper ends the connection over it.
    let is_last = conversation.shared.drain.is_begun() || !upload.is_whole();
    if multiplexed {
        // Its connection's end is told by a GOAWAY, and no answer speaks of it (RFC 9113, section 8.2.2).
        headers::remove_hop_by_hop(response.headers_mut());
    } else if is_last && status != StatusCode::SWITCHING_PROTOCOLS {
        headers::end_connection(response.headers_mut());
    }
    in_flight.ends_by_close = old_client
        && !response.headers().contains_key(CONTENT_LENGTH)
        && !response.body().is_end_stream();
    if old_client && (in_flight.ends_by_close || headers::ends_connection(response.headers())) {
        // Otherwise hyper promises the keep-alive that such a client asked for.
        *response.version_mut() = Version::HTTP_10;
    }
    in_flight.note.answered(&response);
    match conversation.tunnel().as_mut() {
        // Whether it is told of, and counted, its opening decides.
        Some(tunnel) => tunnel.note = in_flight.note.take_for_tunnel(),
        None => conversation.shared.metrics.count_request(status),
    }
    if let Some((method, target)) = told {
        tracing::debug!(client = %conversation.peer.client, %method, %target, %status, "answered");
    }
    // Over HTTP/1.1 hyper knows that a HEAD has no body.
    let bare = multiplexed && is_head;
    let body = |reply| if bare { Reply::page(respond::empty()) } else { reply };
    response.map(|reply| body(reply).hold(in_flight))
}

/// Answers a request whose tunnel both sides had agreed on, and which has not come about.
pub(super) fn refuse_unopened(
    fault: &Fault,
    site: &str,
    conversation: &Conversation,
    in_flight: RequestInFlight,
) -> Response<Reply> {
    in_flight.note.failed(fault);
    let serving = conversation.shared.current.load();
    let response = refuse(fault, Some(site), &serving, conversation);
    conversation.shared.metrics.count_request(response.status());
    in_flight.note.answered(&response);
    response.map(|reply| reply.hold(in_flight))
}

fn refuse(
    fault: &Fault,
    site: Option<&str>,
    serving: &Serving,
    conversation: &Conversation,
) -> Response<Reply> {
    tracing::debug!(client = %conversation.peer.client, %fault, "request failed");
    conversation.shared.metrics.count_refusal(fault.kind);
    let table = &serving.table;
    let page = respond::fault(fault, table.hide_server_header, table.pages.of(site));
    let mut response = page.map(Reply::page);
    let rest_is_unreadable = matches!(
        fault.kind,
        FaultKind::BadRequest(_) | FaultKind::BodyTooLarge | FaultKind::RequestTimeout
    );
    // Over HTTP/2 other sites of the connection are served on, unless it is to end as a whole.
    let ends = conversation.is_to_end() || fault.kind == FaultKind::Misdirected;
    if rest_is_unreadable || ends {
        headers::end_connection(response.headers_mut());
    }
    response
}

async fn act(
    mut parts: Box<request::Parts>,
    body: RequestBody,
    upload: &Upload,
    conversation: &Conversation,
    serving: &Serving,
    note: &Note,
    taken_by: &mut Option<Arc<str>>,
) -> Result<Response<Reply>, Fault> {
    h2::make_http1(&mut parts)?;
    let peer = conversation.peer;
    let tls = peer.tls;
    let checked = headers::check_size(&parts, serving.table.limits.max_header_bytes)
        .and_then(|()| headers::check_request(&parts));
    let host = match checked {
        Ok(host) => host,
        Err(fault) => {
            *taken_by = claimed_site(&parts, tls, serving);
            return Err(fault);
        }
    };
    let name = host.to_str().unwrap_or_default();
    let named = (!name.is_empty()).then_some(name);
    let router = &serving.table.router;
    let routed = router.route(tls, named, parts.uri.path()).ok_or(Fault::new(FaultKind::NoSite))?;
    note.routed(routed.site, routed.rule);
    *taken_by = Some(routed.site.name.clone());
    let verdict = admittance::check(&serving.table, routed.site, conversation, note).await?;
    match routed.action {
        Action::Redirect(redirect) => {
            redirect_to(redirect, &parts, name, conversation, serving.table.hide_server_header)
        }
        Action::Forward { binding: index, .. } => {
            let mut call = Call {
                conversation,
                client: serving.table.client_source.client_of(peer.client, &parts.headers),
                note,
                serving,
                index: *index,
                binding: serving.table.bindings.get(*index).ok_or(FaultKind::Internal)?,
                routed,
                prefix: routed.matched_prefix,
                host: &host,
                trace_id: TraceId::random(),
                verdict,
                opening: Opening::from_request(&parts)?,
                by_connect: parts.extensions.get::<h2::ByConnect>().is_some(),
            };
            call.forward(parts, body, upload).await
        }
    }
}

/// Whose page a request gets that is refused before it is routed: the site's that its only Host names.
fn claimed_site(parts: &request::Parts, tls: bool, serving: &Serving) -> Option<Arc<str>> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let routed = serving.table.router.route(tls, Some(host.to_str().ok()?), parts.uri.path());
    routed.map(|routed| routed.site.name.clone())
}

fn redirect_to(
    redirect: &Redirect,
    parts: &request::Parts,
    host: &str,
    conversation: &Conversation,
    hide_server: bool,
) -> Result<Response<Reply>, Fault> {
    let peer = conversation.peer;
    let scheme = if peer.tls { "https" } else { "http" };
    let location = redirect.location(scheme, host, peer.local.port(), target_of(&parts.uri));
    let location = HeaderValue::try_from(location)
        .map_err(|_| Fault::bad_request("the request cannot stand in a Location"))?;
    Ok(respond::redirect(redirect.status, location, hide_server).map(Reply::page))
}

// === impl Call ===

impl<'a> Call<'a> {
    /// To a backend and back.
    async fn forward(
        &mut self,
        mut head: Box<request::Parts>,
        body: RequestBody,
        upload: &Upload,
    ) -> Result<Response<Reply>, Fault> {
        let shared = &self.conversation.shared;
        if announced_length(&head) > self.serving.table.limits.max_body_bytes {
            return Err(Fault::new(FaultKind::BodyTooLarge));
        }
        let has_body = !body.is_end_stream();
        let peer = self.conversation.peer;
        let is_rewritten = rewritten::concerns(&self.routed);
        let (table, site) = (&self.serving.table, self.routed.site);
        let session =
            is_rewritten.then(|| admittance::session(table, site, self.conversation, self.verdict));
        let session = session.flatten();
        let facts = is_rewritten
            .then(|| Facts::of(&head, self.client, peer.local.port(), session.as_ref()));
        self.make_outbound(&mut head, has_body, facts.is_some())?;
        let (mut written_host, mut kept) = (None, None);
        if let Some(facts) = facts {
            match self.steer(facts, &mut head)? {
                ControlFlow::Break(answer) => return Ok(answer),
                ControlFlow::Continue(course) => (written_host, kept) = (course.host, course.kept),
            }
        }
        if let Some(path) = head.uri.path_and_query() {
            head.uri = Uri::from(self.binding.path_for(&self.prefix, path));
        }
        self.note.forwarded(self.binding, &head.uri, &self.trace_id);
        let cookie = self.binding.affinity.as_ref().and_then(|it| it.named_by(&head.headers));
        let own = self.binding.dedicated.then(|| self.conversation.own.get_or_init(Arc::default));
        let own_backend = own.and_then(|own| own.backend(self.binding));
        let client = self.client.ip();
        let errand = Errand {
            serving: self.serving,
            binding: self.binding,
            index: self.index,
            metrics: &shared.metrics,
            idle: &shared.idle,
            own,
            preference: Preference { client, cookie, own: own_backend.as_ref() },
            head: &head,
            client_host: host_of(written_host.as_ref(), self.host),
            host: written_host.as_ref(),
            upload,
            note: self.note,
            watch: &self.conversation.patience,
            upgrade: self.opening.is_some(),
        };
        let body = if has_body { BodyExt::boxed(body) } else { respond::empty() };
        let answer = errand.send(body).await?;
        if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(answer, cookie, kept.as_deref());
        }
        self.check_unswitched(&answer.response)?;
        // A connection that saw an upgrade attempt is not trusted with another client's request.
        let keep = match own {
            Some(own) => Some(Keep::Own(own.clone())),
            None => self.opening.is_none().then(|| Keep::Shared(shared.idle.clone())),
        };
        let backend = answer.backend.clone();
        let mut response = answer.into_response(self.binding.request_timeout, keep);
        let hide_server = self.serving.table.hide_server_header;
        let status = response.status();
        headers::prepare_response(response.headers_mut(), status, hide_server);
        self.lead_back(&backend, cookie, response.headers_mut());
        if let Some(kept) = kept {
            kept.change(status, response.headers_mut())?;
        }
        Ok(response)
    }

    /// Lets the route's rewrites change the request and choose its way. `Break`: it goes nowhere, this answers it.
    fn steer<'f>(
        &mut self,
        facts: Facts<'f>,
        head: &mut request::Parts,
    ) -> Result<ControlFlow<Response<Reply>, Course<'f>>, Fault>
    where
        'a: 'f,
    {
        let table: &'a Table = &self.serving.table;
        let sets = &table.rewrite_sets;
        let course = rewritten::follow(&self.routed, sets, facts, head, &mut |_| {})?;
        match course.action {
            Action::Redirect(redirect) => {
                let hide_server = table.hide_server_header;
                let host = self.host.to_str().unwrap_or_default();
                let answer = redirect_to(redirect, head, host, self.conversation, hide_server)?;
                return Ok(ControlFlow::Break(answer));
            }
            Action::Forward { binding, .. } => {
                self.index = *binding;
                self.binding = table.bindings.get(*binding).ok_or(FaultKind::Internal)?;
            }
        }
        self.prefix = course.prefix;
        Ok(ControlFlow::Continue(course))
    }

    /// Sees to it that the client's next request comes to the backend that answered this one.
    fn lead_back(&self, to: &Arc<Backend>, cookie: Option<&Arc<Backend>>, answer: &mut HeaderMap) {
        if let Some(affinity) = &self.binding.affinity
            && !cookie.is_some_and(|named| Arc::ptr_eq(named, to))
        {
            affinity.set(to, answer);
        }
    }

    /// Makes the request what backends get.
    fn make_outbound(
        &self,
        head: &mut request::Parts,
        has_body: bool,
        with_host: bool,
    ) -> Result<(), Fault> {
        let Conversation { peer, session, .. } = self.conversation;
        let outbound = Outbound {
            table: &self.serving.table,
            hop: self.conversation.hop(),
            client: peer.client,
            host: self.host,
            trace_id: &self.trace_id,
            fingerprint: session.as_ref().and_then(|it| it.fingerprint.as_ref()),
            websocket: self.opening.is_some(),
            with_host,
        };
        outbound.make(head, has_body)
    }

    /// An answer that is no 101, to what may have been a handshake.
    fn check_unswitched(&self, answer: &Response<Incoming>) -> Result<(), Fault> {
        let status = answer.status();
        if self.by_connect && status.is_success() {
            // Not what was asked for, and there a success of any kind is taken for it (RFC 8441, section 5).
            tracing::debug!(%status, "a backend does not accept the handshake");
            return Err(Fault::new(FaultKind::BackendProtocol));
        }
        headers::check_response(answer.headers())
    }

    /// The backend's 101: verified, then left for the connection to make a tunnel of.
    fn switch(
        &self,
        answer: Answer,
        cookie: Option<&Arc<Backend>>,
        kept: Option<&Kept<'_>>,
    ) -> Result<Response<Reply>, Fault> {
        // Nobody asked for a change of protocol, or not for this one.
        let opening = self.opening.as_ref().ok_or(FaultKind::BackendProtocol)?;
        let Answer { mut response, backend, held, .. } = answer;
        let backend_upgrade = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        opening.verify(&parts)?;
        let hide_server = self.serving.table.hide_server_header;
        headers::prepare_response(&mut parts.headers, parts.status, hide_server);
        // It has none (RFC 9110, section 8.6), and a success of a CONNECT that had one would be refused.
        parts.headers.remove(CONTENT_LENGTH);
        self.lead_back(&backend, cookie, &mut parts.headers);
        if let Some(kept) = kept {
            kept.change(parts.status, &mut parts.headers)?;
        }
        let facts = TunnelFacts {
            site: self.routed.site.name.clone(),
            pool: backend.pool.clone(),
            settings: self.binding.settings.clone(),
            backend: backend.address.clone(),
            backend_port: backend.port,
            client: self.client,
            logged: self.note.is_taken(),
            trace_id: self.trace_id.as_str().into(),
            idle_timeout: self.binding.request_timeout,
            opened: SystemTime::now(),
        };
        // Or its backend has left while the handshake went on.
        let lingers = !self.serving.is_in_rotation(self.index, &backend)
            || !self.conversation.shared.current.is(self.serving);
        let note = Note::default();
        let pending = PendingTunnel { backend: backend_upgrade, facts, lingers, held, note };
        *self.conversation.tunnel() = Some(pending);
        // From here on, what hyper writes is the tunnel's to say.
        self.conversation.gate.capture();
        Ok(Response::from_parts(parts, Reply::page(respond::empty())))
    }
}
