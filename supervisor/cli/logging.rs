//! Where a long-running role's log lines go: standard error, through a thread that may fall behind.
//!
//! Invariant: a slow, full or closed standard error never blocks and never ends the process. Lines that find the
//! queue full are dropped; a panic is a log line too, since the default report would write to the pipe itself.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::panic;

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
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .log_internal_errors(false)
        .with_writer(writer)
        .event_format(Prefixed { role, pid: std::process::id(), line: Format::default().compact() })
        .finish();
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
