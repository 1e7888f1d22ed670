use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Client, RpcStatusCode, WriteFlags};
use raftgrid_driver::{Message, Snapshot, SnapshotMeta, Transport};
use raftgrid_peer::AddressBook;
use raftgrid_proto::v1::{PeerHello, SnapshotChunk, SnapshotProgressRequest};
use raftgrid_rpc::methods::{PEER_SNAPSHOT, PEER_SNAPSHOT_PROGRESS};

use crate::ground::*;
use crate::proxy::Proxy;

const LARGE: usize = 12_000_000;

fn files() -> BTreeMap<String, Vec<u8>> {
    let bytes = |seed: u32, many: usize| (0..many as u32).map(|at| (at.wrapping_mul(31) ^ seed) as u8).collect();
    [("000012.sst", bytes(1, LARGE)), ("000014.sst", bytes(2, 3_000_000)), ("CURRENT", bytes(3, 20))]
        .map(|(name, data)| (name.to_owned(), data))
        .into()
}

fn shelf() -> Arc<Shelf> {
    let shelf = Shelf::default();
    shelf.kept.lock().expect("no panic").insert("checkpoint-7".to_owned(), files());
    Arc::new(shelf)
}

fn snapshot(to: u64) -> Message {
    let meta = SnapshotMeta { index: 70, term: 3, ..SnapshotMeta::default() };
    let snapshot = Snapshot { meta, name: "checkpoint-7".to_owned() };
    Message { to, from: 1, data: b"MsgSnapshot".to_vec().into(), snapshot: Some(snapshot) }
}

fn hello(from: u64) -> PeerHello {
    let mut hello = PeerHello::new();
    hello.set_cluster_id("blue".to_owned());
    hello.set_from_node(from);
    hello.set_to_node(2);
    hello.set_store_uuid(vec![from as u8; 16]);
    hello
}

fn begun(end: &End) -> u32 {
    *end.shelf.begun.lock().expect("no panic")
}

#[test]
fn a_snapshot_whose_stream_breaks_goes_on_at_the_verified_byte() {
    let two = plain_end(2);
    let proxy = Proxy::to(&two.address, &[5_000_000, 6_000_000], false);
    let (mut transport, reports) = transport(&two.env, "blue", book(2, &proxy.address), shelf());
    transport.send(vec![snapshot(2)]);
    let Heard::Step(message) = two.heard.recv_timeout(PATIENCE).expect("stepped") else { panic!("not a message") };
    let staged = message.snapshot.expect("it names the staged files");
    assert!(two.shelf.kept.lock().expect("no panic")[&staged.name] == files(), "the same files");
    assert_eq!(reports.recv_timeout(PATIENCE).expect("reported"), Heard::SnapshotSent(2, true));
    assert!(reports.try_recv().is_err() && two.heard.try_recv().is_err(), "once");
    assert_eq!(begun(&two), 1, "one place for all three streams");
    assert!(*proxy.connections.lock().expect("no panic") >= 3, "it was cut twice");
}

#[test]
fn a_snapshot_that_never_gets_further_is_reported_as_failed_once() {
    let two = plain_end(2);
    let proxy = Proxy::to(&two.address, &[200_000], true);
    let (mut transport, reports) = transport(&two.env, "blue", book(2, &proxy.address), shelf());
    transport.send(vec![snapshot(2)]);
    assert_eq!(reports.recv_timeout(PATIENCE).expect("reported"), Heard::SnapshotSent(2, false));
    assert!(reports.try_recv().is_err() && two.heard.try_recv().is_err(), "once, and nothing was stepped");
}

#[test]
fn a_peer_that_takes_nothing_holds_up_no_message_and_is_reported() {
    let two = plain_end(2);
    // Connections are accepted by the system, and nobody ever reads.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let five = deaf.local_addr().expect("bound").to_string();
    let book = Arc::new(AddressBook::new([(2, two.address.clone()), (5, five)]));
    let (mut transport, reports) = transport(&two.env, "blue", book, shelf());
    transport.send(vec![snapshot(5), message(2, b"heartbeat")]);
    let heard = two.heard.recv_timeout(PATIENCE).expect("stepped");
    assert_eq!(heard, Heard::Step(Message { to: 2, from: 1, data: b"heartbeat".to_vec().into(), snapshot: None }));
    assert_eq!(reports.recv_timeout(PATIENCE).expect("reported"), Heard::SnapshotSent(5, false));
}

/// The first `bytes` bytes of the large file.
fn first_chunk(from: u64, name: &str, resumed: bool, bytes: usize) -> SnapshotChunk {
    let mut chunk = SnapshotChunk::new();
    chunk.set_hello(hello(from));
    chunk.set_message(b"MsgSnapshot".to_vec());
    chunk.set_index(70);
    chunk.set_term(3);
    chunk.set_snapshot(name.to_owned());
    chunk.set_resumed(resumed);
    chunk.set_file("000012.sst".to_owned());
    let data = files()["000012.sst"][..bytes].to_vec();
    chunk.set_crc32c(crc32c::crc32c(&data));
    chunk.set_data(data);
    chunk
}

/// The first `bytes` bytes of the large file, and then the stream breaks.
fn half(end: &End, from: u64, name: &str, resumed: bool, bytes: usize) -> RpcStatusCode {
    let client = Client::new(raftgrid_rpc::channel(&end.env, &end.address));
    let (mut sender, receiver) =
        client.client_streaming(&PEER_SNAPSHOT.method, CallOption::default().timeout(PATIENCE)).expect("started");
    let _ = block_on(sender.send((first_chunk(from, name, resumed, bytes), WriteFlags::default())));
    let _ = block_on(sender.close());
    match block_on(receiver) {
        Err(grpcio::Error::RpcFailure(status)) => status.code(),
        other => panic!("{:?}", other.map(|done| done.get_installed())),
    }
}

/// (known, verified bytes)
fn asked(end: &End, from: u64, name: &str, index: u64) -> Result<(bool, u64), RpcStatusCode> {
    let mut request = SnapshotProgressRequest::new();
    request.set_hello(hello(from));
    request.set_index(index);
    request.set_term(3);
    request.set_snapshot(name.to_owned());
    let client = Client::new(raftgrid_rpc::channel(&end.env, &end.address));
    let option = CallOption::default().timeout(PATIENCE);
    match client.unary_call(&PEER_SNAPSHOT_PROGRESS.method, &request, option) {
        Ok(answer) => Ok((answer.get_known(), answer.get_offset())),
        Err(grpcio::Error::RpcFailure(status)) => Err(status.code()),
        Err(error) => panic!("{error}"),
    }
}

fn progress(end: &End, from: u64, name: &str, index: u64) -> (bool, u64) {
    asked(end, from, name, index).expect("answered")
}

#[test]
fn while_its_last_stream_has_not_ended_nobody_is_told_to_send_it_anew() {
    let two = plain_end(2);
    let client = Client::new(raftgrid_rpc::channel(&two.env, &two.address));
    let option = CallOption::default().timeout(PATIENCE);
    let (mut sender, receiver) = client.client_streaming(&PEER_SNAPSHOT.method, option).expect("started");
    let chunk = first_chunk(1, "checkpoint-7", false, 700_000);
    block_on(sender.send((chunk, WriteFlags::default()))).expect("sent");
    let patience = Instant::now() + PATIENCE;
    while begun(&two) == 0 {
        assert!(Instant::now() < patience, "the stream has begun");
        sleep(Duration::from_millis(1));
    }
    assert_eq!(asked(&two, 1, "checkpoint-7", 70), Err(RpcStatusCode::UNAVAILABLE));
    assert_eq!(asked(&two, 3, "checkpoint-7", 70), Ok((false, 0)), "another's transfer is unknown");
    sender.cancel();
    drop((sender, receiver));
    let known = loop {
        match asked(&two, 1, "checkpoint-7", 70) {
            Err(RpcStatusCode::UNAVAILABLE) if Instant::now() < patience => sleep(Duration::from_millis(1)),
            other => break other,
        }
    };
    assert_eq!(known, Ok((true, 700_000)));
}

#[test]
fn only_the_same_senders_same_snapshot_goes_on_and_any_other_starts_anew() {
    let two = plain_end(2);
    assert_eq!(progress(&two, 1, "checkpoint-7", 70), (false, 0));
    assert_eq!(half(&two, 1, "checkpoint-7", true, 5), RpcStatusCode::ABORTED, "nothing is kept yet");
    assert_eq!(half(&two, 1, "checkpoint-7", false, 700_000), RpcStatusCode::DATA_LOSS);
    assert_eq!(progress(&two, 1, "checkpoint-7", 70), (true, 700_000));
    for (from, name, index) in [(3, "checkpoint-7", 70), (1, "checkpoint-8", 70), (1, "checkpoint-7", 71)] {
        assert_eq!(progress(&two, from, name, index), (false, 0), "{from} {name} {index}");
    }
    // Another sender's stream throws it away.
    assert_eq!(half(&two, 3, "checkpoint-9", false, 10), RpcStatusCode::DATA_LOSS);
    assert_eq!(progress(&two, 1, "checkpoint-7", 70), (false, 0));
    // An old sender, which names nothing, leaves nothing behind.
    assert_eq!(half(&two, 1, "", false, 10), RpcStatusCode::DATA_LOSS);
    assert_eq!(progress(&two, 1, "", 70), (false, 0));
    assert_eq!(half(&two, 1, "checkpoint-7", false, 10), RpcStatusCode::DATA_LOSS);
    assert_eq!(half(&two, 1, "checkpoint-8", true, 10), RpcStatusCode::ABORTED, "it has another snapshot's bytes");
    assert_eq!(begun(&two), 4);
    let (mut transport, reports) = transport(&two.env, "blue", book(2, &two.address), shelf());
    transport.send(vec![snapshot(2)]);
    assert_eq!(reports.recv_timeout(PATIENCE).expect("reported"), Heard::SnapshotSent(2, true));
    assert!(two.shelf.kept.lock().expect("no panic")["staged-70"] == files(), "the same files");
}
