//! A control-plane replica: options, construction, signals.

mod forwarding;
mod options;
mod plan;
mod start;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use crossbeam::channel::{bounded, Sender};
use options::{Options, KEYS};
use raftgrid_settings::Settings;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slog::{info, Logger};
use structopt::StructOpt;

/// Exit status of wrong usage: flags, settings.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
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
    let settings = Settings::load(KEYS, options.config.as_deref(), "RAFTGRID_", std::env::vars(), &options.flags());
    let settings = match settings {
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
    match run(&options, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the cause behind each step.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, settings: &Settings) -> Result<()> {
    let plan = plan::plan(settings)?;
    let logger = logger(settings)?;
    if options.gossip_addr.is_some() || options.gossip_seeds.is_some() {
        info!(logger, "gossip is not built yet, its flags are ignored");
    }
    die_whole(&logger);
    let (shutdown, ended) = bounded(1);
    on_signals(shutdown.clone())?;
    let worker = worker::plan(settings, &plan)?;
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

fn logger(settings: &Settings) -> Result<Logger> {
    let level = raftgrid_telemetry::parse_level(settings.get("log_level").unwrap_or("info"))?;
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
