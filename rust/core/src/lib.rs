//! The engine of `llmcache_fast`, free of Python.
//!
//! What belongs here: everything that decides (canonical form, fingerprint, entries, validity,
//! eviction, records, the disk store, the journal). What does not: object conversion, reference counts,
//! event loops; those live in the binding (`rust/python`).
#![forbid(unsafe_code)]

pub mod blinding;
pub mod canonical;
#[cfg(feature = "disk")]
pub mod disk;
pub mod documents;
pub mod envelope;
pub mod fingerprint;
pub mod guard;
pub mod journal;
pub mod keyring;
pub mod l1;
mod lanes;
mod lock;
pub mod markers;
pub mod profile;
pub mod vector;
