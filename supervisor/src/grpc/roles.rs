//! What callers over the network may do: one table of all methods, and the guard that holds every call against it, whatever
//! service it is for. A method that is not in the table is for those who may change everything.
//!
//! What must never happen here: that a call goes on without a verified certificate, or that a refusal leaves open why.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http_body_util::Limited;
use hyper::http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TlsConnectInfo;
use tower::{Layer, Service};

use crate::audit::{self, Who};
use crate::config::gateway::AdminRole::{self, Change, Read};
use crate::network::Peer;
use crate::network::certificate::Names;
use crate::state::Supervisor;

/// Every method, by its path, and the role that it needs. What only looks is for readers; `Validate` opens the files that its
/// caller names, and `LogFilter` may set one.
pub(super) const METHODS: [(&str, AdminRole); 24] = [
    ("/holdfast.admin.v1.Admin/Get", Read),
    ("/holdfast.admin.v1.Admin/Revisions", Read),
    ("/holdfast.admin.v1.Admin/Status", Read),
    ("/holdfast.admin.v1.Admin/Health", Read),
    ("/holdfast.admin.v1.Admin/Tunnels", Read),
    ("/holdfast.admin.v1.Admin/Explain", Read),
    ("/holdfast.admin.v1.Admin/WatchStatus", Read),
    ("/holdfast.admin.v1.Admin/WatchHealth", Read),
    ("/holdfast.admin.v1.Admin/WatchUpgrade", Read),
    ("/holdfast.admin.v1.Admin/Validate", Change),
    ("/holdfast.admin.v1.Admin/Apply", Change),
    ("/holdfast.admin.v1.Admin/Reload", Change),
    ("/holdfast.admin.v1.Admin/Rollback", Change),
    ("/holdfast.admin.v1.Admin/Drain", Change),
    ("/holdfast.admin.v1.Admin/Undrain", Change),
    ("/holdfast.admin.v1.Admin/CloseTunnels", Change),
    ("/holdfast.admin.v1.Admin/Restart", Change),
    ("/holdfast.admin.v1.Admin/Upgrade", Change),
    ("/holdfast.admin.v1.Admin/LogFilter", Change),
    ("/holdfast.admin.v1.Admin/Stop", Change),
    ("/grpc.health.v1.Health/Check", Read),
    ("/grpc.health.v1.Health/Watch", Read),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Read),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Read),
];

/// What a reader sends in one call, bytes: names and an address, where whoever may change something sends documents.
const LONGEST_QUESTION: usize = 1024 * 1024;

fn needed(path: &str) -> AdminRole {
    METHODS.iter().find(|(known, _)| *known == path).map_or(Change, |(_, role)| *role)
}

/// Puts a guard before a service.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    supervisor: Arc<Supervisor>,
}

/// A service that has a guard.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    guard: Guard,
    service: S,
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    /// Who calls, if that may be.
    fn admit<B>(&self, request: &Request<B>) -> Result<Who, Status> {
        let path = request.uri().path();
        let method = path.rsplit('/').next().unwrap_or_default();
        let info = request.extensions().get::<TlsConnectInfo<Peer>>();
        let leaf = info.and_then(TlsConnectInfo::peer_certs);
        let leaf = leaf.as_ref().and_then(|chain| chain.first());
        let (Some(info), Some(leaf)) = (info, leaf) else {
            // TLS lets nobody in without one.
            return Err(Status::unauthenticated("no certificate was shown"));
        };
        let (names, address) = (Names::of(leaf), info.get_ref().address);
        if !names.in_time {
            // A session may be older than the end of its certificate, and so may be one that it was resumed from.
            let who = Who::Client { name: names.told(), address };
            let why = format!("the time of {who} is over: have it renewed");
            audit::denied(&who, method, &why);
            return Err(Status::unauthenticated(why));
        }
        let client = self.supervisor.network.client(&names);
        let needs = needed(path);
        let known = match client {
            Some(client) if client.role >= needs => {
                return Ok(Who::Client { name: client.name, address });
            }
            Some(client) => client,
            None => {
                let who = Who::Client { name: names.told(), address };
                let why = format!(
                    "you are taken for {who}, whom no entry of holdfast.admin.clients names; {method} needs the role \
                     {:?}: add {{\"name\": …, \"role\": {:?}}} there, with a name of the certificate",
                    needs.as_str(),
                    needs.as_str()
                );
                audit::denied(&who, method, &why);
                return Err(Status::permission_denied(why));
            }
        };
        let who = Who::Client { name: known.name, address };
        let why = format!(
            "you are taken for {who}, who has the role {:?}; {method} needs {:?}: change the role of this name in \
             holdfast.admin.clients, or call with another certificate",
            known.role.as_str(),
            needs.as_str()
        );
        audit::denied(&who, method, &why);
        Err(Status::permission_denied(why))
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, service: S) -> Guarded<S> {
        Guarded { guard: self.clone(), service }
    }
}

// === impl Guarded ===

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Self::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.guard.admit(&request) {
            Ok(who) => {
                request.extensions_mut().insert(who);
                if needed(request.uri().path()) == Read {
                    request = request.map(|body| Body::new(Limited::new(body, LONGEST_QUESTION)));
                }
                Either::Right(self.service.call(request))
            }
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Paths of all methods of a service.
    fn methods(set: &[u8], package: &str) -> Vec<String> {
        let set = FileDescriptorSet::decode(set).unwrap();
        let files = set.file.iter().filter(|file| file.package() == package);
        let services = files.flat_map(|file| &file.service);
        let methods = services.flat_map(|service| {
            let path = move |method: &str| format!("/{package}.{}/{method}", service.name());
            service.method.iter().map(move |method| path(method.name()))
        });
        methods.collect()
    }

    #[test]
    fn every_method_of_every_service_has_its_role_and_no_other_one() {
        let rows: BTreeMap<_, _> = METHODS.into_iter().collect();
        assert_eq!(rows.len(), METHODS.len(), "a method is there twice");
        let mut all = methods(holdfast_proto::FILE_DESCRIPTOR_SET, "holdfast.admin.v1");
        assert!(all.len() >= 20, "{all:?}");
        all.extend(methods(tonic_health::pb::FILE_DESCRIPTOR_SET, "grpc.health.v1"));
        let reflection = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;
        all.extend(methods(reflection, "grpc.reflection.v1"));
        let reflection = tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET;
        all.extend(methods(reflection, "grpc.reflection.v1alpha"));
        for method in &all {
            assert!(rows.contains_key(method.as_str()), "give {method} a role");
        }
        for method in rows.keys() {
            assert!(all.iter().any(|it| it == method), "there is no {method}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_for_readers() {
        for path in
            ["", "/", "/holdfast.admin.v1.Admin/get", "/holdfast.admin.v1.Admin/Get/", "/x/Status"]
        {
            assert_eq!(needed(path), Change, "{path}");
        }
        assert_eq!(needed("/holdfast.admin.v1.Admin/Status"), Read);
    }
}
