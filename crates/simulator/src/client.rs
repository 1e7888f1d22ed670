//! A client: submits tasks under ids of its own, reads them, cancels and orders about them, tries again under the same request id until it
//! knows, or gives up.

use raftgrid_manifest::{command, command_for, MACHINE_VERSION};
use raftgrid_proto::v1::{
    CancelTask, Command, Command_oneof_kind as Kind, Outcome as Told, SetMachineVersion, SubmitTask, TaskRow, TaskSpec,
};
use raftgrid_replica::ports::CallError;

use crate::ask::{Ask, Target};
use crate::calls::{Request, Response};
use crate::check::taken::Taken;
use crate::check::Checks;
use crate::course::Course;
use crate::limits::EPOCH_MS;
use crate::linearizability::{Answer, Done, Kind as Asked, Op, Outcome, TaskEvent, Value};
use crate::orders::Orders;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::{tasks, work};

/// How long a client goes on trying.
const GIVE_UP_US: u64 = 30_000_000;
/// Tasks that orders are about, most of the time: the newest ones.
const RECENT: usize = 40;
/// Pause after an attempt that failed.
const AGAIN_US: u64 = 50_000;

enum What {
    /// A submission, with its place in the history and its task.
    Submit(Box<Command>, usize, String),
    /// A cancellation, which the history does not carry: whether it succeeds depends on the worker.
    Cancel(Box<Command>),
    /// A job, or a task that waits for others: what becomes of them the invariants and the healed phase judge.
    Work(Box<Command>),
    /// An order about something that is there, which may be refused: the judges look at what comes of it.
    Order(Box<Command>),
    /// The end of something that an order held back.
    Release(Box<Command>),
    /// A read of a task.
    Read(String),
}

struct Flight {
    what: What,
    first_call: u64,
    last_call: u64,
    asked_us: u64,
    retry_us: u64,
    give_up_us: u64,
}

/// What a client does how often.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    think_us: u64,
    attempt_us: u64,
    reads: u64,
    scattered: u64,
    elements_max: u32,
    workers: u64,
    raise_us: u64,
    trains: u64,
    unruly: u64,
}

impl Habits {
    /// As planned.
    pub fn of(plan: &Plan) -> Self {
        let attempt_us = plan.attempt_ms * 1_000;
        Self {
            think_us: plan.think_us,
            attempt_us,
            reads: plan.reads,
            scattered: plan.scattered_reads,
            elements_max: plan.elements_max,
            workers: u64::from(plan.workers),
            raise_us: plan.raise_ms * 1_000,
            trains: plan.trains,
            unruly: plan.unruly,
        }
    }
}

/// A client.
pub struct Client {
    number: usize,
    rng: Rng,
    target: Target,
    habits: Habits,
    flight: Option<Flight>,
    next_call: u64,
    next_op_us: u64,
    made: u64,
    raised: bool,
    orders: Orders,
    finishing: bool,
}

/// What a client needs of the world.
pub struct Around<'a> {
    /// Virtual time.
    pub now_us: u64,
    /// Nodes that it knows.
    pub nodes: &'a [u64],
    /// Tasks that somebody made.
    pub keys: &'a mut Vec<String>,
    /// Judges.
    pub checks: &'a mut Checks,
}

impl Client {
    /// A client.
    pub fn new(number: usize, habits: Habits, rng: Rng) -> Self {
        Self {
            number,
            rng,
            target: Target::default(),
            habits,
            flight: None,
            next_call: 1,
            next_op_us: 0,
            made: 0,
            raised: false,
            orders: Orders::of(number),
            finishing: false,
        }
    }

    /// It starts nothing new, but takes back what it holds.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.orders.close(self.habits.workers);
    }

    /// Whether it has nothing to do and waits for nothing.
    pub fn is_done(&self) -> bool {
        self.flight.is_none() && self.finishing && self.orders.is_closed()
    }

    /// When it wants to be woken at the latest; None: never.
    pub fn wake_us(&self) -> Option<u64> {
        match &self.flight {
            Some(flight) => Some(flight.retry_us),
            None if self.is_done() => None,
            None => Some(self.next_op_us),
        }
    }

    /// Time has come for something.
    pub fn wake(&mut self, around: &mut Around<'_>) -> Option<Ask> {
        let now = around.now_us;
        match self.flight.take() {
            Some(flight) if now < flight.retry_us => {
                self.flight = Some(flight);
                None
            }
            Some(flight) => {
                self.target.learned(None);
                self.again(flight, around)
            }
            None if now < self.next_op_us => None,
            None => {
                let what = if self.finishing { self.take_back(now)? } else { self.draw(around) };
                let call = self.next_call;
                let give_up_us = now + GIVE_UP_US;
                let flight =
                    Flight { what, first_call: call, last_call: call, asked_us: now, retry_us: now, give_up_us };
                self.again(flight, around)
            }
        }
    }

    /// Another attempt, or the end of it.
    fn again(&mut self, mut flight: Flight, around: &mut Around<'_>) -> Option<Ask> {
        let now = around.now_us;
        if now >= flight.give_up_us {
            if let What::Release(command) = flight.what {
                self.orders.again(*command);
            }
            self.rest(now);
            return None;
        }
        flight.last_call = self.next_call;
        self.next_call += 1;
        flight.retry_us = now + self.habits.attempt_us;
        let request = match &flight.what {
            What::Submit(command, ..)
            | What::Cancel(command)
            | What::Work(command)
            | What::Order(command)
            | What::Release(command) => Request::Command(command.clone()),
            What::Read(task) => {
                // An attempt that failed has read nothing: this one is a read of its own.
                flight.first_call = flight.last_call;
                flight.asked_us = now;
                Request::Read(task.clone())
            }
        };
        let number = flight.last_call;
        self.flight = Some(flight);
        // Any replica serves linearizable reads.
        let anywhere = matches!(request, Request::Read(_)) && self.rng.chance(self.habits.scattered);
        let node = match self.rng.pick(around.nodes) {
            Some(node) if anywhere => *node,
            Some(_) | None => self.target.node(around.nodes, &mut self.rng),
        };
        Some(Ask { node, number, request })
    }

    fn rest(&mut self, now: u64) {
        self.next_op_us = now + self.rng.around(self.habits.think_us);
    }

    fn draw(&mut self, around: &mut Around<'_>) -> What {
        if self.made == 1 && !around.keys.is_empty() {
            // It is put once: its judge reckons from there.
            self.made += 1;
            let kind = work::schedule(self.number, &mut self.rng);
            return What::Work(self.command(around.now_us, kind));
        }
        if self.number == 0 && !self.raised && around.now_us >= self.habits.raise_us {
            // Before it, what came with a newer version is refused.
            (self.made, self.raised) = (self.made + 1, true);
            let newest = SetMachineVersion { version: MACHINE_VERSION, ..SetMachineVersion::default() };
            return What::Work(Box::new(command(Kind::set_machine_version(newest))));
        }
        let old = self.some_task(around.keys);
        if let Some(task) = old.clone().filter(|_| self.rng.chance(self.habits.reads)) {
            return What::Read(task);
        }
        let now = around.now_us;
        if around.checks.training.is_possible && self.rng.chance(self.habits.trains) {
            let made = self.name();
            let unruly = self.rng.chance(self.habits.unruly);
            let name = Course::name(self.number, made, unruly, &mut self.rng);
            if let Some(course) = Course::of(&name) {
                return What::Work(self.command(now, course.submit()));
            }
        }
        match (old, self.rng.below(60)) {
            (Some(task), 0..=5) => {
                let kind = self.orders.draw(&task, self.habits.workers, now, &mut self.rng);
                What::Order(self.command(now, kind))
            }
            (Some(task), 6..=8) => {
                let cancel = CancelTask { task_id: task, reason: "simulated".to_owned(), ..CancelTask::default() };
                What::Cancel(self.command(now, Kind::cancel_task(cancel)))
            }
            // Somebody else may want the same id.
            (Some(task), 9..=14) => self.submit(task, around),
            (Some(task), 15..=18) => {
                let kind = work::task_after(self.number, self.name(), &task, &mut self.rng);
                What::Work(self.command(now, kind))
            }
            (Some(_), 19..=21) => {
                let kind = work::job(self.number, self.name(), self.habits.elements_max, &mut self.rng);
                What::Work(self.command(now, kind))
            }
            (_, draw) => {
                self.made += 1;
                let task = if draw > 51 {
                    format!("shared-{}", around.keys.len() / 4)
                } else {
                    format!("task-{}-{}", self.number, self.made)
                };
                self.submit(task, around)
            }
        }
    }

    /// A task that somebody made, mostly of late.
    fn some_task(&mut self, keys: &[String]) -> Option<String> {
        let from = if self.rng.chance(600) { keys.len().saturating_sub(RECENT) } else { 0 };
        self.rng.pick(&keys[from..]).cloned()
    }

    /// A number that it has not used.
    fn name(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn submit(&mut self, task: String, around: &mut Around<'_>) -> What {
        let tag = self.rng.next() >> 12;
        let mut spec = TaskSpec::new();
        spec.set_max_retries(u32::try_from(self.rng.below(4)).unwrap_or(0));
        work::placement(tag, &mut spec);
        let submit = SubmitTask {
            task_id: task.clone(),
            task_type: "simulated".to_owned(),
            task_data: tasks::data(tag),
            spec: protobuf::SingularPtrField::some(spec),
            ..SubmitTask::default()
        };
        let command = command_for("", &self.request_id(around.now_us), Kind::submit_task(submit));
        around.keys.push(task.clone());
        let place = around.checks.history.ops.len();
        around.checks.history.ops.push(Op {
            client: u32::try_from(self.number).unwrap_or(u32::MAX),
            key: task.clone(),
            kind: Asked::Swap { expect: None, tag },
            invoked: around.now_us,
            outcome: Outcome::Unknown,
        });
        What::Submit(Box::new(command), place, task)
    }

    /// What it held back, given free again.
    fn take_back(&mut self, now_us: u64) -> Option<What> {
        let kind = self.orders.take_back()?;
        Some(What::Release(self.command(now_us, kind)))
    }

    fn command(&mut self, now_us: u64, kind: Kind) -> Box<Command> {
        Box::new(command_for("", &self.request_id(now_us), kind))
    }

    /// A UUIDv7 of virtual time.
    fn request_id(&mut self, now_us: u64) -> String {
        let ms = EPOCH_MS + now_us / 1_000;
        let (high, low) = (self.rng.next(), self.rng.next());
        format!(
            "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
            ms >> 16,
            ms & 0xFFFF,
            high & 0xFFF,
            0x8000 | (high >> 16 & 0x3FFF),
            low >> 16
        )
    }

    /// An answer came.
    pub fn answered(&mut self, number: u64, response: Response, around: &mut Around<'_>) {
        let leader = response.leader();
        let Some(mut flight) = self.flight.take_if(|flight| (flight.first_call..=flight.last_call).contains(&number))
        else {
            return;
        };
        let settled = match (&flight.what, response) {
            (What::Submit(command, ..), Response::Command(Ok(reply))) if may_be_refused(command, reply.outcome) => true,
            (What::Submit(_, place, task), Response::Command(Ok(reply))) => {
                submitted(*place, task, reply.outcome, reply.position, around)
            }
            // What is refused (an unknown task, an old machine version) was told.
            (What::Work(command), Response::Command(Ok(reply))) => {
                if matches!(reply.outcome, Told::OK | Told::EXISTING | Told::DUPLICATE) {
                    around.checks.taken.extend(Taken::of(command));
                    around.checks.training.is_possible |= command.has_set_machine_version();
                }
                true
            }
            (What::Cancel(_) | What::Order(_) | What::Release(_), Response::Command(Ok(_))) => true,
            (What::Read(task), Response::Read(Ok((row, position)))) => {
                self.found(task, flight.asked_us, row.as_deref(), position, around);
                true
            }
            (What::Submit(..) | What::Cancel(_) | What::Work(_), Response::Command(Err(CallError::Invalid(why)))) => {
                around.checks.violated(format!("a sound command was refused: {why}"));
                true
            }
            (What::Order(_), Response::Command(Err(CallError::Invalid(_) | CallError::Precondition(_)))) => true,
            _ => false,
        };
        if settled {
            return self.rest(around.now_us);
        }
        self.target.learned(leader);
        flight.retry_us = flight.retry_us.min(around.now_us + AGAIN_US);
        self.flight = Some(flight);
    }

    fn found(&self, task: &str, invoked: u64, row: Option<&TaskRow>, position: u64, around: &mut Around<'_>) {
        let value = row.and_then(|row| tasks::tag(row.get_task().get_task_data())).map(Value::of);
        let at = around.now_us;
        let answer = Answer::Found(value);
        around.checks.history.ops.push(Op {
            client: u32::try_from(self.number).unwrap_or(u32::MAX),
            key: task.to_owned(),
            kind: Asked::Read,
            invoked,
            outcome: Outcome::Done(Done { at, answer, position: Some(position), version: None }),
        });
        let seen = row.map(tasks::seen);
        around.checks.lives.push(TaskEvent::Read { task: task.to_owned(), invoked, at, seen });
    }
}

/// Before the cluster is at the version that knows queues, or there is one, a task that names it is not taken. Nothing has come of it.
fn may_be_refused(command: &Command, outcome: Told) -> bool {
    let spec = command.get_submit_task().get_spec();
    let asks = spec.get_preemptible() || !spec.get_queue().is_empty();
    asks && matches!(outcome, Told::PRECONDITION | Told::INVALID)
}

/// Notes what a submission was told; false: it does not say whether the task is there.
fn submitted(place: usize, task: &str, outcome: Told, position: u64, around: &mut Around<'_>) -> bool {
    let at = around.now_us;
    let answer = match outcome {
        Told::OK | Told::EXISTING | Told::DUPLICATE => Answer::Taken,
        Told::ALREADY_EXISTS => Answer::Refused,
        Told::OUTCOME_UNKNOWN => return false,
        Told::NOT_FOUND
        | Told::STALE_LEASE
        | Told::PRECONDITION
        | Told::INVALID
        | Told::MISMATCH
        | Told::STALE
        | Told::EXHAUSTED => {
            around.checks.violated(format!("the submission of {task} was answered {outcome:?}"));
            return true;
        }
    };
    let done = Done { at, answer, position: Some(position), version: None };
    around.checks.history.ops[place].outcome = Outcome::Done(done);
    if answer == Answer::Taken {
        around.checks.lives.push(TaskEvent::Submitted { task: task.to_owned(), at });
    }
    true
}
