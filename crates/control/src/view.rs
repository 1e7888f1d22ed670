//! What the leader remembers of the rows: tasks that are not over, nodes, live jobs with their newest round, artifacts that may have to go.
//!
//! Filled from a snapshot and from every later change by the same `apply`. It decides nothing and knows no clock.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::Message;
use raftgrid_manifest::{Change, RowsError, Table, STATES_EXPIRE_SINCE, STATE_KIND};
use raftgrid_proto::v1::{
    ArtifactRow, ArtifactState, ContributionRow, Eligibility, JobPhase, JobRow, MetaRow, NodeRow, Phase, Queue,
    QueueRow, RoundPhase, RoundRow, ScheduleRow, TaskRow, TaskStatus,
};

use crate::limits::{AVOIDED_NODES_MAX, LOG_KEPT_MS, STATE_UNNAMED_MS};

/// What a change was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    Meta,
    /// By sequence.
    Task(u64),
    Node(String),
    /// By name.
    Queue(String),
    /// By sequence: its row, its newest round or a contribution.
    Job(u64),
    Artifact(u64),
    /// Sequence of a task that is over while some that wait for it were not told.
    Unresolved(u64),
    Schedule(String),
    Nothing,
}

/// A job that is live, or over with tasks that are not.
#[derive(Debug, Default)]
pub(crate) struct JobView {
    pub(crate) row: JobRow,
    /// By number: the oldest round that is not committed (or the last one of all), and those that collect contributions ahead of it.
    rounds: BTreeMap<u64, RoundView>,
}

/// A round and what was given to it.
#[derive(Debug, Default)]
pub(crate) struct RoundView {
    pub(crate) row: RoundRow,
    /// By shard; empty digest: only refused ones so far.
    pub(crate) given: BTreeMap<u32, ContributionRow>,
}

impl RoundView {
    pub(crate) fn is_given(&self, shard: u32) -> bool {
        self.given.get(&shard).is_some_and(|given| !given.digest.is_empty())
    }
}

impl JobView {
    /// The round that is open, sealed or (after the last one) committed; None before model 0.
    pub(crate) fn head(&self) -> Option<&RoundView> {
        self.rounds.values().next()
    }

    /// Rounds that collect contributions ahead of their model, in order.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = &RoundView> {
        self.rounds.values().skip(1)
    }

    fn put_round(&mut self, row: RoundRow) {
        let (number, oldest) = (row.round, self.rounds.keys().next().copied());
        if oldest.is_some_and(|oldest| number < oldest) {
            return;
        }
        self.rounds.entry(number).or_default().row = row;
        while self.rounds.len() > 1 {
            let Some(first) = self.rounds.first_entry() else { break };
            if first.get().row.phase != RoundPhase::ROUND_COMMITTED {
                break;
            }
            first.remove();
        }
    }
}

/// Of artifacts that are logs of attempts.
const LOG_KIND: &str = "log";

/// An artifact that is on its way out, or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// An upload that is deleted if it is not committed by this cluster time, or a log that has been kept for long enough by then.
    Expires(u64),
    /// The first phase of its deletion is done.
    Deleting,
}

/// A node on which attempts of a pending task ended without success. The leader's memory, not the log's: it is advice, which a new leader can
/// do without and learns again, and it would make every failure of a task grow its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Avoided {
    pub(crate) node_id: String,
    /// How many attempts.
    pub(crate) times: u32,
}

#[derive(Debug, Default)]
pub(crate) struct View {
    /// As of the last Meta row.
    pub(crate) cluster_time_ms: u64,
    /// As of the last Meta row; 0 before one was seen.
    pub(crate) machine_version: u64,
    /// Not terminal, by sequence; without payload and result.
    pub(crate) tasks: BTreeMap<u64, TaskRow>,
    task_ids: BTreeMap<String, u64>,
    /// Open leases by node.
    by_node: BTreeMap<String, BTreeSet<u64>>,
    by_job: BTreeMap<u64, BTreeSet<u64>>,
    /// Nodes on which a pending task's attempts ended, the newest last. The leader's memory: a new leader starts without.
    avoided: BTreeMap<u64, Vec<Avoided>>,
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) nodes: BTreeMap<String, NodeRow>,
    /// Of those, the ones that drain.
    pub(crate) draining: BTreeSet<String>,
    pub(crate) jobs: BTreeMap<u64, JobView>,
    job_ids: BTreeMap<String, u64>,
    /// By artifact id; committed artifacts are not here, but for logs.
    pub(crate) leaving: BTreeMap<u64, Leaving>,
    /// Sequences of tasks that are over while some that wait for them were not told.
    pub(crate) unresolved: BTreeSet<u64>,
    pub(crate) schedules: BTreeMap<String, ScheduleRow>,
    /// A lower bound of the position up to which everything is in here.
    pub(crate) newest: u64,
}

impl View {
    pub(crate) fn task_by_id(&self, task_id: &str) -> Option<(u64, &TaskRow)> {
        let sequence = *self.task_ids.get(task_id)?;
        Some((sequence, self.tasks.get(&sequence)?))
    }

    pub(crate) fn job_by_id(&self, job_id: &str) -> Option<(u64, &JobView)> {
        let sequence = *self.job_ids.get(job_id)?;
        Some((sequence, self.jobs.get(&sequence)?))
    }

    /// Sequences of the tasks whose lease the node holds.
    pub(crate) fn leases_of_node(&self, node_id: &str) -> Vec<u64> {
        self.by_node.get(node_id).map(|tasks| tasks.iter().copied().collect()).unwrap_or_default()
    }

    /// Tasks of a job that are not over, in order of sequence.
    pub(crate) fn tasks_of_job(&self, job: u64) -> impl Iterator<Item = (u64, &TaskRow)> {
        self.by_job.get(&job).into_iter().flatten().filter_map(|task| Some((*task, self.tasks.get(task)?)))
    }

    /// Is the lease (task, epoch) open?
    pub(crate) fn lease_is_open(&self, task_id: &str, epoch: u64) -> bool {
        epoch != 0 && self.task_by_id(task_id).is_some_and(|(_, row)| row.open_epoch == epoch)
    }

    /// Takes a row's new value.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<Touched, RowsError> {
        let value = change.value.as_deref();
        match change.table {
            Table::Meta => self.apply_meta(value),
            Table::Task => self.apply_task(number(&change.key, 0)?, value),
            Table::Node => self.apply_node(&change.key, value),
            Table::Queue => self.apply_queue(&change.key, value),
            Table::Job => self.apply_job(number(&change.key, 0)?, value),
            Table::Round => self.apply_round(number(&change.key, 0)?, value),
            Table::Contribution => self.apply_contribution(number(&change.key, 0)?, value),
            Table::Artifact => self.apply_artifact(number(&change.key, 0)?, value),
            Table::Dependent => self.apply_dependent(&change.key, value.is_some()),
            Table::Schedule => self.apply_schedule(&change.key, value),
            Table::OpenElement
            | Table::ArrayChunk
            | Table::TaskById
            | Table::TaskByStatus
            | Table::TaskByNode
            | Table::TaskByJob
            | Table::JobById
            | Table::ArtifactByName
            | Table::Request
            | Table::RequestByAge
            | Table::Member
            | Table::TaskByQueue
            | Table::Digest
            | Table::Kv
            | Table::KvByJob
            | Table::KvCount
            | Table::RoundHistory
            | Table::Name
            | Table::Usage => Ok(Touched::Nothing),
        }
    }

    /// Only what is left to the leader: keys that begin with 0.
    fn apply_dependent(&mut self, key: &[u8], present: bool) -> Result<Touched, RowsError> {
        let (first, task) = (number(key, 0)?, number(key, 8)?);
        if first != 0 {
            return Ok(Touched::Nothing);
        }
        if present {
            self.unresolved.insert(task);
        } else {
            self.unresolved.remove(&task);
        }
        Ok(Touched::Unresolved(task))
    }

    fn apply_schedule(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Touched, RowsError> {
        let id = String::from_utf8_lossy(key).into_owned();
        match decode::<ScheduleRow>(value)? {
            Some(row) => {
                self.saw(row.get_schedule().revision);
                self.schedules.insert(id.clone(), row);
            }
            None => {
                self.schedules.remove(&id);
            }
        }
        Ok(Touched::Schedule(id))
    }

    fn saw(&mut self, position: u64) {
        self.newest = self.newest.max(position);
    }

    fn apply_meta(&mut self, value: Option<&[u8]>) -> Result<Touched, RowsError> {
        if let Some(row) = decode::<MetaRow>(value)? {
            self.cluster_time_ms = self.cluster_time_ms.max(row.cluster_time_ms);
            self.machine_version = self.machine_version.max(row.machine_version);
        }
        Ok(Touched::Meta)
    }

    fn apply_task(&mut self, sequence: u64, value: Option<&[u8]>) -> Result<Touched, RowsError> {
        let left = self.holder(sequence);
        let was_stopping = self.tasks.get(&sequence).is_some_and(|row| row.get_task().phase == Phase::PHASE_STOPPING);
        self.forget_task(sequence);
        let row = decode::<TaskRow>(value)?;
        let Some(mut row) = row.inspect(|row| self.saw(row.get_task().revision)).filter(|row| !is_over(row)) else {
            self.avoided.remove(&sequence);
            return Ok(Touched::Task(sequence));
        };
        let failed = row.open_epoch == 0 && row.get_task().phase == Phase::PHASE_BACKOFF;
        if let Some(node_id) = left.filter(|_| failed || (row.open_epoch == 0 && !was_stopping)) {
            self.avoid(sequence, node_id);
        }
        row.last_report.clear();
        let task = row.mut_task();
        task.task_data = Vec::new();
        task.result_data = String::new();
        self.task_ids.insert(task.task_id.clone(), sequence);
        let node_id = task.assigned_node_id.clone();
        if row.open_epoch != 0 {
            self.by_node.entry(node_id).or_default().insert(sequence);
        }
        if row.job_sequence != 0 || !row.get_task().job_id.is_empty() {
            self.by_job.entry(row.job_sequence).or_default().insert(sequence);
        }
        self.tasks.insert(sequence, row);
        Ok(Touched::Task(sequence))
    }

    /// The node that holds the task's open lease.
    fn holder(&self, sequence: u64) -> Option<String> {
        let row = self.tasks.get(&sequence).filter(|row| row.open_epoch != 0)?;
        Some(row.get_task().assigned_node_id.clone())
    }

    /// An attempt of the task ended on the node without success.
    fn avoid(&mut self, sequence: u64, node_id: String) {
        let nodes = self.avoided.entry(sequence).or_default();
        let known = nodes.iter().position(|known| known.node_id == node_id);
        let times = known.map_or(0, |at| nodes.remove(at).times) + 1;
        nodes.push(Avoided { node_id, times });
        let excess = nodes.len().saturating_sub(AVOIDED_NODES_MAX);
        nodes.drain(..excess);
    }

    /// Nodes on which attempts of the task ended, the newest last.
    pub(crate) fn avoided_nodes(&self, sequence: u64) -> &[Avoided] {
        self.avoided.get(&sequence).map_or(&[], Vec::as_slice)
    }

    fn forget_task(&mut self, sequence: u64) {
        let Some(old) = self.tasks.remove(&sequence) else { return };
        if self.task_ids.get(&old.get_task().task_id) == Some(&sequence) {
            self.task_ids.remove(&old.get_task().task_id);
        }
        remove_member(&mut self.by_node, &old.get_task().assigned_node_id, sequence);
        remove_member(&mut self.by_job, &old.job_sequence, sequence);
    }

    fn apply_node(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Touched, RowsError> {
        let node_id = String::from_utf8_lossy(key).into_owned();
        match decode::<NodeRow>(value)? {
            Some(row) => {
                self.saw(row.get_node().incarnation);
                if row.get_node().eligibility == Eligibility::DRAINING {
                    self.draining.insert(node_id.clone());
                } else {
                    self.draining.remove(&node_id);
                }
                self.nodes.insert(node_id.clone(), row);
            }
            None => {
                self.draining.remove(&node_id);
                self.nodes.remove(&node_id);
            }
        }
        Ok(Touched::Node(node_id))
    }

    fn apply_queue(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Touched, RowsError> {
        let name = String::from_utf8_lossy(key).into_owned();
        match decode::<QueueRow>(value)?.and_then(|row| row.queue.into_option()) {
            Some(queue) => {
                let old = self.queues.insert(name.clone(), queue.clone());
                // What its tasks hold is counted from their rows.
                if old.is_some_and(|old| same_settings(&old, &queue)) {
                    return Ok(Touched::Nothing);
                }
            }
            None => {
                self.queues.remove(&name);
            }
        }
        Ok(Touched::Queue(name))
    }

    fn apply_job(&mut self, sequence: u64, value: Option<&[u8]>) -> Result<Touched, RowsError> {
        match decode::<JobRow>(value)? {
            Some(row) if is_live(row.get_job().phase) || row.open_tasks > 0 => {
                self.saw(row.get_job().revision);
                self.job_ids.insert(row.get_job().job_id.clone(), sequence);
                self.jobs.entry(sequence).or_default().row = row;
            }
            other => {
                if let Some(row) = other {
                    self.saw(row.get_job().revision);
                }
                self.forget_job(sequence);
            }
        }
        Ok(Touched::Job(sequence))
    }

    fn forget_job(&mut self, sequence: u64) {
        let Some(old) = self.jobs.remove(&sequence) else { return };
        if self.job_ids.get(&old.row.get_job().job_id) == Some(&sequence) {
            self.job_ids.remove(&old.row.get_job().job_id);
        }
    }

    fn apply_round(&mut self, job: u64, value: Option<&[u8]>) -> Result<Touched, RowsError> {
        let Some(row) = decode::<RoundRow>(value)? else { return Ok(Touched::Job(job)) };
        // An entry's changes come in order of (table, key): the job's row was seen before. One that is not here is over.
        let Some(view) = self.jobs.get_mut(&job) else { return Ok(Touched::Nothing) };
        view.put_round(row);
        Ok(Touched::Job(job))
    }

    fn apply_contribution(&mut self, job: u64, value: Option<&[u8]>) -> Result<Touched, RowsError> {
        let Some(row) = decode::<ContributionRow>(value)? else { return Ok(Touched::Job(job)) };
        self.saw(row.position);
        let Some(view) = self.jobs.get_mut(&job) else { return Ok(Touched::Nothing) };
        // Its round's row came before it, in the same entry or an earlier one; without it the round is no longer of interest.
        if let Some(round) = view.rounds.get_mut(&row.round) {
            round.given.insert(row.shard, row);
        }
        Ok(Touched::Job(job))
    }

    fn apply_artifact(&mut self, artifact: u64, value: Option<&[u8]>) -> Result<Touched, RowsError> {
        self.saw(artifact);
        let leaving = decode::<ArtifactRow>(value)?.and_then(|row| match row.state {
            ArtifactState::ARTIFACT_BEGUN if row.expires_ms != 0 => Some(Leaving::Expires(row.expires_ms)),
            ArtifactState::ARTIFACT_DELETING => Some(Leaving::Deleting),
            ArtifactState::ARTIFACT_COMMITTED if row.kind == LOG_KIND && row.expires_ms != 0 => {
                Some(Leaving::Expires(row.expires_ms.saturating_add(LOG_KEPT_MS)))
            }
            // No contribution named it: whichever does makes it its job's, and then it does not expire.
            ArtifactState::ARTIFACT_COMMITTED
                if row.kind == STATE_KIND && row.expires_ms != 0 && self.machine_version >= STATES_EXPIRE_SINCE =>
            {
                Some(Leaving::Expires(row.expires_ms.saturating_add(STATE_UNNAMED_MS)))
            }
            ArtifactState::ARTIFACT_BEGUN | ArtifactState::ARTIFACT_COMMITTED => None,
        });
        match leaving {
            Some(leaving) => self.leaving.insert(artifact, leaving),
            None => self.leaving.remove(&artifact),
        };
        Ok(Touched::Artifact(artifact))
    }
}

fn same_settings(a: &Queue, b: &Queue) -> bool {
    (a.weight, a.max_running) == (b.weight, b.max_running) && a.quota == b.quota
}

fn is_over(row: &TaskRow) -> bool {
    match row.get_task().status {
        TaskStatus::COMPLETED | TaskStatus::FAILED => true,
        TaskStatus::PENDING | TaskStatus::ASSIGNED | TaskStatus::RUNNING => false,
    }
}

/// Not over: may still move by itself or by a person.
pub(crate) fn is_live(phase: JobPhase) -> bool {
    match phase {
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => true,
        JobPhase::JOB_DONE | JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => false,
    }
}

fn remove_member<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u64>>, key: &K, member: u64) {
    if let Some(members) = index.get_mut(key) {
        members.remove(&member);
        if members.is_empty() {
            index.remove(key);
        }
    }
}

/// The big-endian number at byte `at` of a key.
pub(crate) fn number(key: &[u8], at: usize) -> Result<u64, RowsError> {
    let bytes = key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| RowsError(format!("a key of {} bytes is too short", key.len())))
}

fn decode<M: Message>(value: Option<&[u8]>) -> Result<Option<M>, RowsError> {
    match value {
        None => Ok(None),
        Some(bytes) => M::parse_from_bytes(bytes)
            .map(Some)
            .map_err(|error| RowsError(format!("a row of {} does not decode: {error}", M::descriptor_static().name()))),
    }
}
