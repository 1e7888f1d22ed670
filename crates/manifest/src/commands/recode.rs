//! RecodeArtifact: a committed artifact's bytes are under another code, in other files. Since machine version 5.
//!
//! The files of a generation are written before this command and never under a number that is in use, so whoever reads the old ones reads on
//! until they are gone, and a command that is refused leaves the artifact as it was.

use raftgrid_proto::v1::{ArtifactState, MemberRow, RecodeArtifact};

use crate::coding::{self, Code, CODE_PLAIN_COPIES};
use crate::commands::artifacts::{counted, get, hold};
use crate::error::Handled;
use crate::limits::GENERATION_MAX;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, precondition};
use crate::tables::ArtifactTable;

pub(crate) fn recode(machine: &mut Machine<'_>, command: &RecodeArtifact) -> Handled {
    let mut row = get(machine, command.artifact_id)?;
    let id = row.artifact_id;
    if row.state != ArtifactState::ARTIFACT_COMMITTED {
        return Err(precondition(format!("artifact {id} is not committed")));
    }
    if command.generation > GENERATION_MAX {
        return Err(invalid("generation", format!("at most {GENERATION_MAX}, is {}", command.generation)));
    }
    if command.generation <= row.generation {
        let (newest, asked) = (row.generation, command.generation);
        return Err(precondition(format!("artifact {id} is at generation {newest} already, {asked} is asked for")));
    }
    let members = read::members_ever(&machine.rows)?;
    let copies = copies_needed(&members, row.code_id, row.receipts.len());
    row.code_id = command.code_id;
    row.generation = command.generation;
    let needed = if command.code_id == CODE_PLAIN_COPIES {
        copies
    } else {
        let fragments = Code::of(command.code_id).map_or(0, Code::fragments);
        coding::check(command.code_id, fragments)?;
        fragments
    };
    let (holders, _) = counted(&members, &row, command.get_receipts())?;
    if holders.len() < needed {
        return Err(precondition(format!("artifact {id} has {} receipts, needs {needed}", holders.len())));
    }
    hold(&mut row, holders);
    ArtifactTable::put(machine, &row)?;
    Ok(machine.ok())
}

/// F+1 of the members that stay; no more than the old code's own redundancy, where learners are members, too.
fn copies_needed(members: &[MemberRow], old_code: u32, old_receipts: usize) -> usize {
    let staying = members.iter().filter(|member| !member.removed && !member.leaving).count();
    let old = Code::of(old_code).map_or(old_receipts.max(1), |code| code.failures() + 1);
    (staying.saturating_sub(1) / 2 + 1).min(old)
}
