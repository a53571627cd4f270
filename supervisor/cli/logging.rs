//! Where a long-running role's log lines go: standard error, through a thread that may fall behind.
//!
//! Invariant: a slow, full or closed standard error never blocks and never ends the process. Lines that find the
//! queue full are dropped; a panic is a log line too, since the default report would write to the pipe itself.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::panic;

use holdfast_proto::log_filter;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines that may wait for standard error: some seconds of a busy log, a few MiB at most.
const WAITING_LINES: usize = 8192;

/// Chooses what is logged, in the syntax of `tracing_subscriber::EnvFilter`.
const FILTER_VARIABLE: &str = "HOLDFAST_LOG";

/// A log line with the process that wrote it, as several processes share one standard error.
struct Prefixed {
    role: &'static str,
    pid: u32,
    line: Format<Compact>,
}

/// Starts logging as `role`. What waits is written out, for a bounded time, when the guard is dropped.
pub(crate) fn start(role: &'static str) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(stderr());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(FILTER_VARIABLE)
        .from_env_lossy();
    let begun = filter.to_string();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(
            stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        )
        .log_internal_errors(false)
        .with_writer(writer)
        .event_format(Prefixed { role, pid: std::process::id(), line: Format::default().compact() })
        .with_filter_reloading();
    let handle = builder.reload_handle();
    log_filter::install(begun, move |wanted| {
        let filter = parse(wanted)?;
        handle.reload(filter).map_err(|error| error.to_string())
    });
    let subscriber = builder.finish();
    // A second call in one process (tests) keeps the first subscriber: there is nothing better to do.
    drop(tracing::subscriber::set_global_default(subscriber));
    panic::set_hook(Box::new(|info| {
        tracing::error!(
            thread = std::thread::current().name().unwrap_or("unnamed"),
            "panic: {info}"
        );
        // Does nothing but in an executable that has taken over and is not ready yet.
        holdfast_supervisor::upgrade::panicked(&info.to_string());
    }));
    guard
}

/// What somebody wants to be logged, strictly: a word that is no level is not taken for the name of a part.
fn parse(wanted: &str) -> Result<EnvFilter, String> {
    let refuse = |why: &str| {
        format!(
            "{wanted:?} is no log filter ({why}): write error, warn, info, debug or trace, or PART=LEVEL"
        )
    };
    if wanted.trim().is_empty() {
        return Err(refuse("it is empty"));
    }
    for directive in wanted.split(',').filter(|it| !it.contains('=') && !it.contains('[')) {
        // The parser takes nothing for `error`.
        if directive.is_empty() || directive.parse::<LevelFilter>().is_err() {
            return Err(refuse(&format!("{directive:?} is no level")));
        }
    }
    EnvFilter::builder().parse(wanted).map_err(|error| refuse(&error.to_string()))
}

// === impl Prefixed ===

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "{}[{}] ", self.role, self.pid)?;
        self.line.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_one_for_each_part() {
        for wanted in ["info", "DEBUG", "off", "info,holdfast_worker=trace", "warn,audit=info"] {
            assert!(parse(wanted).is_ok(), "{wanted}");
        }
        for wanted in ["", " ", "loud", "info,loud", "holdfast_worker=loud", "info,,"] {
            let refused = parse(wanted).map(|filter| filter.to_string()).unwrap_err();
            assert!(refused.contains("is no log filter"), "{refused}");
        }
    }
}
