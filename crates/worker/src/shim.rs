//! `workerd run-task`: the first moments of a task's process. Runs in the child, single-threaded.
//!
//! It arranges to die with the worker, sets limits, then becomes the program (`exec`) or computes `matmul` itself. It cannot be done
//! between fork and exec without `unsafe`, hence this stage.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{getppid, set_parent_process_death_signal, setrlimit, Resource, Rlimit, Signal};

use crate::blocks::{BlockError, BlockPlan};
use crate::confinement::Confinement;
use crate::plan::exit_code;

/// Where a task's process goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunTask {
    /// Becomes this program.
    Exec(Vec<String>),
    /// Multiplies two n × n matrices and prints the result as one line of JSON.
    Matmul {
        /// Size.
        n: usize,
        /// Of the values.
        seed: u64,
    },
    /// Does the step of a product whose plan and inputs are in this folder, and prints the result as one line of JSON.
    Block(PathBuf),
}

/// The plan of a step, in its folder.
pub(crate) const PLAN_FILE: &str = "plan.json";

/// Runs in the child and returns its exit code, unless it became another program. `parent` is the worker's process id.
pub fn run_task(parent: u32, confinement: &Confinement, what: &RunTask) -> i32 {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("raftgrid: failed to tie the task to its worker: {error}");
        return exit_code::OS;
    }
    // The worker may have died before the line above.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != i32::try_from(parent).ok() {
        eprintln!("raftgrid: the worker is gone");
        return exit_code::TRY_AGAIN;
    }
    limit();
    if let Err(error) = confinement.apply() {
        eprintln!("raftgrid: {error}");
        return exit_code::OS;
    }
    match what {
        RunTask::Exec(argv) => exec(argv),
        RunTask::Matmul { n, seed } => tell(&crate::matmul::run(*n, *seed)),
        RunTask::Block(folder) => block(folder),
    }
}

/// The result as the last line of stdout.
fn tell(result: &impl serde::Serialize) -> i32 {
    match serde_json::to_string(result) {
        Ok(line) => {
            println!("{line}");
            0
        }
        Err(error) => {
            eprintln!("raftgrid: failed to write the result: {error}");
            exit_code::OS
        }
    }
}

fn block(folder: &Path) -> i32 {
    let plan = std::fs::read(folder.join(PLAN_FILE)).map_err(|error| error.to_string());
    let plan = plan.and_then(|text| serde_json::from_slice::<BlockPlan>(&text).map_err(|error| error.to_string()));
    let plan = match plan {
        Ok(plan) => plan,
        Err(cause) => {
            eprintln!("raftgrid: failed to read the plan of the step: {cause}");
            return exit_code::DATA;
        }
    };
    match plan.run(folder) {
        Ok(result) => tell(&result),
        Err(error) => {
            eprintln!("raftgrid: {error}");
            match error {
                BlockError::Io(_) => exit_code::OS,
                BlockError::Size(..) => exit_code::DATA,
            }
        }
    }
}

/// No core dumps; and if memory runs out, the kernel takes the task before the worker. Neither is worth failing for.
fn limit() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
}

fn exec(argv: &[String]) -> i32 {
    let Some((program, args)) = argv.split_first() else {
        eprintln!("raftgrid: no program is given");
        return exit_code::USAGE;
    };
    let error = Command::new(program).args(args).exec();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            eprintln!("raftgrid: program `{program}` does not exist on this worker");
            exit_code::NOT_FOUND
        }
        _ => {
            eprintln!("raftgrid: failed to run `{program}`: {error}");
            exit_code::CANNOT_RUN
        }
    }
}
