//! Compilation of whole gateways, from documents.
