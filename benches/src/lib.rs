//! Benchmarks of the storage and replication paths; see docs/benchmarks.md.
