//! The command line of raftgrid.
fn main() {}
