//! Who this replica is: written once, before the first contact, and sent with every stream. A wiped disk is a new
//! node.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use raftgrid_driver::NodeId;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::layout::Layout;

/// Format of a directory whose cluster goes by the id that it was founded with.
const FOUNDED: u64 = 1;
/// Format of one whose cluster got a new id: `founded_as` is there, which older programs do not know.
const REFOUNDED: u64 = 2;

/// Identity of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; founders derive it from name and list.
    pub cluster_id: String,
    /// The replica; never 0, never reused.
    pub node_id: NodeId,
    /// This very directory: a node id that comes back with another one has lost its disk.
    pub store_uuid: Uuid,
    /// The id that a start with the usual settings derives, where the cluster goes by another one since it was recovered or restored.
    pub founded_as: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u64,
    cluster_id: String,
    node_id: NodeId,
    store_uuid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    founded_as: Option<String>,
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
        Some(found) if found > REFOUNDED => {
            return Err(StoreError::NewerFormat { dir: layout.show(), found, known: REFOUNDED });
        }
        Some(FOUNDED | REFOUNDED) => {}
        Some(_) | None => return Err(damaged("no known format".into())),
    }
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let store_uuid = Uuid::parse_str(&stored.store_uuid).map_err(|error| damaged(error.to_string()))?;
    let Stored { cluster_id, node_id, founded_as, .. } = stored;
    Ok(Some(Identity { cluster_id, node_id, store_uuid, founded_as }))
}

/// Writes a new identity, durably.
pub(crate) fn create<D: Disk>(
    disk: &D,
    layout: &Layout,
    cluster_id: &str,
    node_id: NodeId,
) -> Result<Identity, StoreError> {
    let store_uuid = uuid::Builder::from_random_bytes(disk.nonce().to_be_bytes()).into_uuid();
    let identity = Identity { cluster_id: cluster_id.to_owned(), node_id, store_uuid, founded_as: None };
    write(disk, layout, &identity)?;
    Ok(identity)
}

/// Writes an identity durably, under its final name only when it is whole.
pub(crate) fn write<D: Disk>(disk: &D, layout: &Layout, identity: &Identity) -> Result<(), StoreError> {
    let stored = Stored {
        format: if identity.founded_as.is_some() { REFOUNDED } else { FOUNDED },
        cluster_id: identity.cluster_id.clone(),
        node_id: identity.node_id,
        store_uuid: identity.store_uuid.to_string(),
        founded_as: identity.founded_as.clone(),
    };
    let mut text = serde_json::to_vec_pretty(&stored)
        .map_err(|error| StoreError::Broken { action: "encode the identity", cause: error.to_string() })?;
    text.push(b'\n');
    let new = layout.identity_new();
    disk.remove_file(&new)?;
    disk.write_at(&new, 0, &text)?;
    disk.sync_file(&new)?;
    disk.rename(&new, &layout.identity())?;
    disk.sync_dir(&layout.root)?;
    Ok(())
}

/// Refuses a directory of another cluster or node. A cluster that got a new id is known by both.
pub(crate) fn check(identity: &Identity, layout: &Layout, cluster_id: &str, node_id: NodeId) -> Result<(), StoreError> {
    if identity.cluster_id != cluster_id && identity.founded_as.as_deref() != Some(cluster_id) {
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
