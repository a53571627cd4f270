//! What this process logs, changed while it runs: the executable says how, whoever is told to turns it.
//!
//! The supervisor's filter is every process's: it is passed on to each child as a state, as soon as they talk. A process
//! in which nobody has installed anything (a test) refuses to be turned. What a filter may say is for the log itself to
//! judge; nothing here reads one.

use std::sync::OnceLock;

use tokio::sync::watch;

type Turn = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

struct Installed {
    turn: Turn,
    now: watch::Sender<String>,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Says what is logged now and how that is changed. Only the first call counts.
pub fn install(now: String, turn: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) {
    let installed = Installed { turn: Box::new(turn), now: watch::Sender::new(now) };
    // A second log in one process (tests) keeps the first one's.
    drop(INSTALLED.set(installed));
}

/// Logs by another filter from now on.
///
/// # Errors
/// The filter is none, and why; nothing has changed.
pub fn set(filter: &str) -> Result<(), String> {
    let installed = INSTALLED.get().ok_or("this process has no log that can be changed")?;
    (installed.turn)(filter)?;
    installed.now.send_if_modified(|now| {
        let is_new = now != filter;
        filter.clone_into(now);
        is_new
    });
    Ok(())
}

/// The filter now; empty where nothing is installed.
pub fn now() -> String {
    INSTALLED.get().map(|installed| installed.now.borrow().clone()).unwrap_or_default()
}

/// The filter, as it changes; never does where nothing is installed.
pub fn watch() -> watch::Receiver<String> {
    static NONE: OnceLock<watch::Sender<String>> = OnceLock::new();
    match INSTALLED.get() {
        Some(installed) => installed.now.subscribe(),
        None => NONE.get_or_init(|| watch::Sender::new(String::new())).subscribe(),
    }
}
