//! RocksDB behind the store's `Disk` trait, and the file system beside it.
//!
//! The only crate that knows RocksDB. It holds no logic of the store's: it opens, writes, reads, syncs, and says
//! which kind of failure it met. Options and their reasons: `options.rs`.

mod database;
mod disk;
mod error;
mod flusher;
pub mod limits;
mod options;

pub use database::{RocksLog, RocksLook, RocksState, RocksView};
pub use disk::RocksDisk;
