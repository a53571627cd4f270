//! The other side of the check: this executable, run as a child of the one that it may replace, says whether it could
//! take over. It reads, and changes nothing.

use std::io::Read;

use holdfast_proto::failpoint;

use super::manifest::{Answer, Question, TAKEOVER};
use super::{Terms, chain};
use crate::compile::compile;
use crate::config;
use crate::ledger::Ledger;

/// A question is shorter, bytes: paths and a command line.
const LONGEST_QUESTION: u64 = 1024 * 1024;

/// The answer, one line of JSON, to the question on `input`. `understands` says what is wrong with a command line.
pub fn answer(
    input: impl Read,
    terms: Terms,
    understands: impl FnOnce(&[String]) -> Result<(), String>,
) -> String {
    failpoint!("upgrade.asked");
    let refusal = consider(input, terms, understands).err().unwrap_or_default();
    let answer = Answer {
        holdfast: holdfast_proto::VERSION.to_owned(),
        takeover: TAKEOVER,
        protocol: holdfast_proto::protocol(),
        arena: terms.arena,
        refusal,
    };
    let mut line = serde_json::to_string(&answer).unwrap_or_default();
    line.push('\n');
    line
}

fn consider(
    input: impl Read,
    terms: Terms,
    understands: impl FnOnce(&[String]) -> Result<(), String>,
) -> Result<(), String> {
    let question: Question = serde_json::from_reader(input.take(LONGEST_QUESTION))
        .map_err(|error| format!("what is asked is not understood: {error}"))?;
    let ours = (TAKEOVER, holdfast_proto::protocol(), terms.arena);
    if (question.takeover, question.protocol, question.arena) != ours {
        // Who asks compares them too, and has the better words.
        return Err("it speaks another protocol".to_owned());
    }
    understands(&question.arguments)
        .map_err(|error| format!("it does not understand the command line: {error}"))?;
    std::fs::read_dir(&question.runtime_dir)
        .map_err(|error| format!("{}: {error}", question.runtime_dir.display()))?;
    let revision = Ledger::read(&question.state_dir, question.revision).map_err(|e| chain(&e))?;
    let loaded =
        config::load_again(&revision.document, &revision.base_dir).map_err(|diagnostics| {
            let first = diagnostics.first().map(ToString::to_string).unwrap_or_default();
            format!("it does not accept revision {}: {first}", question.revision)
        })?;
    compile(&loaded.gateway).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ledger::NewRevision;

    #[test]
    fn the_revision_in_force_and_the_command_line_decide() {
        let state = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(state.path()).unwrap();
        let new = |document: &str| NewRevision {
            source: "apply".to_owned(),
            by: "test".to_owned(),
            base_dir: state.path().to_owned(),
            document: document.to_owned(),
        };
        let good = include_str!("../../../examples/minimal.json");
        let good = ledger.append(new(good)).unwrap().revision;
        let bad = ledger.append(new("{}")).unwrap().revision;
        let terms = Terms { arena: 1 };
        let asked = |change: &dyn Fn(&mut Question)| {
            let mut question = Question {
                takeover: TAKEOVER,
                protocol: holdfast_proto::PROTOCOL,
                arena: 1,
                runtime_dir: state.path().to_owned(),
                state_dir: state.path().to_owned(),
                revision: good,
                arguments: vec!["run".to_owned()],
            };
            change(&mut question);
            let text = serde_json::to_vec(&question).unwrap();
            let understands = |it: &[String]| {
                if it == ["run"] { Ok(()) } else { Err("run what?".to_owned()) }
            };
            let line = answer(text.as_slice(), terms, understands);
            serde_json::from_str::<Answer>(&line).unwrap()
        };
        let able = asked(&|_| {});
        assert_eq!((able.refusal.as_str(), able.holdfast.as_str()), ("", holdfast_proto::VERSION));
        assert!(asked(&|it| it.revision = bad).refusal.contains("does not accept revision 2"));
        assert!(asked(&|it| it.revision = 7).refusal.contains("00000007"));
        assert!(asked(&|it| it.arguments.clear()).refusal.contains("run what?"));
        assert!(asked(&|it| it.protocol += 1).refusal.contains("another protocol"));
        assert!(asked(&|it| it.runtime_dir = "/nonexistent".into()).refusal.contains("nonexist"));
        let line = answer(&b"?"[..], terms, |_| Ok(()));
        assert!(serde_json::from_str::<Answer>(&line).unwrap().refusal.contains("not understood"));
    }
}
