//! Processes that are born, or die, at a bad moment.

use nix::sys::signal::Signal;

use super::*;

#[test]
fn a_prober_that_speaks_before_its_birth_is_written_down_is_heard() {
    let (gateway, _port, _wires) = wired();
    let old = gateway.prober_pid();
    gateway.arm("prober.born", "sleep 3000");
    kill9(old);
    let serving = || {
        let prober = gateway.status()["prober"].clone();
        (prober["pid"] != old && prober["state"] == "serving").then_some(prober["pid"].clone())
    };
    let new = eventually(Patience::USUAL, "the next one to serve", serving);
    gateway.says(&["supervisor[", "prober started", &format!("pid={new}")]);
    assert_eq!(serving(), Some(new));
}

/// Its worker has not heard yet that it drains.
#[test]
fn a_supervisor_killed_when_it_has_given_an_address_back_is_followed_by_one_that_serves_there() {
    let (gateway, port, wires) = wired();
    let mut tunnel = wires.open(port);
    gateway.protects(1);
    gateway.arm("address.given_back", "kill");
    gateway.signal(Signal::SIGTERM);
    eventually(Patience::USUAL, "its death", || gateway.has_ended().then_some(()));
    gateway.start_again();
    wires.open(port).carries("hello").unwrap();
    tunnel.carries("still here").unwrap();
    gateway.has_lost_none();
}
