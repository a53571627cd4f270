//! `holdfast import`: turns an ARM template, or what Azure prints of a gateway, into a document of ours.
//!
//! What it means is decided in the supervisor's `config::import`; here are files, options and words.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_supervisor::config::import::{Finding, FindingKind, Given, Imported, Wanted, import};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::ImportArgs;
use crate::output::{complain, print, print_json, printable};
use crate::validate::read_document;

/// Imports the file and tells what became of it.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<Outcome> {
    let document = read_document(&args.file)?;
    let given = given(args)?;
    let wanted = if args.output_dir.is_some() { Wanted::All } else { Wanted::One };
    let base = base_directory(args)?;
    let file = args.file.display().to_string();
    let imported = match import(&document, &given, wanted, &base) {
        Ok(imported) => imported,
        Err(findings) => {
            if args.json {
                print_json(&json!({"gateways": [], "findings": findings_json(&findings)}))?;
                return Ok(Outcome::Refused);
            }
            complain(&told(&file, &findings));
            if is_bicep(&args.file) {
                complain("  Bicep's own language is not read: run `az bicep build` on it first\n");
            }
            return Ok(Outcome::Refused);
        }
    };
    let mut outcome = Outcome::Done;
    let mut names = BTreeSet::new();
    let mut gateways = Vec::new();
    // Where programs read, facts are all that is printed.
    let say = |text: &str| {
        if !args.json {
            complain(text);
        }
    };
    for one in &imported {
        if imported.len() > 1 {
            say(&format!("gateway {}:\n", printable(&one.name)));
        }
        say(&told(&file, &one.findings));
        let is_written = one.is_complete || args.allow_incomplete;
        if !one.is_complete {
            outcome = Outcome::Refused;
        }
        if !is_written {
            say("nothing is written (--allow-incomplete writes it nevertheless)\n");
        }
        let path = match (&args.output, &args.output_dir) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(directory)) if is_written => {
                Some(directory.join(file_name(one, &mut names)))
            }
            (None, _) => None,
        };
        let path = path.filter(|_| is_written);
        match &path {
            Some(path) => write(path, one)?,
            None if is_written && !args.json => print(&one.document)?,
            None => {}
        }
        gateways.push(gateway_json(one, path.as_deref(), is_written));
    }
    if args.json {
        print_json(&json!({"gateways": gateways, "findings": []}))?;
    }
    Ok(outcome)
}

/// A gateway's JSON: its document is where it would have been printed.
fn gateway_json(gateway: &Imported, file: Option<&Path>, is_written: bool) -> Value {
    let document = || {
        let text = &gateway.document;
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
    };
    json!({
        "name": gateway.name,
        "complete": gateway.is_complete,
        "file": file.map(|file| file.display().to_string()),
        "document": (is_written && file.is_none()).then(document),
        "findings": findings_json(&gateway.findings),
    })
}

fn findings_json(findings: &[Finding]) -> Value {
    findings
        .iter()
        .map(|finding| {
            json!({
                "kind": label(finding.kind),
                "path": finding.path,
                "line": (finding.line > 0).then_some(finding.line),
                "column": (finding.line > 0).then_some(finding.column),
                "reason": finding.reason,
                "mend": finding.mend,
            })
        })
        .collect()
}

const fn label(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Error => "error",
        FindingKind::Missing => "missing",
        FindingKind::Warning => "warning",
        FindingKind::LeftOut => "left out",
    }
}

fn is_bicep(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bicep"))
}

/// What the options give.
fn given(args: &ImportArgs) -> anyhow::Result<Given> {
    let mut given = Given::default();
    given.gateway.clone_from(&args.gateway);
    for file in &args.parameters {
        let added = given.add_parameters(&read_document(file)?);
        added
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{} is not a parameter file", file.display()))?;
    }
    for option in &args.set {
        let (name, value) = pair(option, "--set")?;
        given.set(name, value.to_owned());
    }
    for option in &args.set_file {
        let (name, path) = pair(option, "--set-file")?;
        given.set(name, contents(Path::new(path))?);
    }
    for option in &args.linked {
        // A URL may hold one, a file's name hardly.
        let (name, file) = option.rsplit_once('=').context("--linked needs NAME=FILE")?;
        given.link(name, PathBuf::from(file));
    }
    if args.file.as_os_str() != "-" {
        let file =
            std::path::absolute(&args.file).context("cannot tell the template's directory")?;
        given.template_dir = file.parent().map(Path::to_owned);
    }
    if let Some(directory) = &args.certificates_dir {
        // The result may be written elsewhere than where it is made.
        let directory = std::path::absolute(directory).context("cannot tell the directory")?;
        given.certificates_dir = Some(directory);
    }
    for option in &args.listen {
        let (frontend, address) = match option.split_once('=') {
            Some((frontend, address)) => (Some(frontend), address),
            None => (None, option.as_str()),
        };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let address: IpAddr = bare
            .parse()
            .with_context(|| format!("--listen {option}: {address:?} is not an IP address"))?;
        match frontend {
            Some(frontend) => {
                given.listen_on.insert(frontend.to_lowercase(), address);
            }
            None => given.listen = Some(address),
        }
    }
    Ok(given)
}

fn pair<'o>(option: &'o str, name: &str) -> anyhow::Result<(&'o str, &'o str)> {
    // What was given may be a secret, so that it is not repeated.
    option.split_once('=').with_context(|| format!("{name} needs NAME=VALUE"))
}

/// A file's text without the line end that editors add; of a file that is no text (a PFX), its base64.
fn contents(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            text.strip_suffix('\r').unwrap_or(text).to_owned()
        }
        Err(error) => STANDARD.encode(error.as_bytes()),
    })
}

/// Where relative paths in the result start: where it will be.
fn base_directory(args: &ImportArgs) -> anyhow::Result<PathBuf> {
    let directory = match (&args.output, &args.output_dir) {
        (Some(path), _) => path.parent().map(Path::to_owned),
        (None, directory) => directory.clone(),
    };
    match directory.filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => std::path::absolute(directory),
        None => std::env::current_dir(),
    }
    .context("cannot tell the current directory")
}

/// A name for a gateway's file that leads nowhere else and that none before it had.
fn file_name(gateway: &Imported, names: &mut BTreeSet<String>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = gateway.name.chars().map(plain).take(80).collect();
    let name = name.trim_start_matches('.');
    let mut file = format!("{name}.json");
    let mut number = 2;
    while !names.insert(file.to_lowercase()) {
        file = format!("{name}-{number}.json");
        number += 1;
    }
    file
}

/// Writes a result; one that holds a key is for its owner only.
fn write(path: &Path, gateway: &Imported) -> anyhow::Result<()> {
    if path.file_name().is_none_or(OsStr::is_empty) {
        bail!("{} is not a file's name", path.display());
    }
    let mode = if gateway.has_secret { 0o600 } else { 0o644 };
    let written = File::options().create(true).write(true).truncate(true).mode(mode).open(path);
    let written = written.and_then(|mut file| {
        // A file that was there keeps its mode otherwise.
        if gateway.has_secret && file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(gateway.document.as_bytes())
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Findings for people: the gravest first.
fn told(file: &str, findings: &[Finding]) -> String {
    let mut text = Vec::new();
    for finding in findings {
        let label = label(finding.kind);
        let mut place = printable(file);
        if finding.line > 0 {
            place = format!("{place}:{}:{}", finding.line, finding.column);
        }
        text.push(format!("{place}: {label}: {}\n", printable(&finding.reason)));
        for (label, detail) in [("at", &finding.path), ("mend", &finding.mend)] {
            if !detail.is_empty() {
                let label = match (label, finding.kind) {
                    ("mend", FindingKind::LeftOut) => "note",
                    _ => label,
                };
                text.push(format!("  {label}: {}\n", printable(detail)));
            }
        }
    }
    text.concat()
}
