//! Host, path and what a new revision keeps.
