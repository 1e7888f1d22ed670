//! A data directory for a new group, out of the files of a snapshot that another group made.
//!
//! Every founder of the new group gets the same base: same rows, same index and term, the founders as configuration. Whoever calls makes the
//! directories of all founders with the same `Restoration`, but for the node's own id.

use std::io::Read;
use std::path::Path;

use raftgrid_driver::{Index, NodeId, SnapshotMeta, Term};
use raftgrid_manifest::refound::end_leases;
use raftgrid_manifest::{views, Change, Rows, RowsError};

use crate::boot::{BootMode, Store};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::identity::{self, Identity};
use crate::layout::{is_plain_name, Layout};
use crate::limits::CHUNK_BYTES_MAX;
use crate::refound::{conf_of, install, next_base_index, Draft};

/// A file of the snapshot.
pub struct RestoreFile<'a> {
    /// Its plain name.
    pub name: String,
    /// Its content.
    pub content: Box<dyn Read + 'a>,
}

/// Changes that follow from the rows.
pub type Settle<'a> = dyn Fn(&dyn Rows) -> Result<Vec<Change>, RowsError> + 'a;

/// What is restored, and as what.
pub struct Restoration<'a> {
    /// The new group's id, the same for all founders.
    pub cluster_id: String,
    /// What the founders' settings derive.
    pub founded_as: String,
    /// Whose directory this becomes.
    pub node_id: NodeId,
    /// The founders.
    pub founders: &'a [NodeId],
    /// Where the snapshot stands, as its manifest says.
    pub stands: (Index, Term),
    /// Now; the same for all.
    pub unix_s: u64,
    /// The changes that give the rows to the founders (`manifest::refound::settle`); the same for all.
    pub settle: &'a Settle<'a>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the new group's log begins.
    pub base: (Index, Term),
    /// Digest of the state; equal for all founders.
    pub digest: Vec<u8>,
    /// Leases that were ended: their tasks are tried again.
    pub leases_ended: usize,
}

/// Fills `dir`, which must be empty; `beside` puts there what does not belong to the store. Until it returns, the directory is not one that a
/// founder would start with.
pub fn restore<'f, D: Disk>(
    disk: D,
    dir: &Path,
    plan: &Restoration<'_>,
    files: impl Iterator<Item = Result<RestoreFile<'f>, String>>,
    beside: impl FnOnce() -> Result<(), String>,
) -> Result<Restored, StoreError> {
    let layout = Layout::new(dir);
    let refused = |cause: String| StoreError::Refound { action: "restore into", dir: layout.show(), cause };
    let rows_failed = |error: RowsError| refused(error.to_string());
    if !disk.list(dir)?.is_empty() {
        return Err(refused("it is not empty; give an empty directory".to_owned()));
    }
    if !plan.founders.contains(&plan.node_id) {
        return Err(refused(format!("replica {} is not among the founders", plan.node_id)));
    }
    let mode = BootMode::Join { cluster_id: plan.cluster_id.clone(), node_id: plan.node_id };
    let mut booted = Store::open(disk.clone(), dir, mode)?;
    let mut draft = take_in(&disk, &layout, plan.stands, files)?;
    let mut stands = draft.stands().0;
    let payloads = end_leases(&draft, "the cluster was restored from a backup").map_err(rows_failed)?;
    let open_before = open_leases(&draft).map_err(rows_failed)?;
    for payload in payloads {
        stands += 1;
        draft.apply(stands, &[payload])?;
    }
    let changes = (plan.settle)(&draft).map_err(rows_failed)?;
    draft.write(&changes)?;
    let digest = views::digest(&draft).map_err(rows_failed)?;
    let leases_ended = open_before - open_leases(&draft).map_err(rows_failed)?;
    let index = next_base_index(stands, plan.unix_s).ok_or_else(|| refused("no positions are left".to_owned()))?;
    let base = (index, plan.stands.1 + 1);
    install(&mut booted, draft, SnapshotMeta { index: base.0, term: base.1, conf: conf_of(plan.founders) })?;
    beside().map_err(refused)?;
    let own = Identity { founded_as: Some(plan.founded_as.clone()), ..booted.identity.clone() };
    identity::write(&disk, &layout, &own)?;
    Ok(Restored { base, digest, leases_ended })
}

/// Copies the files in, and holds what they are against what they were said to be.
fn take_in<'f, D: Disk>(
    disk: &D,
    layout: &Layout,
    announced: (Index, Term),
    files: impl Iterator<Item = Result<RestoreFile<'f>, String>>,
) -> Result<Draft<D>, StoreError> {
    let refused = |cause: String| StoreError::Refound { action: "restore into", dir: layout.show(), cause };
    let nonce = disk.nonce();
    let path = layout.entry(&crate::layout::staging_name(nonce));
    disk.create_dir(&path)?;
    for file in files {
        let mut file = file.map_err(refused)?;
        if !is_plain_name(&file.name) {
            return Err(refused(format!("{:?} is not a plain file name", file.name)));
        }
        let target = path.join(&file.name);
        let mut at = 0;
        loop {
            let mut data = Vec::with_capacity(CHUNK_BYTES_MAX);
            let piece = (&mut file.content).take(CHUNK_BYTES_MAX as u64).read_to_end(&mut data);
            piece.map_err(|error| refused(format!("{}: {error}", file.name)))?;
            if data.is_empty() && at > 0 {
                break;
            }
            disk.write_at(&target, at, &data)?;
            if data.is_empty() {
                break;
            }
            at += data.len() as u64;
        }
    }
    disk.verify_state(&path)?;
    let draft = Draft::of_files(disk, layout, path, nonce)?;
    if draft.stands() != announced {
        return Err(refused(format!("the backup says {announced:?}, its tables stand at {:?}", draft.stands())));
    }
    Ok(draft)
}

fn open_leases(rows: &dyn Rows) -> Result<usize, RowsError> {
    let mut open = 0;
    for node in views::node_rows(rows)? {
        open += usize::try_from(node.open_tasks).unwrap_or(0);
    }
    Ok(open)
}
