//! What one template declares: its parameters, variables, functions and resources. Each parameter and variable is
//! evaluated at most once; one that needs itself is noticed. Nothing is evaluated before somebody asks for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::context::{Context, Fault};
use super::item::Item;
use super::linked::Home;
use super::loops::Loop;
use crate::config::json::{Member, Node, Value as Json};
use crate::config::spelling;

/// A template's declarations, and where they are looked up.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    /// Before names that are asked for: which deployment they belong to.
    pub(super) prefix: String,
    /// Where the template is, if it is a file.
    pub(super) home: Option<Home>,
    parameters: HashMap<String, Parameter<'a>>,
    variables: HashMap<String, Variable<'a>>,
    functions: Rc<HashMap<String, &'a Node>>,
    pub(super) resources: Vec<Resource<'a>>,
    /// Outputs of deployments among the resources, by position; evaluated once, like variables.
    outputs: RefCell<HashMap<usize, Memo>>,
    /// A resource without its template: whatever it names is asked for.
    is_loose: bool,
}

/// A resource and its symbolic name, where the template has such.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource<'a> {
    pub(super) symbol: Option<&'a str>,
    /// Its type, without a slash at the end.
    pub(super) kind: &'a str,
    pub(super) name: Option<&'a Node>,
    pub(super) node: &'a Node,
}

/// A value given to a parameter.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    Value(Item),
    /// It is somewhere else (a Key Vault), and where.
    Elsewhere(String),
}

#[derive(Debug)]
struct Parameter<'a> {
    name: &'a str,
    definition: &'a Node,
    argument: Option<Argument>,
    memo: RefCell<Memo>,
}

#[derive(Debug)]
struct Variable<'a> {
    source: Source<'a>,
    memo: RefCell<Memo>,
}

/// Where a variable's value comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Node(&'a Node),
    Loop(Loop<'a>),
}

#[derive(Debug, Default)]
enum Memo {
    #[default]
    Fresh,
    Running,
    Done(Item),
}

/// A member of an object node by its name in any case.
pub(super) fn member<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    members(node).iter().find(|m| m.name.eq_ignore_ascii_case(name)).map(|m| &m.value)
}

pub(super) fn members(node: &Node) -> &[Member] {
    match &node.value {
        Json::Object(members) => members,
        _ => &[],
    }
}

pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

// === impl Argument ===

impl Argument {
    /// `{"value": …}` or `{"reference": {"keyVault": …, "secretName": …}}`.
    pub(super) fn read(written: &Item) -> Self {
        if let Some(value) = written.get("value") {
            return Self::Value(value.clone());
        }
        let Some(reference) = written.get("reference") else { return Self::Value(written.clone()) };
        let secret = reference.word("secretName").unwrap_or("?");
        let vault = reference.get("keyVault").and_then(|vault| vault.word("id")).unwrap_or("?");
        let vault = vault.rsplit('/').next().unwrap_or(vault);
        Self::Elsewhere(format!("secret {secret:?} of the Key Vault {vault:?}"))
    }
}

// === impl Scope ===

impl<'a> Scope<'a> {
    /// Of a template; `arguments` by names in lower case.
    pub(super) fn new(
        template: &'a Node,
        prefix: String,
        mut argument: impl FnMut(&str) -> Option<Argument>,
    ) -> Self {
        let mut scope = Self { prefix, ..Self::default() };
        for Member { name, value, .. } in member(template, "parameters").map_or(&[][..], members) {
            let argument = argument(&name.to_ascii_lowercase());
            let parameter =
                Parameter { name, definition: value, argument, memo: RefCell::default() };
            scope.parameters.insert(name.to_ascii_lowercase(), parameter);
        }
        for Member { name, value, .. } in member(template, "variables").map_or(&[][..], members) {
            match Loop::list(name, value) {
                Some(loops) => loops.into_iter().for_each(|it| {
                    scope.add_variable(it.name, Source::Loop(it));
                }),
                None => scope.add_variable(name, Source::Node(value)),
            }
        }
        scope.functions = Rc::new(functions(template));
        scope.resources = member(template, "resources").map_or_else(Vec::new, resources);
        scope
    }

    /// Of a resource that stands alone.
    pub(super) fn loose() -> Self {
        Self { is_loose: true, ..Self::default() }
    }

    /// Of a function's body: its parameters and nothing else.
    fn of_function(&self, function: &'a Node, arguments: &[Item]) -> Self {
        let mut scope = Self { functions: Rc::clone(&self.functions), ..Self::default() };
        let Some(Json::List(listed)) = member(function, "parameters").map(|it| &it.value) else {
            return scope;
        };
        for (definition, argument) in listed.iter().zip(arguments) {
            let Some(name) = member(definition, "name").and_then(text) else { continue };
            let argument = Some(Argument::Value(argument.clone()));
            let memo = RefCell::default();
            let parameter = Parameter { name, definition, argument, memo };
            scope.parameters.insert(name.to_ascii_lowercase(), parameter);
        }
        scope
    }

    fn add_variable(&mut self, name: &str, source: Source<'a>) {
        self.variables
            .insert(name.to_ascii_lowercase(), Variable { source, memo: RefCell::default() });
    }

    /// A function that the template defines: its body and the scope for it.
    pub(super) fn function(&self, name: &str, arguments: &[Item]) -> Option<(Scope<'a>, &'a Node)> {
        let function = self.functions.get(name)?;
        let body = member(function, "output").and_then(|output| member(output, "value"))?;
        Some((self.of_function(function, arguments), body))
    }

    /// A parameter's value; `expand` evaluates its default.
    pub(super) fn parameter(
        &self,
        name: &str,
        context: &Context<'_>,
        expand: impl FnOnce(&'a Node) -> Item,
    ) -> Result<Item, Fault> {
        let Some(parameter) = self.parameters.get(&name.to_ascii_lowercase()) else {
            return self.unknown(
                "parameter",
                name,
                self.parameters.values().map(|p| p.name),
                context,
            );
        };
        remembered(
            &parameter.memo,
            || format!("the parameter {name:?}"),
            || self.argument(parameter, context, expand),
        )
    }

    fn argument(
        &self,
        parameter: &Parameter<'a>,
        context: &Context<'_>,
        expand: impl FnOnce(&'a Node) -> Item,
    ) -> Result<Item, Fault> {
        let asked = format!("{}{}", self.prefix, parameter.name);
        let kind = member(parameter.definition, "type").and_then(text).unwrap_or_default();
        if let Some(given) = context.given.typed(&asked, kind) {
            return given;
        }
        if let Some(Argument::Value(value)) = &parameter.argument {
            return Ok(value.clone());
        }
        if parameter.argument.is_none()
            && let Some(default) = member(parameter.definition, "defaultValue")
        {
            return Ok(expand(default));
        }
        let may_miss = member(parameter.definition, "nullable");
        if parameter.argument.is_none()
            && may_miss.is_some_and(|node| node.value == Json::Bool(true))
        {
            return Ok(Item::new(super::item::Value::Null));
        }
        let why = match &parameter.argument {
            Some(Argument::Elsewhere(place)) => format!("a parameter whose value is {place}"),
            _ if kind.is_empty() => "a parameter without a value".to_owned(),
            _ => format!("a parameter of type {kind} without a value"),
        };
        Ok(context.hole(&asked, || why))
    }

    /// A variable's value; `expand` evaluates it.
    pub(super) fn variable(
        &self,
        name: &str,
        context: &Context<'_>,
        expand: impl FnOnce(Source<'a>) -> Item,
    ) -> Result<Item, Fault> {
        let Some(variable) = self.variables.get(&name.to_ascii_lowercase()) else {
            return self.unknown(
                "variable",
                name,
                self.variables.keys().map(String::as_str),
                context,
            );
        };
        remembered(
            &variable.memo,
            || format!("the variable {name:?}"),
            || Ok(expand(variable.source)),
        )
    }

    /// What a deployment puts out. `None`: it needs its own output, or has none.
    pub(super) fn output(
        &self,
        at: usize,
        evaluate: impl FnOnce() -> Option<Item>,
    ) -> Option<Item> {
        match self.outputs.borrow().get(&at) {
            Some(Memo::Done(item)) => return Some(item.clone()),
            Some(Memo::Running) => return None,
            Some(Memo::Fresh) | None => {}
        }
        self.outputs.borrow_mut().insert(at, Memo::Running);
        let found = evaluate();
        let memo = found.clone().map_or(Memo::Fresh, Memo::Done);
        self.outputs.borrow_mut().insert(at, memo);
        found
    }

    fn unknown<'n>(
        &self,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = &'n str>,
        context: &Context<'_>,
    ) -> Result<Item, Fault> {
        if self.is_loose {
            return Ok(context.ask(name, || format!("a {kind} of the template that is not here")));
        }
        let known = known.take(if context.may_suggest() { 1000 } else { 0 });
        let mend = match spelling::nearest(name, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add it to the template's {kind}s"),
        };
        Err(Fault::new(format!("the template has no {kind} {name:?}"), mend))
    }
}

/// Evaluates once, and notices when that needs its own result.
fn remembered(
    memo: &RefCell<Memo>,
    what: impl Fn() -> String,
    evaluate: impl FnOnce() -> Result<Item, Fault>,
) -> Result<Item, Fault> {
    match &*memo.borrow() {
        Memo::Done(item) => return Ok(item.clone()),
        Memo::Running => {
            let reason = format!("{} is made from itself", what());
            return Err(Fault::new(reason, "break the circle"));
        }
        Memo::Fresh => {}
    }
    memo.replace(Memo::Running);
    let found = evaluate();
    let memory = match &found {
        Ok(item) => Memo::Done(item.clone()),
        Err(_) => Memo::Fresh,
    };
    memo.replace(memory);
    found
}

fn functions(template: &Node) -> HashMap<String, &Node> {
    let mut found = HashMap::new();
    let Some(Json::List(namespaces)) = member(template, "functions").map(|it| &it.value) else {
        return found;
    };
    for namespace in namespaces {
        let Some(prefix) = member(namespace, "namespace").and_then(text) else { continue };
        for Member { name, value, .. } in member(namespace, "members").map_or(&[][..], members) {
            found.insert(format!("{prefix}.{name}").to_ascii_lowercase(), value);
        }
    }
    found
}

// === impl Resource ===

impl<'a> Resource<'a> {
    fn new(symbol: Option<&'a str>, node: &'a Node) -> Self {
        let kind = member(node, "type").and_then(text).unwrap_or_default().trim_end_matches('/');
        Self { symbol, kind, name: member(node, "name"), node }
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }

    pub(super) fn has_symbol(&self, symbol: &str) -> bool {
        self.symbol.is_some_and(|own| own.eq_ignore_ascii_case(symbol))
    }
}

/// Resources in a list, or as an object whose names are symbols.
pub(super) fn resources(node: &Node) -> Vec<Resource<'_>> {
    match &node.value {
        Json::List(entries) => entries.iter().map(|node| Resource::new(None, node)).collect(),
        Json::Object(members) => {
            members.iter().map(|m| Resource::new(Some(&m.name), &m.value)).collect()
        }
        _ => Vec::new(),
    }
}
