//! Refusals, the join with health, what a new revision keeps.
