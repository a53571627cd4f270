//! Connections kept, shared, dropped.
