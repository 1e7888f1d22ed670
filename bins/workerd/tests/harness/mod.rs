//! A control plane by script, and a host or worker on it that runs real processes through the real workerd.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use raftgrid_proto::v1::*;
use raftgrid_worker::plane::ModelSink;
use raftgrid_worker::{ControlPlane, LeaseId, PlaneError, ReadSeek, WorkerConfig};
use sha2::{Digest, Sha256};

/// Longest wait for anything; only a failure takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Script {
    /// Handed out by the next poll.
    pub(crate) tasks: VecDeque<Task>,
    /// No heartbeat is answered while this is set.
    pub(crate) silent: bool,
    pub(crate) revoked: Vec<Lease>,
    pub(crate) stopping: Vec<Lease>,
    pub(crate) job: Job,
    /// What every artifact holds.
    pub(crate) artifact: Vec<u8>,
    pub(crate) artifact_fetches: usize,
    pub(crate) started: Vec<(String, u64)>,
    pub(crate) reports: Vec<ReportTaskResultRequest>,
    /// Uploaded, by id.
    pub(crate) kept: BTreeMap<String, Vec<u8>>,
    /// By lease epoch.
    pub(crate) logs: BTreeMap<u64, Vec<u8>>,
    pub(crate) beats: Vec<HeartbeatRequest>,
    pub(crate) deregistered: bool,
}

/// The control plane that a test writes.
#[derive(Default)]
pub(crate) struct Plane {
    script: Mutex<Script>,
    changed: Condvar,
}

impl Plane {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let result = change(&mut self.script.lock().expect("no panic"));
        self.changed.notify_all();
        result
    }

    /// Waits until `look` finds something.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&mut Script) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut script = self.script.lock().expect("no panic");
        loop {
            if let Some(found) = look(&mut script) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            script = self.changed.wait_timeout(script, Duration::from_millis(100)).expect("no panic").0;
        }
    }

    pub(crate) fn report_of(&self, epoch: u64) -> ReportTaskResultRequest {
        self.wait("a report", |script| script.reports.iter().find(|report| report.lease_epoch == epoch).cloned())
    }
}

/// Time to live of leases here, in milliseconds.
pub(crate) const TTL_MS: u32 = 1_500;

impl ControlPlane for Plane {
    fn heartbeat(&self, request: &HeartbeatRequest, _: Duration) -> Result<HeartbeatResponse, PlaneError> {
        self.change(|script| {
            script.beats.push(request.clone());
            if script.silent {
                return Err(PlaneError::Unavailable("silent".to_owned()));
            }
            let mut response = HeartbeatResponse::new();
            response.set_acknowledged(true);
            response.set_incarnation(3);
            response.set_next_beat_ms(50);
            response.set_lease_ttl_ms(TTL_MS);
            response.set_revoked(script.revoked.clone().into());
            response.set_stopping(script.stopping.clone().into());
            Ok(response)
        })
    }
    fn poll(&self, request: &PollTaskRequest) -> Result<PollTaskResponse, PlaneError> {
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.wait_ms));
        let mut script = self.script.lock().expect("no panic");
        while script.tasks.is_empty() && Instant::now() < deadline {
            script = self.changed.wait_timeout(script, Duration::from_millis(20)).expect("no panic").0;
        }
        let mut response = PollTaskResponse::new();
        let count = script.tasks.len().min(request.max_tasks as usize);
        response.set_tasks(script.tasks.drain(..count).collect());
        Ok(response)
    }
    fn start_task(&self, request: &StartTaskRequest, _: Duration) -> Result<StartTaskResponse, PlaneError> {
        self.change(|script| script.started.push((request.task_id.clone(), request.lease_epoch)));
        Ok(StartTaskResponse::new())
    }
    fn report(&self, request: &ReportTaskResultRequest, _: Duration) -> Result<ReportTaskResultResponse, PlaneError> {
        self.change(|script| script.reports.push(request.clone()));
        Ok(ReportTaskResultResponse::new())
    }
    fn append_log(&self, request: &AppendLogRequest) -> Result<AppendLogResponse, PlaneError> {
        self.change(|script| {
            let log = script.logs.entry(request.lease_epoch).or_default();
            assert_eq!(request.offset, log.len() as u64, "pieces come in order");
            log.extend_from_slice(&request.data);
        });
        Ok(AppendLogResponse::new())
    }
    fn deregister(&self, _: &DeregisterRequest, _: Duration) -> Result<(), PlaneError> {
        self.change(|script| script.deregistered = true);
        Ok(())
    }
    fn put_log(&self, bytes: Vec<u8>) -> Result<String, PlaneError> {
        Ok(self.change(|script| {
            let id = format!("log-{}", script.kept.len());
            script.kept.insert(id.clone(), bytes);
            id
        }))
    }
    fn job(&self, _: &str) -> Result<Job, PlaneError> {
        Ok(self.change(|script| script.job.clone()))
    }
    fn next_shards(&self, _: &NextShardsRequest) -> Result<NextShardsResponse, PlaneError> {
        Err(PlaneError::Unimplemented("not in this test".to_owned()))
    }
    fn fetch_model(&self, _: &ModelRequest, _: ModelSink<'_>) -> Result<(), PlaneError> {
        Err(PlaneError::Unimplemented("not in this test".to_owned()))
    }
    fn send_gradients(&self, _: &GradientChunk, _: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
        Err(PlaneError::Unimplemented("not in this test".to_owned()))
    }
    fn init_model(&self, _: &InitModelChunk, _: &mut dyn ReadSeek) -> Result<Ack, PlaneError> {
        Err(PlaneError::Unimplemented("not in this test".to_owned()))
    }
    fn get_artifact(&self, artifact: &str, target: &mut dyn Write) -> Result<Vec<u8>, PlaneError> {
        let bytes = self.change(|script| {
            script.artifact_fetches += 1;
            script.artifact.clone()
        });
        if bytes.is_empty() {
            return Err(PlaneError::NotFound(artifact.to_owned()));
        }
        target.write_all(&bytes).map_err(|error| PlaneError::Internal(error.to_string()))?;
        Ok(Sha256::digest(&bytes).to_vec())
    }
}

/// A tar with these files.
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, text.as_bytes()).expect("memory");
    }
    builder.into_inner().expect("memory")
}

pub(crate) fn task(epoch: u64, task_type: &str, task_data: &str) -> Task {
    let mut task = Task::new();
    task.set_task_id(format!("task-{epoch}"));
    task.set_task_type(task_type.to_owned());
    task.set_task_data(task_data.as_bytes().to_vec());
    task.set_lease_epoch(epoch);
    task.set_attempt(1);
    task
}

/// Folder of the attempt of `task(epoch, ..)`, of a worker in `dir`.
pub(crate) fn attempt_folder(dir: &Path, epoch: u64) -> PathBuf {
    let lease = LeaseId { task_id: format!("task-{epoch}"), epoch };
    dir.join("tasks").join(lease.file_name())
}

pub(crate) fn config(dir: PathBuf) -> WorkerConfig {
    let mut config = WorkerConfig::new("node-1", dir, env!("CARGO_BIN_EXE_workerd"));
    config.slots = 4;
    config.stop_grace_ms = 300;
    config.poll_wait_ms = 200;
    config
}

pub(crate) fn silent() -> slog::Logger {
    raftgrid_telemetry::silent()
}

pub(crate) fn plane() -> Arc<Plane> {
    Arc::new(Plane::default())
}

/// Whether a process runs (a zombie does not).
pub(crate) fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None))
}

/// Waits until the process is gone.
pub(crate) fn gone(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `path` holds `lines` lines that are numbers.
pub(crate) fn numbers_in(path: &std::path::Path, lines: usize) -> Vec<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.ends_with('\n');
        let numbers: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if whole && numbers.len() >= lines {
            return numbers;
        }
        assert!(Instant::now() < deadline, "{} never had {lines} numbers: {text}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
