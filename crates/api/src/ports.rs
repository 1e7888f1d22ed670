//! What the services are built on: the replica's ports.

use std::sync::Arc;

use raftgrid_replica::ports::{Bytes, Cluster, Commands, Leader, Peers, Reads};

/// Everything that the services ask.
pub struct Ports {
    /// Replicated writes.
    pub commands: Arc<dyn Commands>,
    /// Rows.
    pub reads: Arc<dyn Reads>,
    /// The leader's memory.
    pub leader: Arc<dyn Leader>,
    /// Models, gradients, artifacts.
    pub bytes: Arc<dyn Bytes>,
    /// The other replicas.
    pub peers: Arc<dyn Peers>,
    /// The group itself.
    pub cluster: Arc<dyn Cluster>,
}
