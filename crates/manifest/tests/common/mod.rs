//! A machine in memory with the sentences that tests speak. Every step checks all invariants.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use protobuf::{Message, RepeatedField};
use raftgrid_manifest::{apply, check_invariants, command, command_for, encode_batch, views, Change, MemRows};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};
use sha2::{Digest, Sha256};

pub const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

pub fn sha(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

pub fn uuid(created_ms: u64, n: u64) -> String {
    format!("{:08x}-{:04x}-7{:03x}-8000-{n:012x}", created_ms >> 16, created_ms & 0xffff, n & 0xfff)
}

#[derive(Clone, Default)]
pub struct World {
    pub rows: MemRows,
    pub index: u64,
    pub now_ms: u64,
    pub log: Vec<Vec<Vec<u8>>>,
    pub unchecked: bool,
}

impl World {
    pub fn new() -> Self {
        Self { index: 1, now_ms: 1_700_000_000_000, ..Self::default() }
    }

    /// With three healthy nodes of four slots.
    pub fn with_nodes() -> Self {
        let mut world = Self::new();
        for node in NODES {
            assert_eq!(world.register(node, 1).outcome, Outcome::OK);
        }
        world
    }

    /// The same at the newest machine version.
    pub fn newest() -> Self {
        let mut world = Self::with_nodes();
        let version = raftgrid_manifest::MACHINE_VERSION;
        world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
        world
    }

    /// Runs a waiting task on node-a to its end.
    pub fn end(&mut self, task_id: &str, status: TaskStatus) {
        let epoch = self.assign(task_id, "node-a");
        self.ok(report(task_id, epoch, status, |r| {
            r.exit_code = 65 * i32::from(status == TaskStatus::FAILED);
            r.reason = "it broke".into();
            r.result_data = format!("{{\"by\":\"{task_id}\"}}");
        }));
    }

    pub fn entry(&mut self, payloads: Vec<Vec<u8>>) -> Vec<Vec<CommandReply>> {
        self.index += 1;
        let applied = apply(&self.rows, self.index, &payloads).expect("the entry applies");
        self.rows.write(&applied.changes);
        self.log.push(payloads);
        if !self.unchecked {
            self.check();
        }
        applied.replies
    }

    pub fn check(&self) {
        assert_eq!(check_invariants(&self.rows).expect("memory does not fail"), Vec::<String>::new());
    }

    pub fn run_command(&mut self, command: Command) -> CommandReply {
        self.entry(vec![encode_batch(self.now_ms, vec![command])]).remove(0).remove(0)
    }

    pub fn run(&mut self, kind: Kind) -> CommandReply {
        self.run_command(command(kind))
    }

    pub fn run_as(&mut self, principal: &str, request_id: &str, kind: Kind) -> CommandReply {
        self.run_command(command_for(principal, request_id, kind))
    }

    /// Runs and expects the outcome.
    pub fn must(&mut self, kind: Kind, outcome: Outcome) -> CommandReply {
        let said = format!("{kind:?}");
        let reply = self.run(kind);
        assert_eq!(reply.outcome, outcome, "{} for {said}", reply.message);
        reply
    }

    pub fn ok(&mut self, kind: Kind) -> CommandReply {
        self.must(kind, Outcome::OK)
    }

    pub fn task(&self, id: &str) -> Task {
        views::get_task(&self.rows, id).expect("memory does not fail").unwrap_or_else(|| panic!("no task {id}"))
    }

    pub fn row(&self, id: &str) -> TaskRow {
        views::task_row(&self.rows, id).expect("memory does not fail").unwrap_or_else(|| panic!("no task {id}"))
    }

    pub fn node(&self, id: &str) -> Node {
        views::get_node(&self.rows, id).expect("memory does not fail").unwrap_or_else(|| panic!("no node {id}"))
    }

    pub fn job(&self, id: &str) -> Job {
        views::get_job(&self.rows, id).expect("memory does not fail").unwrap_or_else(|| panic!("no job {id}"))
    }

    pub fn round(&self, job: &str, round: u64) -> RoundRow {
        views::get_round(&self.rows, job, round).expect("memory does not fail").unwrap_or_else(|| panic!("no round"))
    }

    pub fn audit(&self, job: &str) -> AuditJobResponse {
        views::audit(&self.rows, job, true).expect("memory does not fail").unwrap_or_else(|| panic!("no job {job}"))
    }

    pub fn register(&mut self, node_id: &str, boot_nonce: u64) -> CommandReply {
        let mut node = Node { node_id: node_id.into(), ..Node::default() };
        node.mut_capacity().slots = 4;
        let mut register = RegisterNode { boot_nonce, ..RegisterNode::default() };
        register.set_node(node);
        self.run(Kind::register_node(register))
    }

    pub fn submit(&mut self, task_id: &str) -> CommandReply {
        self.run(submit(task_id, |_| ()))
    }

    /// Assigns and gives the epoch.
    pub fn assign(&mut self, task_id: &str, node_id: &str) -> u64 {
        self.ok(assign(&[(task_id, node_id)])).number
    }

    /// A task of this id with an open lease on node-a; gives the epoch.
    pub fn running(&mut self, task_id: &str, change: impl FnOnce(&mut TaskSpec)) -> u64 {
        self.ok(submit(task_id, change));
        let epoch = self.assign(task_id, "node-a");
        self.ok(start(task_id, epoch));
        epoch
    }

    /// A begun artifact on replicas 1 and 2 whose content is `text`; gives the id.
    pub fn begin(&mut self, job_id: &str, kind: &str, text: &str) -> u64 {
        self.ok(begin(job_id, kind, "", text)).number
    }

    /// A train job whose trainers run on node-a, node-b, node-c in turn, with model 0 committed. Gives the trainers' epochs.
    pub fn training(&mut self, name: &str, change: impl FnOnce(&mut TrainSpec)) -> Vec<u64> {
        let mut spec = train_spec(name);
        change(spec.mut_train());
        let workers = spec.get_train().workers;
        self.ok(submit_job(spec));
        let epochs: Vec<u64> =
            (0..workers).map(|i| self.assign(&trainer(name, i), NODES[i as usize % NODES.len()])).collect();
        let model = self.begin(name, "model", "m0");
        self.ok(model_0(name, epochs[0], model, "m0"));
        epochs
    }

    /// One gradient with content `text`, by trainer `worker`, from artifact to command.
    pub fn gradient(&mut self, job: &str, round: u64, shard: u32, worker: u32, epoch: u64, text: &str) -> CommandReply {
        let artifact = self.begin(job, "gradient", text);
        self.run(gradient(job, round, shard, &trainer(job, worker), epoch, artifact, text))
    }

    /// The command that commits the next model over the sealed round.
    pub fn next_model(&mut self, job: &str, round: u64) -> CommitModel {
        let (model, state) = (format!("{job} m{}", round + 1), format!("{job} s{}", round + 1));
        let (model_artifact, state_artifact) = (self.begin(job, "model", &model), self.begin(job, "state", &state));
        CommitModel {
            job_id: job.into(),
            version: round + 1,
            model_artifact,
            model_receipts: receipts(&model),
            model_digest: sha(&model),
            state_artifact,
            state_receipts: receipts(&state),
            state_digest: sha(&state),
            metrics_json: format!("{{\"loss\":{round}}}"),
            inputs_hash: self.inputs_hash(job, round),
            ..CommitModel::default()
        }
    }

    pub fn inputs_hash(&self, job: &str, round: u64) -> Vec<u8> {
        let hash = views::expected_inputs_hash(&self.rows, job, round).expect("memory does not fail");
        hash.expect("the round is kept").to_vec()
    }

    /// A whole round: all shards by trainer 0, then the model.
    pub fn whole_round(&mut self, job: &str, round: u64, epoch: u64) {
        for shard in 0..self.job(job).get_spec().get_train().shards {
            let reply = self.gradient(job, round, shard, 0, epoch, &format!("{job} g{round}.{shard}"));
            assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
        }
        let model = self.next_model(job, round);
        self.ok(Kind::commit_model(model));
    }
}

pub fn trainer(job: &str, i: u32) -> String {
    format!("{job}/trainer-{i}")
}

pub fn submit(task_id: &str, change: impl FnOnce(&mut TaskSpec)) -> Kind {
    let mut submit = SubmitTask {
        task_id: task_id.into(),
        task_type: "command".into(),
        task_data: b"{\"argv\":[\"true\"]}".to_vec(),
        ..SubmitTask::default()
    };
    change(submit.mut_spec());
    Kind::submit_task(submit)
}

/// A task that waits for others.
pub fn submit_after(task_id: &str, others: &[(&str, Condition)]) -> Kind {
    submit(task_id, |spec| {
        let dependency = |(task_id, condition): &(&str, Condition)| Dependency {
            task_id: (*task_id).into(),
            condition: *condition,
            ..Dependency::default()
        };
        spec.depends_on = others.iter().map(dependency).collect();
    })
}

pub fn assign(pairs: &[(&str, &str)]) -> Kind {
    let list = pairs.iter().map(|(task_id, node_id)| Assignment {
        task_id: (*task_id).into(),
        node_id: (*node_id).into(),
        ..Assignment::default()
    });
    Kind::assign(Assign { assignments: list.collect(), ..Assign::default() })
}

pub fn start(task_id: &str, epoch: u64) -> Kind {
    Kind::start(Start { task_id: task_id.into(), epoch, ..Start::default() })
}

pub fn report(task_id: &str, epoch: u64, final_status: TaskStatus, change: impl FnOnce(&mut ReportResult)) -> Kind {
    let mut report = ReportResult { task_id: task_id.into(), epoch, final_status, ..ReportResult::default() };
    change(&mut report);
    Kind::report_result(report)
}

pub fn expire(task_id: &str, epoch: u64) -> Kind {
    Kind::expire_lease(ExpireLease { task_id: task_id.into(), epoch, ..ExpireLease::default() })
}

pub fn cancel(task_id: &str, confirmed: bool) -> Kind {
    Kind::cancel_task(CancelTask {
        task_id: task_id.into(),
        confirmed,
        reason: "by hand".into(),
        ..CancelTask::default()
    })
}

pub fn suspend(task_id: &str) -> Kind {
    Kind::suspend_task(SuspendTask { task_id: task_id.into(), ..SuspendTask::default() })
}

pub fn resume(task_id: &str) -> Kind {
    Kind::resume_task(ResumeTask { task_id: task_id.into(), ..ResumeTask::default() })
}

pub fn requeue(task_id: &str) -> Kind {
    Kind::requeue_task(RequeueTask { task_id: task_id.into(), ..RequeueTask::default() })
}

pub fn set_priority(task_id: &str, priority: i32) -> Kind {
    Kind::set_priority(SetPriority { task_id: task_id.into(), priority, ..SetPriority::default() })
}

pub fn retry(task_id: &str) -> Kind {
    Kind::retry_task(RetryTask { task_id: task_id.into(), ..RetryTask::default() })
}

pub fn receipts(text: &str) -> RepeatedField<Receipt> {
    let receipt = |node_id| Receipt { node_id, digest: sha(text), ..Receipt::default() };
    RepeatedField::from_vec(vec![receipt(1), receipt(2)])
}

pub fn begin(job_id: &str, kind: &str, name: &str, text: &str) -> Kind {
    Kind::begin_artifact(BeginArtifact {
        name: name.into(),
        kind: kind.into(),
        total_bytes: text.len() as u64,
        digest: sha(text),
        placement: vec![1, 2],
        job_id: job_id.into(),
        ..BeginArtifact::default()
    })
}

pub fn commit_artifact(artifact_id: u64, text: &str) -> Kind {
    Kind::commit_artifact(CommitArtifact { artifact_id, receipts: receipts(text), ..CommitArtifact::default() })
}

pub fn delete_artifact(artifact_id: u64, confirmed: bool) -> Kind {
    Kind::delete_artifact(DeleteArtifact { artifact_id, confirmed, ..DeleteArtifact::default() })
}

pub fn sgd() -> Optimizer {
    Optimizer { algorithm: "sgd".into(), learning_rate: 0.1, momentum: 0.9, ..Optimizer::default() }
}

pub fn train_spec(name: &str) -> JobSpec {
    let mut spec = JobSpec {
        name: name.into(),
        field_type: "train".into(),
        task_data: b"{\"script\":\"train.py\",\"args\":[\"--fast\"]}".to_vec(),
        ..JobSpec::default()
    };
    let train = spec.mut_train();
    (train.shards, train.workers, train.rounds) = (2, 2, 3);
    spec
}

pub fn submit_job(spec: JobSpec) -> Kind {
    let mut submit = SubmitJob::default();
    submit.set_spec(spec);
    Kind::submit_job(submit)
}

pub fn model_0(job: &str, epoch: u64, artifact: u64, text: &str) -> Kind {
    let mut commit = CommitModel {
        job_id: job.into(),
        model_artifact: artifact,
        model_receipts: receipts(text),
        model_digest: sha(text),
        task_id: trainer(job, 0),
        epoch,
        ..CommitModel::default()
    };
    commit.set_optimizer(sgd());
    Kind::commit_model(commit)
}

pub fn gradient(job: &str, round: u64, shard: u32, task_id: &str, epoch: u64, artifact_id: u64, text: &str) -> Kind {
    Kind::commit_gradient(CommitGradient {
        job_id: job.into(),
        round,
        shard,
        task_id: task_id.into(),
        epoch,
        artifact_id,
        receipts: receipts(text),
        digest: sha(text),
        weight_bits: 1.0_f64.to_bits(),
        numeric_class: b"x86_64".to_vec(),
        ..CommitGradient::default()
    })
}

pub fn reject(job: &str, round: u64, shard: u32, worker: u32, epoch: u64, text: &str) -> Kind {
    Kind::reject_gradient(RejectGradient {
        job_id: job.into(),
        round,
        shard,
        task_id: trainer(job, worker),
        epoch,
        reason: "not finite".into(),
        digest: sha(text),
        ..RejectGradient::default()
    })
}

pub fn lease(shard: u32, task_id: &str, epoch: u64, verify: bool) -> ShardLease {
    ShardLease { shard, task_id: task_id.into(), epoch, verify, ..ShardLease::default() }
}

pub fn lease_shards(job: &str, round: u64, leases: Vec<ShardLease>) -> Kind {
    Kind::lease_shards(LeaseShards {
        job_id: job.into(),
        round,
        leases: RepeatedField::from_vec(leases),
        ..LeaseShards::default()
    })
}

pub fn encoded(message: &impl Message) -> Vec<u8> {
    message.write_to_bytes().expect("a message of ours encodes")
}

/// Applies a log of entries to rows that stand at `index`.
pub fn replay(rows: &mut MemRows, mut index: u64, log: &[Vec<Vec<u8>>]) -> Vec<Vec<Change>> {
    let mut all = Vec::new();
    for payloads in log {
        index += 1;
        let applied = apply(rows, index, payloads).expect("the entry applies");
        rows.write(&applied.changes);
        all.push(applied.changes);
    }
    all
}

/// A world of machine version 3.
pub fn world_3() -> World {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 3, ..SetMachineVersion::default() }));
    world
}

pub fn put_queue(name: &str, change: impl FnOnce(&mut Queue)) -> Kind {
    let mut queue = Queue { name: name.into(), weight: 1, ..Queue::default() };
    change(&mut queue);
    let mut put = PutQueue::default();
    put.set_queue(queue);
    Kind::put_queue(put)
}

pub fn delete_queue(name: &str) -> Kind {
    Kind::delete_queue(DeleteQueue { name: name.into(), ..DeleteQueue::default() })
}

pub fn preempt(task_id: &str, epoch: u64) -> Kind {
    Kind::preempt_task(PreemptTask { task_id: task_id.into(), epoch, ..PreemptTask::default() })
}

pub fn gang_spec(name: &str, min_members: u32, max_members: u32) -> JobSpec {
    let mut spec = JobSpec {
        name: name.into(),
        field_type: "command".into(),
        task_data: b"{\"argv\":[\"true\"]}".to_vec(),
        ..JobSpec::default()
    };
    spec.mut_task();
    spec.set_gang(GangSpec { min_members, max_members, ..GangSpec::default() });
    spec
}

pub fn member(job: &str, i: u32) -> String {
    format!("{job}/member-{i}")
}
