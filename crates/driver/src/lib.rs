//! Drives raft-rs: a pure core and a threaded runner.
//!
//! * [`core`]: one member of a raft group as a pure object; inputs in, effects out. A simulator runs it in virtual time.
//! * [`runner`]: the same core on threads (`raft`, `raft-sync`, `apply`), with a cloneable [`RaftHandle`].
//! * [`runner::manual`]: the same turns without threads, for whoever decides about time and order himself.
//! * [`pack`]: many proposals in one entry.
//!
//! raft-rs is known only here, and stands in no public signature.

pub mod core;
mod error;
pub mod limits;
mod metrics;
#[doc(hidden)]
pub mod mutant;
pub mod pack;
pub mod runner;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod traits;
mod types;
mod waiters;

#[cfg(test)]
mod tests;

pub use crate::error::*;
pub use crate::runner::manual::ManualRunner;
pub use crate::runner::{Config, Fatal, RaftHandle, Runner};
pub use crate::traits::*;
pub use crate::types::*;
pub use crate::waiters::{Settled, Waiters};
