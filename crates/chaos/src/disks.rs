//! Disks that are full, slow or failing: a small tmpfs under each replica (needs root), and strace, which makes system calls late or lets
//! them fail.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

/// Size of one replica's disk, its ballast included.
const DISK_MIB: u64 = 240;
/// Below so many free bytes a replica of these runs takes nothing new.
pub const LOW_WATER_BYTES: u64 = 48 << 20;
/// Written at once while a disk is filled.
const FILL_BYTES: usize = 1 << 20;

/// A small disk for each replica; unmounted when it is dropped.
pub struct Disks {
    mounted: Vec<PathBuf>,
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        bail!("failed: {program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Disks {
    /// Mounts one at each of these paths, or says why this machine does not allow it.
    pub fn mount(paths: &[PathBuf]) -> Result<Self> {
        let mut disks = Self { mounted: Vec::new() };
        for path in paths {
            std::fs::create_dir_all(path).with_context(|| format!("failed to make {}", path.display()))?;
            let size = format!("size={DISK_MIB}m");
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path.display().to_string()])?;
            disks.mounted.push(path.clone());
        }
        Ok(disks)
    }

    fn filler(&self, at: usize) -> PathBuf {
        self.mounted[at].join("filler")
    }

    /// Fills the disk until so many bytes are left; 0: until nothing goes in any more.
    pub fn fill(&self, at: usize, leave: u64) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler(at)).context("failed to fill")?;
        let chunk = vec![0xa5; FILL_BYTES];
        loop {
            let room = rustix::fs::statvfs(&self.mounted[at]).context("failed to ask the room")?;
            let free = room.f_bavail * room.f_frsize;
            if free <= leave {
                return Ok(());
            }
            let count = usize::try_from(free - leave).unwrap_or(FILL_BYTES).min(FILL_BYTES);
            match filler.write_all(&chunk[..count]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("failed to fill"),
            }
        }
    }

    /// There is room again.
    pub fn free(&self, at: usize) -> Result<()> {
        match std::fs::remove_file(self.filler(at)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("failed to free"),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for path in &self.mounted {
            // A process that is still going away may hold it: it is unmounted when the last one has gone.
            let _ = run("umount", &["-l", &path.display().to_string()]);
        }
    }
}

/// A command line in front of a replica's own, so that each of its fsyncs is late by so many microseconds.
pub fn slow_fsync(micros: u64) -> Vec<String> {
    injected(&format!("inject=fsync,fdatasync:delay_exit={micros}"))
}

/// A command line in front of a replica's own, so that its fsyncs fail from the `from`th on.
pub fn failing_fsync(from: u64) -> Vec<String> {
    injected(&format!("inject=fsync,fdatasync:error=EIO:when={from}+"))
}

fn injected(rule: &str) -> Vec<String> {
    let words =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", rule];
    words.map(str::to_owned).to_vec()
}

/// Settings of replicas on such disks.
pub fn settings(path: &Path) -> Result<()> {
    let text = format!("[disk]\nlow_water_bytes = {LOW_WATER_BYTES}\n");
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
