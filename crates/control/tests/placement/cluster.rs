//! Leader, machine and workers in one thread. Time moves in steps of 50 ms.

use std::collections::BTreeMap;

use raftgrid_control::{Action, Beat, Config, Control, Explanation, Input};
use raftgrid_manifest::{apply, check_invariants, command, encode_batch, views, MemRows, MACHINE_VERSION};
use raftgrid_proto::v1::{
    CancelTask, Command, CommandReply, Command_oneof_kind as Kind, Node, Outcome, Phase, ReportResult,
    SetMachineVersion, Start, TaskRow, TaskStatus,
};

use crate::rng::Rng;

pub(crate) const STEP_MS: u64 = 50;
const CLUSTER_MS: u64 = 1_700_000_000_000;

pub(crate) struct Worker {
    pub(crate) node: Node,
    pub(crate) is_alive: bool,
    boot_nonce: u64,
    incarnation: u64,
    next_beat: u64,
    /// (task, epoch) → when it ends.
    running: BTreeMap<(String, u64), u64>,
}

pub(crate) struct Cluster {
    pub(crate) rows: MemRows,
    index: u64,
    pub(crate) now: u64,
    control: Control,
    inputs: Vec<Input>,
    ticket: u64,
    pub(crate) workers: Vec<Worker>,
    waiting: BTreeMap<u64, usize>,
    pub(crate) rng: Rng,
    /// One report in so many is a failure; 0: none.
    pub(crate) failures: u64,
    pub(crate) log: Vec<Vec<u8>>,
    pub(crate) explained: Option<Option<Explanation>>,
    pub(crate) preemptions: u64,
    pub(crate) gangs_placed: u64,
}

impl Cluster {
    pub(crate) fn new(seed: u64, nodes: Vec<Node>) -> Self {
        let worker = |(n, node): (usize, Node)| Worker {
            node,
            is_alive: true,
            boot_nonce: 100 + n as u64,
            incarnation: 0,
            next_beat: 0,
            running: BTreeMap::new(),
        };
        let mut cluster = Self {
            rows: MemRows::default(),
            index: 0,
            now: 1_000,
            control: Control::new(Config::local(), 1_000),
            inputs: Vec::new(),
            ticket: 0,
            workers: nodes.into_iter().enumerate().map(worker).collect(),
            waiting: BTreeMap::new(),
            rng: Rng(seed),
            failures: 0,
            log: Vec::new(),
            explained: None,
            preemptions: 0,
            gangs_placed: 0,
        };
        cluster.control.load(&cluster.rows).expect("an empty state loads");
        let version = SetMachineVersion { version: MACHINE_VERSION, ..SetMachineVersion::default() };
        cluster.ok(Kind::set_machine_version(version));
        cluster
    }

    pub(crate) fn propose(&mut self, commands: Vec<Command>) -> Vec<CommandReply> {
        self.index += 1;
        let payload = encode_batch(CLUSTER_MS + self.now, commands);
        let applied = apply(&self.rows, self.index, std::slice::from_ref(&payload)).expect("the entry applies");
        self.log.push(payload);
        self.rows.write(&applied.changes);
        for change in &applied.changes {
            self.control.fold(change).expect("rows decode");
        }
        let broken = check_invariants(&self.rows).expect("memory does not fail");
        assert_eq!(broken, Vec::<String>::new(), "at {} ms", self.now);
        self.check_quotas();
        applied.replies.into_iter().next().expect("one batch")
    }

    pub(crate) fn run(&mut self, kind: Kind) -> CommandReply {
        self.propose(vec![command(kind)]).remove(0)
    }

    pub(crate) fn ok(&mut self, kind: Kind) -> CommandReply {
        let reply = self.run(kind);
        assert!(matches!(reply.outcome, Outcome::OK | Outcome::EXISTING), "{reply:?}");
        reply
    }

    /// Settings of queues do not change while they hold something, so nothing is ever beyond them.
    fn check_quotas(&self) {
        for queue in views::list_queues(&self.rows).expect("memory") {
            let (usage, quota) = (queue.get_usage(), queue.get_quota());
            let over = |used: u64, most: u64| most != 0 && used > most;
            assert!(!over(queue.running_tasks.into(), queue.max_running.into()), "{queue:?}");
            assert!(!over(usage.slots.into(), quota.slots.into()), "{queue:?}");
            assert!(!over(usage.gpus.into(), quota.gpus.into()), "{queue:?}");
            assert!(!over(usage.cpu_milli, quota.cpu_milli), "{queue:?}");
        }
    }

    pub(crate) fn rows_of(&self, status: TaskStatus) -> Vec<TaskRow> {
        let mut rows = Vec::new();
        views::task_rows(&self.rows, status, |row| {
            rows.push(row);
            true
        })
        .expect("memory");
        rows
    }

    pub(crate) fn open_tasks(&self) -> Vec<TaskRow> {
        [TaskStatus::PENDING, TaskStatus::ASSIGNED, TaskStatus::RUNNING]
            .into_iter()
            .flat_map(|status| self.rows_of(status))
            .collect()
    }

    /// Another replica leads from now on.
    pub(crate) fn elect(&mut self) {
        self.control = Control::new(Config::local(), self.now);
        self.control.load(&self.rows).expect("rows decode");
        self.inputs.clear();
        self.waiting.clear();
    }

    pub(crate) fn step(&mut self) {
        self.now += STEP_MS;
        self.beat();
        let inputs = std::mem::take(&mut self.inputs);
        let actions = self.control.step(self.now, inputs);
        for action in actions {
            match action {
                Action::Propose { tag, commands } => {
                    self.count(&commands);
                    let replies = self.propose(commands);
                    self.inputs.push(Input::Proposed { tag, replies: Some(replies) });
                }
                Action::AnswerBeat { ticket, answer } => {
                    let (Some(worker), Some(answer)) = (self.waiting.remove(&ticket), answer) else { continue };
                    let worker = &mut self.workers[worker];
                    worker.incarnation = answer.incarnation;
                    answer.revoked.iter().for_each(|lease| {
                        worker.running.remove(lease);
                    });
                }
                Action::Explained { explanation, .. } => {
                    self.explained = Some(explanation.map(|explanation| *explanation));
                }
                Action::Aggregate { .. } => unreachable!("nothing trains here"),
                Action::WakeAt(at) => assert!(at > self.now, "a step must not wake itself at once"),
            }
        }
        self.work();
    }

    fn count(&mut self, commands: &[Command]) {
        for command in commands {
            match &command.kind {
                Some(Kind::preempt_task(_)) => self.preemptions += 1,
                Some(Kind::assign(assign)) if assign.assignments.len() > 1 => self.gangs_placed += 1,
                _ => {}
            }
        }
    }

    fn beat(&mut self) {
        for (n, worker) in self.workers.iter_mut().enumerate() {
            if !worker.is_alive || self.now < worker.next_beat {
                continue;
            }
            worker.next_beat = self.now + 200;
            self.ticket += 1;
            self.waiting.insert(self.ticket, n);
            let beat = Beat {
                node_id: worker.node.node_id.clone(),
                boot_nonce: worker.boot_nonce,
                incarnation: worker.incarnation,
                held: worker.running.keys().cloned().collect(),
                node: (worker.incarnation == 0).then(|| worker.node.clone()),
                ..Beat::default()
            };
            self.inputs.push(Input::Beat { ticket: self.ticket, beat });
        }
        self.inputs.push(Input::QuorumConfirmed { ticket: self.ticket });
    }

    /// What workers do: start what they got, end what is stopped or done.
    fn work(&mut self) {
        let mut commands = Vec::new();
        for n in 0..self.workers.len() {
            if !self.workers[n].is_alive {
                continue;
            }
            let node_id = self.workers[n].node.node_id.clone();
            for row in views::tasks_of_node(&self.rows, &node_id).expect("memory") {
                let task = row.get_task();
                let lease = (task.task_id.clone(), row.open_epoch);
                if task.phase == Phase::PHASE_STOPPING {
                    self.workers[n].running.remove(&lease);
                    commands.push(report(&lease, TaskStatus::FAILED));
                } else if !self.workers[n].running.contains_key(&lease) {
                    let ends = self.now + 50 + self.rng.below(2_000);
                    self.workers[n].running.insert(lease.clone(), ends);
                    commands.push(Kind::start(Start { task_id: lease.0, epoch: lease.1, ..Start::default() }));
                }
            }
            let now = self.now;
            let over: Vec<_> =
                self.workers[n].running.iter().filter(|(_, at)| **at <= now).map(|(lease, _)| lease.clone()).collect();
            for lease in over {
                self.workers[n].running.remove(&lease);
                let failed = self.failures > 0 && self.rng.one_in(self.failures);
                commands.push(report(&lease, if failed { TaskStatus::FAILED } else { TaskStatus::COMPLETED }));
            }
        }
        for kind in commands {
            self.run(kind);
        }
    }

    /// The process is gone with all that ran in it.
    pub(crate) fn kill(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        worker.is_alive = false;
        worker.running.clear();
    }

    pub(crate) fn revive(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        if !worker.is_alive {
            worker.is_alive = true;
            worker.boot_nonce += 1_000;
            worker.incarnation = 0;
            worker.next_beat = self.now;
        }
    }

    pub(crate) fn cancel(&mut self, task_id: &str) {
        self.run(Kind::cancel_task(CancelTask { task_id: task_id.into(), ..CancelTask::default() }));
    }

    /// Asks the leader.
    pub(crate) fn explain(&mut self, task_id: &str) -> Option<Explanation> {
        self.inputs.push(Input::Explain { ticket: 1 << 40, task_id: task_id.into() });
        self.step();
        self.explained.take().expect("it is answered in the same step")
    }
}

fn report((task_id, epoch): &(String, u64), final_status: TaskStatus) -> Kind {
    Kind::report_result(ReportResult {
        task_id: task_id.clone(),
        epoch: *epoch,
        final_status,
        ..ReportResult::default()
    })
}
