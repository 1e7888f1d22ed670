//! A trainer whose lease was given to another attempt, and who goes on: a thousand generated calls of each kind in the name of attempts that
//! were open once. Each is refused by name, nothing of it takes effect, and the job then trains as if there had been one attempt.

mod harness;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use futures::SinkExt;
use harness::gradient::{frame, send, tensors, Case};
use harness::numbers::Rng;
use harness::trainer::{first_model, job, submit, train_well, Beats, Nodes, Trainer, SHARDS};
use harness::{wait_for, Cluster};
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::{CallOption, Client as Stub, Error, WriteFlags};
use raftgrid_rpc::methods::*;

const CASES: u64 = 1_000;
/// Senders at once.
const SENDERS: u64 = 8;
const CALL: Duration = Duration::from_secs(20);
/// Attempts that are over when the calls come.
const OLDER: usize = 4;

/// What a call came to: the answer, or the words of its refusal.
type Outcome = Result<String, String>;

fn told<T: std::fmt::Debug>(answer: Result<T, Error>) -> Outcome {
    match answer {
        Ok(answer) => Ok(format!("{answer:?}")),
        Err(Error::RpcFailure(status)) => Err(format!("{} {}", status.code(), status.message())),
        Err(other) => panic!("no answer: {other}"),
    }
}

fn option() -> CallOption {
    CallOption::default().timeout(CALL)
}

type Call = fn(&mut Rng, &Stub, &Trainer) -> Outcome;

/// Each is refused with this word.
const REFUSED: &str = "STALE_LEASE";

/// The kinds of calls.
const KINDS: [(&str, Call); 7] = [
    ("gradients", gradient),
    ("gradients in other pieces and names", gradient_of_another),
    ("results", result),
    ("starts", start),
    ("questions for shards", ask),
    ("keys", key),
    ("lines of the log", log),
];

fn gradient(rng: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    let shard = rng.index(SHARDS as usize) as u32;
    // Now and then the very bytes that the newest attempt will send.
    let seed = if rng.index(4) == 0 { u64::from(shard) } else { rng.next() };
    let case = Case::of(frame(&tensors(&mut Rng(seed))), older, shard);
    send(stub, case.chunks()).map(|ack| format!("{ack:?}"))
}

fn gradient_of_another(rng: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    let shard = rng.index(SHARDS as usize) as u32;
    let mut case = Case::of(frame(&tensors(rng)), older, shard).in_pieces(rng);
    case.head.set_worker_id(format!("worker-{}", rng.index(10)));
    case.head.set_weight(1.0 + rng.index(100) as f64);
    case.head.set_metrics_json(format!("{{\"loss\":{}}}", rng.index(100)).into_bytes());
    send(stub, case.chunks()).map(|ack| format!("{ack:?}"))
}

fn result(rng: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    let mut request = ReportTaskResultRequest::new();
    request.set_task_id(older.task.clone());
    request.set_lease_epoch(older.epoch);
    request.set_final_status(*rng.of(&[TaskStatus::COMPLETED, TaskStatus::FAILED]));
    request.set_exit_code(rng.index(3) as i32);
    request.set_result_data(format!("result {}", rng.next()));
    request.set_infrastructure(rng.index(2) == 0);
    match stub.unary_call(&REPORT_TASK_RESULT.method, &request, option()) {
        Ok(answer) if !answer.acknowledged => Err(format!("{:?}", answer.outcome)),
        other => told(other),
    }
}

fn start(_: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    let mut request = StartTaskRequest::new();
    request.set_task_id(older.task.clone());
    request.set_lease_epoch(older.epoch);
    told(stub.unary_call(&START_TASK.method, &request, option()))
}

fn ask(rng: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    let mut request = NextShardsRequest::new();
    request.set_job_id(older.job.clone());
    request.set_task_id(older.task.clone());
    request.set_lease_epoch(older.epoch);
    request.set_wait_ms(rng.index(100) as u32);
    told(stub.unary_call(&NEXT_SHARDS.method, &request, option()))
}

fn key(rng: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    let (task, epoch) = (older.task.clone(), older.epoch);
    let key = format!("older/{}", rng.index(3));
    match rng.index(3) {
        0 => {
            let mut request = AddRequest::new();
            request.set_key(key);
            request.set_val(format!("{}", rng.next()));
            request.set_task_id(task);
            request.set_lease_epoch(epoch);
            told(stub.unary_call(&KV_ADD.method, &request, option()))
        }
        1 => {
            let mut request = CompareAndSetRequest::new();
            request.set_key(key);
            request.set_data(rng.next().to_le_bytes().to_vec());
            request.set_task_id(task);
            request.set_lease_epoch(epoch);
            told(stub.unary_call(&KV_COMPARE_AND_SET.method, &request, option()))
        }
        _ => {
            let mut request = DeleteRequest::new();
            request.set_key("kept".to_owned());
            request.set_task_id(task);
            request.set_lease_epoch(epoch);
            told(stub.unary_call(&KV_DELETE.method, &request, option()))
        }
    }
}

fn append(stub: &Stub, trainer: &Trainer, offset: u64, data: Vec<u8>) -> Outcome {
    let mut request = AppendLogRequest::new();
    request.set_task_id(trainer.task.clone());
    request.set_lease_epoch(trainer.epoch);
    request.set_offset(offset);
    request.set_data(data);
    told(stub.unary_call(&APPEND_LOG.method, &request, option()))
}

fn log(rng: &mut Rng, stub: &Stub, older: &Trainer) -> Outcome {
    append(stub, older, rng.below(30), b"an older attempt says".to_vec())
}

/// Runs all cases of a kind from `SENDERS` threads, each at the replicas in turn; what was not refused as it must be.
fn run_kind(stubs: &[Stub], older: &[Trainer], kind: usize) -> Vec<String> {
    let (name, call) = KINDS[kind];
    let one = move |number: u64| {
        let mut rng = Rng((kind as u64) << 32 | number);
        let older = rng.of(older);
        match call(&mut rng, &stubs[number as usize % stubs.len()], older) {
            Ok(answer) => Some(format!("{name}, case {number}: answered: {answer}")),
            Err(why) if why.contains(REFUSED) => None,
            Err(why) => Some(format!("{name}, case {number}: refused as \"{why}\", and not as {REFUSED}")),
        }
    };
    let share = |sender: u64| -> Vec<String> { (0..CASES).filter(|n| n % SENDERS == sender).filter_map(one).collect() };
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || share(sender))).collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender ends")).collect()
    })
}

/// A gradient that begins while its attempt is open; `meanwhile` happens before its last chunk. What it came to.
fn overtaken<T>(stub: &Stub, trainer: &Trainer, meanwhile: impl FnOnce() -> T) -> (Outcome, T) {
    let mut rng = Rng(trainer.epoch);
    let chunks = Case::of(frame(&tensors(&mut rng)), trainer, 0).in_pieces(&mut rng).chunks();
    let (mut sink, answer) = stub.client_streaming(&SEND_GRADIENTS.method, option()).expect("a call can be made");
    let mut send = |chunk: &GradientChunk| {
        block_on(sink.send((chunk.clone(), WriteFlags::default()))).expect("whose lease was open is listened to");
    };
    let (last, first) = chunks.split_last().expect("three at least");
    first.iter().for_each(&mut send);
    let happened = meanwhile();
    send(last);
    block_on(sink.close()).expect("it ends");
    let outcome = match block_on(answer) {
        Ok(ack) if !ack.success => Err(format!("{:?} {}", ack.outcome, ack.reason)),
        other => told(other),
    };
    (outcome, happened)
}

/// The state that nothing of an older attempt may change.
fn state(cluster: &Cluster, name: &str, task: &str) -> String {
    let client = cluster.client();
    let job = job(&client, name);
    let (code, artifacts, errors) = cluster.gridctl(&["artifact", "ls", "--output", "json"]);
    assert_eq!(code, 0, "{errors}");
    let keys = client.kv_list("").expect("a majority runs");
    let task = client.get_task(task).expect("the task stands");
    format!(
        "{:?} {} {} {:?} {:?} {} {} {}\n{artifacts}\n{keys:?}",
        job.phase,
        job.accepted,
        job.model_version,
        job.model_digest,
        task.status,
        task.attempt,
        task.lease_epoch,
        task.result_data,
    )
}

#[test]
fn a_thousand_calls_of_each_kind_by_older_attempts_are_refused_by_name_and_change_nothing() {
    let cluster = Cluster::start(3, &[]);
    let client = cluster.client();
    let model = first_model(&cluster);
    wait_for("machine version 6", || cluster.is_at_machine_version(6).then_some(()));
    submit(&client, "fenced", &model, 1);
    let nodes = Arc::new(Nodes::register(cluster.client(), &["trainer"]));
    let _beats = Beats::of(&nodes);
    let stubs = cluster.stubs();

    let mut newest = nodes.trainer("trainer");
    let mut older = Vec::new();
    for at in 0..OLDER {
        wait_for("a shard", || nodes.ask(&newest).into_iter().next());
        // Its process dies and is there again, while the gradient of the dead one is on its way.
        let (outcome, next) = overtaken(&stubs[at % stubs.len()], &newest, || {
            nodes.boot("trainer");
            nodes.trainer("trainer")
        });
        assert!(outcome.as_ref().is_err_and(|why| why.contains(REFUSED)), "{outcome:?}");
        assert_eq!(next.task, newest.task, "the job has one trainer");
        assert!(next.epoch > newest.epoch, "{next:?} after {newest:?}");
        older.push(std::mem::replace(&mut newest, next));
    }
    wait_for("a shard", || nodes.ask(&newest).into_iter().next());
    client.kv_put("kept", b"as it is", "").expect("a key is set");
    for stub in &stubs {
        append(stub, &newest, 0, b"the newest attempt".to_vec()).expect("its log is its own");
    }
    let before = state(&cluster, "fenced", &newest.task);
    for (kind, (name, ..)) in KINDS.iter().enumerate() {
        let wrong = run_kind(&stubs, &older, kind);
        assert!(wrong.is_empty(), "{} cases, first: {:#?}", wrong.len(), &wrong[..wrong.len().min(3)]);
        assert_eq!(state(&cluster, "fenced", &newest.task), before, "{name}");
    }
    wait_for("nothing left of refused uploads", || (cluster.uploads_on_disks() == 0).then_some(()));

    let model_after = train_well(&stubs, &nodes, &newest, "fenced");
    submit(&client, "quiet", &model, 1);
    let quiet = wait_for("the other job's trainer", || Some(nodes.trainer("trainer")).filter(|it| it.job == "quiet"));
    assert_eq!(train_well(&stubs, &nodes, &quiet, "quiet"), model_after, "as if there had been one attempt");
}
