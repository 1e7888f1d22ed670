use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Client, RpcStatusCode, WriteFlags};
use raftgrid_driver::{Message, Snapshot, SnapshotMeta, Transport};
use raftgrid_proto::v1::{PeerHello, SnapshotChunk};
use raftgrid_rpc::methods::PEER_SNAPSHOT;

use crate::ground::*;

fn files() -> BTreeMap<String, Vec<u8>> {
    let large: Vec<u8> = (0..2_500_000_u32).map(|at| (at % 251) as u8).collect();
    [("000012.sst", large), ("CURRENT", b"MANIFEST-000005\n".to_vec()), ("empty.log", Vec::new())]
        .map(|(name, data)| (name.to_owned(), data))
        .into()
}

fn shelf(lies: bool) -> Arc<Shelf> {
    let shelf = Shelf { lies, ..Shelf::default() };
    shelf.kept.lock().expect("no panic").insert("checkpoint-7".to_owned(), files());
    Arc::new(shelf)
}

fn snapshot(to: u64) -> Message {
    let meta = SnapshotMeta { index: 70, term: 3, ..SnapshotMeta::default() };
    let snapshot = Snapshot { meta, name: "checkpoint-7".to_owned() };
    Message { to, from: 1, data: b"MsgSnapshot".to_vec().into(), snapshot: Some(snapshot) }
}

#[test]
fn a_snapshot_arrives_file_by_file_before_its_message() {
    let two = plain_end(2);
    let (mut transport, reports) = transport(&two.env, "blue", book(2, &two.address), shelf(false));
    transport.send(vec![snapshot(2)]);
    let Heard::Step(message) = two.heard.recv_timeout(PATIENCE).expect("stepped") else { panic!("not a message") };
    assert_eq!(&message.data[..], b"MsgSnapshot");
    let staged = message.snapshot.expect("it names the staged files");
    assert_eq!((staged.name.as_str(), staged.meta.index, staged.meta.term), ("staged-70", 70, 3));
    assert!(two.shelf.kept.lock().expect("no panic")["staged-70"] == files(), "the same files");
    assert_eq!(reports.recv_timeout(PATIENCE).expect("reported"), Heard::SnapshotSent(2, true));
    assert!(reports.try_recv().is_err(), "reported once");
}

#[test]
fn every_failed_snapshot_is_reported_once_and_steps_nothing() {
    let refusing = Shelf { refuses: true, ..Shelf::default() };
    let (two, three) = (plain_end(2), end("blue", 3, 0, refusing, Echo(Ok(Vec::new()))));
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").to_string();
    let cases = [
        (2, two.address.clone(), shelf(true), "a file that is shorter than it said"),
        (2, two.address.clone(), Arc::default(), "a snapshot that is gone"),
        (3, three.address.clone(), shelf(false), "a receiver that finds it damaged"),
        (4, nobody, shelf(false), "a peer that is down"),
    ];
    for (to, address, shelf, what) in cases {
        let (mut transport, reports) = transport(&two.env, "blue", book(to, &address), shelf);
        transport.send(vec![snapshot(to)]);
        assert_eq!(reports.recv_timeout(PATIENCE).expect(what), Heard::SnapshotSent(to, false), "{what}");
        assert!(reports.try_recv().is_err(), "{what}: reported once");
    }
    let (mut transport, reports) = transport(&two.env, "blue", book(2, &two.address), shelf(false));
    transport.send(vec![snapshot(9)]);
    assert_eq!(reports.recv_timeout(PATIENCE).expect("reported"), Heard::SnapshotSent(9, false), "no address");
    assert!(two.heard.try_recv().is_err() && three.heard.try_recv().is_err(), "nothing was stepped");
    assert!(two.shelf.kept.lock().expect("no panic").is_empty(), "nothing was kept");
}

#[test]
fn a_snapshot_stream_that_is_damaged_or_breaks_off_is_refused() {
    let two = plain_end(2);
    let first = |file: &str| {
        let mut hello = PeerHello::new();
        hello.set_cluster_id("blue".to_owned());
        hello.set_from_node(1);
        hello.set_to_node(2);
        let mut chunk = SnapshotChunk::new();
        chunk.set_hello(hello);
        chunk.set_message(b"MsgSnapshot".to_vec());
        chunk.set_index(70);
        chunk.set_term(3);
        chunk.set_file(file.to_owned());
        chunk.set_data(b"abc".to_vec());
        chunk.set_crc32c(crc32c::crc32c(b"abc"));
        chunk
    };
    let send = |chunk: SnapshotChunk| {
        let client = Client::new(raftgrid_rpc::channel(&two.env, &two.address));
        let (mut sender, receiver) =
            client.client_streaming(&PEER_SNAPSHOT.method, CallOption::default().timeout(PATIENCE)).expect("started");
        let _ = block_on(sender.send((chunk, WriteFlags::default())));
        let _ = block_on(sender.close());
        match block_on(receiver) {
            Err(grpcio::Error::RpcFailure(status)) => status.code(),
            other => panic!("{:?}", other.map(|done| done.get_installed())),
        }
    };
    let mut damaged = first("000001.sst");
    damaged.set_crc32c(1);
    assert_eq!(send(damaged), RpcStatusCode::DATA_LOSS);
    assert_eq!(send(first("000001.sst")), RpcStatusCode::DATA_LOSS, "it ends before its last chunk");
    for name in ["../escape", "a/b", "", ".hidden"] {
        assert_eq!(send(first(name)), RpcStatusCode::INVALID_ARGUMENT, "{name:?} is no plain name");
    }
    let mut gap = first("000001.sst");
    gap.set_offset(10);
    assert_eq!(send(gap), RpcStatusCode::INVALID_ARGUMENT);
    assert!(two.heard.try_recv().is_err(), "nothing was stepped");
}
