//! Probes of Azure's proxying of TCP and TLS, which stand among those over HTTP: they are passed over, and nobody who
//! speaks HTTP may refer to one.

use std::collections::HashSet;

use crate::config::reference::{Reference, clean, last_two};
use crate::config::report::Report;
use crate::config::shape::Shape;

/// What such a probe may have, as any other.
const PROPERTIES: &[&str] = &[
    "protocol",
    "host",
    "path",
    "port",
    "interval",
    "timeout",
    "unhealthyThreshold",
    "pickHostNameFromBackendHttpSettings",
    "minServers",
    "match",
];

/// Names of a document's probes of layer 4, in lower case.
pub(super) struct Probes(HashSet<String>);

/// Whether a probe is of layer 4; if it is, that is told.
pub(super) fn passes_over(probe: &Shape<'_>, name: &str, report: &mut Report) -> bool {
    let is_of_layer_4 = is_of_layer_4(probe);
    if is_of_layer_4 {
        probe.pass_over(PROPERTIES);
        // As a whole: without its protocol it would be a probe over HTTP.
        report.warn(
            &probe.place,
            format!("the probe {name:?} has no effect: TCP and TLS proxying is not offered"),
            "take it out, or make its protocol Http or Https",
        );
    }
    is_of_layer_4
}

fn is_of_layer_4(probe: &Shape<'_>) -> bool {
    let word = probe.text("protocol", &mut Report::default());
    word.is_some_and(|it| {
        ["tcp", "tls"].iter().any(|own| it.value.trim().eq_ignore_ascii_case(own))
    })
}

// === impl Probes ===

impl Probes {
    pub(super) fn of(root: &Shape<'_>) -> Self {
        // What is wrong with probes is told where they are read.
        let mut quiet = Report::default();
        let probes = root.shapes("probes", &mut quiet);
        let found = probes.iter().filter(|probe| is_of_layer_4(probe));
        let names = found.filter_map(|probe| probe.text("name", &mut quiet));
        Self(names.map(|name| name.value.to_lowercase()).collect())
    }

    /// Reports a reference to one of them.
    pub(super) fn refuse(&self, reference: &Reference, report: &mut Report) {
        let name = last_two(&reference.id).map(|(_, name)| clean(name).to_lowercase());
        if name.is_some_and(|name| self.0.contains(&name)) {
            report.error(
                &reference.place,
                "the probe speaks TCP or TLS, and not HTTP",
                "refer to one whose protocol is Http or Https",
            );
        }
    }
}
