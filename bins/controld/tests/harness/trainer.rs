//! A worker that a test is itself: it registers, beats, and is given trainers of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raftgrid_client::{Client, Upload};
use raftgrid_proto::v1::*;
use raftgrid_rpc::grpcio::Client as Stub;
use raftgrid_rpc::methods::{HEARTBEAT, NEXT_SHARDS, POLL_TASK};

use super::gradient::{frame, send, tensors, Case};
use super::numbers::Rng;
use super::{wait_for, Cluster};

const CALL: Duration = Duration::from_secs(20);
/// Between two beats of a node.
const BEAT: Duration = Duration::from_millis(200);
/// Of each job.
pub const SHARDS: u32 = 2;

/// The artifact that jobs begin with.
pub fn first_model(cluster: &Cluster) -> String {
    let upload = Upload { kind: "model".to_owned(), ..Upload::default() };
    let bytes = frame(&tensors(&mut Rng(77)));
    let stored = cluster.client().put_artifact(&upload, &mut Cursor::new(bytes), &mut |_, _| ());
    stored.expect("stored").artifact_id
}

/// A worker that this test is itself, with the trainer that it was given.
#[derive(Clone, Debug)]
pub struct Trainer {
    pub job: String,
    pub node: String,
    pub task: String,
    pub epoch: u64,
}

/// One process of a node, as it speaks of itself.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// Which one, from 1.
    pub nonce: u64,
    /// 0 until it is registered.
    pub incarnation: u64,
    /// (task, epoch) of what it was given.
    pub held: Vec<(String, u64)>,
}

pub struct Nodes {
    pub client: Client,
    /// Node → its newest process.
    pub boots: Mutex<BTreeMap<String, Boot>>,
}

impl Nodes {
    pub fn register(client: Client, names: &[&str]) -> Self {
        let nodes = Self { client, boots: Mutex::default() };
        names.iter().for_each(|name| nodes.boot(name));
        nodes
    }

    /// A new process of the node: what the one before it was given is over.
    pub fn boot(&self, node: &str) {
        let nonce = {
            let mut boots = self.boots();
            let boot = boots.entry(node.to_owned()).or_default();
            *boot = Boot { nonce: boot.nonce + 1, ..Boot::default() };
            boot.nonce
        };
        let incarnation = wait_for("a registration", || self.beat(node)).incarnation;
        let mut boots = self.boots();
        let boot = boots.get_mut(node).expect("it was made above");
        assert_eq!(boot.nonce, nonce, "one at a time restarts a node");
        boot.incarnation = incarnation;
    }

    fn boots(&self) -> MutexGuard<'_, BTreeMap<String, Boot>> {
        self.boots.lock().expect("no beat panics")
    }

    /// The node's newest process, as of now.
    pub fn newest(&self, node: &str) -> Boot {
        self.boots()[node].clone()
    }

    pub fn beat(&self, node: &str) -> Option<HeartbeatResponse> {
        self.client.call(&HEARTBEAT, &beat_of(node, &self.newest(node)), CALL).ok()
    }

    /// The trainer that the node is given next; it asks for shards until it has one.
    pub fn trainer(&self, node: &str) -> Trainer {
        let mut request = PollTaskRequest::new();
        request.set_node_id(node.to_owned());
        request.set_incarnation(self.newest(node).incarnation);
        request.set_max_tasks(1);
        request.set_wait_ms(500);
        let task = wait_for("a trainer", || {
            self.client.call(&POLL_TASK, &request, CALL).ok()?.take_tasks().into_iter().next()
        });
        let lease = (task.task_id.clone(), task.lease_epoch);
        self.boots().get_mut(node).expect("it is registered").held.push(lease);
        Trainer { job: task.job_id.clone(), node: node.to_owned(), task: task.task_id.clone(), epoch: task.lease_epoch }
    }

    pub fn ask(&self, trainer: &Trainer) -> Vec<ShardStep> {
        let mut request = NextShardsRequest::new();
        request.set_job_id(trainer.job.clone());
        request.set_task_id(trainer.task.clone());
        request.set_lease_epoch(trainer.epoch);
        request.set_wait_ms(200);
        let answer = self.client.call(&NEXT_SHARDS, &request, CALL);
        answer.map(|mut answer| answer.take_steps().into_vec()).unwrap_or_default()
    }
}

/// What the process says of itself each time.
pub fn beat_of(node: &str, boot: &Boot) -> HeartbeatRequest {
    let mut request = HeartbeatRequest::new();
    request.set_node_id(node.to_owned());
    request.set_boot_nonce(boot.nonce);
    request.set_generation(boot.nonce);
    request.set_incarnation(boot.incarnation);
    for (task, epoch) in &boot.held {
        let mut lease = Lease::new();
        lease.set_task_id(task.clone());
        lease.set_epoch(*epoch);
        request.mut_held().push(lease);
    }
    let mut row = Node::new();
    row.set_node_id(node.to_owned());
    row.mut_capacity().set_slots(2);
    request.set_node(row);
    request
}

/// Until it is dropped, all nodes beat.
pub struct Beats(Arc<AtomicBool>);

impl Beats {
    pub fn of(nodes: &Arc<Nodes>) -> Self {
        let (nodes, ended) = (Arc::downgrade(nodes), Arc::<AtomicBool>::default());
        let told = ended.clone();
        std::thread::spawn(move || {
            while let Some(nodes) = nodes.upgrade().filter(|_| !told.load(Ordering::Relaxed)) {
                let names: Vec<String> = nodes.boots().keys().cloned().collect();
                names.iter().for_each(|node| drop(nodes.beat(node)));
                drop(nodes);
                std::thread::sleep(BEAT);
            }
        });
        Self(ended)
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Computes both shards as a trainer should, to the end of the job; the next model's SHA-256.
pub fn train_well(stubs: &[Stub], nodes: &Nodes, trainer: &Trainer, name: &str) -> Vec<u8> {
    let mut given = BTreeSet::new();
    wait_for("both shards", || {
        for step in nodes.ask(trainer) {
            let case = Case::of(frame(&tensors(&mut Rng(u64::from(step.shard)))), trainer, step.shard);
            given.insert(send(&stubs[0], case.chunks()).map(|_| step.shard).expect("a good gradient is taken"));
        }
        (given.len() == SHARDS as usize).then_some(())
    });
    let job =
        wait_for("the end of the job", || Some(job(&nodes.client, name)).filter(|job| job.phase == JobPhase::JOB_DONE));
    job.model_digest
}

pub fn submit(client: &Client, name: &str, model: &str, workers: u32) {
    let mut train = TrainSpec::new();
    train.set_shards(SHARDS);
    train.set_workers(workers);
    train.set_rounds(1);
    train.set_initial_model(model.to_owned());
    train.mut_optimizer().set_algorithm("sgd".to_owned());
    train.mut_optimizer().set_learning_rate(0.5);
    let mut spec = JobSpec::new();
    spec.set_name(name.to_owned());
    spec.set_field_type("train".to_owned());
    spec.set_train(train);
    spec.set_task_data(br#"{"script":"none.py","args":[]}"#.to_vec());
    client.submit_job(spec).expect("the job is accepted");
}

pub fn job(client: &Client, name: &str) -> Job {
    client.get_job(name).expect("the job stands").take_job()
}
