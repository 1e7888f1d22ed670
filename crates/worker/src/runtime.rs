//! Carries out what the executor decides: one thread steps it; beats, polls and other calls have threads of their own, so that none of
//! them waits for another.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{bounded, select, unbounded, Receiver, Sender};
use raftgrid_crashpoint::{reach, Point};
use raftgrid_proto::v1::*;
use slog::{debug, error, info, o, warn, Logger};

use crate::checks::Checks;
use crate::clock::{boottime_ms, unix_ms};
use crate::config::WorkerConfig;
use crate::executor::{Answer, Executor, Input, LeaseId, Output, Report, Settings};
use crate::host::{random_u64, Exited, Host, HostError, ProcessHost, WorkerDir};
use crate::limits::{CALL_THREADS, CALL_TIMEOUT_MS, EVENTS_MAX, LEASE_TTL_DEFAULT_MS};
use crate::node::{describe, Usage};
use crate::plane::{ControlPlane, PlaneError};
use crate::table::TaskTable;

/// How a worker ended.
#[derive(Debug)]
pub enum WorkerEnd {
    /// Drained, as it was asked to.
    Drained,
    /// It cannot go on; one line with the cause and the next step.
    Failed(String),
}

/// A running worker. Dropping it drains it and waits for its end.
pub struct Worker {
    inputs: Sender<Input>,
    thread: Option<JoinHandle<WorkerEnd>>,
}

/// One beat that is to be sent.
struct BeatOrder {
    number: u64,
    request: HeartbeatRequest,
    timeout: Duration,
}

/// A start or a report.
enum CallOrder {
    Start(LeaseId),
    Report(LeaseId, Box<Report>),
}

/// Where the main thread sends its orders.
struct Lines {
    beats: Sender<BeatOrder>,
    polls: Sender<PollTaskRequest>,
    calls: Sender<CallOrder>,
}

impl Worker {
    /// Registers and takes tasks. `dir` was taken before: nothing of a predecessor runs. `agent_address` is told to the tasks as
    /// RAFTGRID_AGENT.
    pub fn start(
        config: WorkerConfig,
        dir: WorkerDir,
        agent_address: String,
        plane: Arc<dyn ControlPlane>,
        table: Arc<TaskTable>,
        logger: &Logger,
    ) -> Result<Self, HostError> {
        let logger = logger.new(o!("node_id" => config.node_id.clone()));
        let (exits_in, exits) = unbounded();
        let generation = dir.generation();
        let host =
            ProcessHost::new(config.clone(), dir, agent_address, plane.clone(), table.clone(), exits_in, &logger)?;
        Self::start_with_host(config, generation, plane, table, Box::new(host), exits, &logger)
    }

    /// The same with another host; it answers on `exits`.
    fn start_with_host(
        config: WorkerConfig,
        generation: u64,
        plane: Arc<dyn ControlPlane>,
        table: Arc<TaskTable>,
        host: Box<dyn Host>,
        exits: Receiver<Exited>,
        logger: &Logger,
    ) -> Result<Self, HostError> {
        let failed = |cause| HostError::Io { dir: config.dir.clone(), cause };
        let (inputs_in, inputs) = bounded(EVENTS_MAX);
        let stale = inputs_in.clone();
        table.on_stale(Box::new(move |lease| {
            // A full queue means that the executor is far behind; the next beat tells it the same.
            let _ = stale.try_send(Input::Stale { lease });
        }));
        let checks = Checks::start(&config).map_err(failed)?;
        let lines = start_lines(&plane, &inputs_in, &checks, logger).map_err(failed)?;
        let (logger, usage) = (logger.clone(), Usage::default());
        let boot_nonce = random_u64().max(1);
        let mut main =
            Main { config: config.clone(), boot_nonce, generation, plane, host, lines, logger, usage, checks };
        main.usage.now();
        let thread = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || main.run(&inputs, &exits))
            .map_err(failed)?;
        Ok(Self { inputs: inputs_in, thread: Some(thread) })
    }

    /// Asks it to finish: no new tasks, those that run are given back. Returns at once.
    pub fn drain(&self) {
        // It has ended already.
        let _ = self.inputs.send(Input::Drain);
    }

    /// The same, but what runs may go on for this long. A drain ends the wait. Returns at once.
    pub fn leave(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        // It has ended already.
        let _ = self.inputs.send(Input::Leave { wait_ms });
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end.
    pub fn join(mut self) -> WorkerEnd {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(end)) => end,
            Some(Err(_)) => WorkerEnd::Failed("the worker's thread panicked; see its log".to_owned()),
            None => WorkerEnd::Drained,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.drain();
        if let Some(thread) = self.thread.take() {
            // A panic was told by its hook.
            let _ = thread.join();
        }
    }
}

struct Main {
    config: WorkerConfig,
    boot_nonce: u64,
    generation: u64,
    plane: Arc<dyn ControlPlane>,
    host: Box<dyn Host>,
    lines: Lines,
    logger: Logger,
    usage: Usage,
    checks: Arc<Checks>,
}

impl Main {
    fn run(&mut self, inputs: &Receiver<Input>, exits: &Receiver<Exited>) -> WorkerEnd {
        let settings = Settings {
            slots: self.config.slots_or_cores(),
            stop_grace_ms: self.config.stop_grace_ms,
            lease_ttl_ms: LEASE_TTL_DEFAULT_MS,
        };
        info!(self.logger, "worker starts"; "slots" => settings.slots, "dir" => %self.config.dir.display());
        let mut executor = Executor::new(settings);
        let mut input = Input::Tick;
        loop {
            // Read before the step, so that a beat counts as sent no later than it is.
            let now = boottime_ms();
            let mut wake_at = None;
            if matches!(input, Input::Drain | Input::Leave { .. }) {
                self.checks.leave();
            }
            for output in executor.step(now, input) {
                match output {
                    Output::WakeAt(at) => wake_at = Some(at),
                    Output::Finished { error, incarnation } => return self.finish(error, incarnation),
                    other => self.carry_out(other, executor.held_count()),
                }
            }
            let wait = wake_at.map_or(1_000, |at| at.saturating_sub(boottime_ms()).min(1_000));
            input = select! {
                recv(inputs) -> input => input.unwrap_or(Input::Tick),
                recv(exits) -> exited => match exited {
                    Ok(Exited { lease, exit }) => {
                        info!(self.logger, "task ended"; "task_id" => &lease.task_id, "epoch" => lease.epoch,
                            "exit_code" => exit.code, "reason" => &exit.reason);
                        Input::Exited { lease, exit }
                    }
                    Err(_) => Input::Drain,
                },
                default(Duration::from_millis(wait)) => Input::Tick,
            };
        }
    }

    fn carry_out(&mut self, output: Output, held_count: usize) {
        match output {
            Output::Beat { number, held, incarnation, describe, timeout_ms } => {
                let request = self.beat(&held, incarnation, describe, held_count);
                let order = BeatOrder { number, request, timeout: Duration::from_millis(timeout_ms) };
                self.lines.beats.send(order).expect("the beat thread lives as long as this one");
            }
            Output::Poll { max_tasks, incarnation } => {
                let mut request = PollTaskRequest::new();
                request.set_node_id(self.config.node_id.clone());
                request.set_wait_ms(u32::try_from(self.config.poll_wait_ms).unwrap_or(u32::MAX));
                request.set_max_tasks(max_tasks);
                request.set_incarnation(incarnation);
                self.lines.polls.send(request).expect("the poll thread lives as long as this one");
            }
            Output::ConfirmStart { lease } => self.order(CallOrder::Start(lease)),
            Output::Report { lease, report } => self.order(CallOrder::Report(lease, Box::new(report))),
            Output::Launch { lease, task } => {
                info!(self.logger, "task starts"; "task_id" => &lease.task_id, "epoch" => lease.epoch,
                    "type" => task.get_task_type(), "attempt" => task.get_attempt());
                self.host.launch(&lease, *task);
            }
            Output::Stop { lease, signal, why } => self.host.stop(&lease, signal, &why),
            Output::Forget { lease } => self.host.forget(&lease),
            Output::Finished { .. } | Output::WakeAt(_) => {}
        }
    }

    fn order(&self, order: CallOrder) {
        self.lines.calls.send(order).expect("the call threads live as long as this one");
    }

    fn beat(
        &mut self,
        held: &[LeaseId],
        incarnation: u64,
        with_description: bool,
        held_count: usize,
    ) -> HeartbeatRequest {
        let (cpu_usage, memory_usage) = self.usage.now();
        let mut request = HeartbeatRequest::new();
        request.set_node_id(self.config.node_id.clone());
        request.set_cpu_usage(cpu_usage);
        request.set_memory_usage(memory_usage);
        request.set_active_tasks(i32::try_from(held_count).unwrap_or(i32::MAX));
        request.set_boot_nonce(self.boot_nonce);
        request.set_generation(self.generation);
        request.set_incarnation(incarnation);
        request.set_held(held.iter().map(LeaseId::message).collect());
        request.set_problem(self.checks.problem(&self.logger));
        if with_description {
            request.set_node(describe(&self.config));
        }
        request
    }

    fn finish(&mut self, failure: Option<String>, incarnation: u64) -> WorkerEnd {
        if let Some(reason) = failure {
            error!(self.logger, "worker ends"; "reason" => &reason);
            let next = "choose another --node-id, or stop the other worker";
            return WorkerEnd::Failed(format!("node {}: {reason}; {next}", self.config.node_id));
        }
        let mut request = DeregisterRequest::new();
        request.set_node_id(self.config.node_id.clone());
        request.set_incarnation(incarnation);
        if incarnation != 0 {
            if let Err(error) = self.plane.deregister(&request, Duration::from_millis(CALL_TIMEOUT_MS)) {
                warn!(self.logger, "deregistration failed"; "error" => %error);
            }
        }
        info!(self.logger, "worker drained");
        WorkerEnd::Drained
    }
}

/// Starts the threads that make calls. They end with the channels that the main thread holds.
fn start_lines(
    plane: &Arc<dyn ControlPlane>,
    inputs: &Sender<Input>,
    checks: &Arc<Checks>,
    logger: &Logger,
) -> std::io::Result<Lines> {
    let (beats, beat_orders) = unbounded::<BeatOrder>();
    let (polls, poll_orders) = unbounded::<PollTaskRequest>();
    let (calls, call_orders) = unbounded::<CallOrder>();
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(|_| ())
    };
    let (line_plane, answers, line_logger) = (plane.clone(), inputs.clone(), logger.clone());
    let checks = checks.clone();
    spawn("beats", Box::new(move || beat_line(&beat_orders, line_plane.as_ref(), &answers, &checks, &line_logger)))?;
    let (line_plane, answers, line_logger) = (plane.clone(), inputs.clone(), logger.clone());
    spawn(
        "polls",
        Box::new(move || {
            for request in poll_orders {
                let tasks = match line_plane.poll(&request) {
                    Ok(mut response) => Some(response.take_tasks().into_vec()),
                    Err(error) => {
                        debug!(line_logger, "poll failed"; "error" => %error);
                        None
                    }
                };
                if answers.send(Input::Polled { tasks }).is_err() {
                    return;
                }
            }
        }),
    )?;
    for number in 0..CALL_THREADS {
        let (line_plane, answers, orders, line_logger) =
            (plane.clone(), inputs.clone(), call_orders.clone(), logger.clone());
        spawn(
            &format!("calls-{number}"),
            Box::new(move || {
                for order in orders {
                    if answers.send(call(order, line_plane.as_ref(), &line_logger)).is_err() {
                        return;
                    }
                }
            }),
        )?;
    }
    Ok(Lines { beats, polls, calls })
}

fn beat_line(
    orders: &Receiver<BeatOrder>,
    plane: &dyn ControlPlane,
    answers: &Sender<Input>,
    checks: &Checks,
    logger: &Logger,
) {
    let mut connected = false;
    for BeatOrder { number, request, timeout } in orders {
        let sent_unix_ms = unix_ms();
        let input = match plane.heartbeat(&request, timeout) {
            Ok(answer) => {
                if !connected {
                    info!(logger, "control plane is in reach"; "incarnation" => answer.get_incarnation(),
                        "leader" => answer.get_leader_address());
                }
                connected = true;
                checks.on_leader_time(sent_unix_ms, unix_ms(), answer.get_leader_time_ms());
                Input::BeatAnswered { number, answer: Box::new(answer) }
            }
            Err(error) => {
                if connected {
                    warn!(logger, "control plane is out of reach"; "error" => %error);
                }
                connected = false;
                let refused = match error {
                    PlaneError::Precondition(reason) | PlaneError::StaleLease(reason) => Some(reason),
                    PlaneError::Unavailable(_)
                    | PlaneError::NotFound(_)
                    | PlaneError::Invalid(_)
                    | PlaneError::Unimplemented(_)
                    | PlaneError::Internal(_) => None,
                };
                Input::BeatFailed { number, refused }
            }
        };
        if answers.send(input).is_err() {
            return;
        }
    }
}

/// Makes one attempt of a start or a report.
fn call(order: CallOrder, plane: &dyn ControlPlane, logger: &Logger) -> Input {
    let timeout = Duration::from_millis(CALL_TIMEOUT_MS);
    match order {
        CallOrder::Start(lease) => {
            let mut request = StartTaskRequest::new();
            request.set_task_id(lease.task_id.clone());
            request.set_lease_epoch(lease.epoch);
            let answer = plane.start_task(&request, timeout).map(|_| ());
            Input::StartAnswered { answer: answer_of(answer, &lease, "start", logger), lease }
        }
        CallOrder::Report(lease, report) => {
            let mut request = ReportTaskResultRequest::new();
            request.set_task_id(lease.task_id.clone());
            request.set_lease_epoch(lease.epoch);
            request.set_final_status(report.status);
            request.set_exit_code(report.exit_code);
            request.set_reason(report.reason);
            request.set_result_data(report.result_data);
            request.set_infrastructure(report.node_failed);
            request.set_log_artifact(report.log_artifact);
            reach(Point::ResultBeforeReport);
            let answer = plane.report(&request, timeout).and_then(|response| match response.get_outcome() {
                ReportOutcome::REPORT_ACCEPTED | ReportOutcome::REPORT_DUPLICATE => Ok(()),
                ReportOutcome::REPORT_STALE_LEASE => Err(PlaneError::StaleLease("the report was refused".to_owned())),
            });
            if answer.is_ok() {
                reach(Point::ResultReported);
            }
            Input::ReportAnswered { answer: answer_of(answer, &lease, "report", logger), lease }
        }
    }
}

fn answer_of(result: Result<(), PlaneError>, lease: &LeaseId, what: &str, logger: &Logger) -> Answer {
    let error = match result {
        Ok(()) => return Answer::Done,
        Err(error) => error,
    };
    debug!(logger, "call failed"; "call" => what, "task_id" => &lease.task_id, "epoch" => lease.epoch, "error" => %error);
    match error {
        PlaneError::Unavailable(_) | PlaneError::Internal(_) => Answer::Unavailable,
        PlaneError::StaleLease(_) | PlaneError::NotFound(_) => Answer::Stale,
        PlaneError::Precondition(reason) | PlaneError::Invalid(reason) | PlaneError::Unimplemented(reason) => {
            warn!(logger, "call refused"; "call" => what, "task_id" => &lease.task_id, "reason" => &reason);
            Answer::Refused(reason)
        }
    }
}
