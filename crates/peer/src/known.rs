//! The store's list of known stores, as the doorkeeper wants it.

use raftgrid_driver::NodeId;
use raftgrid_store::{Acquaintance, Disk, PeerStores};

use crate::hello::KnownStores;

/// The durable list of a replica's data directory.
pub struct DurableStores<D: Disk> {
    stores: PeerStores<D>,
}

impl<D: Disk> DurableStores<D> {
    /// Of this data directory.
    pub fn new(stores: PeerStores<D>) -> Self {
        Self { stores }
    }
}

impl<D: Disk> KnownStores for DurableStores<D> {
    fn learn(&self, node: NodeId, store_uuid: &[u8]) {
        // A row without a store, or with a malformed one, says nothing.
        if let Ok(store) = <[u8; 16]>::try_from(store_uuid) {
            self.stores.learn(node, store);
        }
    }

    fn meet(&self, node: NodeId, store_uuid: &[u8]) -> Result<(), String> {
        let store = <[u8; 16]>::try_from(store_uuid).map_err(|_| format!("node {node} does not say its store"))?;
        match self.stores.meet(node, store).map_err(|error| error.to_string())? {
            Acquaintance::Known => Ok(()),
            Acquaintance::Other => Err(format!(
                "node {node} speaks from another store than before: its disk was lost, and with it what it acknowledged; \
                 remove it (gridctl cluster remove {node}) and start it with --join under a new id"
            )),
            Acquaintance::Full => Err(format!("node {node} is new, and no more nodes can be remembered")),
        }
    }
}
