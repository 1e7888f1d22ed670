//! One attempt from its task to its exit: stage, start through the shim, read its output, wait, clean its group up.
//!
//! Runs on a thread of its own. The group is signalled only while its leader is not reaped, so that a number that was given away again
//! is never hit.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver};
use raftgrid_proto::v1::{Job, Task};
use rustix::io::Errno;
use rustix::process::{kill_process_group, waitid, Pid, Signal, WaitId, WaitIdOptions};

use crate::environment::{add_python, add_reproducible, add_tasks_own, inherited, Variables};
use crate::executor::{Exit, LeaseId, StopSignal};
use crate::host::Shared;
use crate::leftovers::{self, Note, RUN_VARIABLE};
use crate::limits::{OUTPUT_LINGER_MS, STDERR_TAIL_BYTES_MAX, STDOUT_TAIL_BYTES_MAX};
use crate::logs::AttemptLog;
use crate::output::{command_result, failure_reason, Tail};
use crate::plan::{exit_code, plan, script_path, Plan, PlanError, PythonPlan};
use crate::plane::PlaneError;
use crate::table::{lock, TaskContext, TaskFacts};

/// How an attempt is told to stop, before and after it has a process.
#[derive(Default)]
pub(crate) struct Control {
    state: Mutex<ControlState>,
}

#[derive(Default)]
struct ControlState {
    group: Option<Pid>,
    stop: Option<StopSignal>,
}

impl Control {
    /// Signals the group, now or as soon as there is one.
    pub(crate) fn stop(&self, signal: StopSignal) {
        let mut state = lock(&self.state);
        state.stop = Some(signal);
        if let Some(group) = state.group {
            // Gone already: then the exit is on its way.
            let _ = kill_process_group(group, number(signal));
        }
    }

    fn stopped(&self) -> bool {
        lock(&self.state).stop.is_some()
    }
}

fn number(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Terminate => Signal::TERM,
        StopSignal::Kill => Signal::KILL,
    }
}

/// What the shim is asked to become.
enum Program {
    Exec(Vec<String>),
    Matmul { n: usize, seed: u64 },
}

/// All that must be known before the process is started.
struct Staged {
    program: Program,
    variables: Variables,
    folder: PathBuf,
    stdin: Option<String>,
    /// The last line of stdout is the result, as JSON.
    result_is_stdout: bool,
}

/// Runs the attempt and says how it ended.
pub(crate) fn run(shared: &Shared, lease: &LeaseId, task: &Task, control: &Control) -> Exit {
    let folder = shared.attempt_folder(lease);
    let staged = stage(shared, lease, task, control, &folder);
    let (staged, context) = match staged {
        Ok(staged) => staged,
        Err(error) => return error.exit(),
    };
    match start_and_wait(shared, lease, control, &staged, &context, &folder) {
        Ok(exit) => exit,
        Err(error) => error.exit(),
    }
}

fn disk(what: &str) -> impl Fn(std::io::Error) -> PlanError + '_ {
    move |error| PlanError::new(exit_code::OS, format!("failed to {what} on this worker: {error}"))
}

fn stage(
    shared: &Shared,
    lease: &LeaseId,
    task: &Task,
    control: &Control,
    folder: &Path,
) -> Result<(Staged, Arc<TaskContext>), PlanError> {
    let plan = plan(task.get_task_type(), task.get_task_data())?;
    fs::create_dir_all(folder).map_err(disk("make a folder"))?;
    let job = match &plan {
        Plan::Train(_) => Some(patiently(control, || shared.plane.job(task.get_job_id()))?),
        Plan::Command(_) | Plan::Python(_) | Plan::Matmul(_) => None,
    };
    let bundle = match task.get_spec().get_bundle_artifact() {
        "" => None,
        artifact => Some(shared.bundles.ensure(artifact, shared.plane.as_ref())?),
    };
    let context = Arc::new(context(shared, lease, task, job.as_ref(), &plan));
    let mut variables = inherited();
    let token = crate::host::random_token();
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
    };
    if let Some(train) = job.as_ref().map(|job| job.get_spec().get_train()) {
        if !train.get_native_environment() {
            add_reproducible(&mut variables, train.get_openblas_coretype());
        }
    }
    add_raftgrids_own(&mut variables, shared, &context, &token, bundle.as_deref(), folder);
    shared.table.insert(token, context.clone());
    let result_is_stdout = matches!(plan, Plan::Matmul(_));
    let folder = bundle.unwrap_or_else(|| folder.to_owned());
    Ok((Staged { program, variables, folder, stdin, result_is_stdout }, context))
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
        Plan::Command(_) | Plan::Matmul(_) => (None, false),
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
    bundle: Option<&Path>,
    folder: &Path,
) {
    // The digest, not the path: it goes into the numeric class, which must not differ between workers.
    let bundle = bundle.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own = [
        ("RAFTGRID_AGENT", shared.agent_address.clone()),
        ("RAFTGRID_TOKEN", token.to_owned()),
        ("RAFTGRID_JOB", context.job_id.clone()),
        ("RAFTGRID_TASK", context.task_id.clone()),
        ("RAFTGRID_ATTEMPT", context.attempt.to_string()),
        ("RAFTGRID_NUM_SHARDS", context.num_shards.to_string()),
        ("RAFTGRID_CONFIG", context.config_json.clone()),
        ("RAFTGRID_BUNDLE", bundle),
        ("RAFTGRID_NODE", context.node_id.clone()),
        ("RAFTGRID_DIR", folder.to_string_lossy().into_owned()),
    ];
    variables.extend(own.map(|(key, value)| (key.to_owned(), value)));
}

fn start_and_wait(
    shared: &Shared,
    lease: &LeaseId,
    control: &Control,
    staged: &Staged,
    context: &TaskContext,
    folder: &Path,
) -> Result<Exit, PlanError> {
    let run = crate::host::random_token();
    let mut note = Note { run: run.clone(), pid: 0, start_ticks: 0 };
    leftovers::write(&shared.notes_folder, lease.epoch, &note).map_err(disk("note the process"))?;
    let log = Arc::new(AttemptLog::create(&folder.join("log")).map_err(disk("open the log"))?);
    shared.shipper.add(lease.clone(), log.clone());
    let command = command(shared, staged, folder, &run).map_err(disk("prepare the process"))?;
    let child = {
        let mut state = lock(&control.state);
        if state.stop.is_some() {
            log.end();
            return Err(PlanError::new(143, "stopped before it was started"));
        }
        let child = crate::spawner::spawn(command).map_err(disk("start the process"))?;
        state.group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        child
    };
    note.pid = i32::try_from(child.id()).unwrap_or_default();
    note.start_ticks = leftovers::start_ticks(note.pid).unwrap_or_default();
    // Without the second writing the run token still finds everything.
    let _ = leftovers::write(&shared.notes_folder, lease.epoch, &note);
    let (status, stdout, stderr) = wait(child, control, &log).map_err(disk("wait for the process"))?;
    log.end();
    leftovers::remove(&shared.notes_folder, lease.epoch);
    Ok(exit_of(staged, context, status, &stdout, &stderr))
}

fn command(shared: &Shared, staged: &Staged, folder: &Path, run: &str) -> std::io::Result<Command> {
    let mut command = Command::new(&shared.config.shim);
    command.arg("run-task").arg("--parent").arg(std::process::id().to_string());
    match &staged.program {
        Program::Exec(argv) => command.arg("exec").arg("--").args(argv),
        Program::Matmul { n, seed } => command.arg("matmul").arg(n.to_string()).arg(seed.to_string()),
    };
    let stdin = match &staged.stdin {
        None => Stdio::null(),
        Some(text) => {
            // A file, not a pipe: a task that does not read it must not block us.
            let path = folder.join("stdin");
            fs::write(&path, text)?;
            Stdio::from(File::open(path)?)
        }
    };
    command
        .env_clear()
        .envs(&staged.variables)
        .env(RUN_VARIABLE, run)
        .current_dir(&staged.folder)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    Ok(command)
}

/// Waits for the group's leader, then kills what is left of the group, and only then gives its number back.
fn wait(mut child: Child, control: &Control, log: &Arc<AttemptLog>) -> std::io::Result<(ExitStatus, String, String)> {
    let stdout = child.stdout.take().map(|pipe| follow(pipe, log.clone(), STDOUT_TAIL_BYTES_MAX));
    let stderr = child.stderr.take().map(|pipe| follow(pipe, log.clone(), STDERR_TAIL_BYTES_MAX));
    let group = lock(&control.state).group;
    if let Some(leader) = group {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(leader), options), Err(Errno::INTR)) {}
    }
    let status = {
        let mut state = lock(&control.state);
        if let Some(group) = state.group.take() {
            // The leader is a zombie, so the number is still this group's.
            let _ = kill_process_group(group, Signal::KILL);
        }
        child.wait()?
    };
    // A descendant that left the group may hold the pipes open: its output is not waited for.
    let take = |text: Option<Receiver<String>>| {
        text.and_then(|text| text.recv_timeout(Duration::from_millis(OUTPUT_LINGER_MS)).ok()).unwrap_or_default()
    };
    Ok((status, take(stdout), take(stderr)))
}

/// Copies a pipe into the log until its end, then gives its tail.
fn follow(mut pipe: impl Read + Send + 'static, log: Arc<AttemptLog>, tail_bytes_max: usize) -> Receiver<String> {
    let (sender, receiver) = bounded(1);
    std::thread::spawn(move || {
        let mut tail = Tail::new(tail_bytes_max);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    log.append(&buffer[..count]);
                    tail.push(&buffer[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Nobody waits for it any more.
        let _ = sender.send(tail.text());
    });
    receiver
}

fn exit_of(staged: &Staged, context: &TaskContext, status: ExitStatus, stdout: &str, stderr: &str) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(exit_code::OS);
    if code != 0 {
        return Exit { code, reason: failure_reason(stderr, code), result_data: command_result(code, stdout) };
    }
    let result_data = match context.result() {
        Some(result) => result,
        None if staged.result_is_stdout => stdout.trim().to_owned(),
        None => command_result(code, stdout),
    };
    Exit { code, reason: String::new(), result_data }
}
