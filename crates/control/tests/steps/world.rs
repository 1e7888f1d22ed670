//! A `Control` with rows made by hand: what the tests say about nodes, tasks, jobs and rounds is written as rows and folded.

use protobuf::{Message, RepeatedField};
use raftgrid_control::{Action, Beat, BeatAnswer, Config, Control, Input, Millis};
use raftgrid_manifest::{Change, MemRows, Table};
use raftgrid_proto::v1::{
    Command, CommandReply, Command_oneof_kind as Kind, ContributionRow, Job, JobPhase, JobRow, MetaRow, Node, NodeRow,
    NodeStatus, Phase, RoundLease, RoundPhase, RoundRow, ShardLease, Task, TaskRow, TaskSpec, TaskStatus, TrainSpec,
};

/// Cluster time at the world's start.
pub(crate) const CLUSTER_MS: u64 = 1_700_000_000_000;
/// The leader's clock at the world's start.
pub(crate) const START: Millis = 50_000;

pub(crate) struct World {
    pub(crate) rows: MemRows,
    pub(crate) control: Control,
    pub(crate) now: Millis,
    loaded: bool,
    ticket: u64,
}

impl World {
    /// Rows can be put in before `load`, as the leader before left them, or after it, as changes.
    pub(crate) fn new() -> Self {
        let control = Control::new(Config::local(), START);
        let mut world = Self { rows: MemRows::default(), control, now: START, loaded: false, ticket: 0 };
        world.put(Table::Meta, vec![0], &MetaRow { cluster_time_ms: CLUSTER_MS, ..MetaRow::default() });
        world
    }

    pub(crate) fn load(&mut self) {
        self.control.load(&self.rows).expect("rows decode");
        self.loaded = true;
    }

    /// A world that is loaded and past the grace of a new leader.
    pub(crate) fn settled() -> Self {
        let mut world = Self::new();
        world.load();
        world.step(vec![]);
        world.now += Config::local().election_grace_ms;
        world.step(vec![]);
        world
    }

    pub(crate) fn put(&mut self, table: Table, key: Vec<u8>, row: &impl Message) {
        let value = Some(row.write_to_bytes().expect("rows encode"));
        self.change(Change { table, key, value });
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.rows.write(std::slice::from_ref(&change));
        if self.loaded {
            self.control.fold(&change).expect("rows decode");
        }
    }

    pub(crate) fn step(&mut self, inputs: Vec<Input>) -> Vec<Action> {
        self.control.step(self.now, inputs)
    }

    pub(crate) fn at(&mut self, now: Millis) -> Vec<Action> {
        self.now = now;
        self.step(vec![])
    }

    /// A healthy node with 8 slots.
    pub(crate) fn node(&mut self, node_id: &str) {
        self.put(Table::Node, node_id.as_bytes().to_vec(), &node_row(node_id, NodeStatus::HEALTHY));
    }

    /// A node that this leader has heard.
    pub(crate) fn live_node(&mut self, node_id: &str) {
        self.node(node_id);
        self.beat(beat(node_id));
    }

    /// A beat with the quorum's confirmation; its answer.
    pub(crate) fn beat(&mut self, beat: Beat) -> BeatAnswer {
        let (ticket, inputs) = self.beat_input(beat);
        let mut actions = self.step(inputs);
        actions.extend(self.step(vec![Input::QuorumConfirmed { ticket }]));
        answer(&actions, ticket).expect("the beat is answered").expect("a quorum stands behind it")
    }

    pub(crate) fn beat_input(&mut self, beat: Beat) -> (u64, Vec<Input>) {
        self.ticket += 1;
        (self.ticket, vec![Input::Beat { ticket: self.ticket, beat }])
    }

    pub(crate) fn task(&mut self, row: TaskRow) {
        let sequence = row.sequence;
        let status = row.get_task().status as u8;
        for other in 0..5u8 {
            let key = [vec![other], sequence.to_be_bytes().to_vec()].concat();
            let value = (other == status).then(Vec::new);
            self.change(Change { table: Table::TaskByStatus, key, value });
        }
        self.put(Table::Task, sequence.to_be_bytes().to_vec(), &row);
    }

    pub(crate) fn job(&mut self, row: &JobRow) {
        self.put(Table::Job, row.sequence.to_be_bytes().to_vec(), row);
    }

    pub(crate) fn round(&mut self, job: u64, row: &RoundRow) {
        let key = [job.to_be_bytes(), row.round.to_be_bytes()].concat();
        self.put(Table::Round, key, row);
    }

    pub(crate) fn contribution(&mut self, job: u64, row: &ContributionRow) {
        let mut key = [job.to_be_bytes(), row.round.to_be_bytes()].concat();
        key.extend_from_slice(&row.shard.to_be_bytes());
        self.put(Table::Contribution, key, row);
    }

    /// `trainers` ready trainers of job 1, trainer i on node i modulo `nodes`; tasks 11, 12, …; epochs 1001, 1002, …
    pub(crate) fn trainers(&mut self, trainers: u64, nodes: u64) {
        for node in 0..nodes {
            self.live_node(&format!("node-{node}"));
        }
        for trainer in 0..trainers {
            self.task(trainer_row(trainer, &format!("node-{}", trainer % nodes)));
        }
    }
}

pub(crate) fn beat(node_id: &str) -> Beat {
    Beat { node_id: node_id.into(), boot_nonce: 7, incarnation: 70, ..Beat::default() }
}

pub(crate) fn beat_holding(node_id: &str, held: &[(&str, u64)]) -> Beat {
    let held = held.iter().map(|(task_id, epoch)| ((*task_id).to_owned(), *epoch)).collect();
    Beat { held, ..beat(node_id) }
}

pub(crate) fn node_row(node_id: &str, status: NodeStatus) -> NodeRow {
    let mut node = Node { node_id: node_id.into(), status, incarnation: 70, ..Node::default() };
    node.mut_capacity().slots = 8;
    let mut row = NodeRow { boot_nonce: 7, ..NodeRow::default() };
    row.set_node(node);
    row
}

pub(crate) fn task_row(sequence: u64, task: Task) -> TaskRow {
    let mut row = TaskRow { sequence, submitted_at_ms: CLUSTER_MS, ..TaskRow::default() };
    row.open_epoch = match task.status {
        TaskStatus::ASSIGNED | TaskStatus::RUNNING => task.lease_epoch,
        TaskStatus::PENDING | TaskStatus::COMPLETED | TaskStatus::FAILED => 0,
    };
    row.set_task(task);
    row
}

pub(crate) fn pending(sequence: u64) -> TaskRow {
    task_row(
        sequence,
        Task { task_id: format!("task-{sequence}"), spec: Some(TaskSpec::default()).into(), ..Task::default() },
    )
}

/// Task `sequence`, id task-<sequence>, running on the node under the epoch.
pub(crate) fn running(sequence: u64, node_id: &str, epoch: u64) -> TaskRow {
    let task = Task {
        task_id: format!("task-{sequence}"),
        status: TaskStatus::RUNNING,
        phase: Phase::PHASE_ACTIVE,
        assigned_node_id: node_id.into(),
        lease_epoch: epoch,
        revision: epoch,
        ..Task::default()
    };
    task_row(sequence, task)
}

pub(crate) fn trainer_row(trainer: u64, node_id: &str) -> TaskRow {
    let mut row = running(11 + trainer, node_id, 1_001 + trainer);
    row.job_sequence = 1;
    row.ready = true;
    row.mut_task().job_id = "digits".into();
    row.mut_task().task_id = trainer_id(trainer);
    row
}

pub(crate) fn trainer_id(trainer: u64) -> String {
    format!("digits/trainer-{trainer}")
}

/// Job 1, a running train job of 6 shards and 60 rounds.
pub(crate) fn train_job(verify: f64) -> JobRow {
    let train = TrainSpec { shards: 6, workers: 3, rounds: 60, seed: 42, verify, ..TrainSpec::default() };
    let mut job = Job { job_id: "digits".into(), phase: JobPhase::JOB_RUNNING, ..Job::default() };
    job.mut_spec().field_type = "train".into();
    job.mut_spec().set_train(train);
    let mut row = JobRow { sequence: 1, open_tasks: 3, ..JobRow::default() };
    row.set_job(job);
    row
}

pub(crate) fn round_row(round: u64, phase: RoundPhase, leases: Vec<RoundLease>) -> RoundRow {
    RoundRow { round, phase, leases: RepeatedField::from_vec(leases), ..RoundRow::default() }
}

pub(crate) fn leased(lease: &ShardLease, answered: bool) -> RoundLease {
    RoundLease { lease: Some(lease.clone()).into(), answered, ..RoundLease::default() }
}

pub(crate) fn given(round: u64, shard: u32, trainer: u64, node_id: &str) -> ContributionRow {
    ContributionRow {
        round,
        shard,
        task_id: trainer_id(trainer),
        node_id: node_id.into(),
        epoch: 1_001 + trainer,
        digest: vec![1; 32],
        artifact_id: 500,
        ..ContributionRow::default()
    }
}

/// Every command that the actions propose, in order.
pub(crate) fn commands(actions: &[Action]) -> Vec<Kind> {
    let mut list = Vec::new();
    for action in actions {
        if let Action::Propose { commands, .. } = action {
            list.extend(commands.iter().map(|command: &Command| command.kind.clone().expect("a command has a kind")));
        }
    }
    list
}

/// Tags and kinds of the proposals that are not a load report.
pub(crate) fn tags(actions: &[Action]) -> Vec<u64> {
    let tag = |action: &Action| match action {
        Action::Propose { tag, commands } if !matches!(commands[0].kind, Some(Kind::load_report(_))) => Some(*tag),
        Action::Propose { .. }
        | Action::Aggregate { .. }
        | Action::AnswerBeat { .. }
        | Action::Explained { .. }
        | Action::WakeAt(_) => None,
    };
    actions.iter().filter_map(tag).collect()
}

/// Without load reports.
pub(crate) fn decisions(actions: &[Action]) -> Vec<Kind> {
    commands(actions).into_iter().filter(|kind| !matches!(kind, Kind::load_report(_))).collect()
}

pub(crate) fn answer(actions: &[Action], ticket: u64) -> Option<Option<BeatAnswer>> {
    actions.iter().find_map(|action| match action {
        Action::AnswerBeat { ticket: answered, answer } if *answered == ticket => Some(answer.clone()),
        Action::AnswerBeat { .. }
        | Action::Propose { .. }
        | Action::Aggregate { .. }
        | Action::Explained { .. }
        | Action::WakeAt(_) => None,
    })
}

pub(crate) fn wake(actions: &[Action]) -> Option<Millis> {
    actions.iter().find_map(|action| match action {
        Action::WakeAt(at) => Some(*at),
        Action::AnswerBeat { .. } | Action::Propose { .. } | Action::Aggregate { .. } | Action::Explained { .. } => {
            None
        }
    })
}

/// Leases of all LeaseShards commands: (round, shard, task id, verify).
pub(crate) fn shard_leases(actions: &[Action]) -> Vec<(u64, ShardLease)> {
    let mut list = Vec::new();
    for kind in commands(actions) {
        if let Kind::lease_shards(command) = kind {
            list.extend(command.get_leases().iter().map(|lease| (command.round, lease.clone())));
        }
    }
    list
}

/// What each expiry says of the start.
pub(crate) fn before_start(actions: &[Action]) -> Vec<bool> {
    let of = |kind| match kind {
        Kind::expire_lease(expire) => Some(expire.before_start),
        _ => None,
    };
    commands(actions).into_iter().filter_map(of).collect()
}

pub(crate) fn expired(actions: &[Action]) -> Vec<(String, u64)> {
    let expiry = |kind: Kind| match kind {
        Kind::expire_lease(expire) => Some((expire.task_id, expire.epoch)),
        _ => None,
    };
    commands(actions).into_iter().filter_map(expiry).collect()
}

pub(crate) fn accepted(tag: u64, commands: usize) -> Input {
    Input::Proposed { tag, replies: Some(vec![CommandReply::default(); commands]) }
}
