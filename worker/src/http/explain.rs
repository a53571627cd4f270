//! What would become of a request: the way that `service` takes through table, rewrites and pools, told instead of gone.
//!
//! Every decision is taken by the code that takes it for a client. Nothing is sent or counted, and no backend's turn is
//! used up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use holdfast_proto::admin::explain_rewrite::Effect as Told;
use holdfast_proto::admin::{
    ExplainBackend, ExplainForward, ExplainHeader, ExplainRedirect, ExplainRefusal, ExplainRequest,
    ExplainResponse, ExplainRewrite, ExplainStep,
};
use holdfast_proto::control::ListenerSnapshot;
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, request};

use crate::fault::{Fault, FaultKind};
use crate::headers::{self, Hop, TraceId};
use crate::http::Peer;
use crate::http::outbound::{Outbound, announced_length, host_of, target_of};
use crate::http::rewritten::{self, Turn};
use crate::pool::distribution::Algorithm;
use crate::pool::rotation::Preference;
use crate::pool::{Backend, Binding, FOREVER};
use crate::respond;
use crate::rewrite::Effect;
use crate::rewrite::facts::{Facts, Session};
use crate::route::{Action, MatchedPrefix, Redirect, Routed, Site, without_port};
use crate::snapshot::{Current, Serving, SnapshotRefusal, Table};
use crate::tls::client_auth::{self, Verdict};
use crate::tls::profile::{Admittance, ClientIdentity};
use crate::websocket::Opening;

/// Where a client is that nobody has named.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Length of the key of a table that serves nobody.
const KEY: usize = 32;

/// What a request is on its way.
struct Sight<'a> {
    serving: &'a Serving,
    peer: Peer,
    client: SocketAddr,
    host: HeaderValue,
    opening: Option<Opening>,
}

/// Explains a request by what is served now.
pub fn explain(serving: &Serving, question: &ExplainRequest) -> ExplainResponse {
    let mut told = ExplainResponse {
        revision: serving.table.revision,
        listener: serving.table.listener.clone(),
        ..ExplainResponse::default()
    };
    if let Err(fault) = tell(serving, question, &mut told) {
        told.refusal = Some(refusal(&fault));
    }
    told
}

/// Explains a request by a snapshot that nobody serves; no health is known, and no cookie valid.
pub fn explain_offline(
    mut snapshot: ListenerSnapshot,
    question: &ExplainRequest,
) -> Result<ExplainResponse, SnapshotRefusal> {
    snapshot.affinity_key = vec![0; KEY];
    let current = Current::new();
    current.install_table(Table::compile(snapshot, None)?);
    Ok(explain(&current.load(), question))
}

fn refusal(fault: &Fault) -> ExplainRefusal {
    ExplainRefusal {
        status: respond::status(fault.kind).as_u16().into(),
        word: fault.kind.label().to_owned(),
        reason: fault.to_string(),
    }
}

fn tell(
    serving: &Serving,
    question: &ExplainRequest,
    told: &mut ExplainResponse,
) -> Result<(), Fault> {
    let table = &*serving.table;
    let peer = Peer {
        client: client(&question.client).unwrap_or(NOBODY),
        local: table.listener.parse().unwrap_or(NOBODY),
        tls: question.tls,
    };
    if table.router.serves_tls() && !peer.tls {
        return Err(Fault::new(FaultKind::HttpToHttps));
    }
    let parts = head(question)?;
    headers::check_size(&parts, table.limits.max_header_bytes)?;
    let sent = headers::check_request(&parts)?;
    let host = sent.to_str().unwrap_or_default();
    let client = table.client_source.client_of(peer.client, &parts.headers);
    told.client = client.to_string();
    let shaken = if peer.tls { handshake(table, question, host) } else { None };
    told.handshake_site = shaken.map(|site| site.name.to_string()).unwrap_or_default();
    let named = (!host.is_empty()).then_some(host);
    let routed = table.router.route(peer.tls, named, parts.uri.path());
    let routed = routed.ok_or(Fault::new(FaultKind::NoSite))?;
    told.site = routed.site.name.to_string();
    told.steps.push(step(&routed, table));
    admit(table, routed.site, shaken)?.clone_into(&mut told.client_certificate);
    let opening = match routed.action {
        Action::Redirect(redirect) => {
            told.redirect = Some(sent_to(redirect, &parts, host, peer));
            return Ok(());
        }
        Action::Forward { .. } => Opening::from_request(&parts)?,
    };
    told.websocket = opening.is_some();
    if announced_length(&parts) > table.limits.max_body_bytes {
        return Err(Fault::new(FaultKind::BodyTooLarge));
    }
    Sight { serving, peer, client, host: sent.clone(), opening }.forward(&routed, parts, told)
}

/// `IP` or `IP:PORT`.
fn client(text: &str) -> Option<SocketAddr> {
    let whole = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 0));
    text.parse().ok().or_else(whole)
}

/// The question as a request's head, as hyper would give it.
fn head(question: &ExplainRequest) -> Result<request::Parts, Fault> {
    let not_http = |_| Fault::bad_request("the request is not valid HTTP");
    let method = match question.method.as_str() {
        "" => Method::GET,
        method => Method::from_bytes(method.as_bytes())
            .map_err(|_| Fault::bad_request("the request is not valid HTTP"))?,
    };
    let target = if question.target.is_empty() { "/" } else { question.target.as_str() };
    let mut builder = Request::builder().method(method).uri(target);
    if !question.host.is_empty() {
        builder = builder.header(HOST, &question.host);
    }
    for header in &question.headers {
        builder = builder.header(&header.name, &header.value);
    }
    Ok(builder.body(()).map_err(not_http)?.into_parts().0)
}

/// The site that the handshake is for: by the name that is asked for, which is never an address.
fn handshake<'t>(table: &'t Table, question: &ExplainRequest, host: &str) -> Option<&'t Site> {
    let name = match question.server_name.as_str() {
        "" => without_port(host),
        name => name,
    };
    let is_name = !name.is_empty() && name.parse::<IpAddr>().is_err();
    table.router.site_of_handshake(is_name.then_some(name))
}

/// What the site wants to see of a client that has nothing to show.
fn admit(table: &Table, site: &Site, shaken: Option<&Site>) -> Result<&'static str, Fault> {
    let Some(shaken) = shaken else { return Ok("") };
    let profile = |site: &Site| table.offer.profile(site.tls_profile).ok_or(FaultKind::Internal);
    let identity = ClientIdentity::bare(profile(shaken)?);
    let profile = profile(site)?;
    let verdict = match profile.sight(identity.as_ref()) {
        Ok(client_auth::Sight::Settled(verdict)) => verdict,
        // Nothing was shown that anybody could be asked about.
        Ok(client_auth::Sight::Open(_)) => Verdict::None,
        Err(_) => return Err(Fault::new(FaultKind::Misdirected)),
    };
    match profile.admits(verdict) {
        Admittance::Granted if profile.asks() => Ok("asked"),
        Admittance::Granted => Ok(""),
        Admittance::Missing | Admittance::Bad => Ok("demanded"),
        Admittance::AskedOtherwise => Err(Fault::new(FaultKind::Misdirected)),
    }
}

fn step(routed: &Routed<'_>, table: &Table) -> ExplainStep {
    let set = match routed.action {
        Action::Forward { rewrite: Some(index), .. } => table.rewrite_sets.get(*index),
        _ => None,
    };
    ExplainStep {
        rule: routed.rule.to_owned(),
        path_rule: routed.path_rule.unwrap_or_default().to_owned(),
        rewrite_set: set.map(|set| set.name.to_string()).unwrap_or_default(),
        rewrites: Vec::new(),
    }
}

fn sent_to(redirect: &Redirect, parts: &request::Parts, host: &str, peer: Peer) -> ExplainRedirect {
    let scheme = if peer.tls { "https" } else { "http" };
    ExplainRedirect {
        status: redirect.status.as_u16().into(),
        location: redirect.location(scheme, host, peer.local.port(), target_of(&parts.uri)),
    }
}

// === impl Sight ===

impl Sight<'_> {
    fn forward(
        &self,
        routed: &Routed<'_>,
        mut head: request::Parts,
        told: &mut ExplainResponse,
    ) -> Result<(), Fault> {
        let table = &*self.serving.table;
        // Which protocol and cipher a client would settle on is not known.
        let session = Session { protocol: "TLSv1.3", ..Session::default() };
        let session = self.peer.tls.then_some(&session);
        let is_rewritten = rewritten::concerns(routed);
        let facts =
            is_rewritten.then(|| Facts::of(&head, self.client, self.peer.local.port(), session));
        let has_body = head.headers.contains_key(TRANSFER_ENCODING) || announced_length(&head) > 0;
        let trace_id = TraceId::random();
        let Peer { client, local, tls } = self.peer;
        let outbound = Outbound {
            table,
            hop: &Hop::new(client, tls, local.port()),
            client,
            host: &self.host,
            trace_id: &trace_id,
            fingerprint: None,
            websocket: self.opening.is_some(),
            with_host: is_rewritten,
        };
        outbound.make(&mut head, has_body)?;
        let (mut action, mut prefix, mut host) = (routed.action, routed.matched_prefix, None);
        if let Some(facts) = facts {
            let mut seen = |turn: Turn<'_>| match turn {
                Turn::Rewritten(set, decided) => {
                    if let Some(step) = told.steps.last_mut() {
                        step.rewrites.extend(set.effects(decided).map(rewrite));
                    }
                }
                Turn::Routed(again) => told.steps.push(step(again, table)),
            };
            let sets = &table.rewrite_sets;
            let course = rewritten::follow(routed, sets, facts, &mut head, &mut seen)?;
            (action, prefix, host) = (course.action, course.prefix, course.host);
        }
        match action {
            Action::Redirect(redirect) => {
                let host = self.host.to_str().unwrap_or_default();
                told.redirect = Some(sent_to(redirect, &head, host, self.peer));
                Ok(())
            }
            Action::Forward { binding, .. } => {
                let told =
                    told.forward.insert(self.arrival(*binding, prefix, host.as_ref(), head)?);
                // Before the first health nobody knows.
                let known = self.serving.health_version != 0;
                let taken = told.backends.iter().any(|it| it.in_rotation);
                if known && !taken && told.certain.is_empty() {
                    return Err(Fault::new(FaultKind::NoBackend));
                }
                Ok(())
            }
        }
    }

    /// Where it comes to in the end.
    fn arrival(
        &self,
        index: usize,
        prefix: MatchedPrefix,
        host: Option<&HeaderValue>,
        mut head: request::Parts,
    ) -> Result<ExplainForward, Fault> {
        let binding = self.serving.table.bindings.get(index).ok_or(FaultKind::Internal)?;
        if let Some(path) = head.uri.path_and_query() {
            head.uri = Uri::from(binding.path_for(&prefix, path));
        }
        head.headers.remove(HOST);
        let patience = Some(binding.request_timeout).filter(|it| *it != FOREVER);
        Ok(ExplainForward {
            pool: binding.pool.to_string(),
            settings: binding.settings.to_string(),
            scheme: binding.scheme().to_owned(),
            algorithm: algorithm(binding).to_owned(),
            affinity: binding.affinity.is_some(),
            request_timeout_ms: patience
                .map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            target: target_of(&head.uri).to_owned(),
            headers: fields(&head.headers),
            backends: self.backends(index, binding, host),
            certain: self.certain(index, binding, &head.headers).unwrap_or_default(),
        })
    }

    fn backends(
        &self,
        index: usize,
        binding: &Binding,
        written: Option<&HeaderValue>,
    ) -> Vec<ExplainBackend> {
        let client_host = host_of(written, &self.host);
        let named = client_host.to_str().unwrap_or_default();
        let told = |(backend, weight): (&Arc<Backend>, u32)| {
            let own = || binding.host_for(backend, client_host);
            let host = written.cloned().unwrap_or_else(own);
            ExplainBackend {
                pool: backend.pool.to_string(),
                address: backend.address.to_string(),
                port: backend.port.into(),
                weight,
                in_rotation: self.serving.is_in_rotation(index, backend),
                host: text(&host),
                server_name: binding.tls_name(backend, named).unwrap_or_default(),
                ..ExplainBackend::default()
            }
        };
        binding.weighted().map(told).collect()
    }

    /// The backend that gets it, where that is no matter of turns.
    fn certain(&self, index: usize, binding: &Binding, headers: &HeaderMap) -> Option<String> {
        let cookie = binding.affinity.as_ref().and_then(|it| it.named_by(headers));
        let cookie = cookie.filter(|it| self.serving.takes_cookies_to(index, it));
        if cookie.is_none() && binding.algorithm() != Algorithm::IpHash {
            return None;
        }
        let preference = Preference { client: self.client.ip(), cookie, own: None };
        self.serving.candidates(index, &preference).next().map(|backend| backend.label())
    }
}

fn algorithm(binding: &Binding) -> &'static str {
    match binding.algorithm() {
        Algorithm::RoundRobin => "RoundRobin",
        Algorithm::LeastConnections => "LeastConnections",
        Algorithm::IpHash => "IpHash",
    }
}

fn rewrite((rule, effect): (&str, Effect)) -> ExplainRewrite {
    let effect = match effect {
        Effect::Applies => Told::Applies,
        Effect::DoesNotApply => Told::DoesNotApply,
        Effect::Waits => Told::Waits,
    };
    ExplainRewrite { rule: rule.to_owned(), effect: effect.into() }
}

fn fields(headers: &HeaderMap) -> Vec<ExplainHeader> {
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| ExplainHeader {
        name: name.as_str().to_owned(),
        value: text(value),
    };
    headers.iter().map(field).collect()
}

/// A value that may be no text, as text.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests;
