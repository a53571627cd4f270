//! Certificate files that change on the disk: what is whole is shown, what is not is left alone, and nobody is disturbed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;

use crate::harness::{
    Backend, Certificate, Document, Gateway, Patience, Visitor, WebSocket, directory, eventually,
    free_port,
};

fn document(backend: &Backend, port: u16, certificate: &Certificate) -> Document {
    let document = Document::new().pool("chat", &[backend.address]);
    document.tls_site("site", port, certificate, "chat")
}

fn shown(port: u16, trusted: &[&Certificate]) -> CertificateDer<'static> {
    Visitor::new(trusted, None, &[&TLS13]).visit(port, "chat.test").unwrap().shown()
}

fn becomes(port: u16, old: &Certificate, new: &Certificate) {
    eventually(Patience::USUAL, "the new certificate to be shown", || {
        (shown(port, &[old, new]) == new.der).then_some(())
    });
}

/// Puts the files of `new` in the place of those of `old`, whole at once.
fn replace(old: &Certificate, new: &Certificate) {
    fs::rename(&new.key_file, &old.key_file).unwrap();
    fs::rename(&new.chain_file, &old.chain_file).unwrap();
}

#[test]
fn a_renewed_certificate_is_shown_by_every_listener_and_no_tunnel_notices() {
    let directory = directory();
    let old = Certificate::make(directory.path(), "site", "chat.test");
    let new = Certificate::make(directory.path(), "renewed", "chat.test");
    let (backend, port, more) = (Backend::start("one"), free_port(), free_port());
    let document = document(&backend, port, &old).tls_site("more", more, &old, "chat");
    let gateway = Gateway::start_in(directory, &document);
    let worker = gateway.worker_pids();
    let mut socket = WebSocket::open_tls(port, "/echo", &old);
    replace(&old, &new);
    becomes(port, &old, &new);
    becomes(more, &old, &new);
    assert!(socket.echoes("still here"));
    assert_eq!(gateway.worker_pids(), worker);
    assert_eq!(gateway.revision(), 1, "the document is the same");
    let said = gateway.must(&["reload"]);
    assert!(said.contains("has not changed"), "{said}");
    assert_eq!(gateway.revision(), 1);
    gateway.must(&["restart"]);
    assert_eq!(shown(port, &[&old, &new]), new.der);
}

#[test]
fn half_a_pair_keeps_the_old_one_and_the_other_half_brings_the_new_one() {
    let directory = directory();
    let old = Certificate::make(directory.path(), "site", "chat.test");
    let new = Certificate::make(directory.path(), "renewed", "chat.test");
    let (backend, port) = (Backend::start("one"), free_port());
    let gateway = Gateway::start_in(directory, &document(&backend, port, &old));
    let complains = |what: &str| {
        eventually(Patience::USUAL, "the log to say what is wrong", || {
            gateway.log().contains(what).then_some(())
        });
        assert_eq!(shown(port, &[&old, &new]), old.der);
        let status = gateway.must(&["status"]);
        assert!(status.contains("certificate files were not taken"), "{status}");
    };
    fs::copy(&new.chain_file, &old.chain_file).unwrap();
    complains("does not belong to the certificate");
    fs::write(&old.key_file, "-----BEGIN PRIVATE KEY-----\nMII").unwrap();
    complains("no private key that can be read");
    fs::remove_file(&old.key_file).unwrap();
    complains("cannot be read: No such file");
    fs::copy(&new.key_file, &old.key_file).unwrap();
    becomes(port, &old, &new);
    eventually(Patience::USUAL, "nothing to be wrong any more", || {
        let status = gateway.must(&["status"]);
        (!status.contains("certificate files were not taken")).then_some(())
    });
    assert_eq!(gateway.revision(), 1);
    let key = fs::read_to_string(&new.key_file).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!gateway.log().contains(secret));
}

/// As a Kubernetes secret is mounted: what is replaced is a link to a directory.
#[test]
fn a_swapped_link_above_the_files_is_seen() {
    let directory = directory();
    let [first, second] = ["v1", "v2"].map(|version| {
        fs::create_dir(directory.path().join(version)).unwrap();
        Certificate::make(&directory.path().join(version), "tls", "chat.test")
    });
    let swap = |to: &str, root: &Path| {
        symlink(to, root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
    };
    swap("v1", directory.path());
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), directory.path().join(name)).unwrap();
    }
    let linked = Certificate {
        chain_file: directory.path().join("tls.crt"),
        key_file: directory.path().join("tls.key"),
        root_file: first.root_file.clone(),
        host: first.host.clone(),
        der: first.der.clone(),
    };
    let (backend, port) = (Backend::start("one"), free_port());
    let gateway = Gateway::start_in(directory, &document(&backend, port, &linked));
    assert_eq!(shown(port, &[&first, &second]), first.der);
    swap("v2", gateway.path());
    becomes(port, &first, &second);
    swap("v1", gateway.path());
    becomes(port, &second, &first);
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn files_of_a_document_that_was_applied_are_watched_too() {
    let directory = directory();
    let old = Certificate::make(directory.path(), "site", "chat.test");
    let [second, third] =
        ["second", "third"].map(|name| Certificate::make(directory.path(), name, "chat.test"));
    let (backend, port) = (Backend::start("one"), free_port());
    let gateway = Gateway::start_in(directory, &document(&backend, port, &old));
    gateway.apply(&document(&backend, port, &second));
    assert_eq!(shown(port, &[&old, &second]), second.der);
    replace(&second, &third);
    becomes(port, &second, &third);
    assert_eq!(gateway.revision(), 2);
}

#[test]
fn a_reload_reads_files_that_nobody_watches_under_the_same_revision() {
    let directory = directory();
    let old = Certificate::make(directory.path(), "site", "chat.test");
    let new = Certificate::make(directory.path(), "renewed", "chat.test");
    let (backend, port) = (Backend::start("one"), free_port());
    let document = document(&backend, port, &old).holdfast("watchCertificateFiles", false);
    let gateway = Gateway::start_in(directory, &document);
    replace(&old, &new);
    let said = gateway.must(&["reload"]);
    assert!(said.contains("certificate files have changed"), "{said}");
    assert_eq!(shown(port, &[&old, &new]), new.der);
    assert_eq!(gateway.revision(), 1);
}
