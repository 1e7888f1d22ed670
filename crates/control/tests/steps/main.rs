//! Scripted conversations with `Control`: inputs and rows in, actions out.

mod closed_loop;
mod deadlines;
mod endings;
mod jobs;
mod leases;
mod liveness;
mod loose_rounds;
mod rounds;
mod scheduler;
mod shards;
mod world;
