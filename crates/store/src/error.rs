//! What can go wrong in the store. Each text names the cause and the next step, since it is what the operator gets to
//! read.

use raftgrid_driver::NodeId;

use crate::disk::DiskError;

/// The line of durability rule 7.
pub const LOST_LOG: &str = "the log of this replica lost acknowledged data; remove it and join as a new node";

/// A failure of the store. Unless a variant says otherwise a retry does not help, and the process must end.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Two processes, one directory. Trying again helps once the other has ended.
    #[error(
        "failed to open {dir}: another process has it open; stop that process or give this one its own data directory"
    )]
    Busy {
        /// The data directory.
        dir: String,
    },
    /// The directory belongs to another cluster.
    #[error(
        "failed to open {dir}: it belongs to cluster {found:?}, not to {wanted:?}; \
         give this replica its own data directory or correct the cluster's name and list of peers"
    )]
    OtherCluster {
        /// The data directory.
        dir: String,
        /// Cluster id in the directory.
        found: String,
        /// Cluster id of this start.
        wanted: String,
    },
    /// The directory belongs to another replica.
    #[error(
        "failed to open {dir}: it belongs to node {found}, not to node {wanted}; \
         give this replica its own data directory or correct its node id"
    )]
    OtherNode {
        /// The data directory.
        dir: String,
        /// Node id in the directory.
        found: NodeId,
        /// Node id of this start.
        wanted: NodeId,
    },
    /// The log does not hold what was acknowledged (durability rule 7).
    #[error("{line} ({dir}: {cause})", line = LOST_LOG)]
    LostLog {
        /// The data directory.
        dir: String,
        /// How it shows.
        cause: String,
    },
    /// Log, tables and identity do not belong together.
    #[error("failed to open {dir}: {cause}; remove this replica's data directory and join as a new node")]
    Damaged {
        /// The data directory.
        dir: String,
        /// What does not fit.
        cause: String,
    },
    /// The directory was written by a later version.
    #[error("failed to open {dir}: its format {found} is newer than this program's {known}; start a newer raftgrid")]
    NewerFormat {
        /// The data directory.
        dir: String,
        /// Format in the directory.
        found: u64,
        /// Newest format known.
        known: u64,
    },
    /// A joiner is told to found a cluster.
    #[error(
        "failed to found a cluster in {dir}: this replica was started as a joiner and has no state yet; \
         start it without founding, or remove the directory"
    )]
    FoundingJoiner {
        /// The data directory.
        dir: String,
    },
    /// The list of founders makes no sense.
    #[error("failed to found a cluster: {cause}; correct the node id and the list of founders")]
    Founders {
        /// What is wrong with it.
        cause: String,
    },
    /// A snapshot that arrived is not what was announced. Sending it again may help.
    #[error("failed to take in a snapshot: {cause}; it has to be sent again")]
    Staged {
        /// What does not fit.
        cause: String,
    },
    /// A snapshot is not, or no longer, on the shelf. Asking for a newer one helps.
    #[error("failed to read snapshot {name:?}: it is not here any more; a newer one has to be sent")]
    NoSnapshot {
        /// Its name.
        name: String,
    },
    /// A directory cannot become the beginning of a new group.
    #[error("failed to {action} {dir}: {cause}")]
    Refound {
        /// "recover", "restore into".
        action: &'static str,
        /// The data directory.
        dir: String,
        /// Why not, and what to do.
        cause: String,
    },
    /// A caller broke a rule that raftgrid itself must keep.
    #[error("failed to {action}: {cause}; this is a defect of raftgrid, and the process must end")]
    Broken {
        /// What was tried.
        action: &'static str,
        /// Which rule was broken.
        cause: String,
    },
}
