//! The load of `gridctl bench scale`: what many tasks and many idle workers cost. Tasks are submitted in batches over a session; pages of them
//! are listed from random places; workers each have a connection of their own, beat when they are told to, and wait in a long poll.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::mpsc::unbounded;
use futures::executor::block_on;
use futures::future::try_join;
use futures::{FutureExt, SinkExt, StreamExt};
use raftgrid_proto::v1::*;
use raftgrid_rpc::answer::ask_now;
use raftgrid_rpc::grpcio::{CallOption, Client as Stub, ClientUnaryReceiver, Environment, WriteFlags};
use raftgrid_rpc::methods::{HEARTBEAT, LIST_TASKS, POLL_TASK, SESSION};

use crate::failure::{Failure, Result};
use crate::limits::{BENCH_BEATING_THREADS, BENCH_CALL_TIMEOUT, BENCH_LOAD_TIMEOUT, BENCH_POLL_WAIT, PROBE_PAUSE};

/// Submissions in one batch.
const BATCH: u64 = 1_024;
/// Batches under way.
const BATCHES: u64 = 8;

fn broken(cause: impl ToString) -> Failure {
    Failure::new(format!("a call of the benchmark failed: {}", cause.to_string()), "the logs of the servers")
}

fn option() -> CallOption {
    CallOption::default().timeout(BENCH_CALL_TIMEOUT)
}

/// Submits `count` tasks of `bytes` bytes each; how long that took.
pub(crate) fn submit(stub: &Stub, count: u64, data: impl Fn() -> Vec<u8>) -> Result<Duration> {
    let begin = Instant::now();
    let option = CallOption::default().timeout(BENCH_LOAD_TIMEOUT);
    let (mut sink, mut answers) = stub.duplex_streaming(&SESSION.method, option).map_err(broken)?;
    // Answers are read while batches are sent: a server that cannot get rid of its answers stops reading.
    let (told, mut answered) = unbounded();
    let send = async {
        let (mut sent, mut done) = (0, 0);
        while sent < count {
            while sent >= done + BATCH * BATCHES {
                match answered.next().await {
                    Some(more) => done += more,
                    None => return Ok(()),
                }
            }
            let calls = (0..BATCH.min(count - sent)).map(|_| {
                let mut request = SubmitTaskRequest::new();
                request.set_task_type("bench".to_owned());
                request.set_task_data(data());
                request.set_request_id(raftgrid_client::request_id());
                SessionCall { call: Some(SessionCall_oneof_call::submit(request)), ..SessionCall::default() }
            });
            let batch = SessionBatch { calls: calls.collect(), ..SessionBatch::default() };
            sent += batch.calls.len() as u64;
            sink.send((batch, WriteFlags::default())).await.map_err(broken)?;
        }
        sink.close().await.map_err(broken)
    };
    let receive = async move {
        let mut done = 0;
        while let Some(batch) = answers.next().await {
            let batch = batch.map_err(broken)?;
            if let Some(refused) = batch.get_answers().iter().find(|answer| answer.get_status() != 0) {
                return Err(broken(refused.get_message()));
            }
            done += batch.answers.len() as u64;
            // Everything is sent if nobody listens.
            let _ = told.unbounded_send(batch.answers.len() as u64);
        }
        if done < count {
            return Err(broken("the session ended"));
        }
        Ok(())
    };
    block_on(try_join(send, receive))?;
    Ok(begin.elapsed())
}

/// Lists `pages` pages of 1,000 waiting tasks, each behind a random one of the first listing's; milliseconds of each, ascending.
pub(crate) fn list(stub: &Stub, pages: usize, consistency: Consistency) -> Result<Vec<f64>> {
    let mut request = ListTasksRequest::new();
    request.set_status_filter(TaskStatus::PENDING);
    request.set_limit(1_000);
    request.set_consistency(consistency);
    let mut times = Vec::with_capacity(pages);
    while times.len() < pages {
        let begin = Instant::now();
        let mut page = ask_now(stub, &LIST_TASKS.method, &request, option()).map_err(broken)?;
        times.push(begin.elapsed().as_secs_f64() * 1_000.0);
        // From one end to the other and again from the start.
        request.set_page_token(page.take_next_page_token());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// One simulated worker on a connection of its own.
struct Worker {
    stub: Stub,
    node_id: String,
    boot_nonce: u64,
    incarnation: u64,
    due: Instant,
    /// Its heartbeat that is not answered yet.
    beat: Option<ClientUnaryReceiver<HeartbeatResponse>>,
    /// Its long poll, and when it ends by itself.
    poll: Option<(ClientUnaryReceiver<PollTaskResponse>, Instant)>,
}

impl Worker {
    /// The first heartbeat, and its answer.
    fn register(&mut self) -> Result<()> {
        self.send_beat()?;
        let Some(beat) = self.beat.take() else { return Ok(()) };
        self.take(&block_on(beat).map_err(broken)?);
        Ok(())
    }

    /// Sends a heartbeat if one is due and takes the answer if it is there. Whether it was.
    fn beat(&mut self) -> Result<bool> {
        let Some(beat) = self.beat.as_mut() else {
            if Instant::now() >= self.due {
                self.send_beat()?;
            }
            return Ok(false);
        };
        let Some(answer) = beat.now_or_never() else { return Ok(false) };
        self.beat = None;
        self.take(&answer.map_err(broken)?);
        Ok(true)
    }

    fn take(&mut self, answer: &HeartbeatResponse) {
        self.incarnation = answer.get_incarnation();
        self.due = Instant::now() + Duration::from_millis(u64::from(answer.get_next_beat_ms()));
    }

    fn send_beat(&mut self) -> Result<()> {
        let mut request = HeartbeatRequest::new();
        request.set_node_id(self.node_id.clone());
        request.set_boot_nonce(self.boot_nonce);
        request.set_incarnation(self.incarnation);
        if self.incarnation == 0 {
            request.mut_node().set_node_id(self.node_id.clone());
            request.mut_node().mut_capacity().set_slots(4);
        }
        self.beat = Some(self.stub.unary_call_async(&HEARTBEAT.method, &request, option()).map_err(broken)?);
        Ok(())
    }

    fn poll(&mut self) -> Result<()> {
        if self.poll.as_ref().is_some_and(|(_, over)| Instant::now() < *over) {
            return Ok(());
        }
        let mut request = PollTaskRequest::new();
        request.set_node_id(self.node_id.clone());
        request.set_incarnation(self.incarnation);
        request.set_wait_ms(BENCH_POLL_WAIT.as_millis() as u32);
        let option = CallOption::default().timeout(BENCH_POLL_WAIT + BENCH_CALL_TIMEOUT);
        let receiver = self.stub.unary_call_async(&POLL_TASK.method, &request, option).map_err(broken)?;
        self.poll = Some((receiver, Instant::now() + BENCH_POLL_WAIT));
        Ok(())
    }
}

/// What idle workers did.
pub(crate) struct Idle {
    /// Heartbeats while it was measured.
    pub(crate) beats: u64,
}

/// Connects `count` workers, lets them be idle, and has `measure` run while they are.
pub(crate) fn idle_workers(
    env: &Arc<Environment>,
    address: &str,
    count: usize,
    measure: impl FnOnce() -> Result<()>,
) -> Result<Idle> {
    let (over, ready, beats) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let share = count.div_ceil(BENCH_BEATING_THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..BENCH_BEATING_THREADS)
            .map(|at| {
                let (over, ready, beats) = (&over, &ready, &beats);
                let range = (at * share).min(count)..((at + 1) * share).min(count);
                scope.spawn(move || {
                    let done = be_idle(env, address, range, over, ready, beats);
                    if done.is_err() {
                        over.store(true, Ordering::SeqCst);
                    }
                    done
                })
            })
            .collect();
        while ready.load(Ordering::SeqCst) < count as u64 && !over.load(Ordering::SeqCst) {
            thread::sleep(PROBE_PAUSE);
        }
        let before = beats.load(Ordering::SeqCst);
        let measured = measure();
        let idle = Idle { beats: beats.load(Ordering::SeqCst) - before };
        over.store(true, Ordering::SeqCst);
        for thread in threads {
            thread.join().map_err(|_| broken("a thread of the benchmark panicked"))??;
        }
        measured.map(|()| idle)
    })
}

fn be_idle(
    env: &Arc<Environment>,
    address: &str,
    range: std::ops::Range<usize>,
    over: &AtomicBool,
    ready: &AtomicU64,
    beats: &AtomicU64,
) -> Result<()> {
    let mut workers = Vec::with_capacity(range.len());
    for at in range {
        let mut worker = Worker {
            stub: Stub::new(raftgrid_rpc::channel(env, address)),
            node_id: format!("idle-{at}"),
            boot_nonce: at as u64 + 1,
            incarnation: 0,
            due: Instant::now(),
            beat: None,
            poll: None,
        };
        worker.register()?;
        worker.poll()?;
        workers.push(worker);
        ready.fetch_add(1, Ordering::SeqCst);
        // Those that are here already must not be taken for dead meanwhile.
        if at % 64 == 0 {
            beat_due(&mut workers, beats)?;
        }
    }
    while !over.load(Ordering::SeqCst) {
        beat_due(&mut workers, beats)?;
        thread::sleep(PROBE_PAUSE);
    }
    Ok(())
}

fn beat_due(workers: &mut [Worker], beats: &AtomicU64) -> Result<()> {
    for worker in workers.iter_mut() {
        if worker.beat()? {
            beats.fetch_add(1, Ordering::SeqCst);
        }
        worker.poll()?;
    }
    Ok(())
}
