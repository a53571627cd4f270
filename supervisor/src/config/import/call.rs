//! Calls: the functions that need more than their arguments' values (a template's declarations, a loop's round, a branch
//! that must not be evaluated), and the way to those that do not.

use super::context::{Context, Fault, poison};
use super::evaluate::Env;
use super::functions;
use super::item::{Item, Member, Value};
use super::loops::{Frame, FrameKind};
use super::parser::Expression;

/// What only Azure knows, and what it is.
const LIVE: [(&str, &str); 9] = [
    ("resourcegroup", "the resource group of the deployment"),
    ("subscription", "the subscription of the deployment"),
    ("deployment", "the deployment itself"),
    ("tenant", "the tenant of the deployment"),
    ("managementgroup", "the management group of the deployment"),
    ("environment", "the Azure cloud of the deployment"),
    ("utcnow", "the time of the deployment"),
    ("newguid", "an id made at the deployment"),
    ("deployer", "who deploys"),
];
/// Their names as `--set` has them.
const LIVE_NAMES: [&str; 9] = [
    "resourceGroup",
    "subscription",
    "deployment",
    "tenant",
    "managementGroup",
    "environment",
    "utcNow",
    "newGuid",
    "deployer",
];

impl Context<'_> {
    pub(super) fn call(
        &self,
        env: Env<'_>,
        name: &str,
        arguments: &[Expression],
    ) -> Result<Item, Fault> {
        let name = name.strip_prefix("sys.").or_else(|| name.strip_prefix("az.")).unwrap_or(name);
        let live = LIVE.iter().zip(LIVE_NAMES).find(|((live, _), _)| *live == name);
        if let Some(((_, why), asked)) = live {
            return Ok(self.ask(asked, || (*why).to_owned()));
        }
        match name {
            "parameters" => {
                let wanted = self.name(env, name, arguments)?;
                let own = Env::new(env.scope);
                env.scope.parameter(&wanted, self, |node| self.expand(own, node))
            }
            "variables" => {
                let wanted = self.name(env, name, arguments)?;
                let own = Env::new(env.scope);
                env.scope.variable(&wanted, self, |source| self.expand_source(own, source))
            }
            "if" | "and" | "or" | "coalesce" => self.branch(env, name, arguments),
            "copyindex" => self.copy_index(env, arguments),
            "map" | "filter" | "reduce" | "toobject" => self.each(env, name, arguments),
            "lambdavariables" => {
                let wanted = self.name(env, name, arguments)?;
                let found = env.frame.and_then(|frame| frame.variable(&wanted));
                found.ok_or_else(|| {
                    Fault::new(format!("no lambda has a variable {wanted:?}"), "correct its name")
                })
            }
            "reference" => self.live(env, "", arguments),
            _ if name.starts_with("list") && !functions::is_known(name) => {
                self.live(env, name, arguments)
            }
            _ => self.plain(env, name, arguments),
        }
    }

    /// A function of nothing but its arguments' values.
    fn plain(&self, env: Env<'_>, name: &str, arguments: &[Expression]) -> Result<Item, Fault> {
        let values = self.values(env, arguments)?;
        if let Some((scope, body)) = env.scope.function(name, &values) {
            // Its scope is made anew each time.
            self.spend(10)?;
            return Ok(self.expand(Env::new(&scope), body));
        }
        let texts = || values.iter().filter_map(Item::as_text);
        let has_holes = values.iter().any(Item::has_hole);
        if has_holes && functions::is_known(name) && !functions::copes_with_holes(name) {
            return Ok(Item::new(poison(texts())));
        }
        let found = functions::call(name, &values, self)?;
        if let Value::Text(text) = &found
            && texts().any(|text| self.is_made(text))
            && !self.is_made(text)
        {
            self.makes(text);
        }
        Ok(Item::new(found))
    }

    fn values(&self, env: Env<'_>, arguments: &[Expression]) -> Result<Vec<Item>, Fault> {
        arguments.iter().map(|argument| self.evaluate(env, argument)).collect()
    }

    /// The only argument, a name.
    fn name(
        &self,
        env: Env<'_>,
        function: &str,
        arguments: &[Expression],
    ) -> Result<String, Fault> {
        let [argument] = arguments else { return Err(wrong_count(function, "one argument")) };
        match self.evaluate(env, argument)?.value {
            Value::Text(text) => Ok(text.to_string()),
            other => Err(Fault::new(
                format!("{function} needs a name, but has {}", other.kind()),
                format!("write {function}('NAME')"),
            )),
        }
    }

    /// Functions that evaluate only what they need.
    fn branch(&self, env: Env<'_>, name: &str, arguments: &[Expression]) -> Result<Item, Fault> {
        if name == "coalesce" {
            for argument in arguments {
                let value = self.evaluate(env, argument)?;
                if !matches!(value.value, Value::Null) {
                    return Ok(value);
                }
            }
            return Ok(Item::new(Value::Null));
        }
        if name == "if" {
            let [condition, then, otherwise] = arguments else {
                return Err(wrong_count(name, "three arguments"));
            };
            return match self.truth(env, name, condition)? {
                Ok(true) => self.evaluate(env, then),
                Ok(false) => self.evaluate(env, otherwise),
                Err(unknown) => Ok(unknown),
            };
        }
        let mut unknown = None;
        for argument in arguments {
            match self.truth(env, name, argument)? {
                Ok(value) if value == (name == "or") => return Ok(Item::new(Value::Bool(value))),
                Ok(_) => {}
                Err(hole) => unknown = Some(hole),
            }
        }
        Ok(unknown.unwrap_or_else(|| Item::new(Value::Bool(name == "and"))))
    }

    /// Whether an argument is true. `Err`: that is not known.
    fn truth(
        &self,
        env: Env<'_>,
        name: &str,
        argument: &Expression,
    ) -> Result<Result<bool, Item>, Fault> {
        let found = self.evaluate(env, argument)?;
        match &found.value {
            Value::Bool(value) => Ok(Ok(*value)),
            Value::Text(text) if found.has_hole() => {
                Ok(Err(Item::new(poison([&**text].into_iter()))))
            }
            Value::Text(text) if text.eq_ignore_ascii_case("true") => Ok(Ok(true)),
            Value::Text(text) if text.eq_ignore_ascii_case("false") => Ok(Ok(false)),
            Value::Int(number) => Ok(Ok(*number != 0)),
            other => Err(Fault::new(
                format!("{name} needs true or false, but has {}", other.kind()),
                "compare the value with something: equals(…, …)",
            )),
        }
    }

    /// `copyIndex()`, `copyIndex(offset)`, `copyIndex('loop')`, `copyIndex('loop', offset)`.
    fn copy_index(&self, env: Env<'_>, arguments: &[Expression]) -> Result<Item, Fault> {
        let mut wanted = None;
        let mut offset = 0;
        for value in self.values(env, arguments)? {
            match &value.value {
                Value::Text(text) if value.has_hole() => {
                    return Ok(Item::new(poison([&**text].into_iter())));
                }
                Value::Text(text) => wanted = Some(text.to_string()),
                Value::Int(number) => offset = *number,
                other => {
                    return Err(Fault::new(
                        format!("copyIndex has {} as an argument", other.kind()),
                        "write copyIndex('LOOP', OFFSET)",
                    ));
                }
            }
        }
        let round = env.frame.and_then(|frame| frame.round(wanted.as_deref()));
        let round = round.and_then(|round| round.checked_add(offset));
        round.map(|round| Item::new(Value::Int(round))).ok_or_else(|| {
            let which = wanted.map(|name| format!(" {name:?}")).unwrap_or_default();
            Fault::new(
                format!("copyIndex stands in no loop{which}"),
                "use it inside of a copy loop, with the loop's name",
            )
        })
    }

    /// Functions that take a lambda.
    fn each(&self, env: Env<'_>, name: &str, arguments: &[Expression]) -> Result<Item, Fault> {
        let Some((first, rest)) = arguments.split_first() else {
            return Err(wrong_count(name, "an array and a lambda"));
        };
        let list = self.evaluate(env, first)?;
        if let Some(text) = list.as_text().filter(|_| list.has_hole()) {
            return Ok(Item::new(poison([text].into_iter())));
        }
        let Value::List(entries) = &list.value else {
            return Err(Fault::new(
                format!("{name} needs an array, but has {}", list.value.kind()),
                "give it one",
            ));
        };
        match (name, rest) {
            ("reduce", [start, lambda]) => {
                let mut sum = self.evaluate(env, start)?;
                for entry in entries.iter() {
                    sum = self.apply(env, lambda, &[sum, entry.clone()])?;
                }
                Ok(sum)
            }
            ("map", [lambda]) => {
                let made = entries.iter().zip(0..).map(|(entry, at)| {
                    self.apply(env, lambda, &[entry.clone(), Item::new(Value::Int(at))])
                });
                Ok(Item::new(Value::list(made.collect::<Result<_, _>>()?)))
            }
            ("filter", [lambda]) => {
                let mut kept = Vec::new();
                for (entry, at) in entries.iter().zip(0..) {
                    let index = Item::new(Value::Int(at));
                    let keep = self.apply(env, lambda, &[entry.clone(), index])?;
                    match &keep.value {
                        Value::Bool(true) => kept.push(entry.clone()),
                        Value::Text(text) if keep.has_hole() => {
                            return Ok(Item::new(poison([&**text].into_iter())));
                        }
                        _ => {}
                    }
                }
                Ok(Item::new(Value::list(kept)))
            }
            ("toobject", [key, more @ ..]) => {
                let mut members = Vec::new();
                for entry in entries.iter() {
                    let key = self.apply(env, key, std::slice::from_ref(entry))?;
                    let value = match more.first() {
                        Some(lambda) => self.apply(env, lambda, std::slice::from_ref(entry))?,
                        None => entry.clone(),
                    };
                    members.push(Member::new(key.as_text().unwrap_or_default(), value));
                }
                Ok(Item::new(Value::object(members)))
            }
            _ => Err(wrong_count(name, "an array and a lambda")),
        }
    }

    fn apply(&self, env: Env<'_>, lambda: &Expression, values: &[Item]) -> Result<Item, Fault> {
        match lambda {
            Expression::Call(name, parts) if name == "lambda" => match parts.split_last() {
                Some((body, names)) => self.bind(env, names, values, body),
                None => Err(wrong_count(name, "a variable and a body")),
            },
            _ => Err(Fault::new("a lambda is missing", "write lambda('x', …)")),
        }
    }

    /// Evaluates a body with variables; values without a name are of no use to it.
    fn bind(
        &self,
        env: Env<'_>,
        names: &[Expression],
        values: &[Item],
        body: &Expression,
    ) -> Result<Item, Fault> {
        let (Some((name, names)), Some((value, values))) =
            (names.split_first(), values.split_first())
        else {
            return self.evaluate(env, body);
        };
        let Expression::Text(name) = name else {
            return Err(Fault::new("a lambda's variable is no name", "write lambda('x', …)"));
        };
        let _level = self.deeper()?;
        let kind = FrameKind::Lambda { name: name.clone(), value: value.clone() };
        let frame = Frame { kind, outer: env.frame };
        self.bind(Env { scope: env.scope, frame: Some(&frame) }, names, values, body)
    }

    /// `reference(…)` and `list…(…)`: another resource's state.
    fn live(&self, env: Env<'_>, list: &str, arguments: &[Expression]) -> Result<Item, Fault> {
        let Some(target) = arguments.first() else {
            return Err(wrong_count("reference", "a resource"));
        };
        let target = self.evaluate(env, target)?;
        let Some(text) = target.as_text() else {
            return Err(Fault::new(
                format!("reference needs a resource's id, but has {}", target.value.kind()),
                "write reference(resourceId('TYPE', 'NAME'))",
            ));
        };
        if list.is_empty()
            && let Some(outputs) = self.outputs(env, text)
        {
            return Ok(outputs);
        }
        let name = self.resource_name(env, text);
        if list.is_empty() {
            return Ok(
                self.ask(&name, || format!("state of the resource {name}, which only Azure knows"))
            );
        }
        let asked = format!("{name}.{list}");
        Ok(self.ask(&asked, || format!("keys of the resource {name}, which only Azure knows")))
    }
}

fn wrong_count(function: &str, wanted: &str) -> Fault {
    Fault::new(format!("{function} needs {wanted}"), "see Azure's reference of template functions")
}
