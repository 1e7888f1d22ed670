//! What must be done before an attempt's process is started: its folder, a copy of its code, its arguments and its environment.
//!
//! Each attempt has a folder and a copy of the bundle of its own: what an attempt writes beside its code is never seen by another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raftgrid_proto::v1::{GangPlace, Job, Task};

use crate::blocks::OUTPUT_FILE;
use crate::clock::boottime_ms;
use crate::environment::{add_element, add_python, add_reproducible, add_tasks_own, inherited, Variables};
use crate::executor::LeaseId;
use crate::gang::{self, Place};
use crate::host::Shared;
use crate::limits::INPUT_UNKNOWN_MS;
use crate::plan::{exit_code, plan, script_path, Plan, PlanError, PythonPlan, MODEL_FILE};
use crate::plane::PlaneError;
use crate::process::Control;
use crate::shim::PLAN_FILE;
use crate::table::{TaskContext, TaskFacts};
use crate::venvs::{self, Run, Venv, Wanted};

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
    /// In use as long as this is there.
    _venv: Option<Venv>,
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
    visible_gpus: Option<String>,
    run: Run<'_>,
) -> Result<(Staged, Arc<TaskContext>), PlanError> {
    let plan = plan(task.get_task_type(), task.get_task_data())?;
    let job = match &plan {
        Plan::Train(_) => Some(patiently(control, || shared.plane.job(task.get_job_id()))?),
        Plan::Command(_) | Plan::Python(_) | Plan::Matmul(_) | Plan::Block(_) | Plan::Torchrun(_) => None,
    };
    let code = folder.join(CODE_FOLDER);
    let digest = match task.get_spec().get_bundle_artifact() {
        "" => None,
        artifact => Some(shared.bundles.copy_to(artifact, shared.plane.as_ref(), &code)?),
    };
    let bundle = digest.is_some().then_some(code);
    let digest = digest.unwrap_or_default();
    let venv = environment_of(shared, task, bundle.as_deref(), &digest, folder, control, run)?;
    let python_program = venv.as_ref().map_or_else(|| shared.config.python.clone(), Venv::python);
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
            (Program::Exec(python_argv(python_program, python, bundle.as_deref(), folder)?), python.stdin.clone())
        }
        Plan::Torchrun(torchrun) => {
            let python = &torchrun.python;
            add_tasks_own(&mut variables, task.get_spec(), &python.env);
            let bundle_text = bundle.as_ref().map(|path| path.to_string_lossy().into_owned());
            add_python(&mut variables, bundle_text.as_deref(), &shared.config.python_path);
            let argv = python_argv(python_program, python, bundle.as_deref(), folder)?;
            let place = place_of(task);
            let nodes = place.as_ref().map_or(1, |place| place.world_size);
            (Program::Exec(torchrun.argv(argv, nodes, &meeting_of(task))), python.stdin.clone())
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
    if let Some(venv) = &venv {
        add_venv(&mut variables, venv);
    }
    if let Some(place) = place_of(task).filter(|_| !matches!(plan, Plan::Torchrun(_))) {
        gang::add(&mut variables, &place);
    }
    if let Some(visible) = visible_gpus {
        // "" where it asked for none: GPUs of others are not its to use.
        variables.insert("CUDA_VISIBLE_DEVICES".to_owned(), visible);
    }
    add_raftgrids_own(&mut variables, shared, &context, &token, digest, folder);
    shared.table.insert(token, context.clone());
    let result_is_stdout = matches!(plan, Plan::Matmul(_) | Plan::Block(_));
    let is_python = matches!(plan, Plan::Python(_) | Plan::Train(_) | Plan::Torchrun(_));
    let folder = bundle.unwrap_or_else(|| folder.to_owned());
    Ok((Staged { program, variables, folder, stdin, result_is_stdout, is_python, _venv: venv, keeps }, context))
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
        Plan::Torchrun(torchrun) => (torchrun.python.config.clone(), false),
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

/// The virtual environment that the task asks for; None: the machine's Python as it is.
fn environment_of(
    shared: &Shared,
    task: &Task,
    bundle: Option<&Path>,
    digest: &str,
    folder: &Path,
    control: &Control,
    run: Run<'_>,
) -> Result<Option<Venv>, PlanError> {
    let spec = task.get_spec();
    let requirements = match (spec.get_requirements(), spec.get_requirements_file()) {
        ("", "") => return Ok(None),
        ("", file) => venvs::of_file(file, bundle)?,
        (text, _) => text.to_owned(),
    };
    let folder = bundle.unwrap_or(folder);
    let wanted = Wanted { requirements: &requirements, folder, bundle: digest };
    shared.venvs.get(&wanted, &|| control.stopped(), run).map(Some)
}

/// A program that is named `python` is the environment's.
fn add_venv(variables: &mut Variables, venv: &Venv) {
    let folder = venv.folder().to_string_lossy().into_owned();
    let path = variables.get("PATH").cloned().unwrap_or_default();
    variables.insert("PATH".to_owned(), format!("{folder}/bin:{path}"));
    variables.insert("VIRTUAL_ENV".to_owned(), folder);
    variables.remove("PYTHONHOME");
}

/// The task's place in its gang; None: it is in none.
fn place_of(task: &Task) -> Option<Place> {
    let place = task.gang_place.as_ref()?;
    Some(Place {
        rank: place.get_rank(),
        world_size: place.get_world_size(),
        master_address: place.get_master_address().to_owned(),
        generation: place.get_generation(),
    })
}

/// Under which name the agents of a torchrun job meet: another one after each placement, so that what was closed by the last one is left
/// alone.
fn meeting_of(task: &Task) -> String {
    let placement = task.gang_place.as_ref().map_or(u64::from(task.get_attempt()), GangPlace::get_generation);
    let name = if task.get_job_id().is_empty() { task.get_task_id() } else { task.get_job_id() };
    format!("{name}.{placement}")
}

fn python_argv(
    program: String,
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
    let mut argv = vec![program, path.to_string_lossy().into_owned()];
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
        ("RAFTGRID_LEASE_EPOCH", context.epoch.to_string()),
        ("RAFTGRID_ENDPOINTS", shared.config.endpoints.join(",")),
    ];
    variables.extend(own.map(|(key, value)| (key.to_owned(), value)));
}
