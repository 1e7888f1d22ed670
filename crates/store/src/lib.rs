//! Log, tables, snapshots, boot, install, truncation, identity: all logic, over a narrow `Disk` trait.
//!
//! One data directory belongs to one replica. `Store::open` gives its parts: `RaftLog` (the driver's `LogStore`),
//! `StateTables` (the apply thread's rows), `SnapshotShelf` (what the transport sends and receives). The log is the
//! only promise; the tables are a cache of its prefix. The store starts no thread and keeps no clock: whoever calls
//! decides where a call runs. Formats: docs/storage-format.md.

mod boot;
mod checkpoint;
mod codec;
pub mod disk;
mod error;
mod identity;
mod layout;
pub mod limits;
mod log;
mod mark;
mod peer_stores;
mod recover;
mod refound;
mod restore;
mod room;
mod shelf;
mod staging;
mod tables;
mod view;

pub use boot::{BootMode, BootReport, Booted, Store};
pub use checkpoint::Checkpointer;
pub use disk::{Disk, DiskError, DiskErrorKind, DiskResult};
pub use error::{StoreError, LOST_LOG};
pub use identity::Identity;
pub use layout::is_plain_name;
pub use log::{LogReaderImpl, RaftLog, SyncerImpl};
pub use peer_stores::{Acquaintance, PeerStores};
pub use recover::{recover, CommittedArtifact, Recovered, Recovery};
pub use refound::{new_cluster_id, next_base_index, Draft};
pub use restore::{restore, Restoration, RestoreFile, Restored, Settle};
pub use room::{Room, RoomWatch};
pub use shelf::{SnapshotFile, SnapshotReader, SnapshotShelf};
pub use staging::Staging;
pub use tables::StateTables;
pub use view::{StateRows, TablesReader, TablesView};
