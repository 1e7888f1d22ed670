use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{RpcStatus, RpcStatusCode, WriteFlags};
use raftgrid_proto::v1::*;
use raftgrid_rpc::chunk::chunks;
use raftgrid_rpc::methods;
use sha2::{Digest, Sha256};

use crate::world::*;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn gradient(node: &Node1, chunks: Vec<GradientChunk>) -> Result<Ack, RpcStatus> {
    let (mut sender, receiver) =
        node.client.client_streaming(&methods::SEND_GRADIENTS.method, option()).expect("started");
    for chunk in chunks {
        if block_on(sender.send((chunk, WriteFlags::default()))).is_err() {
            break;
        }
    }
    let _ = block_on(sender.close());
    block_on(receiver).map_err(status_of)
}

fn gradient_chunks(data: &[u8]) -> Vec<GradientChunk> {
    let mut all: Vec<GradientChunk> = Vec::new();
    for (offset, piece, crc32c) in chunks(data, 0) {
        let mut chunk = GradientChunk::new();
        chunk.set_offset(offset);
        chunk.set_data(piece.to_vec());
        chunk.set_crc32c(crc32c);
        all.push(chunk);
    }
    all[0].set_job_id("digits".to_owned());
    all[0].set_round(3);
    all[0].set_shard(2);
    all[0].set_lease_epoch(65_536);
    all[0].set_total_bytes(data.len() as u64);
    all[0].set_digest(Sha256::digest(data).to_vec());
    all
}

#[test]
fn an_upload_of_three_mebibytes_arrives_whole_and_in_order() {
    let node = start(1, 1);
    let data = content(3 * 1024 * 1024 + 17);
    let all = gradient_chunks(&data);
    assert_eq!(all.len(), 4);
    assert!(gradient(&node, all).expect("acknowledged").get_success());
    let state = node.world.state();
    assert_eq!(state.finished[0].0, "digits/3/2");
    assert!(state.finished[0].1 == data, "the same bytes");
}

#[test]
fn a_chunk_that_was_damaged_missing_or_too_much_ends_the_upload() {
    let node = start(1, 1);
    let data = content(2 * 1024 * 1024 + 5);
    let refused = |change: fn(&mut Vec<GradientChunk>)| {
        let mut all = gradient_chunks(&data);
        change(&mut all);
        gradient(&node, all).expect_err("refused")
    };
    let damaged = refused(|all| all[1].mut_data()[77] ^= 1);
    assert_eq!(damaged.code(), RpcStatusCode::DATA_LOSS);
    assert!(damaged.message().contains("crc32c of the chunk at offset 1048576"), "{}", damaged.message());
    let missing = refused(|all| drop(all.remove(1)));
    assert_eq!(missing.code(), RpcStatusCode::INVALID_ARGUMENT);
    let short = refused(|all| drop(all.pop()));
    assert_eq!(short.code(), RpcStatusCode::DATA_LOSS);
    let long = refused(|all| all[0].set_total_bytes(1_048_577));
    assert_eq!(long.code(), RpcStatusCode::RESOURCE_EXHAUSTED);
    let empty = refused(Vec::clear);
    assert_eq!(empty.code(), RpcStatusCode::INVALID_ARGUMENT);
    assert_eq!(node.world.state().finished.len(), 0, "none of them was committed");
}

#[test]
fn a_model_is_streamed_in_checked_chunks_and_can_be_resumed() {
    let node = start(1, 1);
    let data = content(3 * 1024 * 1024 + 9);
    node.world.state().models.insert("digits".to_owned(), data.clone());
    let get = |offset: u64| -> Vec<ModelChunk> {
        let mut request = ModelRequest::new();
        request.set_job_id("digits".to_owned());
        request.set_offset(offset);
        let stream = node.client.server_streaming(&methods::GET_MODEL.method, &request, option()).expect("started");
        block_on(stream.try_collect()).expect("streamed")
    };
    let whole = get(0);
    assert_eq!((whole[0].get_version(), whole[0].get_total_bytes()), (4, data.len() as u64));
    assert_eq!(whole[0].get_digest(), Sha256::digest(&data).as_slice());
    let mut joined = Vec::new();
    for (number, chunk) in whole.iter().enumerate() {
        assert_eq!((chunk.get_chunk_id() as usize, chunk.get_offset()), (number, joined.len() as u64));
        assert_eq!(chunk.get_crc32c(), crc32c::crc32c(chunk.get_data()));
        joined.extend_from_slice(chunk.get_data());
    }
    assert!(joined == data, "the same bytes");
    let rest: Vec<u8> = get(2_000_000).iter().flat_map(|chunk| chunk.get_data().to_vec()).collect();
    assert!(rest == data[2_000_000..], "the rest");
    let end = get(data.len() as u64);
    assert_eq!(
        (end.len(), end[0].get_total_bytes()),
        (1, data.len() as u64),
        "the head arrives with nothing behind it"
    );
}

#[test]
fn an_artifact_goes_in_and_an_unknown_one_is_not_found() {
    let node = start(1, 1);
    let data = content(100);
    let (mut sender, receiver) =
        node.client.client_streaming(&methods::PUT_ARTIFACT.method, option()).expect("started");
    let mut chunk = PutArtifactChunk::new();
    chunk.set_name("bundle-1".to_owned());
    chunk.set_kind("bundle".to_owned());
    chunk.set_crc32c(crc32c::crc32c(&data));
    chunk.set_total_bytes(100);
    chunk.set_data(data.clone());
    block_on(sender.send((chunk, WriteFlags::default()))).expect("sent");
    let _ = block_on(sender.close());
    let put = block_on(receiver).expect("durable");
    assert_eq!((put.get_artifact_id(), put.get_digest()), ("77", Sha256::digest(&data).as_slice()));
    assert_eq!(node.world.state().finished[0].0, "bundle:bundle-1");
    let mut request = GetArtifactRequest::new();
    request.set_artifact("nothing".to_owned());
    let stream = node.client.server_streaming(&methods::GET_ARTIFACT.method, &request, option()).expect("started");
    let status = block_on(stream.try_collect::<Vec<ArtifactChunk>>()).map_err(status_of).expect_err("unknown");
    assert_eq!(status.code(), RpcStatusCode::NOT_FOUND);
}

#[test]
fn a_replica_that_cannot_know_of_an_artifact_does_not_say_that_there_is_none() {
    let node = start(1, 0);
    let mut request = GetArtifactRequest::new();
    request.set_artifact("77".to_owned());
    let stream = node.client.server_streaming(&methods::GET_ARTIFACT.method, &request, option()).expect("started");
    let status = block_on(stream.try_collect::<Vec<ArtifactChunk>>()).map_err(status_of).expect_err("unknown");
    assert_eq!(status.code(), RpcStatusCode::UNAVAILABLE);
    assert!(status.message().contains("no leader is known"), "{}", status.message());
}
