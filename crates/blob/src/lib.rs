//! Artifacts on disk: fragments with their checksums, durable when a receipt is given.
//!
//! The pure half (`coding`, `footer`, `placement`) knows no file; `store` is its files on a `medium`, `cache` those that are decoded, `spare` those that
//! are written over, `stripes` goes from the
//! one to the other. Plain copies (`code_id` 0): every fragment of an artifact is the whole artifact. `coding` has the other codes.
//! Never here: which artifact exists (the manifest decides), who fetches from whom (the replica), names given by users (never paths).

mod cache;
pub mod coding;
pub mod footer;
pub mod limits;
pub mod medium;
pub mod mutant;
pub mod placement;
mod spare;
pub mod store;
pub mod stripes;

pub use cache::Cache;
pub use spare::SpareLimits;
pub use store::{file_number, fragment_of, generation_of, BlobError, FragmentReader, FragmentStore, FragmentWriter};
