//! The stores that other replicas spoke from: one small file, replaced whole. A node id belongs to the first store that used it; a replica
//! that comes back with another one has lost its disk, and what it acknowledged with it. Never removed: node ids are never used again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use raftgrid_driver::NodeId;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::limits::MEMBERS_MAX;

/// Newest format of the file that this program knows.
const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u64,
    stores: BTreeMap<NodeId, String>,
}

/// Which store each other node spoke from first. Clones are handles to the same file.
#[derive(Clone)]
pub struct PeerStores<D: Disk> {
    disk: D,
    layout: Layout,
    stores: Arc<Mutex<BTreeMap<NodeId, Uuid>>>,
    /// Whoever writes the file.
    writing: Arc<Mutex<()>>,
}

/// What came of looking a store up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    /// The node spoke from this store before, or it was unknown and is noted durably now.
    Known,
    /// The node is known by another store.
    Other,
    /// No further node can be noted.
    Full,
}

impl<D: Disk> PeerStores<D> {
    /// Reads the file; without it nobody is known.
    pub(crate) fn open(disk: D, layout: Layout) -> Result<Self, StoreError> {
        let stores = match disk.read(&layout.peer_stores())? {
            None => BTreeMap::new(),
            Some(bytes) => {
                let damaged = |cause: String| StoreError::Damaged {
                    dir: layout.show(),
                    cause: format!("the file peer-stores cannot be read ({cause})"),
                };
                let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
                if stored.format != FORMAT {
                    return Err(damaged(format!("format {} is not known", stored.format)));
                }
                let parsed = |(node, text): (NodeId, String)| Ok((node, Uuid::parse_str(&text)?));
                let parsed: Result<_, uuid::Error> = stored.stores.into_iter().map(parsed).collect();
                parsed.map_err(|error| damaged(error.to_string()))?
            }
        };
        Ok(Self { disk, layout, stores: Arc::new(Mutex::new(stores)), writing: Arc::default() })
    }

    /// Takes over what the state tables say of a node that is not known here. Not written: the tables are durable, and are asked again at
    /// every start. Does not wait for the disk, nor for whoever writes.
    pub fn learn(&self, node: NodeId, store_uuid: [u8; 16]) {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if stores.len() < MEMBERS_MAX {
            stores.entry(node).or_insert(Uuid::from_bytes(store_uuid));
        }
    }

    /// Looks `store_uuid` up as that of `node`. A node that is not known is noted first: when this answers `Known` it survives a power cut.
    pub fn meet(&self, node: NodeId, store_uuid: [u8; 16]) -> Result<Acquaintance, StoreError> {
        let store = Uuid::from_bytes(store_uuid);
        // Held over the write: two first streams of one node must not both be the first.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match stores.get(&node) {
            Some(known) if *known == store => return Ok(Acquaintance::Known),
            Some(_) => return Ok(Acquaintance::Other),
            None if stores.len() >= MEMBERS_MAX => return Ok(Acquaintance::Full),
            None => {}
        }
        let mut next = stores;
        next.insert(node, store);
        self.write(&next)?;
        // The tables may have said another one meanwhile: then that one stands.
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let known = stores.entry(node).or_insert(store);
        Ok(if *known == store { Acquaintance::Known } else { Acquaintance::Other })
    }

    fn write(&self, stores: &BTreeMap<NodeId, Uuid>) -> Result<(), StoreError> {
        let stores = stores.iter().map(|(node, store)| (*node, store.to_string())).collect();
        let stored = Stored { format: FORMAT, stores };
        let mut text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| StoreError::Broken { action: "encode the known stores", cause: error.to_string() })?;
        text.push(b'\n');
        let new = self.layout.peer_stores_new();
        self.disk.remove_file(&new)?;
        self.disk.write_at(&new, 0, &text)?;
        self.disk.sync_file(&new)?;
        self.disk.rename(&new, &self.layout.peer_stores())?;
        self.disk.sync_dir(&self.layout.root)?;
        Ok(())
    }
}
