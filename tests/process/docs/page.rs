//! Pages of the documentation, as far as tests read them: fenced blocks, headings, links.

use std::fs;
use std::path::{Path, PathBuf};

/// A page.
pub(super) struct Page {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) blocks: Vec<Block>,
    prose: String,
}

/// A fenced block.
pub(super) struct Block {
    page: String,
    line: usize,
    pub(super) language: String,
    /// The second word behind the fence; empty without one.
    pub(super) mark: String,
    pub(super) text: String,
}

// === impl Block ===

impl Block {
    /// Where it stands, for a person.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Its lines that are typed, without what is said of them.
    pub(super) fn commands(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(|line| line.strip_prefix("$ "))
    }
}

// === impl Page ===

impl Page {
    fn read(name: String, file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap();
        let (mut blocks, mut prose) = (Vec::new(), String::new());
        let mut open: Option<Block> = None;
        for (line, at) in text.lines().zip(1..) {
            match (line.strip_prefix("```"), open.as_mut()) {
                (Some(""), Some(_)) => blocks.extend(open.take()),
                (_, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (Some(info), None) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let language = words.next().unwrap_or_default();
                    let mark = words.next().unwrap_or_default();
                    let (page, text) = (name.clone(), String::new());
                    open = Some(Block { page, line: at, language, mark, text });
                }
                (None, None) => {
                    prose.push_str(line);
                    prose.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{name} has a block without an end");
        Self { name, file, blocks, prose }
    }

    /// Targets of its links to files of ours and to headings.
    pub(super) fn links(&self) -> Vec<String> {
        let targets = self.prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
    }
}

/// README and every page of `docs`, but for decisions.
pub(super) fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![Page::read("README.md".to_owned(), root.join("README.md"))];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "md") {
            let name = file.strip_prefix(root).unwrap().display().to_string();
            pages.push(Page::read(name, file));
        }
    }
    assert!(pages.len() > 10);
    pages
}

/// The headings of a text, as links name them.
pub(super) fn headings(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}
