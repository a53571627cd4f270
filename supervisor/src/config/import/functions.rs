//! Template functions of nothing but their arguments' values, by name; and what they are given.

use super::context::{Context, Fault};
use super::item::{Item, Value};

mod encode;
mod list;
mod logic;
mod resource;
mod text;

/// A function's arguments.
pub(super) struct Arguments<'a> {
    function: &'a str,
    values: &'a [Item],
}

type Function = fn(&Arguments<'_>, &Context<'_>) -> Result<Value, Fault>;

const TABLES: [&[(&str, Function)]; 5] =
    [encode::TABLE, list::TABLE, logic::TABLE, resource::TABLE, text::TABLE];

/// Those that put texts together or look at them whole: a hole in an argument stays a hole in the result.
const COPE: &[&str] = &[
    "concat",
    "format",
    "tolower",
    "toupper",
    "trim",
    "split",
    "replace",
    "string",
    "join",
    "createarray",
    "createobject",
    "array",
    "union",
    "uniquestring",
    "guid",
    "uri",
    "equals",
    "contains",
    "resourceid",
    "subscriptionresourceid",
    "tenantresourceid",
    "extensionresourceid",
    "managementgroupresourceid",
];

fn find(name: &str) -> Option<Function> {
    TABLES.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == name).map(|it| it.1)
}

pub(super) fn is_known(name: &str) -> bool {
    find(name).is_some()
}

pub(super) fn copes_with_holes(name: &str) -> bool {
    COPE.contains(&name)
}

/// Calls a function by its name in lower case.
pub(super) fn call(name: &str, values: &[Item], context: &Context<'_>) -> Result<Value, Fault> {
    let Some(function) = find(name) else {
        return Err(Fault::new(
            format!("the function {name:.60} is not known here"),
            "write out what it stands for, or give the value around it",
        ));
    };
    let found = function(&Arguments { function: name, values }, context)?;
    let size = match &found {
        Value::Text(text) => text.len() / 16,
        Value::List(entries) => entries.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    context.spend(size)?;
    Ok(found)
}

// === impl Arguments ===

impl<'a> Arguments<'a> {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn all(&self) -> &'a [Item] {
        self.values
    }

    pub(super) fn get(&self, at: usize) -> Result<&'a Item, Fault> {
        self.values.get(at).ok_or_else(|| {
            Fault::new(
                format!("{} needs more arguments than {}", self.function, self.values.len()),
                "see Azure's reference of template functions",
            )
        })
    }

    pub(super) fn wrong(&self, at: usize, wanted: &str) -> Fault {
        let found = self.values.get(at).map_or("nothing", |item| item.value.kind());
        Fault::new(
            format!("{} needs {wanted} as argument {}, but has {found}", self.function, at + 1),
            "see Azure's reference of template functions",
        )
    }

    /// A text; numbers and booleans count as their spelling.
    pub(super) fn text(&self, at: usize) -> Result<String, Fault> {
        plain_text(self.get(at)?).ok_or_else(|| self.wrong(at, "a string"))
    }

    pub(super) fn int(&self, at: usize) -> Result<i64, Fault> {
        let number = match &self.get(at)?.value {
            Value::Int(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.wrong(at, "a whole number"))
    }

    pub(super) fn list(&self, at: usize) -> Result<&'a [Item], Fault> {
        match &self.get(at)?.value {
            Value::List(entries) => Ok(entries),
            _ => Err(self.wrong(at, "an array")),
        }
    }

    /// A count that may be negative or huge as one that fits.
    pub(super) fn count(&self, at: usize) -> Result<usize, Fault> {
        Ok(usize::try_from(self.int(at)?.max(0)).unwrap_or(usize::MAX))
    }
}

/// A value that is a text or has a plain spelling.
pub(super) fn plain_text(item: &Item) -> Option<String> {
    match &item.value {
        Value::Text(text) | Value::Number(text) => Some(text.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
