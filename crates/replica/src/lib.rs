//! One control-plane node assembled, without transport.
//!
//! Owns the glue: the state machine over the store's tables, the event ring, the leader's loops, long polls, and the road of bytes (spool,
//! copies, receipts, commit). Transports call it through `ports`. It decides nothing itself: guards are in `manifest`, plans in `control`,
//! arithmetic in `train`.
//! Never here: gRPC, RocksDB, raft-rs.

mod acks;
mod aggregate;
mod arriving;
mod artifacts;
mod assembly;
mod backoff;
mod backup;
#[cfg(test)]
mod bed;
mod budget;
mod by_hand;
mod census;
pub mod clock;
mod cluster_time;
mod contact;
mod copies;
mod damaged;
mod evacuate;
mod explain;
mod first_model;
mod gather;
mod gradients;
mod group;
mod handed_out;
mod handover;
mod interests;
mod janitor;
mod leader;
mod lease;
pub mod limits;
mod machine;
mod membership;
mod mender;
mod mending;
mod metrics;
mod models;
mod node;
mod old_clients;
mod polls;
mod pool;
pub mod ports;
mod proposals;
mod reads;
mod ready;
mod ring;
mod room;
mod silent;
mod sources;
mod spread;
mod steps;
mod timer;
mod uploads;
mod versions;
mod views;
mod waits;

/// What a schedule's line means, for those who check one before it is put.
pub use raftgrid_control::{Cron, CronError};

pub use budget::BlobSettings;
pub use by_hand::{Group, ReplicaByHand};
pub use group::ReplicaCluster;
pub use node::{Replica, ReplicaConfig, StartError};
pub use pool::PoolJob;
pub use proposals::{Proposals, PROPOSE_PATH};
pub use raftgrid_blob::SpareLimits;
pub use reads::READ_INDEX_PATH;
pub use room::RoomGauge;
pub use versions::{Heard, Versions};
