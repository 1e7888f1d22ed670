//! Mutual TLS: everything works with certificates, and nobody speaks for a node without that node's.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{CallOption, ChannelBuilder, ChannelCredentialsBuilder, Client, RpcStatusCode, WriteFlags};
use raftgrid_driver::{NodeId, Snapshot, SnapshotMeta, Transport};
use raftgrid_peer::{Dialer, PeerClients};
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{CallError, Download, Peers};
use raftgrid_replica::PROPOSE_PATH;
use raftgrid_rpc::channel::{channel_to, Proof};
use raftgrid_rpc::methods::{self, Rpc};
use raftgrid_rpc::tls::{node_name, Tls, TlsFile, LOOK_EVERY};

use crate::certs::*;
use crate::ground::*;

fn clients(two: &End, node: NodeId, tls: Option<Arc<Tls>>) -> PeerClients {
    PeerClients::new(Dialer::new(two.env.clone(), tls), identity(CLUSTER, node), book(2, &two.address))
}

fn called(clients: &PeerClients) -> Result<Vec<u8>, CallError> {
    clients.forward(2, PROPOSE_PATH, b"x".to_vec(), PATIENCE)
}

#[test]
fn every_kind_of_call_between_replicas_goes_over_certified_connections() {
    let authority = Authority::new();
    let two = certified_end(2, loaded(&authority, 2));
    let one = loaded(&authority, 1);
    let clients = clients(&two, 1, Some(one.clone()));
    assert_eq!(called(&clients), Ok(b"x".to_vec()));
    let (sender, index) = channel();
    clients.read_index(2, PATIENCE, Box::new(move |index| sender.send(index).expect("the test listens")));
    assert_eq!(index.recv_timeout(PATIENCE), Ok(Ok(0)));
    let mut source = Kept(vec![7; 3 << 20]);
    let digest = source.digest();
    clients.put_fragment(2, 5, 0, digest, &mut source).expect("durable there");
    let mut back = 0;
    let mut take = |piece: &[u8]| -> Result<(), CallError> {
        back += piece.len();
        Ok(())
    };
    clients.get_fragment(2, 5, 0, &mut take).expect("streamed");
    assert_eq!(back, 3 << 20);

    let shelf = Arc::new(Shelf::default());
    let kept = [("000001.sst".to_owned(), vec![3; 2_000_000])];
    shelf.kept.lock().expect("no panic").insert("at-70".to_owned(), kept.into());
    let dialer = Dialer::new(two.env.clone(), Some(one));
    let (mut transport, told) = transport_by(dialer, CLUSTER, book(2, &two.address), shelf);
    transport.send(vec![message(2, b"a message")]);
    let Heard::Step(heard) = two.heard.recv_timeout(PATIENCE).expect("it comes") else { panic!("no message") };
    assert_eq!((&*heard.data, heard.from), (&b"a message"[..], 1));
    let meta = SnapshotMeta { index: 70, term: 3, ..SnapshotMeta::default() };
    let snapshot = Some(Snapshot { meta, name: "at-70".to_owned() });
    transport.send(vec![raftgrid_driver::Message { snapshot, ..message(2, b"MsgSnapshot") }]);
    assert!(matches!(two.heard.recv_timeout(PATIENCE), Ok(Heard::Step(message)) if message.snapshot.is_some()));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Heard::SnapshotSent(2, true)));
    assert_eq!(two.refused(), 0);
}

fn hello(from: NodeId, store: u8) -> PeerHello {
    let mut hello = PeerHello::new();
    hello.set_cluster_id(CLUSTER.to_owned());
    hello.set_from_node(from);
    hello.set_to_node(2);
    hello.set_store_uuid(vec![store; 16]);
    hello
}

/// What a call ends with whose only message is `message`.
fn streamed<Req: protobuf::Message, Resp: protobuf::Message + Unpin>(
    client: &Client,
    rpc: &Rpc<Req, Resp>,
    message: Req,
) -> Result<(), grpcio::Error> {
    let option = CallOption::default().timeout(PATIENCE);
    let (mut sender, receiver) = client.client_streaming(&rpc.method, option).expect("started");
    // The call may be over already: its status tells.
    let _ = block_on(sender.send((message, WriteFlags::default())));
    let _ = block_on(sender.close());
    block_on(receiver).map(|_| ())
}

/// Each of the peers' calls in the name of `from`, with what it ends with.
fn each_call(client: &Client, from: NodeId, store: u8) -> Vec<(&'static str, Result<(), grpcio::Error>)> {
    let option = || CallOption::default().timeout(PATIENCE);
    let mut frame = RaftFrame::new();
    frame.set_hello(hello(from, store));
    frame.set_messages(vec![b"stolen".to_vec()].into());
    let mut chunk = SnapshotChunk::new();
    chunk.set_hello(hello(from, store));
    let mut progress = SnapshotProgressRequest::new();
    progress.set_hello(hello(from, store));
    let mut fragment = FragmentChunk::new();
    fragment.set_hello(hello(from, store));
    let mut get = GetFragmentRequest::new();
    get.set_hello(hello(from, store));
    let mut forward = ForwardRequest::new();
    forward.set_hello(hello(from, store));
    forward.set_method(PROPOSE_PATH.to_owned());
    let got = client.server_streaming(&methods::PEER_GET_FRAGMENT.method, &get, option()).expect("started");
    vec![
        ("raft", streamed(client, &methods::PEER_RAFT, frame)),
        ("snapshot", streamed(client, &methods::PEER_SNAPSHOT, chunk)),
        ("progress", client.unary_call(&methods::PEER_SNAPSHOT_PROGRESS.method, &progress, option()).map(|_| ())),
        ("put fragment", streamed(client, &methods::PEER_PUT_FRAGMENT, fragment)),
        ("get fragment", block_on(got.try_collect::<Vec<_>>()).map(|_| ())),
        ("forward", client.unary_call(&methods::PEER_FORWARD.method, &forward, option()).map(|_| ())),
    ]
}

#[test]
fn no_member_s_certificate_speaks_for_another_in_any_call() {
    let authority = Authority::new();
    let two = certified_end(2, loaded(&authority, 2));
    let three = loaded(&authority, 3);
    let proof = Some(Proof { tls: &three, node_id: 2 });
    let client = Client::new(channel_to(&two.env, &two.address, proof));
    for (kind, ended) in each_call(&client, 1, 9) {
        let Err(grpcio::Error::RpcFailure(status)) = ended else { panic!("{kind}: {ended:?}") };
        assert_eq!(status.code(), RpcStatusCode::FAILED_PRECONDITION, "{kind}: {}", status.message());
        assert!(
            status.message().contains("node 1 speaks with the certificate of \"node-3.blue\""),
            "{kind}: {status:?}"
        );
    }
    assert_eq!(two.refused(), 6, "each is counted");
    assert!(two.heard.try_recv().is_err(), "nothing was stepped");
    // Whom they said they were is not closed out by them: its store was not noted.
    assert_eq!(called(&clients(&two, 1, Some(loaded(&authority, 1)))), Ok(b"x".to_vec()));
    // And in its own name the certificate is good.
    assert_eq!(called(&clients(&two, 3, Some(three))), Ok(b"x".to_vec()));
    assert!(streamed(&client, &methods::PEER_RAFT, RaftFrame::new()).is_err(), "without a hello");
    assert_eq!(two.refused(), 7);
}

/// A client with whatever it has.
fn stranger(two: &End, authorities: &str, pair: Option<Pair>) -> Client {
    let mut credentials = ChannelCredentialsBuilder::new().root_cert(authorities.as_bytes().to_vec());
    if let Some(pair) = pair {
        credentials = credentials.cert(pair.certificate.into_bytes(), pair.key.into_bytes());
    }
    let options = ChannelBuilder::new(two.env.clone()).use_local_subchannel_pool(true);
    let options = options.set_credentials(credentials.build()).override_ssl_target(node_name(CLUSTER, 2));
    Client::new(options.connect(&two.address))
}

#[test]
fn nobody_gets_to_the_door_without_a_certificate_in_force_of_the_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let two = certified_end(2, loaded(&authority, 2));
    let plain = Client::new(raftgrid_rpc::channel(&two.env, &two.address));
    let expired = authority.sign(&node_name(CLUSTER, 1), -1);
    for (who, client) in [
        ("plain", plain),
        ("without a certificate", stranger(&two, &authority.pem, None)),
        ("of another authority", stranger(&two, &authority.pem, Some(other.member(1)))),
        ("expired", stranger(&two, &authority.pem, Some(expired))),
    ] {
        for (kind, ended) in each_call(&client, 1, 1) {
            let Err(grpcio::Error::RpcFailure(status)) = ended else { panic!("{who}, {kind}: {ended:?}") };
            assert_eq!(status.code(), RpcStatusCode::UNAVAILABLE, "{who}, {kind}: {}", status.message());
        }
    }
    assert!(two.heard.try_recv().is_err(), "nothing was stepped");
    assert_eq!(two.refused(), 0, "none came as far as the door");
    // The same client with the right certificate is let in: it was the certificate.
    let member = stranger(&two, &authority.pem, Some(authority.member(1)));
    let option = CallOption::default().timeout(PATIENCE);
    let mut forward = ForwardRequest::new();
    forward.set_hello(hello(1, 1));
    forward.set_method(PROPOSE_PATH.to_owned());
    member.unary_call(&methods::PEER_FORWARD.method, &forward, option).expect("it is let in");
}

#[test]
fn a_replica_tells_nothing_to_whoever_sits_at_a_member_s_address_with_another_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let one = loaded(&authority, 1);
    // Node 3 at node 2's address; somebody of another authority; somebody without TLS.
    let ends = [certified_end(2, loaded(&authority, 3)), certified_end(2, loaded(&other, 2)), plain_end(2)];
    for end in &ends {
        let outcome = called(&clients(end, 1, Some(one.clone())));
        assert!(matches!(outcome, Err(CallError::Unavailable(_))), "{outcome:?}");
        assert!(end.heard.try_recv().is_err());
    }
}

/// Past the next look at the files. No verdict depends on how far.
fn look() {
    let start = Instant::now();
    while start.elapsed() <= LOOK_EVERY {
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn load(folder: &Path, pair: &Pair, authorities: &str, node: NodeId) -> Arc<Tls> {
    Tls::load(put(folder, pair, authorities), CLUSTER, node, logger()).expect("they go together")
}

#[test]
fn certificates_and_authorities_are_exchanged_while_both_ends_run() {
    let (old, new) = (Authority::new(), Authority::new());
    let (here, there) = (tempfile::tempdir().expect("writable"), tempfile::tempdir().expect("writable"));
    let two = certified_end(2, load(there.path(), &old.member(2), &old.pem, 2));
    let tls = load(here.path(), &old.member(1), &old.pem, 1);
    let clients = clients(&two, 1, Some(tls.clone()));
    assert!(called(&clients).is_ok());
    assert_eq!(tls.generation(), 1);

    // First everybody believes both authorities, then everybody shows the new certificate, then nobody believes the old one.
    let both = format!("{}{}", old.pem, new.pem);
    let mut generation = 1;
    for (by, authorities) in [(&old, &both), (&new, &both), (&new, &new.pem)] {
        put(there.path(), &by.member(2), authorities);
        put(here.path(), &by.member(1), authorities);
        look();
        assert!(called(&clients).is_ok(), "in the midst of it");
        generation += 1;
        assert_eq!(tls.generation(), generation);
    }
    // That it is over connections of the new ones shows when one of the old is refused.
    let left = stranger(&two, &both, Some(old.member(3)));
    let kinds = each_call(&left, 3, 3);
    assert!(kinds.iter().all(|(_, ended)| ended.is_err()), "{kinds:?}");
    let joined = stranger(&two, &new.pem, Some(new.member(3)));
    let (_, ended) = each_call(&joined, 3, 3).pop().expect("there are six");
    assert!(ended.is_ok(), "{ended:?}");
}

#[test]
fn files_that_cannot_be_used_do_not_take_the_place_of_those_that_can() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("writable");
    let good = authority.member(1);
    let tls = load(folder.path(), &good, &authority.pem, 1);
    let fresh = authority.member(1);
    for (certificate, key, authorities) in [
        (fresh.certificate.as_str(), good.key.as_str(), authority.pem.as_str()), // half of an exchange
        ("", &fresh.key, &authority.pem),
        (&fresh.certificate, "-----BEGIN PRIVATE KEY-----\n", &authority.pem),
        (&fresh.certificate, &fresh.key, "\0"),
        (&fresh.certificate, &fresh.key, &other.pem),
        (&authority.sign(&node_name(CLUSTER, 1), -1).certificate, &fresh.key, &authority.pem),
    ] {
        put(folder.path(), &Pair { certificate: certificate.to_owned(), key: key.to_owned() }, authorities);
        look();
        assert_eq!(tls.generation(), 1);
    }
    put(folder.path(), &fresh, &authority.pem);
    look();
    assert_eq!(tls.generation(), 2, "the other half came");
}

#[test]
fn a_replica_does_not_start_with_files_that_nobody_would_believe_and_says_which() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("writable");
    let good = authority.member(1);
    let refused = |pair: &Pair, authorities: &str, node| {
        let error = Tls::load(put(folder.path(), pair, authorities), CLUSTER, node, logger()).expect_err("refused");
        assert!(!error.to_string().contains('\n'), "{error}");
        (error.file, error.cause)
    };
    let mixed = Pair { key: authority.member(1).key, ..good.clone() };
    let no_key = Pair { key: good.certificate.clone(), ..good.clone() };
    let no_certificate = Pair { certificate: String::new(), ..good.clone() };
    let ca = authority.pem.as_str();
    for ((file, cause), expected, words) in [
        (refused(&mixed, ca, 1), TlsFile::Key, "not the key of the certificate"),
        (refused(&no_key, ca, 1), TlsFile::Key, "no private key"),
        (refused(&no_certificate, ca, 1), TlsFile::Certificate, "no certificate"),
        (refused(&good, "nothing", 1), TlsFile::Authorities, "no certificate"),
        (refused(&good, &other.pem, 1), TlsFile::Certificate, "none of the authorities"),
        (
            refused(&good, ca, 2),
            TlsFile::Certificate,
            "this replica is node-2.blue, and the certificate is for node-1.blue",
        ),
        (refused(&authority.sign("node-1.red", 9), ca, 1), TlsFile::Certificate, "node-1.red"),
        (refused(&authority.sign("node-1.blue", -3), ca, 1), TlsFile::Certificate, "it expired 3 days"),
        (refused(&authority.sign("node-1.blue", 1_000), ca, 1), TlsFile::Certificate, "not valid yet"),
    ] {
        assert!(file == expected && cause.contains(words), "{file:?}: {cause}");
    }
    let files = put(folder.path(), &good, ca);
    std::fs::remove_file(&files.key).expect("it is there");
    let error = Tls::load(files, CLUSTER, 1, logger()).expect_err("refused");
    assert_eq!(error.file, TlsFile::Key);
    assert!(error.to_string().contains("node-key.pem"), "{error}");
}
