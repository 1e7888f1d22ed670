//! Tasks that run here, by the token of their process: what the loopback service knows about its callers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::executor::LeaseId;

/// A lock whose data is valid after every statement, so that a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What does not change about a running attempt.
#[derive(Clone, Debug, Default)]
pub struct TaskFacts {
    /// This worker.
    pub node_id: String,
    /// The job; "" for a task without one.
    pub job_id: String,
    /// The task.
    pub task_id: String,
    /// Its lease.
    pub epoch: u64,
    /// Counts from 1.
    pub attempt: u32,
    /// Of a train job; 0 otherwise.
    pub num_shards: u32,
    /// Of a train job; 0 otherwise.
    pub rounds: u64,
    /// The job's seed.
    pub seed: u64,
    /// JSON object.
    pub config_json: String,
    /// This trainer makes model 0.
    pub init_task: bool,
}

/// One running attempt, as its process may ask about it.
#[derive(Debug, Default)]
pub struct TaskContext {
    facts: TaskFacts,
    fenced: AtomicBool,
    stop: Mutex<Option<String>>,
    result: Mutex<Option<String>>,
    model_digests: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl std::ops::Deref for TaskContext {
    type Target = TaskFacts;

    fn deref(&self) -> &TaskFacts {
        &self.facts
    }
}

impl From<TaskFacts> for TaskContext {
    fn from(facts: TaskFacts) -> Self {
        Self { facts, ..Self::default() }
    }
}

impl TaskContext {
    /// The attempt.
    pub fn lease(&self) -> LeaseId {
        LeaseId { task_id: self.task_id.clone(), epoch: self.epoch }
    }

    /// Whether the lease is lost: nothing of this process is passed on any more.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst)
    }

    /// The lease is lost.
    pub fn fence(&self) {
        self.fenced.store(true, Ordering::SeqCst);
    }

    /// Why the process should stop; None: it should not.
    pub fn stop_reason(&self) -> Option<String> {
        lock(&self.stop).clone()
    }

    /// The process should stop.
    pub fn ask_to_stop(&self, reason: &str) {
        *lock(&self.stop) = Some(reason.to_owned());
    }

    /// The result that the process set, if it did.
    pub fn result(&self) -> Option<String> {
        lock(&self.result).clone()
    }

    /// The process's result: JSON of at most `RESULT_BYTES_MAX`; the caller checks.
    pub fn set_result(&self, json: String) {
        *lock(&self.result) = Some(json);
    }

    /// SHA-256 of a model version, if a shard step told it.
    pub fn model_digest(&self, version: u64) -> Option<Vec<u8>> {
        lock(&self.model_digests).get(&version).cloned()
    }

    /// A shard step told the digest of a model version. The two newest are kept.
    pub fn remember_model(&self, version: u64, digest: &[u8]) {
        let mut digests = lock(&self.model_digests);
        digests.insert(version, digest.to_vec());
        while digests.len() > 2 {
            digests.pop_first();
        }
    }
}

/// Called when a lease turns out to be lost.
pub type OnStale = Box<dyn Fn(LeaseId) + Send + Sync>;

/// All running attempts of this worker.
#[derive(Default)]
pub struct TaskTable {
    by_token: Mutex<BTreeMap<String, Arc<TaskContext>>>,
    on_stale: Mutex<Option<OnStale>>,
}

impl TaskTable {
    /// Nobody yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Whose token it is.
    pub fn by_token(&self, token: &str) -> Option<Arc<TaskContext>> {
        lock(&self.by_token).get(token).cloned()
    }

    /// A process with this token may ask from now on.
    pub fn insert(&self, token: String, context: Arc<TaskContext>) {
        lock(&self.by_token).insert(token, context);
    }

    /// The attempt is over: its token is worth nothing, and calls of its process that are still under way end.
    pub fn remove(&self, lease: &LeaseId) {
        lock(&self.by_token).retain(|_, context| {
            let over = context.lease() == *lease;
            if over {
                context.fence();
            }
            !over
        });
    }

    /// The attempt's context.
    pub fn find(&self, lease: &LeaseId) -> Option<Arc<TaskContext>> {
        lock(&self.by_token).values().find(|context| context.lease() == *lease).cloned()
    }

    /// Whom to tell about lost leases.
    pub fn on_stale(&self, call: OnStale) {
        *lock(&self.on_stale) = Some(call);
    }

    /// The control plane refused something of this attempt as STALE_LEASE.
    pub fn stale(&self, context: &TaskContext) {
        context.fence();
        if let Some(call) = lock(&self.on_stale).as_ref() {
            call(context.lease());
        }
    }
}
