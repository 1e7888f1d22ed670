//! Real processes under fire: built `controld` binaries, real ports, real disks, and faults one after another; every history is judged by
//! the simulator's checkers.
//!
//! Owned here: starting and ending processes, the faults, the load and its record, the rebuilding of a directory as a power cut would have
//! left it. Called by the program `raftgrid-chaos` (`make chaos`) alone: no shipped program may depend on it. Timing decides no verdict,
//! but one: what must come when all faults are over comes within `limits::PATIENCE`.

pub mod bits;
pub mod calls;
pub mod chance;
pub mod cluster;
pub mod disks;
pub mod etcd;
pub mod fire;
pub mod limits;
pub mod load;
pub mod members;
pub mod nemesis;
pub mod netns;
pub mod power;
pub mod process;
pub mod proxy;
pub mod record;
pub mod report;
pub mod train;
pub mod upgrade;
pub mod verdict;
pub mod worker;
