//! A deterministic world: whole clusters in virtual time, in one thread, from one seed.
//!
//! Real: the driver's core and its turns, the store over a simulated disk, the replica with manifest and control loops, the worker's executor.
//! Simulated: network, disk, clocks, processes, machines. The same seed gives the same events, byte for byte; `gridctl sim` replays them.
//! docs/simulation.md says how to read a failure.
//!
//! Never here: a clock of the machine, a thread (but for `many`, which gives each seed to one), a random number that is not of the seed, RocksDB, gRPC.

mod ask;
mod calls;
mod check;
mod client;
mod clock;
mod course;
mod digest;
pub mod disk;
mod hands;
mod jobs;
pub mod limits;
pub mod linearizability;
mod many;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
mod node;
mod orders;
mod panics;
mod plan;
mod ports;
mod rng;
mod tasks;
mod trace;
mod trainer;
mod work;
mod worker;
mod world;

pub use disk::SimDisk;
pub use many::{nodes_of, run_many, Many, Summary};
pub use plan::{Focus, Plan};
pub use rng::Rng;
pub use trace::Sink;
pub use world::{run, run_plan, Options, Report};
