//! Processes of this machine, each known by its id *and* its start time, so that an id that was given away again is never hit.
//!
//! Signals go through a pidfd that is opened first and checked afterwards: between the check and the signal the id cannot change its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{pidfd_open, pidfd_send_signal, waitpid, Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::limits::PROBE_PAUSE;

/// Environment variable that every process of a dev cluster carries (its absolute directory), and so does whatever they start: workerd keeps
/// RAFTGRID_ variables from its tasks, so it is not one.
pub(crate) const MARK: &str = "GRIDCTL_DEV_DIR";

/// One process, past confusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since boot (/proc/PID/stat, field 22).
    pub(crate) start_ticks: u64,
    /// /proc/sys/kernel/random/boot_id: start times begin again at each boot.
    pub(crate) boot_id: String,
}

struct Stat {
    parent: i32,
    start_ticks: u64,
    zombie: bool,
}

/// The fields of /proc/PID/stat that count here. The name in parentheses may hold anything, blanks and parentheses too.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// The peak of resident memory in bytes, out of /proc/PID/status.
fn peak_of(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) << 10
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Process {
    /// The process that has this id now; None if there is none, or it has ended and waits for its parent.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = stat(pid).filter(|stat| !stat.zombie)?;
        Some(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id() })
    }

    /// Whether this very process still runs.
    pub(crate) fn alive(&self) -> bool {
        self.reap();
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Seconds of CPU so far, user and system; 0 if it is gone.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
    }

    /// Bytes in memory now; 0 if it is gone.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid)).unwrap_or_default();
        let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }

    /// The most bytes that it had in memory since it started, or since `forget_peak`; 0 if it is gone.
    pub(crate) fn peak_bytes(&self) -> u64 {
        peak_of(&fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default())
    }

    /// From now on the peak is counted anew. Where the kernel does not allow it, the old one stands.
    pub(crate) fn forget_peak(&self) {
        let _old_peak_stands = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    /// If it was started by this gridctl, its exit must be collected or it stays in the table of processes.
    fn reap(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Fails where it is not our child; then it is not our duty.
            let _not_a_child = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }

    fn handle(&self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        (Self::of(self.pid).as_ref() == Some(self)).then_some(handle)
    }

    /// Sends a signal to exactly this process; false if it does not run any more or may not be signalled.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.handle().is_some_and(|handle| pidfd_send_signal(handle, signal).is_ok())
    }

    /// Waits until it has ended; false after `timeout`.
    pub(crate) fn wait_gone(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        while self.alive() {
            if begin.elapsed() > timeout {
                return false;
            }
            thread::sleep(PROBE_PAUSE);
        }
        true
    }
}

/// Collects the exits of children that another gridctl has killed.
pub(crate) fn reap_children() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// Every process of this machine and its parent.
fn table() -> BTreeMap<i32, Stat> {
    let mut table = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            if let Some(stat) = stat(pid) {
                table.insert(pid, stat);
            }
        }
    }
    table
}

/// All that belongs to the dev cluster in `directory` (absolute): processes that carry its mark, the `roots` and everything below them. This
/// process and those above it are never part of it.
pub(crate) fn family(directory: &Path, roots: &[Process]) -> Vec<Process> {
    let table = table();
    let mark = [MARK.as_bytes(), b"=", directory.as_os_str().as_encoded_bytes()].concat();
    let mut members: BTreeSet<i32> = roots.iter().filter(|root| root.alive()).map(|root| root.pid).collect();
    for pid in table.keys() {
        // Readable for processes of the same user only; others are not ours.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark) {
            members.insert(*pid);
        }
    }
    loop {
        let below: Vec<i32> = table
            .iter()
            .filter(|(pid, stat)| !members.contains(pid) && members.contains(&stat.parent))
            .map(|(pid, _)| *pid)
            .collect();
        if below.is_empty() {
            break;
        }
        members.extend(below);
    }
    let mut own = Some(std::process::id().cast_signed());
    while let Some(pid) = own {
        members.remove(&pid);
        own = table.get(&pid).map(|stat| stat.parent).filter(|parent| *parent > 0);
    }
    members.into_iter().filter_map(Process::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let stat = parse_stat(text).expect("it is well formed");
        assert_eq!((stat.parent, stat.start_ticks, stat.zombie), (7, 98_765, false));
        assert!(parse_stat("42 (a) Z 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 9").expect("it is").zombie);
        assert!(parse_stat("42 (a").is_none());
    }

    #[test]
    fn the_peak_of_memory_is_read_in_bytes_and_is_at_least_what_is_there_now() {
        assert_eq!(peak_of("VmPeak:\t  99 kB\nVmHWM:\t     512 kB\nVmRSS:\t 3 kB\n"), 512 << 10);
        assert_eq!(peak_of("Name:\tx\n"), 0);
        let own = Process::of(std::process::id().cast_signed()).expect("it runs");
        assert!(own.peak_bytes() >= 1 << 20, "{}", own.peak_bytes());
    }

    #[test]
    fn a_process_with_another_start_time_is_never_signalled() {
        let mut child = Command::new("sleep").arg("30").spawn().expect("sleep exists");
        let process = Process::of(child.id().cast_signed()).expect("it runs");
        let earlier = Process { start_ticks: process.start_ticks - 1, ..process.clone() };
        let before_boot = Process { boot_id: "other".to_owned(), ..process.clone() };
        assert!(!earlier.signal(Signal::KILL) && !before_boot.signal(Signal::KILL));
        assert!(child.try_wait().expect("it is our child").is_none(), "it lives");
        assert!(process.signal(Signal::KILL));
        assert!(process.wait_gone(Duration::from_secs(10)));
        assert!(!process.alive() && !process.signal(Signal::KILL));
    }

    #[test]
    fn the_family_holds_marked_processes_their_children_and_never_this_one() {
        let directory = std::env::temp_dir().join(format!("raftgrid-family-{}", std::process::id()));
        let mut parent =
            Command::new("sh").args(["-c", "sleep 30 & wait"]).env(MARK, &directory).spawn().expect("sh exists");
        let begin = Instant::now();
        let members = loop {
            let members = family(&directory, &[]);
            if members.len() >= 2 || begin.elapsed() > Duration::from_secs(20) {
                break members;
            }
            thread::sleep(PROBE_PAUSE);
        };
        assert!(members.iter().any(|member| member.pid == parent.id().cast_signed()));
        assert!(members.iter().all(|member| member.pid != std::process::id().cast_signed()));
        assert_eq!(members.len(), 2, "sh and sleep");
        assert!(members.iter().all(|member| member.signal(Signal::KILL)));
        parent.wait().expect("it is our child");
        // A signal is delivered in its own time, and nobody here waits for a grandchild.
        assert!(members.iter().all(|member| member.wait_gone(Duration::from_secs(20))));
        assert!(family(&directory, &[]).is_empty());
    }
}
