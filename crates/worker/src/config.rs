//! What a worker is told when it starts.

use std::path::PathBuf;

use raftgrid_proto::v1::Label;

use crate::gpus::Gpu;

/// Settings of one worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Unique in the cluster.
    pub node_id: String,
    /// Everything that this worker writes is below it; one worker per directory.
    pub dir: PathBuf,
    /// Tasks at once; 0: one per core.
    pub slots: u32,
    /// The Python interpreter.
    pub python: String,
    /// Task types that this machine cannot run: the scheduler keeps them away.
    pub unable: Vec<String>,
    /// Put in front of PYTHONPATH, behind the bundle; "" for none.
    pub python_path: String,
    /// The binary that has `run-task`: workerd.
    pub shim: PathBuf,
    /// As constraints name it.
    pub cloud_provider: String,
    /// As constraints name it.
    pub region: String,
    /// key = value, as constraints name them.
    pub labels: Vec<Label>,
    /// From SIGTERM to SIGKILL for cancelled and drained tasks, in milliseconds; shorter than the leader's own grace.
    pub stop_grace_ms: u64,
    /// How long a poll waits for a task, in milliseconds.
    pub poll_wait_ms: u64,
    /// What is told to the cluster as this worker's version.
    pub version: String,
    /// host:port of the replicas, as tasks are told them; empty: they are not told.
    pub endpoints: Vec<String>,
    /// GPUs that tasks get, each to itself.
    pub gpus: Vec<Gpu>,
    /// They were found by nvidia-smi, and are looked at again.
    pub gpus_are_real: bool,
    /// Where virtual environments of jobs are kept, for all workers of the machine; None: below `dir`.
    pub venvs: Option<PathBuf>,
}

impl WorkerConfig {
    /// Defaults of the `lan` preset.
    pub fn new(node_id: impl Into<String>, dir: impl Into<PathBuf>, shim: impl Into<PathBuf>) -> Self {
        Self {
            node_id: node_id.into(),
            dir: dir.into(),
            slots: 0,
            python: "python3".to_owned(),
            unable: Vec::new(),
            python_path: String::new(),
            shim: shim.into(),
            cloud_provider: String::new(),
            region: String::new(),
            labels: Vec::new(),
            stop_grace_ms: 15_000,
            poll_wait_ms: 10_000,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoints: Vec::new(),
            gpus: Vec::new(),
            gpus_are_real: false,
            venvs: None,
        }
    }

    /// Scales the waits as `--preset` does: local, lan or wan. False: no such preset.
    pub fn preset(&mut self, name: &str) -> bool {
        let (stop_grace_ms, poll_wait_ms) = match name {
            "local" => (3_000, 2_000),
            "lan" => (15_000, 10_000),
            "wan" => (15_000, 10_000),
            _ => return false,
        };
        self.stop_grace_ms = stop_grace_ms;
        self.poll_wait_ms = poll_wait_ms;
        true
    }

    /// Slots with the default filled in.
    pub fn slots_or_cores(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let slots = if self.slots == 0 { u32::try_from(cores).unwrap_or(1) } else { self.slots };
        slots.min(crate::limits::SLOTS_MAX)
    }
}
