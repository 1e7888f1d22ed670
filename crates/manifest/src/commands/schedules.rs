//! PutSchedule, DeleteSchedule, PauseSchedule, FireSchedule. Owns `Schedule`.
//!
//! A tick takes effect once: FireSchedule is refused unless its tick is above the last one, whoever proposes it and however often. Which ticks
//! there are is the leader's reckoning (cron lines and time zones are data that change between versions; apply knows neither); the generation
//! fences a reckoning by an older version of the schedule.

use protobuf::SingularPtrField;
use raftgrid_proto::v1::{
    CommandReply, DeleteSchedule, FireSchedule, JobPhase, JobSpec, Outcome, Overlap, PauseSchedule, PutSchedule,
    Schedule, ScheduleRow, SubmitJob, SubmitTask,
};

use crate::commands::{job_end, job_spec, jobs, lifecycle, tasks};
use crate::error::{Fault, Handled};
use crate::limits::{
    CRON_BYTES_MAX, ID_BYTES_MAX, SCHEDULES_MAX, SCHEDULE_ID_BYTES_MAX, TASK_DATA_BYTES_MAX, TICK_AHEAD_MS_MAX,
};
use crate::machine::Machine;
use crate::mutant;
use crate::overlay::Layer;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::{Rows as _, Table};
use crate::tables::is_over;
use crate::text::{check_bytes, check_name, check_spec, cut};

fn get(machine: &Machine<'_>, id: &str) -> Result<ScheduleRow, Fault> {
    read::schedule(&machine.rows, id)?.ok_or_else(|| not_found("schedule", id))
}

fn write(machine: &mut Machine<'_>, mut row: ScheduleRow) {
    row.mut_schedule().revision = machine.position.get();
    let key = row.get_schedule().schedule_id.clone().into_bytes();
    machine.put(Table::Schedule, key, &row);
}

/// What runs, under a name of a run.
enum Run {
    Job(Box<JobSpec>),
    Task(SubmitTask),
}

fn job_of(schedule: &Schedule, suffix: &str) -> JobSpec {
    let mut spec = schedule.get_job().clone();
    spec.name = format!("sched.{}.{suffix}", schedule.schedule_id);
    spec
}

fn run_of(schedule: &Schedule, job_suffix: &str, task_suffix: &str) -> Run {
    let Some(task) = schedule.task.as_ref() else { return Run::Job(Box::new(job_of(schedule, job_suffix))) };
    Run::Task(SubmitTask {
        task_id: format!("sched/{}/{task_suffix}", schedule.schedule_id),
        task_type: task.task_type.clone(),
        task_data: task.task_data.clone(),
        spec: task.spec.clone(),
        ..SubmitTask::default()
    })
}

pub(crate) fn put(machine: &mut Machine<'_>, command: &PutSchedule) -> Handled {
    let asked = command.get_schedule();
    let id = &asked.schedule_id;
    check_name("schedule_id", id, SCHEDULE_ID_BYTES_MAX, b"")?;
    if asked.cron.is_empty() {
        return Err(invalid("cron", "must not be empty"));
    }
    check_bytes("cron", asked.cron.len(), CRON_BYTES_MAX)?;
    check_bytes("time_zone", asked.time_zone.len(), CRON_BYTES_MAX)?;
    check_what_runs(machine, asked)?;
    let old = read::schedule(&machine.rows, id)?;
    if old.is_none() && at_most(machine)? {
        return Err(refuse(Outcome::EXHAUSTED, format!("there are {SCHEDULES_MAX} schedules")));
    }
    let before = old.as_ref().map(ScheduleRow::get_schedule);
    let schedule = Schedule {
        last_tick_ms: machine.now_ms().max(before.map_or(0, |old| old.last_tick_ms)),
        last_run: before.map(|old| old.last_run.clone()).unwrap_or_default(),
        fired: before.map_or(0, |old| old.fired),
        skipped: before.map_or(0, |old| old.skipped),
        last_skip: String::new(),
        principal: machine.principal.to_owned(),
        created_at_ms: before.map_or(machine.now_ms(), |old| old.created_at_ms),
        next_tick_ms: 0,
        ..asked.clone()
    };
    let generation = machine.position.get();
    write(machine, ScheduleRow { schedule: SingularPtrField::some(schedule), generation, ..ScheduleRow::default() });
    Ok(CommandReply { id: id.clone(), ..machine.ok() })
}

fn at_most(machine: &Machine<'_>) -> Result<bool, Fault> {
    let mut count = 0;
    machine.rows.scan(Table::Schedule, &[], &[], &mut |_, _| {
        count += 1;
        count < SCHEDULES_MAX
    })?;
    Ok(count >= SCHEDULES_MAX)
}

fn check_what_runs(machine: &Machine<'_>, asked: &Schedule) -> Result<(), Fault> {
    match (asked.job.as_ref(), asked.task.as_ref()) {
        (Some(job), None) => {
            if !job.name.is_empty() {
                return Err(invalid("job.name", "each run gets a name of its own; leave it out"));
            }
            // Under a name that no run will have.
            job_spec::checked(machine, &job_of(asked, "hand-0"))?;
            Ok(())
        }
        (None, Some(task)) => {
            check_name("task.task_type", &task.task_type, ID_BYTES_MAX, b"/:")?;
            check_bytes("task.task_data", task.task_data.len(), TASK_DATA_BYTES_MAX)?;
            if !task.get_spec().depends_on.is_empty() {
                return Err(invalid("task.spec.depends_on", "a run waits for its tick only"));
            }
            check_spec("task.spec", task.get_spec())
        }
        (Some(_), Some(_)) | (None, None) => Err(invalid("job", "either a job or a task must be given")),
    }
}

pub(crate) fn delete(machine: &mut Machine<'_>, command: &DeleteSchedule) -> Handled {
    get(machine, &command.schedule_id)?;
    machine.delete(Table::Schedule, command.schedule_id.clone().into_bytes());
    Ok(CommandReply { id: command.schedule_id.clone(), ..machine.ok() })
}

pub(crate) fn pause(machine: &mut Machine<'_>, command: &PauseSchedule) -> Handled {
    let mut row = get(machine, &command.schedule_id)?;
    if row.get_schedule().paused == command.paused {
        let revision = row.get_schedule().revision;
        return Ok(CommandReply { id: command.schedule_id.clone(), ..machine.existing(revision) });
    }
    let now = machine.now_ms();
    row.generation = machine.position.get();
    let schedule = row.mut_schedule();
    schedule.paused = command.paused;
    if !command.paused {
        schedule.last_tick_ms = schedule.last_tick_ms.max(now);
    }
    write(machine, row);
    Ok(CommandReply { id: command.schedule_id.clone(), ..machine.ok() })
}

pub(crate) fn fire(machine: &mut Machine<'_>, command: &FireSchedule) -> Handled {
    let mut row = get(machine, &command.schedule_id)?;
    if command.by_hand {
        return by_hand(machine, row);
    }
    let schedule = row.get_schedule();
    if command.generation != row.generation {
        return Err(refuse(Outcome::STALE, format!("schedule {} was changed meanwhile", command.schedule_id)));
    }
    if schedule.paused {
        return Err(precondition(format!("schedule {} is paused", command.schedule_id)));
    }
    let already = command.tick_ms <= schedule.last_tick_ms && !mutant::on("tick_again");
    if already {
        return Ok(CommandReply { id: schedule.last_run.clone(), ..machine.existing(schedule.revision) });
    }
    if command.tick_ms > machine.now_ms().saturating_add(TICK_AHEAD_MS_MAX) {
        return Err(invalid("tick_ms", format!("{} is yet to come", command.tick_ms)));
    }
    row.mut_schedule().last_tick_ms = command.tick_ms;
    row.mut_schedule().skipped = row.get_schedule().skipped.saturating_add(command.passed);
    if command.skip {
        return Ok(gone_by(machine, row, "nobody could fire it in time"));
    }
    if let Some(open) = open_run(machine, row.get_schedule())? {
        match row.get_schedule().overlap {
            Overlap::OVERLAP_ALLOW => {}
            Overlap::OVERLAP_FORBID => return Ok(gone_by(machine, row, &format!("{open} was not over"))),
            Overlap::OVERLAP_REPLACE => replace(machine, row.get_schedule(), command.tick_ms)?,
        }
    }
    let (job_suffix, task_suffix) = ((command.tick_ms / 1_000).to_string(), command.tick_ms.to_string());
    let run = run_of(row.get_schedule(), &job_suffix, &task_suffix);
    Ok(match start(machine, &row, run)? {
        Ok(reply) => fired(machine, row, reply.id),
        // The tick is dealt with all the same: a run that is refused now would be refused for ever.
        Err(refusal) => gone_by(machine, row, &format!("it was refused: {}", refusal.message)),
    })
}

fn by_hand(machine: &mut Machine<'_>, row: ScheduleRow) -> Handled {
    let suffix = format!("hand-{}", machine.position.get());
    let run = run_of(row.get_schedule(), &suffix, &suffix);
    match start(machine, &row, run)? {
        Ok(reply) => Ok(fired(machine, row, reply.id)),
        Err(refusal) => Err(Fault::Refused(refusal)),
    }
}

fn fired(machine: &mut Machine<'_>, mut row: ScheduleRow, run_id: String) -> CommandReply {
    let schedule = row.mut_schedule();
    schedule.fired += 1;
    schedule.last_run = run_id.clone();
    write(machine, row);
    CommandReply { id: run_id, ..machine.ok() }
}

fn gone_by(machine: &mut Machine<'_>, mut row: ScheduleRow, why: &str) -> CommandReply {
    let schedule = row.mut_schedule();
    schedule.skipped = schedule.skipped.saturating_add(1);
    schedule.last_skip = cut(why);
    write(machine, row);
    machine.ok()
}

/// The newest run, if it is not over.
fn open_run(machine: &Machine<'_>, schedule: &Schedule) -> Result<Option<String>, Fault> {
    let run = &schedule.last_run;
    let open = if run.contains('/') {
        read::task_by_id(&machine.rows, run)?.is_some_and(|row| !is_over(row.get_task()))
    } else {
        read::job_by_id(&machine.rows, run)?.is_some_and(|row| !job_end::is_over(row.get_job().phase))
    };
    Ok(open.then(|| run.clone()))
}

fn replace(machine: &mut Machine<'_>, schedule: &Schedule, tick_ms: u64) -> Result<(), Fault> {
    let reason = format!("schedule {} starts the run of tick {tick_ms}", schedule.schedule_id);
    if let Some(row) = read::job_by_id(&machine.rows, &schedule.last_run)? {
        return job_end::end_job(machine, row.sequence, JobPhase::JOB_CANCELLED, &reason);
    }
    if let Some(row) = read::task_by_id(&machine.rows, &schedule.last_run)? {
        lifecycle::stop(machine, row, &reason)?;
    }
    Ok(())
}

/// Submits the run on behalf of whoever put the schedule. What a refused one wrote is dropped.
fn start(machine: &mut Machine<'_>, row: &ScheduleRow, run: Run) -> Result<Result<CommandReply, CommandReply>, Fault> {
    let mut inner = Machine {
        rows: Layer::new(&machine.rows),
        meta: machine.meta.clone(),
        position: machine.position,
        principal: &row.get_schedule().principal,
        request_id: "",
        ended: Vec::new(),
    };
    let handled = match run {
        Run::Job(spec) => jobs::submit(&mut inner, &SubmitJob { spec: Some(*spec).into(), ..SubmitJob::default() }),
        Run::Task(task) => tasks::submit(&mut inner, &task),
    };
    match handled {
        Ok(reply) => {
            let Machine { rows, meta, ended, .. } = inner;
            let changes = rows.into_changes();
            machine.rows.absorb(changes);
            machine.meta = meta;
            machine.ended.extend(ended);
            Ok(Ok(reply))
        }
        Err(Fault::Refused(refusal)) => Ok(Err(refusal)),
        Err(stop) => Err(stop),
    }
}
