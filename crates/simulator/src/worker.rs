//! A worker: the real executor, with calls through the simulated network and processes that are only times; `trainers` has those that are more.

mod trainers;

use std::collections::BTreeMap;

use raftgrid_manifest::{command, report_digest};
use raftgrid_proto::v1::{
    Command, CommandReply, Command_oneof_kind as Kind, HeartbeatRequest, Node, Outcome as Told, PollTaskRequest,
    ReportResult, Resources, Start, TaskStatus,
};
use raftgrid_replica::ports::CallError;
use raftgrid_worker::executor::{Answer, Executor, Exit, Input, LeaseId, Output, Report, Settings, StopSignal};

use crate::ask::{Ask, Target};
use crate::calls::{Request, Response};
use crate::check::Checks;
use crate::course::Course;
use crate::linearizability::{ReportAnswer, TaskEvent};
use crate::orders::node_of;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::trainer::{Push, Trainer};

/// How long a poll waits on the other side.
const POLL_WAIT_MS: u32 = 1_000;
/// A process that is killed is gone before this is over, in milliseconds.
pub const KILL_TAKES_MS: u64 = 20;
/// How long starts, reports and polls wait for their answer.
const CALL_MS: u64 = 3_000;

enum Pending {
    Beat(u64),
    Poll,
    Start(LeaseId),
    Report(LeaseId, Box<Report>),
    /// A call of a trainer's process.
    Trainer(LeaseId),
    /// A push of a dead one, which the machine's agent had still.
    Left(Box<Push>),
}

/// A worker's machine.
pub struct Worker {
    /// Its number.
    pub number: usize,
    rng: Rng,
    target: Target,
    executor: Option<Executor>,
    boot_nonce: u64,
    /// How often it was started.
    generation: u64,
    pending: BTreeMap<u64, (u64, Pending)>,
    next_call: u64,
    wake_ms: u64,
    processes: BTreeMap<LeaseId, (u64, Exit)>,
    /// What the processes of trainers do.
    trainers: BTreeMap<LeaseId, Trainer>,
    /// Pushes of dead trainers that are still to be sent on.
    left: Vec<(Push, Request)>,
    slots: u32,
    process_ms: u64,
    /// Processes that began since somebody looked.
    pub launched: Vec<LeaseId>,
    /// Its processes do not dawdle.
    pub quick: bool,
    /// It stands still, or is dead, until then.
    pub away_until_us: u64,
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(number: usize, plan: &Plan, rng: Rng) -> Self {
        Self {
            number,
            rng,
            target: Target::default(),
            executor: None,
            boot_nonce: 0,
            generation: 0,
            pending: BTreeMap::new(),
            next_call: 1,
            wake_ms: 0,
            processes: BTreeMap::new(),
            trainers: BTreeMap::new(),
            left: Vec::new(),
            slots: plan.slots,
            process_ms: plan.process_ms,
            launched: Vec::new(),
            quick: false,
            away_until_us: 0,
        }
    }

    /// It dies, and its processes with it.
    pub fn die(&mut self) {
        self.executor = None;
        self.pending.clear();
        self.processes.clear();
        for trainer in std::mem::take(&mut self.trainers).into_values() {
            self.leave_push(&trainer);
        }
    }

    /// It is asked to leave in good order; another process takes its place.
    pub fn leave(&mut self, now_us: u64, nodes: &[u64]) -> Vec<Ask> {
        let mut asks = Vec::new();
        self.step(now_us / 1_000, Input::Drain, nodes, &mut asks);
        asks
    }

    /// The lease under which a process of `task` runs here, other than `lease`.
    pub fn runs_otherwise(&self, lease: &LeaseId) -> Option<&LeaseId> {
        self.processes.keys().find(|other| other.task_id == lease.task_id && *other != lease)
    }

    /// What runs ends soon, and what is started from now on.
    pub fn hurry(&mut self, now_us: u64) {
        self.quick = true;
        let trainers = &self.trainers;
        for (at, _) in self.processes.iter_mut().filter(|(lease, _)| !trainers.contains_key(*lease)).map(|it| it.1) {
            *at = (*at).min(now_us / 1_000 + 100);
        }
    }

    fn id(&self) -> String {
        node_of(self.number as u64)
    }

    /// When it wants to be woken at the latest.
    pub fn wake_us(&self) -> u64 {
        let pending = self.pending.values().map(|(deadline_ms, _)| *deadline_ms);
        let exits = self.processes.values().map(|(exit_ms, _)| *exit_ms);
        let trainers = self.trainers.values().map(Trainer::due_ms);
        let at_ms = pending.chain(exits).chain(trainers).min().unwrap_or(u64::MAX).min(self.wake_ms);
        at_ms.saturating_mul(1_000).max(self.away_until_us)
    }

    /// Everything that is due.
    pub fn wake(&mut self, now_us: u64, nodes: &[u64], checks: &mut Checks) -> Vec<Ask> {
        let now = now_us / 1_000;
        let mut asks = Vec::new();
        if self.executor.is_none() {
            self.boot_nonce = self.rng.next() | 1;
            self.generation += 1;
            let settings = Settings { slots: self.slots, stop_grace_ms: 1_000, lease_ttl_ms: 3_000 };
            self.executor = Some(Executor::new(settings));
            self.wake_ms = now;
        }
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, (deadline, _))| *deadline <= now).map(|(number, _)| *number).collect();
        for number in late {
            self.target.learned(None);
            self.settle(now, number, None, nodes, checks, &mut asks);
        }
        let over: Vec<LeaseId> =
            self.processes.iter().filter(|(_, (at, _))| *at <= now).map(|(lease, _)| lease.clone()).collect();
        for lease in over {
            if let Some((_, exit)) = self.processes.remove(&lease) {
                if let Some(trainer) = self.trainers.remove(&lease) {
                    self.leave_push(&trainer);
                }
                self.step(now, Input::Exited { lease, exit }, nodes, &mut asks);
            }
        }
        if self.wake_ms <= now {
            self.step(now, Input::Tick, nodes, &mut asks);
        }
        self.wake_trainers(now, nodes, checks, &mut asks);
        asks
    }

    /// An answer came.
    pub fn answered(
        &mut self,
        now_us: u64,
        number: u64,
        response: &Response,
        nodes: &[u64],
        checks: &mut Checks,
    ) -> Vec<Ask> {
        let mut asks = Vec::new();
        if let (Some((_, Pending::Report(lease, report))), Response::Command(Ok(reply))) =
            (self.pending.get(&number), response)
        {
            checks.lives.extend(reported(now_us, lease, report, reply));
        }
        let by_leader = matches!(response, Response::Command(_) | Response::Beat(_) | Response::Poll(_));
        if by_leader && response.error().is_some() {
            self.target.learned(response.leader());
        }
        self.settle(now_us / 1_000, number, Some(response), nodes, checks, &mut asks);
        asks
    }

    fn settle(
        &mut self,
        now: u64,
        number: u64,
        response: Option<&Response>,
        nodes: &[u64],
        checks: &mut Checks,
        asks: &mut Vec<Ask>,
    ) {
        let Some((_, pending)) = self.pending.remove(&number) else { return };
        let input = match pending {
            Pending::Beat(number) => match response {
                Some(Response::Beat(Ok(answer))) => Input::BeatAnswered { number, answer: answer.clone() },
                Some(Response::Beat(Err(CallError::Precondition(why)))) => {
                    Input::BeatFailed { number, refused: Some(why.clone()) }
                }
                _ => Input::BeatFailed { number, refused: None },
            },
            Pending::Poll => match response {
                Some(Response::Poll(Ok(answer))) => Input::Polled { tasks: Some(answer.tasks.to_vec()) },
                _ => Input::Polled { tasks: None },
            },
            Pending::Start(lease) => Input::StartAnswered { lease, answer: answer_of(response) },
            Pending::Report(lease, _) => Input::ReportAnswered { lease, answer: answer_of(response) },
            Pending::Trainer(lease) => return self.trainer_answered(now, &lease, response, checks),
            Pending::Left(push) => {
                if let Some(Response::Upload(Ok(ack))) = response {
                    checks.training.acked(&push, ack);
                }
                return;
            }
        };
        self.step(now, input, nodes, asks);
    }

    fn step(&mut self, now: u64, input: Input, nodes: &[u64], asks: &mut Vec<Ask>) {
        let Some(executor) = &mut self.executor else { return };
        self.wake_ms = u64::MAX;
        for output in executor.step(now, input) {
            self.carry_out(now, output, nodes, asks);
        }
    }

    fn ask(&mut self, deadline: u64, pending: Pending, request: Request, nodes: &[u64], asks: &mut Vec<Ask>) {
        let number = self.next_call;
        self.next_call += 1;
        self.pending.insert(number, (deadline, pending));
        asks.push(Ask { node: self.target.node(nodes, &mut self.rng), number, request });
    }

    fn carry_out(&mut self, now: u64, output: Output, nodes: &[u64], asks: &mut Vec<Ask>) {
        match output {
            Output::Beat { number, held, incarnation, describe, timeout_ms } => {
                let request = self.beat(&held, incarnation, describe);
                self.ask(now + timeout_ms, Pending::Beat(number), Request::Beat(Box::new(request)), nodes, asks);
            }
            Output::Poll { max_tasks, incarnation } => {
                let request = PollTaskRequest {
                    node_id: self.id(),
                    wait_ms: POLL_WAIT_MS,
                    max_tasks,
                    incarnation,
                    ..PollTaskRequest::default()
                };
                self.ask(now + CALL_MS, Pending::Poll, Request::Poll(request), nodes, asks);
            }
            Output::ConfirmStart { lease } => {
                let start = Start { task_id: lease.task_id.clone(), epoch: lease.epoch, ..Start::default() };
                let request = Request::Command(Box::new(command(Kind::start(start))));
                self.ask(now + CALL_MS, Pending::Start(lease), request, nodes, asks);
            }
            Output::Report { lease, report } => {
                let request = Request::Command(Box::new(report_command(&self.id(), &lease, &report)));
                self.ask(now + CALL_MS, Pending::Report(lease, Box::new(report)), request, nodes, asks);
            }
            Output::Launch { lease, task } => match Course::of(&task.job_id).filter(|_| task.task_type == "train") {
                Some(course) => self.launch_trainer(now, lease, course),
                None => self.launch(now, lease),
            },
            Output::Stop { lease, signal, .. } => self.stop(now, &lease, signal),
            Output::Forget { lease } => {
                self.processes.remove(&lease);
                self.trainers.remove(&lease);
            }
            Output::Finished { .. } => {
                // It was superseded; another process takes its place at once.
                self.die();
                self.wake_ms = now + 1;
            }
            Output::WakeAt(at) => self.wake_ms = self.wake_ms.min(at),
        }
    }

    /// A process that ends by itself some time, now and then with an error, now and then never.
    fn launch(&mut self, now: u64, lease: LeaseId) {
        let (at, code) = match self.rng.below(100) {
            0..=2 => (u64::MAX, 0),
            3..=9 => (now + self.rng.around(300), 1),
            10..=11 => (now + self.rng.around(300), 75),
            _ => (now + self.rng.around(self.process_ms), 0),
        };
        let result_data = if code == 0 { format!("{{\"by\":{}}}", self.rng.next() >> 12) } else { String::new() };
        let reason = if code == 0 { String::new() } else { format!("exit code {code}") };
        let at = if self.quick { now + 5 } else { at };
        self.launched.push(lease.clone());
        self.processes.insert(lease, (at, Exit { code, reason, result_data, ..Exit::default() }));
    }

    fn stop(&mut self, now: u64, lease: &LeaseId, signal: StopSignal) {
        let heeds = signal == StopSignal::Kill || self.rng.chance(700);
        if let (true, Some((at, exit))) = (heeds, self.processes.get_mut(lease)) {
            *at = (*at).min(now + self.rng.below(KILL_TAKES_MS));
            let code = if signal == StopSignal::Kill { 137 } else { 143 };
            *exit = Exit { code, reason: "killed".to_owned(), ..Exit::default() };
        }
    }

    fn beat(&self, held: &[LeaseId], incarnation: u64, describe: bool) -> HeartbeatRequest {
        let mut request = HeartbeatRequest::new();
        request.set_node_id(self.id());
        request.set_boot_nonce(self.boot_nonce);
        request.set_generation(self.generation);
        request.set_incarnation(incarnation);
        request.set_active_tasks(i32::try_from(held.len()).unwrap_or(i32::MAX));
        request.set_held(held.iter().map(LeaseId::message).collect());
        if describe {
            let mut capacity = Resources::new();
            capacity.set_cpu_milli(u64::from(self.slots) * 1_000);
            capacity.set_slots(self.slots);
            let mut node = Node::new();
            node.set_node_id(self.id());
            node.set_capacity(capacity);
            request.set_node(node);
        }
        request
    }
}

fn report_command(node_id: &str, lease: &LeaseId, report: &Report) -> Command {
    command(Kind::report_result(ReportResult {
        task_id: lease.task_id.clone(),
        epoch: lease.epoch,
        node_id: node_id.to_owned(),
        final_status: report.status,
        result_data: report.result_data.clone(),
        exit_code: report.exit_code,
        reason: report.reason.clone(),
        digest: report_digest(report.status, &report.result_data),
        ..ReportResult::default()
    }))
}

/// As `api` answers and `worker`'s runtime reads it.
fn answer_of(response: Option<&Response>) -> Answer {
    match response {
        Some(Response::Command(Ok(reply))) => match reply.outcome {
            Told::OK | Told::EXISTING | Told::DUPLICATE => Answer::Done,
            Told::STALE_LEASE | Told::NOT_FOUND => Answer::Stale,
            Told::OUTCOME_UNKNOWN | Told::EXHAUSTED => Answer::Unavailable,
            Told::ALREADY_EXISTS | Told::PRECONDITION | Told::INVALID | Told::MISMATCH | Told::STALE => {
                Answer::Refused(reply.message.clone())
            }
        },
        Some(Response::Command(Err(CallError::Invalid(why) | CallError::Precondition(why)))) => {
            Answer::Refused(why.clone())
        }
        _ => Answer::Unavailable,
    }
}

fn reported(at: u64, lease: &LeaseId, report: &Report, reply: &CommandReply) -> Option<TaskEvent> {
    let answer = match reply.outcome {
        Told::OK => ReportAnswer::Accepted,
        Told::EXISTING | Told::DUPLICATE => ReportAnswer::Repeated,
        Told::STALE_LEASE | Told::NOT_FOUND => ReportAnswer::Stale,
        Told::ALREADY_EXISTS
        | Told::PRECONDITION
        | Told::INVALID
        | Told::OUTCOME_UNKNOWN
        | Told::MISMATCH
        | Told::STALE
        | Told::EXHAUSTED => return None,
    };
    Some(TaskEvent::Reported {
        task: lease.task_id.clone(),
        epoch: lease.epoch,
        completed: report.status == TaskStatus::COMPLETED,
        result: report.result_data.clone(),
        at,
        answer,
    })
}
