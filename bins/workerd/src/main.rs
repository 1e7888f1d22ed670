//! A worker node: options, construction, signals. `workerd run-task` is the first stage of each of its tasks.

mod options;
mod run_task;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use raftgrid_agent::run_worker;
use raftgrid_settings::Settings;
use raftgrid_worker::{WorkerConfig, WorkerEnd};
use signal_hook::consts::{SIGINT, SIGTERM};
use slog::{info, Logger};
use structopt::StructOpt;

use options::{worker_config, Options, KEYS};

/// Exit status of wrong usage: flags, settings.
const WRONG_USAGE: u8 = 2;
/// How often the end of the worker is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.get(1).is_some_and(|word| word == run_task::COMMAND) {
        return ExitCode::from(u8::try_from(run_task::run(&words[2..])).unwrap_or(u8::MAX));
    }
    let options = match Options::from_args_safe() {
        Ok(options) => options,
        Err(error) if !error.use_stderr() => {
            println!("{}", error.message);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{}", error.message);
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let loaded = Settings::load(KEYS, options.config.as_deref(), "RAFTGRID_", std::env::vars(), &options.flags());
    let settings = match loaded {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    if options.print_config {
        print!("{}", settings.print());
        return ExitCode::SUCCESS;
    }
    let shim = std::env::current_exe().unwrap_or_else(|_| words[0].clone().into());
    let (config, endpoints) = match worker_config(&settings, shim) {
        Ok(parts) => parts,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match run(&settings, config, &endpoints) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the cause behind each step.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings, config: WorkerConfig, endpoints: &[String]) -> Result<()> {
    let logger = logger(settings)?;
    // The first signal drains; the second ends at once, and the tasks die with this process.
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, asked.clone())
            .context("failed to watch for signals")?;
        signal_hook::flag::register(signal, asked.clone()).context("failed to watch for signals")?;
    }
    let handle = run_worker(config, endpoints, &logger)?;
    let mut draining = false;
    while !handle.is_finished() {
        if asked.load(Ordering::SeqCst) && !draining {
            draining = true;
            info!(logger, "draining");
            handle.drain();
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    match handle.join() {
        WorkerEnd::Drained => Ok(()),
        WorkerEnd::Failed(reason) => Err(anyhow::anyhow!(reason)),
    }
}

fn logger(settings: &Settings) -> Result<Logger> {
    let level = raftgrid_telemetry::parse_level(settings.get("log_level").unwrap_or("info"))?;
    let format = raftgrid_telemetry::Format::Compact;
    Ok(match settings.get("log").filter(|path| !path.is_empty()) {
        Some(path) => raftgrid_telemetry::file_logger(level, format, std::path::Path::new(path))?,
        None => raftgrid_telemetry::logger(level, format),
    })
}
