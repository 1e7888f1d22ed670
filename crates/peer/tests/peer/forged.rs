//! A peer that sends fragments as none should be sent: a thousand generated streams of each kind. Each is refused by name, nothing is kept.

use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Client, RpcStatus, RpcStatusCode, WriteFlags};
use raftgrid_proto::v1::{FragmentChunk, PeerHello};
use raftgrid_rpc::methods::PEER_PUT_FRAGMENT;
use sha2::{Digest, Sha256};

use crate::ground::*;

#[path = "../../../../bins/controld/tests/harness/numbers.rs"]
mod numbers;

use numbers::Rng;

const CASES: u64 = 1_000;
const FRAGMENT_BYTES_MAX: u64 = 16 << 30;

/// A good fragment in three to six chunks.
fn good(rng: &mut Rng) -> Vec<FragmentChunk> {
    let data: Vec<u8> = (0..100 + rng.index(3_000)).map(|_| rng.next() as u8).collect();
    let pieces = 3 + rng.index(4);
    let at = |piece: usize| piece * data.len() / pieces;
    let mut chunks: Vec<FragmentChunk> =
        (0..pieces).map(|piece| chunk(at(piece), &data[at(piece)..at(piece + 1)])).collect();
    let mut hello = PeerHello::new();
    hello.set_cluster_id("blue".to_owned());
    hello.set_from_node(1);
    hello.set_to_node(2);
    hello.set_store_uuid(vec![1; 16]);
    chunks[0].set_hello(hello);
    chunks[0].set_artifact_id(1 + rng.below(1_000));
    chunks[0].set_fragment(rng.below(1_000) as u32);
    chunks[0].set_total_bytes(data.len() as u64);
    chunks[0].set_digest(Sha256::digest(&data).to_vec());
    chunks
}

fn chunk(offset: usize, data: &[u8]) -> FragmentChunk {
    let mut chunk = FragmentChunk::new();
    chunk.set_offset(offset as u64);
    chunk.set_crc32c(crc32c::crc32c(data));
    chunk.set_data(data.to_vec());
    chunk
}

type Forge = fn(&mut Rng, &mut Vec<FragmentChunk>);

/// Each kind with the words that its refusal has one of.
const KINDS: [(&str, &[&str], Forge); 10] = [
    ("chunks with other bytes", &["crc32c"], |rng, chunks| {
        let at = rng.index(chunks.len());
        let byte = rng.index(chunks[at].get_data().len());
        chunks[at].mut_data()[byte] ^= 1 << rng.index(8);
    }),
    ("chunks out of order, twice, and left out", &["chunk at offset"], |rng, chunks| {
        // The first one says what it is all about, and stays.
        let at = 1 + rng.index(chunks.len() - 2);
        match rng.index(3) {
            0 => chunks.swap(at, at + 1),
            1 => chunks.insert(at + 1, chunks[at].clone()),
            _ => drop(chunks.remove(at)),
        }
    }),
    ("streams that end too early", &["bytes instead of"], |rng, chunks| {
        let left = 1 + rng.index(chunks.len() - 1);
        chunks.truncate(left);
    }),
    ("streams that are longer", &["more than"], |rng, chunks| {
        let total = chunks[0].get_total_bytes();
        chunks[0].set_total_bytes(1 + rng.below(total - 1));
    }),
    ("streams that say that they are longer", &["bytes instead of"], |rng, chunks| {
        let total = chunks[0].get_total_bytes();
        chunks[0].set_total_bytes(total + 1 + rng.below(1_000));
    }),
    ("more than any fragment has", &["more than"], |rng, chunks| {
        chunks[0].set_total_bytes(FRAGMENT_BYTES_MAX + 1 + (rng.next() >> rng.index(60) >> 5));
    }),
    ("digests of other bytes", &["digest: differs"], |rng, chunks| {
        let at = rng.index(32);
        chunks[0].mut_digest()[at] ^= 1 << rng.index(8);
    }),
    ("digests of other lengths", &["has not 32 bytes"], |rng, chunks| {
        let length = *rng.of(&[0, 1, 20, 31, 33, 64]);
        chunks[0].mut_digest().resize(length, 7);
    }),
    ("other clusters and nodes", &["cluster", "node"], |rng, chunks| {
        let hello = chunks[0].mut_hello();
        match rng.index(3) {
            0 => hello.set_cluster_id(format!("blue{}", rng.index(1_000))),
            1 => hello.set_to_node(3 + rng.below(1_000)),
            _ => hello.set_store_uuid(vec![2 + rng.index(200) as u8; 16]),
        }
    }),
    ("nobody", &["hello"], |_, chunks| drop(chunks[0].take_hello())),
];

fn put(client: &Client, chunks: Vec<FragmentChunk>) -> Result<(), RpcStatus> {
    let option = CallOption::default().timeout(PATIENCE);
    let (mut sender, receiver) = client.client_streaming(&PEER_PUT_FRAGMENT.method, option).expect("started");
    for chunk in chunks {
        // One that was refused midway is not read to its end.
        if block_on(sender.send((chunk, WriteFlags::default()))).is_err() {
            break;
        }
    }
    let _refused_midway = block_on(sender.close());
    match block_on(receiver) {
        Ok(receipt) => {
            assert!(receipt.get_stored());
            Ok(())
        }
        Err(grpcio::Error::RpcFailure(status)) => Err(status),
        Err(other) => panic!("no answer: {other}"),
    }
}

#[test]
fn a_thousand_forged_streams_of_each_kind_are_refused_by_name_and_nothing_is_kept() {
    let two = plain_end(2);
    let client = Client::new(raftgrid_rpc::channel(&two.env, &two.address));
    // Whoever is met first under a node's number is that node.
    put(&client, good(&mut Rng(0))).expect("a good one is taken");
    let kept = two.fragments.lock().expect("no panic").clone();
    for (kind, (name, words, forge)) in KINDS.iter().enumerate() {
        for case in 0..CASES {
            let mut rng = Rng((kind as u64) << 32 | case);
            let mut chunks = good(&mut rng);
            forge(&mut rng, &mut chunks);
            let status = put(&client, chunks).expect_err(&format!("{name}, case {case}: was taken"));
            let why = status.message();
            assert!(words.iter().any(|word| why.contains(word)), "{name}, case {case}: {} {why}", status.code());
            assert_ne!(status.code(), RpcStatusCode::INTERNAL, "{name}, case {case}: {why}");
        }
        assert!(*two.fragments.lock().expect("no panic") == kept, "{name}: something was kept");
    }
}
