//! A member that has a valid certificate and sends hostile things over it: to two real replicas that hold a quorum with it. Everything is
//! refused and counted, no process ends, and the two go on to take writes and agree.
//!
//! What raft takes on a member's word (a higher term, entries of a leader) is no part of it: raft does not defend against a member that lies
//! well. `driver`'s hostile group fires that at copies.
//!
//! `RAFTGRID_HOSTILE_MESSAGES=1000000` (`make hostile`) fires so many; 50,000 without it.

mod harness;

use std::collections::BTreeMap;

use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use harness::certs::{cluster_id, files, hello, pair, prepare, secured};
use harness::numbers::Rng;
use harness::{Cluster, PATIENCE};
use protobuf::CodedOutputStream;
use raftgrid_proto::v1::*;
use raftgrid_rpc::channel::{channel_to, Proof, MESSAGE_BYTES_MAX};
use raftgrid_rpc::grpcio::{CallOption, ChannelBuilder, Client, Error, RpcStatusCode, WriteFlags};
use raftgrid_rpc::methods::{self, Rpc};
use raftgrid_rpc::tls::Tls;

const MESSAGES_DEFAULT: u64 = 50_000;
/// Raft messages between two writes.
const MESSAGES_PER_ROUND: u64 = 1_000;
/// Raft messages in a frame.
const FRAME_MESSAGES: u64 = 50;
/// The member that is hostile.
const HOSTILE: u64 = 3;
/// Above these the guard takes nothing (`driver`'s limits).
const TERM_MAX: u64 = 1 << 62;
const INDEX_MAX: u64 = 1 << 62;
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Numbers of raft's message types.
const APPEND: u64 = 3;
const APPEND_RESPONSE: u64 = 4;
const VOTE: u64 = 5;
const SNAPSHOT: u64 = 7;
const HEARTBEAT: u64 = 8;
const TIMEOUT_NOW: u64 = 14;
const TYPES: u64 = 19;
/// What no peer ever sends: hup, beat, propose, unreachable, status of a snapshot, check quorum, transfer, read index and its answer.
const LOCAL: [u64; 9] = [0, 1, 2, 10, 11, 12, 13, 15, 16];

/// What hostile messages are made of.
impl Rng {
    fn bytes(&mut self, below: u64) -> Vec<u8> {
        (0..self.below(below)).map(|_| self.next() as u8).collect()
    }

    /// Small, near a power of two, or anything.
    fn number(&mut self) -> u64 {
        match self.below(3) {
            0 => self.below(300),
            1 => (1_u64 << self.below(64)).wrapping_add(self.below(3)).wrapping_sub(1),
            _ => self.next(),
        }
    }
}

/// A raft message as raft-proto encodes it: field number → value. Entries follow.
#[derive(Default)]
struct Shot {
    fields: BTreeMap<u32, u64>,
    /// (index, term, data) of entries.
    entries: Vec<(u64, u64, Vec<u8>)>,
}

impl Shot {
    const TYPE: u32 = 1;
    const TO: u32 = 2;
    const FROM: u32 = 3;
    const TERM: u32 = 4;
    const LOG_TERM: u32 = 5;
    const INDEX: u32 = 6;
    const ENTRIES: u32 = 7;
    const COMMIT: u32 = 8;
    const REJECT: u32 = 10;
    const REJECT_HINT: u32 = 11;
    const REQUEST_SNAPSHOT: u32 = 13;

    fn new(kind: u64, to: u64) -> Self {
        Self::default().with(Self::TYPE, kind).with(Self::TO, to).with(Self::FROM, HOSTILE).with(Self::TERM, 1)
    }

    fn with(mut self, field: u32, value: u64) -> Self {
        self.fields.insert(field, value);
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = CodedOutputStream::vec(&mut bytes);
        let fits = "a vector takes every byte";
        for (field, value) in &self.fields {
            out.write_uint64(*field, *value).expect(fits);
        }
        for (index, term, data) in &self.entries {
            let mut entry = Vec::new();
            let mut inner = CodedOutputStream::vec(&mut entry);
            inner.write_uint64(2, *term).expect(fits);
            inner.write_uint64(3, *index).expect(fits);
            inner.write_bytes(4, data).expect(fits);
            inner.flush().expect(fits);
            drop(inner);
            out.write_bytes(Self::ENTRIES, &entry).expect(fits);
        }
        out.flush().expect(fits);
        drop(out);
        bytes
    }
}

/// A raft message for `to`, and whether the guard must refuse it whatever state the replica is in.
fn raft_message(rng: &mut Rng, to: u64) -> (Vec<u8>, bool) {
    let kind = rng.below(TYPES);
    let any = |rng: &mut Rng, shot: Shot| {
        let fields = [Shot::LOG_TERM, Shot::INDEX, Shot::COMMIT, Shot::REJECT_HINT, Shot::REQUEST_SNAPSHOT];
        fields.into_iter().fold(shot.with(Shot::TERM, rng.number()), |shot, field| shot.with(field, rng.number()))
    };
    let shot = Shot::new(kind, to);
    let shot = match rng.below(12) {
        0 => return (rng.bytes(300), true),
        1 => {
            // Well formed, then one bit or the end is lost. In the name of another, so that what is still sound is refused, too.
            let mut bytes = any(rng, shot).with(Shot::FROM, 9).with(Shot::REJECT_HINT, 0).encode();
            let at = rng.below(bytes.len() as u64) as usize;
            if rng.below(2) == 0 {
                bytes.truncate(at);
                return (bytes, true);
            }
            // One bit makes no 3 of a 9, nor another field that comes later: it stays in the name of another, or of nobody.
            bytes[at] ^= 1 << rng.below(8);
            return (bytes, false);
        }
        // One member's stream, in the name of another: with this anything could be said.
        2 | 3 => {
            let from = [0, 1, 2, 4, 9, u64::MAX][rng.below(6) as usize];
            any(rng, shot.with(Shot::FROM, from))
        }
        4 => {
            let other = if to == 1 { 2 } else { 1 };
            let whom = [0, other, HOSTILE, 9][rng.below(4) as usize];
            any(rng, shot.with(Shot::TO, whom))
        }
        5 => shot.with(Shot::TERM, [0, TERM_MAX + 1 + rng.below(9), u64::MAX][rng.below(3) as usize]),
        // Indexes that no log reaches, a commit beyond reach among them.
        6 => {
            let field = [Shot::INDEX, Shot::COMMIT, Shot::REJECT_HINT][rng.below(3) as usize];
            shot.with(field, INDEX_MAX + 1 + rng.below(u64::MAX - INDEX_MAX))
        }
        7 => Shot::new(LOCAL[rng.below(9) as usize], to).with(Shot::INDEX, rng.below(99)),
        8 => {
            // Appends that are no one piece: without an anchor, with a gap, with falling or future terms, too large.
            let anchored = Shot::new(APPEND, to).with(Shot::INDEX, 5).with(Shot::LOG_TERM, 1);
            let entry = |index, term| (index, term, b"x".to_vec());
            let kinds = if rng.below(200) == 0 { 5 } else { 4 };
            let (mut shot, entries) = match rng.below(kinds) {
                0 => (Shot::new(APPEND, to).with(Shot::INDEX, 1 + rng.below(99)), vec![entry(6, 1)]),
                1 => (anchored, vec![entry(7 + rng.below(9), 1)]),
                2 => (anchored, vec![entry(6, 1), entry(6, 1)]),
                3 => (anchored, vec![entry(6, 2 + rng.below(9))]),
                _ => (anchored, vec![(6, 1, vec![1; ENTRY_BYTES_MAX + 1])]),
            };
            shot.entries = entries;
            shot
        }
        9 => match rng.below(3) {
            0 => Shot::new(TIMEOUT_NOW, to),
            1 => Shot::new(APPEND_RESPONSE, to).with(Shot::REQUEST_SNAPSHOT, 1 + rng.below(99)),
            _ => Shot::new(SNAPSHOT, to),
        },
        // Of a time long gone: raft itself takes no notice, and no guard must. It is the content that is hostile.
        10 => {
            let kind = [VOTE, HEARTBEAT, APPEND_RESPONSE][rng.below(3) as usize];
            let shot = Shot::new(kind, to).with(Shot::INDEX, rng.below(1 << 40)).with(Shot::LOG_TERM, 1);
            let shot = shot.with(Shot::COMMIT, rng.below(1 << 40)).with(Shot::REJECT, rng.below(2));
            return (shot.encode(), false);
        }
        _ => any(rng, shot).with(Shot::TERM, 0),
    };
    (shot.encode(), true)
}

/// The hostile member.
struct Attacker {
    cluster_id: String,
    /// A connection to each victim's Raft port, by node.
    victims: BTreeMap<u64, Client>,
    /// The same without a bound on what is sent.
    unbounded: BTreeMap<u64, Client>,
    rng: Rng,
}

/// What was fired.
#[derive(Default, Debug)]
struct Tally {
    messages: u64,
    must_refuse: u64,
    calls: u64,
    /// Streams that the door must refuse.
    at_the_door: u64,
    codes: BTreeMap<String, u64>,
}

impl Attacker {
    fn new(cluster: &Cluster, dir: &std::path::Path) -> Self {
        let env = raftgrid_rpc::environment("hostile");
        let logger = raftgrid_telemetry::silent();
        let tls = Tls::load(files(dir, HOSTILE), harness::certs::CLUSTER, HOSTILE, logger).expect("gridctl made them");
        let victims = cluster.replicas[..2].iter().map(|replica| {
            let proof = Some(Proof { tls: &tls, node_id: replica.node });
            (replica.node, Client::new(channel_to(&env, &replica.raft, proof)))
        });
        let victims = victims.collect();
        let unbounded = (0..2).map(|at| {
            let options = ChannelBuilder::new(env.clone()).use_local_subchannel_pool(true);
            let node = cluster.replicas[at].node;
            let options = secured(options, &dir.join("ca.pem"), pair(&files(dir, HOSTILE)), node);
            (node, Client::new(options.connect(&cluster.replicas[at].raft)))
        });
        Self { cluster_id: cluster_id(cluster), victims, unbounded: unbounded.collect(), rng: Rng(7) }
    }

    fn hello(&self, to: u64) -> PeerHello {
        hello(&self.cluster_id, HOSTILE, to, 3)
    }

    /// Frames of raft messages on one stream that is let in. The stream is not ended by what is in them.
    fn fire(&mut self, to: u64, count: u64, tally: &mut Tally) {
        let client = self.victims[&to].clone();
        let option = CallOption::default();
        let (mut sender, receiver) = client.client_streaming(&methods::PEER_RAFT.method, option).expect("started");
        let mut left = count;
        let mut first = Some(self.hello(to));
        while left > 0 {
            let mut frame = RaftFrame::new();
            if let Some(hello) = first.take() {
                frame.set_hello(hello);
            }
            let mut bytes = 0;
            for _ in 0..FRAME_MESSAGES.min(left) {
                let (message, must_refuse) = raft_message(&mut self.rng, to);
                bytes += message.len();
                frame.mut_messages().push(message);
                tally.messages += 1;
                tally.must_refuse += u64::from(must_refuse);
                left -= 1;
                if bytes > ENTRY_BYTES_MAX {
                    break;
                }
            }
            block_on(sender.send((frame, WriteFlags::default()))).expect("the stream goes on");
        }
        block_on(sender.close()).expect("the stream goes on");
        block_on(receiver).expect("the stream ends well: what was in it was refused one by one");
    }

    /// One stream whose first message is `message`: what it ends with. It must end.
    fn stream<Req: protobuf::Message, Resp: protobuf::Message + Unpin>(
        client: &Client,
        rpc: &Rpc<Req, Resp>,
        message: Req,
        tally: &mut Tally,
    ) -> RpcStatusCode {
        let option = CallOption::default().timeout(PATIENCE);
        let (mut sender, receiver) = client.client_streaming(&rpc.method, option).expect("started");
        let _ = block_on(sender.send((message, WriteFlags::default())));
        let _ = block_on(sender.close());
        noted(block_on(receiver).map(|_| ()), tally)
    }

    /// A hello that is wrong in one way, or none.
    fn wrong_hello(&mut self, to: u64) -> Option<PeerHello> {
        let mut hello = self.hello(to);
        match self.rng.below(6) {
            0 => return None,
            1 => hello.set_cluster_id(format!("{}x", self.cluster_id)),
            2 => hello.set_to_node([0, HOSTILE, 9][self.rng.below(3) as usize]),
            // With a certificate of node 3: nobody else.
            3 => hello.set_from_node([0, 1, 2, 4, u64::MAX][self.rng.below(5) as usize]),
            4 => hello.set_store_uuid(vec![9; 16]),
            _ => hello.set_store_uuid(self.rng.bytes(40)),
        }
        Some(hello)
    }

    /// One of the calls that are no raft messages, broken in one of many ways.
    fn call(&mut self, to: u64, tally: &mut Tally) {
        tally.calls += 1;
        let right = self.rng.below(3) != 0;
        let hello = if right { Some(self.hello(to)) } else { self.wrong_hello(to) };
        tally.at_the_door += u64::from(!right);
        let rng = &mut self.rng;
        let code = match rng.below(6) {
            0 => {
                let mut chunk = SnapshotChunk::new();
                chunk.hello = hello.into();
                chunk.set_message(rng.bytes(99));
                (chunk.index, chunk.term, chunk.offset) = (rng.number(), rng.number(), 1 + rng.number() / 2);
                chunk.set_file(["../../escape", "/etc/passwd", "", "a", "\u{0}"][rng.below(5) as usize].to_owned());
                chunk.set_data(rng.bytes(999));
                chunk.set_snapshot("n".repeat(rng.below(5_000) as usize));
                chunk.set_resumed(rng.below(2) == 0);
                Self::stream(&self.victims[&to], &methods::PEER_SNAPSHOT, chunk, tally)
            }
            1 => {
                let mut request = SnapshotProgressRequest::new();
                request.hello = hello.into();
                (request.index, request.term) = (rng.number(), rng.number());
                request.set_snapshot("../x".to_owned());
                self.unary(to, &methods::PEER_SNAPSHOT_PROGRESS, &request, tally)
            }
            2 => {
                let mut chunk = FragmentChunk::new();
                chunk.hello = hello.into();
                (chunk.artifact_id, chunk.offset, chunk.total_bytes) = (rng.number(), rng.number(), rng.number());
                chunk.set_fragment(rng.next() as u32);
                chunk.set_digest(rng.bytes(40));
                chunk.set_data(rng.bytes(999));
                Self::stream(&self.victims[&to], &methods::PEER_PUT_FRAGMENT, chunk, tally)
            }
            3 => {
                let mut request = GetFragmentRequest::new();
                request.hello = hello.into();
                (request.artifact_id, request.offset) = (rng.number(), rng.number());
                request.set_fragment(rng.next() as u32);
                let option = CallOption::default().timeout(PATIENCE);
                let got = self.victims[&to].server_streaming(&methods::PEER_GET_FRAGMENT.method, &request, option);
                noted(block_on(got.expect("started").try_collect::<Vec<_>>()).map(|_| ()), tally)
            }
            4 => {
                let mut request = ForwardRequest::new();
                request.hello = hello.into();
                let methods = [
                    "/raftgrid/Propose",
                    raftgrid_replica::PROPOSE_PATH,
                    "/raftgrid.v1.TaskService/SubmitTask",
                    "",
                    "/",
                ];
                request.set_method(methods[rng.below(5) as usize].to_owned());
                request.set_request(rng.bytes(400));
                request.set_principal("root".to_owned());
                self.unary(to, &methods::PEER_FORWARD, &request, tally)
            }
            _ => {
                // Larger than any message may be; gRPC itself ends it. The door never sees it.
                tally.at_the_door -= u64::from(!right);
                let mut frame = RaftFrame::new();
                frame.hello = hello.into();
                frame.mut_messages().push(vec![7; MESSAGE_BYTES_MAX + 1]);
                Self::stream(&self.unbounded[&to], &methods::PEER_RAFT, frame, tally)
            }
        };
        assert!(
            right || code == RpcStatusCode::FAILED_PRECONDITION || code == RpcStatusCode::RESOURCE_EXHAUSTED,
            "{code}"
        );
    }

    fn unary<Req: protobuf::Message, Resp: protobuf::Message + Unpin>(
        &self,
        to: u64,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
        tally: &mut Tally,
    ) -> RpcStatusCode {
        let option = CallOption::default().timeout(PATIENCE);
        noted(self.victims[&to].unary_call(&rpc.method, request, option).map(|_| ()), tally)
    }
}

fn noted(ended: Result<(), Error>, tally: &mut Tally) -> RpcStatusCode {
    let code = match ended {
        Ok(()) => RpcStatusCode::OK,
        Err(Error::RpcFailure(status)) => status.code(),
        Err(other) => panic!("{other}"),
    };
    // A victim that ended would be unavailable; one that hangs, too late.
    assert!(!matches!(code, RpcStatusCode::UNAVAILABLE | RpcStatusCode::DEADLINE_EXCEEDED), "{code}");
    *tally.codes.entry(code.to_string()).or_default() += 1;
    code
}

/// Everything that a replica dropped of what others sent, and the streams that it refused.
fn counted(cluster: &Cluster, at: usize) -> (f64, f64) {
    let seen = cluster.metrics(at);
    let dropped = seen.0.lines().filter(|line| line.starts_with("raftgrid_peer_messages_dropped_total{"));
    let dropped = dropped.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    (dropped, seen.value("raftgrid_peer_streams_refused_total"))
}

#[test]
fn a_member_with_a_certificate_that_sends_hostile_things_harms_nobody() {
    let messages = std::env::var("RAFTGRID_HOSTILE_MESSAGES").ok();
    let messages: u64 = messages.map_or(MESSAGES_DEFAULT, |number| number.parse().expect("a number of messages"));
    let (mut cluster, dir) = prepare(3);
    for at in 0..2 {
        cluster.start_replica(at);
    }
    cluster.leader();
    let mut attacker = Attacker::new(&cluster, &dir);
    let mut tally = Tally::default();
    let before = [counted(&cluster, 0), counted(&cluster, 1)];
    let mut written = Vec::new();
    while tally.messages < messages {
        for to in [1, 2] {
            attacker.fire(to, MESSAGES_PER_ROUND / 2, &mut tally);
            for _ in 0..5 {
                attacker.call(to, &mut tally);
            }
        }
        let mut request = SubmitTaskRequest::new();
        request.set_task_type("command".to_owned());
        request.set_task_data(br#"{"argv":["true"]}"#.to_vec());
        let answer = cluster.client().submit_task(request).expect("the two go on");
        written.push(answer.get_task_id().to_owned());
    }
    for at in 0..2 {
        cluster.caught_up(at);
    }
    let client = cluster.client();
    for task in written.iter().step_by(written.len().div_ceil(50)) {
        client.get_task(task).expect("an acknowledged write is there");
    }
    let after = [counted(&cluster, 0), counted(&cluster, 1)];
    let dropped: f64 = after.iter().zip(&before).map(|(after, before)| after.0 - before.0).sum();
    let refused: f64 = after.iter().zip(&before).map(|(after, before)| after.1 - before.1).sum();
    println!(
        "{tally:?}; {dropped} messages dropped, {refused} streams refused, {} tasks submitted meanwhile",
        written.len()
    );
    assert!(dropped >= tally.must_refuse as f64, "{dropped} of {} were dropped", tally.must_refuse);
    assert_eq!(refused, tally.at_the_door as f64, "each stream with a wrong hello is counted, and no other");
    for at in 0..2 {
        assert!(cluster.replicas[at].process.as_mut().expect("started").exited().is_none(), "replica {at} ended");
        let log = std::fs::read_to_string(cluster.log(at)).expect("it logs");
        assert!(!log.contains("panicked"), "{log}");
    }
}
