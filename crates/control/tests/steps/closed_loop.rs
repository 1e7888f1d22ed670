//! Control against the real machine: what it proposes is applied by manifest, its changes are folded, and fake trainers do the rest.
//!
//! The loop knows no thread and no clock; time moves in steps of 10 ms. Leaders are replaced by loading a new `Control` from the rows.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::Message;
use raftgrid_control::{Action, Beat, Config, Control, Input};
use raftgrid_manifest::{
    apply, check_invariants, command, encode_batch, round_inputs_hash, MemRows, RoundInputs, RoundMode, RoundPolicy,
    Rows, Table,
};
use raftgrid_proto::v1::{
    BeginArtifact, Command, CommandReply, Command_oneof_kind as Kind, CommitGradient, CommitModel, ContributionRow,
    JobPhase, JobRow, JobSpec, Node, Optimizer, Outcome, Receipt, ReportResult, RoundPhase, RoundRow, Start, SubmitJob,
    TaskRow, TaskSpec, TaskStatus, TrainSpec, TrainerReady,
};

const CLUSTER_MS: u64 = 1_700_000_000_000;
const STEP_MS: u64 = 10;
pub(crate) const SHARDS: u32 = 6;
pub(crate) const ROUNDS: u64 = 12;

/// A worker process with its trainers.
pub(crate) struct Worker {
    node_id: String,
    pub(crate) alive: bool,
    boot_nonce: u64,
    incarnation: u64,
    next_beat: u64,
    /// What a gradient takes; 0: it is there at once.
    pub(crate) pace_ms: u64,
    /// (task, epoch) → when its process asks for work.
    pub(crate) trainers: BTreeMap<(String, u64), u64>,
    /// What its trainers compute, and until when.
    under_way: BTreeMap<(String, u64), (u64, Pair)>,
}

/// What a trainer computes: (round, shard) over a model.
#[derive(Clone, Copy)]
struct Pair {
    round: u64,
    shard: u32,
    version: u64,
    verify: bool,
}

pub(crate) struct Cluster {
    pub(crate) rows: MemRows,
    index: u64,
    pub(crate) now: u64,
    control: Control,
    inputs: Vec<Input>,
    ticket: u64,
    pub(crate) workers: Vec<Worker>,
    /// Beats that wait for their answer, by ticket: the worker.
    waiting: BTreeMap<u64, usize>,
    /// Nobody answers for this shard.
    pub(crate) silent: Option<u32>,
    /// Replies of a proposal are lost if this says so: (tag, commands) of every 7th.
    pub(crate) lossy: bool,
    leaders: u64,
    /// (round, shard) pairs that some trainer computed for verification.
    pub(crate) verified: BTreeSet<(u64, u32)>,
}

impl Cluster {
    pub(crate) fn new(workers: usize) -> Self {
        let config = Config::local();
        let worker = |n: usize| Worker {
            node_id: format!("node-{n}"),
            alive: true,
            boot_nonce: 100 + n as u64,
            incarnation: 0,
            next_beat: 0,
            pace_ms: 0,
            trainers: BTreeMap::new(),
            under_way: BTreeMap::new(),
        };
        let mut cluster = Self {
            rows: MemRows::default(),
            index: 0,
            now: 1_000,
            control: Control::new(config, 1_000),
            inputs: Vec::new(),
            ticket: 0,
            workers: (0..workers).map(worker).collect(),
            waiting: BTreeMap::new(),
            silent: None,
            lossy: false,
            leaders: 1,
            verified: BTreeSet::new(),
        };
        cluster.control.load(&cluster.rows).expect("an empty state loads");
        cluster
    }

    fn propose(&mut self, commands: Vec<Command>) -> Vec<CommandReply> {
        self.index += 1;
        let payload = encode_batch(CLUSTER_MS + self.now, commands);
        let applied = apply(&self.rows, self.index, &[payload]).expect("entries apply");
        self.rows.write(&applied.changes);
        for change in &applied.changes {
            self.control.fold(change).expect("changes decode");
        }
        applied.replies.into_iter().next().unwrap_or_default()
    }

    pub(crate) fn one(&mut self, kind: Kind) -> CommandReply {
        self.propose(vec![command(kind)]).remove(0)
    }

    pub(crate) fn elect(&mut self) {
        self.leaders += 1;
        let mut config = Config::local();
        config.jitter_seed = self.leaders;
        self.control = Control::new(config, self.now);
        self.control.load(&self.rows).expect("rows decode");
        self.inputs.clear();
        self.waiting.clear();
    }

    pub(crate) fn scan<M: Message>(&self, table: Table) -> Vec<M> {
        let mut list = Vec::new();
        self.rows
            .scan(table, &[], &[], &mut |_, value| {
                list.push(M::parse_from_bytes(value).expect("rows decode"));
                true
            })
            .expect("rows can be read");
        list
    }

    pub(crate) fn job(&self) -> JobRow {
        self.scan::<JobRow>(Table::Job).remove(0)
    }

    fn submit(&mut self, trainers: u32, verify: f64) {
        self.submit_with(trainers, verify, |_| ());
    }

    pub(crate) fn submit_with(&mut self, trainers: u32, verify: f64, change: impl FnOnce(&mut TrainSpec)) {
        let mut train =
            TrainSpec { shards: SHARDS, workers: trainers, rounds: ROUNDS, seed: 42, verify, ..TrainSpec::default() };
        change(&mut train);
        let mut spec = JobSpec { name: "digits".into(), field_type: "train".into(), ..JobSpec::default() };
        spec.task_data = br#"{"script":"a.py","args":[]}"#.to_vec();
        spec.set_task(TaskSpec::default());
        spec.set_train(train);
        let mut submit = SubmitJob::default();
        submit.set_spec(spec);
        let reply = self.one(Kind::submit_job(submit));
        assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
    }

    /// 10 ms of everything.
    fn turn(&mut self) {
        self.now += STEP_MS;
        for at in 0..self.workers.len() {
            if self.workers[at].alive {
                self.beat(at);
                self.work(at);
            }
        }
        let inputs = std::mem::take(&mut self.inputs);
        let actions = self.control.step(self.now, inputs);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Propose { tag, commands } => {
                // A lost proposal may have taken effect or not.
                let lost = self.lossy && tag % 7 == 3;
                if lost && tag % 2 == 0 {
                    self.inputs.push(Input::Proposed { tag, replies: None });
                    return;
                }
                let replies = self.propose(commands);
                self.inputs.push(Input::Proposed { tag, replies: (!lost).then_some(replies) });
            }
            Action::Aggregate { job_id, round } => {
                let result = self.aggregate(&job_id, round);
                self.inputs.push(Input::Aggregated { job_id, round, result });
            }
            Action::AnswerBeat { ticket, answer } => {
                let Some(at) = self.waiting.remove(&ticket) else { return };
                let Some(answer) = answer else { return };
                let worker = &mut self.workers[at];
                worker.incarnation = answer.incarnation;
                for lease in answer.revoked.iter().chain(&answer.stopping) {
                    worker.trainers.remove(lease);
                }
            }
            Action::WakeAt(at) => assert!(at > self.now, "a step must not wake itself at once"),
            Action::Explained { .. } => unreachable!("nobody asks"),
        }
    }

    fn beat(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if self.now < worker.next_beat {
            return;
        }
        worker.next_beat = self.now + 250;
        self.ticket += 1;
        let mut node = Node { node_id: worker.node_id.clone(), ..Node::default() };
        node.mut_capacity().slots = 4;
        let beat = Beat {
            node_id: worker.node_id.clone(),
            boot_nonce: worker.boot_nonce,
            incarnation: worker.incarnation,
            held: worker.trainers.keys().cloned().collect(),
            node: Some(node),
            ..Beat::default()
        };
        self.waiting.insert(self.ticket, at);
        self.inputs.push(Input::Beat { ticket: self.ticket, beat });
        self.inputs.push(Input::QuorumConfirmed { ticket: self.ticket });
    }

    /// Polls for tasks, starts them, and lets each trainer do one thing.
    fn work(&mut self, at: usize) {
        let node_id = self.workers[at].node_id.clone();
        for row in self.scan::<TaskRow>(Table::Task) {
            let task = row.get_task();
            if row.open_epoch == 0 || task.assigned_node_id != node_id {
                continue;
            }
            let lease = (task.task_id.clone(), row.open_epoch);
            match self.workers[at].trainers.get(&lease) {
                None if task.status == TaskStatus::ASSIGNED => {
                    self.workers[at].trainers.insert(lease, self.now + 300);
                    self.one(Kind::start(Start {
                        task_id: task.task_id.clone(),
                        epoch: row.open_epoch,
                        ..Start::default()
                    }));
                }
                Some(ready_at) if *ready_at <= self.now => self.train(&node_id, &row),
                None | Some(_) => {}
            }
        }
    }

    fn train(&mut self, node_id: &str, row: &TaskRow) {
        let (task_id, epoch) = (row.get_task().task_id.clone(), row.open_epoch);
        let job = self.job();
        match job.get_job().phase {
            JobPhase::JOB_INIT if job.init_task == task_id => self.init_model(&task_id, epoch),
            JobPhase::JOB_INIT => {}
            JobPhase::JOB_RUNNING if !row.ready => {
                self.one(Kind::trainer_ready(TrainerReady { task_id, epoch, ..TrainerReady::default() }));
            }
            JobPhase::JOB_RUNNING => self.give(node_id, &task_id, epoch),
            JobPhase::JOB_PAUSED => {}
            JobPhase::JOB_DONE => {
                let report = ReportResult {
                    task_id,
                    epoch,
                    final_status: TaskStatus::COMPLETED,
                    result_data: "{}".into(),
                    ..ReportResult::default()
                };
                self.one(Kind::report_result(report));
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn artifact(&mut self, kind: &str, digest: &[u8]) -> (u64, Vec<Receipt>) {
        let begin = BeginArtifact {
            kind: kind.into(),
            total_bytes: 100,
            digest: digest.to_vec(),
            placement: vec![1],
            job_id: "digits".into(),
            expires_ms: CLUSTER_MS + self.now + 60_000,
            ..BeginArtifact::default()
        };
        let reply = self.one(Kind::begin_artifact(begin));
        assert_eq!(reply.outcome, Outcome::OK, "{}", reply.message);
        (reply.number, vec![Receipt { node_id: 1, digest: digest.to_vec(), ..Receipt::default() }])
    }

    fn init_model(&mut self, task_id: &str, epoch: u64) {
        let digest = vec![7; 32];
        let (id, receipts) = self.artifact("model", &digest);
        let optimizer = Optimizer { algorithm: "sgd".into(), learning_rate: 0.1, ..Optimizer::default() };
        let commit = CommitModel {
            job_id: "digits".into(),
            model_artifact: id,
            model_receipts: receipts.into(),
            model_digest: digest,
            task_id: task_id.into(),
            epoch,
            optimizer: Some(optimizer).into(),
            ..CommitModel::default()
        };
        assert_eq!(self.one(Kind::commit_model(commit)).outcome, Outcome::OK);
    }

    /// Gives one gradient for a pair that is leased to this trainer.
    fn give(&mut self, node_id: &str, task_id: &str, epoch: u64) {
        let lease = (task_id.to_owned(), epoch);
        let (now, at) =
            (self.now, self.workers.iter().position(|worker| worker.node_id == node_id).expect("it is one"));
        let pair = match self.workers[at].under_way.get(&lease) {
            Some((until, _)) if now < *until => return,
            Some(_) => self.workers[at].under_way.remove(&lease).expect("it is there").1,
            None => {
                let Some(pair) = self.next_pair(task_id, epoch) else { return };
                if self.workers[at].pace_ms > 0 {
                    let until = now + self.workers[at].pace_ms;
                    self.workers[at].under_way.insert(lease, (until, pair));
                    return;
                }
                pair
            }
        };
        self.send(node_id, task_id, epoch, pair);
    }

    /// As NextShards tells it.
    fn next_pair(&self, task_id: &str, epoch: u64) -> Option<Pair> {
        let (job, rounds) = (self.job(), self.scan::<RoundRow>(Table::Round));
        let (policy, newest) = (RoundPolicy::of(&job), job.get_job().rounds_committed);
        let given = self.scan::<ContributionRow>(Table::Contribution);
        let given = |round: u64, shard: u32| given.iter().find(move |row| (row.round, row.shard) == (round, shard));
        let mine = |round: &RoundRow| {
            let held = round.leases.iter().find(|held| {
                let (lease, free) = (held.get_lease(), !held.answered && !held.taken);
                free && lease.task_id == task_id && lease.epoch == epoch && self.silent != Some(lease.shard)
            })?;
            let (shard, verify) = (held.get_lease().shard, held.get_lease().verify);
            let version = match given(round.round, shard).filter(|_| verify && policy.mode != RoundMode::Sync) {
                Some(given) => given.model_version,
                None => policy.model_for(round.round, newest),
            };
            let by_version = matches!(policy.mode, RoundMode::Async { .. });
            Some(Pair { round: if by_version { version } else { round.round }, shard, version, verify })
        };
        match policy.mode {
            RoundMode::Sync => rounds.iter().rev().find_map(mine),
            RoundMode::Bounded { .. } | RoundMode::Async { .. } => rounds.iter().find_map(mine),
        }
    }

    fn send(&mut self, node_id: &str, task_id: &str, epoch: u64, pair: Pair) {
        let Pair { round, shard, version, verify } = pair;
        // The bytes depend on round, shard and model only.
        let behind = (round - version) as u8;
        let digest = vec![(round as u8).wrapping_mul(31) ^ shard as u8 ^ (behind << 5); 32];
        let (artifact_id, receipts) = self.artifact("gradient", &digest);
        let commit = CommitGradient {
            job_id: "digits".into(),
            round,
            shard,
            task_id: task_id.into(),
            epoch,
            artifact_id,
            receipts: receipts.into(),
            digest,
            weight_bits: 1.5f64.to_bits(),
            model_version: version,
            ..CommitGradient::default()
        };
        let reply = self.one(Kind::commit_gradient(commit));
        // A worker that is slower than its lease, or than others, comes too late.
        let late = self.job().round_rules && matches!(reply.outcome, Outcome::STALE | Outcome::STALE_LEASE);
        let fine = late || matches!(reply.outcome, Outcome::OK | Outcome::DUPLICATE);
        assert!(fine, "{node_id} {task_id} round {round} shard {shard}: {:?} {}", reply.outcome, reply.message);
        if verify {
            self.verified.insert((round, shard));
        }
    }

    fn aggregate(&mut self, job_id: &str, round: u64) -> Result<Box<CommitModel>, String> {
        let job = self.job();
        let row =
            self.scan::<RoundRow>(Table::Round).into_iter().find(|row| row.round == round).ok_or("no such round")?;
        assert_eq!(row.phase, RoundPhase::ROUND_SEALED);
        let contributions: Vec<ContributionRow> =
            self.scan::<ContributionRow>(Table::Contribution).into_iter().filter(|row| row.round == round).collect();
        let hash = round_inputs_hash(&RoundInputs::of_rows(&job, &row, &contributions));
        let state_digest: Vec<u8> = hash.iter().map(|byte| byte ^ 0xff).collect();
        let (model_artifact, model_receipts) = self.artifact("model", &hash);
        let (state_artifact, state_receipts) = self.artifact("state", &state_digest);
        Ok(Box::new(CommitModel {
            job_id: job_id.into(),
            version: round + 1,
            model_artifact,
            model_receipts: model_receipts.into(),
            model_digest: hash.to_vec(),
            state_artifact,
            state_receipts: state_receipts.into(),
            state_digest,
            inputs_hash: hash.to_vec(),
            ..CommitModel::default()
        }))
    }

    /// Runs until the job is over and none of its tasks is open, or for `limit_ms`.
    pub(crate) fn run(&mut self, limit_ms: u64, mut each: impl FnMut(&mut Self)) -> JobRow {
        let end = self.now + limit_ms;
        while self.now < end {
            self.turn();
            each(self);
            let job = self.job();
            if job.get_job().phase != JobPhase::JOB_INIT
                && job.get_job().phase != JobPhase::JOB_RUNNING
                && job.get_job().phase != JobPhase::JOB_PAUSED
                && job.open_tasks == 0
            {
                check_invariants(&self.rows).expect("the invariants hold");
                return job;
            }
        }
        panic!("not over after {limit_ms} ms: {:?}", self.job());
    }
}

fn undisturbed(workers: usize, trainers: u32) -> JobRow {
    let mut cluster = Cluster::new(workers);
    cluster.submit(trainers, 0.05);
    cluster.run(60_000, |_| ())
}

fn assert_complete(job: &JobRow) {
    let job = job.get_job();
    assert_eq!(job.phase, JobPhase::JOB_DONE, "{}", job.reason);
    assert_eq!((job.rounds_committed, job.accepted), (ROUNDS, ROUNDS * u64::from(SHARDS)));
    assert_eq!((job.stale, job.rejected, job.mismatches), (0, 0, 0));
    assert_eq!(job.result_json, "{}");
}

#[test]
fn a_job_of_six_shards_runs_to_its_end_on_1_2_3_and_5_trainers_with_the_same_model() {
    let models: Vec<Vec<u8>> = [(1, 1), (2, 2), (3, 3), (3, 5)]
        .into_iter()
        .map(|(workers, trainers)| {
            let job = undisturbed(workers, trainers);
            assert_complete(&job);
            if trainers > 1 {
                assert!(job.get_job().compared > 0, "{trainers} trainers: nothing was verified");
            }
            job.get_job().model_digest.clone()
        })
        .collect();
    assert!(models.windows(2).all(|pair| pair[0] == pair[1]), "{models:?}");
}

#[test]
fn a_job_survives_new_leaders_a_killed_worker_and_lost_proposals_with_the_same_model() {
    let expected = undisturbed(3, 3).get_job().model_digest.clone();
    for killed in 0..3 {
        let mut cluster = Cluster::new(3);
        cluster.lossy = true;
        cluster.submit(3, 0.05);
        let (mut elections, mut dead) = (0, false);
        let job = cluster.run(120_000, |cluster| {
            let done = cluster.job().get_job().rounds_committed;
            if (elections == 0 && done >= 3) || (elections == 1 && done >= 8) {
                elections += 1;
                cluster.elect();
            }
            if !dead && done >= 5 {
                dead = true;
                let worker = &mut cluster.workers[killed];
                worker.alive = false;
                worker.trainers.clear();
            }
        });
        assert_complete(&job);
        assert_eq!((elections, dead), (2, true));
        assert_eq!(job.get_job().model_digest, expected, "worker {killed} killed");
    }
}

#[test]
fn a_worker_that_starts_anew_gets_its_trainer_back_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.submit(1, 0.0);
    let mut killed_at = None;
    let mut resumed_at = None;
    let job = cluster.run(60_000, |cluster| {
        let done = cluster.job().get_job().rounds_committed;
        if killed_at.is_none() && done >= 4 {
            killed_at = Some((cluster.now, done));
            let worker = &mut cluster.workers[0];
            worker.trainers.clear();
            worker.boot_nonce += 1_000;
            worker.incarnation = 0;
        }
        if killed_at.is_some_and(|(_, before)| done > before) && resumed_at.is_none() {
            resumed_at = Some(cluster.now);
        }
    });
    assert_complete(&job);
    let (killed, resumed) = (killed_at.expect("killed").0, resumed_at.expect("resumed"));
    assert!(resumed - killed < Config::local().lease_ttl_ms, "no lease had to run out: {} ms", resumed - killed);
}

#[test]
fn the_same_calls_give_the_same_rows() {
    let run = || {
        let mut cluster = Cluster::new(3);
        cluster.lossy = true;
        cluster.submit(3, 0.3);
        cluster.run(60_000, |_| ());
        (cluster.rows, cluster.verified)
    };
    let (first, second) = (run(), run());
    assert_eq!(first.1, second.1);
    assert!(first.0 == second.0, "two equal runs differ");
}
