//! Copies of committed artifacts in a directory or an S3-compatible store.
//!
//! Owned here: what waits, the names of objects, uploads and their order, and everything that is known of `object_store` and the event loop that
//! it needs. Called by `controld`, which brings a [`Source`]. Never here: what an artifact is and who leads; replicated state (the destination is
//! asked what it has); anything that a caller waits for. docs/decisions/0038 says why it is so.
//!
//! Invariants: an object `blobs/SHA256` has exactly these bytes, or is not there; a pointer is written after its bytes; nothing is deleted but
//! uploads that have not ended.

mod address;
mod backlog;
mod copy;
mod failure;
mod io;
mod keys;
pub mod limits;
mod metrics;
mod run;
mod source;
mod store;

pub use address::{check_endpoint, Address, AddressError};
pub use run::{Config, Mirror, StartError};
pub use source::{Artifact, Body, Seen, Source};
pub use store::Reach;
