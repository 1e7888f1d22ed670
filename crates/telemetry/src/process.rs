//! What the operating system says of this process: memory, descriptors, threads, processor time. Read from `/proc/self` when somebody asks.

use std::fs;

use crate::metrics::Registry;

/// Clock ticks a second of `/proc/self/stat`: USER_HZ, which Linux keeps at 100 for every program.
const TICKS_PER_SECOND: f64 = 100.0;

/// Puts the figures of this process into `registry`. What cannot be read is left as it was: a metric is no reason to fail.
pub fn sample_process(registry: &Registry) {
    let gauge = |name: &str, help: &str, value: f64| registry.gauge(name, help, &[]).set(value);
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let figures = Status::of(&status);
        if let Some(kib) = figures.resident_kib {
            gauge("raftgrid_process_resident_bytes", "memory of this process that is in RAM", kib * 1024.0);
        }
        if let Some(threads) = figures.threads {
            gauge("raftgrid_process_threads_count", "threads of this process", threads);
        }
    }
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        gauge("raftgrid_process_cpu_seconds", "processor time of this process, user and system", seconds);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = entries.count().saturating_sub(1);
        gauge("raftgrid_process_open_fds_count", "open file descriptors of this process", open as f64);
    }
    if let Some(most) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files_max) {
        gauge("raftgrid_process_max_fds_count", "file descriptors that this process may open", most);
    }
}

#[derive(Debug, Default, PartialEq)]
struct Status {
    resident_kib: Option<f64>,
    threads: Option<f64>,
}

impl Status {
    fn of(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Self { resident_kib: field("VmRSS:"), threads: field("Threads:") }
    }
}

/// Fields 14 and 15, counted behind the program's name, which may hold blanks and parentheses itself.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn open_files_max(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_kernel_are_understood() {
        let status = "Name:\tcontrold\nVmRSS:\t   51200 kB\nThreads:\t17\n";
        assert_eq!(Status::of(status), Status { resident_kib: Some(51_200.0), threads: Some(17.0) });
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 17 0 1000 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(
            open_files_max("Max open files            1024                 4096                 files\n"),
            Some(1024.0)
        );
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn a_running_process_has_memory_threads_and_descriptors() {
        let registry = Registry::new();
        sample_process(&registry);
        for name in ["resident_bytes", "threads_count", "open_fds_count", "max_fds_count"] {
            assert!(registry.gauge(&format!("raftgrid_process_{name}"), "", &[]).get() >= 1.0, "{name}");
        }
    }
}
