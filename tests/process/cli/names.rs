//! Names that nobody has, revisions that never were: nothing happens, and the right ones are named.

use super::answers::{fails, gateway};
use crate::harness::{Backend, Document, Gateway, WebSocket, free_port, words};

#[test]
fn a_name_that_nobody_has_is_told_with_the_one_that_was_meant() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).pool("spare", &[backend.address]);
    let document = document.host_site("named", port, "named.test", "spare");
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    let right = format!("chat/{}", backend.address);
    let [drain, undrain] = ["drain", "undrain"].map(|command| (command, "caht/10.0.0.4"));
    for (command, name) in [drain, undrain] {
        let says = ["no pool \"caht\"", "did you mean \"chat\"?", "there are: chat, spare"];
        let says = [&says[..], &["Nothing was changed", "serves as before"]].concat();
        fails(&gateway.cli(&[command, name]), 1, &says);
    }
    let near = format!("{right}0");
    let meant = format!("did you mean \"{}\"?", backend.address);
    let says = ["pool \"chat\" has no backend", &meant, "Nothing was changed"];
    fails(&gateway.cli(&["drain", &near]), 1, &says);
    let listener = format!("127.0.0.1:{port}");
    let says = ["no listener \"192.0.2.77:1\"", &listener, "Nothing was changed"];
    fails(&gateway.cli(&["restart", "192.0.2.77:1"]), 1, &says);
    fails(&gateway.cli(&["close", "abc"]), 1, &["no tunnel abc is open", "holdfast tunnels"]);
    assert_eq!(gateway.health_of(&backend.address.ip().to_string()), "Healthy");
    assert!(socket.echoes("untouched"));
}

#[test]
fn a_filter_by_a_name_that_nobody_has_is_doubted() {
    let (gateway, _socket, backend) = gateway();
    let asked = |filter: &[&str]| {
        let output = gateway.cli(&[&["tunnels"], filter].concat());
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "no tunnels\n", "{filter:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let other = format!("{}:9", backend.address.ip());
    for (filter, says) in [
        (&["--site", "wbe"][..], "no site \"wbe\" (did you mean \"web\"?); there are: web"),
        (&["--pool", "caht"], "\"caht\" (did you mean \"chat\"?); there are: chat"),
        (&["--backend", &other], "there is no backend"),
    ] {
        assert!(asked(filter).contains(says), "{filter:?}: {}", asked(filter));
    }
    // Names that are right, and no tunnel that fits.
    assert_eq!(asked(&["--site", "WEB", "--pool", "chat", "--min-age", "3d"]), "");
    assert_eq!(asked(&["--min-age", "3d"]), "");
    let output = gateway.cli(&["tunnels", "--pool", "caht", "--json"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n");
}

#[test]
fn a_revision_that_is_not_there_or_not_in_force_is_told_with_where_to_look() {
    let (gateway, mut socket, _backend) = gateway();
    for command in [&["rollback", "99"][..], &["config", "--revision", "99"]] {
        let says =
            ["revision 99 is not in the history", "holdfast revisions", "Nothing was changed"];
        fails(&gateway.cli(command), 1, &says);
    }
    let says = ["revision 1 is in force, not 7", "holdfast config", "Nothing was changed"];
    fails(&gateway.cli(&["apply", "gateway.json", "--if-revision", "7"]), 1, &says);
    assert!(socket.echoes("untouched"));
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn a_document_that_is_wrong_in_three_places_is_told_of_all_three() {
    let (gateway, mut socket, backend) = gateway();
    let document = Document::simple(free_port(), &[backend.address])
        .set("backendHttpSettingsCollection", "chat", "requestTimeout", "soon")
        .set("httpListeners", "web", "protocol", "Htp")
        .set("requestRoutingRules", "web", "priority", 0);
    gateway.write("three.json", &document.text());
    for command in ["apply", "validate"] {
        let output = gateway.cli(&[command, "three.json"]);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for name in ["requestTimeout", "protocol", "priority"] {
            let place = format!(".{name}\n");
            assert!(said.contains(&place), "{command}, {name}: {said}");
        }
        let errors = said.lines().filter(|line| line.starts_with("three.json:"));
        assert!(errors.filter(|line| line.contains(": error: ")).count() >= 3, "{said}");
        assert!(said.matches("  mend: ").count() >= 3, "{said}");
    }
    assert!(words(&gateway.cli(&["apply", "three.json"])).contains("revision 1 stays in force"));
    assert!(socket.echoes("untouched"));
}
