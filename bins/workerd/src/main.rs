//! A worker node: options, construction, signals. `workerd run-task` is the first stage of each of its tasks.

mod options;
mod run_task;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use raftgrid_agent::run_worker;
use raftgrid_crashpoint::{arm_from_environment, Owner};
use raftgrid_settings::program::{failed, open, wrong_usage, Program};
use raftgrid_settings::{Settings, SettingsError};
use raftgrid_worker::{look_at_gpus, look_at_python, WorkerConfig, WorkerEnd};
use signal_hook::consts::{SIGINT, SIGTERM};
use slog::{info, Level, Logger};

use options::{worker_config, Options};

/// How often the end of the worker is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.get(1).is_some_and(|word| word == run_task::COMMAND) {
        return ExitCode::from(u8::try_from(run_task::run(&words[2..])).unwrap_or(u8::MAX));
    }
    let (_, settings) = match open::<Options>() {
        Ok(opened) => opened,
        Err(status) => return status,
    };
    let shim = std::env::current_exe().unwrap_or_else(|_| words[0].clone().into());
    let (config, endpoints) = match level(&settings)
        .and_then(|_| settings.duration_ms("drain_wait"))
        .and_then(|_| worker_config(&settings, shim))
    {
        Ok(parts) => parts,
        Err(error) => return wrong_usage(Options::NAME, error),
    };
    if let Err(error) = arm_from_environment(Owner::Workerd) {
        return wrong_usage(Options::NAME, error);
    }
    match run(&settings, config, &endpoints) {
        Ok(()) => ExitCode::SUCCESS,
        // One line: the cause behind each step.
        Err(error) => failed(Options::NAME, format!("{error:#}")),
    }
}

fn run(settings: &Settings, mut config: WorkerConfig, endpoints: &[String]) -> Result<()> {
    let logger = logger(settings)?;
    // The first signal drains; the second ends at once, and the tasks die with this process.
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, asked.clone())
            .context("failed to watch for signals")?;
        signal_hook::flag::register(signal, asked.clone()).context("failed to watch for signals")?;
    }
    let chosen = settings.given("python").then_some("--python");
    look_at_python(&mut config, chosen, &logger).map_err(anyhow::Error::msg)?;
    look_at_gpus(&mut config, &logger);
    let drain_wait_ms = settings.duration_ms("drain_wait")?.unwrap_or(0);
    let notice = settings.get("notice_file").filter(|path| !path.is_empty()).map(PathBuf::from);
    let handle = run_worker(config, endpoints, &logger)?;
    let (mut leaving, mut draining) = (false, false);
    while !handle.is_finished() {
        let noticed = notice.as_ref().is_some_and(|path| path.exists());
        if noticed && !draining {
            // The machine goes soon: nothing is waited for.
            draining = true;
            info!(logger, "draining"; "by_notice" => true);
            handle.drain();
        }
        if asked.load(Ordering::SeqCst) && !leaving && !draining {
            leaving = true;
            info!(logger, "draining"; "wait_ms" => drain_wait_ms);
            handle.leave(Duration::from_millis(drain_wait_ms));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    match handle.join() {
        WorkerEnd::Drained => Ok(()),
        WorkerEnd::Failed(reason) => Err(anyhow::anyhow!(reason)),
    }
}

fn level(settings: &Settings) -> Result<Level, SettingsError> {
    raftgrid_telemetry::parse_level(settings.get("log_level").unwrap_or("info"))
        .map_err(|_| settings.bad("log_level", "levels are trace, debug, info, warn and error"))
}

fn logger(settings: &Settings) -> Result<Logger> {
    let level = level(settings)?;
    let format = raftgrid_telemetry::Format::Compact;
    Ok(match settings.get("log").filter(|path| !path.is_empty()) {
        Some(path) => raftgrid_telemetry::file_logger(level, format, std::path::Path::new(path))?,
        None => raftgrid_telemetry::logger(level, format),
    })
}
