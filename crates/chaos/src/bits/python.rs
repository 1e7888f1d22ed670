//! Kills of Python processes: at a point in them, by an order that one of them takes, and at any moment, by SIGKILL.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{kill_process, Pid, Signal};

/// Looks for orders; Python imports it before the script.
const HOOK: &str = include_str!("sitecustomize.py");
/// In the environment of all that runs for a task.
const TASK_MARK: &str = "RAFTGRID_AGENT=";

/// Where a Python process can be made to kill itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PythonPoint {
    /// It has the model of the round.
    Loaded,
    /// It has the gradient, and has sent nothing of it.
    BeforePush,
    /// Chunks of the gradient are under way, their end is not.
    Uploading,
    /// It has the Ack.
    Pushed,
}

impl PythonPoint {
    /// All of them.
    pub const EACH: [PythonPoint; 4] = [Self::Loaded, Self::BeforePush, Self::Uploading, Self::Pushed];
}

impl fmt::Display for PythonPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "python.loaded",
            Self::BeforePush => "python.before-push",
            Self::Uploading => "python.uploading",
            Self::Pushed => "python.pushed",
        })
    }
}

/// The folder of a run that its Python processes look into.
pub struct Orders {
    folder: PathBuf,
}

impl Orders {
    /// Makes it, with the hook, to be put on the Python path.
    pub fn new(folder: PathBuf) -> Result<Self> {
        for part in ["orders", "taken"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("failed to make {}", folder.display()))?;
        }
        fs::write(folder.join("sitecustomize.py"), HOOK).context("failed to write the hook of Python")?;
        Ok(Self { folder })
    }

    /// For PYTHONPATH.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The next process that comes past the point kills itself.
    pub fn give(&self, point: PythonPoint) -> Result<()> {
        fs::write(self.folder.join("orders").join(point.to_string()), "").context("failed to order a kill")
    }

    /// How often a process killed itself there.
    pub fn taken(&self, point: PythonPoint) -> u64 {
        let Ok(entries) = fs::read_dir(self.folder.join("taken")) else { return 0 };
        let prefix = format!("{point}.");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&prefix)).count() as u64
    }
}

/// Parent of a process; None: it is gone.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the state and the parent follow it (proc(5)).
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Processes of tasks whose parent is `worker`.
pub fn tasks_of(worker: u32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let of_task = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(TASK_MARK.as_bytes()))
    };
    pids.filter(|pid| parent(*pid) == i32::try_from(worker).ok()).filter(of_task).collect()
}

/// SIGKILL to a task's process. False: it is gone.
pub fn kill(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_counted_when_it_is_taken_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let orders = Orders::new(folder.path().to_owned()).expect("writable");
        orders.give(PythonPoint::Pushed).expect("writable");
        assert_eq!(orders.taken(PythonPoint::Pushed), 0);
        fs::rename(folder.path().join("orders/python.pushed"), folder.path().join("taken/python.pushed.77"))
            .expect("it is there");
        assert_eq!(orders.taken(PythonPoint::Pushed), 1);
        assert_eq!(orders.taken(PythonPoint::Loaded), 0);
    }

    #[test]
    fn the_hook_knows_every_point() {
        for point in PythonPoint::EACH {
            assert!(HOOK.contains(&format!("reach(\"{point}\"")), "{point}");
        }
    }
}
