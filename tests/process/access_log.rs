//! The access log: a line for each request and for each tunnel's beginning and end, whatever becomes of processes, files
//! and readers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Certificate, Connection, Document, Gateway, Patience, WebSocket, directory,
    eventually, free_port, get, kill9,
};

mod peers;

/// The whole lines of a log. Where somebody is writing just now, the last one may be there in part.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// How often each target was logged.
fn targets(lines: &[Value]) -> HashMap<String, usize> {
    let mut targets = HashMap::new();
    for line in lines {
        let target = line["properties"]["originalRequestUriWithArgs"].as_str().unwrap();
        *targets.entry(target.to_owned()).or_default() += 1;
    }
    targets
}

/// Waits until a log has a line that is looked for.
fn find(path: &Path, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(Patience::USUAL, what, || lines(path).into_iter().find(&is_it))
}

/// Waits until each of these targets has a line; no target may have two.
fn each_once(answered: &[String], lines: impl Fn() -> Vec<Value>) {
    let logged = eventually(Patience::USUAL, "a line for each request", || {
        let logged = targets(&lines());
        answered.iter().all(|target| logged.contains_key(target)).then_some(logged)
    });
    assert!(logged.values().all(|times| *times == 1));
}

fn to_file(path: &Path) -> Value {
    json!({"destination": "file", "file": path})
}

/// Lines that the gateway has counted under an outcome.
fn counted(gateway: &Gateway, outcome: &str) -> u64 {
    let page = gateway.status_page("/metrics").text();
    let label = format!("outcome=\"{outcome}\"");
    let rows = page.lines().filter(|line| {
        line.starts_with("holdfast_access_log_lines_total{") && line.contains(&label)
    });
    rows.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Asks for targets of its own until it is told to stop; answers which were answered.
fn traffic(port: u16, name: &str, over: &AtomicBool) -> Vec<String> {
    let mut answered = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let target = format!("/whoami?{name}={number}");
        // A worker that is killed takes what it has accepted with it.
        if get(port, &target).is_ok_and(|answer| answer.status == 200) {
            answered.push(target);
        }
    }
    answered
}

/// Two listeners under traffic while `disturb` runs; answers what was answered.
fn answered_during(ports: [u16; 2], disturb: impl FnOnce()) -> Vec<String> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = [("a", ports[0]), ("b", ports[1])].map(|(name, port)| {
            scope.spawn({
                let over = &over;
                move || traffic(port, name, over)
            })
        });
        disturb();
        over.store(true, Ordering::Relaxed);
        asking.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

fn two_listeners(log: &Path) -> (Gateway, [u16; 2], Backend) {
    let backend = Backend::start("one");
    let ports = [free_port(), free_port()];
    let document = Document::simple(ports[0], &[backend.address])
        .site("more", ports[1], "chat")
        .holdfast("accessLog", to_file(log));
    (Gateway::start(&document), ports, backend)
}

#[test]
fn a_request_has_a_line_under_the_names_that_azure_gives() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let backend = Backend::start("one");
    let (port, secure) = (free_port(), free_port());
    let document = Document::simple(port, &[backend.address])
        .tls_site("secure", secure, &certificate, "chat")
        .holdfast("accessLog", to_file(&log));
    let _gateway = Gateway::start(&document);
    get(port, "/whoami?x=%22y").unwrap();
    let line = find(&log, "its line", |_| true);
    assert_eq!(line["operationName"], "ApplicationGatewayAccess");
    assert_eq!(line["listenerName"], "web");
    assert_eq!(line["ruleName"], "web");
    assert_eq!(line["backendPoolName"], "chat");
    assert_eq!(line["backendSettingName"], "chat");
    let properties = &line["properties"];
    assert_eq!(properties["clientIP"], "127.0.0.1");
    assert_eq!(properties["originalRequestUriWithArgs"], "/whoami?x=%22y");
    assert_eq!(properties["requestUri"], "/whoami");
    assert_eq!(properties["requestQuery"], "x=%22y");
    assert_eq!(properties["httpStatus"], 200);
    assert_eq!(properties["serverRouted"], backend.address.to_string());
    assert_eq!(properties["sslEnabled"], "off");
    assert!(properties.get("sslClientVerify").is_none());
    assert_eq!(properties["transactionId"].as_str().unwrap().len(), 32);
    drop(WebSocket::open_tls(secure, "/echo", &certificate));
    let line = find(&log, "the handshake's line", |line| line["properties"]["httpStatus"] == 101);
    assert_eq!(line["properties"]["sslProtocol"], "TLSv1.3");
    assert!(line["properties"]["sslCipher"].as_str().unwrap().starts_with("TLS_"));
    assert_eq!(line["properties"]["sslClientVerify"], "NONE");
    assert!(line["properties"].get("sslClientCertificateFingerprint").is_none());
    // What never becomes a request is told, too.
    let mut plain = Connection::open(secure).unwrap();
    plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(plain.response().unwrap().status, 400);
    find(&log, "plain HTTP's line", |line| {
        line["properties"]["error_info"] == "ERRORINFO_HTTP_TO_HTTPS_PORT"
    });
    let mut broken = Connection::open(port).unwrap();
    broken.write("\"broken\nhead\"\r\n\r\n").unwrap();
    assert_eq!(broken.response().unwrap().status, 400);
    find(&log, "the broken request's line", |line| {
        line["properties"]["error_info"] == "ERRORINFO_INVALID_REQUEST"
    });
}

#[test]
fn a_request_that_does_not_come_to_its_end_has_a_line() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address])
        .holdfast("clientHeaderTimeoutInSec", 1)
        .holdfast("accessLog", to_file(&log));
    let _gateway = Gateway::start(&document);
    let mut slow = Connection::open(port).unwrap();
    slow.write("GET / HTTP/1.1\r\nHost: ").unwrap();
    assert_eq!(slow.response().unwrap().status, 408);
    let line = find(&log, "its line", |line| line["properties"]["httpStatus"] == 408);
    assert_eq!(line["properties"]["clientIP"], "127.0.0.1");
    assert!(line.get("listenerName").is_none());
}

#[test]
fn restarts_under_traffic_lose_no_line_and_write_none_twice() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let (gateway, ports, _backend) = two_listeners(&log);
    let answered = answered_during(ports, || {
        for _ in 0..3 {
            gateway.must(&["restart"]);
        }
    });
    assert!(answered.len() > 10);
    each_once(&answered, || lines(&log));
}

#[test]
fn killed_workers_leave_whole_lines_in_the_file_that_they_share() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let (gateway, ports, _backend) = two_listeners(&log);
    answered_during(ports, || {
        for _ in 0..4 {
            let workers = gateway.worker_pids();
            for pid in &workers {
                kill9(*pid);
            }
            eventually(Patience::USUAL, "their successors to serve", || {
                let now = gateway.worker_pids();
                (now.len() == 2 && now.iter().all(|pid| !workers.contains(pid))).then_some(())
            });
        }
    });
    let before = targets(&lines(&log));
    assert!(before.len() > 10 && before.values().all(|times| *times == 1));
    // And nothing is missing of what nobody disturbs.
    let wanted: Vec<_> = (0..20).map(|number| format!("/whoami?calm={number}")).collect();
    for (target, port) in wanted.iter().zip(ports.into_iter().cycle()) {
        assert_eq!(get(port, target).unwrap().status, 200);
    }
    eventually(Patience::USUAL, "a line for each of the last requests", || {
        let logged = targets(&lines(&log));
        wanted.iter().all(|target| logged.get(target) == Some(&1)).then_some(())
    });
    assert!(fs::read_to_string(&log).unwrap().ends_with('\n'));
}

#[test]
fn a_log_moved_away_under_traffic_goes_on_in_a_new_file() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let (gateway, ports, _backend) = two_listeners(&log);
    let old = |number: u32| directory.path().join(format!("access.log.{number}"));
    let answered = answered_during(ports, || {
        for number in 0..4 {
            eventually(Patience::USUAL, "the log to be there", || {
                (!lines(&log).is_empty()).then_some(())
            });
            fs::rename(&log, old(number)).unwrap();
            // By either way; the file of the configuration has not changed.
            if number % 2 == 0 {
                gateway.signal(Signal::SIGHUP);
            } else {
                gateway.must(&["reload"]);
                // Who has been told writes nothing more into the old file.
                let target = format!("/whoami?after={number}");
                assert_eq!(get(ports[0], &target).unwrap().status, 200);
                find(&log, "the line of a later request", |line| {
                    line["properties"]["originalRequestUriWithArgs"] == target
                });
            }
        }
        eventually(Patience::USUAL, "the log to be there again", || log.exists().then_some(()));
    });
    let all = || {
        let files = (0..4).map(old).chain([log.clone()]);
        files.flat_map(|file| lines(&file)).collect::<Vec<_>>()
    };
    each_once(&answered, all);
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn a_fifo_that_nobody_reads_stops_no_request_and_no_stop() {
    let directory = directory();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).holdfast("accessLog", to_file(&fifo));
    let gateway = Gateway::start(&document);
    for _ in 0..200 {
        assert_eq!(get(port, "/whoami").unwrap().status, 200);
    }
    eventually(Patience::USUAL, "every line to be counted as dropped", || {
        (counted(&gateway, "dropped") == 200).then_some(())
    });
    assert_eq!(counted(&gateway, "written"), 0);
    let told = || gateway.log().matches("the access log cannot be written").count();
    eventually(Patience::USUAL, "the log to say so", || (told() > 0).then_some(()));
    assert_eq!(told(), 1);
    // One that opens it and does not read: the pipe fills, and nothing else happens.
    let reader = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    for _ in 0..300 {
        assert_eq!(get(port, "/whoami").unwrap().status, 200);
    }
    eventually(Patience::USUAL, "some lines to be written", || {
        (counted(&gateway, "written") > 0).then_some(())
    });
    gateway.must(&["stop"]);
    eventually(Patience::USUAL, "the gateway to stop", || gateway.has_ended().then_some(()));
    drop(reader);
}

#[test]
fn a_tunnel_has_a_line_at_each_end_whichever_process_ends_it() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let (gateway, [port, _], _backend) = two_listeners(&log);
    let mut socket = WebSocket::open(port, "/echo?room=1");
    assert!(socket.echoes("hello"));
    let opening = find(&log, "the opening's line", |line| line["properties"]["httpStatus"] == 101);
    let opening = &opening["properties"];
    let tunnel = &gateway.tunnels()[0];
    assert_eq!(opening["tunnelId"], tunnel["id"]);
    for pid in gateway.worker_pids() {
        kill9(pid);
    }
    assert!(socket.echoes("still here"));
    socket.finish_sending();
    assert!(socket.end().is_some());
    let is_end = |line: &Value| line["operationName"] == "HoldfastTunnelEnd";
    let line = find(&log, "the end's line", is_end);
    assert_eq!(line["listenerName"], "web");
    assert_eq!(line["backendPoolName"], "chat");
    let end = &line["properties"];
    assert_eq!(end["tunnelId"], opening["tunnelId"]);
    assert_eq!(end["transactionId"], opening["transactionId"]);
    assert_eq!(end["clientPort"], socket.local_port());
    assert_eq!(end["tunnelEndCause"], "client");
    assert_eq!(end["tunnelClientEnd"], "fin");
    assert!(end["receivedBytes"].as_u64().unwrap() >= 15);
    assert!(end["sentBytes"].as_u64().unwrap() >= 15);
    assert_eq!(lines(&log).iter().filter(|line| is_end(line)).count(), 1);
}

#[test]
fn a_tunnel_that_was_open_before_the_log_leaves_no_end_without_a_beginning() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&document);
    let mut early = WebSocket::open(port, "/echo");
    gateway.apply(&document.holdfast("accessLog", to_file(&log)));
    let mut late = WebSocket::open(port, "/echo");
    for socket in [&mut early, &mut late] {
        assert!(socket.echoes("hello"));
        socket.finish_sending();
        assert!(socket.end().is_some());
    }
    let end = find(&log, "an end", |line| line["operationName"] == "HoldfastTunnelEnd");
    assert_eq!(end["properties"]["clientPort"], late.local_port());
    eventually(Patience::USUAL, "both to be gone", || gateway.tunnels().is_empty().then_some(()));
    assert_eq!(lines(&log).len(), 2);
}

#[test]
fn standard_output_is_the_services_own() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address])
        .holdfast("accessLog", json!({"destination": "stdout"}));
    let gateway = Gateway::start(&document);
    get(port, "/whoami?seen").unwrap();
    let line = eventually(Patience::USUAL, "its line", || {
        let log = gateway.log();
        log.lines().find(|line| line.contains("/whoami?seen")).map(str::to_owned)
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["properties"]["httpStatus"], 200);
}
