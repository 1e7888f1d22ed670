//! Towards the machine: `Host` as the executor's runtime sees it, and the host that runs real processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crossbeam::channel::{bounded, Sender};
use raftgrid_proto::v1::{Limits, Task};
use rustix::fs::{flock, FlockOperation};
use slog::{info, warn, Logger};

use crate::bundle::Bundles;
use crate::cgroup::{self, Cgroup, Cgroups};
use crate::clock::unix_ms;
use crate::config::WorkerConfig;
use crate::executor::{Exit, LeaseId, StopSignal, Why};
use crate::generation;
use crate::gpus::GpuPool;
use crate::leftovers;
use crate::limits::TASK_DIRS_KEPT;
use crate::logs::LogShipper;
use crate::plane::ControlPlane;
use crate::process::{self, Control};
use crate::table::TaskTable;
use crate::venvs::Venvs;

/// Runs tasks. Each `launch` is answered by one `Exited`, whatever happens.
pub trait Host: Send {
    /// Starts a task; does not block.
    fn launch(&mut self, lease: &LeaseId, task: Task);
    /// Signals its process group, at once or as soon as there is one.
    fn stop(&mut self, lease: &LeaseId, signal: StopSignal, why: &Why);
    /// The attempt is over.
    fn forget(&mut self, lease: &LeaseId);
}

/// A process group is gone.
#[derive(Debug)]
pub struct Exited {
    /// Whose.
    pub lease: LeaseId,
    /// How.
    pub exit: Exit,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another worker runs there.
    #[error("failed to take the directory {0}: another worker uses it; give each worker a --dir of its own")]
    Busy(PathBuf),
    /// The disk, or a process that does not die.
    #[error("failed to prepare the directory {dir}: {cause}")]
    Io {
        /// The worker's directory.
        dir: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// What all attempts share.
pub(crate) struct Shared {
    pub(crate) config: WorkerConfig,
    pub(crate) agent_address: String,
    pub(crate) plane: Arc<dyn ControlPlane>,
    pub(crate) table: Arc<TaskTable>,
    pub(crate) bundles: Bundles,
    pub(crate) shipper: LogShipper,
    pub(crate) gpus: GpuPool,
    pub(crate) venvs: Venvs,
    pub(crate) logger: Logger,
    pub(crate) notes_folder: PathBuf,
    cgroups: OnceLock<Option<Cgroups>>,
    tasks_folder: PathBuf,
}

impl Shared {
    /// Each attempt has its own.
    pub(crate) fn attempt_folder(&self, lease: &LeaseId) -> PathBuf {
        self.tasks_folder.join(lease.file_name())
    }

    /// A cgroup for limits that need one; None: there are none of these, or no cgroups on this machine.
    pub(crate) fn cgroup(&self, lease: &LeaseId, limits: &Limits) -> Option<Cgroup> {
        let (memory, processes, cpu) = (limits.get_memory_bytes(), limits.get_processes(), limits.get_cpu_milli());
        if memory == 0 && processes == 0 && cpu == 0 {
            return None;
        }
        let cgroups = self.cgroups.get_or_init(|| {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let found = Cgroups::open(Path::new(cgroup::ROOT), &own);
            match &found {
                Ok(_) => info!(self.logger, "limits of tasks are kept by cgroups"),
                Err(why) => info!(self.logger, "no cgroups: memory of tasks is limited for each process by itself, \
                    their number and their share of the cores are not limited"; "why" => why),
            }
            found.ok()
        });
        match cgroups.as_ref()?.make(&lease.file_name(), limits) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                warn!(self.logger, "a task runs without a cgroup"; "epoch" => lease.epoch, "error" => %error);
                None
            }
        }
    }
}

/// Removes the folders of all but the newest finished attempts, on a thread of its own: a folder with a million files must not hold up the
/// executor, which renews the leases of all other tasks. Ends with the sender.
fn start_janitor(tasks_folder: PathBuf) -> std::io::Result<Sender<BTreeSet<u64>>> {
    // One order that waits is enough: it stands for all that came while a folder was removed.
    let (orders, inbox) = bounded::<BTreeSet<u64>>(1);
    std::thread::Builder::new().name("janitor".to_owned()).spawn(move || {
        for running in inbox {
            prune(&tasks_folder, &running);
        }
    })?;
    Ok(orders)
}

fn prune(tasks_folder: &Path, running: &BTreeSet<u64>) {
    let entries = fs::read_dir(tasks_folder).into_iter().flatten().flatten();
    let mut epochs: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    epochs.retain(|epoch| !running.contains(epoch));
    epochs.sort_unstable();
    for epoch in epochs.iter().take(epochs.len().saturating_sub(TASK_DIRS_KEPT)) {
        // What cannot be removed now is tried again after the next task.
        let _ = fs::remove_dir_all(tasks_folder.join(epoch.to_string()));
    }
}

/// A worker's directory, taken: no other worker uses it, and nothing of a predecessor runs any more.
pub struct WorkerDir {
    path: PathBuf,
    /// Rises with each worker that takes it.
    generation: u64,
    /// Held as long as the directory is used.
    _lock: fs::File,
}

impl WorkerDir {
    /// Takes the directory, making it if it is not there, and kills what a predecessor left.
    pub fn take(dir: &Path, logger: &Logger) -> Result<Self, HostError> {
        let failed = |cause| HostError::Io { dir: dir.to_owned(), cause };
        fs::create_dir_all(dir).map_err(failed)?;
        // Tasks run elsewhere: every path that they are told must be whole.
        let path = dir.canonicalize().map_err(failed)?;
        let lock = fs::File::create(path.join("lock")).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(HostError::Busy(dir.to_owned()));
        }
        for folder in ["run", "tasks"] {
            fs::create_dir_all(path.join(folder)).map_err(failed)?;
        }
        let killed = leftovers::kill_all(&path.join("run")).map_err(failed)?;
        if killed > 0 {
            warn!(logger, "processes of an earlier worker were killed"; "count" => killed);
        }
        let generation = generation::next(&path.join("generation"), unix_ms()).map_err(failed)?;
        Ok(Self { path, generation, _lock: lock })
    }

    /// Which worker of this directory it is: larger than that of each before it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A folder or file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Runs real processes, below the worker's directory.
pub struct ProcessHost {
    shared: Arc<Shared>,
    running: BTreeMap<LeaseId, Arc<Control>>,
    exits: Sender<Exited>,
    janitor: Sender<BTreeSet<u64>>,
    logger: Logger,
    _dir: WorkerDir,
}

impl ProcessHost {
    /// A host below `dir`. `agent_address` is told to the tasks.
    pub fn new(
        config: WorkerConfig,
        dir: WorkerDir,
        agent_address: String,
        plane: Arc<dyn ControlPlane>,
        table: Arc<TaskTable>,
        exits: Sender<Exited>,
        logger: &Logger,
    ) -> Result<Self, HostError> {
        let failed = |cause| HostError::Io { dir: config.dir.clone(), cause };
        let (notes_folder, tasks_folder) = (dir.join("run"), dir.join("tasks"));
        let bundles = Bundles::new(dir.join("bundles")).map_err(failed)?;
        let shipper = LogShipper::start(plane.clone(), logger).map_err(failed)?;
        let janitor = start_janitor(tasks_folder.clone()).map_err(failed)?;
        let venvs = config.venvs.clone().unwrap_or_else(|| dir.join("venvs"));
        let shared = Shared {
            gpus: GpuPool::new(&config.gpus),
            venvs: Venvs::new(venvs, config.python.clone()),
            logger: logger.clone(),
            cgroups: OnceLock::new(),
            config,
            agent_address,
            plane,
            table,
            bundles,
            shipper,
            notes_folder,
            tasks_folder,
        };
        let logger = logger.clone();
        Ok(Self { shared: Arc::new(shared), running: BTreeMap::new(), exits, janitor, logger, _dir: dir })
    }
}

impl Host for ProcessHost {
    fn launch(&mut self, lease: &LeaseId, task: Task) {
        let control = Arc::new(Control::default());
        self.running.insert(lease.clone(), control.clone());
        let (shared, exits, lease) = (self.shared.clone(), self.exits.clone(), lease.clone());
        let id = lease.clone();
        let started = std::thread::Builder::new().name(format!("task-{}", lease.epoch)).spawn(move || {
            let exit = process::run(&shared, &lease, &task, &control);
            let folder = shared.attempt_folder(&lease);
            // Nobody listens: the worker is ending.
            let _ = exits.send(Exited { lease, exit });
            process::clean(&folder);
        });
        if let Err(error) = started {
            let reason = format!("failed to start a thread for the task: {error}");
            let exit = Exit { code: crate::plan::exit_code::TRY_AGAIN, reason, ..Exit::default() };
            let _ = self.exits.send(Exited { lease: id, exit });
        }
    }

    fn stop(&mut self, lease: &LeaseId, signal: StopSignal, why: &Why) {
        info!(self.logger, "task is stopped"; "task_id" => &lease.task_id, "epoch" => lease.epoch,
            "signal" => ?signal, "why" => %why);
        let context = self.shared.table.find(lease);
        match (why, context) {
            (Why::Fenced | Why::Revoked, Some(context)) => context.fence(),
            (Why::Cancelled | Why::Drained | Why::TimedOut(_), Some(context)) => context.ask_to_stop(&why.to_string()),
            (_, None) => {}
        }
        if let Some(control) = self.running.get(lease) {
            if matches!(why, Why::Fenced | Why::Revoked) {
                control.lose();
            }
            control.stop(signal);
        }
    }

    fn forget(&mut self, lease: &LeaseId) {
        self.shared.table.remove(lease);
        self.running.remove(lease);
        // A janitor that is busy is told by the next one.
        let _ = self.janitor.try_send(self.running.keys().map(|lease| lease.epoch).collect());
    }
}

impl Drop for ProcessHost {
    fn drop(&mut self) {
        for control in self.running.values() {
            control.stop(StopSignal::Kill);
        }
    }
}

/// 128 random bits as hexadecimal digits.
pub fn random_token() -> String {
    format!("{:016x}{:016x}", random_u64(), random_u64())
}

/// Random bits from the kernel.
pub fn random_u64() -> u64 {
    use std::io::Read;
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.expect("every Linux has /dev/urandom");
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_folders_and_those_of_running_attempts_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let last = TASK_DIRS_KEPT as u64 + 10;
        (1..=last).for_each(|epoch| fs::create_dir(folder.path().join(epoch.to_string())).expect("writable"));
        prune(folder.path(), &BTreeSet::from([3]));
        let mut kept: Vec<u64> = fs::read_dir(folder.path())
            .expect("there")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        kept.sort_unstable();
        let expected: Vec<u64> = [3].into_iter().chain(11..=last).collect();
        assert_eq!(kept, expected);
    }
}
