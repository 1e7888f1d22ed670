//! A deterministic world for all of the above (grows with the next release).

pub mod linearizability;
