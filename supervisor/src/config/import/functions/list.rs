//! Functions on arrays and objects; those of them that take texts too.

use super::{Arguments, Function, plain_text};
use crate::config::import::context::{Context, Fault, poison};
use crate::config::import::item::{Item, Member, Value};

type Answer = Result<Value, Fault>;

/// Azure's limit for `range`.
const LONGEST_RANGE: i64 = 10_000;

pub(super) const TABLE: &[(&str, Function)] = &[
    ("length", length),
    ("empty", empty),
    ("contains", contains),
    ("first", |a, _| end(a, End::First)),
    ("last", |a, _| end(a, End::Last)),
    ("take", |a, _| cut(a, |count, _| (0, count))),
    ("skip", |a, _| cut(a, |count, length| (count, length))),
    ("range", range),
    ("array", array),
    ("createarray", |a, _| Ok(Value::list(a.all().to_vec()))),
    ("createobject", create_object),
    ("union", union),
    ("shallowmerge", shallow_merge),
    ("intersection", intersection),
    ("flatten", flatten),
    ("items", items),
    ("objectkeys", object_keys),
    ("tryget", try_get),
    ("min", |a, _| least(a, |found, known| found < known)),
    ("max", |a, _| least(a, |found, known| found > known)),
];

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

fn length(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let length = match &arguments.get(0)?.value {
        Value::List(entries) => entries.len(),
        Value::Object(members) => members.len(),
        Value::Text(text) => text.chars().count(),
        _ => return Err(arguments.wrong(0, "an array, an object or a string")),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn empty(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    Ok(Value::Bool(match &arguments.get(0)?.value {
        Value::List(entries) => entries.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Text(text) => text.is_empty(),
        Value::Null => true,
        _ => return Err(arguments.wrong(0, "an array, an object or a string")),
    }))
}

fn contains(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let (of, wanted) = (arguments.get(0)?, arguments.get(1)?);
    let texts = [of, wanted].into_iter().filter_map(Item::as_text);
    let found = match &of.value {
        Value::List(entries) => position(entries, &wanted.value, context)?.is_some(),
        Value::Object(members) => {
            context.spend(members.len())?;
            of.get(&arguments.text(1)?).is_some()
        }
        Value::Text(text) => text.contains(&arguments.text(1)?),
        _ => return Err(arguments.wrong(0, "an array, an object or a string")),
    };
    if !found && (of.has_hole() || wanted.has_hole()) {
        return Ok(poison(texts));
    }
    Ok(Value::Bool(found))
}

/// Where a list has a value.
pub(super) fn position(
    entries: &[Item],
    wanted: &Value,
    context: &Context<'_>,
) -> Result<Option<usize>, Fault> {
    for (entry, at) in entries.iter().zip(0..) {
        context.spend(1)?;
        if entry.value.same(wanted, context)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn end(arguments: &Arguments<'_>, which: End) -> Answer {
    let pick = |length: usize| match which {
        End::First => Some(0),
        End::Last => length.checked_sub(1),
    };
    match &arguments.get(0)?.value {
        Value::List(entries) => {
            let found = pick(entries.len()).and_then(|at| entries.get(at));
            Ok(found.map_or(Value::Null, |item| item.value.clone()))
        }
        Value::Text(text) => {
            let found = match which {
                End::First => text.chars().next(),
                End::Last => text.chars().next_back(),
            };
            Ok(Value::text(&found.map(String::from).unwrap_or_default()))
        }
        _ => Err(arguments.wrong(0, "an array or a string")),
    }
}

/// A part of an array or a text, from and to the positions that `bounds` makes of a count and the whole length.
fn cut(arguments: &Arguments<'_>, bounds: fn(usize, usize) -> (usize, usize)) -> Answer {
    let count = arguments.count(1)?;
    match &arguments.get(0)?.value {
        Value::List(entries) => {
            let (from, to) = bounds(count.min(entries.len()), entries.len());
            Ok(Value::list(entries.get(from..to).unwrap_or_default().to_vec()))
        }
        Value::Text(text) => {
            let length = text.chars().count();
            let (from, to) = bounds(count.min(length), length);
            Ok(Value::text(&text.chars().skip(from).take(to - from).collect::<String>()))
        }
        _ => Err(arguments.wrong(0, "an array or a string")),
    }
}

fn range(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let (start, count) = (arguments.int(0)?, arguments.int(1)?);
    if !(0..=LONGEST_RANGE).contains(&count) || start.checked_add(count).is_none() {
        return Err(Fault::new(
            format!("range counts {count} numbers from {start}"),
            format!("let it count 0 to {LONGEST_RANGE}, as in Azure"),
        ));
    }
    let numbers = (start..start + count).map(|number| Item::new(Value::Int(number)));
    Ok(Value::list(numbers.collect()))
}

fn array(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let item = arguments.get(0)?;
    Ok(match &item.value {
        Value::List(_) => item.value.clone(),
        _ => Value::list(vec![item.clone()]),
    })
}

fn create_object(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let mut members = Vec::new();
    for pair in arguments.all().chunks(2) {
        let [name, item] = pair else {
            return Err(Fault::new("createObject has a name without a value", "add the value"));
        };
        let name = plain_text(name)
            .ok_or_else(|| Fault::new("createObject has a name that is no string", "correct it"))?;
        members.push(Member::new(&name, item.clone()));
    }
    Ok(Value::object(members))
}

fn union(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    if let Some(text) = arguments.all().iter().filter(|it| it.has_hole()).find_map(Item::as_text) {
        return Ok(poison([text].into_iter()));
    }
    let first = arguments.get(0)?;
    if let Value::List(_) = &first.value {
        let mut entries: Vec<Item> = Vec::new();
        for at in 0..arguments.len() {
            for entry in arguments.list(at)? {
                if position(&entries, &entry.value, context)?.is_none() {
                    entries.push(entry.clone());
                }
            }
        }
        return Ok(Value::list(entries));
    }
    let mut merged = first.clone();
    for (item, at) in arguments.all().iter().zip(0..) {
        if !matches!(item.value, Value::Object(_)) {
            return Err(arguments.wrong(at, "an object, like the others,"));
        }
        merged = merge(&merged, item, true, context)?;
    }
    Ok(merged.value)
}

fn shallow_merge(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let mut merged = Item::new(Value::object(Vec::new()));
    for item in arguments.list(0)? {
        merged = merge(&merged, item, false, context)?;
    }
    Ok(merged.value)
}

/// Members of both; where both have one, the second's, and of two objects their union.
fn merge(one: &Item, other: &Item, deep: bool, context: &Context<'_>) -> Result<Item, Fault> {
    let _level = context.deeper()?;
    let mut members = one.members().to_vec();
    for member in other.members() {
        context.spend(1 + members.len())?;
        let known = members.iter_mut().find(|m| m.name.eq_ignore_ascii_case(&member.name));
        match known {
            None => members.push(member.clone()),
            Some(known) => {
                let both =
                    [&known.item, &member.item].map(|it| matches!(it.value, Value::Object(_)));
                known.item = if deep && both == [true, true] {
                    merge(&known.item, &member.item, true, context)?
                } else {
                    member.item.clone()
                };
            }
        }
    }
    Ok(Item::new(Value::object(members)))
}

fn intersection(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let mut value = arguments.get(0)?.value.clone();
    for at in 1..arguments.len() {
        let other = arguments.get(at)?;
        value = match (&value, &other.value) {
            (Value::List(one), Value::List(two)) => {
                let mut kept = Vec::new();
                for entry in one.iter() {
                    if position(two, &entry.value, context)?.is_some() {
                        kept.push(entry.clone());
                    }
                }
                Value::list(kept)
            }
            (Value::Object(one), Value::Object(two)) => {
                let mut kept = Vec::new();
                for member in one.iter() {
                    context.spend(1 + two.len())?;
                    let Some(item) = other.get(&member.name) else { continue };
                    if item.value.same(&member.item.value, context)? {
                        kept.push(member.clone());
                    }
                }
                Value::object(kept)
            }
            _ => return Err(arguments.wrong(at, "an array or an object, like the others,")),
        };
    }
    Ok(value)
}

fn flatten(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let mut entries = Vec::new();
    for item in arguments.list(0)? {
        context.spend(1 + item.entries().len())?;
        match &item.value {
            Value::List(inside) => entries.extend(inside.iter().cloned()),
            _ => entries.push(item.clone()),
        }
    }
    Ok(Value::list(entries))
}

fn items(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let mut members: Vec<_> = arguments.get(0)?.members().iter().collect();
    members.sort_by_key(|m| m.name.to_lowercase());
    let items = members.into_iter().map(|m| {
        let pair =
            vec![Member::new("key", Item::text(&m.name)), Member::new("value", m.item.clone())];
        Item::new(Value::object(pair))
    });
    Ok(Value::list(items.collect()))
}

fn object_keys(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let mut names: Vec<_> = arguments.get(0)?.members().iter().map(|m| &*m.name).collect();
    names.sort_by_key(|name| name.to_lowercase());
    Ok(Value::list(names.into_iter().map(Item::text).collect()))
}

fn try_get(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let mut item = arguments.get(0)?.clone();
    for at in 1..arguments.len() {
        context.spend(1 + item.members().len())?;
        let found = match &arguments.get(at)?.value {
            Value::Int(at) => {
                usize::try_from(*at).ok().and_then(|at| item.entries().get(at)).cloned()
            }
            Value::Text(name) => item.get(name).cloned(),
            _ => None,
        };
        let Some(found) = found else { return Ok(Value::Null) };
        item = found;
    }
    Ok(item.value)
}

fn least(arguments: &Arguments<'_>, wins: fn(i64, i64) -> bool) -> Answer {
    let listed = match &arguments.get(0)?.value {
        Value::List(entries) => entries,
        _ => arguments.all(),
    };
    let numbers = Arguments { function: arguments.function, values: listed };
    let mut found = numbers.int(0)?;
    for at in 1..numbers.len() {
        let number = numbers.int(at)?;
        if wins(number, found) {
            found = number;
        }
    }
    Ok(Value::Int(found))
}
