//! Models and gradients whose connection breaks in the middle go on at the chunk where they were: hardly a byte goes twice.

mod harness;
#[path = "../../../crates/peer/tests/peer/proxy.rs"]
mod proxy;

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use harness::gradient::{frame, Case, Tensor};
use harness::trainer::{job, submit, Beats, Nodes, SHARDS};
use harness::{wait_for, Cluster};
use proxy::Proxy;
use raftgrid_client::{Client, ClientConfig, ClientError, Upload};
use raftgrid_proto::v1::*;
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;
const ELEMENTS: usize = 6 << 20;
/// What may go twice for each cut: a chunk that came in part, and what was on its way.
const AGAIN: u64 = 3 * MIB;
const CALL: Duration = Duration::from_secs(60);

/// 24 MiB of f32.
fn vector(seed: u32) -> Vec<u8> {
    let value = |at: usize| (at as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) as f32 / u32::MAX as f32;
    let data = (0..ELEMENTS).flat_map(|at| value(at).to_le_bytes()).collect();
    frame(&[Tensor { name: "w".to_owned(), dtype: "F32", shape: vec![ELEMENTS], data }])
}

fn through(proxy: &Proxy) -> Client {
    Client::new(ClientConfig::new([proxy.address.clone()])).expect("an endpoint")
}

#[test]
fn a_transfer_whose_connection_breaks_goes_on_at_the_chunk_where_it_was() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.client();
    let server = cluster.endpoints()[0].clone();
    let model = vector(1);
    let upload = Upload { kind: "model".to_owned(), ..Upload::default() };
    let stored = client.put_artifact(&upload, &mut Cursor::new(model.clone()), &mut |_, _| ()).expect("stored");
    submit(&client, "broken", &stored.artifact_id, 1);
    let nodes = Arc::new(Nodes::register(cluster.client(), &["trainer"]));
    let _beats = Beats::of(&nodes);
    let trainer = nodes.trainer("trainer");

    // Down, in three pieces.
    let down = Proxy::back_from(&server, &[9 * MIB, 8 * MIB]);
    let mut request = ModelRequest::new();
    request.set_job_id(trainer.job.clone());
    request.set_task_id(trainer.task.clone());
    request.set_lease_epoch(trainer.epoch);
    let (mut got, mut attempts) = (Vec::new(), 0);
    while got.len() < model.len() {
        attempts += 1;
        assert!(attempts < 10, "{} bytes of {} after {attempts} attempts", got.len(), model.len());
        request.set_offset(got.len() as u64);
        let fetched = through(&down).get_model_once(&request, CALL, &mut |chunk| {
            assert_eq!(chunk.offset, got.len() as u64);
            got.extend_from_slice(&chunk.data);
            Ok(ControlFlow::Continue(()))
        });
        assert!(matches!(fetched, Ok(()) | Err(ClientError::Unavailable { .. })), "{fetched:?}");
    }
    assert_eq!(Sha256::digest(&got), Sha256::digest(&model));
    let passed = down.passed[1].load(Ordering::SeqCst);
    assert!(attempts > 2 && passed < model.len() as u64 + 2 * AGAIN, "{attempts} attempts, {passed} bytes");

    // Up, in three pieces each, by the call that workerd makes.
    let mut given = std::collections::BTreeSet::new();
    wait_for("both shards", || {
        for step in nodes.ask(&trainer).into_iter().filter(|step| !given.contains(&step.shard)).collect::<Vec<_>>() {
            let up = Proxy::to(&server, &[9 * MIB, 8 * MIB], false);
            let case = Case::of(vector(10 + step.shard), &trainer, step.shard);
            let ack = through(&up).send_gradients_once(&case.head, &mut Cursor::new(case.bytes.clone()), CALL);
            let ack = ack.expect("it goes on");
            assert!(ack.success && ack.outcome == AckOutcome::ACK_ACCEPTED, "{ack:?}");
            let passed = up.passed[0].load(Ordering::SeqCst);
            let connections = *up.connections.lock().expect("no panic under the lock");
            assert!(connections >= 3 && passed < case.bytes.len() as u64 + 2 * AGAIN, "{connections}: {passed} bytes");
            given.insert(step.shard);
        }
        (given.len() == SHARDS as usize).then_some(())
    });
    wait_for("the end of the job", || {
        Some(job(&client, "broken")).filter(|job| job.phase == JobPhase::JOB_DONE).map(drop)
    });
}

#[test]
fn who_asks_is_told_how_far_it_came_and_another_is_told_nothing() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.client();
    let server = cluster.endpoints()[0].clone();
    let upload = Upload { kind: "model".to_owned(), ..Upload::default() };
    let stored = client.put_artifact(&upload, &mut Cursor::new(vector(1)), &mut |_, _| ()).expect("stored");
    submit(&client, "asked", &stored.artifact_id, 1);
    let nodes = Arc::new(Nodes::register(cluster.client(), &["trainer"]));
    let _beats = Beats::of(&nodes);
    let trainer = nodes.trainer("trainer");
    let step = wait_for("a step", || nodes.ask(&trainer).into_iter().next());
    let case = Case::of(vector(2), &trainer, step.shard);
    // It breaks for good, with nothing that it could go on to.
    let up = Proxy::to(&server, &[9 * MIB, 1_000], true);
    let broken = through(&up).send_gradients_once(&case.head, &mut Cursor::new(case.bytes.clone()), CALL);
    assert!(matches!(broken, Err(ClientError::Unavailable { .. })), "{broken:?}");

    let ask = |head: &GradientChunk| {
        let mut nothing = Cursor::new(Vec::new());
        client.send_gradients_once(head, &mut nothing, CALL).expect("an answer")
    };
    let here = wait_for("the stream's end", || Some(ask(&case.head).resume_offset).filter(|here| *here > 0));
    assert!(here % MIB == 0 && (5..=9).contains(&(here / MIB)), "{here}");
    for change in [
        (|head: &mut GradientChunk| head.set_weight(2.0)) as fn(&mut GradientChunk),
        |head| head.set_round(1),
        |head| head.set_digest(vec![7; 32]),
        |head| head.set_lease_epoch(head.lease_epoch + 1),
    ] {
        let mut other = case.head.clone();
        change(&mut other);
        let ack = ask(&other);
        assert!(!ack.success && ack.resume_offset == 0, "{ack:?}");
    }
    // A chunk that is not the next one is refused, and what is here stays.
    let stub = cluster.stub(0);
    let mut wrong = case.clone();
    wrong.cuts = vec![(here as usize + MIB as usize, MIB as usize)];
    let refused = harness::gradient::send(&stub, wrong.chunks()).expect_err("a gap");
    assert!(refused.contains("offset"), "{refused}");
    assert_eq!(ask(&case.head).resume_offset, here);
    // The rest is enough.
    let mut rest = case.clone();
    rest.cuts = (here..case.bytes.len() as u64)
        .step_by(MIB as usize)
        .map(|at| (at as usize, (case.bytes.len() - at as usize).min(MIB as usize)))
        .collect();
    let ack = harness::gradient::send(&stub, rest.chunks()).expect("the rest");
    assert_eq!(ack.outcome, AckOutcome::ACK_ACCEPTED);
}
