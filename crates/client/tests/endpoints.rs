//! The client against two servers by script: what one begins the other one finishes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use futures::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{Environment, RpcStatusCode, Server, WriteFlags};
use raftgrid_client::{Client, ClientConfig, ClientError, Upload};
use raftgrid_proto::v1::*;
use raftgrid_rpc::chunk::chunks;
use raftgrid_rpc::methods::*;
use raftgrid_rpc::serve::{listen, Handlers};
use raftgrid_rpc::status::status;
use sha2::{Digest, Sha256};

/// What the servers saw: (which of them, what).
type Seen = Arc<Mutex<Vec<(usize, String)>>>;

/// How far the client has come. A status overtakes messages that were not read yet, so server 0 waits before it gives up.
type Reached = Arc<AtomicU64>;

fn wait_for(reached: &Reached, wanted: u64) {
    while reached.load(Ordering::SeqCst) < wanted {
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Pair {
    client: Client,
    seen: Seen,
    reached: Reached,
    _servers: Vec<Server>,
    _env: Arc<Environment>,
}

fn saw(seen: &Seen, server: usize, what: String) {
    seen.lock().expect("no panic").push((server, what));
}

fn content() -> Vec<u8> {
    (0..3_500_000usize).map(|index| (index * 7 % 253) as u8).collect()
}

/// Server 0 gives up in the middle of everything, server 1 does not.
fn handlers(server: usize, seen: &Seen, reached: &Reached) -> grpcio::Service {
    let fails = server == 0;
    let lost = || status(RpcStatusCode::UNAVAILABLE, "no leader is known; leadership is moving, try again");
    let (get_reached, watch_reached) = (reached.clone(), reached.clone());
    let (tasks, gets, puts, watches) = (seen.clone(), seen.clone(), seen.clone(), seen.clone());
    Handlers::new()
        .unary(&SUBMIT_TASK, move |ctx, request, sink| {
            saw(&tasks, server, request.get_request_id().to_owned());
            let mut response = SubmitTaskResponse::new();
            response.set_success(true);
            let answer = if fails { sink.fail(lost()) } else { sink.success(response) };
            ctx.spawn(async move { drop(answer.await) });
        })
        .server_streaming(&GET_ARTIFACT, move |_, request, mut sink| {
            saw(&gets, server, format!("{} {}", request.get_artifact(), request.get_offset()));
            let reached = get_reached.clone();
            let answer = async move {
                let content = content();
                for (number, (offset, data, crc32c)) in chunks(&content, request.get_offset()).enumerate() {
                    if fails && number == 2 {
                        wait_for(&reached, offset);
                        let _ = sink.fail(status(RpcStatusCode::UNAVAILABLE, "stopping")).await;
                        return;
                    }
                    let mut chunk = ArtifactChunk::new();
                    chunk.set_artifact_id("77".to_owned());
                    chunk.set_total_bytes(content.len() as u64);
                    chunk.set_digest(Sha256::digest(&content).to_vec());
                    chunk.set_offset(offset);
                    chunk.set_data(data.to_vec());
                    chunk.set_crc32c(crc32c);
                    if sink.send((chunk, WriteFlags::default())).await.is_err() {
                        return;
                    }
                }
                let _ = sink.close().await;
            };
            std::thread::spawn(move || block_on(answer));
        })
        .client_streaming(&PUT_ARTIFACT, move |ctx, mut stream, sink| {
            let puts = puts.clone();
            ctx.spawn(async move {
                let first = stream.next().await.expect("one chunk").expect("whole");
                saw(&puts, server, first.get_request_id().to_owned());
                if fails {
                    let _ = sink.fail(status(RpcStatusCode::UNAVAILABLE, "stopping")).await;
                    return;
                }
                let mut bytes = first.get_data().to_vec();
                while let Ok(Some(chunk)) = stream.try_next().await {
                    assert_eq!(chunk.get_offset(), bytes.len() as u64);
                    bytes.extend_from_slice(chunk.get_data());
                }
                let mut response = PutArtifactResponse::new();
                response.set_digest(Sha256::digest(&bytes).to_vec());
                let _ = sink.success(response).await;
            });
        })
        .server_streaming(&WATCH_JOB, move |_, request, mut sink| {
            saw(&watches, server, request.get_from_position().to_string());
            let reached = watch_reached.clone();
            let answer = async move {
                // Server 1 repeats the position that it is asked to go on from.
                let positions = if fails { vec![10, 20] } else { vec![20, 30, 40] };
                for position in positions {
                    let mut response = WatchJobResponse::new();
                    response.set_position(position);
                    let over = position == 40;
                    response.mut_job().set_phase(if over { JobPhase::JOB_DONE } else { JobPhase::JOB_RUNNING });
                    if sink.send((response, WriteFlags::default())).await.is_err() {
                        return;
                    }
                }
                if fails {
                    wait_for(&reached, 20);
                    let _ = sink.fail(status(RpcStatusCode::UNAVAILABLE, "stopping")).await;
                } else {
                    let _ = sink.close().await;
                }
            };
            std::thread::spawn(move || block_on(answer));
        })
        .build()
}

fn pair() -> Pair {
    let env = raftgrid_rpc::environment("test");
    let (seen, reached) = (Seen::default(), Reached::default());
    let mut endpoints = Vec::new();
    let mut servers = Vec::new();
    for number in 0..2 {
        let (server, port) = listen(&env, "127.0.0.1:0", vec![handlers(number, &seen, &reached)]).expect("a free port");
        endpoints.push(format!("127.0.0.1:{port}"));
        servers.push(server);
    }
    let config = ClientConfig { timeout: Duration::from_secs(60), ..ClientConfig::new(endpoints) };
    let client = Client::with_environment(config, env.clone()).expect("valid endpoints");
    Pair { client, seen, reached, _servers: servers, _env: env }
}

impl Pair {
    fn seen(&self) -> Vec<(usize, String)> {
        self.seen.lock().expect("no panic").clone()
    }
}

#[test]
fn all_attempts_of_a_call_carry_one_request_id() {
    let pair = pair();
    pair.client.submit_task(SubmitTaskRequest::new()).expect("the second server takes it");
    let seen = pair.seen();
    assert_eq!((seen.len(), seen[0].0, seen[1].0), (2, 0, 1));
    assert!(!seen[0].1.is_empty() && seen[0].1 == seen[1].1, "{seen:?}");
    pair.client.submit_task(SubmitTaskRequest::new()).expect("taken");
    let seen = pair.seen();
    assert_eq!(seen[2].0, 1, "who answered is asked first");
    assert_ne!(seen[2].1, seen[0].1, "another call is another request");
}

#[test]
fn a_download_goes_on_at_the_same_byte_of_the_same_artifact() {
    let pair = pair();
    let mut target = Vec::new();
    let mut progress = |done, _| pair.reached.store(done, Ordering::SeqCst);
    let head = pair.client.get_artifact("digits/model@latest", &mut target, &mut progress).expect("in two parts");
    assert!(target == content());
    assert_eq!((head.total_bytes, head.artifact_id.as_str()), (3_500_000, "77"));
    let expected = [(0, "digits/model@latest 0".to_owned()), (1, format!("77 {}", 2 * 1024 * 1024))];
    assert_eq!(pair.seen(), expected);
}

#[test]
fn an_upload_starts_again_elsewhere_under_its_request_id() {
    let pair = pair();
    let upload = Upload { name: "code".to_owned(), kind: "bundle".to_owned(), ..Upload::default() };
    let mut source = std::io::Cursor::new(content());
    let stored = pair.client.put_artifact(&upload, &mut source, &mut |_, _| {}).expect("the second server takes it");
    assert_eq!(stored.get_digest(), Sha256::digest(content()).as_slice());
    let seen = pair.seen();
    assert_eq!((seen.len(), &seen[0].1), (2, &seen[1].1));
}

#[test]
fn a_watch_gives_each_change_once_and_in_order_across_servers_and_ends_with_the_job() {
    let pair = pair();
    let position = |message: Result<WatchJobResponse, ClientError>| {
        let position = message?.get_position();
        pair.reached.store(position, Ordering::SeqCst);
        Ok(position)
    };
    let positions: Result<Vec<u64>, ClientError> = pair.client.watch_job("digits", 0).map(position).collect();
    assert_eq!(positions.expect("no gap"), [10, 20, 30, 40]);
    assert_eq!(pair.seen(), [(0, "0".to_owned()), (1, "20".to_owned())]);
}

#[test]
fn states_are_asked_of_everybody_and_a_dead_endpoint_is_told_apart() {
    let pair = pair();
    pair.client.learn(&["127.0.0.1:1".to_owned()]);
    let states = pair.client.cluster_states();
    assert_eq!(states.len(), 3);
    assert!(matches!(states[0].1, Err(ClientError::Unimplemented(_))), "{:?}", states[0].1);
    assert!(matches!(states[2].1, Err(ClientError::Unavailable { .. })), "{:?}", states[2].1);
}

/// Accepts connections and says nothing, as a stopped server does. The test's verdict does not depend on how long anything takes.
fn mute() -> (String, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    (listener.local_addr().expect("bound").to_string(), listener)
}

#[test]
fn an_upload_to_nobody_ends_with_the_time_of_a_call_although_a_moving_one_may_take_an_hour() {
    let config = ClientConfig { timeout: Duration::from_millis(200), ..ClientConfig::new(["127.0.0.1:1"]) };
    assert!(config.transfer_timeout > Duration::from_secs(600));
    let client = Client::new(config).expect("well-formed");
    let failure = client
        .put_artifact(&Upload::default(), &mut std::io::Cursor::new(content()), &mut |_, _| ())
        .expect_err("nobody is there");
    assert!(matches!(failure, ClientError::Unavailable { .. }), "{failure}");
    let mut nowhere = Vec::new();
    assert!(client.get_artifact("77", &mut nowhere, &mut |_, _| ()).is_err());
}

#[test]
fn a_transfer_with_a_server_that_says_nothing_ends_with_the_time_that_was_given_for_it() {
    let (endpoint, _listener) = mute();
    let config = ClientConfig { transfer_timeout: Duration::from_millis(300), ..ClientConfig::new([endpoint]) };
    let client = Client::new(config).expect("well-formed");
    let upload = client.put_artifact(&Upload::default(), &mut std::io::Cursor::new(content()), &mut |_, _| ());
    assert!(upload.is_err());
    assert!(client.get_artifact("77", &mut Vec::new(), &mut |_, _| ()).is_err());
}

/// A sum takes what it takes: an attempt that was given up would go on at the replica, beside the next one.
#[test]
fn a_recomputation_that_outlasts_an_attempt_is_asked_for_once() {
    let env = raftgrid_rpc::environment("test");
    let seen = Seen::default();
    let asked = seen.clone();
    let service = Handlers::new().unary(&RECOMPUTE_ROUND, move |_, request, sink| {
        saw(&asked, 0, request.get_round().to_string());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            let mut response = RecomputeRoundResponse::new();
            response.set_round(request.get_round());
            // Whoever does not wait for it has had its answer.
            let _ = block_on(sink.success(response));
        });
    });
    let (_server, port) = listen(&env, "127.0.0.1:0", vec![service.build()]).expect("a free port");
    let mut config = ClientConfig::new(vec![format!("127.0.0.1:{port}")]);
    config.attempt_timeout = Duration::from_millis(20);
    config.transfer_timeout = Duration::from_secs(60);
    let client = Client::new(config).expect("valid");
    assert_eq!(client.recompute_round("digits", 7).expect("an answer").get_round(), 7);
    assert_eq!(*seen.lock().expect("no panic"), [(0, "7".to_owned())]);
}
