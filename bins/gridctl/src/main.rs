//! The command line of raftgrid: words in, calls of the control plane out, one line for what went wrong.
//!
//! One file per noun. Nothing here decides anything about tasks, jobs or rounds: that is the control plane's. Exit status: 0 done, 1 failed,
//! 2 wrong usage, 130 interrupted.

mod artifact;
mod audit;
mod backup;
mod backup_format;
mod bench;
mod bench_failover;
mod bench_fetch;
mod bench_flower;
mod bench_gate;
mod bench_life;
mod bench_links;
mod bench_load;
mod bench_model;
mod bench_nginx;
mod bench_python;
mod bench_ray;
mod bench_scale;
mod bench_side;
mod bench_spread;
mod bench_training;
mod bench_value;
mod bundle;
mod certs;
mod cli;
mod cli_artifact;
mod cli_bench;
mod cluster;
mod context;
mod curve;
mod demo;
mod demo_run;
mod dev;
mod dev_state;
mod dev_stop;
mod drawing;
mod failure;
mod job;
mod job_file;
mod job_section;
mod job_submit;
mod kv;
mod launch;
mod limits;
mod node;
mod output;
mod placement;
mod plot;
mod ports;
mod process;
mod queue;
mod recompute;
mod recover;
mod restore;
mod round_rules;
mod rounds;
mod schedule;
mod sim;
mod task;
mod train;
mod trouble;
mod usage;

use std::io::Write;
use std::process::ExitCode;

use cli::{Cli, Command};
use context::Context;
use failure::{Failure, Result};
use raftgrid_settings::usage::Parsed;

fn main() -> ExitCode {
    match words().and_then(|words| usage::parse(&words)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever closed standard error reads the exit status.
            let _closed = writeln!(std::io::stderr(), "gridctl: {failure}");
            ExitCode::from(failure.status() as u8)
        }
    }
}

fn words() -> Result<Vec<String>> {
    let text = |word: std::ffi::OsString| {
        word.into_string().map_err(|word| Failure::usage(format!("argument {word:?} is not UTF-8"), "gridctl --help"))
    };
    std::env::args_os().map(text).collect()
}

fn run(parsed: Parsed<Cli>) -> Result<()> {
    let Cli { global, command } = match parsed {
        Parsed::Run(cli) => *cli,
        Parsed::Text(text) => {
            // clap has printed the version by itself.
            if !text.is_empty() {
                output::line(text);
            }
            return Ok(());
        }
    };
    let context = Context::new(global);
    match command {
        Command::Dev(command) => dev::run(&context, command),
        Command::Train(args) => train::run(&context, &args),
        Command::Job(command) => job::run(&context, command),
        Command::Schedule(command) => schedule::run(&context, command),
        Command::Task(command) => task::run(&context, command),
        Command::Node(command) => node::run(&context, command),
        Command::Kv(command) => kv::run(&context, command),
        Command::Queue(command) => queue::run(&context, command),
        Command::Cluster(command) => cluster::run(&context, command),
        Command::Artifact(command) => artifact::run(&context, command),
        Command::Demo(args) => demo::run(&context, &args),
        Command::Sim(args) => sim::run_sim(&args),
        Command::Bench(command) => bench::run(&context, command),
    }
}
