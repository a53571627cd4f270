//! What a responder says of the gateway's own certificate is shown with it, and never waited for: OpenSSL asks.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::harness::{
    Authority, Backend, Certificate, Document, Gateway, Patience, Responder, directory, eventually,
    free_port, tools, words,
};

/// The certificate's number.
const NUMBER: u8 = 9;

struct Scene {
    gateway: Gateway,
    document: Document,
    port: u16,
    authority: Authority,
    responder_port: u16,
    responder: Option<Responder>,
    _backend: Backend,
}

impl Scene {
    /// With a responder that knows so much, which is there before the first question. None: there is no OpenSSL.
    fn start(known: Option<&[(u8, bool)]>) -> Option<Self> {
        tools("stapling with OpenSSL")?;
        let directory = directory();
        let authority = Authority::make(directory.path(), "authority");
        let (port, responder_port) = (free_port(), free_port());
        let own = authority.passport_with_responder("site", NUMBER, responder_port);
        let chain_file = directory.path().join("chain.pem");
        let parts = [&own.certificate, &authority.file].map(|it| fs::read_to_string(it).unwrap());
        fs::write(&chain_file, parts.concat()).unwrap();
        let certificate = Certificate {
            host: "site.test".to_owned(),
            chain_file,
            key_file: own.key,
            root_file: authority.file.clone(),
            der: CertificateDer::from_pem_file(&own.certificate).unwrap(),
        };
        let backend = Backend::start("one");
        let document = Document::new().pool("chat", &[backend.address]).tls_site(
            "site",
            port,
            &certificate,
            "chat",
        );
        let start = |known| Responder::start(responder_port, &authority, &authority, known, 60);
        let responder = known.map(start);
        let gateway = Gateway::start_in(directory, &stapling(&document, true));
        Some(Self {
            gateway,
            document,
            port,
            authority,
            responder_port,
            responder,
            _backend: backend,
        })
    }

    /// What a client is told that asks for it.
    fn told(&self) -> String {
        let output = Command::new("openssl")
            .args(["s_client", "-status", "-servername", "site.test"])
            .args(["-connect", &format!("127.0.0.1:{}", self.port)])
            .arg("-CAfile")
            .arg(&self.authority.file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = words(&output);
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        said
    }

    fn is_good(&self) -> bool {
        let said = self.told();
        said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good")
    }

    fn is_bare(&self) -> bool {
        self.told().contains("OCSP response: no response sent")
    }
}

fn stapling(document: &Document, on: bool) -> Document {
    let mut document = document.clone();
    document.0["properties"]["sslCertificates"][0]["holdfast"]["ocspStapling"] = on.into();
    document
}

#[test]
fn what_a_responder_says_is_shown_by_every_worker_until_that_is_turned_off() {
    let Some(mut scene) = Scene::start(Some(&[(NUMBER, true)])) else { return };
    eventually(Patience::USUAL, "the staple to be shown", || scene.is_good().then_some(()));
    assert_eq!(scene.responder.take().unwrap().asked(), 1);
    scene.gateway.must(&["restart"]);
    assert!(scene.is_good(), "a worker that is new, while nobody can be asked");
    scene.gateway.apply(&stapling(&scene.document, false));
    assert!(scene.is_bare());
}

#[test]
fn without_a_responder_clients_are_served_all_the_same() {
    let Some(scene) = Scene::start(None) else { return };
    eventually(Patience::USUAL, "the log to say so", || {
        scene.gateway.log().contains("nothing new can be stapled").then_some(())
    });
    assert!(scene.is_bare());
    // A change of what is in force, whatever it is, has it asked again at once.
    let _responder = Responder::start(
        scene.responder_port,
        &scene.authority,
        &scene.authority,
        &[(NUMBER, true)],
        60,
    );
    let changed = stapling(&scene.document, true).holdfast("maxConnections", 1000);
    scene.gateway.apply(&changed);
    eventually(Patience::USUAL, "the staple to be shown", || scene.is_good().then_some(()));
}

#[test]
fn what_was_said_is_still_shown_when_a_supervisor_comes_back_and_can_ask_nobody() {
    let Some(mut scene) = Scene::start(Some(&[(NUMBER, true)])) else { return };
    eventually(Patience::USUAL, "the staple to be shown", || scene.is_good().then_some(()));
    drop(scene.responder.take());
    scene.gateway.signal(Signal::SIGKILL);
    eventually(Patience::USUAL, "the supervisor to be gone", || {
        scene.gateway.has_ended().then_some(())
    });
    scene.gateway.start_again();
    eventually(Patience::USUAL, "the responder to be asked", || {
        scene.gateway.log().contains("nothing new can be stapled").then_some(())
    });
    assert!(scene.is_good());
    scene.gateway.apply(&stapling(&scene.document, false));
    assert!(scene.is_bare());
    scene.gateway.apply(&stapling(&scene.document, true));
    assert!(scene.is_bare(), "it was taken away");
}

#[test]
fn a_refusal_is_no_answer_and_is_asked_again_as_soon() {
    let Some(scene) = Scene::start(None) else { return };
    let told = |why: &str| {
        eventually(Patience::USUAL, why, || scene.gateway.log().contains(why).then_some(()));
    };
    let hurry = |connections: u32| {
        let changed = stapling(&scene.document, true).holdfast("maxConnections", connections);
        scene.gateway.apply(&changed);
    };
    told("nothing new can be stapled");
    // HTTP's 200 with `tryLater`.
    let listener = TcpListener::bind(("127.0.0.1", scene.responder_port)).unwrap();
    let refusing = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        // The question is a sequence with a short length.
        let is_whole = |heard: &[u8]| {
            let head = heard.windows(4).position(|it| it == b"\r\n\r\n");
            head.is_some_and(|end| {
                let question = &heard[end + 4..];
                question.len() > 1 && question.len() == usize::from(question[1]) + 2
            })
        };
        while !is_whole(&heard) {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the question breaks off");
            heard.extend_from_slice(&buffer[..count]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x30\x03\x0a\x01\x03")
            .unwrap();
    });
    hurry(1000);
    told("the responder refuses, with its status 3");
    refusing.join().unwrap();
    assert!(scene.is_bare());
    let (port, authority) = (scene.responder_port, &scene.authority);
    let _responder = Responder::start(port, authority, authority, &[(NUMBER, true)], 60);
    hurry(1001);
    eventually(Patience::USUAL, "the staple to be shown", || scene.is_good().then_some(()));
}

#[test]
fn what_would_make_clients_leave_is_not_shown() {
    for (known, why) in [
        (&[(NUMBER, false)][..], "the certificate was revoked"),
        (&[], "the certificate is not known there"),
    ] {
        let Some(scene) = Scene::start(Some(known)) else { return };
        eventually(Patience::USUAL, "the log to say why", || {
            scene.gateway.log().contains(why).then_some(())
        });
        assert!(scene.is_bare(), "{why}");
    }
}
