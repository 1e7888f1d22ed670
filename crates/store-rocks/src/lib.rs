//! RocksDB behind store's Disk trait.
