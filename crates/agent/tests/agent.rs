//! The loopback service as a Python process meets it: real gRPC, a scripted control plane behind it.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{CallOption, Client, Environment, MetadataBuilder, RpcStatus, RpcStatusCode, WriteFlags};
use raftgrid_agent::{AgentServer, Parts};
use raftgrid_proto::v1::*;
use raftgrid_rpc::chunk::chunks;
use raftgrid_rpc::methods::*;
use raftgrid_worker::models::Models;
use raftgrid_worker::plane::ModelSink;
use raftgrid_worker::{sealed, ControlPlane, Fetch, LeaseId, PlaneError, ReadSeek, TaskContext, TaskFacts, TaskTable};
use sha2::{Digest, Sha256};

#[derive(Default)]
struct Script {
    /// Answers of SendGradients and InitModel, in order; then ACCEPTED.
    answers: VecDeque<Result<Ack, PlaneError>>,
    /// What came up: head and body.
    gradients: Vec<(GradientChunk, Vec<u8>)>,
    models: Vec<(InitModelChunk, Vec<u8>)>,
    shards: VecDeque<Result<NextShardsResponse, PlaneError>>,
    asked_shards: Vec<NextShardsRequest>,
    model: Vec<u8>,
    model_fetches: usize,
    /// The next stream of the model ends here without an error.
    break_model_at: VecDeque<usize>,
    model_offsets: Vec<u64>,
    cut_model_at: Option<usize>,
}

#[derive(Default)]
struct Plane(Mutex<Script>);

impl Plane {
    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().expect("no panic"))
    }
}

fn ack(outcome: AckOutcome, success: bool) -> Ack {
    let mut ack = Ack::new();
    ack.set_outcome(outcome);
    ack.set_success(success);
    ack
}

fn unused<T>() -> Result<T, PlaneError> {
    Err(PlaneError::Unimplemented("not in this test".to_owned()))
}

impl ControlPlane for Plane {
    fn heartbeat(&self, _: &HeartbeatRequest, _: Duration) -> Result<HeartbeatResponse, PlaneError> {
        unused()
    }
    fn poll(&self, _: &PollTaskRequest) -> Result<PollTaskResponse, PlaneError> {
        unused()
    }
    fn start_task(&self, _: &StartTaskRequest, _: Duration) -> Result<StartTaskResponse, PlaneError> {
        unused()
    }
    fn report(&self, _: &ReportTaskResultRequest, _: Duration) -> Result<ReportTaskResultResponse, PlaneError> {
        unused()
    }
    fn append_log(&self, _: &AppendLogRequest) -> Result<AppendLogResponse, PlaneError> {
        unused()
    }
    fn deregister(&self, _: &DeregisterRequest, _: Duration) -> Result<(), PlaneError> {
        unused()
    }
    fn job(&self, _: &str) -> Result<Job, PlaneError> {
        unused()
    }
    fn next_shards(&self, request: &NextShardsRequest) -> Result<NextShardsResponse, PlaneError> {
        self.change(|script| {
            script.asked_shards.push(request.clone());
            script.shards.pop_front().unwrap_or_else(|| Ok(NextShardsResponse::new()))
        })
    }
    fn fetch_model(&self, request: &ModelRequest, sink: ModelSink<'_>) -> Result<(), PlaneError> {
        let (model, cut, breaks) = self.change(|script| {
            script.model_fetches += 1;
            script.model_offsets.push(request.get_offset());
            (script.model.clone(), script.cut_model_at.take(), script.break_model_at.pop_front())
        });
        let end = cut.or(breaks).unwrap_or(model.len());
        for (offset, data, crc32c) in chunks(&model[..end], request.get_offset()) {
            let mut chunk = ModelChunk::new();
            chunk.set_offset(offset);
            chunk.set_crc32c(crc32c);
            chunk.set_data(data.to_vec());
            chunk.set_version(request.get_version());
            chunk.set_total_bytes(model.len() as u64);
            chunk.set_digest(Sha256::digest(&model).to_vec());
            if sink(&chunk)? == Fetch::Enough {
                break;
            }
        }
        match breaks {
            Some(_) => Err(PlaneError::Unavailable("the connection broke".to_owned())),
            None => Ok(()),
        }
    }
    fn send_gradients(&self, head: &GradientChunk, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
        self.change(|script| {
            script.gradients.push((head.clone(), whole(body)));
            script.answers.pop_front().unwrap_or_else(|| Ok(ack(AckOutcome::ACK_ACCEPTED, true)))
        })
    }
    fn init_model(&self, head: &InitModelChunk, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
        self.change(|script| {
            script.models.push((head.clone(), whole(body)));
            script.answers.pop_front().unwrap_or_else(|| Ok(ack(AckOutcome::ACK_ACCEPTED, true)))
        })
    }
    fn get_artifact(&self, _: &str, _: &mut dyn Write) -> Result<Vec<u8>, PlaneError> {
        unused()
    }
}

fn whole(body: &mut dyn ReadSeek) -> Vec<u8> {
    let mut bytes = Vec::new();
    body.seek(std::io::SeekFrom::Start(0)).expect("a spool");
    body.read_to_end(&mut bytes).expect("a spool");
    bytes
}

/// A service with one task, whose token is `secret`.
struct Bench {
    plane: Arc<Plane>,
    table: Arc<TaskTable>,
    task: Arc<TaskContext>,
    stale: Arc<Mutex<Vec<LeaseId>>>,
    folder: tempfile::TempDir,
    client: Client,
    _server: AgentServer,
    _env: Arc<Environment>,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let (plane, table) = (Arc::new(Plane::default()), TaskTable::new());
    let facts = TaskFacts {
        node_id: "node-1".to_owned(),
        job_id: "digits".to_owned(),
        task_id: "task-7".to_owned(),
        epoch: 77,
        num_shards: 6,
        rounds: 60,
        init_task: true,
        ..Default::default()
    };
    let task = Arc::new(TaskContext::from(facts));
    table.insert("secret".to_owned(), task.clone());
    let stale = Arc::new(Mutex::new(Vec::new()));
    let seen = stale.clone();
    table.on_stale(Box::new(move |lease| seen.lock().expect("no panic").push(lease)));
    let env = raftgrid_rpc::environment("test");
    let parts = Parts {
        plane: plane.clone(),
        table: table.clone(),
        models: Arc::new(Models::new(folder.path().join("models")).expect("writable")),
        logger: slog::Logger::root(slog::Discard, slog::o!()),
    };
    let server = AgentServer::start(&env, folder.path(), parts).expect("a port");
    let client = Client::new(raftgrid_rpc::channel(&env, &server.address()));
    Bench { plane, table, task, stale, folder, client, _server: server, _env: env }
}

fn with_token(token: &str) -> CallOption {
    with_file(token, "")
}

/// `file`: the place of a sealed file, or "".
fn with_file(token: &str, file: &str) -> CallOption {
    let mut metadata = MetadataBuilder::new();
    metadata.add_str("raftgrid-token", token).expect("plain text");
    if !file.is_empty() {
        metadata.add_str("raftgrid-file", file).expect("plain text");
    }
    CallOption::default().timeout(Duration::from_secs(60)).headers(metadata.build())
}

fn status_of<T: std::fmt::Debug>(result: grpcio::Result<T>) -> RpcStatus {
    match result.expect_err("it is refused") {
        grpcio::Error::RpcFailure(status) => status,
        other => panic!("{other}"),
    }
}

fn gradient(bytes: &[u8]) -> Vec<GradientChunk> {
    let mut all: Vec<GradientChunk> = chunks(bytes, 0)
        .map(|(offset, data, crc32c)| {
            let mut chunk = GradientChunk::new();
            chunk.set_offset(offset);
            chunk.set_data(data.to_vec());
            chunk.set_crc32c(crc32c);
            chunk
        })
        .collect();
    all[0].set_round(4);
    all[0].set_shard(2);
    all[0].set_weight(250.0);
    all[0].set_total_bytes(bytes.len() as u64);
    all[0].set_digest(Sha256::digest(bytes).to_vec());
    all
}

fn send(client: &Client, chunks: Vec<GradientChunk>, option: CallOption) -> grpcio::Result<Ack> {
    let (mut sender, receiver) = client.client_streaming(&SEND_GRADIENTS.method, option)?;
    for chunk in chunks {
        // A refused stream ends early; the reason is in the answer.
        if block_on(sender.send((chunk, WriteFlags::default()))).is_err() {
            break;
        }
    }
    let _ = block_on(sender.close());
    block_on(receiver)
}

fn get_model(client: &Client, version: u64, offset: u64) -> grpcio::Result<Vec<ModelChunk>> {
    let mut request = ModelRequest::new();
    request.set_version(version);
    request.set_version_given(true);
    request.set_offset(offset);
    let stream = client.server_streaming(&GET_MODEL.method, &request, with_token("secret"))?;
    block_on(stream.try_collect())
}

impl Bench {
    fn send(&self, chunks: Vec<GradientChunk>) -> grpcio::Result<Ack> {
        send(&self.client, chunks, with_token("secret"))
    }

    fn model(&self, version: u64, offset: u64) -> grpcio::Result<Vec<ModelChunk>> {
        get_model(&self.client, version, offset)
    }

    fn acks(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("acks.jsonl")).expect("made at the start");
        text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn only_the_token_of_a_running_task_opens_the_service() {
    let bench = bench();
    let hello = |option| bench.client.unary_call(&HELLO.method, &HelloRequest::new(), option);
    let told = hello(with_token("secret")).expect("known");
    assert_eq!((told.get_task_id(), told.get_num_shards(), told.get_init_task()), ("task-7", 6, true));
    let none = CallOption::default().timeout(Duration::from_secs(60));
    assert_eq!(status_of(hello(none)).code(), RpcStatusCode::UNAUTHENTICATED);
    assert_eq!(status_of(hello(with_token("guessed"))).code(), RpcStatusCode::UNAUTHENTICATED);
    bench.table.remove(&bench.task.lease());
    assert_eq!(status_of(hello(with_token("secret"))).code(), RpcStatusCode::UNAUTHENTICATED);
}

#[test]
fn a_gradient_goes_up_whole_under_the_task_s_own_lease_and_its_ack_is_noted() {
    let bench = bench();
    let body = bytes(2_500_000);
    let answer = bench.send(gradient(&body)).expect("acknowledged");
    assert!(answer.get_success() && answer.get_outcome() == AckOutcome::ACK_ACCEPTED);
    bench.plane.change(|script| {
        let [(head, sent)] = script.gradients.as_slice() else { panic!("{} times", script.gradients.len()) };
        assert!(*sent == body);
        assert_eq!((head.get_job_id(), head.get_task_id(), head.get_lease_epoch()), ("digits", "task-7", 77));
        assert_eq!((head.get_round(), head.get_shard(), head.get_weight()), (4, 2, 250.0));
        assert_eq!((head.get_worker_id(), head.get_total_bytes()), ("node-1", 2_500_000));
        assert!(head.get_data().is_empty());
    });
    let noted = bench.acks();
    assert_eq!(noted.len(), 1);
    let digest: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (&noted[0]["round"], &noted[0]["shard"], &noted[0]["outcome"]),
        (&4.into(), &2.into(), &"ACCEPTED".into())
    );
    assert_eq!((&noted[0]["digest"], &noted[0]["epoch"]), (&digest.into(), &77.into()));
}

#[test]
fn a_damaged_gradient_never_goes_up() {
    let bench = bench();
    let body = bytes(1_500_000);
    let mut flipped = gradient(&body);
    flipped[1].mut_data()[0] ^= 1;
    assert_eq!(status_of(bench.send(flipped)).code(), RpcStatusCode::ABORTED);
    let mut other = gradient(&body);
    other[0].set_digest(vec![0; 32]);
    assert_eq!(status_of(bench.send(other)).code(), RpcStatusCode::ABORTED);
    let mut short = gradient(&body);
    short.pop();
    assert_eq!(status_of(bench.send(short)).code(), RpcStatusCode::ABORTED);
    let mut moved = gradient(&body);
    moved[1].set_offset(7);
    assert_eq!(status_of(bench.send(moved)).code(), RpcStatusCode::INVALID_ARGUMENT);
    let mut foreign = gradient(&body);
    foreign[0].set_task_id("task-8".to_owned());
    assert_eq!(status_of(bench.send(foreign)).code(), RpcStatusCode::INVALID_ARGUMENT);
    bench.plane.change(|script| assert!(script.gradients.is_empty()));
    assert!(bench.acks().is_empty());
}

#[test]
fn a_gradient_is_sent_again_until_the_control_plane_answers() {
    let bench = bench();
    bench.plane.change(|script| {
        let lost = || Err(PlaneError::Unavailable("no leader".to_owned()));
        script.answers.extend([lost(), lost(), Ok(ack(AckOutcome::ACK_DUPLICATE, true))]);
    });
    let answer = bench.send(gradient(&bytes(1000))).expect("acknowledged");
    assert_eq!(answer.get_outcome(), AckOutcome::ACK_DUPLICATE);
    bench.plane.change(|script| {
        assert_eq!(script.gradients.len(), 3);
        assert!(script.gradients.iter().all(|(_, body)| *body == bytes(1000)), "each time from its start");
    });
    assert_eq!(bench.acks().len(), 1);
}

#[test]
fn a_stale_lease_reaches_python_and_the_worker_and_nothing_goes_up_afterwards() {
    let bench = bench();
    bench.plane.change(|script| script.answers.push_back(Err(PlaneError::StaleLease("epoch 77 is over".to_owned()))));
    let status = status_of(bench.send(gradient(&bytes(1000))));
    assert_eq!(status.code(), RpcStatusCode::FAILED_PRECONDITION);
    assert!(status.message().contains("STALE_LEASE"), "{}", status.message());
    assert_eq!(*bench.stale.lock().expect("no panic"), [bench.task.lease()]);
    let again = status_of(bench.send(gradient(&bytes(1000))));
    assert!(again.message().contains("STALE_LEASE"));
    bench.plane.change(|script| assert_eq!(script.gradients.len(), 1));
    assert!(bench.acks().is_empty());
}

#[test]
fn a_fenced_task_does_not_wait_for_a_control_plane_that_is_away() {
    let bench = bench();
    bench.plane.change(|script| {
        script.answers.extend((0..100_000).map(|_| Err(PlaneError::Unavailable("no leader".to_owned()))));
    });
    let task = bench.task.clone();
    let client = bench.client.clone();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || status_of(send(&client, gradient(&bytes(1000)), with_token("secret"))));
        while bench.plane.change(|script| script.gradients.is_empty()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        task.fence();
        let status = sending.join().expect("no panic");
        assert!(status.message().contains("STALE_LEASE"), "{}", status.message());
    });
}

#[test]
fn a_model_is_fetched_once_however_many_ask_and_resumes_at_a_byte() {
    let bench = bench();
    let model = bytes(2_300_000);
    bench.plane.change(|script| script.model = model.clone());
    let first: Vec<u8> =
        bench.model(3, 0).expect("streamed").iter().flat_map(|chunk| chunk.get_data().to_vec()).collect();
    assert!(first == model);
    let rest = bench.model(3, 1_000_000).expect("streamed");
    assert_eq!((rest[0].get_offset(), rest[0].get_version()), (1_000_000, 3));
    assert_eq!(rest[0].get_digest(), Sha256::digest(&model).as_slice());
    assert!(rest.iter().flat_map(|chunk| chunk.get_data().to_vec()).eq(model[1_000_000..].iter().copied()));
    assert_eq!(bench.model(3, 2_300_000).expect("streamed")[0].get_data(), b"");
    bench.plane.change(|script| assert_eq!(script.model_fetches, 1));
}

#[test]
fn a_model_whose_stream_breaks_goes_on_at_the_byte_where_it_was_unless_it_is_another() {
    const MIB: u64 = 1 << 20;
    let bench = bench();
    let model = bytes(6 << 20);
    bench.plane.change(|script| {
        script.model = model.clone();
        script.break_model_at = VecDeque::from([3 << 20, 5 << 20]);
    });
    let got: Vec<u8> =
        get_model(&bench.client, 4, 0).expect("it goes on").iter().flat_map(|it| it.data.clone()).collect();
    assert_eq!(Sha256::digest(&got), Sha256::digest(&model));
    assert_eq!(bench.plane.change(|script| std::mem::take(&mut script.model_offsets)), [0, 3 * MIB, 5 * MIB]);

    // A stream that breaks before it came further is the next attempt's to begin.
    bench.plane.change(|script| script.break_model_at = VecDeque::from([2 << 20, 2 << 20]));
    let got: Vec<u8> = get_model(&bench.client, 5, 0).expect("again").iter().flat_map(|it| it.data.clone()).collect();
    assert_eq!(Sha256::digest(&got), Sha256::digest(&model));
    assert_eq!(bench.plane.change(|script| std::mem::take(&mut script.model_offsets)), [0, 2 * MIB, 0]);
}

#[test]
fn a_process_that_opens_files_is_named_the_model_and_no_byte_of_it_is_streamed() {
    let bench = bench();
    let model = bytes(2_300_000);
    bench.plane.change(|script| script.model = model.clone());
    let mut request = ModelRequest::new();
    request.set_version(3);
    request.set_version_given(true);
    let option = with_file("secret", "1");
    let mut stream = bench.client.server_streaming(&GET_MODEL.method, &request, option).expect("a call");
    let named = block_on(stream.headers()).expect("an answer").iter().find(|(key, _)| *key == "raftgrid-file");
    let place = String::from_utf8(named.expect("it is named").1.to_vec()).expect("plain text");
    let chunks: Vec<ModelChunk> = block_on(stream.try_collect()).expect("it ends well");
    let [head] = chunks.as_slice() else { panic!("{} chunks", chunks.len()) };
    assert_eq!((head.get_version(), head.get_total_bytes(), head.get_data().len()), (3, 2_300_000, 0));
    assert_eq!(head.get_digest(), Sha256::digest(&model).as_slice());
    assert!(whole(&mut sealed::open(&place).expect("it is sealed")) == model);
    // Who does not ask for it is streamed the same bytes.
    assert!(bench.model(3, 0).expect("streamed").iter().flat_map(|chunk| chunk.get_data().to_vec()).eq(model));
    bench.plane.change(|script| assert_eq!(script.model_fetches, 1));
}

#[test]
fn a_gradient_in_a_sealed_file_goes_up_as_if_it_were_streamed_and_any_other_file_is_refused() {
    let bench = bench();
    let body = bytes(1_200_000);
    let mut file = sealed::create().expect("this kernel has memfd");
    file.write_all(&body).expect("it is not sealed yet");
    let place = sealed::place_of(&file).expect("it is open");
    let send = |chunks: Vec<GradientChunk>, place: &str| send(&bench.client, chunks, with_file("secret", place));
    let head = |bytes: &[u8]| {
        let mut head = gradient(bytes)[0].clone();
        head.clear_data();
        vec![head]
    };
    let open = status_of(send(head(&body), &place));
    assert_eq!(open.code(), RpcStatusCode::UNIMPLEMENTED, "it can still change");
    assert!(open.message().starts_with("raftgrid-file"), "Python knows it by that word: {}", open.message());
    sealed::seal(&file).expect("it allows sealing");
    assert_eq!(status_of(send(head(&body), "1 2 3")).code(), RpcStatusCode::UNIMPLEMENTED);
    assert_eq!(status_of(send(head(&body[1..]), &place)).code(), RpcStatusCode::ABORTED, "another length");
    let mut other = body.clone();
    other[7] ^= 1;
    assert_eq!(status_of(send(head(&other), &place)).code(), RpcStatusCode::ABORTED, "another digest");
    assert_eq!(status_of(send(gradient(&body), &place)).code(), RpcStatusCode::INVALID_ARGUMENT, "bytes beside it");
    bench.plane.change(|script| assert_eq!(script.gradients.len(), 0));

    let mut unhashed = head(&body);
    unhashed[0].clear_digest();
    assert!(send(unhashed, &place).expect("accepted").get_success());
    assert!(send(head(&body), &place).expect("accepted").get_success());
    bench.plane.change(|script| {
        for (head, sent) in &script.gradients {
            assert_eq!((head.get_lease_epoch(), head.get_shard(), head.get_total_bytes()), (77, 2, 1_200_000));
            assert_eq!(head.get_digest(), Sha256::digest(&body).as_slice());
            assert!(*sent == body);
        }
        assert_eq!(script.gradients.len(), 2);
    });
    assert_eq!(bench.acks().len(), 2);
}

#[test]
fn a_model_that_came_short_is_fetched_again_and_a_wrong_one_is_never_served() {
    let bench = bench();
    let model = bytes(1_200_000);
    bench.plane.change(|script| {
        script.model = model.clone();
        script.cut_model_at = Some(1_100_000);
    });
    let got: Vec<u8> =
        bench.model(3, 0).expect("streamed").iter().flat_map(|chunk| chunk.get_data().to_vec()).collect();
    assert!(got == model);
    bench.plane.change(|script| assert_eq!(script.model_fetches, 2));
    // The step said another digest than the model has: asked again until the task is fenced.
    bench.task.remember_model(4, &[9; 32]);
    let task = bench.task.clone();
    let client = bench.client.clone();
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || status_of(get_model(&client, 4, 0)));
        while bench.plane.change(|script| script.model_fetches < 4) {
            std::thread::sleep(Duration::from_millis(1));
        }
        task.fence();
        assert!(asking.join().expect("no panic").message().contains("STALE_LEASE"));
    });
}

#[test]
fn shards_are_asked_for_under_the_task_s_lease_and_a_lost_leader_is_not_python_s_business() {
    let bench = bench();
    let mut response = NextShardsResponse::new();
    let mut step = ShardStep::new();
    step.set_round(4);
    step.set_model_version(4);
    step.set_model_digest(vec![5; 32]);
    response.mut_steps().push(step);
    bench.plane.change(|script| {
        script.shards.extend([Err(PlaneError::Unavailable("no leader".to_owned())), Ok(response)]);
    });
    let mut request = NextShardsRequest::new();
    request.set_wait_ms(60_000);
    let got = bench.client.unary_call(&NEXT_SHARDS.method, &request, with_token("secret")).expect("answered");
    assert_eq!(got.get_steps().len(), 1);
    assert_eq!(bench.task.model_digest(4), Some(vec![5; 32]));
    bench.plane.change(|script| {
        assert_eq!(script.asked_shards.len(), 2);
        let asked = &script.asked_shards[0];
        assert_eq!((asked.get_job_id(), asked.get_task_id(), asked.get_lease_epoch()), ("digits", "task-7", 77));
        assert!(asked.get_wait_ms() <= 5_000);
    });
}

#[test]
fn the_initial_model_goes_the_same_way_with_its_optimizer() {
    let bench = bench();
    let body = bytes(1000);
    let mut chunk = InitModelChunk::new();
    chunk.set_data(body.clone());
    chunk.set_crc32c(crc32c::crc32c(&body));
    chunk.mut_optimizer().set_algorithm("sgd".to_owned());
    let (mut sender, receiver) = bench.client.client_streaming(&INIT_MODEL.method, with_token("secret")).expect("open");
    block_on(sender.send((chunk, WriteFlags::default()))).expect("open");
    block_on(sender.close()).expect("open");
    assert!(block_on(receiver).expect("acknowledged").get_success());
    bench.plane.change(|script| {
        let (head, sent) = &script.models[0];
        assert!(*sent == body && head.get_digest() == Sha256::digest(&body).as_slice());
        assert_eq!((head.get_optimizer().get_algorithm(), head.get_lease_epoch()), ("sgd", 77));
    });
}

#[test]
fn a_result_is_kept_if_it_is_json_and_not_too_long_and_a_stop_is_told() {
    let bench = bench();
    let set = |json: &str| {
        let mut request = SetResultRequest::new();
        request.set_result_json(json.to_owned());
        bench.client.unary_call(&SET_RESULT.method, &request, with_token("secret"))
    };
    set(r#"{"accuracy":0.97}"#).expect("taken");
    assert_eq!(status_of(set("{")).code(), RpcStatusCode::INVALID_ARGUMENT);
    assert_eq!(status_of(set(&format!("\"{}\"", "x".repeat(100_000)))).code(), RpcStatusCode::INVALID_ARGUMENT);
    assert_eq!(bench.task.result().as_deref(), Some(r#"{"accuracy":0.97}"#));
    let stop = || bench.client.unary_call(&SHOULD_STOP.method, &ShouldStopRequest::new(), with_token("secret"));
    assert!(!stop().expect("answered").get_stop());
    bench.task.ask_to_stop("drained");
    assert_eq!(stop().expect("answered").get_reason(), "drained");
}
