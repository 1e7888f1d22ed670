use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Client, RpcStatusCode, WriteFlags};
use raftgrid_peer::PeerClients;
use raftgrid_proto::v1::{FragmentChunk, PeerHello};
use raftgrid_replica::ports::{CallError, Download, Peers};
use raftgrid_rpc::methods::PEER_PUT_FRAGMENT;

use crate::ground::*;

fn content() -> Vec<u8> {
    (0..2_300_000_u32).map(|at| (at % 241) as u8).collect()
}

#[test]
fn a_fragment_goes_there_and_comes_back() {
    let two = plain_end(2);
    let clients = PeerClients::new(two.env.clone(), identity("blue", 1), book(2, &two.address));
    for (fragment, data) in [(0, content()), (1, Vec::new())] {
        let mut source = Kept(data.clone());
        let digest = source.digest();
        clients.put_fragment(2, 5, fragment, digest, &mut source).expect("durable there");
        assert!(two.fragments.lock().expect("no panic")[&(5, fragment)] == data, "the same bytes");
        let mut back = Vec::new();
        let mut take = |piece: &[u8]| -> Result<(), CallError> {
            back.extend_from_slice(piece);
            Ok(())
        };
        clients.get_fragment(2, 5, fragment, &mut take).expect("streamed");
        assert!(back == data, "the same bytes");
    }
    let missing = clients.get_fragment(2, 6, 0, &mut |_| Ok(()));
    assert_eq!(missing, Err(CallError::NotFound("no such fragment".to_owned())));
}

#[test]
fn a_fragment_with_another_digest_or_a_damaged_chunk_is_not_kept() {
    let two = plain_end(2);
    let clients = PeerClients::new(two.env.clone(), identity("blue", 1), book(2, &two.address));
    let refused = clients.put_fragment(2, 5, 0, [7; 32], &mut Kept(content()));
    assert_eq!(refused, Err(CallError::Invalid("digest: differs".to_owned())));

    let mut hello = PeerHello::new();
    hello.set_cluster_id("blue".to_owned());
    hello.set_from_node(1);
    hello.set_to_node(2);
    hello.set_store_uuid(vec![1; 16]);
    let mut chunk = FragmentChunk::new();
    chunk.set_hello(hello);
    chunk.set_artifact_id(5);
    chunk.set_total_bytes(3);
    chunk.set_digest(vec![0; 32]);
    chunk.set_data(b"abc".to_vec());
    chunk.set_crc32c(1);
    let client = Client::new(raftgrid_rpc::channel(&two.env, &two.address));
    let (mut sender, receiver) =
        client.client_streaming(&PEER_PUT_FRAGMENT.method, CallOption::default().timeout(PATIENCE)).expect("started");
    let _ = block_on(sender.send((chunk, WriteFlags::default())));
    let _ = block_on(sender.close());
    match block_on(receiver) {
        Err(grpcio::Error::RpcFailure(status)) => assert_eq!(status.code(), RpcStatusCode::DATA_LOSS),
        other => panic!("{:?}", other.map(|receipt| receipt.get_stored())),
    }
    assert!(two.fragments.lock().expect("no panic").is_empty());
}

#[test]
fn a_peer_that_is_down_is_unavailable_and_found_again_when_it_is_back() {
    let two = plain_end(2);
    let port: u16 = two.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let env = raftgrid_rpc::environment("sender");
    let clients = PeerClients::new(env, identity("blue", 1), book(2, &two.address));
    let put = || {
        let mut source = Kept(b"abc".to_vec());
        let digest = source.digest();
        clients.put_fragment(2, 5, 0, digest, &mut source)
    };
    assert_eq!(put(), Ok(()));
    drop(two.server);
    // The connection may look alive for one more call.
    assert!((0..10).any(|_| matches!(put(), Err(CallError::Unavailable(_)))));
    let _back = end("blue", 2, port, Shelf::default(), Echo(Ok(Vec::new())));
    assert!((0..100).any(|_| put() == Ok(())));
}

#[test]
fn a_peer_that_stops_in_the_middle_of_a_fragment_is_given_up() {
    let two = plain_end(2);
    let clients = PeerClients::new(two.env.clone(), identity("blue", 1), book(2, &two.address));
    let mut source = Kept(content());
    let digest = source.digest();
    clients.put_fragment(2, 5, 0, digest, &mut source).expect("durable there");
    let stuck = two.stuck.stop_at(1);
    let mut got = 0;
    let mut take = |piece: &[u8]| -> Result<(), CallError> {
        got += piece.len();
        Ok(())
    };
    // No deadline of the call would end it: the chunks have their own.
    let outcome = clients.get_fragment(2, 5, 0, &mut take);
    assert!(matches!(&outcome, Err(CallError::Unavailable(why)) if why.contains("no step")), "{outcome:?}");
    assert_eq!(got, 1024 * 1024, "the first chunk came");
    let outcome = clients.put_fragment(2, 6, 0, digest, &mut source);
    assert!(matches!(outcome, Err(CallError::Unavailable(_))), "{outcome:?}");
    drop(stuck);
    clients.get_fragment(2, 5, 0, &mut |_| Ok(())).expect("it goes on");
}
