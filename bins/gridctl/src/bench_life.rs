//! The load of `gridctl bench life`: whole lives of tasks that do nothing, over sessions. A submitter keeps so many tasks open; workers with
//! many slots take what they are given, say that it is done, and ask for more. A life counts when the worker was told that its report is
//! durable: three commands on three replicas.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::mpsc::{unbounded, UnboundedReceiver, UnboundedSender};
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use futures::{FutureExt, SinkExt, StreamExt};
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::{
    CallOption, Client as Stub, ClientDuplexReceiver, ClientDuplexSender, Environment, WriteFlags,
};
use raftgrid_rpc::methods::{HEARTBEAT, SESSION};

use crate::bench_python::PythonWorkers;
use crate::failure::{Failure, Result};
use crate::limits::{BENCH_BEAT, BENCH_CALL_TIMEOUT};

/// What one round saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lives {
    pub(crate) ended: u64,
    pub(crate) took: Duration,
}

impl Lives {
    /// Lives a second.
    pub(crate) fn rate(&self) -> f64 {
        self.ended as f64 / self.took.as_secs_f64()
    }
}

/// How much is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Simulated workers, each with a session.
    pub(crate) workers: usize,
    /// Tasks that are open at once.
    pub(crate) open: u64,
    /// Submissions in one batch, and tasks in one poll.
    pub(crate) batch: u64,
}

/// What all of a run share. One thread: no locks.
struct Shared {
    load: Load,
    until: Instant,
    submitted: Cell<u64>,
    ended: Cell<u64>,
    failed: RefCell<Option<String>>,
    /// Told when lives have ended, and when a worker stops.
    progress: UnboundedSender<()>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        self.failed.borrow().is_none() && Instant::now() < self.until
    }

    fn fail(&self, cause: impl ToString) {
        self.failed.borrow_mut().get_or_insert_with(|| cause.to_string());
    }
}

/// Runs the load at the replica of `address` for `time`, with workers of its own or with those of `python`. Tasks that are open at the end stay
/// so.
pub(crate) fn run(
    env: &Arc<Environment>,
    address: &str,
    load: Load,
    time: Duration,
    mut python: Option<&mut PythonWorkers>,
) -> Result<Lives> {
    let stub = Stub::new(raftgrid_rpc::channel(env, address));
    let begin = Instant::now();
    let (progress, ticks) = unbounded();
    let shared = Rc::new(Shared {
        load,
        until: begin + time,
        submitted: Cell::new(0),
        ended: Cell::new(0),
        failed: RefCell::new(None),
        progress,
    });
    let mut pool = LocalPool::new();
    let simulated = if python.is_some() { 0 } else { load.workers };
    let workers = (0..simulated).map(|at| register(&stub, at)).collect::<Result<Vec<_>>>()?;
    for node in workers.iter().cloned() {
        let (sink, answers) = session(&stub, time)?;
        let worker = work(shared.clone(), node, sink, answers);
        pool.spawner().spawn_local(worker).map_err(|error| broken(&error.to_string()))?;
    }
    let (sink, answers) = session(&stub, time)?;
    for part in [submit(shared.clone(), sink, ticks).boxed_local(), listen(shared.clone(), answers).boxed_local()] {
        pool.spawner().spawn_local(part).map_err(|error| broken(&error.to_string()))?;
    }
    let (lives, over) = channel();
    thread::scope(|scope| {
        let (stub, workers) = (&stub, &workers);
        scope.spawn(move || beat(stub, workers, &over));
        if let Some(python) = &mut python {
            pool.run_until(count(shared.clone(), &mut python.ended));
        }
        pool.run();
        drop(lives);
    });
    let took = begin.elapsed();
    if let Some(python) = python {
        // What is open still must not count for the next round.
        python.settle(shared.submitted.get() - shared.ended.get())?;
    }
    let failed = shared.failed.borrow_mut().take();
    match failed {
        Some(cause) => Err(broken(&cause)),
        None => Ok(Lives { ended: shared.ended.get(), took }),
    }
}

fn broken(cause: &str) -> Failure {
    Failure::new(format!("a call of the benchmark failed: {cause}"), "the logs of the servers")
}

type Sink = ClientDuplexSender<SessionBatch>;
type Answers = ClientDuplexReceiver<SessionAnswers>;

fn session(stub: &Stub, time: Duration) -> Result<(Sink, Answers)> {
    let option = CallOption::default().timeout(time + BENCH_CALL_TIMEOUT);
    stub.duplex_streaming(&SESSION.method, option).map_err(|error| broken(&error.to_string()))
}

/// A simulated worker.
#[derive(Clone)]
struct Worker {
    node_id: String,
    boot_nonce: u64,
    incarnation: u64,
}

/// A worker with room for everything that is open.
fn register(stub: &Stub, at: usize) -> Result<Worker> {
    let node_id = format!("bench-{at}");
    let boot_nonce = u64::from(std::process::id()) << 16 | at as u64 | 1 << 40;
    let mut request = HeartbeatRequest::new();
    request.set_node_id(node_id.clone());
    request.set_boot_nonce(boot_nonce);
    request.mut_node().set_node_id(node_id.clone());
    request.mut_node().mut_capacity().set_slots(4_096);
    let option = CallOption::default().timeout(BENCH_CALL_TIMEOUT);
    let answer = raftgrid_rpc::answer::ask_now(stub, &HEARTBEAT.method, &request, option);
    let answer = answer.map_err(|error| broken(&error.to_string()))?;
    Ok(Worker { node_id, boot_nonce, incarnation: answer.get_incarnation() })
}

/// Says that the workers live, until the sender of `over` is gone. No lease is named: nothing here lives for a lease's time.
fn beat(stub: &Stub, workers: &[Worker], over: &Receiver<()>) {
    while over.recv_timeout(BENCH_BEAT) == Err(RecvTimeoutError::Timeout) {
        for worker in workers {
            let mut request = HeartbeatRequest::new();
            request.set_node_id(worker.node_id.clone());
            request.set_boot_nonce(worker.boot_nonce);
            request.set_incarnation(worker.incarnation);
            let option = CallOption::default().timeout(BENCH_CALL_TIMEOUT);
            // One that is lost is followed by the next; a worker that is taken for dead gets no tasks, which the figure shows.
            let _ = raftgrid_rpc::answer::ask_now(stub, &HEARTBEAT.method, &request, option);
        }
    }
}

fn call(call: SessionCall_oneof_call) -> SessionCall {
    SessionCall { call: Some(call), ..SessionCall::default() }
}

async fn submit(shared: Rc<Shared>, mut sink: Sink, mut ticks: UnboundedReceiver<()>) {
    let batch = shared.load.batch;
    while shared.goes_on() {
        // What is on its way counts as open: the load never passes its bound.
        while shared.submitted.get() + batch <= shared.ended.get() + shared.load.open {
            shared.submitted.set(shared.submitted.get() + batch);
            let calls = (0..batch).map(|_| {
                let mut request = SubmitTaskRequest::new();
                request.set_task_type("noop".to_owned());
                request.set_request_id(raftgrid_client::request_id());
                call(SessionCall_oneof_call::submit(request))
            });
            let message = SessionBatch { calls: calls.collect(), ..SessionBatch::default() };
            if let Err(error) = sink.send((message, WriteFlags::default())).await {
                return shared.fail(error);
            }
        }
        ticks.next().await;
    }
    // A session that is over has said so to whoever listens.
    let _ = sink.close().await;
}

/// Reads the answers of the submissions until the session ends.
async fn listen(shared: Rc<Shared>, mut answers: Answers) {
    while let Some(answered) = answers.next().await {
        match answered {
            Ok(answered) => refused(&shared, &answered),
            Err(error) => return shared.fail(error),
        }
    }
}

/// Notes the first call that was refused: a benchmark of errors measures nothing.
fn refused(shared: &Shared, answers: &SessionAnswers) {
    if let Some(answer) = answers.get_answers().iter().find(|answer| answer.get_status() != 0) {
        shared.fail(answer.get_message());
    }
}

/// Counts what other processes have ended, for as long as the load goes on.
async fn count(shared: Rc<Shared>, ended: &mut UnboundedReceiver<u64>) {
    while shared.goes_on() {
        match ended.next().await {
            Some(more) => shared.ended.set(shared.ended.get() + more),
            None => return shared.fail("the Python workers ended"),
        }
        let _ = shared.progress.unbounded_send(());
    }
    // The submitter waits for one more word, or has gone.
    let _ = shared.progress.unbounded_send(());
}

async fn work(shared: Rc<Shared>, node: Worker, sink: Sink, answers: Answers) {
    run_tasks(&shared, &node, sink, answers).await;
    // The submitter may have gone.
    let _ = shared.progress.unbounded_send(());
}

async fn run_tasks(shared: &Shared, node: &Worker, mut sink: Sink, mut answers: Answers) {
    if let Err(error) = sink.send((poll(shared, node), WriteFlags::default())).await {
        return shared.fail(error);
    }
    while shared.goes_on() {
        let answered = match answers.next().await {
            Some(Ok(answered)) => answered,
            Some(Err(error)) => return shared.fail(error),
            None => return shared.fail("the session ended"),
        };
        refused(shared, &answered);
        let first = answered.get_answers().first();
        if first.is_none_or(|answer| !answer.has_poll()) {
            shared.ended.set(shared.ended.get() + answered.answers.len() as u64);
            let _ = shared.progress.unbounded_send(());
            continue;
        }
        let reports: Vec<SessionCall> = answered.answers.into_iter().flat_map(reports).collect();
        let mut messages = Vec::new();
        if !reports.is_empty() {
            messages.push(SessionBatch { calls: reports.into(), ..SessionBatch::default() });
        }
        messages.push(poll(shared, node));
        for message in messages {
            if let Err(error) = sink.send((message, WriteFlags::default())).await {
                return shared.fail(error);
            }
        }
    }
    let _ = sink.close().await;
}

fn poll(shared: &Shared, worker: &Worker) -> SessionBatch {
    let mut request = PollTaskRequest::new();
    request.set_node_id(worker.node_id.clone());
    request.set_incarnation(worker.incarnation);
    request.set_wait_ms(200);
    request.set_max_tasks(shared.load.batch as u32);
    SessionBatch { calls: vec![call(SessionCall_oneof_call::poll(request))].into(), ..SessionBatch::default() }
}

fn reports(mut answer: SessionAnswer) -> Vec<SessionCall> {
    let tasks = answer.mut_poll().take_tasks().into_iter().map(|mut task| {
        let mut request = ReportTaskResultRequest::new();
        request.set_lease_epoch(task.get_lease_epoch());
        request.set_task_id(task.take_task_id());
        request.set_final_status(TaskStatus::COMPLETED);
        call(SessionCall_oneof_call::report(request))
    });
    tasks.collect()
}
