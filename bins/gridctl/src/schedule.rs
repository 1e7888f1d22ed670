//! `gridctl schedule`: jobs at the ticks of a cron line.

use std::path::Path;

use raftgrid_client::Client;
use raftgrid_proto::v1::Schedule as ScheduleMessage;
use serde_json::{json, Value};

use crate::cli::Schedule;
use crate::context::{exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::job_file;
use crate::job_submit::add_bundle;
use crate::output::{ago, word};

pub(crate) fn run(context: &Context, command: Schedule) -> Result<()> {
    exit_on_interrupt();
    let said = |what: &str, schedule: &ScheduleMessage| {
        context.output.done(format!("schedule {} {what}", schedule.get_schedule_id()), &schedule_json(schedule));
        Ok(())
    };
    match command {
        Schedule::Put { file, name, settings } => {
            let schedule = put(context, &file, name, &settings)?;
            said(&format!("is set; {}", next(&schedule)), &schedule)
        }
        Schedule::List => {
            let list = context.client()?.list_schedules()?;
            let json = Value::Array(list.iter().map(schedule_json).collect());
            context.output.show(HEADERS, list.iter().map(row).collect(), &json);
            Ok(())
        }
        Schedule::Get { id } => {
            show(context, &context.client()?.get_schedule(&id)?);
            Ok(())
        }
        Schedule::Pause { id } => said("is paused", &context.client()?.pause_schedule(&id, true)?),
        Schedule::Resume { id } => {
            let schedule = context.client()?.pause_schedule(&id, false)?;
            said(&format!("goes on; {}", next(&schedule)), &schedule)
        }
        Schedule::Rm { id } => {
            context.client()?.delete_schedule(&id)?;
            context.output.done(format!("schedule {id} is removed"), &json!({"schedule": id}));
            Ok(())
        }
        Schedule::Trigger { id } => {
            let run = context.client()?.trigger_schedule(&id)?;
            context.output.done(format!("schedule {id} runs as {run}"), &json!({"schedule": id, "run": run}));
            Ok(())
        }
    }
}

fn put(context: &Context, path: &Path, name: Option<String>, settings: &[String]) -> Result<ScheduleMessage> {
    let file = job_file::read(path, settings)?;
    let Some(mut schedule) = file.schedule else {
        let cause = format!("{} has no section [schedule]", path.display());
        return Err(Failure::usage(cause, "[schedule] with cron = \"0 3 * * *\""));
    };
    let mut spec = file.spec;
    schedule.schedule_id = name.unwrap_or_else(|| std::mem::take(&mut spec.name));
    spec.name.clear();
    if schedule.schedule_id.is_empty() {
        return Err(Failure::usage("the schedule has no name", "--name NAME, or name = \"NAME\" in the file"));
    }
    let client: Client = context.client()?;
    add_bundle(&client, &file.scripts, &mut spec, context.output)?;
    schedule.set_job(spec);
    Ok(client.put_schedule(schedule)?)
}

/// A time as people read it, in UTC.
fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => {
            let (date, clock) = (at.date(), at.time());
            let month = u8::from(date.month());
            format!(
                "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
                date.year(),
                date.day(),
                clock.hour(),
                clock.minute(),
                clock.second()
            )
        }
        Err(_) => seconds.to_string(),
    }
}

fn next(schedule: &ScheduleMessage) -> String {
    match schedule.get_next_tick_ms() {
        0 => "it has no next tick".to_owned(),
        at => format!("its next tick is at {}", moment(at)),
    }
}

fn state(schedule: &ScheduleMessage) -> &'static str {
    if schedule.get_paused() {
        "paused"
    } else {
        "active"
    }
}

const HEADERS: &[&str] = &["schedule", "cron", "zone", "state", "next", "fired", "skipped", "last run"];

fn row(schedule: &ScheduleMessage) -> Vec<String> {
    let next = schedule.get_next_tick_ms();
    vec![
        schedule.get_schedule_id().to_owned(),
        schedule.get_cron().to_owned(),
        zone(schedule).to_owned(),
        state(schedule).to_owned(),
        if next == 0 { String::new() } else { moment(next) },
        schedule.get_fired().to_string(),
        schedule.get_skipped().to_string(),
        schedule.get_last_run().to_owned(),
    ]
}

fn zone(schedule: &ScheduleMessage) -> &str {
    match schedule.get_time_zone() {
        "" => "UTC",
        zone => zone,
    }
}

fn schedule_json(schedule: &ScheduleMessage) -> Value {
    json!({
        "schedule": schedule.get_schedule_id(),
        "cron": schedule.get_cron(),
        "time_zone": zone(schedule),
        "overlap": word(schedule.get_overlap(), "OVERLAP_"),
        "catch_up": word(schedule.get_catch_up(), "CATCH_UP_"),
        "paused": schedule.get_paused(),
        "type": schedule.get_job().get_field_type(),
        "last_tick_ms": schedule.get_last_tick_ms(),
        "next_tick_ms": schedule.get_next_tick_ms(),
        "last_run": schedule.get_last_run(),
        "fired": schedule.get_fired(),
        "skipped": schedule.get_skipped(),
        "last_skip": schedule.get_last_skip(),
        "created_at_ms": schedule.get_created_at_ms(),
    })
}

fn show(context: &Context, schedule: &ScheduleMessage) {
    let pairs = vec![
        ("schedule", schedule.get_schedule_id().to_owned()),
        ("cron", schedule.get_cron().to_owned()),
        ("zone", zone(schedule).to_owned()),
        ("state", state(schedule).to_owned()),
        ("overlap", word(schedule.get_overlap(), "OVERLAP_")),
        ("catch up", word(schedule.get_catch_up(), "CATCH_UP_")),
        ("created", ago(i64::try_from(schedule.get_created_at_ms() / 1_000).unwrap_or(0))),
        ("next tick", next(schedule)),
        ("runs", format!("{} fired, {} skipped", schedule.get_fired(), schedule.get_skipped())),
        ("last run", schedule.get_last_run().to_owned()),
        ("last skip", schedule.get_last_skip().to_owned()),
    ];
    context.output.show_one(pairs, &schedule_json(schedule));
}
