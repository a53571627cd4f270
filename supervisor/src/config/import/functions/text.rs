//! Functions on texts. Each that could grow a text beyond measure has its bound here.

use std::rc::Rc;

use super::list::position;
use super::{Arguments, Function, plain_text};
use crate::config::import::context::{Context, Fault, poison};
use crate::config::import::item::{Item, Member, Value};
use crate::config::json;

type Answer = Result<Value, Fault>;

/// A text longer than this is no configuration.
const LONGEST: usize = 4 * 1024 * 1024;

pub(super) const TABLE: &[(&str, Function)] = &[
    ("concat", concat),
    ("format", format),
    ("tolower", |a, _| Ok(Value::text(&a.text(0)?.to_lowercase()))),
    ("toupper", |a, _| Ok(Value::text(&a.text(0)?.to_uppercase()))),
    ("trim", |a, _| Ok(Value::text(a.text(0)?.trim()))),
    ("substring", substring),
    ("replace", replace),
    ("split", split),
    ("join", join),
    ("startswith", |a, _| affix(a, |text, affix| text.starts_with(affix))),
    ("endswith", |a, _| affix(a, |text, affix| text.ends_with(affix))),
    ("indexof", |a, context| index(a, context, |text, part| text.find(part))),
    ("lastindexof", |a, context| index(a, context, |text, part| text.rfind(part))),
    ("padleft", pad_left),
    ("string", string),
    ("json", parse_json),
];

fn concat(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    if arguments.all().iter().any(|item| matches!(item.value, Value::List(_))) {
        let mut entries = Vec::new();
        for (item, at) in arguments.all().iter().zip(0..) {
            // An array that is not known makes the whole not known.
            if let Some(text) = item.as_text().filter(|_| item.has_hole()) {
                return Ok(poison([text].into_iter()));
            }
            let more = arguments.list(at)?;
            context.spend(more.len())?;
            entries.extend(more.iter().cloned());
        }
        return Ok(Value::list(entries));
    }
    let mut joined = String::new();
    for at in 0..arguments.len() {
        joined.push_str(&arguments.text(at)?);
        if joined.len() > LONGEST {
            return Err(too_long());
        }
    }
    Ok(Value::text(&joined))
}

fn too_long() -> Fault {
    Fault::new(format!("a text grows longer than {LONGEST} bytes"), "make it shorter")
}

/// `{0}` and `{{`; of number formats those that fill with zeros.
fn format(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let pattern = arguments.text(0)?;
    let mut made = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                made.push(c);
            }
            '{' => {
                let inside: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let (place, how) = inside.split_once(':').unwrap_or((&inside, ""));
                let place = place.split(',').next().unwrap_or_default().trim();
                let Ok(place) = place.parse::<usize>() else {
                    return Err(Fault::new(
                        "format has a place without a number",
                        "write {0}, and {{ for a bracket",
                    ));
                };
                let text = arguments.text(place.saturating_add(1))?;
                made.push_str(&filled(&text, how));
            }
            c => made.push(c),
        }
        if made.len() > LONGEST {
            return Err(too_long());
        }
    }
    Ok(Value::text(&made))
}

fn filled(text: &str, how: &str) -> String {
    let zeros = match how.strip_prefix(['D', 'd']) {
        Some(digits) => digits.parse().unwrap_or(0),
        None if how.chars().all(|c| c == '0') => how.len(),
        None => 0,
    };
    let negative = text.strip_prefix('-');
    let digits = negative.unwrap_or(text);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return text.to_owned();
    }
    let sign = if negative.is_some() { "-" } else { "" };
    format!("{sign}{digits:0>width$}", width = zeros.min(40))
}

fn substring(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let text = arguments.text(0)?;
    let start = arguments.int(1)?;
    let length = text.chars().count();
    let Some(start) = usize::try_from(start).ok().filter(|start| *start <= length) else {
        return Err(outside(length));
    };
    let count = if arguments.len() > 2 { arguments.int(2)? } else { i64::MAX };
    let Ok(count) = usize::try_from(count) else { return Err(outside(length)) };
    if arguments.len() > 2 && count > length - start {
        return Err(outside(length));
    }
    Ok(Value::text(&text.chars().skip(start).take(count).collect::<String>()))
}

fn outside(length: usize) -> Fault {
    Fault::new(
        format!("substring reaches outside of a text of {length} characters"),
        "begin and end within the text",
    )
}

fn replace(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let (text, from, to) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    if from.is_empty() {
        return Ok(Value::text(&text));
    }
    let times = text.matches(&from).count();
    if times.saturating_mul(to.len()).saturating_add(text.len()) > LONGEST {
        return Err(too_long());
    }
    Ok(Value::text(&text.replace(&from, &to)))
}

fn split(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let text = arguments.text(0)?;
    let delimiters: Vec<String> = match &arguments.get(1)?.value {
        Value::List(entries) => entries.iter().filter_map(plain_text).collect(),
        _ => vec![arguments.text(1)?],
    };
    let mut parts = vec![text];
    for delimiter in delimiters.iter().filter(|delimiter| !delimiter.is_empty()) {
        context.spend(parts.len())?;
        parts = parts
            .iter()
            .flat_map(|part| part.split(delimiter.as_str()))
            .map(str::to_owned)
            .collect();
    }
    Ok(Value::list(parts.iter().map(|part| Item::text(part)).collect()))
}

fn join(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    // An array of which nothing is known.
    if arguments.get(0)?.has_hole() {
        return Ok(arguments.get(0)?.value.clone());
    }
    let delimiter = arguments.text(1)?;
    let mut joined = String::new();
    for (item, at) in arguments.list(0)?.iter().zip(0..) {
        if at > 0 {
            joined.push_str(&delimiter);
        }
        joined.push_str(&plain_text(item).unwrap_or_default());
        if joined.len() > LONGEST {
            return Err(too_long());
        }
    }
    Ok(Value::text(&joined))
}

/// Azure compares beginnings and ends without regard to case.
fn affix(arguments: &Arguments<'_>, has: fn(&str, &str) -> bool) -> Answer {
    let (text, affix) = (arguments.text(0)?.to_lowercase(), arguments.text(1)?.to_lowercase());
    Ok(Value::Bool(has(&text, &affix)))
}

fn index(
    arguments: &Arguments<'_>,
    context: &Context<'_>,
    find: fn(&str, &str) -> Option<usize>,
) -> Answer {
    if let Value::List(entries) = &arguments.get(0)?.value {
        let found = position(entries, &arguments.get(1)?.value, context)?;
        return Ok(Value::Int(found.and_then(|at| at.try_into().ok()).unwrap_or(-1)));
    }
    let (text, part) = (arguments.text(0)?.to_lowercase(), arguments.text(1)?.to_lowercase());
    let at = find(&text, &part).and_then(|at| text.get(..at)).map(|head| head.chars().count());
    Ok(Value::Int(at.and_then(|at| at.try_into().ok()).unwrap_or(-1)))
}

fn pad_left(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let (text, width) = (arguments.text(0)?, arguments.count(1)?);
    if width > 65_536 {
        return Err(too_long());
    }
    let filler = if arguments.len() > 2 { arguments.text(2)? } else { " ".to_owned() };
    let filler = filler.chars().next().unwrap_or(' ');
    let missing = width.saturating_sub(text.chars().count());
    let padding: String = std::iter::repeat_n(filler, missing).collect();
    Ok(Value::text(&format!("{padding}{text}")))
}

fn string(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let item = arguments.get(0)?;
    Ok(match plain_text(item) {
        Some(text) => Value::text(&text),
        None => Value::text(&item.to_json(&str::to_owned).to_string()),
    })
}

fn parse_json(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let text = arguments.text(0)?;
    context.spend(text.len() / 16)?;
    let node = json::parse(&text)
        .map_err(|e| Fault::new(format!("json has a text that is none: {}", e.reason), e.mend))?;
    Ok(placeless(&Item::literal(&node)))
}

/// A parsed text's lines mean nothing in the document.
fn placeless(item: &Item) -> Value {
    match &item.value {
        Value::List(entries) => {
            Value::list(entries.iter().map(|entry| Item::new(placeless(entry))).collect())
        }
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|m| Member { name: Rc::clone(&m.name), item: Item::new(placeless(&m.item)) });
            Value::object(members.collect())
        }
        other => other.clone(),
    }
}
