//! One attempt from its task to its exit: stage, start through the shim, read its output, wait, clean up what it left running.
//!
//! Runs on a thread of its own. The group is signalled only while its leader is not reaped, so that a number that was given away again
//! is never hit.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver};
use raftgrid_crashpoint::{reach, Point};
use raftgrid_proto::v1::Task;
use rustix::io::Errno;
use rustix::process::{kill_process_group, waitid, Pid, Signal, WaitId, WaitIdOptions};
use slog::debug;

use crate::cgroup::Cgroup;
use crate::confinement::{limit_met, Confinement};
use crate::executor::{Exit, LeaseId, StopSignal};
use crate::host::Shared;
use crate::interpreter::lacks_package;
use crate::leftovers::{self, Note, RUN_VARIABLE};
use crate::limits::{OUTPUT_LINGER_MS, STDOUT_TAIL_BYTES_MAX};
use crate::logs::AttemptLog;
use crate::output::{command_result, failure_reason, Tail};
use crate::plan::{exit_code, PlanError};
use crate::reason::Reason;
use crate::stage::{disk, keep, stage, Program, Staged, CODE_FOLDER, INPUTS_FOLDER};
use crate::table::{lock, TaskContext};

/// How an attempt is told to stop, before and after it has a process.
#[derive(Default)]
pub(crate) struct Control {
    state: Mutex<ControlState>,
}

#[derive(Default)]
struct ControlState {
    group: Option<Pid>,
    stop: Option<StopSignal>,
    lost: bool,
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

    pub(crate) fn stopped(&self) -> bool {
        lock(&self.state).stop.is_some()
    }

    /// The lease is somebody else's, or may be: nothing more is sent of this attempt.
    pub(crate) fn lose(&self) {
        lock(&self.state).lost = true;
    }

    fn is_lost(&self) -> bool {
        lock(&self.state).lost
    }

    /// Starts a process in a group of its own, unless the attempt is to be stopped.
    fn start(&self, command: Command) -> Result<Child, PlanError> {
        let mut state = lock(&self.state);
        if state.stop.is_some() {
            return Err(PlanError::new(143, "stopped before it was started"));
        }
        let child = crate::spawner::spawn(command).map_err(disk("start the process"))?;
        state.group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(child)
    }
}

fn number(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Terminate => Signal::TERM,
        StopSignal::Kill => Signal::KILL,
    }
}

/// Runs the attempt and says how it ended.
pub(crate) fn run(shared: &Shared, lease: &LeaseId, task: &Task, control: &Control) -> Exit {
    let folder = shared.attempt_folder(lease);
    let mut open = match Open::new(shared, lease, &folder) {
        Ok(open) => open,
        Err(error) => return error.exit(),
    };
    let mut exit = attempt(lease, task, control, &mut open, &folder).unwrap_or_else(PlanError::exit);
    exit.log_artifact = open.keep_log(lease, control);
    exit
}

fn attempt(
    lease: &LeaseId,
    task: &Task,
    control: &Control,
    open: &mut Open<'_>,
    folder: &Path,
) -> Result<Exit, PlanError> {
    let shared = open.shared;
    let wanted = task.get_spec().get_resources().get_gpus();
    // Until nothing of the attempt runs any more: given back when this returns.
    let mut gpus = shared.gpus.take(lease, wanted, &|| control.stopped())?;
    let visible = (!shared.gpus.is_empty()).then(|| gpus.visible());
    let mut helper = |argv: &[String], at: &Path| run_helper(open, control, argv, at);
    let (staged, context) = stage(shared, lease, task, control, folder, visible, &mut helper)?;
    let mut exit = start_and_wait(lease, task, control, open, &staged, &context, folder);
    if let Some(file) = staged.keeps.as_deref().filter(|_| exit.as_ref().is_ok_and(|exit| exit.code == 0)) {
        exit = keep(shared, lease, control, file).and(exit);
    }
    if open.keep_note {
        gpus.keep();
    }
    exit
}

/// A program that prepares the attempt: it is stopped with it, and its output is in the attempt's log.
fn run_helper(
    open: &Open<'_>,
    control: &Control,
    argv: &[String],
    folder: &Path,
) -> Result<(i32, Option<String>), PlanError> {
    let mut command = Command::new(&open.shared.config.shim);
    command.arg("run-task").arg("--parent").arg(std::process::id().to_string()).arg("exec").arg("--").args(argv);
    command.env_clear().envs(crate::environment::inherited()).env(RUN_VARIABLE, &open.run).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = control.start(command)?;
    let ended = wait(child, control, &open.log, &open.run).map_err(disk("wait for a program"))?;
    Ok((code_of(ended.status), ended.reason))
}

/// What an attempt that is over no longer needs; its log and what it wrote into its own folder stay.
pub(crate) fn clean(folder: &Path) {
    // What cannot be removed goes with the whole folder later.
    for part in [CODE_FOLDER, INPUTS_FOLDER] {
        let _ = fs::remove_dir_all(folder.join(part));
    }
}

/// What belongs to a running attempt besides its process, ended on every way out.
struct Open<'a> {
    shared: &'a Shared,
    /// `LeaseId::file_name`.
    attempt: String,
    /// In the environment of each of its processes.
    run: String,
    log: Arc<AttemptLog>,
    /// A process of it does not die: the note is for the next worker here.
    keep_note: bool,
}

impl<'a> Open<'a> {
    /// Makes the attempt's folder and its log, and notes what would have to be killed if this worker died.
    fn new(shared: &'a Shared, lease: &LeaseId, folder: &Path) -> Result<Self, PlanError> {
        make_empty(folder).map_err(disk("make a folder"))?;
        let log = Arc::new(AttemptLog::create(&folder.join("log")).map_err(disk("open the log"))?);
        let open = Self { shared, attempt: lease.file_name(), run: crate::host::random_token(), log, keep_note: false };
        leftovers::write(&shared.notes_folder, &open.attempt, &open.note(0)).map_err(disk("note the process"))?;
        shared.shipper.add(lease.clone(), open.log.clone());
        Ok(open)
    }

    fn note(&self, pid: i32) -> Note {
        let start_ticks = if pid == 0 { 0 } else { leftovers::start_ticks(pid).unwrap_or_default() };
        Note { run: self.run.clone(), pid, start_ticks }
    }

    /// Puts the log where it outlives this worker; gives its id, or "" where there is none. The report does not wait for it for ever: a log
    /// is an aid.
    fn keep_log(&self, lease: &LeaseId, control: &Control) -> String {
        let kept = self.log.kept();
        if kept.is_empty() || control.is_lost() {
            return String::new();
        }
        let stored = self.shared.plane.put_log(kept);
        stored.unwrap_or_else(|error| {
            debug!(self.shared.logger, "log is not kept"; "task_id" => &lease.task_id, "error" => %error);
            String::new()
        })
    }
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

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.log.end();
        if !self.keep_note {
            leftovers::remove(&self.shared.notes_folder, &self.attempt);
        }
    }
}

fn start_and_wait(
    lease: &LeaseId,
    task: &Task,
    control: &Control,
    open: &mut Open<'_>,
    staged: &Staged,
    context: &TaskContext,
    folder: &Path,
) -> Result<Exit, PlanError> {
    let shared = open.shared;
    let limits = task.get_spec().get_limits();
    let cgroup = shared.cgroup(lease, limits);
    let confinement = Confinement::of(limits, cgroup.as_ref().map(Cgroup::folder));
    let command = command(shared, staged, folder, &open.run, &confinement).map_err(disk("prepare the process"))?;
    reach(Point::ProcessNoted);
    let child = control.start(command)?;
    reach(Point::ProcessStarted);
    // Without this second writing the run token still finds everything.
    let note = open.note(i32::try_from(child.id()).unwrap_or_default());
    let _ = leftovers::write(&shared.notes_folder, &open.attempt, &note);
    let mut ended = wait(child, control, &open.log, &open.run).map_err(disk("wait for the process"))?;
    open.keep_note = !ended.alone;
    let oom_kills = cgroup.as_ref().map_or(0, Cgroup::oom_kills);
    let said = ended.reason.clone().unwrap_or_default();
    if let Some(met) = limit_met(limits, oom_kills, ended.status.signal(), &said) {
        ended.limit = Some(met);
    }
    Ok(exit_of(staged, context, ended))
}

fn command(
    shared: &Shared,
    staged: &Staged,
    folder: &Path,
    run: &str,
    confinement: &Confinement,
) -> std::io::Result<Command> {
    let mut command = Command::new(&shared.config.shim);
    command.arg("run-task").arg("--parent").arg(std::process::id().to_string()).args(confinement.words());
    match &staged.program {
        Program::Exec(argv) => command.arg("exec").arg("--").args(argv),
        Program::Matmul { n, seed } => command.arg("matmul").arg(n.to_string()).arg(seed.to_string()),
        Program::Block(folder) => command.arg("block").arg(folder),
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

/// How a process ended.
struct Ended {
    status: ExitStatus,
    /// Tail of stdout.
    stdout: String,
    /// Why it failed, as far as stderr tells.
    reason: Option<String>,
    /// Nothing of it runs any more.
    alone: bool,
    /// Which of its limits it met.
    limit: Option<String>,
}

/// Waits for the group's leader, then kills what is left of the group, and only then gives its number back; then what left the group.
fn wait(mut child: Child, control: &Control, log: &Arc<AttemptLog>, run: &str) -> std::io::Result<Ended> {
    let stdout = child.stdout.take().map(|pipe| {
        follow(pipe, log.clone(), Tail::new(STDOUT_TAIL_BYTES_MAX), |tail, data| tail.push(data), |tail| tail.text())
    });
    let stderr = child
        .stderr
        .take()
        .map(|pipe| follow(pipe, log.clone(), Reason::default(), |reason, data| reason.push(data), Reason::finish));
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
    // A process that made a session of its own is in no group of ours: it is known by the token in its environment.
    let alone = leftovers::kill_run(run);
    Ok(Ended { status, stdout: take(stdout).unwrap_or_default(), reason: take(stderr).flatten(), alone, limit: None })
}

/// What a reader of a pipe found. One whose pipe is held open by a process that cannot be found is not waited for.
fn take<T>(found: Option<Receiver<T>>) -> Option<T> {
    found.and_then(|found| found.recv_timeout(Duration::from_millis(OUTPUT_LINGER_MS)).ok())
}

/// Copies a pipe into the log and into `sink` until its end, then gives what the sink makes of it.
fn follow<S: Send + 'static, T: Send + 'static>(
    mut pipe: impl Read + Send + 'static,
    log: Arc<AttemptLog>,
    mut sink: S,
    push: fn(&mut S, &[u8]),
    finish: fn(S) -> T,
) -> Receiver<T> {
    let (sender, receiver) = bounded(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    log.append(&buffer[..count]);
                    push(&mut sink, &buffer[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Nobody waits for it any more.
        let _ = sender.send(finish(sink));
    });
    receiver
}

/// The exit code, or 128 + the signal, as shells have it.
fn code_of(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(exit_code::OS)
}

fn exit_of(staged: &Staged, context: &TaskContext, ended: Ended) -> Exit {
    let Ended { status, stdout, reason, alone: _, limit } = ended;
    let code = code_of(status);
    if code != 0 {
        // The shim, and shells, say so of a program that this machine does not have or cannot run.
        let no_program = matches!(code, exit_code::CANNOT_RUN | exit_code::NOT_FOUND);
        let node_failed = no_program || (staged.is_python && reason.as_deref().is_some_and(lacks_package));
        let reason = limit.unwrap_or_else(|| failure_reason(reason, status.signal(), code));
        return Exit { code, reason, result_data: command_result(code, &stdout), node_failed, ..Exit::default() };
    }
    let result_data = match context.result() {
        Some(result) => result,
        None if staged.result_is_stdout => stdout.trim().to_owned(),
        None => command_result(code, &stdout),
    };
    Exit { code, result_data, ..Exit::default() }
}
