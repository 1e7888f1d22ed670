//! Artifacts: begun, committed by receipts, deleted in two phases. The id is the position of BeginArtifact, so no two share a file.

use protobuf::RepeatedField;
use raftgrid_proto::v1::{
    AddReceipts, ArtifactRow, ArtifactState, BeginArtifact, CommandReply, CommitArtifact, DeleteArtifact, MemberRow,
    Outcome, Receipt,
};

use crate::coding::{self, Code, CODE_PLAIN_COPIES};
use crate::commands::job_end;
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{ID_BYTES_MAX, PLACEMENT_MAX, RECEIPTS_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::{RowsError, Table};
use crate::text::{check_bytes, check_digest, check_name};

/// The machine version from which on artifacts may be coded.
const CODED_SINCE: u64 = 5;

pub(crate) fn begin(machine: &mut Machine<'_>, command: &BeginArtifact) -> Handled {
    if !command.name.is_empty() {
        check_name("name", &command.name, ID_BYTES_MAX, b"/")?;
        if command.name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid("name", "must not be a number: numbers are artifact ids"));
        }
    }
    check_bytes("kind", command.kind.len(), ID_BYTES_MAX)?;
    check_digest("digest", &command.digest)?;
    let coded = command.code_id != CODE_PLAIN_COPIES;
    if coded && machine.meta.machine_version < CODED_SINCE {
        return Err(invalid("code_id", format!("this version knows plain copies (0) only, is {}", command.code_id)));
    }
    check_placement(&command.placement)?;
    if coded {
        coding::check(command.code_id, command.placement.len())?;
    }
    if !command.job_id.is_empty() && read::job_by_id(&machine.rows, &command.job_id)?.is_none() {
        return Err(not_found("job", &command.job_id));
    }
    if let Some(row) = named(machine, &command.name)? {
        if row.digest == command.digest && row.total_bytes == command.total_bytes {
            let id = row.artifact_id;
            return Ok(CommandReply { id: id.to_string(), number: id, ..machine.existing(id) });
        }
        return Err(name_taken(&command.name));
    }
    let artifact_id = machine.position.get();
    let row = ArtifactRow {
        artifact_id,
        name: command.name.clone(),
        kind: command.kind.clone(),
        total_bytes: command.total_bytes,
        digest: command.digest.clone(),
        code_id: command.code_id,
        placement: command.placement.clone(),
        state: ArtifactState::ARTIFACT_BEGUN,
        job_id: command.job_id.clone(),
        expires_ms: command.expires_ms,
        principal: machine.principal.to_owned(),
        ..ArtifactRow::default()
    };
    put(machine, &row);
    Ok(CommandReply { id: artifact_id.to_string(), number: artifact_id, ..machine.ok() })
}

fn check_placement(placement: &[u64]) -> Result<(), Fault> {
    if placement.is_empty() || placement.len() > PLACEMENT_MAX {
        return Err(invalid("placement", format!("1..={PLACEMENT_MAX} replicas, is {}", placement.len())));
    }
    let mut sorted = placement.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != placement.len() || sorted[0] == 0 {
        return Err(invalid("placement", "replicas must be distinct, and none of them 0"));
    }
    Ok(())
}

fn name_taken(name: &str) -> Fault {
    refuse(Outcome::ALREADY_EXISTS, format!("the name {name} belongs to an artifact with other content"))
}

fn named(machine: &Machine<'_>, name: &str) -> Result<Option<ArtifactRow>, Fault> {
    Ok(if name.is_empty() { None } else { read::artifact_by_name(&machine.rows, name)? })
}

pub(crate) fn put(machine: &mut Machine<'_>, row: &ArtifactRow) {
    machine.put(Table::Artifact, keys::number(row.artifact_id), row);
}

pub(crate) fn get(machine: &Machine<'_>, artifact_id: u64) -> Result<ArtifactRow, Fault> {
    read::artifact(&machine.rows, artifact_id)?.ok_or_else(|| not_found("artifact", &artifact_id.to_string()))
}

/// How many copies make it durable: F+1, as the members tell F, and never more than were placed.
fn receipts_needed(members: usize, row: &ArtifactRow) -> usize {
    if members == 0 {
        return row.placement.len();
    }
    row.placement.len().min((members - 1) / 2 + 1)
}

/// Adds the replicas that hold the very bytes of `row` to `holders`.
fn count_holders(row: &ArtifactRow, receipts: &[Receipt], holders: &mut Vec<u64>) -> Result<(), Fault> {
    if receipts.len() > RECEIPTS_MAX {
        return Err(invalid("receipts", format!("at most {RECEIPTS_MAX}, is {}", receipts.len())));
    }
    for receipt in receipts {
        if receipt.digest != row.digest {
            let (node, id) = (receipt.node_id, row.artifact_id);
            let why = format!("replica {node} holds other bytes of artifact {id} than were announced");
            return Err(refuse(Outcome::MISMATCH, why));
        }
        if receipt.node_id != 0 && !holders.contains(&receipt.node_id) {
            holders.push(receipt.node_id);
        }
    }
    Ok(())
}

/// Commits the artifact by its receipts: enough distinct replicas hold the very bytes that were announced. One that is committed already
/// stays as it is. A replica that stepped in for one of the placement counts like those of the placement; one that leaves or left does not.
pub(crate) fn commit_by_receipts(
    machine: &mut Machine<'_>,
    mut row: ArtifactRow,
    receipts: &[Receipt],
) -> Result<ArtifactRow, Fault> {
    let id = row.artifact_id;
    match row.state {
        ArtifactState::ARTIFACT_COMMITTED => return Ok(row),
        ArtifactState::ARTIFACT_DELETING => return Err(precondition(format!("artifact {id} is being deleted"))),
        ArtifactState::ARTIFACT_BEGUN => {}
    }
    let members = read::members_ever(&machine.rows)?;
    let (counted, needed) = counted(&members, &row, receipts)?;
    if counted.len() < needed {
        return Err(precondition(format!("artifact {id} has {} receipts, needs {needed}", counted.len())));
    }
    if let Some(other) = named(machine, &row.name)? {
        if other.artifact_id != id {
            return Err(name_taken(&row.name));
        }
    } else if !row.name.is_empty() {
        machine.put_bytes(Table::ArtifactByName, row.name.clone().into_bytes(), keys::number(id));
    }
    hold(&mut row, counted);
    row.state = ArtifactState::ARTIFACT_COMMITTED;
    put(machine, &row);
    Ok(row)
}

/// The receipts that count for `row`, and how many holders it needs. One that leaves or left does not count.
pub(crate) fn counted(
    members: &[MemberRow],
    row: &ArtifactRow,
    receipts: &[Receipt],
) -> Result<(Counted, usize), Fault> {
    let stays = |node| !members.iter().any(|member| member.node_id == node && (member.leaving || member.removed));
    if let Some(code) = Code::of(row.code_id) {
        let receipts = coding::count(row, code, receipts, &stays)?;
        // Each of them is another fragment on another replica, so any `failures` of the replicas may be lost.
        let holders = receipts.iter().map(|receipt| receipt.node_id).collect();
        return Ok((Counted { holders, receipts }, code.fragments()));
    }
    let mut holders: Vec<u64> = Vec::new();
    count_holders(row, receipts, &mut holders)?;
    holders.retain(|node| stays(*node));
    let needed = receipts_needed(members.iter().filter(|member| !member.removed).count(), row);
    let receipts = receipts.iter().filter(|receipt| holders.contains(&receipt.node_id)).cloned().collect();
    Ok((Counted { holders, receipts }, needed))
}

/// Receipts that count, and whose they are, each once.
pub(crate) struct Counted {
    holders: Vec<u64>,
    receipts: Vec<Receipt>,
}

impl Counted {
    /// Replicas.
    pub(crate) fn len(&self) -> usize {
        self.holders.len()
    }
}

/// From here on the bytes of `row` are where `counted` says.
pub(crate) fn hold(row: &mut ArtifactRow, mut counted: Counted) {
    counted.holders.sort_unstable();
    row.receipts = RepeatedField::from_vec(counted.receipts);
    row.placement = counted.holders;
}

/// Further copies of a committed artifact. One that is counted already is not counted twice.
pub(crate) fn add_receipts(machine: &mut Machine<'_>, command: &AddReceipts) -> Handled {
    let mut row = get(machine, command.artifact_id)?;
    if row.state != ArtifactState::ARTIFACT_COMMITTED {
        return Err(precondition(format!("artifact {} is not committed", row.artifact_id)));
    }
    if let Some(code) = Code::of(row.code_id) {
        return add_fragments(machine, row, code, command.get_receipts());
    }
    let mut holders: Vec<u64> = row.receipts.iter().map(|receipt| receipt.node_id).collect();
    let before = holders.len();
    count_holders(&row, command.get_receipts(), &mut holders)?;
    if holders.len() > RECEIPTS_MAX {
        return Err(precondition(format!("artifact {} has {before} receipts", row.artifact_id)));
    }
    for node in &holders[before..] {
        let added = command.receipts.iter().find(|receipt| receipt.node_id == *node);
        row.receipts.push(added.expect("counted from this list").clone());
    }
    if holders.len() == before {
        return Ok(machine.existing(row.artifact_id));
    }
    holders.sort_unstable();
    row.placement = holders;
    put(machine, &row);
    Ok(machine.ok())
}

/// Fragments of a coded artifact on further replicas. A replica holds one fragment; receipts of replicas that are gone go.
fn add_fragments(machine: &mut Machine<'_>, mut row: ArtifactRow, code: Code, receipts: &[Receipt]) -> Handled {
    if receipts.len() > RECEIPTS_MAX {
        return Err(invalid("receipts", format!("at most {RECEIPTS_MAX}, is {}", receipts.len())));
    }
    let mut kept = row.take_receipts().into_vec();
    let mut added = 0;
    for receipt in receipts {
        coding::check_receipt(&row, code, receipt)?;
        if kept.iter().any(|known| known.fragment == receipt.fragment && known.digest != receipt.digest) {
            return Err(coding::other_bytes(&row, receipt));
        }
        match kept.iter().find(|known| known.node_id == receipt.node_id) {
            Some(known) if known.fragment == receipt.fragment => {}
            Some(known) => {
                let (node, fragment) = (known.node_id, known.fragment);
                return Err(precondition(format!("replica {node} holds fragment {fragment} already")));
            }
            None if receipt.node_id == 0 => return Err(invalid("receipts.node_id", "must not be 0")),
            None => {
                kept.push(receipt.clone());
                added += 1;
            }
        }
    }
    if added == 0 {
        return Ok(machine.existing(row.artifact_id));
    }
    let members = read::members_ever(&machine.rows)?;
    let gone = |node: u64| members.iter().any(|member| member.node_id == node && member.removed);
    // The last receipt of a fragment stays even so: it says what the fragment must hold when it is made anew.
    let alive: Vec<u32> = kept.iter().filter(|it| !gone(it.node_id)).map(|it| it.fragment).collect();
    kept.retain(|it| !gone(it.node_id) || !alive.contains(&it.fragment));
    if kept.len() > RECEIPTS_MAX {
        return Err(precondition(format!("artifact {} has {} receipts", row.artifact_id, kept.len() - added)));
    }
    row.placement = kept.iter().map(|receipt| receipt.node_id).collect();
    row.placement.sort_unstable();
    row.receipts = RepeatedField::from_vec(kept);
    put(machine, &row);
    Ok(machine.ok())
}

pub(crate) fn commit(machine: &mut Machine<'_>, command: &CommitArtifact) -> Handled {
    let row = get(machine, command.artifact_id)?;
    let number = row.artifact_id;
    if row.state == ArtifactState::ARTIFACT_COMMITTED {
        return Ok(CommandReply { id: number.to_string(), number, ..machine.existing(number) });
    }
    commit_by_receipts(machine, row, command.get_receipts())?;
    Ok(CommandReply { id: number.to_string(), number, ..machine.ok() })
}

/// First phase: no one may read it any more and its name is free. Second phase (`confirmed`): the bytes are gone, so is the row.
pub(crate) fn delete(machine: &mut Machine<'_>, command: &DeleteArtifact) -> Handled {
    let row = get(machine, command.artifact_id)?;
    let number = row.artifact_id;
    match (row.state, command.confirmed) {
        (ArtifactState::ARTIFACT_DELETING, true) => {
            machine.delete(Table::Artifact, keys::number(number));
            Ok(machine.ok())
        }
        (ArtifactState::ARTIFACT_DELETING, false) => Ok(machine.existing(machine.position.get())),
        (ArtifactState::ARTIFACT_BEGUN | ArtifactState::ARTIFACT_COMMITTED, true) => {
            Err(precondition(format!("artifact {number} is not being deleted; its bytes may be in use")))
        }
        (ArtifactState::ARTIFACT_BEGUN | ArtifactState::ARTIFACT_COMMITTED, false) => {
            refuse_in_use(machine, &row)?;
            start_deleting(machine, row)?;
            Ok(machine.ok())
        }
    }
}

/// While a job goes on, its ledger's bytes go by its retention only.
fn refuse_in_use(machine: &Machine<'_>, row: &ArtifactRow) -> Result<(), Fault> {
    let Some(job_row) = read::job_by_id(&machine.rows, &row.job_id)? else { return Ok(()) };
    let job = job_row.get_job();
    let ledgers = matches!(row.kind.as_str(), "gradient" | "model" | "state");
    if ledgers && row.state == ArtifactState::ARTIFACT_COMMITTED && !job_end::is_over(job.phase) {
        let why =
            format!("artifact {} belongs to the ledger of job {}, which is not over", row.artifact_id, job.job_id);
        return Err(precondition(why));
    }
    Ok(())
}

/// The first phase of a deletion.
pub(crate) fn start_deleting(machine: &mut Machine<'_>, mut row: ArtifactRow) -> Result<(), RowsError> {
    if !row.name.is_empty() {
        let holder = read::artifact_by_name(&machine.rows, &row.name)?;
        if holder.is_some_and(|holder| holder.artifact_id == row.artifact_id) {
            machine.delete(Table::ArtifactByName, row.name.clone().into_bytes());
        }
    }
    row.state = ArtifactState::ARTIFACT_DELETING;
    put(machine, &row);
    Ok(())
}
