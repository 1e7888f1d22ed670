//! One held attempt: from the assignment to its report.

use raftgrid_proto::v1::{Task, TaskStatus};

use super::{Exit, LeaseId, Millis, Output, Report, StopSignal, Why};
use crate::limits::CALL_RETRY_MS;

/// Exit code that is always tried again: the failure is not the task's.
pub(super) const EXIT_INFRASTRUCTURE: i32 = 75;
/// Exit code of a task that ran too long, as `timeout(1)` has it.
pub(super) const EXIT_TIMED_OUT: i32 = 124;
/// Exit code of a task that was cancelled: 128 + SIGTERM.
pub(super) const EXIT_CANCELLED: i32 = 143;

/// Exit code of a task whose result could not be recorded (EX_DATAERR).
const EXIT_REFUSED: i32 = 65;

/// When a call is made (again).
#[derive(Debug)]
pub(super) struct Call {
    under_way: bool,
    next_at: Millis,
    retry_ms: u64,
}

impl Call {
    fn new() -> Self {
        Self { under_way: false, next_at: 0, retry_ms: CALL_RETRY_MS.0 }
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// The control plane is told that it will run.
    Starting { call: Call },
    /// The host has it.
    Running { since: Millis },
    /// SIGTERM was sent.
    Stopping { kill_at: Millis, why: Why },
    /// SIGKILL was sent.
    Killing { why: Why },
    /// No process; the result is on its way.
    Reporting { report: Report, call: Call },
}

#[derive(Debug)]
pub(super) struct Held {
    task: Task,
    /// When the beat was sent that renewed the lease last; at first, when it came.
    pub(super) renewed_at: Millis,
    pub(super) state: State,
}

impl Held {
    pub(super) fn new(task: Task, now: Millis) -> Self {
        Self { task, renewed_at: now, state: State::Starting { call: Call::new() } }
    }

    /// Whether a process exists or may exist.
    pub(super) fn has_process(&self) -> bool {
        match self.state {
            State::Starting { .. } | State::Reporting { .. } => false,
            State::Running { .. } | State::Stopping { .. } | State::Killing { .. } => true,
        }
    }

    /// Whatever is due; returns when the next thing is.
    pub(super) fn advance(
        &mut self,
        lease: &LeaseId,
        now: Millis,
        fence_after_ms: u64,
        stop_grace_ms: u64,
        out: &mut Vec<Output>,
    ) -> Millis {
        let fence_at = self.fence_at(fence_after_ms);
        if self.has_process() && now >= fence_at {
            self.kill(lease, Why::Fenced, out);
        }
        let timeout_ms = self.task.get_spec().get_run_timeout_ms();
        if let State::Running { since } = self.state {
            if timeout_ms != 0 && now >= since.saturating_add(timeout_ms) {
                self.stop(lease, now, stop_grace_ms, Why::TimedOut(timeout_ms), out);
            }
        }
        match &mut self.state {
            State::Starting { call } => advance_call(call, now, || Output::ConfirmStart { lease: lease.clone() }, out),
            State::Reporting { call, report } => {
                advance_call(call, now, || Output::Report { lease: lease.clone(), report: report.clone() }, out)
            }
            State::Running { since } if timeout_ms != 0 => fence_at.min(since.saturating_add(timeout_ms)),
            State::Running { .. } => fence_at,
            State::Stopping { kill_at, why } => {
                if now >= *kill_at {
                    let why = why.clone();
                    self.kill(lease, why, out);
                    return Millis::MAX;
                }
                fence_at.min(*kill_at)
            }
            State::Killing { .. } => Millis::MAX,
        }
    }

    /// When nobody may count on the lease any more.
    pub(super) fn fence_at(&self, fence_after_ms: u64) -> Millis {
        if self.task.get_spec().get_on_disconnect() == "continue" {
            Millis::MAX
        } else {
            self.renewed_at.saturating_add(fence_after_ms)
        }
    }

    /// The start was confirmed: the host takes over.
    pub(super) fn launch(&mut self, lease: &LeaseId, now: Millis, out: &mut Vec<Output>) {
        if let State::Starting { .. } = self.state {
            self.state = State::Running { since: now };
            out.push(Output::Launch { lease: lease.clone(), task: Box::new(self.task.clone()) });
        }
    }

    /// Ask it to end; force it after the grace. A task that has no process yet is given back.
    pub(super) fn stop(&mut self, lease: &LeaseId, now: Millis, grace_ms: u64, why: Why, out: &mut Vec<Output>) {
        match self.state {
            State::Starting { .. } => self.give_back(why),
            State::Running { .. } => {
                out.push(Output::Stop { lease: lease.clone(), signal: StopSignal::Terminate, why: why.clone() });
                self.state = State::Stopping { kill_at: now + grace_ms, why };
            }
            // A cancel overrides a drain's reason, so that the task is not tried again.
            State::Stopping { why: ref mut present, .. } if why == Why::Cancelled => *present = why,
            State::Stopping { .. } | State::Killing { .. } | State::Reporting { .. } => {}
        }
    }

    /// Force it to end.
    pub(super) fn kill(&mut self, lease: &LeaseId, why: Why, out: &mut Vec<Output>) {
        match &mut self.state {
            // Revoked is the stronger word: nothing may be reported.
            State::Killing { why: present } => {
                if why == Why::Revoked {
                    *present = why;
                }
            }
            State::Running { .. } | State::Stopping { .. } => {
                out.push(Output::Stop { lease: lease.clone(), signal: StopSignal::Kill, why: why.clone() });
                self.state = State::Killing { why };
            }
            State::Starting { .. } | State::Reporting { .. } => {}
        }
    }

    /// Never started here: report why.
    pub(super) fn give_back(&mut self, why: Why) {
        if let Some(report) = stopped(&why, &Exit::default()) {
            self.state = State::Reporting { report, call: Call::new() };
        }
    }

    /// The process group is gone. False: nothing is to be reported, forget it.
    pub(super) fn exited(&mut self, now: Millis, exit: Exit) -> bool {
        let report = match &self.state {
            State::Running { .. } => Some(finished(exit)),
            State::Stopping { why, .. } | State::Killing { why } => stopped(why, &exit),
            State::Starting { .. } | State::Reporting { .. } => return true,
        };
        let Some(report) = report else { return false };
        self.state = State::Reporting { report, call: Call { next_at: now, ..Call::new() } };
        true
    }

    /// The report was refused for what is in it: report that instead, once. False: even that was refused.
    pub(super) fn report_refusal(&mut self, why: &str) -> bool {
        match &mut self.state {
            State::Reporting { report, call } if report.exit_code != EXIT_REFUSED => {
                let reason = crate::output::one_line(&format!("the control plane refused the result: {why}"));
                let (status, exit_code) = (TaskStatus::FAILED, EXIT_REFUSED);
                let log_artifact = std::mem::take(&mut report.log_artifact);
                *report =
                    Report { status, exit_code, reason, result_data: String::new(), node_failed: false, log_artifact };
                *call = Call::new();
                true
            }
            State::Reporting { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => false,
        }
    }

    /// The call failed: again after a pause.
    pub(super) fn retry_call(&mut self, now: Millis) {
        match &mut self.state {
            State::Starting { call } | State::Reporting { call, .. } => {
                call.under_way = false;
                call.next_at = now + call.retry_ms;
                call.retry_ms = (call.retry_ms * 2).min(CALL_RETRY_MS.1);
            }
            State::Running { .. } | State::Stopping { .. } | State::Killing { .. } => {}
        }
    }
}

fn advance_call(call: &mut Call, now: Millis, make: impl FnOnce() -> Output, out: &mut Vec<Output>) -> Millis {
    if call.under_way {
        return Millis::MAX;
    }
    if now < call.next_at {
        return call.next_at;
    }
    call.under_way = true;
    out.push(make());
    Millis::MAX
}

/// The report of a process that ended by itself.
fn finished(exit: Exit) -> Report {
    let status = if exit.code == 0 { TaskStatus::COMPLETED } else { TaskStatus::FAILED };
    let Exit { code: exit_code, reason, result_data, node_failed, log_artifact } = exit;
    Report { status, exit_code, reason, result_data, node_failed, log_artifact }
}

/// The report of a process that we ended, even if it exited with 0: its work may be half done. None: the lease is not ours.
fn stopped(why: &Why, exit: &Exit) -> Option<Report> {
    let exit_code = match why {
        Why::Revoked => return None,
        Why::Fenced | Why::Drained => EXIT_INFRASTRUCTURE,
        Why::Cancelled => EXIT_CANCELLED,
        Why::TimedOut(_) => EXIT_TIMED_OUT,
    };
    let result_data = match why {
        Why::Cancelled | Why::TimedOut(_) => exit.result_data.clone(),
        Why::Fenced | Why::Drained | Why::Revoked => String::new(),
    };
    let log_artifact = exit.log_artifact.clone();
    let status = TaskStatus::FAILED;
    Some(Report { status, exit_code, reason: why.to_string(), result_data, node_failed: false, log_artifact })
}
