//! Functions that make resource ids. Subscription and resource group are known only to Azure, so ids have holes there;
//! what is read of an id here is its end.

use super::{Arguments, Function};
use crate::config::import::context::{Context, Fault};
use crate::config::import::item::Value;

type Answer = Result<Value, Fault>;

pub(super) const TABLE: &[(&str, Function)] = &[
    ("resourceid", resource_id),
    ("subscriptionresourceid", |arguments, context| {
        let (scopes, rest) = typed(arguments, 0)?;
        let subscription = scopes.into_iter().next().unwrap_or_else(|| subscription(context));
        Ok(Value::text(&format!("/subscriptions/{subscription}{rest}")))
    }),
    ("tenantresourceid", |arguments, _| Ok(Value::text(&typed(arguments, 0)?.1))),
    ("managementgroupresourceid", |arguments, _| Ok(Value::text(&typed(arguments, 0)?.1))),
    ("extensionresourceid", |arguments, _| {
        let (_, rest) = typed(arguments, 1)?;
        Ok(Value::text(&format!("{}{rest}", arguments.text(0)?)))
    }),
];

fn resource_id(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    let (scopes, rest) = typed(arguments, 0)?;
    let mut scopes = scopes.into_iter().rev();
    let group = scopes.next().unwrap_or_else(|| part(context, "resourceGroup", "name"));
    let subscription = scopes.next().unwrap_or_else(|| subscription(context));
    Ok(Value::text(&format!("/subscriptions/{subscription}/resourceGroups/{group}{rest}")))
}

fn subscription(context: &Context<'_>) -> String {
    part(context, "subscription", "subscriptionId")
}

/// A part of what only Azure knows, or the hole for it.
fn part(context: &Context<'_>, of: &str, part: &str) -> String {
    let why = || format!("the {of} of the deployment");
    let found = context.ask(&format!("{of}.{part}"), why);
    found.as_text().unwrap_or_default().to_owned()
}

/// What stands before the type, and `/providers/…` with the type's segments and the names between each other. A slash at
/// the type's end is common, and does no harm.
fn typed(arguments: &Arguments<'_>, from: usize) -> Result<(Vec<String>, String), Fault> {
    let mut scopes = Vec::new();
    let mut at = from;
    let kind = loop {
        let text = arguments.text(at)?;
        at += 1;
        if text.contains('/') {
            break text;
        }
        scopes.push(text);
    };
    let mut segments = kind.trim_matches('/').split('/');
    let mut id = format!("/providers/{}", segments.next().unwrap_or_default());
    let mut names = Vec::new();
    for at in at..arguments.len() {
        let text = arguments.text(at)?;
        names.extend(text.split('/').map(str::to_owned));
    }
    let segments: Vec<&str> = segments.collect();
    if segments.len() != names.len() {
        return Err(Fault::new(
            format!("resourceId has {} names for the type {kind:.120?}", names.len()),
            "give one name for each segment of the type behind its first",
        ));
    }
    for (segment, name) in segments.iter().zip(names) {
        id.extend(["/", segment, "/", &name]);
    }
    Ok((scopes, id))
}
