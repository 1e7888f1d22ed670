//! A log, a state machine and a disk in memory, for tests. The disk loses at a crash what was not synced.

mod disk;
mod machine;

pub use disk::{MemoryDisk, MemoryLog, MemoryReader, MemorySyncer};
pub use machine::{MemoryMachine, Tables};
