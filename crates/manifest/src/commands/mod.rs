//! One file for each family of commands. A handler checks every guard first and writes after; what a refused handler wrote is dropped.

pub(crate) mod arrays;
mod artifacts;
mod cluster;
mod dag;
mod deadlines;
pub(crate) mod dependencies;
mod gangs;
mod gradients;
mod history;
mod hyperparameters;
pub(crate) mod init_role;
pub(crate) mod job_end;
mod job_spec;
mod jobs;
mod kv;
mod lessee;
mod lifecycle;
mod maintenance;
mod matmul;
mod members;
mod models;
mod names;
mod nodes;
mod placement_spec;
mod preemption;
mod quarantine;
mod queues;
mod recode;
mod retention;
mod room;
mod round_settings;
mod rounds;
mod schedules;
mod shard_states;
mod task_holds;
mod task_results;
mod task_stops;
mod tasks;
mod trainers;

use raftgrid_proto::v1::{Command_oneof_kind as Kind, Outcome, TaskSpec, TrainSpec};

use crate::error::Handled;
use crate::machine::Machine;
use crate::reply::refuse;

pub use hyperparameters::check_training;
pub use kv::BESIDE_SINCE;
pub use names::SINCE as NAMES_SINCE;
pub use shard_states::{EXPIRE_SINCE as STATES_EXPIRE_SINCE, STATE_KIND};
pub use task_results::report_digest;

/// The newest version of the machine that this binary knows.
///
/// | version | what it changed |
/// |---|---|
/// | 1 | the first |
/// | 2 | the state says since when it is at its version: below that position an older program can still follow it |
/// | 3 | SuspendTask, ResumeTask, RequeueTask, SetPriority; a task's row remembers its attempts; replicated keys; limits and requirements of tasks, logs as artifacts, problems of nodes; dependencies, jobs of type dag, eval and torchrun, arrays, sweeps, matmul by blocks, schedules; PutQueue, DeleteQueue, PreemptTask, SetMaintenance; queues, gangs, operators and attributes of constraints, preferences, affinities |
/// | 4 | a node's row remembers its process's generation: an older process does not take its place |
/// | 5 | coded artifacts: BeginArtifact with a code, receipts of fragments, RecodeArtifact; optimisers other than SGD, schedules of the learning rate, trimmed mean, median and clipping; encoded gradients; states of shards |
/// | 6 | rounds that a deadline ends, and bounded and asynchronous ones; versions of a name, budgets of bytes, values beside the log |
/// | 7 | model 0 may come from any trainer that has a lease |
pub const MACHINE_VERSION: u64 = 7;

/// The machine version from which on a command may be proposed: a replica that does not know a command would have to stop.
pub fn minimum_version(kind: &Kind) -> u64 {
    match kind {
        Kind::submit_task(command) => spec_version(command.get_spec()),
        Kind::submit_job(command) if job_spec::is_new(command.get_spec()) => 3,
        Kind::submit_job(command) => spec_version(command.get_spec().get_task()),
        Kind::register_node(_)
        | Kind::assign(_)
        | Kind::start(_)
        | Kind::report_result(_)
        | Kind::expire_lease(_)
        | Kind::cancel_task(_)
        | Kind::retry_task(_)
        | Kind::node_status_change(_)
        | Kind::set_eligibility(_)
        | Kind::deregister(_)
        | Kind::load_report(_)
        | Kind::cancel_job(_)
        | Kind::fail_job(_)
        | Kind::trainer_ready(_)
        | Kind::lease_shards(_)
        | Kind::commit_gradient(_)
        | Kind::reject_gradient(_)
        | Kind::commit_model(_)
        | Kind::seal_round(_)
        | Kind::begin_artifact(_)
        | Kind::commit_artifact(_)
        | Kind::delete_artifact(_)
        | Kind::add_receipts(_)
        | Kind::set_machine_version(_)
        | Kind::put_member(_) => 1,
        Kind::suspend_task(_) | Kind::resume_task(_) | Kind::requeue_task(_) | Kind::set_priority(_) => 3,
        Kind::put_queue(_)
        | Kind::delete_queue(_)
        | Kind::preempt_task(_)
        | Kind::set_maintenance(_)
        | Kind::kv_put(_)
        | Kind::kv_delete(_)
        | Kind::kv_compare_and_set(_)
        | Kind::put_schedule(_)
        | Kind::delete_schedule(_)
        | Kind::fire_schedule(_)
        | Kind::pause_schedule(_)
        | Kind::materialize_elements(_)
        | Kind::resolve_dependents(_)
        | Kind::retry_elements(_) => 3,
        Kind::recode_artifact(_) => 5,
        Kind::extend_round(_) | Kind::resume_job(_) => 6,
        Kind::remove_artifact(_) | Kind::name_artifact(_) | Kind::set_room(_) => names::SINCE,
    }
}

/// What a task's spec asks for that older replicas do not know.
fn spec_version(spec: &TaskSpec) -> u64 {
    let asks = spec.limits.is_some() || !spec.requirements.is_empty() || !spec.requirements_file.is_empty();
    let asks = asks || !spec.depends_on.is_empty();
    if asks {
        3
    } else {
        1
    }
}

/// The machine version that the fields of a command ask for: an older replica would read it as something else, so it must not be proposed
/// before. [`minimum_version`] is what apply itself asks.
pub fn fields_version(kind: &Kind) -> u64 {
    match kind {
        Kind::begin_artifact(command) if command.versioned || command.keep != 0 || command.principal_bytes_max != 0 => {
            names::SINCE
        }
        Kind::commit_artifact(command) if !(command.name.is_empty() && command.digest.is_empty()) => names::SINCE,
        Kind::kv_put(command) if command.artifact_id != 0 => kv::BESIDE_SINCE,
        Kind::kv_compare_and_set(command) if command.artifact_id != 0 => kv::BESIDE_SINCE,
        Kind::submit_job(command) => train_version(command.get_spec().get_train()),
        Kind::put_schedule(command) => train_version(command.get_schedule().get_job().get_train()),
        Kind::commit_model(command) if hyperparameters::is_new(command.get_optimizer(), command.combine.as_ref()) => {
            hyperparameters::SINCE
        }
        _ => 1,
    }
}

fn train_version(train: &TrainSpec) -> u64 {
    if round_settings::is_new(train) || train.norm_limit != 0.0 {
        round_settings::SINCE
    } else if hyperparameters::is_new(train.get_optimizer(), train.combine.as_ref()) {
        hyperparameters::SINCE
    } else {
        1
    }
}

/// Runs one command.
pub(crate) fn dispatch(machine: &mut Machine<'_>, kind: &Kind) -> Handled {
    let (needs, has) = (minimum_version(kind), machine.meta.machine_version);
    if has < needs {
        return Err(refuse(Outcome::PRECONDITION, format!("needs machine version {needs}, the cluster is at {has}")));
    }
    let reply = handle(machine, kind)?;
    dependencies::settle(machine)?;
    Ok(reply)
}

fn handle(machine: &mut Machine<'_>, kind: &Kind) -> Handled {
    match kind {
        Kind::submit_task(command) => tasks::submit(machine, command),
        Kind::assign(command) => tasks::assign(machine, command),
        Kind::start(command) => tasks::start(machine, command),
        Kind::report_result(command) => task_results::report(machine, command),
        Kind::expire_lease(command) => task_results::expire(machine, command),
        Kind::cancel_task(command) => task_stops::cancel(machine, command),
        Kind::retry_task(command) => task_stops::retry(machine, command),
        Kind::suspend_task(command) => task_holds::suspend(machine, command),
        Kind::resume_task(command) => task_holds::resume(machine, command),
        Kind::requeue_task(command) => task_holds::requeue(machine, command),
        Kind::set_priority(command) => task_holds::set_priority(machine, command),
        Kind::register_node(command) => nodes::register(machine, command),
        Kind::node_status_change(command) => nodes::change_status(machine, command),
        Kind::set_eligibility(command) => nodes::set_eligibility(machine, command),
        Kind::deregister(command) => nodes::deregister(machine, command),
        Kind::load_report(command) => nodes::report_load(machine, command),
        Kind::submit_job(command) => jobs::submit(machine, command),
        Kind::cancel_job(command) => jobs::cancel(machine, command),
        Kind::fail_job(command) => jobs::fail(machine, command),
        Kind::trainer_ready(command) => trainers::ready(machine, command),
        Kind::lease_shards(command) => trainers::lease_shards(machine, command),
        Kind::commit_gradient(command) => gradients::commit(machine, command),
        Kind::reject_gradient(command) => gradients::reject(machine, command),
        Kind::commit_model(command) => models::commit(machine, command),
        Kind::seal_round(command) => deadlines::seal(machine, command),
        Kind::extend_round(command) => deadlines::extend(machine, command),
        Kind::resume_job(command) => jobs::resume(machine, command),
        Kind::begin_artifact(command) => artifacts::begin(machine, command),
        Kind::commit_artifact(command) => artifacts::commit(machine, command),
        Kind::delete_artifact(command) => artifacts::delete(machine, command),
        Kind::add_receipts(command) => artifacts::add_receipts(machine, command),
        Kind::recode_artifact(command) => recode::recode(machine, command),
        Kind::remove_artifact(command) => names::remove(machine, command),
        Kind::name_artifact(command) => names::name(machine, command),
        Kind::set_room(command) => room::set(machine, command),
        Kind::set_machine_version(command) => cluster::set_version(machine, command),
        Kind::put_member(command) => members::put(machine, command),
        Kind::put_queue(command) => queues::put(machine, command),
        Kind::delete_queue(command) => queues::delete(machine, command),
        Kind::preempt_task(command) => preemption::preempt(machine, command),
        Kind::set_maintenance(command) => maintenance::set(machine, command),
        Kind::kv_put(command) => kv::put(machine, command),
        Kind::kv_delete(command) => kv::delete(machine, command),
        Kind::kv_compare_and_set(command) => kv::compare_and_set(machine, command),
        Kind::put_schedule(command) => schedules::put(machine, command),
        Kind::delete_schedule(command) => schedules::delete(machine, command),
        Kind::fire_schedule(command) => schedules::fire(machine, command),
        Kind::pause_schedule(command) => schedules::pause(machine, command),
        Kind::materialize_elements(command) => arrays::materialize(machine, command),
        Kind::resolve_dependents(command) => dependencies::resolve(machine, command),
        Kind::retry_elements(command) => arrays::retry(machine, command),
    }
}

#[cfg(test)]
mod tests {
    use raftgrid_proto::v1::{MetaRow, SealRound};

    use super::*;
    use crate::error::Fault;
    use crate::overlay::Layer;
    use crate::position::Position;
    use crate::rows::MemRows;

    #[test]
    fn a_command_below_its_machine_version_is_refused() {
        let rows = MemRows::default();
        for (version, outcome) in [(0, Outcome::PRECONDITION), (1, Outcome::NOT_FOUND)] {
            let mut machine = Machine {
                rows: Layer::new(&rows),
                meta: MetaRow { machine_version: version, ..MetaRow::default() },
                position: Position::new(2, 0),
                principal: "",
                request_id: "",
                ended: Vec::new(),
            };
            match dispatch(&mut machine, &Kind::seal_round(SealRound::default())) {
                Err(Fault::Refused(reply)) => assert_eq!(reply.outcome, outcome, "{}", reply.message),
                _ => panic!("must be refused"),
            }
        }
    }
}
