use std::sync::mpsc::channel;

use raftgrid_peer::PeerClients;
use raftgrid_replica::ports::{CallError, Peers};
use raftgrid_replica::PROPOSE_PATH;

use crate::ground::*;

fn forward(echo: Echo, cluster: &str, path: &str) -> Result<Vec<u8>, CallError> {
    let two = end("blue", 2, 0, Shelf::default(), echo);
    let clients = PeerClients::new(two.env.clone(), identity(cluster, 1), book(2, &two.address));
    clients.forward(2, path, b"request ".to_vec(), PATIENCE)
}

#[test]
fn proposals_and_public_calls_are_told_apart_by_their_path() {
    let proposed = forward(Echo(Ok(b"replies to ".to_vec())), "blue", PROPOSE_PATH);
    assert_eq!(proposed.expect("proposed"), b"replies to request ");
    let called = forward(Echo(Ok(Vec::new())), "blue", "/raftgrid.v1.TaskService/SubmitTask");
    assert_eq!(called.expect("called"), b"request /raftgrid.v1.TaskService/SubmitTask");
}

#[test]
fn why_a_proposal_was_refused_arrives_as_it_was_said() {
    for error in [
        CallError::NotLeader { leader: 3 },
        CallError::Exhausted("this replica has too much to do".to_owned()),
        CallError::Unknown,
        CallError::Invalid("task_type: is empty".to_owned()),
    ] {
        assert_eq!(forward(Echo(Err(error.clone())), "blue", PROPOSE_PATH), Err(error));
    }
}

#[test]
fn a_forwarded_call_of_another_cluster_is_refused() {
    let refused = forward(Echo(Ok(Vec::new())), "red", PROPOSE_PATH);
    assert!(matches!(&refused, Err(CallError::Precondition(why)) if why.contains("\"red\"")), "{refused:?}");
}

#[test]
fn a_peer_without_an_address_was_sent_nothing() {
    let env = raftgrid_rpc::environment("sender");
    let clients = PeerClients::new(env, identity("blue", 1), book(2, "127.0.0.1:1"));
    for node in [2, 9] {
        let answer = clients.forward(node, PROPOSE_PATH, Vec::new(), PATIENCE);
        assert!(matches!(answer, Err(CallError::Unavailable(_))), "{node}: {answer:?}");
    }
}

/// What a replica hears that asks node 2 for a read index.
fn ask(clients: &PeerClients) -> Result<u64, CallError> {
    let (sender, answer) = channel();
    clients.read_index(2, PATIENCE, Box::new(move |index| sender.send(index).expect("the test listens")));
    answer.recv_timeout(PATIENCE).expect("every question is answered")
}

#[test]
fn a_read_index_or_why_there_is_none_comes_back_as_it_was_said() {
    let asked = |echo| {
        let two = end("blue", 2, 0, Shelf::default(), echo);
        ask(&PeerClients::new(two.env.clone(), identity("blue", 1), book(2, &two.address)))
    };
    assert_eq!(asked(Echo(Ok(vec![0; 7]))), Ok(7));
    for error in [CallError::NotLeader { leader: 3 }, CallError::Exhausted("too many reads are waiting".to_owned())] {
        assert_eq!(asked(Echo(Err(error.clone()))), Err(error));
    }
}

#[test]
fn a_question_to_whom_nobody_reaches_is_answered_too() {
    let env = raftgrid_rpc::environment("asker");
    let refused = ask(&PeerClients::new(env.clone(), identity("blue", 1), book(2, "127.0.0.1:1")));
    assert!(matches!(refused, Err(CallError::Unavailable(_) | CallError::Unknown)), "{refused:?}");
    let unknown = ask(&PeerClients::new(env, identity("blue", 1), book(3, "127.0.0.1:1")));
    assert!(matches!(unknown, Err(CallError::Unavailable(_))), "{unknown:?}");
}
