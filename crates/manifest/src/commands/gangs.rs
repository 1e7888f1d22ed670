//! Gangs: the tasks `<job>/member-<i>` of a job, placed whole in one command or not at all (invariant 9), and taken down together.
//!
//! The open members of a gang were all opened by the same Assign: it opens at least `min_members`, and none while another of them is open.
//! A member that leaves its node without having ended takes the others down: they stop with grace and are queued again, none of them counts
//! a failure, and the gang counts one. A member that completed is over; the others go on, and the job is done when no member is open.

use std::collections::BTreeMap;

use raftgrid_proto::v1::{Assign, GangPlace, JobPhase, JobRow, Node, Phase, StopFor, TaskRow, TaskStatus};

use crate::commands::job_end::{self, end_job};
use crate::commands::lifecycle;
use crate::error::Fault;
use crate::machine::Machine;
use crate::read;
use crate::reply::{not_found, precondition};
use crate::tables::{self, JobTable};

/// The members that a command is about to place: their places by sequence.
pub(crate) type Places = BTreeMap<u64, GangPlace>;

/// Guards what the command does to gangs, and counts a new generation of each.
pub(crate) fn places(machine: &mut Machine<'_>, command: &Assign) -> Result<Places, Fault> {
    let mut gangs: BTreeMap<u64, Vec<(u32, u64, String)>> = BTreeMap::new();
    for assignment in command.get_assignments() {
        let id = &assignment.task_id;
        let row = read::task_by_id(&machine.rows, id)?.ok_or_else(|| not_found("task", id))?;
        if let Some(member) = row.gang.as_ref() {
            let list = gangs.entry(row.job_sequence).or_default();
            list.push((member.index, row.sequence, assignment.node_id.clone()));
        }
    }
    let mut places = Places::new();
    for (job_sequence, mut members) in gangs {
        members.sort();
        members.dedup_by_key(|(_, sequence, _)| *sequence);
        let mut job_row = JobTable::get(machine, job_sequence)?;
        guard_whole(machine, &job_row, members.len())?;
        let job = job_row.mut_job();
        job.gang_generation += 1;
        let generation = job.gang_generation;
        JobTable::put(machine, job_row);
        let master_node_id = members.first().map(|(_, _, node_id)| node_id.clone()).unwrap_or_default();
        let master = read::node(&machine.rows, &master_node_id)?.ok_or_else(|| not_found("node", &master_node_id))?;
        let world_size = members.len() as u32;
        for (rank, (_, sequence, _)) in members.into_iter().enumerate() {
            let place = GangPlace {
                rank: rank as u32,
                world_size,
                master_node_id: master_node_id.clone(),
                master_address: host(master.get_node()).to_owned(),
                generation,
                ..GangPlace::default()
            };
            places.insert(sequence, place);
        }
    }
    Ok(places)
}

/// The address without its port.
fn host(node: &Node) -> &str {
    let address = node.address.as_str();
    match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            host.trim_start_matches('[').trim_end_matches(']')
        }
        _ => address,
    }
}

fn guard_whole(machine: &Machine<'_>, job_row: &JobRow, placed: usize) -> Result<(), Fault> {
    let job = job_row.get_job();
    let min = job.get_spec().get_gang().min_members as usize;
    if placed < min {
        let why = format!("gang {} is placed whole: {placed} of its members, at least {min} are needed", job.job_id);
        return Err(precondition(why));
    }
    let open = open_members(machine, job_row.sequence)?.len();
    if open > 0 {
        return Err(precondition(format!("gang {} still has {open} members on nodes", job.job_id)));
    }
    Ok(())
}

/// Members with an open lease.
fn open_members(machine: &Machine<'_>, job_sequence: u64) -> Result<Vec<TaskRow>, Fault> {
    let mut rows = read::tasks_of_job(&machine.rows, job_sequence)?;
    rows.retain(|row| row.open_epoch != 0);
    Ok(rows)
}

/// The member leaves its node, or is about to, without having ended: so do the others.
pub(crate) fn take_down(machine: &mut Machine<'_>, member: &TaskRow) -> Result<(), Fault> {
    if member.gang.is_none() {
        return Ok(());
    }
    let why = format!("member {} of its gang left its node", member.get_task().task_id);
    for row in open_members(machine, member.job_sequence)? {
        if row.sequence != member.sequence && row.get_task().phase != Phase::PHASE_STOPPING {
            lifecycle::stop_alone(machine, row, StopFor::STOP_FOR_REQUEUE, &why)?;
        }
    }
    Ok(())
}

/// What of a gang's attempt failed.
#[derive(Clone, Copy)]
pub(crate) enum Failed {
    /// The task itself.
    User,
    /// Its node.
    Infrastructure,
}

/// Counts a failure of the member against its gang; the answer is how many of that kind there were. None: no gang.
pub(crate) fn count_failure(machine: &mut Machine<'_>, member: &TaskRow, failed: Failed) -> Result<Option<u32>, Fault> {
    if member.gang.is_none() {
        return Ok(None);
    }
    let mut job_row = JobTable::get(machine, member.job_sequence)?;
    let job = job_row.mut_job();
    let counter = match failed {
        Failed::User => &mut job.gang_user_failures,
        Failed::Infrastructure => &mut job.gang_infrastructure_failures,
    };
    *counter = counter.saturating_add(1);
    let count = *counter;
    JobTable::put(machine, job_row);
    Ok(Some(count))
}

/// A member is over: what that means for the job.
pub(crate) fn member_ended(machine: &mut Machine<'_>, member: &TaskRow, mut job_row: JobRow) -> Result<(), Fault> {
    if job_end::is_over(job_row.get_job().phase) {
        return Ok(());
    }
    let task = member.get_task();
    match (task.status, task.phase) {
        (TaskStatus::COMPLETED, _) => {
            let first = task.get_gang_place().rank == 0 || job_row.get_job().result_json.is_empty();
            if first && !task.result_data.is_empty() {
                job_row.mut_job().result_json = task.result_data.clone();
                job_row = JobTable::put(machine, job_row);
            }
            settle(machine, job_row)
        }
        (_, Phase::PHASE_CANCELLED) => {
            let reason = format!("{}: {}", task.task_id, task.failure_reason);
            end_job(machine, job_row.sequence, JobPhase::JOB_CANCELLED, &reason)
        }
        _ => {
            let reason = format!("{} failed: {}", task.task_id, task.failure_reason);
            end_job(machine, job_row.sequence, JobPhase::JOB_FAILED, &reason)
        }
    }
}

/// A member has completed, or went back to the queue while another has: is the job done, or can the gang never be whole again?
fn settle(machine: &mut Machine<'_>, job_row: JobRow) -> Result<(), Fault> {
    let rows = read::tasks_of_job(&machine.rows, job_row.sequence)?;
    if rows.iter().any(|row| row.open_epoch != 0) {
        return Ok(());
    }
    let job = job_row.get_job();
    let waiting = |row: &&TaskRow| !tables::is_over(row.get_task());
    let interrupted = rows.iter().filter(waiting).any(|row| was_placed(row, job.gang_generation));
    if !interrupted {
        return job_end::done(machine, job_row);
    }
    let left = rows.iter().filter(waiting).count();
    let min = job.get_spec().get_gang().min_members as usize;
    if left < min {
        let reason =
            format!("some members had completed when the others were interrupted: {left} are left, {min} are needed");
        return end_job(machine, job_row.sequence, JobPhase::JOB_FAILED, &reason);
    }
    Ok(())
}

/// Whether the member took part in this placement of its gang.
fn was_placed(row: &TaskRow, generation: u64) -> bool {
    row.get_task().get_gang_place().generation == generation && generation != 0
}

/// A member is back in the queue, or rests: see `settle`.
pub(crate) fn member_left(machine: &mut Machine<'_>, member: &TaskRow) -> Result<(), Fault> {
    if member.gang.is_none() {
        return Ok(());
    }
    take_down(machine, member)?;
    let job_row = JobTable::get(machine, member.job_sequence)?;
    if job_end::is_over(job_row.get_job().phase) {
        return Ok(());
    }
    let rows = read::tasks_of_job(&machine.rows, job_row.sequence)?;
    let completed = rows.iter().any(|row| row.get_task().status == TaskStatus::COMPLETED);
    if completed {
        settle(machine, job_row)?;
    }
    Ok(())
}
