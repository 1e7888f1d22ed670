//! Rows of artifacts, and what they add up to: by principal, and by the replicas that their fragments are on. The only writer of `Artifact` and
//! `Usage`.
//!
//! An artifact counts while it is begun or committed. One that is being deleted does not: its bytes are about to go, and nobody may read them.

use std::collections::BTreeMap;

use raftgrid_proto::v1::{ArtifactRow, ArtifactState, UsageRow};

use crate::coding::Code;
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::rows::{Rows, RowsError, Table};

/// The machine version from which on bytes are counted.
pub(crate) const USAGE_SINCE: u64 = 6;

/// The writer of artifacts.
pub(crate) struct ArtifactTable;

impl ArtifactTable {
    /// Writes the row in the place of what stands.
    pub(crate) fn put(machine: &mut Machine<'_>, row: &ArtifactRow) -> Result<(), RowsError> {
        account(machine, row.artifact_id, Some(row))?;
        machine.put(Table::Artifact, keys::number(row.artifact_id), row);
        Ok(())
    }

    /// Deletes the row.
    pub(crate) fn delete(machine: &mut Machine<'_>, artifact_id: u64) -> Result<(), RowsError> {
        account(machine, artifact_id, None)?;
        machine.delete(Table::Artifact, keys::number(artifact_id));
        Ok(())
    }
}

/// Bytes of one fragment of `row`; of plain copies, of one copy.
pub(crate) fn fragment_bytes(row: &ArtifactRow) -> u64 {
    Code::of(row.code_id).map_or(row.total_bytes, |code| code.fragment_bytes(row.total_bytes))
}

/// What `row` counts, by key of `Usage`.
fn shares(row: &ArtifactRow) -> BTreeMap<Vec<u8>, u64> {
    match row.state {
        ArtifactState::ARTIFACT_DELETING => BTreeMap::new(),
        ArtifactState::ARTIFACT_BEGUN | ArtifactState::ARTIFACT_COMMITTED => {
            let each = fragment_bytes(row);
            let mut shares: BTreeMap<Vec<u8>, u64> =
                row.placement.iter().map(|node| (keys::usage_of_node(*node), each)).collect();
            shares.insert(keys::usage_of_principal(&row.principal), row.total_bytes);
            shares
        }
    }
}

/// Moves the counters from what stands to `new`.
fn account(machine: &mut Machine<'_>, artifact_id: u64, new: Option<&ArtifactRow>) -> Result<(), RowsError> {
    if machine.meta.machine_version < USAGE_SINCE {
        return Ok(());
    }
    let before = read::artifact(&machine.rows, artifact_id)?.as_ref().map(shares).unwrap_or_default();
    let after = new.map(shares).unwrap_or_default();
    let touched = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let mut moved = Vec::new();
    for key in touched.filter(|key| before.get(*key) != after.get(*key)) {
        let mut row = read::usage(&machine.rows, key)?;
        if let Some(bytes) = before.get(key) {
            subtract(&mut row, *bytes);
        }
        if let Some(bytes) = after.get(key) {
            add(&mut row, *bytes);
        }
        moved.push((key.clone(), row));
    }
    for (key, row) in moved {
        put_usage(machine, key, &row);
    }
    Ok(())
}

// Sums wrap: sizes of artifacts of before version 6 were bounded by no one but the caller, and what was added is subtracted in the same way.
fn add(row: &mut UsageRow, bytes: u64) {
    row.bytes = row.bytes.wrapping_add(bytes);
    row.artifacts = row.artifacts.wrapping_add(1);
}

fn subtract(row: &mut UsageRow, bytes: u64) {
    row.bytes = row.bytes.wrapping_sub(bytes);
    row.artifacts = row.artifacts.wrapping_sub(1);
}

/// Writes what a replica or a principal holds; one that holds nothing and has no limit has no row.
pub(crate) fn put_usage(machine: &mut Machine<'_>, key: Vec<u8>, row: &UsageRow) {
    if (row.bytes, row.artifacts, row.bytes_max) == (0, 0, 0) {
        machine.delete(Table::Usage, key);
    } else {
        machine.put(Table::Usage, key, row);
    }
}

/// What all artifacts that stand in `rows` add up to, by key of `Usage`. Reads every one of them.
pub(crate) fn count_all(rows: &dyn Rows) -> Result<BTreeMap<Vec<u8>, UsageRow>, RowsError> {
    let mut counted: BTreeMap<Vec<u8>, UsageRow> = BTreeMap::new();
    read::each(rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        for (key, bytes) in shares(&row) {
            add(counted.entry(key).or_default(), bytes);
        }
        true
    })?;
    Ok(counted)
}
