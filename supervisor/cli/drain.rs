//! `holdfast drain` and `undrain`: a backend out of rotation and back, and the wait for the last of its tunnels.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use holdfast_proto::admin::{DrainRequest, TunnelsRequest};
use serde_json::json;
use tokio::time::sleep;

use crate::Outcome;
use crate::args::{Admin, DrainArgs, PooledBackend, UndrainArgs};
use crate::dial::{Client, connect, failed, show};
use crate::tunnels::is_backend;
use crate::{output, progress};

/// Between two looks at what is left.
const EVERY: Duration = Duration::from_millis(500);

/// Takes a backend out of rotation.
pub(crate) async fn drain(args: DrainArgs) -> anyhow::Result<Outcome> {
    let mut client = connect(&args.admin).await?;
    let name = format!("{}/{}", args.target.pool, args.target.backend);
    let work = async {
        let answer = client.drain(request(&args.target)).await;
        let answer = answer.map_err(|error| failed(&error))?.into_inner();
        if !args.wait {
            return anyhow::Ok((answer.changed, answer.tunnels));
        }
        let patience = args.timeout.map(|seconds| Duration::from_secs(seconds.into()));
        let left = wait(&mut client, &args.target, patience).await?;
        Ok((answer.changed, left))
    };
    let then = format!(
        "{name} gets no new connections, and its tunnels live on for the drain time of its settings; `holdfast undrain` takes \
         that back"
    );
    let (changed, left) = progress::unless_interrupted(&then, work).await??;
    tell(&args.admin, changed, left, || match (changed, left) {
        (true, 0) => format!("{name} gets no new connections, and has no tunnels\n"),
        (true, left) => format!("{name} gets no new connections; {}\n", live_on(left)),
        (false, 0) => format!("{name} was drained already, and has no tunnels\n"),
        (false, left) => format!("{name} was drained already; {}\n", live_on(left)),
    })?;
    Ok(if args.wait && left > 0 { Outcome::Refused } else { Outcome::Done })
}

/// Puts it back.
pub(crate) async fn undrain(args: UndrainArgs) -> anyhow::Result<Outcome> {
    let answer = connect(&args.admin).await?.undrain(request(&args.target)).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    let name = format!("{}/{}", args.target.pool, args.target.backend);
    tell(&args.admin, answer.changed, answer.tunnels, || {
        if answer.changed {
            format!("{name} is back in rotation\n")
        } else {
            format!("{name} was not drained\n")
        }
    })?;
    Ok(Outcome::Done)
}

fn live_on(left: u64) -> String {
    let verb = if left == 1 { "lives" } else { "live" };
    format!("{} {verb} on", output::tunnels_count(left))
}

fn request(target: &PooledBackend) -> DrainRequest {
    DrainRequest { pool: target.pool.clone(), backend: target.backend.clone() }
}

fn tell(
    admin: &Admin,
    changed: bool,
    tunnels: u64,
    text: impl FnOnce() -> String,
) -> std::io::Result<()> {
    show(admin, || json!({"changed": changed, "tunnels": tunnels}), text)
}

/// Until the backend has no tunnels, or patience ends: how many are left.
async fn wait(
    client: &mut Client,
    target: &PooledBackend,
    patience: Option<Duration>,
) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let told = stderr().is_terminal();
    loop {
        let all = client.tunnels(TunnelsRequest {}).await.map_err(|error| failed(&error))?;
        let on_it = all.into_inner().tunnels.into_iter().filter(|tunnel| {
            tunnel.pool.eq_ignore_ascii_case(&target.pool)
                && is_backend(&target.backend, &tunnel.backend)
        });
        let left = on_it.count() as u64;
        if left == 0 || patience.is_some_and(|patience| begun.elapsed() >= patience) {
            output::end_progress();
            return Ok(left);
        }
        if told {
            let (pool, backend) = (&target.pool, &target.backend);
            output::progress(&format!("{pool}/{backend}: {} left", output::tunnels_count(left)));
        }
        sleep(EVERY).await;
    }
}
