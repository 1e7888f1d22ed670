//! ScheduleService: put, get, list, pause, delete, trigger.
//!
//! A line and a zone are checked here, before anything is proposed: the machine knows neither, since what they mean may change between versions.

use std::sync::Arc;

use raftgrid_proto::v1::*;
use raftgrid_replica::Cron;
use raftgrid_rpc::methods;

use crate::calls::{propose, read, read_at, Surface};
use crate::context::{Context, Core};
use crate::failure::{invalid, not_found, Answer};
use crate::{limits, validate, views};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .unary(&methods::PUT_SCHEDULE, put)
        .unary(&methods::GET_SCHEDULE, get)
        .unary(&methods::LIST_SCHEDULES, list)
        .unary(&methods::PAUSE_SCHEDULE, pause)
        .unary(&methods::DELETE_SCHEDULE, delete)
        .unary(&methods::TRIGGER_SCHEDULE, trigger)
}

/// As clients see it: with its next tick, which is past if it is due now.
fn shown(mut schedule: Schedule) -> Schedule {
    let line = Cron::parse(&schedule.cron, &schedule.time_zone, schedule.last_tick_ms).ok();
    let next = line.filter(|_| !schedule.paused).and_then(|line| line.next(schedule.last_tick_ms));
    schedule.next_tick_ms = next.unwrap_or(0);
    schedule
}

async fn shown_at(core: &Core, position: u64, id: &str) -> Answer<Schedule> {
    let view = read_at(core, position).await?;
    let row = views::schedule(&*view.rows, id)?.ok_or_else(|| not_found("schedule", id))?;
    Ok(shown(row.schedule.unwrap_or_default()))
}

async fn put(core: Arc<Core>, context: Context, mut request: PutScheduleRequest) -> Answer<PutScheduleResponse> {
    let schedule = request.take_schedule();
    let id = schedule.get_schedule_id().to_owned();
    validate::name("schedule_id", &id)?;
    validate::optional_name("request_id", request.get_request_id())?;
    if schedule.has_job() {
        let data = schedule.get_job().get_task_data();
        validate::json("job.task_data", data, limits::TASK_DATA_BYTES_MAX)?;
        validate::dag("job.dag", schedule.get_job())?;
    }
    validate::json("task.task_data", schedule.get_task().get_task_data(), limits::TASK_DATA_BYTES_MAX)?;
    let view = read(&core, Consistency::LOCAL).await?;
    let now_ms = views::cluster_time_ms(&*view.rows)?;
    Cron::parse(schedule.get_cron(), schedule.get_time_zone(), now_ms).map_err(|error| {
        let text = error.to_string();
        let (field, cause) = text.split_once(": ").unwrap_or(("cron", &text));
        invalid(field, cause)
    })?;
    let kind =
        Command_oneof_kind::put_schedule(PutSchedule { schedule: Some(schedule).into(), ..PutSchedule::default() });
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let mut response = PutScheduleResponse::new();
    response.set_schedule(shown_at(&core, reply.get_position(), &id).await?);
    Ok(response)
}

async fn get(core: Arc<Core>, _: Context, request: GetScheduleRequest) -> Answer<GetScheduleResponse> {
    validate::name("schedule_id", request.get_schedule_id())?;
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let mut response = GetScheduleResponse::new();
    if let Some(row) = views::schedule(&*view.rows, request.get_schedule_id())? {
        response.set_schedule(shown(row.schedule.unwrap_or_default()));
        response.set_found(true);
    }
    Ok(response)
}

async fn list(core: Arc<Core>, _: Context, request: ListSchedulesRequest) -> Answer<ListSchedulesResponse> {
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let (list, next) = views::schedules(&*view.rows, validate::page(request.get_limit()), request.get_page_token())?;
    let mut response = ListSchedulesResponse::new();
    response.set_schedules(list.into_iter().map(shown).collect());
    response.set_next_page_token(next);
    Ok(response)
}

async fn pause(core: Arc<Core>, context: Context, request: PauseScheduleRequest) -> Answer<PauseScheduleResponse> {
    let id = request.get_schedule_id();
    validate::name("schedule_id", id)?;
    validate::optional_name("request_id", request.get_request_id())?;
    let paused = request.get_paused();
    let pause = PauseSchedule { schedule_id: id.to_owned(), paused, ..PauseSchedule::default() };
    let kind = Command_oneof_kind::pause_schedule(pause);
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let mut response = PauseScheduleResponse::new();
    response.set_schedule(shown_at(&core, reply.get_position(), id).await?);
    Ok(response)
}

async fn delete(core: Arc<Core>, context: Context, request: DeleteScheduleRequest) -> Answer<DeleteScheduleResponse> {
    validate::name("schedule_id", request.get_schedule_id())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let schedule_id = request.get_schedule_id().to_owned();
    let kind = Command_oneof_kind::delete_schedule(DeleteSchedule { schedule_id, ..DeleteSchedule::default() });
    propose(&core, &context, request.get_request_id(), kind).await?;
    Ok(DeleteScheduleResponse::new())
}

/// A run now, whatever the line says; it is no tick.
async fn trigger(
    core: Arc<Core>,
    context: Context,
    request: TriggerScheduleRequest,
) -> Answer<TriggerScheduleResponse> {
    let id = request.get_schedule_id();
    validate::name("schedule_id", id)?;
    validate::optional_name("request_id", request.get_request_id())?;
    let kind = Command_oneof_kind::fire_schedule(FireSchedule {
        schedule_id: id.to_owned(),
        by_hand: true,
        ..FireSchedule::default()
    });
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let mut response = TriggerScheduleResponse::new();
    response.set_run_id(reply.get_id().to_owned());
    response.set_schedule(shown_at(&core, reply.get_position(), id).await?);
    Ok(response)
}
