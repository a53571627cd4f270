//! Backends taken out of rotation and back, for operators. Writes the ledger and tells the health board; touches no tunnel.
//!
//! Whatever stands in the document can be drained. Where no rule routes to its pool, tunnels may be left of a time when one did,
//! and the next rule that does finds it drained. What has been drained can be taken back even when it has left the document.

use holdfast_proto::admin;
use holdfast_proto::backend_name::endpoint;
use tonic::{Response, Status};

use super::super::{names, view};
use super::{Answer, Operators};
use crate::health::DrainedBackend;
use crate::mend;

/// What a request names.
struct Found {
    backend: DrainedBackend,
    /// Some rule leads to it.
    is_routed: bool,
}

impl Operators {
    pub(super) async fn set_drained(
        &self,
        request: &admin::DrainRequest,
        drained: bool,
    ) -> Answer<admin::DrainResponse> {
        let Found { backend, is_routed } = match self.find(request) {
            Err(_) if !drained && self.is_drained(request) => {
                Found { backend: asked(request), is_routed: false }
            }
            found => found?,
        };
        let wire = backend.wire();
        let changed = {
            let mut ledger = self.supervisor.ledger();
            let mut all: Vec<DrainedBackend> = ledger.drained().to_vec();
            let before = all.len();
            all.retain(|it| !it.wire().is_same_as(&wire));
            let was = all.len() < before;
            if drained {
                all.push(backend.clone());
            }
            if was != drained {
                let wrote = tokio::task::block_in_place(|| ledger.set_drained(&all));
                wrote.map_err(|error| Status::failed_precondition(mend::told(&error)))?;
                self.supervisor.health.set_drained(&all);
            }
            was != drained
        };
        let all = view::tunnels(&self.supervisor).await;
        let on_it = all.tunnels.iter().filter(|tunnel| {
            let parts = tunnel.backend.rsplit_once(':');
            let parts = parts.and_then(|(address, port)| Some((address, port.parse().ok()?)));
            parts.is_some_and(|(address, port)| wire.names(&tunnel.pool, address, port))
        });
        let tunnels = on_it.count() as u64;
        let (unrouted, silent) = (!is_routed, all.silent);
        Ok(Response::new(admin::DrainResponse { changed, tunnels, silent, unrouted }))
    }

    /// Whether somebody has drained it, perhaps while it stood in the document.
    fn is_drained(&self, request: &admin::DrainRequest) -> bool {
        let wire = asked(request).wire();
        self.supervisor.ledger().drained().iter().any(|it| it.wire().is_same_as(&wire))
    }

    /// The pool and backend that a request names, as configured.
    fn find(&self, request: &admin::DrainRequest) -> Result<Found, Status> {
        let report = self.supervisor.health.report();
        let is_it = |name: &str| name.eq_ignore_ascii_case(&request.pool);
        let routed = report.iter().filter(|it| is_it(&it.pool));
        let mut backends: Vec<(String, u32)> = routed
            .flat_map(|it| &it.backends)
            .map(|backend| (backend.address.clone(), backend.port))
            .collect();
        let is_routed = report.iter().any(|it| is_it(&it.pool));
        let in_force = self.supervisor.in_force();
        let standing = in_force.as_ref().map(|it| &it.compiled.standing);
        let pools: Vec<_> = standing.iter().flat_map(|it| &it.pools).collect();
        let Some(pool) = pools.iter().find(|it| is_it(&it.name)) else {
            let what = format!("there is no pool {:?}", request.pool);
            let pools = pools.iter().map(|it| it.name.clone()).collect();
            return Err(names::unknown(&what, &request.pool, pools));
        };
        if !is_routed {
            // Under whichever settings a rule will join it with, or has.
            let settings = standing.iter().flat_map(|it| &it.settings);
            backends = settings
                .flat_map(|it| pool.addresses.iter().map(move |address| (address.clone(), it.port)))
                .collect();
        }
        let backend = DrainedBackend { pool: pool.name.clone(), backend: request.backend.clone() };
        let wire = backend.wire();
        if backends.iter().any(|(address, port)| wire.names(&pool.name, address, *port)) {
            return Ok(Found { backend, is_routed });
        }
        let backends = backends.iter().map(|(address, port)| endpoint(address, *port)).collect();
        let what = format!("pool {:?} has no backend {:?}", pool.name, request.backend);
        Err(names::unknown(&what, &request.backend, backends))
    }
}

fn asked(request: &admin::DrainRequest) -> DrainedBackend {
    DrainedBackend { pool: request.pool.clone(), backend: request.backend.clone() }
}

pub(super) fn backend_of(request: &admin::DrainRequest) -> String {
    format!("{}/{}", request.pool, request.backend)
}

pub(super) fn drained_text(answer: &admin::DrainResponse, what: &str) -> String {
    let changed = if answer.changed { "changed" } else { "as it was" };
    format!("{what}: {changed}, {} tunnels on it", answer.tunnels)
}
