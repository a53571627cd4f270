//! Templates that want to take all time, all memory or the whole stack. Each ends with a finding that says so.

use super::{Given, Wanted, import, lines};
use std::path::Path;

/// What is said of a template with these variables, when a listener's name is an expression of them.
fn told(declared: &str, expression: &str) -> String {
    let text = format!(
        "{{{declared} \"resources\": [{{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"gw\", \
         \"properties\": {{\"httpListeners\": [{{\"name\": \"{expression}\"}}]}}}}]}}"
    );
    match import(&text, &Given::default(), Wanted::One, Path::new(".")) {
        Ok(all) => {
            assert!(!all[0].is_complete);
            lines(&all[0].findings)
        }
        Err(found) => lines(&found),
    }
}

fn variables(each: impl Fn(usize) -> String, count: usize) -> String {
    let listed: Vec<String> = (1..=count).map(|at| format!("\"v{at}\": {}", each(at))).collect();
    format!("\"variables\": {{\"v0\": \"0123456789abcdef\", {}}},", listed.join(", "))
}

#[test]
fn a_text_that_doubles_ends() {
    let doubled =
        variables(|at| format!("\"[concat(variables('v{0}'), variables('v{0}'))]\"", at - 1), 60);
    let said = told(&doubled, "[variables('v60')]");
    assert!(said.contains("a text grows longer") || said.contains("steps"), "{said}");
}

#[test]
fn a_list_that_doubles_ends_though_its_parts_are_shared() {
    for pair in [
        "[\"[variables('v{}')]\", \"[variables('v{}')]\"]",
        "\"[createArray(variables('v{}'), variables('v{}'))]\"",
    ] {
        let doubled = variables(|at| pair.replace("{}", &(at - 1).to_string()), 60);
        let said = told(&doubled, "[variables('v60')]");
        assert!(said.contains("nested too deep or too large"), "{said}");
    }
}

#[test]
fn nesting_that_grows_step_by_step_ends() {
    let nested = variables(|at| format!("\"[createArray(variables('v{}'))]\"", at - 1), 2000);
    // Evaluated from below, so that no step is deep by itself.
    let steps: Vec<String> = (1..=100).map(|at| format!("variables('v{}')", at * 20)).collect();
    let said = told(&nested, &format!("[createArray({})]", steps.join(", ")));
    assert!(said.contains("nested too deep or too large"), "{said}");
    let said = told(&nested, "[variables('v2000')]");
    assert!(said.contains("nested more than 200 deep"), "{said}");
}

#[test]
fn loops_that_never_end_are_refused() {
    for count in ["1000000000", "-1", "\"[mul(1000000, 1000000)]\"", "{}"] {
        let copied = format!(
            "\"variables\": {{\"copy\": [{{\"name\": \"v\", \"count\": {count}, \"input\": 1}}]}},"
        );
        let said = told(&copied, "[string(variables('v'))]");
        assert!(
            said.contains("the loop \\\"v\\\" counts to")
                || said.contains("the loop \"v\" counts to"),
            "{said}"
        );
    }
    let inner = |inside: &str| {
        format!("{{\"copy\": [{{\"name\": \"n\", \"count\": 800, \"input\": {inside}}}]}}")
    };
    let loops = format!("\"variables\": {{\"v\": {}}},", inner(&inner(&inner(&inner("1")))));
    let said = told(&loops, "[variables('v').n[0]]");
    assert!(said.contains("more than 1000000 steps") || said.contains("too large"), "{said}");
}

#[test]
fn what_is_made_from_itself_is_refused() {
    let round =
        "\"variables\": {\"a\": \"[variables('b')]\", \"b\": {\"c\": \"[variables('a')]\"}},";
    assert!(told(round, "[variables('a').c]").contains("is made from itself"));
    let own =
        "\"parameters\": {\"a\": {\"type\": \"string\", \"defaultValue\": \"[parameters('a')]\"}},";
    assert!(told(own, "[parameters('a')]").contains("is made from itself"));
    let function = "\"functions\": [{\"namespace\": \"n\", \"members\": {\"f\": {\"parameters\": [], \
        \"output\": {\"type\": \"int\", \"value\": \"[add(n.f(), n.f())]\"}}}}],";
    let said = told(function, "[n.f()]");
    assert!(said.contains("nested more than 200 deep") || said.contains("steps"), "{said}");
}

#[test]
fn comparing_everything_with_everything_ends() {
    let large = "\"variables\": {\"l\": \"[range(0, 10000)]\", \
        \"v\": \"[intersection(variables('l'), union(variables('l'), createArray('x')))]\"},";
    let said = told(large, "[string(union(variables('v'), variables('v'), variables('l')))]");
    assert!(said.contains("more than 1000000 steps"), "{said}");
}

#[test]
fn a_thousand_nested_deployments_end() {
    let mut resources = "[]".to_owned();
    for at in 0..25 {
        resources = format!(
            "[{{\"type\": \"Microsoft.Resources/deployments\", \"name\": \"d{at}\", \"copy\": {{\"name\": \"c\", \"count\": 800}}, \
             \"properties\": {{\"template\": {{\"resources\": {resources}}}}}}}]"
        );
    }
    let text = format!("{{\"resources\": {resources}}}");
    let found = import(&text, &Given::default(), Wanted::One, Path::new(".")).unwrap_err();
    assert!(!found.is_empty());
}

#[test]
fn characters_that_stand_for_holes_inside_are_nothing_outside() {
    let said = told("", "[concat('\u{fdd0}0\u{fdd1}', parameters('x'))]");
    assert!(said.contains("the template has no parameter"), "{said}");
    let said = told("", "\u{fdd0}0\u{fdd1}");
    assert!(!said.contains("piece of one"), "{said}");
}

#[test]
fn many_members_take_no_longer_than_their_number() {
    let members: Vec<String> = (0..50_000).map(|at| format!("\"m{at}\": 1")).collect();
    let text = format!("{{\"httpListeners\": [], \"probes\": [], {}}}", members.join(", "));
    let all = import(&text, &Given::default(), Wanted::One, Path::new(".")).unwrap();
    assert!(!all[0].is_complete);
}

/// A deployment of the template with the text's parameters, which puts one value out.
fn deployment(name: &str, more: &str, parameters: &str, output: &str) -> String {
    format!(
        "{{\"type\": \"Microsoft.Resources/deployments\", \"name\": \"{name}\", {more} \"properties\": {{ \
         \"expressionEvaluationOptions\": {{\"scope\": \"inner\"}}, \"parameters\": {{{parameters}}}, \
         \"template\": {{\"parameters\": {{\"a\": {{\"type\": \"string\"}}, \"b\": {{\"type\": \"string\"}}}}, \
         \"resources\": [], \"outputs\": {{\"o\": {{\"type\": \"string\", \"value\": \"{output}\"}}}}}}}}}}"
    )
}

#[test]
fn outputs_that_feed_outputs_are_evaluated_once_each() {
    let mut resources = Vec::new();
    for at in 0..30 {
        let before = match at {
            0 => "x".to_owned(),
            _ => format!("[reference('d{}').outputs.o.value]", at - 1),
        };
        let given =
            format!("\"a\": {{\"value\": \"{before}\"}}, \"b\": {{\"value\": \"{before}\"}}");
        resources.push(deployment(
            &format!("d{at}"),
            "",
            &given,
            "[if(equals(parameters('a'), parameters('b')), parameters('a'), 'no')]",
        ));
    }
    resources.push(
        "{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"gw\", \"properties\": \
         {\"probes\": [{\"name\": \"[reference('d29').outputs.o.value]\"}]}}"
            .to_owned(),
    );
    let text = format!("{{\"resources\": [{}]}}", resources.join(", "));
    let all = import(&text, &Given::default(), Wanted::One, Path::new(".")).unwrap();
    assert!(all[0].document.contains("\"name\": \"x\""), "{}", lines(&all[0].findings));
}

#[test]
fn a_deployment_that_needs_its_own_output_has_none() {
    let own = "\"a\": {\"value\": \"[reference('d').outputs.o.value]\"}";
    let resources = [
        deployment("d", "", own, "[parameters('a')]"),
        "{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"gw\", \"properties\": \
         {\"probes\": [{\"name\": \"[reference('d').outputs.o.value]\"}]}}"
            .to_owned(),
    ];
    let text = format!("{{\"resources\": [{}]}}", resources.join(", "));
    let all = import(&text, &Given::default(), Wanted::One, Path::new(".")).unwrap();
    assert!(lines(&all[0].findings).contains("d.outputs.o.value"), "{}", lines(&all[0].findings));
}

#[test]
fn a_deployment_that_cannot_be_counted_is_a_gateway_only_if_it_has_one() {
    let copy = "\"copy\": {\"name\": \"c\", \"count\": \"[length(reference('lost').list)]\"},";
    let other = deployment("d", copy, "", "x");
    let gateway = "{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": \"gw\", \"properties\": {\"probes\": []}}";
    let text = format!("{{\"resources\": [{other}, {gateway}]}}");
    let all = import(&text, &Given::default(), Wanted::One, Path::new(".")).unwrap();
    assert_eq!(all[0].name, "gw");
    let with = other.replacen("\"resources\": []", &format!("\"resources\": [{gateway}]"), 1);
    let text = format!("{{\"resources\": [{with}]}}");
    let all = import(&text, &Given::default(), Wanted::One, Path::new(".")).unwrap();
    assert!(
        lines(&all[0].findings).contains("lost.list, state of the resource lost"),
        "{}",
        lines(&all[0].findings)
    );
}
