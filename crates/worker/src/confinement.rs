//! Limits of a task's processes: what the shim sets before it becomes the program, and what is said of a task that met one.
//!
//! Memory is limited for all processes of the attempt together where the machine has cgroups; else each process has a limit of its own data
//! (`RLIMIT_DATA`: memory that it can write; address space that is only reserved, as drivers and runtimes do, is free).

use std::fs;
use std::path::{Path, PathBuf};

use raftgrid_proto::v1::Limits;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit, Signal};

use crate::output::one_line;

/// Between the signal that a process may take for its limit of processor time and the one that it may not, in seconds.
const CPU_GRACE_S: u64 = 2;

/// What the shim is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The attempt's cgroup.
    pub cgroup: Option<PathBuf>,
    /// Data of each process; 0: no limit, as below.
    pub data_bytes: u64,
    /// Processor time of each process.
    pub cpu_seconds: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// Of each file that is written.
    pub file_bytes: u64,
}

impl Confinement {
    /// Of a task's limits. With a cgroup the memory is its business.
    pub(crate) fn of(limits: &Limits, cgroup: Option<&Path>) -> Self {
        Self {
            cgroup: cgroup.map(Path::to_owned),
            data_bytes: if cgroup.is_some() { 0 } else { limits.get_memory_bytes() },
            cpu_seconds: limits.get_cpu_seconds(),
            open_files: limits.get_open_files(),
            file_bytes: limits.get_file_bytes(),
        }
    }

    /// As words of the shim's command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            words.extend(["--cgroup".to_owned(), cgroup.to_string_lossy().into_owned()]);
        }
        let numbers = [self.data_bytes, self.cpu_seconds, self.open_files, self.file_bytes];
        if numbers.iter().any(|number| *number > 0) {
            words.push("--limits".to_owned());
            words.push(numbers.map(|number| number.to_string()).join(","));
        }
        words
    }

    /// Takes its words off the front; None: they are not well formed.
    pub fn parse<'a>(words: &'a [&'a str]) -> Option<(Self, &'a [&'a str])> {
        let (mut confinement, mut words) = (Self::default(), words);
        if let ["--cgroup", folder, rest @ ..] = words {
            (confinement.cgroup, words) = (Some(PathBuf::from(folder)), rest);
        }
        if let ["--limits", numbers, rest @ ..] = words {
            let numbers: Vec<u64> = numbers.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [data_bytes, cpu_seconds, open_files, file_bytes] = numbers.try_into().ok()?;
            confinement = Self { data_bytes, cpu_seconds, open_files, file_bytes, ..confinement };
            words = rest;
        }
        Some((confinement, words))
    }

    /// Sets all of it for this process and what it starts. Err: one line.
    pub(crate) fn apply(&self) -> Result<(), String> {
        if let Some(cgroup) = &self.cgroup {
            // 0 is whoever writes.
            fs::write(cgroup.join("cgroup.procs"), "0")
                .map_err(|error| format!("failed to enter the cgroup: {error}"))?;
        }
        let limits = [
            (Resource::Data, self.data_bytes, 0),
            (Resource::Cpu, self.cpu_seconds, CPU_GRACE_S),
            (Resource::Nofile, self.open_files, 0),
            (Resource::Fsize, self.file_bytes, 0),
        ];
        for (resource, most, grace) in limits.into_iter().filter(|(_, most, _)| *most > 0) {
            // Nobody may raise what the machine's owner has set.
            let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            let (soft, hard) = (most.min(ceiling), most.saturating_add(grace).min(ceiling));
            setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
                .map_err(|error| format!("failed to set the limit {resource:?}: {error}"))?;
        }
        Ok(())
    }
}

/// What a task that failed says of its limits, if one of them is why. `said` is the reason as the process told it.
pub(crate) fn limit_met(limits: &Limits, oom_kills: u64, signal: Option<i32>, said: &str) -> Option<String> {
    let memory = limits.get_memory_bytes();
    if oom_kills > 0 {
        return Some(format!("over its memory limit of {memory} bytes: the kernel ended {oom_kills} of its processes"));
    }
    if limits.get_cpu_seconds() > 0 && signal == Some(Signal::XCPU.as_raw()) {
        return Some(format!("over its limit of {} s of processor time", limits.get_cpu_seconds()));
    }
    if limits.get_file_bytes() > 0 && signal == Some(Signal::XFSZ.as_raw()) {
        return Some(format!("over its limit of {} bytes of a file", limits.get_file_bytes()));
    }
    let any = |words: &[&str]| words.iter().any(|word| said.to_ascii_lowercase().contains(word));
    if memory > 0 && any(&["memoryerror", "cannot allocate memory", "bad_alloc", "out of memory"]) {
        return Some(one_line(&format!("over its memory limit of {memory} bytes: {said}")));
    }
    if limits.get_file_bytes() > 0 && any(&["file too large"]) {
        return Some(one_line(&format!("over its limit of {} bytes of a file: {said}", limits.get_file_bytes())));
    }
    if limits.get_open_files() > 0 && any(&["too many open files"]) {
        return Some(one_line(&format!("over its limit of {} open files: {said}", limits.get_open_files())));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_the_shim_is_what_it_reads() {
        let all = Confinement {
            cgroup: Some(PathBuf::from("/sys/fs/cgroup/x")),
            data_bytes: 1,
            cpu_seconds: 2,
            open_files: 3,
            file_bytes: 4,
        };
        for confinement in [Confinement::default(), all.clone(), Confinement { cgroup: None, ..all }] {
            let mut words = confinement.words();
            words.push("exec".to_owned());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(Confinement::parse(&words), Some((confinement, &["exec"][..])));
        }
        assert_eq!(Confinement::parse(&["--limits", "1,2,3", "exec"]), None);
        assert_eq!(Confinement::parse(&["--limits", "1,2,3,x"]), None);
    }

    #[test]
    fn a_limit_is_named_only_where_it_was_set_and_met() {
        let mut limits = Limits::new();
        assert_eq!(limit_met(&limits, 0, Some(24), "MemoryError"), None);
        limits.set_memory_bytes(100);
        limits.set_cpu_seconds(3);
        let said = |oom, signal, said| limit_met(&limits, oom, signal, said).unwrap_or_default();
        assert!(said(1, Some(9), "").starts_with("over its memory limit of 100 bytes"));
        assert!(said(0, None, "MemoryError").contains("memory limit of 100 bytes: MemoryError"));
        assert_eq!(said(0, Some(24), ""), "over its limit of 3 s of processor time");
        assert_eq!(said(0, None, "ValueError: bad"), "");
        assert_eq!(said(0, Some(25), "OSError: [Errno 27] File too large"), "");
    }
}
