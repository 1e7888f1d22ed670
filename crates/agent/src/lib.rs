//! workerd's loopback service for Python, and the worker's control plane over gRPC; `run_worker` puts the two and the worker together.
//!
//! Owned here: who may ask (a token per task), the spool that holds a gradient on its way, trying again while the control plane moves,
//! and the file of acknowledgements. Never here: what a process does or when it is stopped (`worker`), what a gradient means (`manifest`).
//!
//! Invariants: nothing of a fenced task is passed on; Python gets an Ack only after the control plane gave one and it is noted.

mod acks;
mod calls;
mod control_plane;
mod forward;
pub mod limits;
mod run;
mod service;
mod spool;
mod upload;

pub use control_plane::GrpcControlPlane;
pub use run::{run_worker, run_worker_in, Handle, RunError};
pub use service::{AgentServer, Parts};
