//! A client: submits tasks under ids of its own, cancels and reads them, tries again under the same request id until it knows, or gives up.

use raftgrid_manifest::{command, command_for, MACHINE_VERSION};
use raftgrid_proto::v1::{
    CancelTask, Command, Command_oneof_kind as Kind, GangSpec, JobSpec, Outcome as Told, PutQueue, Queue,
    SetMachineVersion, SetPriority, SubmitJob, SubmitTask, TaskRow, TaskSpec,
};
use raftgrid_replica::ports::CallError;

use crate::ask::{Ask, Target};
use crate::calls::{Request, Response};
use crate::check::Checks;
use crate::limits::EPOCH_MS;
use crate::linearizability::{Answer, Done, Kind as Asked, Op, Outcome, Tag, TaskEvent, Value};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::{tasks, work};

/// The queue that some tasks name.
const QUEUE: &str = "queue";
/// How long a client goes on trying.
const GIVE_UP_US: u64 = 30_000_000;
/// Pause after an attempt that failed.
const AGAIN_US: u64 = 50_000;

enum What {
    /// A submission, with its place in the history and its task.
    Submit(Box<Command>, usize, String),
    /// A cancellation, which the history does not carry: whether it succeeds depends on the worker.
    Cancel(Box<Command>),
    /// A job, or a task that waits for others: what becomes of them the invariants and the healed phase judge.
    Work(Box<Command>),
    /// Something about placement (a queue, a priority, a gang), which may be refused: the judges look at what comes of it.
    Steer(Box<Command>),
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
}

impl Habits {
    /// As planned.
    pub fn of(plan: &Plan) -> Self {
        let attempt_us = plan.attempt_ms * 1_000;
        Self { think_us: plan.think_us, attempt_us, reads: plan.reads, scattered: plan.scattered_reads }
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
    /// It starts nothing new.
    pub finishing: bool,
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
            finishing: false,
        }
    }

    /// Whether it waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.flight.is_none()
    }

    /// When it wants to be woken at the latest; None: never.
    pub fn wake_us(&self) -> Option<u64> {
        match &self.flight {
            Some(flight) => Some(flight.retry_us),
            None if self.finishing => None,
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
            None if self.finishing || now < self.next_op_us => None,
            None => {
                let what = self.draw(around);
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
            self.rest(now);
            return None;
        }
        flight.last_call = self.next_call;
        self.next_call += 1;
        flight.retry_us = now + self.habits.attempt_us;
        let request = match &flight.what {
            What::Submit(command, ..) | What::Cancel(command) | What::Work(command) | What::Steer(command) => {
                Request::Command(command.clone())
            }
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
        if self.number == 0 && self.made == 0 {
            // Before it, what came with a newer version is refused.
            self.made += 1;
            let newest = SetMachineVersion { version: MACHINE_VERSION, ..SetMachineVersion::default() };
            return What::Work(Box::new(command(Kind::set_machine_version(newest))));
        }
        let old = self.rng.pick(around.keys).cloned();
        if let Some(task) = old.clone().filter(|_| self.rng.chance(self.habits.reads)) {
            return What::Read(task);
        }
        match (old, self.rng.between(40, 99)) {
            (Some(task), 40..=43) => self.steer(task, around),
            (Some(task), 44..=47) => {
                let cancel = CancelTask { task_id: task, reason: "simulated".to_owned(), ..CancelTask::default() };
                What::Cancel(Box::new(command_for("", &self.request_id(around.now_us), Kind::cancel_task(cancel))))
            }
            // Somebody else may want the same id.
            (Some(task), 48..=55) => self.submit(task, around),
            (Some(task), 56..=59) => {
                let kind = work::task_after(self.number, self.name(), &task, &mut self.rng);
                What::Work(Box::new(command_for("", &self.request_id(around.now_us), kind)))
            }
            (Some(_), 60..=61) => {
                let kind = work::job(self.number, self.name(), &mut self.rng);
                What::Work(Box::new(command_for("", &self.request_id(around.now_us), kind)))
            }
            (_, draw) => {
                self.made += 1;
                let task = if draw > 90 {
                    format!("shared-{}", around.keys.len() / 4)
                } else {
                    format!("task-{}-{}", self.number, self.made)
                };
                self.submit(task, around)
            }
        }
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
        placement(tag, &mut spec);
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

    /// A queue with other limits, another priority, or a gang.
    fn steer(&mut self, task: String, around: &mut Around<'_>) -> What {
        let kind = match self.rng.below(3) {
            0 => {
                let mut queue = Queue { name: QUEUE.to_owned(), weight: 2, ..Queue::default() };
                queue.set_max_running(u32::try_from(1 + self.rng.below(3)).unwrap_or(1));
                Kind::put_queue(PutQueue { queue: Some(queue).into(), ..PutQueue::default() })
            }
            1 => {
                let priority = i32::try_from(self.rng.below(101)).unwrap_or(0);
                Kind::set_priority(SetPriority { task_id: task, priority, ..SetPriority::default() })
            }
            _ => {
                self.made += 1;
                let name = format!("gang-{}-{}", self.number, self.made);
                let mut job = JobSpec { name, task_data: b"{}".to_vec(), ..JobSpec::default() };
                job.set_field_type("command".to_owned());
                job.set_gang(GangSpec { min_members: 2, max_members: 3, ..GangSpec::default() });
                placement(self.rng.next(), job.mut_task());
                // Its quota may be less than a gang needs, for ever.
                job.mut_task().queue.clear();
                Kind::submit_job(SubmitJob { spec: Some(job).into(), ..SubmitJob::default() })
            }
        };
        What::Steer(Box::new(command_for("", &self.request_id(around.now_us), kind)))
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
            (What::Cancel(_) | What::Work(_) | What::Steer(_), Response::Command(Ok(_))) => true,
            (What::Read(task), Response::Read(Ok((row, position)))) => {
                self.found(task, flight.asked_us, row.as_deref(), position, around);
                true
            }
            (What::Submit(..) | What::Cancel(_), Response::Command(Err(CallError::Invalid(why)))) => {
                around.checks.violated(format!("a sound command was refused: {why}"));
                true
            }
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

/// What of its placement a task with this tag says.
fn placement(tag: Tag, spec: &mut TaskSpec) {
    spec.set_priority(i32::try_from(tag % 5 * 20).unwrap_or(0));
    if tag.is_multiple_of(3) {
        spec.set_preemptible(true);
    }
    if tag.is_multiple_of(7) {
        spec.set_queue(QUEUE.to_owned());
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
