//! Routing, told as tables and checked against a naive twin.
