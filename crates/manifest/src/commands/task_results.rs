//! ReportResult and ExpireLease: the two ways in which a lease ends by what happens on its node. Both require the open epoch, so that a
//! report and an expiry that were both proposed can never both take effect.

use protobuf::SingularPtrField;
use raftgrid_proto::v1::{
    ArtifactState, CommandReply, ExpireLease, LastReport, Outcome, ReportResult, TaskRow, TaskStatus,
};

use crate::commands::artifacts;
use crate::commands::lifecycle::{complete, interrupt, user_failure, Interruption};
use crate::commands::tasks::with_open_lease;
use crate::error::{Fault, Handled};
use crate::limits::{EXIT_CODES_FINAL, EXIT_CODE_RETRY, ID_BYTES_MAX, NOTE_BYTES_MAX, RESULT_DATA_BYTES_MAX};
use crate::machine::Machine;
use crate::mutant;
use crate::read;
use crate::reply::{invalid, not_found, refuse, stale_lease};
use crate::text::{check_bytes, hash_parts};

/// Of artifacts that are logs.
const LOG_KIND: &str = "log";
/// The machine version from which on a report names the attempt's log.
const LOG_ARTIFACTS_SINCE: u64 = 3;
/// The machine version from which on an expiry may say that it is for a task that was not started.
const BEFORE_START_SINCE: u64 = 3;

/// The digest of a report that came without one: SHA-256 over (final status, result). An equal report gets the same reply again.
pub fn report_digest(final_status: TaskStatus, result_data: &str) -> Vec<u8> {
    hash_parts(&[&(final_status as i32).to_be_bytes(), result_data.as_bytes()])
}

/// The epoch that a report speaks for. An agent that sends none is taken at its word only if it is the assigned node and its attempt is
/// the open one.
fn spoken_epoch(row: &TaskRow, command: &ReportResult) -> Option<u64> {
    if command.epoch != 0 {
        return Some(command.epoch);
    }
    let assigned = !command.node_id.is_empty() && row.get_task().assigned_node_id == command.node_id;
    (assigned && row.open_epoch != 0).then_some(row.open_epoch)
}

/// Whether this very report was answered before. Without an epoch it counts only while no attempt is open.
fn answered(row: &TaskRow, command: &ReportResult, digest: &[u8]) -> Option<CommandReply> {
    let last = row.last_report.as_ref()?;
    let same_attempt = if command.epoch != 0 { last.epoch == command.epoch } else { row.open_epoch == 0 };
    (same_attempt && last.digest == digest).then(|| last.get_reply().clone())
}

pub(crate) fn report(machine: &mut Machine<'_>, command: &ReportResult) -> Handled {
    let task_id = &command.task_id;
    match command.final_status {
        TaskStatus::COMPLETED | TaskStatus::FAILED => {}
        TaskStatus::PENDING | TaskStatus::ASSIGNED | TaskStatus::RUNNING => {
            return Err(invalid("final_status", format!("COMPLETED or FAILED, is {:?}", command.final_status)));
        }
    }
    check_bytes("result_data", command.result_data.len(), RESULT_DATA_BYTES_MAX)?;
    check_bytes("result_artifact", command.result_artifact.len(), ID_BYTES_MAX)?;
    check_bytes("digest", command.digest.len(), NOTE_BYTES_MAX)?;
    if machine.meta.machine_version >= LOG_ARTIFACTS_SINCE {
        check_bytes("log_artifact", command.log_artifact.len(), ID_BYTES_MAX)?;
    }
    let mut row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let digest = if command.digest.is_empty() {
        report_digest(command.final_status, &command.result_data)
    } else {
        command.digest.clone()
    };
    if let Some(mut reply) = answered(&row, command, &digest) {
        reply.outcome = Outcome::EXISTING;
        return Ok(reply);
    }
    let epoch = spoken_epoch(&row, command).ok_or_else(|| stale_lease(task_id, command.epoch))?;
    if row.open_epoch != epoch && !(mutant::on("stale_report_accepted") && row.open_epoch != 0) {
        return Err(stale_lease(task_id, epoch));
    }

    let reply = CommandReply { id: task_id.clone(), number: epoch, ..machine.ok() };
    row.last_report = SingularPtrField::some(LastReport {
        epoch,
        digest,
        reply: SingularPtrField::some(reply.clone()),
        ..LastReport::default()
    });
    row.mut_task().result_artifact = command.result_artifact.clone();
    if machine.meta.machine_version >= LOG_ARTIFACTS_SINCE {
        let before = std::mem::replace(&mut row.mut_task().log_artifact, command.log_artifact.clone());
        if before != command.log_artifact {
            delete_log(machine, &before)?;
        }
    }
    if command.final_status == TaskStatus::COMPLETED {
        complete(machine, row, &command.result_data)?;
    } else {
        row.mut_task().result_data = command.result_data.clone();
        let reason = match command.reason.as_str() {
            "" => format!("exit code {}", command.exit_code),
            reason => reason.to_owned(),
        };
        if command.infrastructure || command.exit_code == EXIT_CODE_RETRY {
            interrupt(machine, row, Interruption::GivenBack, command.backoff_ms, &reason)?;
        } else {
            let again = !EXIT_CODES_FINAL.contains(&command.exit_code);
            user_failure(machine, row, command.backoff_ms, &reason, again)?;
        }
    }
    Ok(reply)
}

/// A task keeps the log of the attempt that reported last. Nothing else is deleted by the name that a worker gave.
fn delete_log(machine: &mut Machine<'_>, artifact: &str) -> Result<(), Fault> {
    let Ok(artifact_id) = artifact.parse() else { return Ok(()) };
    let row = read::artifact(&machine.rows, artifact_id)?;
    if let Some(row) = row.filter(|row| row.kind == LOG_KIND && row.state == ArtifactState::ARTIFACT_COMMITTED) {
        artifacts::let_go(machine, row)?;
    }
    Ok(())
}

pub(crate) fn expire(machine: &mut Machine<'_>, command: &ExpireLease) -> Handled {
    let row = with_open_lease(machine, &command.task_id, command.epoch)?;
    let started = row.get_task().status == TaskStatus::RUNNING;
    let since = machine.meta.machine_version >= BEFORE_START_SINCE && !mutant::on("expiry_after_start");
    if command.before_start && started && since {
        return Err(refuse(Outcome::STALE, format!("task {} was started meanwhile", command.task_id)));
    }
    let reason = if command.reason.is_empty() { "lease expired" } else { &command.reason };
    interrupt(machine, row, Interruption::Lost, command.backoff_ms, reason)?;
    Ok(machine.ok())
}
