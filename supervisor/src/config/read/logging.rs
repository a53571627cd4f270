//! The access log's settings. Opening its file is the workers' matter; here it is only said when that cannot succeed.

use std::ops::RangeInclusive;
use std::path::Path;

use crate::config::gateway::{AccessLog, AccessLogDestination, MILLION};
use crate::config::json::Value;
use crate::config::report::Report;
use crate::config::shape::{Placed, Shape};

/// As a share; what a millionth does not resolve is rounded.
const SHARE: RangeInclusive<f64> = 0.0..=1.0;

/// `own` is the gateway's `holdfast` object; a relative file starts at `base`.
pub(super) fn access_log(own: &Shape<'_>, base: &Path, report: &mut Report) -> AccessLog {
    let Some(log) = own.inner("accessLog", report) else { return AccessLog::default() };
    let sampled_per_million = share(&log, "sampleRate", report).unwrap_or(MILLION);
    let word = log.word("destination", &["off", "stdout", "file"], report);
    let file = log.text("file", report);
    log.finish(report);
    let destination = match (word, file) {
        (Ok(Some("file") | None), Some(file)) => to_file(file, base, report),
        (Ok(Some("file")), None) => {
            report.error(
                log.place_of("destination"),
                "the destination is a file, but none is given",
                "add \"file\": \"/var/log/holdfast/access.log\", or make the destination stdout",
            );
            AccessLogDestination::Off
        }
        (Ok(Some(word)), file) => {
            if let Some(file) = file {
                report.warn(
                    &file.place,
                    format!("the destination is {word}, so the file has no effect"),
                    "make the destination file, or take the file out",
                );
            }
            if word == "stdout" { AccessLogDestination::Stdout } else { AccessLogDestination::Off }
        }
        (Ok(None), None) => {
            report.warn(
                &log.place,
                "the access log has no destination, so it is off",
                "add \"destination\": \"stdout\", or \"file\": \"/var/log/holdfast/access.log\"",
            );
            AccessLogDestination::Off
        }
        (Err(()), _) => AccessLogDestination::Off,
    };
    AccessLog { destination, sampled_per_million }
}

fn to_file(file: Placed<String>, base: &Path, report: &mut Report) -> AccessLogDestination {
    let Placed { value: spelled, place } = file;
    let whole = std::path::absolute(base.join(&spelled)).ok();
    let path = whole.as_deref().and_then(Path::to_str);
    let Some(path) = path.filter(|path| !path.contains('\0')) else {
        report.error(&place, format!("{spelled:?} is not a file's path"), "write an absolute path");
        return AccessLogDestination::Off;
    };
    let at = Path::new(path);
    if at.is_dir() {
        report.error(
            &place,
            format!("{path} is a directory"),
            "name a file in it, such as access.log",
        );
    } else if !at.parent().is_some_and(Path::is_dir) {
        report.warn(
            &place,
            format!("the directory of {path} does not exist, so nothing is logged until it does"),
            "make the directory, writable for the gateway's user",
        );
    }
    AccessLogDestination::File { path: path.to_owned() }
}

/// A share in millionths. `None`: absent, or wrong and reported.
fn share(shape: &Shape<'_>, name: &str, report: &mut Report) -> Option<u32> {
    let (node, place) = shape.get(name)?;
    let number = match &node.value {
        Value::Text(text) if text.trim().is_empty() => return None,
        Value::Number(text) | Value::Text(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let Some(number) = number.filter(|number| SHARE.contains(number)) else {
        report.error(
            place,
            format!("{name} is not a number from 0 to 1"),
            "write the share of requests that get a line: 1 for all, 0.01 for one in a hundred",
        );
        return None;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to a million, after the filter above"
    )]
    Some((number * f64::from(MILLION)).round() as u32)
}
