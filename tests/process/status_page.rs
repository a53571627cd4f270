//! The status page as a browser and a script meet it: what it says is what the commands say, and not everybody is told.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Connection, Document, Gateway, HOLDFAST, Patience, Response, WebSocket, eventually,
    free_port, get_host, pause, resume, script, tools, words,
};

const TOKEN: &str = "c0ffee00c0ffee00c0ffee00c0ffee00";
/// What a document may be given as a name, and a page must show as it is.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// An answer of the status address to a request with these header lines.
fn ask(gateway: &Gateway, path: &str, lines: &str) -> Response {
    let mut connection = Connection::open(gateway.status_port()).unwrap();
    connection.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).unwrap();
    connection.response().unwrap()
}

fn document(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.status_page(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_str(&answer.text()).unwrap()
}

fn says(gateway: &Gateway, command: &str) -> Value {
    serde_json::from_str(&gateway.must(&[command, "--json"])).unwrap()
}

/// A rewrite set that sends backends a word, as an API key.
fn with_secret(document: Document, word: &str) -> Document {
    let Document(mut value) = document;
    let header = json!({"headerName": "X-Api-Key", "headerValue": word});
    let rule = json!({"name": "key", "ruleSequence": 1, "conditions": [],
        "actionSet": {"requestHeaderConfigurations": [header], "responseHeaderConfigurations": []}});
    value["properties"]["rewriteRuleSets"] =
        json!([{"name": "set", "properties": {"rewriteRules": [rule]}}]);
    Document(value)
}

#[test]
fn the_page_comes_in_one_piece_with_a_strict_policy_and_nothing_can_be_changed_there() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&Document::simple(free_port(), &[backend.address]));
    let page = gateway.status_page("/ui");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/ui", "/ui/state.json", "/ui/tunnels.json"] {
            let mut connection = Connection::open(gateway.status_port()).unwrap();
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            connection.write(request).unwrap();
            assert_eq!(connection.response().unwrap().status, 405, "{method} {path}");
        }
    }
    assert_eq!(gateway.status_page("/ui/nothing").status, 404);
    assert_eq!(gateway.status_page("/uix").status, 404);
}

#[test]
fn the_page_is_told_what_the_commands_say() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses));
    let mut sockets: Vec<_> = (0..3).map(|_| WebSocket::open(port, "/echo")).collect();
    assert!(sockets.iter_mut().all(|socket| socket.echoes("hello")));
    eventually(Patience::USUAL, "state.json to say what status and health say", || {
        let state = document(&gateway, "/ui/state.json");
        let same = state["status"] == says(&gateway, "status")
            && state["health"] == says(&gateway, "health")
            && state["revisions"] == says(&gateway, "revisions");
        (same && state["status"]["listeners"][0]["workers"][0]["tunnels"] == 3).then_some(())
    });
    // Ages go on; everything else of a row stands still.
    let still = |rows: &Value| {
        let mut rows = rows.as_array().unwrap().clone();
        for row in &mut rows {
            for moving in ["age_seconds", "idle_seconds", "rate_in", "rate_out"] {
                row.as_object_mut().unwrap().remove(moving);
            }
        }
        rows
    };
    let listed = document(&gateway, "/ui/tunnels.json?order=oldest");
    assert_eq!(still(&listed["tunnels"]), still(&says(&gateway, "tunnels")));
    assert_eq!((&listed["total"], &listed["matching"]), (&json!(3), &json!(3)));
    let client = sockets[1].local_port();
    let found = document(&gateway, &format!("/ui/tunnels.json?search=127.0.0.1:{client}"));
    assert_eq!((&found["total"], &found["matching"]), (&json!(3), &json!(1)));
    let none = document(&gateway, "/ui/tunnels.json?search=%3Cscript%3E&rows=0&order=%00");
    assert_eq!((&none["matching"], &none["tunnels"]), (&json!(0), &json!([])));
}

#[test]
fn plots_go_on_from_the_last_point_that_a_page_has() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut socket = WebSocket::open(port, "/echo");
    let whole = eventually(Patience::USUAL, "a point that counts a tunnel's bytes", || {
        assert!(socket.echoes("some bytes"));
        let traffic = document(&gateway, "/ui/state.json")["traffic"].clone();
        let points = traffic["points"].as_array().unwrap();
        let carried = |point: &Value| {
            point["tunnels"] == 1.0 && point["bytes_in"].as_f64().is_some_and(|rate| rate > 0.0)
        };
        points.iter().any(carried).then_some(traffic)
    });
    let (run, last) = (whole["run"].as_str().unwrap(), whole["last"].as_u64().unwrap());
    let told = document(&gateway, &format!("/ui/state.json?run={run}&after={last}"));
    let (now, fresh) = (told["traffic"]["last"].as_u64().unwrap(), &told["traffic"]["points"]);
    assert_eq!(fresh.as_array().unwrap().len() as u64, now - last);
    let restarted = gateway.must(&["restart", "--json"]);
    eventually(Patience::USUAL, "a point of the handover", || {
        let traffic = document(&gateway, "/ui/state.json")["traffic"].clone();
        let points = traffic["points"].as_array().unwrap().clone();
        points.into_iter().find(|point| point["moved"] == 1 && point["pause"].is_number())
    });
    assert!(socket.echoes("moved"), "{restarted}");
}

#[test]
fn the_list_of_tunnels_says_as_the_command_does_whose_are_missing() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let _sockets = [(); 3].map(|()| WebSocket::open(port, "/echo"));
    gateway.protects(3);
    let worker = gateway.worker_pid();
    pause(worker);
    let told = document(&gateway, "/ui/tunnels.json");
    let missing = told["missing"][0].as_str().unwrap();
    assert!(missing.starts_with(&format!("worker {worker} of")), "{told}");
    assert!(missing.ends_with("its 3 tunnels are not among these"), "{told}");
    let said = gateway.must(&["tunnels"]);
    assert!(said.contains(missing), "{said}");
    resume(worker);
    eventually(Patience::USUAL, "all to be listed again", || {
        let told = document(&gateway, "/ui/tunnels.json");
        (told["total"] == 3 && told["missing"] == json!([])).then_some(())
    });
}

#[test]
fn differences_of_revisions_are_told_by_name_and_without_secrets() {
    let backend = Backend::start("one");
    let port = free_port();
    let first = with_secret(Document::simple(port, &[backend.address]), "first-s3cret");
    let gateway = Gateway::start(&first);
    let second = with_secret(Document::simple(port, &[backend.address]), "second-s3cret")
        .set("probes", "chat", "interval", 7)
        .pool(HOSTILE, &[backend.address]);
    gateway.apply(&second);
    let told = document(&gateway, "/ui/difference.json?from=1&to=2");
    let changes = told["changes"].as_array().unwrap();
    let change = |path: &str| changes.iter().find(|change| change["path"] == path);
    let interval = change("properties.probes[chat].properties.interval").unwrap();
    assert_eq!((&interval["before"], &interval["after"]), (&json!("1"), &json!("7")));
    assert!(change(&format!("properties.backendAddressPools[{HOSTILE}]")).is_some(), "{told}");
    assert!(told.to_string().contains("(not shown)"), "{told}");
    let same = document(&gateway, "/ui/difference.json?from=2&to=2");
    assert_eq!(same["changes"], json!([]));
    for odd in ["?from=1&to=99", "?from=0&to=1", "", "?from=x&to=1", "?from=-1&to=2"] {
        let told = document(&gateway, &format!("/ui/difference.json{odd}"));
        assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{odd}: {told}");
    }
    for path in ["/ui/state.json", "/ui/difference.json?from=1&to=2"] {
        assert!(!gateway.status_page(path).text().contains("s3cret"), "{path}");
    }
}

#[test]
fn a_name_that_somebody_has_pointed_at_this_host_is_not_answered() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&Document::simple(free_port(), &[backend.address]));
    let port = gateway.status_port();
    for path in ["/ui", "/ui/state.json", "/ui/tunnels.json"] {
        for (host, status) in [
            ("evil.example", 421),
            (format!("evil.example:{port}").as_str(), 421),
            (format!("localhost:{port}").as_str(), 200),
            (format!("127.0.0.1:{port}").as_str(), 200),
            ("[::1]", 200),
        ] {
            assert_eq!(get_host(port, path, host).unwrap().status, status, "{path} of {host}");
        }
    }
    // Scrapers call the gateway by whatever name it has.
    assert_eq!(get_host(port, "/metrics", "evil.example").unwrap().status, 200);
}

#[test]
fn many_pages_and_clients_that_never_read_keep_no_scraper_waiting() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&Document::simple(free_port(), &[backend.address]));
    let port = gateway.status_port();
    let asked = |path: &str| {
        let mut connection = Connection::open(port).unwrap();
        connection.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).unwrap();
        connection
    };
    let mute: Vec<_> = (0..300).map(|_| asked("/ui")).collect();
    for path in ["/metrics", "/readyz", "/healthz"] {
        assert_eq!(gateway.status_page(path).status, 200, "{path}");
    }
    // All at once; who is one too many is told to come again.
    let crowd: Vec<_> = (0..300).map(|_| asked("/ui/state.json")).collect();
    assert_eq!(gateway.status_page("/metrics").status, 200);
    for mut page in crowd {
        let status = page.response().unwrap().status;
        assert!([200, 503].contains(&status), "{status}");
    }
    drop(mute);
    eventually(Patience::USUAL, "the page to be shown again", || {
        (gateway.status_page("/ui/state.json").status == 200).then_some(())
    });
    assert_eq!(gateway.status()["ready"], true);
}

#[test]
fn on_another_address_nobody_is_shown_anything_without_a_token() {
    let backend = Backend::start("one");
    let document = Document::simple(free_port(), &[backend.address]);
    let gateway = Gateway::start_exposed(&document, None);
    for path in ["/ui", "/ui/", "/ui/state.json", "/ui/tunnels.json", "/ui/session"] {
        let answer = ask(&gateway, path, &format!("Authorization: Bearer {TOKEN}\r\n"));
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains("--status-token-file"), "{}", answer.text());
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(gateway.status_page(path).status, 200, "{path}");
    }
}

#[test]
fn with_the_token_a_script_and_a_browser_are_let_in_and_nobody_else() {
    let backend = Backend::start("one");
    let document = Document::simple(free_port(), &[backend.address]);
    let gateway = Gateway::start_exposed(&document, Some(&format!("{TOKEN}\n")));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/ui", "/ui/state.json", "/ui/tunnels.json", "/ui/difference.json?from=1&to=1"] {
        for lines in ["", "Authorization: Bearer wrong\r\n", "Cookie: holdfast-ui=1.AAAA\r\n"] {
            let answer = ask(&gateway, path, lines);
            assert_eq!(answer.status, 401, "{path} {lines}");
            assert!(!answer.text().contains("127.0.0.1"), "{path}: {}", answer.text());
            // Nor is it taken out of an address, which others get to see.
            let joint = if path.contains('?') { '&' } else { '?' };
            assert_eq!(ask(&gateway, &format!("{path}{joint}token={TOKEN}"), "").status, 401);
        }
        assert_eq!(ask(&gateway, path, &bearer).status, 200, "{path}");
    }
    // The form is in the page, and it has what the policy lets it run.
    assert!(ask(&gateway, "/ui", "").text().contains("data-access=\"token\""));
    assert_eq!(ask(&gateway, "/ui/session", "").status, 401);
    let session = ask(&gateway, "/ui/session", &bearer);
    let set = session.header("set-cookie").unwrap().to_owned();
    assert!(!set.contains(TOKEN), "{set}");
    let cookie = format!("Cookie: {}\r\n", set.split(';').next().unwrap());
    assert_eq!(ask(&gateway, "/ui/state.json", &cookie).status, 200);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(ask(&gateway, path, "").status, 200, "{path}");
    }
    // Another token counts at once, and one that is gone keeps everybody out and is told of; traffic is not asked.
    gateway.write("token", &TOKEN.replace('c', "d"));
    assert_eq!(ask(&gateway, "/ui/state.json", &bearer).status, 401);
    assert_eq!(ask(&gateway, "/ui/state.json", &cookie).status, 401);
    fs::remove_file(gateway.path().join("token")).unwrap();
    assert_eq!(ask(&gateway, "/ui/state.json", &bearer).status, 503);
    assert_eq!(ask(&gateway, "/readyz", "").status, 200);
    eventually(Patience::USUAL, "status to tell of the token", || {
        gateway.status()["problems"].to_string().contains("status page is shut").then_some(())
    });
    assert!(!gateway.log().contains(TOKEN));
}

#[test]
fn an_upgrade_keeps_the_token() {
    let backend = Backend::start("one");
    let document = Document::simple(free_port(), &[backend.address]);
    let gateway = Gateway::start_exposed(&document, Some(TOKEN));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    gateway.must(&["upgrade"]);
    eventually(Patience::USUAL, "the page of the executable that took over", || {
        (ask(&gateway, "/ui/state.json", &bearer).status == 200).then_some(())
    });
    assert_eq!(ask(&gateway, "/ui/state.json", "").status, 401);
}

/// Where pictures of the page go.
fn pictures() -> std::path::PathBuf {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    fs::create_dir_all(&pictures).unwrap();
    pictures
}

#[test]
fn people_see_in_chromium_what_the_commands_say_and_what_changes() {
    let Some(tools) = tools("Chromium on the status page") else { return };
    let backends = Backend::group(&["alpha", "bravo"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let (port, other) = (free_port(), free_port());
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 9], free_port()));
    let first = Document::simple(port, &addresses);
    let gateway = Gateway::start(&first);
    let second = first
        .set("probes", "chat", "interval", 2)
        .pool("games", &[nobody])
        .site("games", other, "games");
    gateway.apply(&second);
    eventually(Patience::USUAL, "a backend that is not there to be unhealthy", || {
        (gateway.health_of("127.0.0.9") == "Unhealthy").then_some(())
    });
    let third = gateway.write("third.json", &second.set("probes", "chat", "interval", 3).text());
    let page = format!("http://127.0.0.1:{}/ui", gateway.status_port());
    let socket = format!("ws://127.0.0.1:{port}/echo");
    let (pictures, admin, nobody) = (pictures(), gateway.admin(), nobody.to_string());
    let [pictures, third] = [&pictures, &third].map(|path| path.to_str().unwrap());
    let arguments: [&str; 7] = [&page, &socket, HOLDFAST, &admin, pictures, &nobody, third];
    let output = script(&tools, "status_page.mjs", &arguments);
    assert!(output.status.success(), "{}", words(&output));
    println!("{}", words(&output));
}

#[test]
fn hostile_names_long_texts_and_thousands_of_rows_harm_neither_page_nor_reader() {
    let Some(tools) = tools("Chromium on a hostile status page") else { return };
    let backend = Backend::start("one");
    let (port, other) = (free_port(), free_port());
    let document = Document::simple(port, &[backend.address])
        .pool(HOSTILE, &[backend.address])
        .site(HOSTILE, other, HOSTILE);
    let gateway = Gateway::start(&document);
    let page = format!("http://127.0.0.1:{}/ui", gateway.status_port());
    let pictures = pictures();
    let arguments: [&str; 3] = [&page, HOSTILE, pictures.to_str().unwrap()];
    let output = script(&tools, "status_hostile.mjs", &arguments);
    assert!(output.status.success(), "{}", words(&output));
}

#[test]
fn people_sign_in_with_the_token_in_chromium() {
    let Some(tools) = tools("Chromium on the status page's form") else { return };
    let backend = Backend::start("one");
    let document = Document::simple(free_port(), &[backend.address]);
    let gateway = Gateway::start_exposed(&document, Some(TOKEN));
    let page = format!("http://127.0.0.1:{}/ui", gateway.status_port());
    let output = script(&tools, "status_token.mjs", &[&page, TOKEN]);
    assert!(output.status.success(), "{}", words(&output));
}
