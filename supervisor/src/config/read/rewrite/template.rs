//! The small language of rewrites: `{var_host}`, `{http_req_Accept}`, `{var_uri_path_1}`, and text between them. What looks
//! like a reference and is none is told; other braces are text, as headers with JSON in them need it.

use holdfast_proto::control::ServerVariable;

use crate::config::gateway::rewrite::{Condition, Part, Source, Template};
use crate::config::report::{Place, Report};
use crate::config::shape::Placed;
use crate::config::spelling::nearest;

/// Longest text of one value.
const TEXT_LIMIT: usize = 8192;
/// A capture of a header's own matcher.
const MATCHER: &str = "capt_header_value_matcher";
/// What server variables are called on the wire, less their name.
const WIRE: &str = "SERVER_VARIABLE_";
/// How many server variables there are, and some room.
const NUMBERS: std::ops::Range<i32> = 1..100;

/// What a reference may refer to where it stands.
pub(super) struct Scope<'a> {
    /// The rule's conditions. `None`: some could not be read, so that nothing can be said of captures.
    pub(super) conditions: Option<&'a [Condition]>,
    /// Groups of the header's own matcher, if it has one.
    pub(super) matcher: Option<u32>,
    /// Whether the answer is there already.
    pub(super) answered: bool,
}

/// Why a name is no source of values.
pub(super) struct Unknown {
    pub(super) reason: String,
    pub(super) mend: String,
}

/// What a name like `var_host` or `http_req_Accept` means.
pub(super) fn source(name: &str) -> Result<Source, Unknown> {
    let unknown = |reason, mend: String| Err(Unknown { reason, mend });
    if let Some(variable) = after(name, "var_") {
        if let Some(cookie) = after(variable, "cookie_").filter(|cookie| is_token(cookie)) {
            return Ok(Source::Cookie(cookie.to_owned()));
        }
        if let Some(known) = server_variable(variable) {
            return Ok(Source::Variable(known));
        }
        let names: Vec<String> = server_variables().map(spelled).collect();
        let mend = match nearest(variable, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean var_{near}?"),
            None => "write var_ and a server variable's name, such as var_client_ip".to_owned(),
        };
        return unknown(format!("there is no server variable {variable:.80?}"), mend);
    }
    let of_answer = after(name, "http_resp_").or_else(|| after(name, "http_res_"));
    let header = of_answer.or_else(|| after(name, "http_req_"));
    match header {
        Some(header) if is_token(header) => {
            let lower = header.to_ascii_lowercase();
            Ok(if of_answer.is_some() {
                Source::ResponseHeader(lower)
            } else {
                Source::RequestHeader(lower)
            })
        }
        Some(header) => unknown(
            format!("{header:.80?} is not a header's name"),
            "write http_req_NAME or http_resp_NAME".to_owned(),
        ),
        None => {
            let bare = name.trim_matches(['{', '}']);
            let mend = if bare != name {
                format!("write {bare:.80} without braces")
            } else if server_variable(name).is_some() {
                format!("write var_{name}")
            } else {
                "write var_NAME, http_req_NAME or http_resp_NAME".to_owned()
            };
            unknown(format!("{name:.80?} is no variable"), mend)
        }
    }
}

/// Tells of a variable that has no value here.
pub(super) fn check_meaning(source: &Source, answered: bool, at: &Place, report: &mut Report) {
    let Source::Variable(variable) = source else {
        if !answered && source.is_of_answer() {
            report.warn(
                at,
                "headers of the answer are not known while the request is changed; this is empty",
                "use it for response headers",
            );
        }
        return;
    };
    match variable {
        ServerVariable::ClientUser
        | ServerVariable::ClientTcpRtt
        | ServerVariable::CiphersSupported
        | ServerVariable::SentBytes => report.warn(
            at,
            format!("the server variable {} has no meaning here and is empty", spelled(*variable)),
            "take it out",
        ),
        ServerVariable::HttpStatus if !answered => report.warn(
            at,
            "the status is not known while the request is changed; http_status is empty",
            "use it for response headers",
        ),
        _ => {}
    }
}

/// Reads a value; what is wrong in it is reported.
pub(super) fn parse(
    text: &Placed<String>,
    scope: &Scope<'_>,
    report: &mut Report,
) -> Option<Template> {
    if text.value.chars().count() > TEXT_LIMIT {
        let reason = format!("the value is longer than {TEXT_LIMIT} characters");
        report.error(&text.place, reason, "shorten it");
        return None;
    }
    if text.value.chars().any(char::is_control) {
        report.error(
            &text.place,
            "the value holds a control character, which no header and no URL may",
            "take it out",
        );
        return None;
    }
    let mut template = Template { text: text.value.clone(), parts: Vec::new() };
    let mut literal = String::new();
    let mut sound = true;
    let mut rest = text.value.as_str();
    while let Some((before, inside)) = rest.split_once('{') {
        literal.push_str(before);
        let Some((name, behind)) = inside.split_once('}').filter(|(name, _)| is_token(name)) else {
            literal.push('{');
            rest = inside;
            continue;
        };
        rest = behind;
        if !is_reference(name) {
            hint(name, &text.place, report);
            literal.extend(["{", name, "}"]);
            continue;
        }
        match reference(name, scope, &text.place, report) {
            Some(part) => {
                if !literal.is_empty() {
                    template.parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                template.parts.push(part);
            }
            None => sound = false,
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        template.parts.push(Part::Text(literal));
    }
    sound.then_some(template)
}

/// Whether a name in braces is meant as a reference.
fn is_reference(name: &str) -> bool {
    ["var_", "http_req_", "http_resp_", "http_res_", MATCHER]
        .iter()
        .any(|prefix| after(name, prefix).is_some())
}

/// A word in braces that is probably a slip.
fn hint(name: &str, at: &Place, report: &mut Report) {
    let bare = name.split_once('_').map_or(name, |(_, rest)| rest);
    let meant = [name, bare].into_iter().find(|name| server_variable(name).is_some());
    if let Some(meant) = meant {
        report.warn(
            at,
            format!("{{{name}}} is no reference and is sent as it stands"),
            format!("did you mean {{var_{meant}}}?"),
        );
    }
}

fn reference(name: &str, scope: &Scope<'_>, at: &Place, report: &mut Report) -> Option<Part> {
    if let Some(group) = after(name, MATCHER) {
        return matched(group, scope, at, report);
    }
    if let Some((base, group)) = numbered(name)
        && let Ok(wanted) = source(base)
    {
        // The rule is refused already; nobody will use this part.
        let Some(conditions) = scope.conditions else { return Some(Part::Matched(group)) };
        let mut same = conditions.iter().enumerate().filter(|(_, it)| it.source == wanted);
        // Of several, the last: what the closer look has found.
        if let Some((condition, found)) = same.next_back() {
            let reason = if found.pattern.negate {
                format!("the condition on {base} is negated, so it captures nothing")
            } else if group > found.pattern.groups {
                format!("the pattern for {base} has {} groups, not {group}", found.pattern.groups)
            } else {
                return Some(Part::Capture { condition, group });
            };
            report.error(
                at,
                reason,
                "put what is to be captured in parentheses, and count them from 1",
            );
            return None;
        }
        match wanted {
            Source::Variable(_) => {
                report.error(
                    at,
                    format!("{{{name}}} is a capture, but no condition of this rule is on {base}"),
                    format!("add a condition whose variable is {base}, with a group in its pattern"),
                );
                return None;
            }
            _ => report.warn(
                at,
                format!("no condition of this rule is on {base}, so {{{name}}} is taken for a name as a whole"),
                format!("for a capture, add a condition whose variable is {base}"),
            ),
        }
    }
    match source(name) {
        Ok(source) => {
            check_meaning(&source, scope.answered, at, report);
            Some(Part::Value(source))
        }
        Err(Unknown { reason, mend }) => {
            report.error(at, reason, mend);
            None
        }
    }
}

/// `{capt_header_value_matcher}` and `{capt_header_value_matcher_1}`.
fn matched(group: &str, scope: &Scope<'_>, at: &Place, report: &mut Report) -> Option<Part> {
    let number = match group {
        "" => Some(0),
        group => group.strip_prefix('_').and_then(|digits| digits.parse::<u32>().ok()),
    };
    let reason = match (number, scope.matcher) {
        (_, None) => "the header has no headerValueMatcher that could have captured".to_owned(),
        (Some(number), Some(groups)) if number <= groups => return Some(Part::Matched(number)),
        (_, Some(groups)) => format!("the headerValueMatcher has {groups} groups, not {group:?}"),
    };
    report.error(
        at,
        reason,
        "write {capt_header_value_matcher_1} for the first group of a headerValueMatcher",
    );
    None
}

/// A name that ends in `_` and a number of at most two digits.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (base, digits) = name.rsplit_once('_')?;
    let is_number = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    Some((base, digits.parse().ok().filter(|_| is_number)?))
}

/// What follows a prefix, whatever its case.
fn after<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    let head = name.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| name.get(prefix.len()..)).flatten()
}

/// RFC 9110, 5.6.2, less the braces that it does not have anyway.
pub(super) fn is_token(name: &str) -> bool {
    let marks = b"!#$%&'*+-.^_`|~";
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || marks.contains(&b))
}

fn server_variable(name: &str) -> Option<ServerVariable> {
    ServerVariable::from_str_name(&format!("{WIRE}{}", name.to_ascii_uppercase()))
        .filter(|variable| *variable != ServerVariable::Unspecified)
}

fn server_variables() -> impl Iterator<Item = ServerVariable> {
    NUMBERS.map_while(|number| ServerVariable::try_from(number).ok())
}

/// A server variable as Azure spells it.
fn spelled(variable: ServerVariable) -> String {
    variable.as_str_name().trim_start_matches(WIRE).to_ascii_lowercase()
}
