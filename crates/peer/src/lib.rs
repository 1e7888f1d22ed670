//! Raft, snapshot and fragment streams between replicas.
