//! Who this replica is: written once, before the first contact, and sent with every stream. A wiped disk is a new
//! node.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use raftgrid_driver::NodeId;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::layout::Layout;

/// Newest format of a data directory that this program knows.
pub(crate) const FORMAT: u64 = 1;

/// Identity of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; founders derive it from name and list.
    pub cluster_id: String,
    /// The replica; never 0, never reused.
    pub node_id: NodeId,
    /// This very directory: a node id that comes back with another one has lost its disk.
    pub store_uuid: Uuid,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u64,
    cluster_id: String,
    node_id: NodeId,
    store_uuid: String,
}

/// Reads the identity of a directory; None when it has none yet.
pub(crate) fn read<D: Disk>(disk: &D, layout: &Layout) -> Result<Option<Identity>, StoreError> {
    let Some(bytes) = disk.read(&layout.identity())? else {
        return Ok(None);
    };
    let damaged = |cause: String| StoreError::Damaged {
        dir: layout.show(),
        cause: format!("the file identity cannot be read ({cause})"),
    };
    let format = serde_json::from_slice::<serde_json::Value>(&bytes).map_err(|error| damaged(error.to_string()))?;
    match format.get("format").and_then(serde_json::Value::as_u64) {
        Some(found) if found > FORMAT => {
            return Err(StoreError::NewerFormat { dir: layout.show(), found, known: FORMAT });
        }
        Some(FORMAT) => {}
        Some(_) | None => return Err(damaged("no known format".into())),
    }
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let store_uuid = Uuid::parse_str(&stored.store_uuid).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(Identity { cluster_id: stored.cluster_id, node_id: stored.node_id, store_uuid }))
}

/// Writes a new identity, durably, under its final name only when it is whole.
pub(crate) fn create<D: Disk>(
    disk: &D,
    layout: &Layout,
    cluster_id: &str,
    node_id: NodeId,
) -> Result<Identity, StoreError> {
    let store_uuid = uuid::Builder::from_random_bytes(disk.nonce().to_be_bytes()).into_uuid();
    let identity = Identity { cluster_id: cluster_id.to_owned(), node_id, store_uuid };
    let stored =
        Stored { format: FORMAT, cluster_id: cluster_id.to_owned(), node_id, store_uuid: store_uuid.to_string() };
    let mut text = serde_json::to_vec_pretty(&stored)
        .map_err(|error| StoreError::Broken { action: "encode the identity", cause: error.to_string() })?;
    text.push(b'\n');
    let new = layout.identity_new();
    disk.remove_file(&new)?;
    disk.write_at(&new, 0, &text)?;
    disk.sync_file(&new)?;
    disk.rename(&new, &layout.identity())?;
    disk.sync_dir(&layout.root)?;
    Ok(identity)
}

/// Refuses a directory of another cluster or node.
pub(crate) fn check(identity: &Identity, layout: &Layout, cluster_id: &str, node_id: NodeId) -> Result<(), StoreError> {
    if identity.cluster_id != cluster_id {
        return Err(StoreError::OtherCluster {
            dir: layout.show(),
            found: identity.cluster_id.clone(),
            wanted: cluster_id.to_owned(),
        });
    }
    if identity.node_id != node_id {
        return Err(StoreError::OtherNode { dir: layout.show(), found: identity.node_id, wanted: node_id });
    }
    Ok(())
}
