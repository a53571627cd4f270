//! Tunnels that outlive their processes while the network loses packets: what crash recovery rests on, the kernel's
//! counters of both sockets, has to be exact in the middle of any repair.

use crate::harness::where_packets_are_lost;
use crate::{sealed, survive};

#[test]
fn no_byte_is_lost_or_doubled_when_packets_are_lost_and_workers_killed() {
    where_packets_are_lost(
        "loss::no_byte_is_lost_or_doubled_when_packets_are_lost_and_workers_killed",
        survive::no_byte_is_lost_or_doubled_when_workers_are_killed,
    );
}

#[test]
fn no_byte_is_lost_or_doubled_when_packets_are_lost_and_workers_restarted() {
    where_packets_are_lost(
        "loss::no_byte_is_lost_or_doubled_when_packets_are_lost_and_workers_restarted",
        survive::no_byte_is_lost_or_doubled_when_workers_are_restarted,
    );
}

#[test]
fn no_sealed_byte_is_lost_or_doubled_when_packets_are_lost_and_workers_replaced() {
    where_packets_are_lost(
        "loss::no_sealed_byte_is_lost_or_doubled_when_packets_are_lost_and_workers_replaced",
        sealed::peers_that_change_their_keys_and_send_records_in_pieces_lose_nothing,
    );
}
