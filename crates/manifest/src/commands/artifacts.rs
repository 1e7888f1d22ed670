//! Artifacts: begun, committed by receipts, deleted in two phases. The id is the position of BeginArtifact, so no two share a file.

use protobuf::RepeatedField;
use raftgrid_proto::v1::{
    AddReceipts, ArtifactRow, ArtifactState, BeginArtifact, CommandReply, CommitArtifact, DeleteArtifact, MemberRow,
    Outcome, Receipt,
};

use crate::coding::{self, Code, CODE_PLAIN_COPIES};
use crate::commands::shard_states::STATE_KIND;
use crate::commands::{job_end, names};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{ARTIFACT_BYTES_MAX, ID_BYTES_MAX, PLACEMENT_MAX, RECEIPTS_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::Table;
use crate::tables::{fragment_bytes, ArtifactTable};
use crate::text::{check_bytes, check_digest};

/// The machine version from which on artifacts may be coded.
const CODED_SINCE: u64 = 5;

pub(crate) fn begin(machine: &mut Machine<'_>, command: &BeginArtifact) -> Handled {
    if !command.name.is_empty() {
        names::check(&command.name)?;
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
        if !(command.versioned && names_have_versions(machine)) {
            return Err(name_taken(&command.name));
        }
    }
    let artifact_id = machine.position.get();
    let mut row = ArtifactRow {
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
    if names_have_versions(machine) {
        row.versioned = command.versioned;
        row.keep = command.keep;
        check_room(machine, &row, command.principal_bytes_max)?;
    }
    ArtifactTable::put(machine, &row)?;
    Ok(CommandReply { id: artifact_id.to_string(), number: artifact_id, ..machine.ok() })
}

/// The same version counts bytes.
fn names_have_versions(machine: &Machine<'_>) -> bool {
    machine.meta.machine_version >= names::SINCE
}

/// Whether there is room for `row` where it is placed, and under its principal's budget.
fn check_room(machine: &Machine<'_>, row: &ArtifactRow, principal_bytes_max: u64) -> Result<(), Fault> {
    let bytes = row.total_bytes;
    if bytes > ARTIFACT_BYTES_MAX {
        return Err(invalid("total_bytes", format!("at most {ARTIFACT_BYTES_MAX}, is {bytes}")));
    }
    let used = read::usage(&machine.rows, &keys::usage_of_principal(&row.principal))?.bytes;
    if principal_bytes_max != 0 && used.saturating_add(bytes) > principal_bytes_max {
        let whose = if row.principal.is_empty() { "callers without a token" } else { &*row.principal };
        let why =
            format!("the artifacts of {whose} hold {used} of {principal_bytes_max} bytes, and this one has {bytes}");
        return Err(refuse(Outcome::EXHAUSTED, why));
    }
    let each = fragment_bytes(row);
    for node in &row.placement {
        let usage = read::usage(&machine.rows, &keys::usage_of_node(*node))?;
        let (used, most) = (usage.bytes, usage.bytes_max);
        if most != 0 && used.saturating_add(each) > most {
            let why = format!("replica {node} holds {used} of {most} bytes of artifacts, and would get {each} more");
            return Err(refuse(Outcome::EXHAUSTED, why));
        }
    }
    Ok(())
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
    let taken = named(machine, &row.name)?.is_some_and(|other| other.artifact_id != id);
    if taken && !row.versioned {
        return Err(name_taken(&row.name));
    }
    hold(&mut row, counted);
    row.state = ArtifactState::ARTIFACT_COMMITTED;
    if row.name.is_empty() {
        ArtifactTable::put(machine, &row)?;
    } else if names_have_versions(machine) {
        let (name, numbered, keep) = (row.name.clone(), row.versioned, row.keep);
        names::give(machine, &name, row, numbered, keep)?;
        return get(machine, id);
    } else {
        if !taken {
            machine.put_bytes(Table::ArtifactByName, row.name.clone().into_bytes(), keys::number(id));
        }
        ArtifactTable::put(machine, &row)?;
    }
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
    ArtifactTable::put(machine, &row)?;
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
    ArtifactTable::put(machine, &row)?;
    Ok(machine.ok())
}

pub(crate) fn commit(machine: &mut Machine<'_>, command: &CommitArtifact) -> Handled {
    let row = get(machine, command.artifact_id)?;
    let id = row.artifact_id;
    if row.state == ArtifactState::ARTIFACT_COMMITTED {
        return committed_as(machine, &row, machine.existing(id));
    }
    if names_have_versions(machine) && row.state == ArtifactState::ARTIFACT_BEGUN {
        if let Some(other) = named(machine, &row.name)?.filter(|it| it.artifact_id != id && it.digest == row.digest) {
            // Somebody else brought the same bytes meanwhile: they are that version, and these are not needed.
            start_deleting(machine, row)?;
            let existing = machine.existing(other.artifact_id);
            return committed_as(machine, &other, existing);
        }
    }
    let row = commit_by_receipts(machine, row, command.get_receipts())?;
    committed_as(machine, &row, machine.ok())
}

/// The reply to a commit: the artifact, and the version of the name that it was begun with.
fn committed_as(machine: &Machine<'_>, row: &ArtifactRow, reply: CommandReply) -> Handled {
    let id = row.artifact_id;
    let number = if names_have_versions(machine) {
        let names = read::names_of(&machine.rows, row)?;
        names.iter().rev().find(|it| it.name == row.name).map_or(0, |it| it.version)
    } else {
        id
    };
    Ok(CommandReply { id: id.to_string(), number, ..reply })
}

/// First phase: no one may read it any more and its name is free. Second phase (`confirmed`): the bytes are gone, so is the row.
pub(crate) fn delete(machine: &mut Machine<'_>, command: &DeleteArtifact) -> Handled {
    let row = get(machine, command.artifact_id)?;
    let number = row.artifact_id;
    match (row.state, command.confirmed) {
        (ArtifactState::ARTIFACT_DELETING, true) => {
            ArtifactTable::delete(machine, number)?;
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

/// While a job goes on, its ledger's bytes go by its retention only; a value goes with its key.
pub(crate) fn refuse_in_use(machine: &Machine<'_>, row: &ArtifactRow) -> Result<(), Fault> {
    if !row.key.is_empty() {
        return Err(precondition(format!("artifact {} is the value of key {}", row.artifact_id, row.key)));
    }
    let Some(job_row) = read::job_by_id(&machine.rows, &row.job_id)? else { return Ok(()) };
    let job = job_row.get_job();
    let ledgers = matches!(row.kind.as_str(), "gradient" | "model" | "state" | STATE_KIND);
    if ledgers && row.state == ArtifactState::ARTIFACT_COMMITTED && !job_end::is_over(job.phase) {
        let why =
            format!("artifact {} belongs to the ledger of job {}, which is not over", row.artifact_id, job.job_id);
        return Err(precondition(why));
    }
    Ok(())
}

/// The first phase of a deletion.
pub(crate) fn start_deleting(machine: &mut Machine<'_>, mut row: ArtifactRow) -> Result<(), Fault> {
    if names_have_versions(machine) {
        names::drop_all(machine, &mut row)?;
    } else if !row.name.is_empty() {
        let holder = read::artifact_by_name(&machine.rows, &row.name)?;
        if holder.is_some_and(|holder| holder.artifact_id == row.artifact_id) {
            machine.delete(Table::ArtifactByName, row.name.clone().into_bytes());
        }
    }
    row.state = ArtifactState::ARTIFACT_DELETING;
    ArtifactTable::put(machine, &row)?;
    Ok(())
}

/// What held the artifact does not need it any more: it goes, unless people gave it a name.
pub(crate) fn let_go(machine: &mut Machine<'_>, mut row: ArtifactRow) -> Result<(), Fault> {
    if names_have_versions(machine) && !read::names_of(&machine.rows, &row)?.is_empty() {
        row.released = true;
        return Ok(ArtifactTable::put(machine, &row)?);
    }
    start_deleting(machine, row)
}
