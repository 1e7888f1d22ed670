//! Named limits of the checkers.

/// Steps of the search for one key; beyond it the key is undecided, which a caller must count as a failure of the run.
pub const SEARCH_STEPS_MAX: u64 = 20_000_000;
/// Operations named in one violation.
pub const NAMED_OPS_MAX: usize = 8;
