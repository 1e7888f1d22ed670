//! Artifacts on disk: fragments, receipts, scrub. A pure half and its files.
