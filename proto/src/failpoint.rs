//! Failpoints: places where a test can make a process die, stop, wait or fail, at exactly that step.
//!
//! Only with the feature `failpoints`; without it the macros are nothing. A test names a directory in
//! `HOLDFAST_FAILPOINTS` and puts files into it (by renaming: half a file is no action). A file that is named like a
//! failpoint says `[skip N ]ACTION`: every process lets N passes by, and then the process that manages to remove the file
//! acts: `kill`, `stop` (SIGSTOP), `abort`, `sleep MS`, or `error`, which a failpoint with a second part answers with it. A
//! file that is named like a *planted* fault makes the fault real for as long as it lies there; a planted *number* has
//! every process that starts meanwhile be of another version.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

/// Where the files are.
pub const VARIABLE: &str = "HOLDFAST_FAILPOINTS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Abort,
    Sleep(Duration),
    Error,
}

/// Passes a failpoint; whether it is to end in its error.
pub fn pass(name: &str) -> bool {
    directory().is_some_and(|directory| pass_in(directory, name))
}

/// Whether a planted fault is real.
pub fn is_planted(name: &str) -> bool {
    directory().is_some_and(|directory| directory.join(name).exists())
}

/// The number in a planted file.
pub fn number(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(directory()?.join(name)).ok()?;
    let Ok(number) = text.trim().parse() else {
        // A test's own mistake; it must not pass for a success.
        eprintln!("planted {name}: {text:?} is no number");
        std::process::abort();
    };
    Some(number)
}

fn directory() -> Option<&'static Path> {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    DIRECTORY.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)).as_deref()
}

fn pass_in(directory: &Path, name: &str) -> bool {
    static PASSES: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);
    let file = directory.join(name);
    let Ok(text) = std::fs::read_to_string(&file) else { return false };
    let Some((skip, action)) = parse(&text) else {
        // A test's own mistake; it must not pass for a success.
        eprintln!("failpoint {name}: what is {text:?}?");
        std::process::abort();
    };
    let mut passes = PASSES.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = passes.get_or_insert_default().entry(name.to_owned()).or_default();
    if *passed < skip {
        *passed += 1;
        return false;
    }
    *passed = 0;
    drop(passes);
    // One process acts.
    std::fs::remove_file(&file).is_ok() && act(action)
}

fn act(action: Action) -> bool {
    match action {
        Action::Kill => {
            signal(Signal::SIGKILL);
            // Nothing gets past this.
            loop {
                std::thread::park();
            }
        }
        Action::Stop => {
            signal(Signal::SIGSTOP);
            false
        }
        Action::Abort => std::process::abort(),
        #[allow(clippy::disallowed_methods, reason = "to hold this thread up is what it is for")]
        Action::Sleep(time) => {
            std::thread::sleep(time);
            false
        }
        Action::Error => true,
    }
}

fn signal(signal: Signal) {
    // To this thread: a stop sent to the process is another thread's to carry out, and this one runs on until it has.
    // The one error is a signal that does not exist.
    raise(signal).unwrap_or_default();
}

fn parse(text: &str) -> Option<(u64, Action)> {
    let mut words = text.split_whitespace();
    let mut word = words.next()?;
    let mut skip = 0;
    if word == "skip" {
        skip = words.next()?.parse().ok()?;
        word = words.next()?;
    }
    let action = match word {
        "kill" => Action::Kill,
        "stop" => Action::Stop,
        "abort" => Action::Abort,
        "sleep" => Action::Sleep(Duration::from_millis(words.next()?.parse().ok()?)),
        "error" => Action::Error,
        _ => return None,
    };
    words.next().is_none().then_some((skip, action))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use nix::sys::signal::kill;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    /// A process that passes the failpoint "step" three times.
    fn passer(directory: &Path) -> Command {
        let mut passer = Command::new(std::env::current_exe().unwrap());
        passer
            .args(["--exact", "failpoint::tests::the_process_that_passes", "--ignored"])
            .env(VARIABLE, directory);
        passer
    }

    /// How a process ends that passes the failpoint "step" three times, which pass was told to fail, and whether the
    /// file is still there.
    fn a_process_passes(text: &str) -> (ExitStatus, Option<String>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("step"), text).unwrap();
        let status = passer(directory.path()).status().unwrap();
        (status, std::fs::read_to_string(at("outcome")).ok(), at("step").exists())
    }

    #[test]
    #[ignore = "a process that the other tests start"]
    fn the_process_that_passes() {
        let Some(directory) = directory() else { return };
        let failed = (1..=3).filter(|_| pass("step")).map(|pass| pass.to_string());
        let failed: String = failed.collect();
        std::fs::write(directory.join("outcome"), failed).unwrap();
        assert!(!is_planted("fault"));
        std::fs::write(directory.join("fault"), "").unwrap();
        assert!(is_planted("fault") && is_planted("fault"));
    }

    #[test]
    fn a_process_acts_once_at_the_pass_that_was_named() {
        assert_eq!(a_process_passes("kill").0.signal(), Some(nix::libc::SIGKILL));
        assert_eq!(a_process_passes("skip 2 abort").0.signal(), Some(nix::libc::SIGABRT));
        for (text, failed, left) in [
            ("error", "1", false),
            ("skip 1 error", "2", false),
            ("sleep 1\n", "", false),
            ("skip 3 kill", "", true),
        ] {
            let (status, outcome, still) = a_process_passes(text);
            assert!(status.success(), "{text}: {status}");
            assert_eq!((outcome.as_deref(), still), (Some(failed), left), "{text}");
        }
    }

    #[test]
    fn a_stop_lets_no_thread_past_its_step() {
        // Tests run on threads beside the main one, which a signal to the whole process would go to.
        for _ in 0..10 {
            let directory = tempfile::tempdir().unwrap();
            let outcome = directory.path().join("outcome");
            std::fs::write(directory.path().join("step"), "stop").unwrap();
            let mut child = passer(directory.path()).spawn().unwrap();
            let pid = Pid::from_raw(child.id().try_into().unwrap());
            let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
            assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
            let past = outcome.exists();
            kill(pid, Signal::SIGCONT).unwrap();
            assert!(child.wait().unwrap().success());
            assert!(!past && outcome.exists());
        }
    }

    #[test]
    fn nonsense_is_no_success() {
        for text in ["", "die", "skip kill", "sleep", "kill now"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(a_process_passes("die").0.signal(), Some(nix::libc::SIGABRT));
    }

    #[test]
    fn without_a_directory_nothing_happens() {
        assert!(!is_planted("fault") && !pass("step"));
    }
}
