//! cgroup v2 of attempts, where this worker may make some: it runs in a cgroup of its own that was delegated to it (a systemd unit with
//! `Delegate=yes`, a container), and no other process is in there.
//!
//! Whether that is so is found out by trying, once, when the first task with limits comes. The worker then moves into a leaf, since a cgroup
//! with controllers for its children may hold no process itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raftgrid_proto::v1::Limits;

/// Where cgroup v2 is.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Period of cpu.max, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
const REMOVALS: u32 = 100;

/// The cgroup below which attempts have theirs.
#[derive(Debug)]
pub(crate) struct Cgroups {
    base: PathBuf,
}

impl Cgroups {
    /// Tries. `own` is the text of /proc/self/cgroup. Err: why there are none, in one line.
    pub(crate) fn open(root: &Path, own: &str) -> Result<Self, String> {
        let path = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this worker is in no cgroup v2")?;
        let base = root.join(path.trim_start_matches('/'));
        let has =
            fs::read_to_string(base.join("cgroup.controllers")).map_err(|error| format!("no cgroup v2: {error}"))?;
        let missing = CONTROLLERS.iter().find(|name| !has.split_whitespace().any(|word| word == **name));
        if let Some(missing) = missing {
            return Err(format!("the cgroup of this worker has no controller `{missing}`"));
        }
        let leaf = base.join("worker");
        let step = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("failed to {what}: {error}")
        };
        fs::create_dir_all(&leaf).map_err(step("make a cgroup"))?;
        fs::write(leaf.join("cgroup.procs"), "0").map_err(step("enter a cgroup of its own"))?;
        if let Err(error) = fs::write(base.join("cgroup.subtree_control"), "+cpu +memory +pids") {
            // Back, as it was. Where that fails nothing is lost but a folder.
            let _ = fs::write(base.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(&leaf);
            return Err(format!("failed to give controllers to cgroups of tasks: {error}"));
        }
        for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
            // What a predecessor left: its processes are dead.
            if entry.file_name().to_string_lossy().starts_with("task-") {
                let _ = fs::remove_dir(entry.path());
            }
        }
        Ok(Self { base })
    }

    /// A cgroup with these limits.
    pub(crate) fn make(&self, name: &str, limits: &Limits) -> io::Result<Cgroup> {
        let folder = self.base.join(format!("task-{name}"));
        fs::create_dir_all(&folder)?;
        let cgroup = Cgroup { folder };
        if limits.get_memory_bytes() > 0 {
            cgroup.write("memory.max", &limits.get_memory_bytes().to_string())?;
            // One process over the limit ends them all. Machines without swap have no such file.
            cgroup.write("memory.oom.group", "1")?;
            let _ = cgroup.write("memory.swap.max", "0");
        }
        if limits.get_processes() > 0 {
            cgroup.write("pids.max", &limits.get_processes().to_string())?;
        }
        if limits.get_cpu_milli() > 0 {
            let quota_us = limits.get_cpu_milli().saturating_mul(CPU_PERIOD_US / 1_000);
            cgroup.write("cpu.max", &format!("{quota_us} {CPU_PERIOD_US}"))?;
        }
        Ok(cgroup)
    }
}

/// Of one attempt; everything in it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.folder.join(name), value)
    }

    /// Processes that the kernel ended because the memory limit was met.
    pub(crate) fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// SIGKILL to everything in it, what forks meanwhile included.
    pub(crate) fn kill(&self) {
        // Kernels before 5.14 have no such file: the process group and the run's token are looked for anyhow.
        let _ = self.write("cgroup.kill", "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.folder) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                // A process in it is not gone yet.
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(controllers: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let base = root.path().join("unit");
        fs::create_dir_all(base.join("task-4")).expect("writable");
        fs::write(base.join("cgroup.controllers"), controllers).expect("writable");
        root
    }

    #[test]
    fn limits_become_what_the_kernel_reads() {
        let root = tree("cpuset cpu io memory pids\n");
        let cgroups = Cgroups::open(root.path(), "1:name=systemd:/x\n0::/unit\n").expect("delegated");
        let base = root.path().join("unit");
        assert!(!base.join("task-4").exists(), "what a predecessor left is gone");
        let text = |name: &str| fs::read_to_string(base.join(name)).expect("written");
        assert_eq!(text("worker/cgroup.procs"), "0");
        assert_eq!(text("cgroup.subtree_control"), "+cpu +memory +pids");
        let mut limits = Limits::new();
        limits.set_memory_bytes(4_096);
        limits.set_processes(7);
        limits.set_cpu_milli(1_500);
        let cgroup = cgroups.make("9", &limits).expect("made");
        assert_eq!((text("task-9/memory.max"), text("task-9/pids.max")), ("4096".to_owned(), "7".to_owned()));
        assert_eq!(text("task-9/cpu.max"), "150000 100000");
        assert_eq!(cgroup.oom_kills(), 0);
        fs::write(cgroup.folder().join("memory.events"), "low 0\noom 3\noom_kill 2\n").expect("writable");
        assert_eq!(cgroup.oom_kills(), 2);
        cgroup.kill();
        assert_eq!(text("task-9/cgroup.kill"), "1");
        std::mem::forget(cgroup);
    }

    #[test]
    fn why_there_are_none_is_said() {
        let root = tree("cpu pids\n");
        let why = |own: &str| Cgroups::open(root.path(), own).expect_err("no memory controller");
        assert!(why("0::/unit\n").contains("`memory`"));
        assert!(why("0::/nowhere\n").contains("no cgroup v2"));
        assert!(why("4:memory:/unit\n").contains("no cgroup v2"));
    }
}
