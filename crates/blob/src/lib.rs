//! Artifacts on disk: fragments with their checksums, durable when a receipt is given.
//!
//! The pure half (`coding`, `footer`, `placement`) knows no file; `store` is its files. Writers keep plain copies (`code_id` 0): every fragment
//! of an artifact is the whole artifact. `coding` has the codes that come beside them, in the same files.
//! Never here: which artifact exists (the manifest decides), who fetches from whom (the replica), names given by users (never paths).

pub mod coding;
pub mod footer;
pub mod limits;
pub mod placement;
pub mod store;

pub use store::{BlobError, FragmentReader, FragmentStore, FragmentWriter};
