//! The clients: registers that they fight over, submissions that must count once, retries by hand that must copy once.
//!
//! A task is a register that starts absent, is created by one of many competing submissions (compare-and-set from nothing) and sealed by a
//! cancellation. Its id is the key, the number in its data the value, its revision the version.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use raftgrid_client::request_id;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{CANCEL_TASK, RETRY_TASK, SUBMIT_TASK};
use raftgrid_simulator::linearizability::{Answer, Done, Kind, Life, Op, Outcome, TaskEvent, TaskSeen, Value};

use crate::calls::{data_with_tag, nowhere, tag_in, Caller, Endpoints, Told};
use crate::chance::Chance;
use crate::limits::{HASTY_TIMEOUT, KEYS_AT_ONCE, OPS_PER_KEY, OP_PAUSE};
use crate::record::{Record, Submission};

/// How many clients of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Fight over registers.
    pub registers: u64,
    /// Submit under ids of the server's.
    pub submitters: u64,
    /// Workers that take those tasks and report.
    pub workers: u64,
    /// Instead of all these: clients of etcd.
    pub etcd: u64,
}

/// What the threads of the load share.
pub struct Shared {
    /// What was seen.
    pub record: Record,
    /// Where the replicas are.
    pub endpoints: Endpoints,
    /// Of the run.
    pub seed: u64,
    stop: AtomicBool,
    /// Longer pauses between operations, to the same number of operations over a longer run.
    pub slower: u32,
    ops: AtomicU64,
    tags: AtomicU64,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(endpoints: Vec<String>, seed: u64, slower: u32) -> Self {
        Self {
            record: Record::default(),
            endpoints: Endpoints::new(endpoints),
            seed,
            slower,
            stop: AtomicBool::new(false),
            ops: AtomicU64::new(0),
            tags: AtomicU64::new(1),
        }
    }

    /// Whether the load is to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A client of its own for one thread.
    pub fn caller(&self, stream: u64) -> Result<Caller> {
        Caller::new(self.endpoints.clone(), Chance::new(self.seed, stream))
    }

    /// Number of an operation on registers; the window of keys moves with it.
    pub fn next_op(&self) -> u64 {
        self.ops.fetch_add(1, Ordering::Relaxed)
    }

    /// A value of nobody else's.
    pub fn tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }

    /// Between two operations of one client.
    pub fn pause(&self) {
        std::thread::sleep(OP_PAUSE * self.slower);
    }
}

/// The running load.
pub struct Load {
    /// What its threads share.
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts all clients.
    pub fn start(shared: Shared, mix: Mix) -> Result<Self> {
        let shared = Arc::new(shared);
        let mut threads = Vec::new();
        let mut spawn = |name: String, body: Box<dyn FnOnce() + Send>| -> Result<()> {
            let thread = std::thread::Builder::new().name(name).spawn(body).context("failed to start a client")?;
            threads.push(thread);
            Ok(())
        };
        for client in 0..mix.registers {
            let (all, caller) = (shared.clone(), shared.caller(100 + client)?);
            spawn(format!("register-{client}"), Box::new(move || registers(&all, caller, client as u32)))?;
        }
        for client in 0..mix.submitters {
            let (all, mut caller) = (shared.clone(), shared.caller(200 + client)?);
            if client == 0 {
                caller.attempt_timeout = HASTY_TIMEOUT;
            }
            spawn(format!("submit-{client}"), Box::new(move || submissions(&all, caller)))?;
        }
        for number in 0..mix.workers {
            let (all, caller) = (shared.clone(), shared.caller(300 + number)?);
            spawn(format!("worker-{number}"), Box::new(move || crate::worker::run(&all, caller, number)))?;
        }
        for client in 0..mix.etcd {
            let (all, chance) = (shared.clone(), Chance::new(shared.seed, 500 + client));
            spawn(format!("etcd-{client}"), Box::new(move || crate::etcd::client(&all, chance, client as u32)))?;
        }
        Ok(Self { shared, threads })
    }

    /// Ends the clients; what they have under way is waited for.
    pub fn stop(self) -> Arc<Shared> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                self.shared.record.alarm("a client of the harness panicked".to_owned());
            }
        }
        self.shared
    }
}

fn registers(all: &Shared, mut caller: Caller, client: u32) {
    while !all.stopping() {
        let base = all.next_op() / OPS_PER_KEY;
        let key = format!("reg-{}", base + caller.chance.below(KEYS_AT_ONCE));
        match caller.chance.below(20) {
            0..=4 => submit_register(all, &mut caller, client, key),
            5 | 6 => cancel(all, &mut caller, client, key),
            // An older key: it must still be what it was.
            7 if base > KEYS_AT_ONCE => {
                let old = format!("reg-{}", caller.chance.below(base));
                read_register(all, &mut caller, client, old);
            }
            8 => retry_by_hand(all, &mut caller, &key),
            _ => read_register(all, &mut caller, client, key),
        }
        all.pause();
    }
}

fn note(all: &Shared, client: u32, key: String, kind: Kind, invoked: u64, outcome: Outcome) {
    if outcome != Outcome::Unknown && kind != Kind::Read {
        all.record.ack(invoked);
    }
    all.record.op(Op { client, key, kind, invoked, outcome });
}

fn submit_register(all: &Shared, caller: &mut Caller, client: u32, key: String) {
    let tag = all.tag();
    let mut request = SubmitTaskRequest::new();
    request.set_task_type("command".to_owned());
    request.set_task_data(data_with_tag(tag));
    request.set_task_id(key.clone());
    request.set_request_id(request_id());
    request.set_spec(nowhere());
    let invoked = all.record.now();
    let told = caller.write(&SUBMIT_TASK, &request);
    let at = all.record.now();
    let outcome = match told {
        Told::Done(response) => {
            let position = Some(response.position);
            Outcome::Done(Done { at, answer: Answer::Taken, position, version: None })
        }
        Told::Refused(_) => Outcome::Done(Done { at, answer: Answer::Refused, position: None, version: None }),
        Told::Unknown => Outcome::Unknown,
    };
    note(all, client, key, Kind::Swap { expect: None, tag }, invoked, outcome);
}

fn cancel(all: &Shared, caller: &mut Caller, client: u32, key: String) {
    let mut request = CancelTaskRequest::new();
    request.set_task_id(key.clone());
    request.set_request_id(request_id());
    let invoked = all.record.now();
    let told = caller.write(&CANCEL_TASK, &request);
    let at = all.record.now();
    let outcome = match told {
        Told::Done(response) => {
            let version = Some(response.get_task().revision);
            Outcome::Done(Done { at, answer: Answer::Taken, position: None, version })
        }
        Told::Refused(_) => Outcome::Done(Done { at, answer: Answer::Refused, position: None, version: None }),
        Told::Unknown => Outcome::Unknown,
    };
    note(all, client, key, Kind::Seal, invoked, outcome);
}

fn read_register(all: &Shared, caller: &mut Caller, client: u32, key: String) {
    let invoked = all.record.now();
    let Some(response) = caller.read(&key) else { return };
    let at = all.record.now();
    let found = response.found.then(|| {
        let task = response.get_task();
        // A tag that does not decode is a value that nobody wrote; the checkers say so.
        Value { tag: tag_in(&task.task_data).unwrap_or(0), sealed: task.status == TaskStatus::FAILED }
    });
    let version = response.found.then(|| response.get_task().revision);
    let done = Done { at, answer: Answer::Found(found), position: Some(response.read_position), version };
    note(all, client, key, Kind::Read, invoked, Outcome::Done(done));
}

/// A retry of a cancelled task makes a copy, each time: the one call of the contract that only its request id keeps from counting twice.
fn retry_by_hand(all: &Shared, caller: &mut Caller, key: &str) {
    // Of a task that waits it would be a request to wait no longer, which copies nothing.
    let over = caller.read(key).is_some_and(|it| it.found && it.get_task().status == TaskStatus::FAILED);
    if !over {
        return;
    }
    let mut request = RetryTaskRequest::new();
    request.set_task_id(key.to_owned());
    request.set_request_id(request_id());
    let invoked = all.record.now();
    match caller.write(&RETRY_TASK, &request) {
        Told::Done(_) => {
            all.record.ack(invoked);
            all.record.copy(key, true);
        }
        Told::Refused(error) => all.record.alarm(format!("a retry of {key}, which is over, was refused: {error}")),
        Told::Unknown => all.record.copy(key, false),
    }
}

fn submissions(all: &Shared, mut caller: Caller) {
    let mut known: Vec<String> = Vec::new();
    while !all.stopping() {
        if !known.is_empty() && caller.chance.one_in(3) {
            let task = caller.chance.pick(&known).clone();
            read_life(all, &mut caller, &task);
        } else if let Some(task) = submit_anew(all, &mut caller) {
            known.push(task);
        }
        all.pause();
    }
}

fn submit_anew(all: &Shared, caller: &mut Caller) -> Option<String> {
    let tag = all.tag();
    let mut request = SubmitTaskRequest::new();
    request.set_task_type("command".to_owned());
    request.set_task_data(data_with_tag(tag));
    request.set_request_id(request_id());
    // Most wait for nobody; the workers of the run take the others.
    if !caller.chance.one_in(4) {
        request.set_spec(nowhere());
    }
    let invoked = all.record.now();
    let told = caller.write(&SUBMIT_TASK, &request);
    let at = all.record.now();
    let accepted = match told {
        Told::Done(response) => Some(response.task_id),
        Told::Refused(error) => {
            all.record.alarm(format!("a fresh submission was refused: {error}"));
            None
        }
        Told::Unknown => None,
    };
    if let Some(task) = &accepted {
        all.record.ack(invoked);
        all.record.life(TaskEvent::Submitted { task: task.clone(), at });
    }
    all.record.submission(Submission { tag, accepted: accepted.clone() });
    accepted
}

/// A linearizable read of a task's life.
pub fn read_life(all: &Shared, caller: &mut Caller, task: &str) {
    let invoked = all.record.now();
    let Some(response) = caller.read(task) else { return };
    let at = all.record.now();
    let seen = response.found.then(|| seen(response.get_task()));
    all.record.life(TaskEvent::Read { task: task.to_owned(), invoked, at, seen });
}

fn seen(task: &Task) -> TaskSeen {
    let life = match task.status {
        TaskStatus::PENDING => Life::Pending,
        TaskStatus::ASSIGNED => Life::Assigned,
        TaskStatus::RUNNING => Life::Running,
        TaskStatus::COMPLETED => Life::Completed,
        TaskStatus::FAILED => Life::Failed,
    };
    TaskSeen {
        revision: task.revision,
        life,
        epoch: task.lease_epoch,
        attempt: task.attempt,
        result: task.result_data.clone(),
    }
}

/// Waits, but not beyond the end of the load.
pub fn rest(all: &Shared, ms: u64) {
    let mut left = ms;
    while left > 0 && !all.stopping() {
        let step = left.min(50);
        std::thread::sleep(Duration::from_millis(step));
        left -= step;
    }
}
