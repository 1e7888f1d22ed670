//! Limits of this crate.

/// Log lines that wait for the writing thread. A full queue drops lines and says how many: a log never holds up consensus.
pub(crate) const LOG_QUEUE_LINES_MAX: usize = 8_192;
/// Distinct (name, labels) pairs of one registry. A label whose values have no bound is a defect that must show early.
pub(crate) const SERIES_MAX: usize = 10_000;
