//! Azure's `customErrorConfigurations`, of the gateway and of its sites. Files are read here; a URL is only noted, with
//! its place, for whoever fetches it.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Wanted;
use crate::config::gateway::{ErrorPage, PAGE_LIMIT, PageSource};
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};

/// Azure's words, in the order of their statuses.
const WORDS: [&str; 9] = [
    "HttpStatus400",
    "HttpStatus403",
    "HttpStatus404",
    "HttpStatus405",
    "HttpStatus408",
    "HttpStatus500",
    "HttpStatus502",
    "HttpStatus503",
    "HttpStatus504",
];

/// Azure's WAF answers it. A page for it is not fetched, so that its absence refuses nothing.
const NEVER_ANSWERED: u16 = 403;

/// No URL that a browser takes is longer.
const URL_LIMIT: usize = 2048;

/// How to give a page.
const MEND: &str = "write \"customErrorPageUrl\": \"https://host/page.html\", or \"holdfast\": {\"file\": \"page.html\"}";

/// What all lists of a document share.
pub(super) struct Pages<'a> {
    base: &'a Path,
    files: HashMap<PathBuf, Arc<[u8]>>,
    wanted: Vec<Wanted>,
    /// A file that cannot be read is a warning.
    optional: bool,
}

// === impl Pages ===

impl<'a> Pages<'a> {
    pub(super) fn new(base: &'a Path, optional: bool) -> Self {
        Self { base, files: HashMap::new(), wanted: Vec::new(), optional }
    }

    /// Each URL once, where it stands first.
    pub(super) fn into_wanted(self) -> Vec<Wanted> {
        self.wanted
    }

    /// The pages of the gateway, or of a site.
    pub(super) fn read(&mut self, owner: &Shape<'_>, report: &mut Report) -> Vec<ErrorPage> {
        let mut pages: Vec<ErrorPage> = Vec::new();
        for shape in owner.shapes("customErrorConfigurations", report) {
            let Some(page) = self.page(&shape, report) else { continue };
            if pages.iter().any(|known| known.status == page.status) {
                report.error(
                    shape.place_of("statusCode"),
                    format!("there are two pages for HttpStatus{}", page.status),
                    "keep one of them",
                );
                continue;
            }
            if page.status == NEVER_ANSWERED {
                // The entry as a whole: without its status it would be wrong.
                report.warn(
                    &shape.place,
                    "this gateway answers 403 to nobody, so the page has no effect; a backend's own 403 is passed on",
                    "take the entry out",
                );
            }
            pages.push(page);
        }
        pages
    }

    fn page(&mut self, shape: &Shape<'_>, report: &mut Report) -> Option<ErrorPage> {
        let word = shape.word("statusCode", &WORDS, report);
        let url = shape.text("customErrorPageUrl", report);
        let file = shape.inner("holdfast", report).and_then(|own| {
            let file = own.text("file", report);
            own.finish(report);
            file
        });
        shape.finish(report);
        if word == Ok(None) {
            report.error(&shape.place, "the page has no statusCode", "write \"HttpStatus502\"");
        }
        let status = word.ok().flatten().and_then(|word| word.get(10..)?.parse().ok());
        let (source, body) = match (file, url) {
            (Some(file), _) => self.file(&file, report)?,
            (None, Some(url)) => {
                (PageSource::Url(self.url(url, status != Some(NEVER_ANSWERED), report)?), None)
            }
            (None, None) => {
                report.error(&shape.place, "the page has neither a URL nor a file", MEND);
                return None;
            }
        };
        Some(ErrorPage { status: status?, source, body })
    }

    /// Checks a URL, and notes it if it is to be fetched.
    fn url(&mut self, url: Placed<String>, fetch: bool, report: &mut Report) -> Option<String> {
        let Placed { value, place } = url;
        let rest = ["http://", "https://"].iter().find_map(|scheme| {
            let begin = value.get(..scheme.len())?;
            begin.eq_ignore_ascii_case(scheme).then(|| value.get(scheme.len()..)).flatten()
        });
        let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
        let wrong = match authority {
            None | Some("") => Some("it is not an absolute http or https URL"),
            Some(authority) if authority.contains('@') => Some("it holds user information"),
            _ if value.len() > URL_LIMIT => Some("it is longer than 2048 characters"),
            _ if !value.chars().all(|c| c.is_ascii_graphic()) => {
                Some("it holds a space or a character that is not ASCII")
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            report.error(&place, format!("{value:.120?} is no page's URL: {wrong}"), MEND);
            return None;
        }
        if fetch && !self.wanted.iter().any(|wanted| wanted.url == value) {
            let Place { path, line, column } = place;
            self.wanted.push(Wanted { url: value.clone(), path, line, column });
        }
        Some(value)
    }

    fn file(
        &mut self,
        file: &Placed<String>,
        report: &mut Report,
    ) -> Option<(PageSource, Option<Arc<[u8]>>)> {
        let path = self.base.join(&file.value);
        let source = PageSource::File(path.display().to_string());
        if let Some(body) = self.files.get(&path) {
            return Some((source, Some(Arc::clone(body))));
        }
        match read(&path) {
            Ok(body) => {
                self.files.insert(path, Arc::clone(&body));
                Some((source, Some(body)))
            }
            Err(why) => {
                let reason = format!("the page {} cannot be used: {why}", path.display());
                let mend = "name a readable HTML file of less than 1 MiB";
                if self.optional {
                    report.warn(&file.place, reason, mend);
                    return Some((source, None));
                }
                report.error(&file.place, reason, mend);
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<Arc<[u8]>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        // Opening a pipe would wait for its writer.
        return Err("it is not a regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    file.take(PAGE_LIMIT).read_to_end(&mut body).map_err(|error| error.to_string())?;
    if body.len() as u64 == PAGE_LIMIT {
        return Err("it has 1 MiB or more".to_owned());
    }
    Ok(body.into())
}
