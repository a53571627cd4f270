//! Whole documents, good and bad.
