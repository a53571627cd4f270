//! Every function with what Azure says of it, and arguments that it must refuse.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::super::context::Context;
use super::super::evaluate::Env;
use super::super::given::Given;
use super::super::item::Item;
use super::super::scope::Scope;
use crate::config::json;

const TEMPLATE: &str = r#"{
  "parameters": {
    "name": {"type": "string", "defaultValue": "gw"},
    "open": {"type": "string"},
    "count": {"type": "int"},
    "self": {"type": "string", "defaultValue": "[parameters('self')]"}
  },
  "variables": {
    "list": [3, 1, 2], "object": {"one": {"a": 1}, "Two": 2},
    "copy": [{"name": "squares", "count": 3, "input": "[mul(copyIndex('squares'), copyIndex('squares'))]"}],
    "a": "[variables('b')]", "b": "[variables('a')]"
  },
  "functions": [{"namespace": "own", "members": {"twice": {
    "parameters": [{"name": "text", "type": "string"}],
    "output": {"type": "string", "value": "[concat(parameters('text'), parameters('text'))]"}
  }}}],
  "resources": []
}"#;

/// The value as JSON, with holes as `<name>`; a fault as its reason.
fn value(expression: &str) -> Result<serde_json::Value, String> {
    let node = json::parse(TEMPLATE).unwrap();
    let mut given = Given::default();
    given.set("resourceGroup.location", "northpole".to_owned());
    let context = Context::new(&given);
    let scope = Scope::new(&node, String::new(), |_| None);
    let found = super::super::parser::parse(expression)
        .and_then(|read| context.evaluate(Env::new(&scope), &read));
    let found = found.map_err(|fault| fault.reason)?;
    let only = |item: &Item| {
        let (holes, _) = super::super::item::holes(item.as_text().unwrap_or_default());
        holes.first().copied().flatten().and_then(|at| context.asked(at)).and_then(|ask| ask.fault)
    };
    match only(&found) {
        Some(fault) => Err(fault.reason),
        None => Ok(found.to_json(&|text| context.shown(text))),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn functions_do_what_azure_says() {
    for (expression, expected) in [
        ("concat('a', 1, true)", r#""a1True""#),
        ("concat(createArray(1), createArray(2, 3))", "[1,2,3]"),
        ("toLower('Ab')", r#""ab""#),
        ("TOUPPER('Ab')", r#""AB""#),
        ("trim(' a ')", r#""a""#),
        ("substring('lounge', 2)", r#""unge""#),
        ("substring('lounge', 2, 3)", r#""ung""#),
        ("replace('a-b-c', '-', '.')", r#""a.b.c""#),
        ("split('a,b;c', createArray(',', ';'))", r#"["a","b","c"]"#),
        ("join(createArray('a', 1), '-')", r#""a-1""#),
        ("length('abc')", "3"),
        ("length(variables('list'))", "3"),
        ("length(variables('object'))", "2"),
        ("if(equals(1, 1), 'yes', noSuchFunction())", r#""yes""#),
        ("equals(variables('object'), variables('object'))", "true"),
        ("equals('a', 'A')", "false"),
        ("less(1, 2)", "true"),
        ("lessOrEquals(2, 2)", "true"),
        ("greater('b', 'a')", "true"),
        ("greaterOrEquals(1, 2)", "false"),
        ("and(true, false, noSuchFunction())", "false"),
        ("or(false, true, noSuchFunction())", "true"),
        ("not(false)", "true"),
        (r#"json('{"a": [1, null]}').a"#, "[1,null]"),
        ("format('{0}/{1:000}/{{{0}}}', 'x', 7)", r#""x/007/{x}""#),
        ("range(3, 4)", "[3,4,5,6]"),
        ("add(1, sub(9, mul(2, div(9, 2))))", "2"),
        ("mod(9, 4)", "1"),
        ("min(3, 1, 2)", "1"),
        ("max(variables('list'))", "3"),
        ("empty('')", "true"),
        ("empty(null())", "true"),
        ("empty(createObject())", "true"),
        ("createObject('a', 1, 'b', createArray())", r#"{"a":1,"b":[]}"#),
        ("contains('chat', 'ha')", "true"),
        ("contains(variables('list'), 2)", "true"),
        ("contains(variables('object'), 'TWO')", "true"),
        ("first(variables('list'))", "3"),
        ("last('abc')", r#""c""#),
        ("first(createArray())", "null"),
        ("union(createArray(1, 2), createArray(2, 3))", "[1,2,3]"),
        (
            "union(variables('object'), createObject('one', createObject('b', 2)))",
            r#"{"one":{"a":1,"b":2},"Two":2}"#,
        ),
        ("intersection(createArray(1, 2, 3), createArray(3, 2))", "[2,3]"),
        ("take('abc', 2)", r#""ab""#),
        ("take(variables('list'), 9)", "[3,1,2]"),
        ("skip(variables('list'), 1)", "[1,2]"),
        ("skip('abc', 9)", r#""""#),
        ("coalesce(null(), 'b', noSuchFunction())", r#""b""#),
        ("string(createArray(1))", r#""[1]""#),
        ("int('7')", "7"),
        ("bool('True')", "true"),
        ("base64('abc')", r#""YWJj""#),
        ("base64ToString('YWJj')", r#""abc""#),
        ("base64ToJson(base64('[1]'))[0]", "1"),
        ("uri('https://x.test/a/b', 'c.json')", r#""https://x.test/a/c.json""#),
        ("uri('https://x.test/a/', '/c')", r#""https://x.test/a/c""#),
        ("uri('https://x.test', 'c')", r#""https://x.test/c""#),
        ("uriComponentToString(uriComponent('a b/ü'))", r#""a b/ü""#),
        ("startsWith('Chat', 'ch')", "true"),
        ("endsWith('chat', 'AT')", "true"),
        ("indexOf('chat', 'A')", "2"),
        ("lastIndexOf('aba', 'a')", "2"),
        ("padLeft('7', 3, '0')", r#""007""#),
        ("array('a')", r#"["a"]"#),
        ("flatten(createArray(createArray(1), createArray(2)))", "[1,2]"),
        ("items(variables('object'))[1].key", r#""Two""#),
        ("objectKeys(variables('object'))", r#"["one","Two"]"#),
        ("tryGet(variables('object'), 'three', 'x')", "null"),
        ("variables('object').?three.?x", "null"),
        ("variables('object').TWO", "2"),
        ("variables('object')['one'].a", "1"),
        ("variables('squares')", "[0,1,4]"),
        (
            "map(variables('list'), lambda('x', 'i', add(lambdaVariables('x'), lambdaVariables('i'))))",
            "[3,2,4]",
        ),
        ("filter(variables('list'), lambda('x', greater(lambdaVariables('x'), 1)))", "[3,2]"),
        (
            "reduce(variables('list'), 0, lambda('a', 'b', add(lambdaVariables('a'), lambdaVariables('b'))))",
            "6",
        ),
        (
            "toObject(variables('list'), lambda('x', string(lambdaVariables('x'))))",
            r#"{"3":3,"1":1,"2":2}"#,
        ),
        ("own.twice('ab')", r#""abab""#),
        ("sys.concat('a', 'b')", r#""ab""#),
        ("resourceGroup().location", r#""northpole""#),
    ] {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(value(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn ids_have_their_end_whatever_is_known_of_their_beginning() {
    let group = "/subscriptions/<subscription.subscriptionId>/resourceGroups/<resourceGroup.name>";
    let id = "/providers/Microsoft.Network/applicationGateways/gw/probes/p";
    for (expression, expected) in [
        (
            "resourceId('Microsoft.Network/applicationGateways/probes', parameters('name'), 'p')",
            format!("{group}{id}"),
        ),
        (
            "resourceId('Microsoft.Network/applicationGateways/probes/', 'gw', 'p')",
            format!("{group}{id}"),
        ),
        (
            "resourceId('Microsoft.Network/applicationGateways/probes', 'gw/p')",
            format!("{group}{id}"),
        ),
        (
            "resourceId('rg', 'Microsoft.Network/applicationGateways/probes', 'gw', 'p')",
            format!("/subscriptions/<subscription.subscriptionId>/resourceGroups/rg{id}"),
        ),
        (
            "resourceId('s', 'rg', 'Microsoft.Network/applicationGateways/probes', 'gw', 'p')",
            format!("/subscriptions/s/resourceGroups/rg{id}"),
        ),
        ("last(split(resourceId('A.B/c', 'd'), '/'))", "d".to_owned()),
        ("tenantResourceId('A.B/c', 'd')", "/providers/A.B/c/d".to_owned()),
        (
            "subscriptionResourceId('s', 'A.B/c', 'd')",
            "/subscriptions/s/providers/A.B/c/d".to_owned(),
        ),
        ("extensionResourceId('/x', 'A.B/c', 'd')", "/x/providers/A.B/c/d".to_owned()),
        ("concat(parameters('open'), '/x')", "<open>/x".to_owned()),
        ("toUpper(concat(parameters('open'), '-x'))", "<open>-X".to_owned()),
        ("length(concat(parameters('open'), 'abc'))", "<open>".to_owned()),
        ("if(equals(parameters('open'), 'a'), 1, 2)", "<open>".to_owned()),
        ("add(parameters('count'), 1)", "<count>".to_owned()),
        (
            "reference(resourceId('A.B/sites', 'shop')).host[0].name",
            "<sites/shop.host[0].name>".to_owned(),
        ),
        (
            "listKeys(resourceId('A.B/stores', 's'), '1').keys[0]",
            "<stores/s.listkeys.keys[0]>".to_owned(),
        ),
        ("substring(parameters('open'), 0, 1)", "<open>".to_owned()),
        ("split(parameters('open'), '#')[1]", "<open>".to_owned()),
    ] {
        assert_eq!(value(expression), Ok(expected.into()), "{expression}");
    }
    assert_eq!(value("equals(parameters('open'), parameters('open'))"), Ok(true.into()));
}

#[test]
fn what_is_made_up_is_the_same_every_time() {
    let unique = value("uniqueString('a', 'b')").unwrap();
    assert_eq!(value("uniqueString('a', 'b')").unwrap(), unique);
    assert_ne!(value("uniqueString('ab')").unwrap(), unique);
    assert_eq!(unique.as_str().unwrap().len(), 13);
    let guid = value("guid('a')").unwrap();
    assert_eq!(
        guid.as_str().unwrap().split('-').map(str::len).collect::<Vec<_>>(),
        [8, 4, 4, 4, 12]
    );
}

#[test]
fn what_cannot_be_done_says_why() {
    for (expression, reason) in [
        ("noSuchFunction(1)", "the function nosuchfunction is not known here"),
        ("parameters('nam')", "the template has no parameter \"nam\""),
        ("variables('lost')", "the template has no variable \"lost\""),
        ("variables('a')", "is made from itself"),
        ("parameters('self')", "is made from itself"),
        ("substring('abc', 2, 5)", "substring reaches outside of a text of 3 characters"),
        ("substring('abc', -1)", "substring reaches outside"),
        ("range(0, 1000000000)", "range counts 1000000000 numbers"),
        ("range(9223372036854775807, 2)", "range counts 2 numbers"),
        ("div(1, 0)", "div of 1 and 0 is no number"),
        ("div(-9223372036854775808, -1)", "is no number"),
        ("mul(9223372036854775807, 2)", "is no number"),
        ("add('a', 1)", "add needs a whole number as argument 1, but has a string"),
        ("length(1)", "length needs an array, an object or a string"),
        ("createObject('a')", "a name without a value"),
        ("format('{x}')", "a place without a number"),
        ("format('{1}', 'a')", "needs more arguments"),
        ("base64ToString('?')", "is not base64"),
        ("json('{')", "json has a text that is none"),
        ("if('a', 1, 2)", "if needs true or false"),
        ("if(true)", "if needs three arguments"),
        ("copyIndex()", "copyIndex stands in no loop"),
        ("copyIndex('other')", "copyIndex stands in no loop \"other\""),
        ("lambdaVariables('x')", "no lambda has a variable"),
        ("map(variables('list'), 1)", "a lambda is missing"),
        ("variables('list')[3]", "an array has no entry 3"),
        ("variables('list')[-1]", "an array has no entry"),
        ("variables('list').name", "an array has no \"name\""),
        ("variables('object').three", "an object has no \"three\""),
        ("resourceId('A.B/c/d', 'x')", "resourceId has 1 names for the type \"A.B/c/d\""),
        ("padLeft('a', 1000000000)", "a text grows longer"),
        ("uriComponentToString('%g')", "a % has no two digits"),
    ] {
        let found = value(expression).unwrap_err();
        assert!(found.contains(reason), "{expression}: {found}");
    }
}

proptest! {
    #[test]
    fn no_arguments_make_a_function_panic(
        at in 0..super::TABLES.iter().map(|table| table.len()).sum::<usize>(),
        arguments in proptest::collection::vec(
            prop_oneof![
                Just("''".to_owned()),
                Just("parameters('open')".to_owned()),
                Just("variables('list')".to_owned()),
                Just("variables('object')".to_owned()),
                Just("null()".to_owned()),
                any::<i64>().prop_map(|number| number.to_string()),
                "'[{}a-c0-9/:%é,.-]{0,12}'",
            ],
            0..4,
        ),
    ) {
        let names = super::TABLES.iter().flat_map(|table| table.iter()).map(|(name, _)| *name);
        let name = names.into_iter().nth(at).unwrap();
        let expression = format!("{name}({})", arguments.join(", "));
        prop_assert!(value(&expression).map_or_else(|fault| !fault.is_empty(), |_| true));
    }
}
