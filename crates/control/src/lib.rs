//! Leader-side steps: scheduler, leases, shard leases, rounds. Pure.
//!
//! The replica that leads owns one [`Control`] and runs the [`Action`]s of its steps. Everything that a step decides comes out as a proposed
//! command, which the machine (manifest) guards again; what it knows beyond the rows (who beat when) is lost with the leader, by design.

mod arrays;
mod cancel;
mod clock;
mod control;
mod cron;
mod deadlines;
mod dependents;
mod drains;
mod jitter;
mod jobs;
mod leases;
pub mod limits;
mod liveness;
mod moment;
mod outbox;
mod retention;
mod rounds;
mod scheduler;
mod schedules;
mod shards;
mod timers;
mod types;
mod verify;
mod view;

pub use control::Control;
pub use cron::{Cron, CronError};
pub use jitter::Jitter;
pub use scheduler::{Gate, Placement, Plan, Planner};
pub use types::*;
