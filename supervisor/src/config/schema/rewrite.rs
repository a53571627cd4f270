//! Rewrite sets.

use super::property::{Kind, Object, Property, flag, list, number, object, text};

pub(super) static SET: Object = Object {
    title: "rewriteRuleSet",
    about: "Changes of headers and URLs, of a rule, a path rule or a path map's default.",
    named: true,
    properties: &[list("rewriteRules", &RULE, "Applied by ascending ruleSequence.")],
    own: &[],
    passed: &[],
};

static RULE: Object = Object {
    title: "rewriteRule",
    about: "Changes that are made where every condition holds.",
    named: true,
    properties: &[
        number(
            "ruleSequence",
            [0, 2_147_483_647],
            Some(100),
            "Smallest first; a set has each once.",
        ),
        list("conditions", &CONDITION, "All of them must hold."),
        object("actionSet", &ACTIONS, "What is changed."),
    ],
    own: &[],
    passed: &[],
};

static CONDITION: Object = Object {
    title: "rewriteCondition",
    about: "A value and what it must look like.",
    named: false,
    properties: &[
        text("variable", "var_NAME, http_req_NAME or http_resp_NAME."),
        text("pattern", "A regular expression in RE2's syntax, searched for anywhere."),
        flag("ignoreCase", false, "Letters of ASCII are matched in any case."),
        flag("negate", false, "Holds where the pattern is not found."),
    ],
    own: &[],
    passed: &[],
};

static ACTIONS: Object = Object {
    title: "rewriteActionSet",
    about: "What is changed.",
    named: false,
    properties: &[
        list("requestHeaderConfigurations", &REQUEST_HEADER, "Headers on the way to a backend."),
        list("responseHeaderConfigurations", &RESPONSE_HEADER, "Headers of a backend's answer."),
        object("urlConfiguration", &URL, "The URL on the way to a backend."),
    ],
    own: &[],
    passed: &[],
};

const NAME: Property = text("headerName", "The header.");
const VALUE: Property = text(
    "headerValue",
    "Its value; may hold {var_NAME}, {http_req_NAME}, {http_resp_NAME} and captures such as {var_uri_path_1}. Empty: the header goes.",
);

static REQUEST_HEADER: Object = Object {
    title: "rewriteRequestHeader",
    about: "A header that is set, or deleted.",
    named: false,
    properties: &[
        NAME,
        VALUE,
        Property {
            name: "headerValueMatcher",
            about: "Works for Set-Cookie in an answer only.",
            kind: Kind::Absent,
        },
    ],
    own: &[],
    passed: &[],
};

static RESPONSE_HEADER: Object = Object {
    title: "rewriteResponseHeader",
    about: "A header that is set, or deleted.",
    named: false,
    properties: &[
        NAME,
        VALUE,
        object("headerValueMatcher", &MATCHER, "Of Set-Cookie: only lines that match are changed."),
    ],
    own: &[],
    passed: &[],
};

static MATCHER: Object = Object {
    title: "rewriteMatcher",
    about: "What a line of Set-Cookie must look like.",
    named: false,
    properties: &[
        text("pattern", "A regular expression in RE2's syntax, searched for anywhere."),
        flag("ignoreCase", false, "Letters of ASCII are matched in any case."),
        flag("negate", false, "Holds where the pattern is not found."),
    ],
    own: &[],
    passed: &[],
};

static URL: Object = Object {
    title: "rewriteUrl",
    about: "The path and the query that a backend gets.",
    named: false,
    properties: &[
        text("modifiedPath", "The path; may hold {var_NAME} and the like."),
        text("modifiedQueryString", "The query without its ?; empty: it goes."),
        flag("reroute", false, "Asks the path map again with the new path."),
    ],
    own: &[],
    passed: &[],
};
