//! `holdfast drain` and `undrain`: a backend out of rotation and back, and the wait for the last of its tunnels.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use holdfast_proto::admin::{
    DrainRequest, DrainResponse, SilentWorker, TunnelsRequest, TunnelsResponse,
};
use serde_json::json;
use tokio::time::sleep;

use crate::Outcome;
use crate::args::{Admin, DrainArgs, PooledBackend, UndrainArgs};
use crate::dial::{Client, connect, failed, show};
use crate::tunnels::is_backend;
use crate::{output, progress};

/// Between two looks at what is left.
const EVERY: Duration = Duration::from_millis(500);

/// What a backend still has.
struct Left {
    /// As far as workers have told.
    tunnels: u64,
    /// Tunnels of which nobody has told whose they are.
    unlisted: u64,
    /// Workers that have not told.
    silent: Vec<SilentWorker>,
}

/// Takes a backend out of rotation.
pub(crate) async fn drain(args: DrainArgs) -> anyhow::Result<Outcome> {
    let mut client = connect(&args.admin).await?;
    let name = format!("{}/{}", args.target.pool, args.target.backend);
    let work = async {
        let answer = client.drain(request(&args.target)).await;
        let answer = answer.map_err(|error| failed(&error))?.into_inner();
        let DrainResponse { changed, tunnels, silent, unrouted } = answer;
        let unlisted = silent.iter().map(|it| it.tunnels).sum();
        let told = Left { tunnels, unlisted, silent };
        if !args.wait {
            return anyhow::Ok((changed, unrouted, told));
        }
        let patience = args.timeout.map(|seconds| Duration::from_secs(seconds.into()));
        Ok((changed, unrouted, wait(&mut client, &args.target, patience).await?))
    };
    let then = format!(
        "{name} gets no new connections, and its tunnels live on for the drain time of its settings; `holdfast undrain` takes \
         that back"
    );
    let (changed, unrouted, left) = progress::unless_interrupted(&then, work).await??;
    let is_empty = left.tunnels == 0 && left.unlisted == 0;
    tell(&args.admin, (changed, !unrouted), left.tunnels, || {
        let now = if changed { "gets no new connections" } else { "was drained already" };
        // It got none before: somebody may have meant another one.
        let routed = if unrouted { "; no rule routes to its pool" } else { "" };
        match left.tunnels {
            0 if is_empty => format!("{name} {now}, and has no tunnels{routed}\n"),
            0 => format!("{name} {now}; whether it has tunnels is not known{routed}\n"),
            left => format!("{name} {now}; {}{routed}\n", live_on(left)),
        }
    })?;
    output::complain(&output::silent_text(&left.silent));
    Ok(if args.wait && !is_empty { Outcome::Refused } else { Outcome::Done })
}

/// Puts it back.
pub(crate) async fn undrain(args: UndrainArgs) -> anyhow::Result<Outcome> {
    let answer = connect(&args.admin).await?.undrain(request(&args.target)).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    let name = format!("{}/{}", args.target.pool, args.target.backend);
    tell(&args.admin, (answer.changed, !answer.unrouted), answer.tunnels, || {
        match (answer.changed, answer.unrouted) {
            (true, false) => format!("{name} is back in rotation\n"),
            (true, true) => format!("{name} is no longer drained; no rule routes to it\n"),
            (false, _) => format!("{name} was not drained\n"),
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
    (changed, routed): (bool, bool),
    tunnels: u64,
    text: impl FnOnce() -> String,
) -> std::io::Result<()> {
    show(admin, || json!({"changed": changed, "tunnels": tunnels, "routed": routed}), text)
}

/// Until the backend has no tunnels, or patience ends. Those that no worker has listed may be the backend's, too.
async fn wait(
    client: &mut Client,
    target: &PooledBackend,
    patience: Option<Duration>,
) -> anyhow::Result<Left> {
    let begun = Instant::now();
    let told = stderr().is_terminal();
    loop {
        let all = client.tunnels(TunnelsRequest {}).await.map_err(|error| failed(&error))?;
        let TunnelsResponse { tunnels, unlisted, silent } = all.into_inner();
        let on_it = tunnels.into_iter().filter(|tunnel| {
            tunnel.pool.eq_ignore_ascii_case(&target.pool)
                && is_backend(&target.backend, &tunnel.backend)
        });
        let left = on_it.count() as u64;
        let is_over = left == 0 && unlisted == 0;
        if is_over || patience.is_some_and(|patience| begun.elapsed() >= patience) {
            output::end_progress();
            return Ok(Left { tunnels: left, unlisted, silent });
        }
        if told {
            let (pool, backend) = (&target.pool, &target.backend);
            let more = match unlisted {
                0 => String::new(),
                unlisted => format!(", and {} not told of", output::tunnels_count(unlisted)),
            };
            let left = output::tunnels_count(left);
            output::progress(&format!("{pool}/{backend}: {left} left{more}"));
        }
        sleep(EVERY).await;
    }
}
