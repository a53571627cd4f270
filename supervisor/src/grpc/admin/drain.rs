//! Backends taken out of rotation and back, for operators. Writes the ledger and tells the health board; touches no tunnel.

use holdfast_proto::admin;
use tonic::{Response, Status};

use super::super::{names, view};
use super::{Answer, Operators};
use crate::health::DrainedBackend;
use crate::mend;

impl Operators {
    pub(super) async fn set_drained(
        &self,
        request: &admin::DrainRequest,
        drained: bool,
    ) -> Answer<admin::DrainResponse> {
        let backend = self.find(request)?;
        let changed = {
            let mut ledger = self.supervisor.ledger();
            let mut all: Vec<DrainedBackend> = ledger.drained().to_vec();
            let before = all.len();
            all.retain(|it| *it != backend);
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
            tunnel.pool.eq_ignore_ascii_case(&backend.pool)
                && (tunnel.backend == backend.backend
                    || tunnel.backend.rsplit_once(':').is_some_and(|(it, _)| it == backend.backend))
        });
        let tunnels = on_it.count() as u64;
        Ok(Response::new(admin::DrainResponse { changed, tunnels, silent: all.silent }))
    }

    /// The pool and backend that a request names, as configured.
    fn find(&self, request: &admin::DrainRequest) -> Result<DrainedBackend, Status> {
        let report = self.supervisor.health.report();
        let pools: Vec<_> =
            report.iter().filter(|it| it.pool.eq_ignore_ascii_case(&request.pool)).collect();
        let Some(pool) = pools.first() else {
            let what = format!("no pool {:?} is routed to", request.pool);
            let pools = report.iter().map(|it| it.pool.clone()).collect();
            return Err(names::unknown(&what, &request.pool, pools));
        };
        let backends = || pools.iter().flat_map(|pool| &pool.backends);
        let wanted = DrainedBackend { pool: pool.pool.clone(), backend: request.backend.clone() };
        if backends().any(|it| wanted.names_address(&it.address, it.port)) {
            return Ok(wanted);
        }
        let name = |it: &admin::BackendHealth| {
            let six = it.address.contains(':');
            if six {
                format!("[{}]:{}", it.address, it.port)
            } else {
                format!("{}:{}", it.address, it.port)
            }
        };
        let what = format!("pool {:?} has no backend {:?}", pool.pool, request.backend);
        Err(names::unknown(&what, &request.backend, backends().map(name).collect()))
    }
}

pub(super) fn backend_of(request: &admin::DrainRequest) -> String {
    format!("{}/{}", request.pool, request.backend)
}

pub(super) fn drained_text(answer: &admin::DrainResponse, what: &str) -> String {
    let changed = if answer.changed { "changed" } else { "as it was" };
    format!("{what}: {changed}, {} tunnels on it", answer.tunnels)
}
