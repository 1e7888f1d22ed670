//! What clients order about tasks, queues and nodes that are there, and how they take it back in the end: a healed cluster holds nothing back.

use std::collections::{BTreeMap, VecDeque};

use raftgrid_proto::v1::{
    Command, Command_oneof_kind as Kind, Eligibility, PutQueue, Queue, RequeueTask, ResumeTask, RetryTask,
    SetEligibility, SetMaintenance, SetPriority, SuspendTask,
};

use crate::limits::EPOCH_MS;
use crate::rng::Rng;

/// The queue that some tasks name.
pub const QUEUE: &str = "queue";

/// Orders of one client.
#[derive(Debug, Default)]
pub struct Orders {
    /// It drains and cordons machines. One client does: with more, hardly a machine would ever work.
    runs_machines: bool,
    /// Suspended tasks and held nodes, with what takes it back.
    held: BTreeMap<String, Kind>,
    /// The machine among them.
    holds_node: Option<String>,
    /// What is still to be taken back.
    open: VecDeque<Kind>,
}

impl Orders {
    /// Of a client; the first one runs the machines.
    pub fn of(client: usize) -> Self {
        Self { runs_machines: client == 0, ..Self::default() }
    }

    /// An order about `task`, a queue, or one of the workers' machines.
    pub fn draw(&mut self, task: &str, workers: u64, now_us: u64, rng: &mut Rng) -> Kind {
        let task_id = task.to_owned();
        match rng.below(if self.runs_machines { 8 } else { 6 }) {
            0 => queue(workers, rng),
            1 => {
                let priority = i32::try_from(rng.below(101)).unwrap_or(0);
                Kind::set_priority(SetPriority { task_id, priority, ..SetPriority::default() })
            }
            2 | 3 => Kind::retry_task(RetryTask { task_id, ..RetryTask::default() }),
            4 => {
                let reason = "simulated".to_owned();
                Kind::requeue_task(RequeueTask { task_id, reason, ..RequeueTask::default() })
            }
            5 => match self.held.remove(task) {
                Some(resume) => resume,
                None => {
                    let resume = ResumeTask { task_id: task_id.clone(), ..ResumeTask::default() };
                    self.held.insert(task_id.clone(), Kind::resume_task(resume));
                    let reason = "simulated".to_owned();
                    Kind::suspend_task(SuspendTask { task_id, reason, ..SuspendTask::default() })
                }
            },
            6 => self.hold_node(workers, rng),
            _ => {
                // It ends by itself; by whose clock is the leader's business.
                let until_ms = EPOCH_MS + now_us / 1_000 + rng.between(500, 8_000);
                let node_id = node(workers, rng);
                Kind::set_maintenance(SetMaintenance { node_id, until_ms, ..SetMaintenance::default() })
            }
        }
    }

    /// A node is drained, or cordoned; if one is, it is let go instead.
    fn hold_node(&mut self, workers: u64, rng: &mut Rng) -> Kind {
        if let Some(release) = self.holds_node.take().and_then(|node_id| self.held.remove(&node_id)) {
            return release;
        }
        let node_id = node(workers, rng);
        self.holds_node = Some(node_id.clone());
        self.held.insert(node_id.clone(), eligibility(&node_id, Eligibility::ELIGIBLE));
        eligibility(&node_id, if rng.chance(500) { Eligibility::DRAINING } else { Eligibility::CORDONED })
    }

    /// No more orders: everything that is held is to be taken back, and every machine may work, whoever held it.
    pub fn close(&mut self, workers: u64) {
        self.open.extend(std::mem::take(&mut self.held).into_values());
        self.open.extend((0..workers).map(|number| eligibility(&node_of(number), Eligibility::ELIGIBLE)));
    }

    /// The next to take back.
    pub fn take_back(&mut self) -> Option<Kind> {
        self.open.pop_front()
    }

    /// Nobody answered; it is to be taken back still.
    pub fn again(&mut self, unanswered: Command) {
        self.open.extend(unanswered.kind);
    }

    /// Whether everything is taken back.
    pub fn is_closed(&self) -> bool {
        self.open.is_empty()
    }
}

/// A worker's node id.
pub fn node_of(worker: u64) -> String {
    format!("worker-{worker}")
}

fn node(workers: u64, rng: &mut Rng) -> String {
    node_of(rng.below(workers))
}

fn eligibility(node_id: &str, eligibility: Eligibility) -> Kind {
    let node_id = node_id.to_owned();
    Kind::set_eligibility(SetEligibility { node_id, eligibility, ..SetEligibility::default() })
}

/// The queue gets another quota, wide enough for one task at least.
fn queue(workers: u64, rng: &mut Rng) -> Kind {
    let mut queue = Queue { name: QUEUE.to_owned(), weight: 2, ..Queue::default() };
    queue.set_max_running(u32::try_from(rng.between(1, 3 * workers)).unwrap_or(1));
    Kind::put_queue(PutQueue { queue: Some(queue).into(), ..PutQueue::default() })
}
