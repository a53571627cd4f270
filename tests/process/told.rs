//! What operators are told of tunnels whose workers were killed: the same as of any other.

use crate::harness::{Gateway, Patience, Wire, eventually, finish, reset, rest};
use crate::survive::wired;

/// What the line of an end says that does not differ from one run to the next.
const TOLD: [&str; 6] = ["cause=", "client_end=", "backend_end=", "bytes_", "site=", "pool="];

/// The lines of ends, once there are so many.
fn told_ends(gateway: &Gateway, count: usize) -> Vec<String> {
    eventually(Patience::USUAL, "each end to be told", || {
        Some(gateway.ends_told()).filter(|told| told.len() >= count)
    })
}

/// What is told of tunnels that end in each way, with `disturb` at every moment at which something may be lost: the rows of
/// `tunnels --json` and the lines of their ends, without what differs from one run to the next.
fn account(disturb: impl Fn(&Gateway)) -> (Vec<String>, Vec<String>) {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..6).map(|_| wires.open(port)).collect();
    let clients: Vec<u16> =
        tunnels.iter().map(|it| it.client.local_addr().unwrap().port()).collect();
    // Each says something of its own length, so that none is taken for another.
    let say = |tunnels: &mut [Wire], text: &str| {
        for (place, tunnel) in tunnels.iter_mut().enumerate() {
            tunnel.carries(&text.repeat(place + 1)).unwrap();
        }
    };
    let rows = |each: u64| {
        eventually(Patience::USUAL, "every byte to be listed", || {
            let rows: Option<Vec<_>> = clients.iter().map(|it| gateway.tunnel_of(*it)).collect();
            let right = |(place, row): (u64, &serde_json::Value)| {
                [&row["bytes_in"], &row["bytes_out"]].iter().all(|it| **it == each * (place + 1))
            };
            rows.filter(|rows| (0..).zip(rows).all(right))
        })
    };
    say(&mut tunnels, "before");
    let before = rows(6);
    disturb(&gateway);
    say(&mut tunnels, "after!");
    let after = rows(12);
    for (before, after) in before.iter().zip(&after) {
        for field in ["id", "opened", "client", "backend", "trace_id", "site", "pool", "settings"] {
            assert_eq!(before[field], after[field], "{field}");
        }
    }
    let [one, two, three, four, five, six] = <[Wire; 6]>::try_from(tunnels).ok().unwrap();
    let halves = [one.ends(true), two.ends(false)];
    for [first, _] in &halves {
        finish(first);
    }
    disturb(&gateway);
    for [mut first, mut second] in halves {
        assert_eq!(rest(&mut second), (vec![], false));
        finish(&second);
        assert_eq!(rest(&mut first), (vec![], false));
    }
    reset(three.client);
    reset(four.backend);
    gateway.must(&["close", after[4]["id"].as_str().unwrap()]);
    // A line waits in its process until that has written it, and dies with it (docs/limits.md); what is counted does not.
    told_ends(&gateway, 5);
    disturb(&gateway);
    drop((three.backend, four.client, five));
    gateway.holds_exactly(1);
    drop(six);
    gateway.holds_exactly(0);
    let ends = told_ends(&gateway, 6);
    // As it says it: one line each, of the tunnel that was listed.
    let end_of = |(place, row): (usize, &serde_json::Value)| {
        let id = u64::from_str_radix(row["id"].as_str().unwrap(), 16).unwrap();
        let trace = format!("trace_id={}", row["trace_id"]);
        let end = ends.iter().filter(|end| end.contains(&format!("tunnel={id} ")));
        let [end] = <[&String; 1]>::try_from(end.collect::<Vec<_>>()).unwrap();
        assert!(end.contains(&trace) && end.contains(" INFO "), "{end}");
        let told =
            end.split_whitespace().filter(|word| TOLD.iter().any(|key| word.starts_with(key)));
        format!("{place} {}", told.collect::<Vec<_>>().join(" "))
    };
    let told = after.iter().enumerate().map(end_of).collect();
    eventually(Patience::USUAL, "each end to be reported", || {
        (gateway.count("holdfast_tunnels_closed_total") >= 6).then_some(())
    });
    let counted = ["opened", "closed", "lost", "bytes"].map(|what| {
        let name = format!("holdfast_tunnels_{what}_total");
        format!("{name} {}", gateway.count(&name))
    });
    (told, counted.to_vec())
}

#[test]
fn what_is_told_of_a_killed_workers_tunnels_is_as_if_nothing_had_happened() {
    let undisturbed = account(|_| ());
    let causes = ["client", "backend", "client", "backend", "admin", "client"];
    let in_order = |(end, cause): (&String, &str)| end.contains(&format!("cause=\"{cause}\""));
    assert!(undisturbed.0.iter().zip(causes).all(in_order), "{undisturbed:?}");
    let legs =
        [("fin", "fin"), ("fin", "fin"), ("reset", "open"), ("open", "reset"), ("open", "open")];
    for (end, (client, backend)) in undisturbed.0.iter().zip(legs) {
        let both = format!("client_end=\"{client}\" backend_end=\"{backend}\"");
        assert!(end.contains(&both), "{end} has no {both}");
    }
    let disturbed = account(|gateway| {
        gateway.replace_by_force();
    });
    assert_eq!(disturbed, undisturbed);
}
