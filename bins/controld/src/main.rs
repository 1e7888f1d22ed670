//! A control-plane replica: options, construction, signals.

mod addresses;
mod forwarding;
mod http;
mod lease;
mod mirror;
mod options;
mod plan;
mod start;
mod tls;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use crossbeam::channel::{bounded, Sender};
use options::Options;
use plan::Plan;
use raftgrid_crashpoint::{arm_from_environment, Owner};
use raftgrid_settings::program::{failed, open, wrong_usage, Program};
use raftgrid_settings::{Settings, SettingsError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slog::{info, Level, Logger};
use worker::WorkerPlan;

/// Also of RocksDB and gRPC. docs/decisions/0029 says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (options, settings) = match open::<Options>() {
        Ok(opened) => opened,
        Err(status) => return status,
    };
    let planned = level(&settings)
        .and_then(|_| plan::plan(&settings))
        .and_then(|plan| Ok((worker::plan(&settings, &plan)?, plan)));
    let (worker, plan) = match planned {
        Ok(planned) => planned,
        Err(error) => return wrong_usage(Options::NAME, error),
    };
    if let Err(error) = arm_from_environment(Owner::Controld) {
        return wrong_usage(Options::NAME, error);
    }
    match run(&options, &settings, plan, worker) {
        // Without the destructors of the C++ libraries: a thread of a pool may still be in one of them, and would meet a mutex that is gone
        // ("pthread lock: Invalid argument", SIGABRT). What must last was synced long before.
        Ok(()) => signal_hook::low_level::exit(0),
        // One line: the cause behind each step.
        Err(error) => failed(Options::NAME, format!("{error:#}")),
    }
}

fn run(options: &Options, settings: &Settings, plan: Plan, worker: Option<WorkerPlan>) -> Result<()> {
    let logger = logger(settings)?;
    if options.gossip_addr.is_some() || options.gossip_seeds.is_some() {
        info!(logger, "gossip is not built yet, its flags are ignored");
    }
    die_whole(&logger);
    let (shutdown, ended) = bounded(1);
    on_signals(shutdown.clone())?;
    // Before the ports are open: a worker that cannot run is told at once.
    let worker = worker.map(|worker| worker.ready(&logger)).transpose()?;
    let running = start::start(plan, &logger, shutdown)?;
    let worker = worker.map(|worker| worker.start(&logger)).transpose()?;
    // The sender lives as long as the signal thread.
    let _ = ended.recv();
    info!(logger, "stopping");
    if let Some(worker) = worker {
        worker.stop();
    }
    running.stop();
    Ok(())
}

fn level(settings: &Settings) -> Result<Level, SettingsError> {
    raftgrid_telemetry::parse_level(settings.get("log_level").unwrap_or("info"))
        .map_err(|_| settings.bad("log_level", "levels are trace, debug, info, warn and error"))
}

fn logger(settings: &Settings) -> Result<Logger> {
    let level = level(settings)?;
    let format = raftgrid_telemetry::Format::Compact;
    Ok(match settings.get("log").filter(|path| !path.is_empty()) {
        Some(path) => raftgrid_telemetry::file_logger(level, format, &PathBuf::from(path))?,
        None => raftgrid_telemetry::logger(level, format),
    })
}

/// A thread that panics takes the process with it: half a replica acknowledges nothing and would only be in the way. The log was synced before
/// anything was acknowledged, so this is as safe as a power cut.
fn die_whole(logger: &Logger) {
    let logger = logger.clone();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        slog::crit!(logger, "a thread panicked, the process ends"; "panic" => %panic);
        default(panic);
        std::process::abort();
    }));
}

fn on_signals(shutdown: Sender<()>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("failed to watch for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                // One is enough.
                let _ = shutdown.try_send(());
            }
        })
        .context("failed to start a thread")?;
    Ok(())
}
