//! What a change of the configuration may cost: the tunnels of backends that are removed, after their drain time, and
//! nobody else anything.
//!
//! Every change is seen by a new connection, too, so that none of them was none.
#![allow(clippy::needless_pass_by_value, reason = "documents are written where they are used")]

mod crowd;
mod flows;
mod late;
mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::harness::{
    Certificate, Connection, Document, Http2, Passport, Patience, Visitor, WebSocket, eventually,
    free_port, get,
};
use crowd::{Crowd, end_in_time};
use scene::{
    LEAVING, LONE, MAPS, RULES, SETTINGS, Scene, addresses, inline, link, name_of, policy,
    port_is_answered_by, redirected, remove, rewrite_set, strict_profile,
};

/// A scene, its tunnels, and those of them that were to end.
struct Story {
    scene: Scene,
    crowd: Crowd,
    ended: usize,
}

#[test]
fn two_thousand_tunnels_live_through_every_change_but_the_removal_of_their_backends() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut story = Story::begin();
    let workers = story.workers();
    story.certificates_change();
    story.policies_of_tls_change();
    story.what_is_asked_of_clients_changes();
    story.rewrites_change();
    story.settings_change();
    story.a_backend_comes_and_another_one_goes();
    story.sites_and_listeners_come();
    story.sites_go();
    story.a_listener_goes();
    story.routes_change();
    story.protocols_and_probes_change();
    story.distribution_changes();
    story.a_refused_document_changes_nothing();
    story.everything_is_rolled_back();
    assert_eq!(story.workers(), workers, "a worker was replaced");
    story.ends();
}

/// A client of TLS 1.3.
fn visitor(trusted: &Certificate, passport: Option<&Passport>) -> Visitor {
    Visitor::new(&[trusted], passport, &[&TLS13])
}

impl Story {
    fn begin() -> Self {
        let scene = Scene::start();
        let mut crowd = Crowd::default();
        let Scene { web, secure, extra, .. } = scene;
        let plain = |port, path: &'static str, host: &'static str| {
            move |_: usize| WebSocket::open_host(port, path, host)
        };
        crowd.join("web", 250, plain(web, "/ws", "localhost"));
        crowd.join("web to https", 200, plain(web, "/sealed/ws", "localhost"));
        crowd.join("web to leaving", 200, plain(web, "/leaving/ws", "localhost"));
        crowd.join("gone", 100, plain(web, "/ws", "gone.test"));
        crowd.join("extra", 250, plain(extra, "/ws", "localhost"));
        let tls = |path: &'static str, certificate: &Certificate| {
            let certificate = certificate.clone();
            move |id: usize| {
                let old = id.is_multiple_of(3);
                let version: &SupportedProtocolVersion = if old { &TLS12 } else { &TLS13 };
                WebSocket::open_versions(secure, path, &certificate, &[version])
            }
        };
        crowd.join("chat", 300, tls("/ws", &scene.chat));
        crowd.join("chat to https", 250, tls("/sealed/ws", &scene.chat));
        crowd.join("chat to leaving", 200, tls("/leaving/ws", &scene.chat));
        crowd.join("other", 250, tls("/ws", &scene.other));
        let backends = ["plain1", "plain2", "sealed1", "sealed2", "leaving1", "leaving2", "lone1"];
        for backend in backends {
            assert!(crowd.count(|member| member.backend == backend) >= 100, "{backend}");
        }
        Self { scene, crowd, ended: 0 }
    }

    /// The processes of the listeners that stay.
    fn workers(&self) -> Vec<Value> {
        let workers = [self.scene.web, self.scene.secure].map(|port| self.workers_of(port));
        workers.iter().flatten().map(|worker| worker["pid"].clone()).collect()
    }

    /// All workers of an address.
    fn workers_of(&self, port: u16) -> Vec<Value> {
        let (status, address) = (self.scene.gateway.status(), format!("127.0.0.1:{port}"));
        let listeners = status["listeners"].as_array().unwrap().iter();
        let those = listeners.filter(|listener| listener["address"] == *address);
        those.flat_map(|listener| listener["workers"].as_array().unwrap().clone()).collect()
    }

    /// Everybody is there still, and nobody has ended who was not to.
    fn all_talk(&mut self, after: &str) {
        self.crowd.talks(after);
        let ended = self.scene.gateway.count("holdfast_tunnels_closed_total");
        assert!(ended <= self.ended as u64, "{ended} tunnels have ended after {after}");
    }

    /// Tunnels of a backend, which is removed since then, end after their drain time and for that cause.
    fn end_of(&mut self, backend: &str, since: Instant, seconds: u64) {
        let leaving = self.crowd.leave(|member| member.backend == backend);
        self.ended += leaving.len();
        end_in_time(leaving, since, Duration::from_secs(seconds));
        let gateway = &self.scene.gateway;
        eventually(Patience::USUAL, "their ends to be counted", || {
            let removed = r#"holdfast_tunnels_closed_total{cause="backend_removed"}"#;
            (gateway.count(removed) == self.ended as u64).then_some(())
        });
    }

    fn certificates_change(&mut self) {
        let secure = self.scene.secure;
        let (old, path) = (self.scene.chat.clone(), self.scene.gateway.path().to_owned());
        let new = Certificate::make(&path, "chat-new", "chat.test");
        self.scene.apply(|document| inline(document, "chat", &new));
        assert_eq!(WebSocket::shown_certificate(secure, &new), Some(new.der.clone()));
        assert_eq!(WebSocket::shown_certificate(secure, &old), None);
        self.scene.chat = new;
        self.all_talk("a certificate's change in the document");

        let new = Certificate::make(&path, "other-new", "other.test");
        fs::rename(&new.key_file, &self.scene.other.key_file).unwrap();
        fs::rename(&new.chain_file, &self.scene.other.chain_file).unwrap();
        eventually(Patience::USUAL, "the renewed certificate to be shown", || {
            WebSocket::shown_certificate(secure, &new)
        });
        self.scene.other = new;
        self.all_talk("a certificate's renewal");
    }

    fn policies_of_tls_change(&mut self) {
        let (secure, chat) = (self.scene.secure, self.scene.chat.clone());
        let old = Visitor::new(&[&chat], None, &[&TLS12]);
        assert_eq!(old.get(secure, "chat.test").unwrap().0.status, 200);
        self.scene.apply(|mut document| {
            document.0["properties"]["sslPolicy"] =
                serde_json::json!({"policyType": "CustomV2", "minProtocolVersion": "TLSv1_3"});
            document
        });
        assert!(old.get(secure, "chat.test").is_err(), "TLS 1.2 is offered still");
        assert_eq!(visitor(&chat, None).get(secure, "chat.test").unwrap().0.status, 200);
        self.all_talk("a change of the TLS policy");
    }

    fn what_is_asked_of_clients_changes(&mut self) {
        let (secure, chat) = (self.scene.secure, self.scene.chat.clone());
        let before = self.scene.document.clone();
        let passport = self.scene.staff.passport("jane");
        let [stranger, jane] = [None, Some(&passport)].map(|passport| visitor(&chat, passport));
        let status = |visitor: &Visitor| visitor.get(secure, "chat.test").unwrap().0.status;
        let mut early = stranger.visit(secure, "chat.test").unwrap();
        assert_eq!(early.get("chat.test").unwrap().status, 200);
        let other = visitor(&self.scene.other, None);
        let strict = strict_profile(before.clone(), "chat", &self.scene.staff);
        self.scene.apply(|_| strict);
        assert_eq!([status(&stranger), status(&jane)], [400, 200]);
        // A connection that shook hands with nobody asking is no way in, and nor is another site's.
        assert_eq!(early.get("chat.test").unwrap().status, 421);
        let mut visit = other.visit(secure, "other.test").unwrap();
        assert_eq!(visit.get("chat.test").unwrap().status, 421);
        self.all_talk("client certificates being asked for");
        self.scene.apply(|_| before);
        assert_eq!([status(&stranger), status(&jane)], [200, 200]);
        self.all_talk("client certificates not being asked for any more");
    }

    fn rewrites_change(&mut self) {
        for value in ["one", "two"] {
            self.scene.apply(|mut document| {
                document.0["properties"]["rewriteRuleSets"] = Value::Null;
                rewrite_set(document, value)
            });
            let answer = get(self.scene.web, "/whoami").unwrap().text().to_lowercase();
            assert!(answer.contains(&format!("x-changed: {value}")), "{answer}");
        }
        self.all_talk("a change of the rewrites");
    }

    fn settings_change(&mut self) {
        let web = self.scene.web;
        self.scene.apply(|document| document.set(SETTINGS, "plain", "requestTimeout", 1));
        assert_eq!(get(web, "/silent").unwrap().status, 504);
        self.all_talk("a shorter time for requests, and silence of longer than that");
        self.scene.apply(|document| {
            document
                .set(SETTINGS, "plain", "requestTimeout", 600)
                .set(SETTINGS, "plain", "path", "/v2/")
                .set(SETTINGS, "plain", "cookieBasedAffinity", "Enabled")
        });
        let answer = get(web, "/whoami").unwrap();
        assert!(answer.text().contains("GET /v2/whoami "), "{}", answer.text());
        assert_eq!(answer.all("set-cookie").len(), 2);
        self.all_talk("a change of the backend settings");
        self.scene.apply(|document| {
            document.set(SETTINGS, "plain", "path", Value::Null).set(
                SETTINGS,
                "plain",
                "cookieBasedAffinity",
                "Disabled",
            )
        });
        assert!(get(web, "/whoami").unwrap().header("set-cookie").is_none());
    }

    fn a_backend_comes_and_another_one_goes(&mut self) {
        let [plain, leaving] = [&self.scene.pools.plain, &self.scene.pools.leaving].map(Vec::clone);
        self.scene.apply(|document| addresses(document, "plain", &plain));
        self.scene.is_answered_by("localhost", "/", &["plain1", "plain2", "plain3"]);
        self.all_talk("a backend's coming");

        let since = Instant::now();
        self.scene.apply(|document| addresses(document, "leaving", &leaving[..1]));
        self.scene.is_answered_by("localhost", "/leaving/", &["leaving1"]);
        self.end_of("leaving2", since, LEAVING);
        self.all_talk("a backend's removal");
    }

    fn sites_and_listeners_come(&mut self) {
        let (web, added) = (self.scene.web, free_port());
        self.scene.apply(|document| document.host_site("new", web, "new.test", "spare"));
        self.scene.is_answered_by("new.test", "/", &["spare1"]);
        self.all_talk("a new site");
        self.scene.apply(|document| document.site("added", added, "spare"));
        self.crowd.join("new", 10, |_| WebSocket::open_host(web, "/ws", "new.test"));
        self.crowd.join("added", 10, |_| WebSocket::open_host(added, "/ws", "localhost"));
        assert_eq!(self.crowd.count(|member| member.backend == "spare1"), 20);
        self.all_talk("a new listener");
    }

    /// One whose pool others are routed to, one whose pool nobody is routed to any more, and then that pool.
    fn sites_go(&mut self) {
        let (secure, chat) = (self.scene.secure, self.scene.chat.clone());
        self.scene.apply(|document| {
            let document = remove(document, &["httpListeners", RULES, "sslCertificates"], "other");
            remove(document, &["httpListeners", RULES], "gone")
        });
        let mut visit = visitor(&chat, None).visit(secure, "chat.test").unwrap();
        assert_eq!(visit.get("other.test").unwrap().status, 404);
        self.scene.is_answered_by("gone.test", "/", &["plain1", "plain2", "plain3"]);
        self.all_talk("sites' removal");

        let since = Instant::now();
        self.scene.apply(|document| {
            remove(document, &["backendAddressPools", SETTINGS, "probes"], "lone")
        });
        self.end_of("lone1", since, LONE);
        self.all_talk("a pool's removal");
    }

    fn a_listener_goes(&mut self) {
        let extra = self.scene.extra;
        self.scene.apply(|document| remove(document, &["httpListeners", RULES], "extra"));
        let refused = get(extra, "/").map_err(|error| error.kind()).err();
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
        self.all_talk("a listener's removal");
    }

    /// Another pool in a rule, so that nobody is routed to the first one any more; a redirect in the place of another.
    fn routes_change(&mut self) {
        let web = self.scene.web;
        let spare = |document: Document| {
            document
                .set(MAPS, "web", "defaultBackendAddressPool", link("backendAddressPools", "spare"))
                .set(MAPS, "web", "defaultBackendHttpSettings", link(SETTINGS, "spare"))
        };
        self.scene.apply(spare);
        self.scene.is_answered_by("localhost", "/", &["spare1"]);
        self.all_talk("another pool in the place of the one they are at");
        let url = "https://elsewhere.test/";
        self.scene.apply(|document| redirected(document, "/leaving/*", url));
        let answer = get(web, "/leaving/x").unwrap();
        assert_eq!((answer.status, answer.header("location")), (302, Some(url)));
        self.all_talk("a redirect in the place of the pool they are at");
        // The settings go, too, under which tunnels were opened: others have their port.
        self.scene.apply(|document| remove(document, &[SETTINGS], "plain"));
        self.all_talk("the removal of the settings that they were opened under");
    }

    fn protocols_and_probes_change(&mut self) {
        let (secure, chat) = (self.scene.secure, self.scene.chat.clone());
        assert!(!Http2::is_offered(secure, &chat));
        self.scene.apply(|mut document| {
            document.0["properties"]["enableHttp2"] = true.into();
            document.set("probes", "spare", "path", "/probed").set("probes", "spare", "interval", 2)
        });
        assert!(Http2::is_offered(secure, &chat));
        let asked = || self.scene.criers.were_asked("/probed").then_some(());
        eventually(Patience::USUAL, "the new probe", asked);
        self.all_talk("HTTP/2 and another probe");
        self.scene.apply(|mut document| {
            document.0["properties"]["enableHttp2"] = false.into();
            document
        });
        assert!(!Http2::is_offered(secure, &chat));
        self.all_talk("no HTTP/2 any more");
    }

    fn distribution_changes(&mut self) {
        let before = self.scene.document.clone();
        self.scene.apply(|document| policy(document, &["plain", "spare"]));
        self.scene.is_answered_by("localhost", "/", &["plain1", "plain2", "plain3", "spare1"]);
        self.all_talk("a load distribution policy");
        let plain = before
            .set(MAPS, "web", "defaultBackendAddressPool", link("backendAddressPools", "plain"))
            .set(SETTINGS, "spare", "dedicatedBackendConnection", true);
        self.scene.apply(|_| plain);
        self.answer_on_one_connection(1);
        self.all_talk("dedicated connections, and no policy");
        self.scene
            .apply(|document| document.set(SETTINGS, "spare", "dedicatedBackendConnection", false));
        self.answer_on_one_connection(3);
        self.all_talk("no dedicated connections any more");
    }

    /// Waits until so many backends answer requests on one connection.
    fn answer_on_one_connection(&self, backends: usize) {
        eventually(Patience::USUAL, "answers on one connection", || {
            let mut connection = Connection::open(self.scene.web).unwrap();
            let ask = |_| name_of(&connection.get("/", "localhost").unwrap());
            let names: Option<BTreeSet<_>> = (0..6).map(ask).collect();
            (names?.len() == backends).then_some(())
        });
    }

    fn a_refused_document_changes_nothing(&mut self) {
        let revision = self.scene.gateway.revision();
        let nowhere = link("backendAddressPools", "nowhere");
        let document =
            self.scene.document.clone().set(MAPS, "web", "defaultBackendAddressPool", nowhere);
        let said = self.scene.gateway.apply_refused(&document.text());
        assert!(said.contains("nowhere"), "{said}");
        assert_eq!(self.scene.gateway.revision(), revision);
        self.all_talk("a document that was refused");
    }

    fn everything_is_rolled_back(&mut self) {
        self.scene.gateway.must(&["rollback", "1"]);
        let extra = self.scene.extra;
        self.scene.is_answered_by("gone.test", "/", &["lone1"]);
        port_is_answered_by(extra, "localhost", "/", &["plain1", "plain2"]);
        self.scene.is_answered_by("localhost", "/leaving/", &["leaving1", "leaving2"]);
        self.all_talk("a rollback");
        self.crowd.join("extra again", 10, |_| WebSocket::open_host(extra, "/ws", "localhost"));
        self.all_talk("new tunnels where a listener has come back");
        let mine = self.crowd.count(|member| member.group.starts_with("extra"));
        eventually(Patience::USUAL, "the listener to have its old tunnels again", || {
            let [worker] = &self.workers_of(extra)[..] else { return None };
            (worker["state"] == "serving" && worker["tunnels"] == mine).then_some(())
        });
    }

    fn ends(self) {
        let Self { scene, crowd, ended } = self;
        let gateway = &scene.gateway;
        assert_eq!(gateway.tunnels().len(), crowd.len());
        gateway.has_lost_none();
        assert_eq!(gateway.count("holdfast_tunnels_closed_total"), ended as u64);
        assert!(crowd.len() > 1600 && ended > 200, "{} live, {ended} have ended", crowd.len());
    }
}
