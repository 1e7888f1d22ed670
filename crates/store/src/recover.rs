//! The last resort after a majority is lost for good: one replica goes on alone, as a new group.
//!
//! Everything that this replica has is kept: its tables and its whole log, the uncommitted end included. An entry may be committed without
//! this replica knowing it, and then it was acknowledged; an entry that was not may still become so, since nobody was told otherwise. Changes
//! of the membership in that end are not made: the new group is this replica alone. What only the others had is lost.

use std::path::Path;

use raftgrid_driver::{pack::unpack, EntryKind, Index, LogReader, LogStore, NodeId, SnapshotMeta, Term};
use raftgrid_manifest::{refound::close_members, views, Rows};

use crate::boot::{BootMode, Booted, Store};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::identity;
use crate::layout::Layout;
use crate::refound::{conf_of, install, new_cluster_id, next_base_index, Draft};

/// Entries that are read at once, in bytes.
const READ_BYTES_MAX: u64 = 4 << 20;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// The replica to which the directory belongs.
    pub node_id: NodeId,
    /// Now.
    pub unix_s: u64,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was found, and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The id that the group had.
    pub old_cluster_id: String,
    /// The id that it has now; the old one in a dry run.
    pub cluster_id: String,
    /// Voters before, this one among them.
    pub voters: Vec<NodeId>,
    /// Members whose ids are closed.
    pub closed: Vec<NodeId>,
    /// Known to be committed here.
    pub committed: Index,
    /// End of the log, with its term. What others wrote behind it is lost.
    pub last: (Index, Term),
    /// Membership changes behind the committed end that are not made.
    pub changes_dropped: usize,
    /// Where the new log begins.
    pub base: (Index, Term),
    /// Artifacts that are committed.
    pub artifacts: Vec<CommittedArtifact>,
}

/// An artifact that is committed, and which of its files a whole copy would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedArtifact {
    /// Its id.
    pub id: u64,
    /// 0: plain copies.
    pub code_id: u32,
    /// Of its files.
    pub generation: u32,
}

/// Makes the replica in `dir` the only member of a new group. Nobody may have the directory open.
pub fn recover<D: Disk>(disk: D, dir: &Path, recovery: Recovery) -> Result<Recovered, StoreError> {
    let layout = Layout::new(dir);
    let refused = |cause: &str| StoreError::Refound { action: "recover", dir: layout.show(), cause: cause.to_owned() };
    let Some(identity) = identity::read(&disk, &layout)? else {
        return Err(refused("there is no replica's data in it; check --data-dir"));
    };
    // The directory is taken by its own word: whoever starts it from now on goes by the new id or by the one it was founded with.
    let mode = BootMode::Join { cluster_id: identity.cluster_id.clone(), node_id: recovery.node_id };
    let mut booted = Store::open(disk.clone(), dir, mode)?;
    let Some(conf) = booted.tables.conf().cloned() else {
        return Err(refused("it joined and never got any state; there is nothing to recover"));
    };
    if !conf.contains(recovery.node_id) {
        return Err(refused("this replica is no member any more: others went on without it; recover one of those"));
    }
    let reader = booted.log.reader();
    let last = reader.last_index();
    let last_term = reader.term(last).map_err(|error| refused(&error.to_string()))?;
    let (hard_state, applied) = (booted.log.hard_state(), booted.tables.applied().0);
    let committed = hard_state.commit.max(applied);
    let tail = tail(&booted, applied, last, committed)?;
    let mut draft = Draft::of_tables(&booted, &disk, &layout)?;
    replay(&booted, &mut draft, last)?;
    let others = others(&draft, &tail.nodes, recovery.node_id)?;
    let alone = conf == conf_of(&[recovery.node_id]) && tail.changes_dropped == 0;
    if alone && others.is_empty() {
        return Err(refused("this replica is the only member already; start it as usual"));
    }
    let index =
        next_base_index(last, recovery.unix_s).ok_or_else(|| refused("no positions are left for a new group"))?;
    let base = (index, hard_state.term.max(last_term) + 1);
    let mut voters: Vec<NodeId> = conf.voters.iter().chain(&conf.voters_outgoing).copied().collect();
    voters.sort_unstable();
    voters.dedup();
    let mut done = Recovered {
        old_cluster_id: identity.cluster_id.clone(),
        cluster_id: identity.cluster_id.clone(),
        voters,
        closed: others,
        committed,
        last: (last, last_term),
        changes_dropped: tail.changes_dropped,
        base,
        artifacts: committed_artifacts(&draft)?,
    };
    if recovery.dry_run {
        return Ok(done);
    }
    if !done.closed.is_empty() {
        draft.apply(last + 1, &[close_members(&done.closed)])?;
    }
    // The new id first. A stop before the base is durable leaves a member of the old group that nobody answers any more: it can be recovered again.
    let founded_as = identity.founded_as.clone().unwrap_or_else(|| identity.cluster_id.clone());
    done.cluster_id = new_cluster_id(&founded_as, disk.nonce());
    let renamed = identity::Identity { cluster_id: done.cluster_id.clone(), founded_as: Some(founded_as), ..identity };
    identity::write(&disk, &layout, &renamed)?;
    install(&mut booted, draft, SnapshotMeta { index: base.0, term: base.1, conf: conf_of(&[recovery.node_id]) })?;
    Ok(done)
}

struct Tail {
    changes_dropped: usize,
    /// Who is in the configuration, whether rows know them or not.
    nodes: Vec<NodeId>,
}

/// What lies behind the applied entries.
fn tail<D: Disk>(booted: &Booted<D>, applied: Index, last: Index, committed: Index) -> Result<Tail, StoreError> {
    let mut tail = Tail { changes_dropped: 0, nodes: Vec::new() };
    if let Some(conf) = booted.tables.conf() {
        let lists = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next];
        tail.nodes = lists.into_iter().flatten().copied().collect();
    }
    each_entry(booted, applied, last, |entry| {
        // One that is committed and not applied here is not made either: the configuration is this replica, whatever it was.
        tail.changes_dropped += usize::from(entry.kind != EntryKind::Normal && entry.index > committed);
        Ok(())
    })?;
    Ok(tail)
}

/// Members, by the rows or the configuration, that are neither this one nor closed already.
fn others(rows: &dyn Rows, conf: &[NodeId], own: NodeId) -> Result<Vec<NodeId>, StoreError> {
    let rows = views::members_ever(rows)
        .map_err(|error| StoreError::Broken { action: "read the members", cause: error.to_string() })?;
    let closed = |node: &NodeId| rows.iter().any(|row| row.node_id == *node && row.removed);
    let mut nodes: Vec<NodeId> = rows.iter().map(|row| row.node_id).chain(conf.iter().copied()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.retain(|node| *node != own && !closed(node));
    Ok(nodes)
}

fn committed_artifacts(rows: &dyn Rows) -> Result<Vec<CommittedArtifact>, StoreError> {
    let mut found = Vec::new();
    views::artifact_rows(rows, |row| {
        if views::artifact_info(&row).state == "committed" {
            let (id, code_id, generation) = (row.artifact_id, row.code_id, row.generation);
            found.push(CommittedArtifact { id, code_id, generation });
        }
        true
    })
    .map_err(|error| StoreError::Broken { action: "read the artifacts", cause: error.to_string() })?;
    Ok(found)
}

/// Runs what the tables do not have yet.
fn replay<D: Disk>(booted: &Booted<D>, draft: &mut Draft<D>, last: Index) -> Result<(), StoreError> {
    let from = draft.stands().0;
    each_entry(booted, from, last, |entry| {
        if entry.kind != EntryKind::Normal {
            return Ok(());
        }
        let payloads = unpack(&entry.data)
            .map_err(|error| StoreError::Broken { action: "read the log", cause: error.to_string() })?;
        draft.apply(entry.index, &payloads)
    })
}

fn each_entry<D: Disk>(
    booted: &Booted<D>,
    after: Index,
    last: Index,
    mut visit: impl FnMut(&raftgrid_driver::Entry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let reader = booted.log.reader();
    let mut next = after + 1;
    while next <= last {
        let entries = reader
            .entries(next, last + 1, READ_BYTES_MAX)
            .map_err(|error| StoreError::Broken { action: "read the log", cause: error.to_string() })?;
        for entry in &entries {
            visit(entry)?;
            next = entry.index + 1;
        }
    }
    Ok(())
}
