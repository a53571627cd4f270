//! Chains, names and the switches, over real handshakes in memory.
