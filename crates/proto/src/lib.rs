//! Messages of raftgrid: the wire contract, the replicated commands, the rows. Generated from `proto/`; nothing here is written by hand.

#[allow(warnings, clippy::all)] // generated
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos/mod.rs"));
}

pub use generated::v1;
