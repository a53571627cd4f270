//! Walks a template for application gateways: through loops, conditions and nested deployments. Other resources are
//! looked at only as far as a gateway depends on them.

use super::context::{Context, Fault};
use super::evaluate::Env;
use super::item::{Item, Member, Value, text_of};
use super::loops::{Frame, FrameKind, Loop};
use super::scope::{Argument, Resource, Scope, member, members, resources, text};
use crate::config::json::{Node, Value as Json};

const GATEWAY: &str = "Microsoft.Network/applicationGateways";
const DEPLOYMENT: &str = "Microsoft.Resources/deployments";
const PUBLIC_ADDRESS: &str = "Microsoft.Network/publicIPAddresses";

/// Members of a resource that say how to deploy it, not what it is.
const OF_DEPLOYMENT: [&str; 5] = ["copy", "condition", "dependsOn", "comments", "resources"];

/// What a template holds for us.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Gateways, evaluated.
    pub(super) gateways: Vec<Item>,
    /// Names of public addresses of IPv6, in lower case.
    pub(super) six: Vec<String>,
    /// What is beside them that somebody may expect an effect of: line, what, and why it has none.
    pub(super) beside: Vec<(u32, u32, String, String)>,
    /// Linked templates that were not read: where they are named, and why.
    pub(super) unread: Vec<((u32, u32), Fault)>,
}

/// A deployment inside of a template.
enum Nested<'a> {
    /// With declarations of its own.
    Inner(&'a Scope<'a>, &'a Node),
    /// Its expressions mean what is around it.
    Outer(&'a Node),
    /// It has no template, or one that cannot be read.
    Without(Fault),
}

impl Context<'_> {
    /// Adds what a template's resources hold.
    pub(super) fn walk(&self, env: Env<'_>, listed: &[Resource<'_>], found: &mut Found) {
        let Ok(_level) = self.deeper() else { return };
        for resource in listed {
            let node = resource.node;
            if member(node, "existing").is_some_and(|it| it.value == Json::Bool(true)) {
                continue;
            }
            match member(node, "copy").filter(|it| matches!(it.value, Json::Object(_))) {
                Some(copy) => self.walk_loop(env, copy, resource, found),
                None => self.walk_one(env, resource, found),
            }
        }
    }

    fn walk_loop(&self, env: Env<'_>, copy: &Node, resource: &Resource<'_>, found: &mut Found) {
        let Some(it) = Loop::read(copy) else { return self.walk_one(env, resource, found) };
        let count = self.expand(env, it.count);
        let rounds = match it.rounds(&count) {
            Ok(rounds) => rounds,
            // A gateway that cannot be counted is a gateway still.
            Err(fault) if resource.is(GATEWAY) || self.holds_gateway(resource.node) => {
                let hole = if count.has_hole() { count } else { self.broken(fault) };
                found.gateways.push(hole.at(copy.line, copy.column));
                return;
            }
            Err(_) => return,
        };
        for index in 0..rounds {
            let kind = FrameKind::Round { name: it.name.to_owned(), index, of_resource: true };
            let frame = Frame { kind, outer: env.frame };
            self.walk_one(Env { scope: env.scope, frame: Some(&frame) }, resource, found);
            if self.spend(1 + members(resource.node).len()).is_err() {
                return;
            }
        }
    }

    /// Whether a gateway stands anywhere in a deployment.
    fn holds_gateway(&self, node: &Node) -> bool {
        if self.spend(1).is_err() {
            return false;
        }
        match &node.value {
            Json::List(entries) => entries.iter().any(|entry| self.holds_gateway(entry)),
            Json::Object(members) => members.iter().any(|m| {
                let kind = text(&m.value).map(|kind| kind.trim_end_matches('/'));
                (m.name.eq_ignore_ascii_case("type")
                    && kind.is_some_and(|kind| kind.eq_ignore_ascii_case(GATEWAY)))
                    || self.holds_gateway(&m.value)
            }),
            _ => false,
        }
    }

    fn walk_one(&self, env: Env<'_>, resource: &Resource<'_>, found: &mut Found) {
        let node = resource.node;
        if let Some(condition) = member(node, "condition") {
            let condition = self.expand(env, condition);
            let word = condition.as_text().is_some_and(|it| it.eq_ignore_ascii_case("false"));
            if word || matches!(condition.value, Value::Bool(false)) {
                return;
            }
        }
        if resource.is(GATEWAY) {
            found.gateways.push(self.resource(env, node));
        } else if resource.is(DEPLOYMENT) {
            return self.walk_deployment(env, node, found);
        } else if resource.is(PUBLIC_ADDRESS) {
            self.public_address(env, node, found);
        } else {
            beside(resource, found);
        }
        if let Some(inside) = member(node, "resources") {
            self.walk(env, &resources(inside), found);
        }
    }

    fn walk_deployment(&self, env: Env<'_>, node: &Node, found: &mut Found) {
        let known = (found.gateways.len(), found.beside.len(), found.unread.len());
        self.nested(env, node, |nested| match nested {
            Nested::Inner(scope, _) => self.walk(Env::new(scope), &scope.resources, found),
            Nested::Outer(template) => {
                let listed = member(template, "resources").map_or_else(Vec::new, resources);
                self.walk(env, &listed, found);
            }
            Nested::Without(fault) => {
                let what = format!("a deployment whose template was not read ({})", fault.reason);
                found.beside.push((node.line, node.column, what, fault.mend.clone()));
                found.unread.push(((node.line, node.column), fault));
            }
        });
        // Another file's lines say nothing here: what comes from there stands where it is named.
        let place = (node.line, node.column);
        for gateway in found.gateways.iter_mut().skip(known.0).filter(|it| it.line == 0) {
            (gateway.line, gateway.column) = place;
        }
        for (line, column, ..) in found.beside.iter_mut().skip(known.1).filter(|it| it.0 == 0) {
            (*line, *column) = place;
        }
        for (at, _) in found.unread.iter_mut().skip(known.2).filter(|(at, _)| at.0 == 0) {
            *at = place;
        }
    }

    /// A resource, evaluated.
    pub(super) fn resource(&self, env: Env<'_>, node: &Node) -> Item {
        let kept = members(node)
            .iter()
            .filter(|m| !OF_DEPLOYMENT.iter().any(|name| name.eq_ignore_ascii_case(&m.name)));
        let kept =
            kept.map(|m| Member { name: text_of(&m.name), item: self.expand(env, &m.value) });
        Item::new(Value::object(kept.collect())).at(node.line, node.column)
    }

    fn public_address(&self, env: Env<'_>, node: &Node, found: &mut Found) {
        let version = member(node, "properties")
            .and_then(|properties| member(properties, "publicIPAddressVersion"))
            .map(|version| self.expand(env, version));
        if !version.is_some_and(|it| it.as_text().is_some_and(|it| it.eq_ignore_ascii_case("IPv6")))
        {
            return;
        }
        if let Some(name) = member(node, "name").map(|name| self.expand(env, name))
            && let Some(name) = name.as_text()
        {
            found.six.push(name.to_ascii_lowercase());
        }
    }

    /// Does something with a deployment's template.
    fn nested<R>(&self, env: Env<'_>, node: &Node, then: impl FnOnce(Nested<'_>) -> R) -> R {
        let without =
            |reason: &str| Fault::new(reason, "import that template too, if it has a gateway");
        let Some(properties) = member(node, "properties") else {
            return then(Nested::Without(without("it has no properties")));
        };
        let name = member(node, "name").map(|name| self.expand(env, name));
        let name = name.as_ref().and_then(Item::as_text).map(|name| self.shown(name));
        let name = format!("{}{}", env.scope.prefix, name.unwrap_or_default());
        let own = member(properties, "template");
        let scope = member(properties, "expressionEvaluationOptions")
            .and_then(|options| member(options, "scope"))
            .and_then(text);
        let is_inner = scope.is_some_and(|scope| scope.eq_ignore_ascii_case("inner"));
        if let Some(template) = own.filter(|_| !is_inner) {
            return then(Nested::Outer(template));
        }
        let linked = match (own, member(properties, "templateLink")) {
            (Some(_), _) => None,
            (None, Some(link)) => match self.linked(env, link, &name) {
                Ok(linked) => Some(linked),
                Err(fault) => return then(Nested::Without(fault)),
            },
            (None, None) => return then(Nested::Without(without("it has none"))),
        };
        let Some(template) = own.or(linked.as_ref().map(|(node, _)| &**node)) else {
            return then(Nested::Without(without("it has none")));
        };
        let declared = ["parameters", "variables", "resources"]
            .map(|name| member(template, name).map_or(0, |it| members(it).len()));
        if let Err(fault) = self.spend(declared.iter().sum()) {
            return then(Nested::Without(fault));
        }
        let given = self.arguments(env, properties, &name);
        let prefix = format!("{name}.");
        let mut scope =
            Scope::new(template, prefix, |wanted| given.as_ref()?.get(wanted).map(Argument::read));
        scope.home =
            linked.as_ref().map_or_else(|| env.scope.home.clone(), |it| Some(it.1.clone()));
        then(Nested::Inner(&scope, template))
    }

    /// The parameters that a deployment is given, in itself or in a file that it names.
    fn arguments(&self, env: Env<'_>, properties: &Node, name: &str) -> Option<Item> {
        if let Some(given) = member(properties, "parameters") {
            return Some(self.expand(env, given));
        }
        let link = member(properties, "parametersLink")?;
        // Where it cannot be read, each parameter is asked for by its name.
        let (file, _) = self.linked(env, link, &format!("{name}.parameters")).ok()?;
        Some(Item::literal(member(&file, "parameters").unwrap_or(&file)))
    }

    /// What `reference` means where it leads to a deployment in the same template.
    pub(super) fn outputs(&self, env: Env<'_>, target: &str) -> Option<Item> {
        let name = target.rsplit('/').next().unwrap_or(target);
        let is_id = target.contains('/');
        let marked = target.to_ascii_lowercase().contains("microsoft.resources/deployments");
        self.spend(env.scope.resources.len()).ok()?;
        let _level = self.deeper().ok()?;
        // It stands beside the loop from which it is asked, not in it.
        let env = Env::new(env.scope);
        let mut deployments = env.scope.resources.iter().zip(0..);
        let (found, at) = deployments.find(|(resource, _)| {
            let by_name = || {
                let own = resource.name.map(|it| self.expand(env, it));
                own.is_some_and(|own| own.as_text().is_some_and(|it| it.eq_ignore_ascii_case(name)))
            };
            resource.is(DEPLOYMENT)
                && (resource.has_symbol(target) || ((marked || !is_id) && by_name()))
        })?;
        env.scope.output(at, || {
            self.nested(env, found.node, |nested| match nested {
                Nested::Inner(scope, template) => Some(self.put_out(Env::new(scope), template)),
                Nested::Outer(template) => Some(self.put_out(env, template)),
                Nested::Without(_) => None,
            })
        })
    }

    fn put_out(&self, env: Env<'_>, template: &Node) -> Item {
        let outputs = member(template, "outputs").map_or(&[][..], members);
        let outputs = outputs.iter().map(|output| {
            let value = member(&output.value, "value").map(|it| self.expand(env, it));
            let value = value.unwrap_or_else(|| Item::new(Value::Null));
            let value = Value::object(vec![Member::new("value", value)]);
            Member::new(&output.name, Item::new(value))
        });
        let outputs = Item::new(Value::object(outputs.collect()));
        Item::new(Value::object(vec![Member::new("outputs", outputs)]))
    }

    /// How a resource is asked for: by type and name, `sites/shop`.
    pub(super) fn resource_name(&self, env: Env<'_>, target: &str) -> String {
        let named = env.scope.resources.iter().find(|resource| resource.has_symbol(target));
        if let Some(resource) = named {
            let name = resource.name.map(|name| self.expand(env, name));
            let name = name.as_ref().and_then(Item::as_text).map(|name| self.shown(name));
            let kind = resource.kind.rsplit('/').next().unwrap_or_default();
            return format!("{kind}/{}", name.as_deref().unwrap_or(target));
        }
        let shown = self.shown(target);
        let mut parts = shown.rsplit('/').filter(|part| !part.is_empty());
        match (parts.next(), parts.next()) {
            (Some(name), Some(kind)) => format!("{kind}/{name}"),
            _ => shown,
        }
    }
}

/// Notes resources that somebody may expect an effect of.
fn beside(resource: &Resource<'_>, found: &mut Found) {
    let kind = resource.kind.to_ascii_lowercase();
    let why = if kind.ends_with("/diagnosticsettings") {
        "logs and metrics are Holdfast's own"
    } else if kind.ends_with("/applicationgatewaywebapplicationfirewallpolicies") {
        "requests are NOT inspected by a WAF"
    } else if kind.ends_with("/autoscalesettings") {
        "one machine serves"
    } else {
        return;
    };
    let Resource { node, kind, .. } = resource;
    found.beside.push((node.line, node.column, (*kind).to_owned(), why.to_owned()));
}
