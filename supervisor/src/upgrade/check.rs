//! Asking an executable, before it is started in this process's place, whether it can take over. It runs as a child, is
//! given nothing but the question, and is killed when it does not answer in time.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::manifest::{Answer, Question, TAKEOVER};

/// The candidate reads one document and compiles it: milliseconds, and seconds on a machine that swaps.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is one short line, bytes; whoever says more is no Holdfast.
const LONGEST_ANSWER: u64 = 64 * 1024;
/// Of what it complained of, bytes that a reason may quote.
const LONGEST_COMPLAINT: u64 = 2048;

/// Why an executable cannot take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// It needs an interpreter, which could not read it: it is started by descriptor.
    #[error("it is a script; name the executable that it starts")]
    Script,
    /// Not executable, another machine's, or no memory.
    #[error("it cannot be executed")]
    Start(#[source] io::Error),
    /// It hangs.
    #[error("it did not answer within {PATIENCE:?}")]
    Late,
    /// Its answer could not be read.
    #[error("its answer cannot be read")]
    Read(#[source] io::Error),
    /// Some other program, or a Holdfast from before upgrades.
    #[error("it is no Holdfast that can take over ({status}){complaint}")]
    Foreign {
        /// How it ended.
        status: ExitStatus,
        /// The last that it said on standard error, after a colon.
        complaint: String,
    },
    /// It cannot read what is handed over.
    #[error("version {version} hands over by form {theirs} and this one by form {TAKEOVER}")]
    Takeover {
        /// The candidate's.
        version: String,
        /// What it knows.
        theirs: u32,
    },
    /// It could not talk to the workers that live.
    #[error(
        "version {version} speaks control protocol {theirs}, and the running workers {ours}: stop and start the gateway instead"
    )]
    Protocol {
        /// The candidate's.
        version: String,
        /// What it speaks.
        theirs: u32,
        /// What runs.
        ours: u32,
    },
    /// Open tunnels could not move to its workers.
    #[error(
        "version {version} keeps tunnels in layout {theirs}, and the running workers in {ours}: open tunnels could not move"
    )]
    Arena {
        /// The candidate's.
        version: String,
        /// What it knows.
        theirs: u32,
        /// What runs.
        ours: u32,
    },
    /// Its own words.
    #[error("version {version} cannot take over: {reason}")]
    Refused {
        /// The candidate's.
        version: String,
        /// Why.
        reason: String,
    },
}

/// The version of an executable that can take over.
pub(super) async fn ask(binary: &File, question: &Question) -> Result<String, CheckError> {
    let answer = asked(binary, &["takeover-check"], question, PATIENCE).await?;
    judge(answer, question)
}

fn judge(answer: Answer, question: &Question) -> Result<String, CheckError> {
    let version = answer.holdfast;
    if answer.takeover != question.takeover {
        return Err(CheckError::Takeover { version, theirs: answer.takeover });
    }
    if answer.protocol != question.protocol {
        let (theirs, ours) = (answer.protocol, question.protocol);
        return Err(CheckError::Protocol { version, theirs, ours });
    }
    if answer.arena != question.arena {
        let (theirs, ours) = (answer.arena, question.arena);
        return Err(CheckError::Arena { version, theirs, ours });
    }
    if !answer.refusal.is_empty() {
        return Err(CheckError::Refused { version, reason: answer.refusal });
    }
    Ok(version)
}

async fn asked(
    binary: &File,
    arguments: &[&str],
    question: &Question,
    patience: Duration,
) -> Result<Answer, CheckError> {
    let mut start = [0; 2];
    if binary.read_at(&mut start, 0).is_ok_and(|read| read == 2 && start == *b"#!") {
        return Err(CheckError::Script);
    }
    // The path is resolved in the child, before exec closes the descriptor.
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0("holdfast")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A terminal's Ctrl-C is for the gateway.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(CheckError::Start)?;
    let text = serde_json::to_vec(question).map_err(|error| CheckError::Read(error.into()))?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut input) = input {
            // Whoever does not listen has no good answer either.
            drop(input.write_all(&text).await);
        }
    };
    let talk = async {
        let ((), said, complained) =
            tokio::join!(write, read(output, LONGEST_ANSWER), read(errors, LONGEST_COMPLAINT));
        Ok::<_, io::Error>((said?, complained?, child.wait().await?))
    };
    let talked = timeout(patience, talk).await;
    let Ok(talked) = talked else {
        // And waited for: no zombie stays.
        drop(child.kill().await);
        return Err(CheckError::Late);
    };
    let (said, complained, status) = talked.map_err(CheckError::Read)?;
    serde_json::from_slice(&said).map_err(|_| {
        let complained = String::from_utf8_lossy(&complained);
        let last = complained.lines().rfind(|line| !line.trim().is_empty());
        let complaint = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
        CheckError::Foreign { status, complaint }
    })
}

/// To its end, or so much of it: what comes then goes nowhere, and whoever writes on is told by SIGPIPE.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(most).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn question() -> Question {
        Question {
            takeover: TAKEOVER,
            protocol: 1,
            arena: 1,
            runtime_dir: "/r".into(),
            state_dir: "/s".into(),
            revision: 1,
            arguments: vec!["holdfast".to_owned(), "run".to_owned()],
        }
    }

    fn answer() -> Answer {
        Answer {
            holdfast: "9.9.9".to_owned(),
            takeover: TAKEOVER,
            protocol: 1,
            arena: 1,
            refusal: String::new(),
        }
    }

    #[test]
    fn an_answer_that_fits_is_a_version_and_any_other_a_reason() {
        assert_eq!(judge(answer(), &question()).unwrap(), "9.9.9");
        for (other, word) in [
            (Answer { takeover: 2, ..answer() }, "form 2"),
            (Answer { protocol: 2, ..answer() }, "control protocol 2"),
            (Answer { arena: 2, ..answer() }, "layout 2"),
            (Answer { refusal: "no room".to_owned(), ..answer() }, "no room"),
        ] {
            let reason = judge(other, &question()).unwrap_err().to_string();
            assert!(reason.contains(word) && reason.contains("9.9.9"), "{reason}");
        }
    }

    #[tokio::test]
    async fn programs_that_are_no_holdfast_are_refused() {
        for (path, arguments, word) in [
            ("/bin/true", &[][..], "exit status: 0"),
            ("/bin/false", &[], "exit status: 1"),
            ("/bin/cat", &["/nonexistent"], "No such file"),
            // Says what it was told; and says something without an end.
            ("/bin/cat", &[], "exit status: 0"),
            ("/usr/bin/yes", &[], "SIGPIPE"),
            ("/etc/passwd", &[], "cannot be executed"),
            ("/usr/bin/ldd", &[], "script"),
        ] {
            let binary = File::open(path).unwrap();
            let asked = asked(&binary, arguments, &question(), PATIENCE).await;
            let reason = asked.unwrap_err().to_string();
            assert!(reason.contains(word), "{path}: {reason}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed() {
        let binary = File::open("/bin/sleep").unwrap();
        let asked = asked(&binary, &["1000"], &question(), Duration::from_millis(50)).await;
        assert!(matches!(asked, Err(CheckError::Late)));
        let me = std::process::id();
        let children = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        for pid in children.collect::<String>().split_whitespace() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            assert_ne!(name.trim(), "sleep", "a child of {me}");
        }
    }
}
