//! Processes that are born, or die, at a bad moment.

use nix::sys::signal::Signal;

use super::*;

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
