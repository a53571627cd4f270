//! Linked templates: what is read, and what is never.

use super::*;

/// A template with one deployment that links so.
fn linking(link: &str) -> String {
    format!(
        r#"{{"resources": [{{"type": "Microsoft.Resources/deployments", "name": "inside", "properties":
            {{"templateLink": {{{link}}}}}}}]}}"#
    )
}

const GATEWAY: &str = r#"{"resources": [{"type": "Microsoft.Network/applicationGateways", "name": "g",
    "properties": {"httpListeners": [{"name": "a"}, {"name": "[nothing()]"}]}}]}"#;

fn beside(directory: &Path) -> Given {
    let mut given = Given::default();
    given.template_dir = Some(directory.to_owned());
    given
}

fn refused(text: &str, given: &Given) -> Finding {
    let found = one(text, given).unwrap_err();
    assert_eq!(found.len(), 1, "{}", lines(&found));
    found.into_iter().next().unwrap()
}

#[test]
fn nothing_outside_of_the_templates_directory_is_read() {
    let all = tempfile::tempdir().unwrap();
    let inside = all.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(all.path().join("secret.json"), GATEWAY).unwrap();
    std::fs::write(inside.join("fine.json"), GATEWAY).unwrap();
    std::os::unix::fs::symlink(all.path().join("secret.json"), inside.join("link.json")).unwrap();
    std::os::unix::fs::symlink(all.path(), inside.join("up")).unwrap();
    let secret = all.path().join("secret.json").display().to_string();
    for link in [
        r#""relativePath": "../secret.json""#.to_owned(),
        r#""relativePath": "..\\secret.json""#.to_owned(),
        r#""relativePath": "link.json""#.to_owned(),
        r#""relativePath": "up/secret.json""#.to_owned(),
        format!(r#""relativePath": "{secret}""#),
        format!(r#""uri": "file://{secret}""#),
        format!(r#""uri": "FILE:{secret}""#),
        r#""uri": "./fine.json/../../secret.json""#.to_owned(),
    ] {
        let found = refused(&linking(&link), &beside(&inside));
        let why = found.reason.contains("is outside of the directory of the template")
            // A file is no directory to go up from.
            || found.reason.contains("Not a directory");
        assert!(why && found.line > 0, "{link}: {found:?}");
        assert!(found.mend.contains("--linked 'inside=FILE'"), "{found:?}");
    }
    let fine = inside.join("fine.json").display().to_string();
    for link in [
        r#""relativePath": "up/inside/fine.json""#.to_owned(),
        format!(r#""uri": "file://localhost{fine}?x#y""#),
        r#""uri": "[concat('fi', 'ne.json')]""#.to_owned(),
    ] {
        assert_eq!(one(&linking(&link), &beside(&inside)).unwrap().name, "g", "{link}");
    }
    // But where the caller says so.
    let mut given = beside(&inside);
    given.link("INSIDE", all.path().join("secret.json"));
    let found = one(&linking(r#""relativePath": "../other.json""#), &given).unwrap();
    // What is wrong there is told where it is named.
    let wrong = found.findings.iter().find(|it| it.kind == FindingKind::Error).unwrap();
    assert!(wrong.reason.contains("nothing") && wrong.line == 1, "{}", lines(&found.findings));
}

#[test]
fn what_is_elsewhere_is_asked_for_and_never_fetched() {
    let empty = tempfile::tempdir().unwrap();
    let given = beside(empty.path());
    for (link, why) in [
        (
            r#""uri": "https://x.test/a.json?sig=hidden""#,
            "it is at https://x.test/a.json, and nothing is fetched",
        ),
        (r#""uri": "ftp://x.test/a.json""#, "nothing is fetched here"),
        (r#""uri": "C:\\a.json""#, "nothing is fetched here"),
        (
            r#""uri": "[uri(deployment().properties.templateLink.uri, 'a.json')]""#,
            "depends on what is missing",
        ),
        (r#""id": "/subscriptions/x/templateSpecs/y/versions/1""#, "it is the template spec"),
        (r#""relativePath": "none.json""#, "none.json: No such file"),
        (r#""relativePath": ".""#, "not a regular file"),
        ("", "neither a relativePath nor a uri"),
    ] {
        let found = refused(&linking(link), &given);
        assert!(found.reason.contains(why), "{link}: {found:?}");
        assert!(found.mend.contains("--linked") && !format!("{found:?}").contains("hidden"));
    }
    let found = refused(&linking(r#""relativePath": "a.json""#), &Given::default());
    assert!(found.reason.contains("beside a template that is no file"), "{found:?}");
    std::fs::write(empty.path().join("cut.json"), "{\n\"resources\": [").unwrap();
    let found = refused(&linking(r#""relativePath": "cut.json""#), &given);
    assert!(found.reason.contains("cut.json: line 2"), "{found:?}");
}

#[test]
fn a_linked_template_that_was_not_read_is_told_beside_a_gateway_and_so_is_a_link_that_nobody_follows()
 {
    let text = GATEWAY.replacen(
        "[{",
        &format!(
            "[{},{{",
            linking(r#""uri": "https://x.test/a""#)
                .trim_start_matches("{\"resources\": [")
                .trim_end_matches("]}")
        ),
        1,
    );
    let mut given = Given::default();
    given.link("https://x.test/b?sig=hidden", "/nowhere".into());
    let told = lines(&one(&text, &given).unwrap().findings);
    assert!(
        told.contains("a deployment whose template was not read (it is at https://x.test/a"),
        "{told}"
    );
    assert!(told.contains("nothing asks for \"https://x.test/b\", as --linked has it"), "{told}");
    assert!(!told.contains("hidden"), "{told}");
}

#[test]
fn templates_that_link_to_one_another_come_to_an_end() {
    let dir = tempfile::tempdir().unwrap();
    for (name, to) in [("a.json", "b.json"), ("b.json", "a.json")] {
        let link = linking(&format!(r#""relativePath": "{to}""#));
        let inside = link.trim_start_matches("{\"resources\": [").trim_end_matches("]}").to_owned();
        let twice = format!("{{\"resources\": [{inside}, {inside}]}}");
        std::fs::write(dir.path().join(name), twice).unwrap();
    }
    let found = refused(&linking(r#""relativePath": "a.json""#), &beside(dir.path()));
    assert!(found.reason.contains("nested more than 200 deep"), "{found:?}");
}
