//! Azure's limits on how many there may be of each thing. Holdfast has none of its own there, so that whoever exceeds
//! them is only told, once a collection.

use crate::config::gateway::{Action, Listener, RuleTarget};
use crate::config::report::{Place, Report};
use crate::config::shape::Shape;

/// Collections and how many entries Azure takes in each.
const MOST: [(&str, usize); 11] = [
    ("frontendIPConfigurations", 4),
    ("frontendPorts", 100),
    ("sslCertificates", 100),
    ("trustedRootCertificates", 100),
    ("trustedClientCertificates", 200),
    ("httpListeners", 200),
    ("requestRoutingRules", 400),
    ("redirectConfigurations", 100),
    ("rewriteRuleSets", 400),
    ("backendAddressPools", 100),
    ("backendHttpSettingsCollection", 100),
];
/// Listeners whose rule leads to a pool.
const MOST_ACTIVE: usize = 100;
/// Backends of one pool.
const MOST_BACKENDS: usize = 1200;
/// Path rules of one map.
const MOST_PATH_RULES: usize = 100;

/// Warns where a document has more than Azure would take.
pub(in crate::config) fn counts(root: &Shape<'_>, listeners: &[Listener], report: &mut Report) {
    let mut quiet = Report::default();
    for (name, most) in MOST {
        // Read before, and complained of there.
        let count = root.list(name, &mut quiet).len();
        exceeded(root.place_of(name), &format!("{name} has {count} entries"), count, most, report);
    }
    for (collection, inner, most) in [
        ("backendAddressPools", "backendAddresses", MOST_BACKENDS),
        ("urlPathMaps", "pathRules", MOST_PATH_RULES),
    ] {
        for shape in root.shapes(collection, &mut quiet) {
            let count = shape.list(inner, &mut quiet).len();
            let what = format!("{inner} has {count} entries");
            exceeded(shape.place_of(inner), &what, count, most, report);
        }
    }
    let sites = listeners.iter().flat_map(|listener| &listener.sites);
    let is_active = |target: &RuleTarget| match target {
        RuleTarget::Basic(action) => {
            matches!(action, Action::Forward { .. } | Action::Distribute { .. })
        }
        RuleTarget::PathBased(_) => true,
    };
    let rules = sites.filter_map(|site| site.rule.as_ref());
    let active = rules.filter(|rule| is_active(&rule.target)).count();
    let what = format!("{active} listeners lead to pools");
    exceeded(root.place_of("httpListeners"), &what, active, MOST_ACTIVE, report);
}

fn exceeded(place: &Place, what: &str, count: usize, most: usize, report: &mut Report) {
    if count > most {
        report.warn(
            place,
            format!("{what}; Azure takes {most} at most, Holdfast has no such limit"),
            "nothing to do, unless the document is for Azure too",
        );
    }
}
