//! Functions that compare and reckon.

use std::cmp::Ordering;

use super::{Arguments, Function};
use crate::config::import::context::{Context, Fault, poison};
use crate::config::import::item::{Item, Value};

type Answer = Result<Value, Fault>;

pub(super) const TABLE: &[(&str, Function)] = &[
    ("true", |_, _| Ok(Value::Bool(true))),
    ("false", |_, _| Ok(Value::Bool(false))),
    ("null", |_, _| Ok(Value::Null)),
    ("equals", equals),
    ("not", |a, _| Ok(Value::Bool(!flag(a)?))),
    ("bool", |a, _| Ok(Value::Bool(flag(a)?))),
    ("less", |a, _| compare(a, Ordering::is_lt)),
    ("lessorequals", |a, _| compare(a, Ordering::is_le)),
    ("greater", |a, _| compare(a, Ordering::is_gt)),
    ("greaterorequals", |a, _| compare(a, Ordering::is_ge)),
    ("int", int),
    ("float", |a, _| Ok(Value::number(&a.text(0)?))),
    ("add", |a, _| reckon(a, i64::checked_add)),
    ("sub", |a, _| reckon(a, i64::checked_sub)),
    ("mul", |a, _| reckon(a, i64::checked_mul)),
    ("div", |a, _| reckon(a, i64::checked_div)),
    ("mod", |a, _| reckon(a, i64::checked_rem)),
];

fn equals(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let (one, other) = (arguments.get(0)?, arguments.get(1)?);
    let same = one.value.same(&other.value, context)?;
    if !same && (one.has_hole() || other.has_hole()) {
        return Ok(poison([one, other].into_iter().filter_map(Item::as_text)));
    }
    Ok(Value::Bool(same))
}

fn flag(arguments: &Arguments<'_>) -> Result<bool, Fault> {
    match &arguments.get(0)?.value {
        Value::Bool(value) => Ok(*value),
        Value::Int(number) => Ok(*number != 0),
        Value::Text(text) if text.eq_ignore_ascii_case("true") || &**text == "1" => Ok(true),
        Value::Text(text) if text.eq_ignore_ascii_case("false") || &**text == "0" => Ok(false),
        _ => Err(arguments.wrong(0, "true or false")),
    }
}

fn compare(arguments: &Arguments<'_>, holds: fn(Ordering) -> bool) -> Answer {
    if let (Value::Text(one), Value::Text(other)) =
        (&arguments.get(0)?.value, &arguments.get(1)?.value)
    {
        return Ok(Value::Bool(holds(one.cmp(other))));
    }
    Ok(Value::Bool(holds(arguments.int(0)?.cmp(&arguments.int(1)?))))
}

fn int(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    Ok(Value::Int(arguments.int(0)?))
}

fn reckon(arguments: &Arguments<'_>, how: fn(i64, i64) -> Option<i64>) -> Answer {
    let (one, other) = (arguments.int(0)?, arguments.int(1)?);
    how(one, other).map(Value::Int).ok_or_else(|| {
        Fault::new(
            format!("{} of {one} and {other} is no number", arguments.function),
            "keep the result within 64 bits, and divide by something",
        )
    })
}
