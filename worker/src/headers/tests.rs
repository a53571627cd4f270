//! Header hygiene, told as tables.
