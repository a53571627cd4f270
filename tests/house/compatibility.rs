//! `docs/azure-compatibility.md`, checked: each row says one of four things of Azure's, and what *works* names the tests
//! that show it, each of which is there and runs. Whether a test shows what its row says is for people to judge.

use std::collections::BTreeSet;
use std::fs;

use super::{expect_none, root, sources};

const TABLE: &str = "docs/azure-compatibility.md";
const REQUESTS: &str = "tests/process/table/requests.txt";

/// What a row may say, the longer words first.
const WORDS: [&str; 4] = ["works differently", "works", "no meaning here", "not yet"];

/// More than this is not compatible.
const MOST_NOT_YET: usize = 9;

/// Folders of fixtures that a test reads whole, and that test.
const READ_WHOLE: [(&str, &str); 2] = [
    ("bad", "every_bad_document_is_refused_for_its_reason"),
    ("import", "every_fixture_becomes_the_document_beside_it"),
];

/// A row of the table, and the line it stands on.
struct Row<'t> {
    line: usize,
    what: &'t str,
    says: &'t str,
    tests: &'t str,
}

/// What a name in the table may stand for.
struct Known {
    /// Tests by their whole paths, as `cargo test` prints them; those that are ignored are left out.
    tests: Vec<String>,
    /// Names of the rows of the request table.
    rows: BTreeSet<String>,
    /// Fixtures, as paths from their folder, that some test reads.
    fixtures: BTreeSet<String>,
}

/// The rows of all tables; `Err` for each that has not three cells.
fn rows(text: &str) -> Vec<Result<Row<'_>, String>> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with('|'));
    let lines =
        lines.filter(|(_, line)| !line.starts_with("| ---") && !line.starts_with("| property or"));
    lines
        .map(|(at, line)| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [what, says, tests] = cells[..] else {
                return Err(format!("line {}: {} cells", at + 1, cells.len()));
            };
            Ok(Row { line: at + 1, what, says, tests })
        })
        .collect()
}

/// The names in a cell, which stand in backticks with a comma between them and nothing else.
fn names(cell: &str) -> Result<Vec<&str>, String> {
    if cell.is_empty() {
        return Ok(Vec::new());
    }
    let inside = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    let names: Vec<&str> = inside.unwrap_or("`").split("`, `").collect();
    match names.iter().find(|name| name.is_empty() || name.contains(['`', '…'])) {
        Some(_) => Err(format!("{cell:?} is no list of whole names in backticks")),
        None => Ok(names),
    }
}

/// The faults of one row.
fn faults(row: &Row<'_>, known: &Known) -> Vec<String> {
    let Row { line, what, says, tests } = row;
    let at = |fault: String| format!("line {line}, {what}: {fault}");
    let word = WORDS.iter().find(|word| {
        let rest = says.strip_prefix(**word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ';', ',', ' ', '.']))
    });
    let Some(word) = word else {
        return vec![at(format!("{says:?} begins with none of {WORDS:?}"))];
    };
    let names = match names(tests) {
        Ok(names) => names,
        Err(fault) => return vec![at(fault)],
    };
    let mut faults = Vec::new();
    if names.is_empty() && word.starts_with("works") {
        faults.push(at("it names no test".to_owned()));
    }
    faults.extend(names.into_iter().filter_map(|name| known.fault_of(name)).map(at));
    faults
}

// === impl Known ===

impl Known {
    fn read() -> Self {
        let sources = sources();
        let tests: Vec<String> =
            sources.iter().flat_map(|(path, text)| tests_of(path, text)).collect();
        let requests = fs::read_to_string(root().join(REQUESTS)).unwrap();
        let mut faults = Vec::new();
        let mut rows = BTreeSet::new();
        for line in requests.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let name = line.split(" :: ").next().unwrap().trim();
            if !rows.insert(name.strip_prefix("h1 ").unwrap_or(name).to_owned()) {
                faults.push(format!("two rows are named {name:?}"));
            }
        }
        expect_none(REQUESTS, &faults);
        let mut fixtures = BTreeSet::new();
        for (folder, reader) in READ_WHOLE {
            assert!(tests.iter().any(|test| test.ends_with(&format!("::{reader}"))), "{reader}");
            for entry in fs::read_dir(root().join("tests/fixtures").join(folder)).unwrap() {
                let name = entry.unwrap().file_name();
                fixtures.insert(format!("{folder}/{}", name.to_str().unwrap()));
            }
        }
        for entry in fs::read_dir(root().join("tests/fixtures")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let quoted = format!("\"{name}\"");
            if name.contains('.') && sources.iter().any(|(_, text)| text.contains(&quoted)) {
                fixtures.insert(name);
            }
        }
        Self { tests, rows, fixtures }
    }

    /// Why a name stands for nothing.
    fn fault_of(&self, name: &str) -> Option<String> {
        if let Some(row) = name.strip_prefix("table: ") {
            let known = self.rows.contains(row);
            return (!known).then(|| format!("the request table has no row {row:?}"));
        }
        if name.contains('.') {
            let known = self.fixtures.contains(name);
            return (!known).then(|| format!("no test reads a fixture {name:?}"));
        }
        let is_meant = |test: &&String| {
            test.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
        };
        let meant: Vec<&String> = self.tests.iter().filter(is_meant).collect();
        match meant[..] {
            [_] => None,
            [] => Some(format!("there is no test {name:?}")),
            _ => Some(format!("{name:?} may be any of {meant:?}")),
        }
    }
}

/// The tests of a file, by their whole paths.
fn tests_of(path: &str, text: &str) -> Vec<String> {
    let inside = ["tests/process/", "/src/", "supervisor/cli/", "tests/"]
        .iter()
        .find_map(|folder| path.split_once(folder))
        .map_or(path, |(_, inside)| inside);
    let file = inside.trim_end_matches(".rs").replace('/', "::");
    let (mut found, mut module, mut is_test) = (Vec::new(), None, false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("mod ").and_then(|it| it.strip_suffix(" {")) {
            module = Some(name);
        } else if line == "}" {
            module = None;
        }
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        }
        let called = line.trim_start_matches("async ").strip_prefix("fn ");
        if let Some((name, _)) = called.and_then(|it| it.split_once('(')) {
            let module = module.map_or(String::new(), |module| format!("{module}::"));
            if std::mem::take(&mut is_test) {
                found.push(format!("{file}::{module}{name}"));
            }
        }
    }
    found
}

#[test]
fn what_works_names_tests_that_there_are() {
    let known = Known::read();
    let text = fs::read_to_string(root().join(TABLE)).unwrap();
    let mut wrong = Vec::new();
    let mut not_yet = Vec::new();
    let rows = rows(&text);
    assert!(rows.len() > 100, "{} rows", rows.len());
    for row in rows {
        match row {
            Err(fault) => wrong.push(fault),
            Ok(row) => {
                wrong.extend(faults(&row, &known));
                if row.says.starts_with("not yet") {
                    not_yet.push(row.what.to_owned());
                }
            }
        }
    }
    expect_none(TABLE, &wrong);
    assert!(not_yet.len() <= MOST_NOT_YET, "too much is not yet there: {not_yet:?}");
}

#[test]
fn a_row_that_shows_nothing_is_told_of() {
    let tests = [
        "topic::it_works",
        "topic::tests::twice",
        "other::tests::twice",
        "topic::inner::tests::alone",
    ];
    let known = Known {
        tests: tests.map(str::to_owned).into(),
        rows: ["a host, in capitals".to_owned()].into(),
        fixtures: ["bad/wildcards.jsonc".to_owned()].into(),
    };
    for (cells, told) in [
        ("works | `topic::it_works`", None),
        ("works: so | `alone`, `table: a host, in capitals`, `bad/wildcards.jsonc`", None),
        ("works differently (so) | `tests::alone`", None),
        ("no meaning here |", None),
        ("not yet; a warning | `topic::it_works`", None),
        ("works |", Some("names no test")),
        ("works differently: so |", Some("names no test")),
        ("works well |", Some("names no test")),
        ("workshop | `alone`", Some("begins with none of")),
        ("fine | `alone`", Some("begins with none of")),
        ("works | the same", Some("no list of whole names")),
        ("works | `topic::it_…`", Some("no list of whole names")),
        ("works | `alone` (worker)", Some("no list of whole names")),
        ("works | `it_does_not`", Some("there is no test")),
        ("works | `pic::it_works`", Some("there is no test")),
        ("works | `twice`", Some("may be any of")),
        ("no meaning here | `it_does_not`", Some("there is no test")),
        ("works | `table: a host`", Some("has no row")),
        ("works | `bad/other.jsonc`", Some("no test reads")),
        ("works | `alone` | more", Some("4 cells")),
        ("works", Some("2 cells")),
    ] {
        let text = format!("| --- | --- | --- |\n| a thing | {cells} |\n");
        let found: Vec<String> = rows(&text)
            .into_iter()
            .flat_map(|row| match row {
                Ok(row) => faults(&row, &known),
                Err(fault) => vec![fault],
            })
            .collect();
        match told {
            None => assert_eq!(found, [""; 0], "{cells}"),
            Some(told) => {
                assert!(found.len() == 1 && found[0].contains(told), "{cells}: {found:?}");
            }
        }
    }
}

#[test]
fn a_test_is_known_by_its_whole_path_and_only_if_it_runs() {
    let text = "#[test]\nfn one() {\n}\n\nmod tests {\n    #[tokio::test(start_paused = true)]\n    async fn two() {}\n    \
                #[test]\n    #[ignore = \"a child\"]\n    fn three() {}\n    fn four() {}\n}\n#[test]\nfn five() {}\n";
    assert_eq!(
        tests_of("worker/src/a/b.rs", text),
        ["a::b::one", "a::b::tests::two", "a::b::five"]
    );
    assert_eq!(tests_of("tests/process/topic.rs", "#[test]\nfn one() {}\n"), ["topic::one"]);
}
