//! The states of shards that contributions name: artifacts that their trainers commit before, and that go with their rounds.
//!
//! A trainer may die between the two, or its contribution may not count: nobody names that state then, and it expires (machine version 6).

use raftgrid_proto::v1::{ArtifactRow, ArtifactState};

use crate::commands::job_spec::committed_artifact;
use crate::error::Fault;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, precondition};
use crate::rows::{RowsError, Table};
use crate::tables::ArtifactTable;

/// The machine version from which on a shard's state is handed on, and let go with its round.
pub(crate) const SINCE: u64 = 5;

/// The machine version from which on one that no contribution names expires.
pub const EXPIRE_SINCE: u64 = 6;

/// Kind of the artifacts that carry a shard's state.
pub const STATE_KIND: &str = "shard-state";

/// The state that a contribution of job `job_id` names is kept, and the job's own from here on. A contribution whose state is lost could not
/// be followed by another of its shard. Only what was kept for that may go with its round.
pub(crate) fn keep(machine: &mut Machine<'_>, job_id: &str, named: &str) -> Result<(), Fault> {
    if machine.meta.machine_version < SINCE || named.is_empty() {
        return Ok(());
    }
    let mut state = committed_artifact(machine, "state_artifact", named)?;
    let id = state.artifact_id;
    if state.kind != STATE_KIND {
        return Err(invalid("state_artifact", format!("artifact {id} is a {}, no {STATE_KIND}", state.kind)));
    }
    if machine.meta.machine_version < EXPIRE_SINCE {
        return Ok(());
    }
    if !state.job_id.is_empty() && state.job_id != job_id {
        return Err(precondition(format!("artifact {id} is a state of job {}", state.job_id)));
    }
    job_id.clone_into(&mut state.job_id);
    state.expires_ms = 0;
    Ok(ArtifactTable::put(machine, &state)?)
}

/// The cluster comes to a version: whatever state is there may be one that a contribution named before, and does not expire.
pub(crate) fn raise(machine: &mut Machine<'_>, from: u64, to: u64) -> Result<(), RowsError> {
    if from >= EXPIRE_SINCE || to < EXPIRE_SINCE {
        return Ok(());
    }
    let mut kept = Vec::new();
    read::each(&machine.rows, Table::Artifact, &[], &[], |row: ArtifactRow| {
        if row.kind == STATE_KIND && row.state == ArtifactState::ARTIFACT_COMMITTED && row.expires_ms != 0 {
            kept.push(row);
        }
        true
    })?;
    for mut row in kept {
        row.expires_ms = 0;
        ArtifactTable::put(machine, &row)?;
    }
    Ok(())
}
