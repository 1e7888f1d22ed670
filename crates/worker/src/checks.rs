//! What a worker finds wrong with its own machine. It is told with each beat; while there is something, the node is UNHEALTHY and gets no
//! further task; what runs goes on.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::statvfs;
use slog::{info, warn, Logger};

use crate::config::WorkerConfig;
use crate::gpus;
use crate::limits::{CHECK_EVERY_MS, CLOCK_SKEW_MS_MAX, DISK_FREE_BYTES_MIN};
use crate::output::one_line;
use crate::table::lock;

/// Finds the GPUs, unless a setting has named some. A machine whose nvidia-smi fails has none.
pub fn look_at_gpus(config: &mut WorkerConfig, logger: &Logger) {
    if !config.gpus.is_empty() {
        return;
    }
    match gpus::look() {
        Ok(found) => {
            config.gpus_are_real = !found.is_empty();
            config.gpus = found;
        }
        Err(cause) => warn!(logger, "GPUs cannot be looked at: this node takes no tasks with GPUs"; "cause" => cause),
    }
    if let Some(first) = config.gpus.first() {
        info!(logger, "GPUs found"; "count" => config.gpus.len(), "model" => &first.model);
    }
}

/// The checks of one worker. They have a thread of their own: a driver that hangs must not hold up a beat.
pub(crate) struct Checks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the machine, as of the last look.
    machine: Option<String>,
    /// The leader's clock minus ours, in milliseconds, as of the last beat.
    skew_ms: i64,
    leaving: bool,
    told: String,
}

impl Checks {
    /// Looks once before it returns, then again and again until it is dropped.
    pub(crate) fn start(config: &WorkerConfig) -> std::io::Result<Arc<Self>> {
        let checks = Arc::new(Self { state: Mutex::default() });
        lock(&checks.state).machine = look(config);
        let (weak, config) = (Arc::downgrade(&checks), config.clone());
        std::thread::Builder::new().name("checks".to_owned()).spawn(move || loop {
            std::thread::sleep(Duration::from_millis(CHECK_EVERY_MS));
            let found = look(&config);
            let Some(checks) = weak.upgrade() else { return };
            lock(&checks.state).machine = found;
        })?;
        Ok(checks)
    }

    /// What the leader's answer says of our clock: the beat took from `sent_unix_ms` until `now_unix_ms`.
    pub(crate) fn on_leader_time(&self, sent_unix_ms: u64, now_unix_ms: u64, leader_unix_ms: u64) {
        if leader_unix_ms == 0 {
            return;
        }
        let clamped = leader_unix_ms.clamp(sent_unix_ms.min(now_unix_ms), now_unix_ms.max(sent_unix_ms));
        let number = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        lock(&self.state).skew_ms = number(leader_unix_ms) - number(clamped);
    }

    /// No further tasks are wanted.
    pub(crate) fn leave(&self) {
        lock(&self.state).leaving = true;
    }

    /// What is wrong, in one line; "" is nothing.
    pub(crate) fn problem(&self, logger: &Logger) -> String {
        let mut state = lock(&self.state);
        let skew_ms = state.skew_ms.unsigned_abs();
        let clock =
            (skew_ms > CLOCK_SKEW_MS_MAX).then(|| format!("its clock differs from the leader's by {skew_ms} ms"));
        let leaving = state.leaving.then(|| "it is draining".to_owned());
        let found: Vec<String> = [leaving, state.machine.clone(), clock].into_iter().flatten().collect();
        let problem = one_line(&found.join("; "));
        if problem != state.told {
            match problem.as_str() {
                "" => info!(logger, "nothing is wrong with this machine any more"),
                _ => warn!(logger, "this machine takes no further tasks"; "problem" => &problem),
            }
            state.told.clone_from(&problem);
        }
        problem
    }
}

fn look(config: &WorkerConfig) -> Option<String> {
    let checks = [check_disk(&config.dir), check_writable(&config.dir), check_gpus(config)];
    let wrong: Vec<String> = checks.into_iter().filter_map(Result::err).collect();
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

fn check_disk(dir: &Path) -> Result<(), String> {
    let told = statvfs(dir).map_err(|error| format!("its disk cannot be looked at: {error}"))?;
    let free = told.f_bavail.saturating_mul(told.f_frsize);
    if free < DISK_FREE_BYTES_MIN {
        return Err(format!("its disk has {} MiB left, {} are needed", free >> 20, DISK_FREE_BYTES_MIN >> 20));
    }
    Ok(())
}

fn check_writable(dir: &Path) -> Result<(), String> {
    let path = dir.join("check");
    let written = fs::write(&path, b"x").and_then(|()| fs::remove_file(&path));
    written.map_err(|error| format!("its folder cannot be written: {error}"))
}

/// GPUs that were there at the start and are not any more: a driver that failed, a device that fell off its bus.
fn check_gpus(config: &WorkerConfig) -> Result<(), String> {
    if !config.gpus_are_real {
        return Ok(());
    }
    let found = gpus::look().map_err(|cause| format!("its GPUs cannot be looked at: {cause}"))?;
    let missing: Vec<String> = config
        .gpus
        .iter()
        .filter(|gpu| !found.iter().any(|other| other.index == gpu.index))
        .map(|gpu| gpu.index.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("GPU {} is gone", missing.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_machine_has_no_problem_and_one_without_its_folder_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = WorkerConfig::new("n", folder.path(), "/s");
        assert_eq!(look(&config), None);
        let config = WorkerConfig::new("n", "/nowhere", "/s");
        assert!(look(&config).expect("a problem").contains("its folder cannot be written"));
    }

    #[test]
    fn a_clock_is_wrong_only_beyond_what_the_beat_itself_took() {
        let folder = tempfile::tempdir().expect("a folder");
        let checks = Checks::start(&WorkerConfig::new("n", folder.path(), "/s")).expect("a thread");
        let logger = Logger::root(slog::Discard, slog::o!());
        checks.on_leader_time(100_000, 130_000, 101_000);
        assert_eq!(checks.problem(&logger), "");
        checks.on_leader_time(100_000, 100_010, 100_010 + CLOCK_SKEW_MS_MAX + 5);
        assert!(checks.problem(&logger).contains("clock differs from the leader's by 10005 ms"));
        checks.on_leader_time(100_000, 100_010, 100_005);
        assert_eq!(checks.problem(&logger), "");
        checks.leave();
        assert_eq!(checks.problem(&logger), "it is draining");
    }
}
