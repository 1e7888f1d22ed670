//! Executor of tasks: a pure state machine and a process host.
//!
//! `executor` decides (no clock, thread, process or socket: the simulator runs it); `runtime` carries out what it decides, with a
//! `ControlPlane` towards the replicas and a `Host` towards the machine. The transport is not known here: `agent` brings it.
//!
//! Invariants: a process is killed at the latest ⅔ TTL after the *sending* of the last acknowledged renewal; nothing is started
//! before what a predecessor left is dead; a task ends with one report, or with none if its lease went to somebody else.

pub mod blocks;
pub mod bundle;
mod cgroup;
mod checks;
pub mod clock;
pub mod config;
pub mod confinement;
mod environment;
pub mod executor;
mod gang;
mod generation;
pub mod gpus;
pub mod host;
mod interpreter;
mod leftovers;
pub mod limits;
mod logs;
pub mod matmul;
pub mod models;
mod node;
mod output;
pub mod plan;
pub mod plane;
mod probe;
mod process;
mod reason;
pub mod runtime;
pub mod sealed;
pub mod shim;
mod spawner;
mod stage;
pub mod table;
mod venvs;

pub use checks::look_at_gpus;
pub use config::WorkerConfig;
pub use executor::LeaseId;
pub use host::{HostError, WorkerDir};
pub use interpreter::{look_at_python, Interpreter};
pub use plane::{ControlPlane, Fetch, PlaneError, ReadSeek};
pub use runtime::{Worker, WorkerEnd};
pub use table::{TaskContext, TaskFacts, TaskTable};
