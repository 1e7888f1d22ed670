//! Messages of raftgrid: the wire contract, the replicated commands, the rows. Generated from `proto/`; nothing here is written by hand.

#[allow(warnings, clippy::all, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos/mod.rs"));
}

pub use generated::v1;

/// Every file of `proto/` as an encoded `FileDescriptorSet`, services included: for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protos/mod.desc"));
