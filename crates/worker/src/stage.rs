//! What must be done before an attempt's process is started: its folder, a copy of its code, its arguments and its environment.
//!
//! Each attempt has a folder and a copy of the bundle of its own: what an attempt writes beside its code is never seen by another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raftgrid_proto::v1::{Job, Task};

use crate::blocks::OUTPUT_FILE;
use crate::clock::boottime_ms;
use crate::environment::{add_element, add_python, add_reproducible, add_tasks_own, inherited, Variables};
use crate::executor::LeaseId;
use crate::host::Shared;
use crate::limits::INPUT_UNKNOWN_MS;
use crate::plan::{exit_code, plan, script_path, Plan, PlanError, PythonPlan, MODEL_FILE};
use crate::plane::PlaneError;
use crate::process::Control;
use crate::shim::PLAN_FILE;
use crate::table::{TaskContext, TaskFacts};

/// The attempt's copy of its bundle, in its folder.
pub(crate) const CODE_FOLDER: &str = "code";

/// Artifacts that were fetched for the attempt, in its folder; what a step leaves is put there, too.
pub(crate) const INPUTS_FOLDER: &str = "inputs";

/// What the shim is asked to become.
pub(crate) enum Program {
    Exec(Vec<String>),
    Matmul {
        n: usize,
        seed: u64,
    },
    /// A step whose plan and inputs are in this folder.
    Block(PathBuf),
}

/// All that must be known before the process is started.
pub(crate) struct Staged {
    pub(crate) program: Program,
    pub(crate) variables: Variables,
    /// Where the process starts.
    pub(crate) folder: PathBuf,
    pub(crate) stdin: Option<String>,
    /// The last line of stdout is the result, as JSON.
    pub(crate) result_is_stdout: bool,
    /// A Python program of ours: it needs the package raftgrid.
    pub(crate) is_python: bool,
    /// A file that the process leaves and that is kept under the task's name, if it succeeds.
    pub(crate) keeps: Option<PathBuf>,
}

pub(crate) fn disk(what: &str) -> impl Fn(std::io::Error) -> PlanError + '_ {
    move |error| PlanError::new(exit_code::OS, format!("failed to {what} on this worker: {error}"))
}

/// Does all of it.
pub(crate) fn stage(
    shared: &Shared,
    lease: &LeaseId,
    task: &Task,
    control: &Control,
    folder: &Path,
) -> Result<(Staged, Arc<TaskContext>), PlanError> {
    let plan = plan(task.get_task_type(), task.get_task_data())?;
    make_empty(folder).map_err(disk("make a folder"))?;
    let job = match &plan {
        Plan::Train(_) => Some(patiently(control, || shared.plane.job(task.get_job_id()))?),
        Plan::Command(_) | Plan::Python(_) | Plan::Matmul(_) | Plan::Block(_) => None,
    };
    let code = folder.join(CODE_FOLDER);
    let digest = match task.get_spec().get_bundle_artifact() {
        "" => None,
        artifact => Some(shared.bundles.copy_to(artifact, shared.plane.as_ref(), &code)?),
    };
    let bundle = digest.is_some().then_some(code);
    let context = Arc::new(context(shared, lease, task, job.as_ref(), &plan));
    let mut variables = inherited();
    let token = crate::host::random_token();
    let mut keeps = None;
    let (program, stdin) = match &plan {
        Plan::Command(command) => {
            add_tasks_own(&mut variables, task.get_spec(), &command.env);
            (Program::Exec(command.argv.clone()), command.stdin.clone())
        }
        Plan::Python(python) | Plan::Train(python) => {
            add_tasks_own(&mut variables, task.get_spec(), &python.env);
            let bundle_text = bundle.as_ref().map(|path| path.to_string_lossy().into_owned());
            add_python(&mut variables, bundle_text.as_deref(), &shared.config.python_path);
            (Program::Exec(python_argv(shared, python, bundle.as_deref(), folder)?), python.stdin.clone())
        }
        Plan::Matmul(matmul) => (Program::Matmul { n: matmul.n, seed: matmul.seed }, None),
        Plan::Block(block) => {
            let inputs = folder.join(INPUTS_FOLDER);
            fetch_inputs(shared, control, &inputs, block.inputs().iter().map(|(name, artifact)| (name, artifact)))?;
            let plan = serde_json::to_vec(block).map_err(|error| disk("write the plan")(error.into()))?;
            fs::write(inputs.join(PLAN_FILE), plan).map_err(disk("write the plan"))?;
            keeps = Some(inputs.join(OUTPUT_FILE));
            (Program::Block(inputs), None)
        }
    };
    if let Plan::Python(python) = &plan {
        if !python.inputs.is_empty() {
            let inputs = folder.join(INPUTS_FOLDER);
            fetch_inputs(shared, control, &inputs, python.inputs.iter())?;
            variables.insert("RAFTGRID_INPUTS".to_owned(), inputs.to_string_lossy().into_owned());
            if !python.model.is_empty() {
                let model = inputs.join(MODEL_FILE).to_string_lossy().into_owned();
                variables.insert("RAFTGRID_MODEL".to_owned(), model);
            }
        }
    }
    add_element(&mut variables, task);
    if let Some(train) = job.as_ref().map(|job| job.get_spec().get_train()) {
        if !train.get_native_environment() {
            add_reproducible(&mut variables, train.get_openblas_coretype());
        }
    }
    add_raftgrids_own(&mut variables, shared, &context, &token, digest.unwrap_or_default(), folder);
    shared.table.insert(token, context.clone());
    let result_is_stdout = matches!(plan, Plan::Matmul(_) | Plan::Block(_));
    let is_python = matches!(plan, Plan::Python(_) | Plan::Train(_));
    let folder = bundle.unwrap_or_else(|| folder.to_owned());
    Ok((Staged { program, variables, folder, stdin, result_is_stdout, is_python, keeps }, context))
}

/// An epoch is given once, but a worker's directory may have served another cluster before.
fn make_empty(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(folder)
}

/// Fetches artifacts into a new folder, each verified against its digest.
fn fetch_inputs<'a>(
    shared: &Shared,
    control: &Control,
    folder: &Path,
    inputs: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(), PlanError> {
    fs::create_dir_all(folder).map_err(disk("make a folder"))?;
    for (name, artifact) in inputs {
        let begun_ms = boottime_ms();
        loop {
            let mut file = fs::File::create(folder.join(name)).map_err(disk("store an input"))?;
            match shared.plane.get_artifact(artifact, &mut file) {
                Ok(_) => break,
                // The replica that was asked may lag behind the one that gave us the task.
                Err(PlaneError::NotFound(_)) if boottime_ms() - begun_ms < INPUT_UNKNOWN_MS && !control.stopped() => {}
                Err(PlaneError::NotFound(cause)) => {
                    let reason = format!("input `{name}`: there is no artifact `{artifact}` ({cause})");
                    return Err(PlanError::new(exit_code::NO_INPUT, reason));
                }
                Err(error) if error.retryable() && !control.stopped() => {}
                Err(error) => return Err(PlanError::new(exit_code::TRY_AGAIN, format!("input `{name}`: {error}"))),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Keeps what a step left, under the task's name, until it is durable or the attempt is to be stopped.
pub(crate) fn keep(shared: &Shared, lease: &LeaseId, control: &Control, file: &Path) -> Result<(), PlanError> {
    let mut body = fs::File::open(file).map_err(disk("read what the task left"))?;
    patiently(control, || shared.plane.put_artifact(&lease.task_id, &mut body))?;
    Ok(())
}

/// Asks until there is an answer, or the attempt is to be stopped.
fn patiently<T>(control: &Control, mut ask: impl FnMut() -> Result<T, PlaneError>) -> Result<T, PlanError> {
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(error) if error.retryable() && !control.stopped() => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(PlanError::new(exit_code::TRY_AGAIN, error.to_string())),
        }
    }
}

fn context(shared: &Shared, lease: &LeaseId, task: &Task, job: Option<&Job>, plan: &Plan) -> TaskContext {
    let train = job.map(|job| job.get_spec().get_train());
    let (config, init) = match plan {
        Plan::Python(python) | Plan::Train(python) => (python.config.clone(), python.init),
        Plan::Command(_) | Plan::Matmul(_) | Plan::Block(_) => (None, false),
    };
    // The first trainer makes model 0, unless the job came with one.
    let first = job.is_some_and(|job| job.get_task_ids().first().is_some_and(|first| *first == lease.task_id));
    let given = train.is_some_and(|train| !train.get_initial_model().is_empty());
    let facts = TaskFacts {
        node_id: shared.config.node_id.clone(),
        job_id: task.get_job_id().to_owned(),
        task_id: lease.task_id.clone(),
        epoch: lease.epoch,
        attempt: task.get_attempt(),
        num_shards: train.map_or(0, |train| train.get_shards()),
        rounds: train.map_or(0, |train| train.get_rounds()),
        seed: train.map_or(0, |train| train.get_seed()),
        config_json: config.map_or_else(|| "{}".to_owned(), |config| config.to_string()),
        init_task: init || (first && !given),
    };
    TaskContext::from(facts)
}

fn python_argv(
    shared: &Shared,
    python: &PythonPlan,
    bundle: Option<&Path>,
    folder: &Path,
) -> Result<Vec<String>, PlanError> {
    let path = if python.code.is_empty() {
        script_path(&python.script, bundle)?
    } else {
        let path = folder.join("code.py");
        fs::write(&path, &python.code).map_err(disk("write the code"))?;
        path
    };
    let mut argv = vec![shared.config.python.clone(), path.to_string_lossy().into_owned()];
    argv.extend(python.args.iter().cloned());
    Ok(argv)
}

fn add_raftgrids_own(
    variables: &mut Variables,
    shared: &Shared,
    context: &TaskContext,
    token: &str,
    bundle: String,
    folder: &Path,
) {
    let own = [
        ("RAFTGRID_AGENT", shared.agent_address.clone()),
        ("RAFTGRID_TOKEN", token.to_owned()),
        ("RAFTGRID_JOB", context.job_id.clone()),
        ("RAFTGRID_TASK", context.task_id.clone()),
        ("RAFTGRID_ATTEMPT", context.attempt.to_string()),
        ("RAFTGRID_NUM_SHARDS", context.num_shards.to_string()),
        ("RAFTGRID_CONFIG", context.config_json.clone()),
        // The digest, not the path: it goes into the numeric class, which must not differ between workers.
        ("RAFTGRID_BUNDLE", bundle),
        ("RAFTGRID_NODE", context.node_id.clone()),
        ("RAFTGRID_DIR", folder.to_string_lossy().into_owned()),
    ];
    variables.extend(own.map(|(key, value)| (key.to_owned(), value)));
}
