use std::net::TcpListener;
use std::sync::Arc;

use futures::executor::block_on;
use futures::{SinkExt, TryFutureExt};
use grpcio::{CallOption, Client, RpcStatusCode, WriteFlags};
use raftgrid_driver::Transport;
use raftgrid_proto::v1::{PeerHello, RaftFrame};
use raftgrid_replica::Versions;
use raftgrid_rpc::methods::PEER_RAFT;

use crate::ground::*;

#[test]
fn messages_arrive_in_order_and_with_their_sender() {
    let two = plain_end(2);
    // More than once: while the first stream is opened, messages go on coming, and none of them may have it opened again.
    for _ in 0..40 {
        let (mut transport, _reports) = transport(&two.env, "blue", book(2, &two.address), Arc::default());
        for number in 0..1_000_u32 {
            transport.send(vec![message(2, &number.to_be_bytes())]);
            if number < 100 {
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        }
        for number in 0..1_000_u32 {
            let heard = two.heard.recv_timeout(PATIENCE).expect("it arrives");
            assert_eq!(heard, Heard::Step(message(2, &number.to_be_bytes())));
        }
    }
}

#[test]
fn a_stream_of_another_cluster_or_for_another_node_is_refused() {
    let two = plain_end(2);
    let refuse = |hello: Option<PeerHello>| {
        let client = Client::new(raftgrid_rpc::channel(&two.env, &two.address));
        let (mut sender, receiver) =
            client.client_streaming(&PEER_RAFT.method, CallOption::default().timeout(PATIENCE)).expect("started");
        let mut frame = RaftFrame::new();
        frame.hello = hello.into();
        frame.mut_messages().push(b"vote for me".to_vec());
        // The refusal may overtake the end of the send; what counts is the status.
        let _ = block_on(sender.send((frame, WriteFlags::default())));
        match block_on(receiver.map_ok(|_| ())) {
            Err(grpcio::Error::RpcFailure(status)) => status,
            other => panic!("{other:?}"),
        }
    };
    let hello = |cluster: &str, to: u64| {
        let mut hello = PeerHello::new();
        hello.set_cluster_id(cluster.to_owned());
        hello.set_from_node(1);
        hello.set_to_node(to);
        Some(hello)
    };
    for (wrong, why) in [(hello("red", 2), "cluster"), (hello("blue", 3), "node 3 is meant"), (None, "hello")] {
        let status = refuse(wrong);
        assert_eq!(status.code(), RpcStatusCode::FAILED_PRECONDITION);
        assert!(status.message().contains(why), "{}", status.message());
    }
    assert!(two.heard.try_recv().is_err(), "nothing was stepped");
}

#[test]
fn who_was_refused_for_its_version_is_sent_nothing_until_it_is_let_in() {
    let two = plain_end(2);
    let (seat, reports) = raft();
    let versions = Versions::new(|| ());
    seat.heed(versions.clone());
    let mut transport = transport_in(seat, two.env.clone().into(), "blue", book(2, &two.address), Arc::default());
    let arrives = |data: &[u8]| {
        assert_eq!(two.heard.recv_timeout(PATIENCE).expect("it arrives"), Heard::Step(message(2, data)));
    };
    transport.send(vec![message(2, b"before")]);
    arrives(b"before");
    versions.bar(2);
    transport.send(vec![message(2, b"meanwhile")]);
    assert_eq!(reports.recv_timeout(PATIENCE).expect("raft is told"), Heard::Unreachable(2));
    let let_in = versions.heard(2, 2);
    transport.send(vec![message(2, b"after")]);
    arrives(b"after");
    drop(let_in);
}

#[test]
fn a_refused_transport_reports_the_peer_as_unreachable() {
    let two = plain_end(2);
    let (mut transport, reports) = transport(&two.env, "red", book(2, &two.address), Arc::default());
    // The refusal is noticed with a later message.
    let told = (0..600).find_map(|_| {
        transport.send(vec![message(2, b"x")]);
        reports.recv_timeout(std::time::Duration::from_millis(100)).ok()
    });
    assert_eq!(told, Some(Heard::Unreachable(2)));
    assert!(two.heard.try_recv().is_err(), "nothing was stepped");
}

#[test]
fn a_peer_that_comes_back_is_found_on_its_port_and_at_a_new_one() {
    let first = plain_end(2);
    let book = book(2, &first.address);
    let env = raftgrid_rpc::environment("sender");
    let (mut transport, _reports) = transport(&env, "blue", book.clone(), Arc::default());
    transport.send(vec![message(2, b"first")]);
    assert_eq!(first.heard.recv_timeout(PATIENCE).expect("it arrives"), Heard::Step(message(2, b"first")));
    let port: u16 = first.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    drop(first.server);
    // Raft sends again and again; one of them is the first to get through.
    let mut until_heard = |end: &End| {
        (0..600).any(|_| {
            transport.send(vec![message(2, b"again")]);
            end.heard.recv_timeout(std::time::Duration::from_millis(100)).is_ok()
        })
    };
    let again = end("blue", 2, port, Shelf::default(), Echo(Ok(Vec::new())));
    assert!(until_heard(&again), "on the same port");
    drop(again.server);
    let elsewhere = plain_end(2);
    book.set(2, elsewhere.address.clone());
    assert!(until_heard(&elsewhere), "at the address that the book has now");
}

#[test]
fn a_peer_that_does_not_read_costs_messages_and_never_time() {
    // It accepts connections (the kernel does) and never speaks.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let env = raftgrid_rpc::environment("sender");
    let (mut transport, reports) = transport(&env, "blue", book(2, &address), Arc::default());
    let large = vec![0; 64 * 1024];
    // Far more than a queue holds. If `send` waited for the peer this would never end.
    for _ in 0..4_096 {
        transport.send(vec![message(2, &large)]);
    }
    assert_eq!(reports.recv_timeout(PATIENCE).expect("raft is told"), Heard::Unreachable(2));
}
