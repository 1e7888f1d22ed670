//! Bugs planted on purpose, to see whether the simulator finds them (`make sim-mutants`). Only with the feature `mutants`, which no shipped
//! program has; without it `on` is a constant and the planted code is not compiled in. docs/simulation.md lists them.

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::{PoisonError, RwLock};

    static ACTIVE: RwLock<&str> = RwLock::new("");

    /// Whether the planted bug `name` is active.
    pub fn on(name: &str) -> bool {
        *ACTIVE.read().unwrap_or_else(PoisonError::into_inner) == name
    }

    /// Makes `name` the active one, for the whole process; "" is none.
    pub fn set(name: &'static str) {
        *ACTIVE.write().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

#[cfg(feature = "mutants")]
pub use switch::{on, set};

/// No bug is planted in this program.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_name: &str) -> bool {
    false
}
