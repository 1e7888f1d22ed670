//! Schedules.

use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{
    DELETE_SCHEDULE, GET_SCHEDULE, LIST_SCHEDULES, PAUSE_SCHEDULE, PUT_SCHEDULE, TRIGGER_SCHEDULE,
};

use crate::call::{request_id, Client};
use crate::error::ClientError;
use crate::limits::PAGE_ROWS_MAX;
use crate::task::all_pages;

impl Client {
    /// Makes a schedule, or changes the one of that id; ticks up to now are not made up for.
    pub fn put_schedule(&self, schedule: Schedule) -> Result<Schedule, ClientError> {
        let mut request = PutScheduleRequest::new();
        request.set_schedule(schedule);
        request.set_request_id(request_id());
        Ok(self.call(&PUT_SCHEDULE, &request, self.config().timeout)?.take_schedule())
    }

    /// A schedule as of now.
    pub fn get_schedule(&self, id: &str) -> Result<Schedule, ClientError> {
        let mut request = GetScheduleRequest::new();
        request.set_schedule_id(id.to_owned());
        let mut response = self.call(&GET_SCHEDULE, &request, self.config().timeout)?;
        if response.get_found() {
            Ok(response.take_schedule())
        } else {
            Err(ClientError::NotFound(format!("schedule {id}")))
        }
    }

    /// All schedules, page by page.
    pub fn list_schedules(&self) -> Result<Vec<Schedule>, ClientError> {
        all_pages(
            |token| {
                let mut request = ListSchedulesRequest::new();
                request.set_limit(PAGE_ROWS_MAX);
                request.set_page_token(token);
                self.call(&LIST_SCHEDULES, &request, self.config().timeout)
            },
            |mut response| (response.take_schedules().into_vec(), response.take_next_page_token()),
        )
    }

    /// Pauses a schedule, or lets it go on.
    pub fn pause_schedule(&self, id: &str, paused: bool) -> Result<Schedule, ClientError> {
        let mut request = PauseScheduleRequest::new();
        request.set_schedule_id(id.to_owned());
        request.set_paused(paused);
        request.set_request_id(request_id());
        Ok(self.call(&PAUSE_SCHEDULE, &request, self.config().timeout)?.take_schedule())
    }

    /// Removes a schedule; what it has started goes on.
    pub fn delete_schedule(&self, id: &str) -> Result<(), ClientError> {
        let mut request = DeleteScheduleRequest::new();
        request.set_schedule_id(id.to_owned());
        request.set_request_id(request_id());
        self.call(&DELETE_SCHEDULE, &request, self.config().timeout).map(drop)
    }

    /// Starts a run now; its id.
    pub fn trigger_schedule(&self, id: &str) -> Result<String, ClientError> {
        let mut request = TriggerScheduleRequest::new();
        request.set_schedule_id(id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&TRIGGER_SCHEDULE, &request, self.config().timeout)?.take_run_id())
    }
}
