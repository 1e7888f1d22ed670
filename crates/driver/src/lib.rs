//! Drives raft-rs: a pure core and a threaded runner.

mod traits;
mod types;

pub use traits::*;
pub use types::*;
