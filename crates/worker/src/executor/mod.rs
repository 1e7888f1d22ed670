//! What a worker does next: a pure state machine. Time, answers and exits go in; calls, launches, signals and reports come out.
//!
//! Owned here: which leases are held and how long each may live without an acknowledged renewal, the way of a task from assignment to
//! report, when to beat and poll, drain. Called by `runtime` (one thread) and by the simulator. Never here: a clock, a process, a call.
//!
//! Invariants: a renewal counts from the moment its beat was *sent*; a lease is renewed only by a beat that named it and whose answer
//! neither revoked nor skipped it; a fenced or revoked attempt is never reported as a success.

mod beat;
mod task;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;

use raftgrid_proto::v1::{HeartbeatResponse, Task};

use crate::limits::{DRAIN_EXTRA_MS, POLL_PAUSE_MS, POLL_PROMPT_MS};
use beat::Beats;
use task::{Held, State};
pub use types::{Answer, Exit, Input, LeaseId, Millis, Output, Report, Settings, StopSignal, Why};

/// The state machine.
pub struct Executor {
    settings: Settings,
    beats: Beats,
    held: BTreeMap<LeaseId, Held>,
    poll_sent_at: Option<Millis>,
    poll_not_before: Millis,
    /// No further tasks; what runs may go on until then.
    leave_at: Option<Millis>,
    drain_until: Option<Millis>,
    superseded: Option<String>,
    finished: bool,
}

impl Executor {
    /// A worker that holds nothing and is not registered.
    pub fn new(settings: Settings) -> Self {
        let beats = Beats::new(settings.lease_ttl_ms);
        Self {
            settings,
            beats,
            held: BTreeMap::new(),
            poll_sent_at: None,
            poll_not_before: 0,
            leave_at: None,
            drain_until: None,
            superseded: None,
            finished: false,
        }
    }

    /// Tasks that are held, in whatever state.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// One step. `now` never falls.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.finished {
            return out;
        }
        match input {
            Input::Tick => {}
            Input::BeatAnswered { number, answer } => self.beat_answered(now, number, &answer, &mut out),
            Input::BeatFailed { number, refused } => {
                self.beats.failed(now, number);
                if let Some(reason) = refused {
                    self.superseded_by(reason, &mut out);
                }
            }
            Input::Polled { tasks } => self.polled(now, tasks),
            Input::StartAnswered { lease, answer } => self.start_answered(now, &lease, answer, &mut out),
            Input::Exited { lease, exit } => self.exited(now, &lease, exit, &mut out),
            Input::ReportAnswered { lease, answer } => self.report_answered(now, &lease, answer, &mut out),
            Input::Stale { lease } => self.revoke(&lease, &mut out),
            Input::Drain => self.drain(now, &mut out),
            Input::Leave { wait_ms } => self.leave(now, wait_ms),
        }
        self.advance(now, &mut out);
        out
    }

    /// Everything that is due at `now`.
    fn advance(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.leave_at.is_some_and(|at| now >= at || self.held.is_empty()) {
            self.leave_at = None;
            self.drain(now, out);
        }
        let fence_after_ms = self.fence_after_ms();
        let stop_grace_ms = self.settings.stop_grace_ms;
        let mut wake = Millis::MAX;
        for (lease, held) in &mut self.held {
            wake = wake.min(held.advance(lease, now, fence_after_ms, stop_grace_ms, out));
        }
        if self.may_finish(now) {
            self.finished = true;
            let incarnation = self.beats.incarnation;
            out.push(Output::Finished { error: self.superseded.clone(), incarnation });
            return;
        }
        if self.superseded.is_none() {
            wake = wake.min(self.beats.advance(now, &self.held, out));
            wake = wake.min(self.advance_poll(now, out));
        }
        for at in [self.leave_at, self.drain_until].into_iter().flatten() {
            wake = wake.min(at);
        }
        if wake != Millis::MAX {
            out.push(Output::WakeAt(wake.max(now + 1)));
        }
    }

    /// How long after the sending of its last renewal a task is killed.
    fn fence_after_ms(&self) -> u64 {
        self.beats.lease_ttl_ms * 2 / 3
    }

    fn may_finish(&self, now: Millis) -> bool {
        let leaving = self.drain_until.is_some() || self.superseded.is_some();
        leaving && (self.held.is_empty() || self.drain_until.is_some_and(|until| now >= until))
    }

    fn advance_poll(&mut self, now: Millis, out: &mut Vec<Output>) -> Millis {
        // Until a start is confirmed the leader would hand the same task out again at once.
        let starting = self.held.values().any(|held| matches!(held.state, State::Starting { .. }));
        let free = u32::try_from(self.held.len()).map_or(0, |held| self.settings.slots.saturating_sub(held));
        let idle = self.beats.registered && !self.is_leaving() && !starting && free > 0;
        if !idle || self.poll_sent_at.is_some() {
            return Millis::MAX;
        }
        if now < self.poll_not_before {
            return self.poll_not_before;
        }
        self.poll_sent_at = Some(now);
        out.push(Output::Poll { max_tasks: free, incarnation: self.beats.incarnation });
        Millis::MAX
    }

    fn polled(&mut self, now: Millis, tasks: Option<Vec<Task>>) {
        let sent_at = self.poll_sent_at.take().unwrap_or(now);
        let prompt = now.saturating_sub(sent_at) < POLL_PROMPT_MS;
        let mut new = 0;
        for task in tasks.into_iter().flatten() {
            let lease = LeaseId { task_id: task.get_task_id().to_owned(), epoch: task.get_lease_epoch() };
            if self.held.contains_key(&lease) || self.superseded.is_some() {
                continue;
            }
            new += 1;
            let mut held = Held::new(task, now);
            if self.is_leaving() {
                held.give_back(Why::Drained);
            }
            self.held.insert(lease, held);
        }
        if new > 0 {
            // The leader counts from the assignment, which may be long ago: renew at once.
            self.beats.due_at(now);
        } else if prompt {
            self.poll_not_before = now + POLL_PAUSE_MS;
        }
    }

    fn beat_answered(&mut self, now: Millis, number: u64, answer: &HeartbeatResponse, out: &mut Vec<Output>) {
        let known = self.beats.incarnation;
        let Some(sent) = self.beats.answered(now, number, answer) else { return };
        if known != 0 && answer.get_incarnation() != known {
            // Polling under it would take the tasks of whoever holds it now.
            let other = answer.get_incarnation();
            let reason =
                format!("another worker has registered under this node id (incarnation {other}, ours was {known})");
            self.superseded_by(reason, out);
            return;
        }
        for lease in answer.get_revoked() {
            self.revoke(&LeaseId::of(lease), out);
        }
        let not_renewed: Vec<LeaseId> = answer.get_not_renewed().iter().map(LeaseId::of).collect();
        for lease in sent.held.iter().filter(|lease| !not_renewed.contains(lease)) {
            if let Some(held) = self.held.get_mut(lease) {
                held.renewed_at = held.renewed_at.max(sent.at);
            }
        }
        let stop_grace_ms = self.settings.stop_grace_ms;
        for lease in answer.get_stopping().iter().map(LeaseId::of) {
            if let Some(held) = self.held.get_mut(&lease) {
                held.stop(&lease, now, stop_grace_ms, Why::Cancelled, out);
            }
        }
    }

    fn start_answered(&mut self, now: Millis, lease: &LeaseId, answer: Answer, out: &mut Vec<Output>) {
        match answer {
            Answer::Stale => self.revoke(lease, out),
            Answer::Done => {
                let fence_after_ms = self.fence_after_ms();
                match self.held.get_mut(lease) {
                    // The answer took so long that the lease may be another's by now. What begins only to be killed is better not begun.
                    Some(held) if now >= held.fence_at(fence_after_ms) => {
                        self.beats.due_at(now);
                        held.retry_call(now);
                    }
                    Some(held) => held.launch(lease, now, out),
                    None => {}
                }
            }
            Answer::Unavailable => {
                if let Some(held) = self.held.get_mut(lease) {
                    held.retry_call(now);
                }
            }
            // A task that is being cancelled cannot be started; the next beat says what to do with it.
            Answer::Refused(_) => {
                self.beats.due_at(now);
                if let Some(held) = self.held.get_mut(lease) {
                    held.retry_call(now);
                }
            }
        }
    }

    fn exited(&mut self, now: Millis, lease: &LeaseId, exit: Exit, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(lease) else { return };
        if !held.exited(now, exit) {
            self.forget(lease, out);
        }
    }

    fn report_answered(&mut self, now: Millis, lease: &LeaseId, answer: Answer, out: &mut Vec<Output>) {
        match answer {
            Answer::Done | Answer::Stale => self.forget(lease, out),
            Answer::Unavailable => {
                if let Some(held) = self.held.get_mut(lease) {
                    held.retry_call(now);
                }
            }
            // A result that cannot be recorded is a failure that can.
            Answer::Refused(reason) => {
                if !self.held.get_mut(lease).is_some_and(|held| held.report_refusal(&reason)) {
                    self.forget(lease, out);
                }
            }
        }
    }

    /// The lease is not ours: kill what runs, report nothing.
    fn revoke(&mut self, lease: &LeaseId, out: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(lease) else { return };
        if held.has_process() {
            held.kill(lease, Why::Revoked, out);
        } else {
            self.forget(lease, out);
        }
    }

    fn forget(&mut self, lease: &LeaseId, out: &mut Vec<Output>) {
        if self.held.remove(lease).is_some() {
            out.push(Output::Forget { lease: lease.clone() });
        }
    }

    fn superseded_by(&mut self, reason: String, out: &mut Vec<Output>) {
        self.superseded = Some(reason);
        for lease in self.held.keys().cloned().collect::<Vec<_>>() {
            self.revoke(&lease, out);
        }
    }

    fn is_leaving(&self) -> bool {
        self.leave_at.is_some() || self.drain_until.is_some()
    }

    fn leave(&mut self, now: Millis, wait_ms: u64) {
        if self.is_leaving() {
            return;
        }
        self.leave_at = Some(now.saturating_add(wait_ms));
        for held in self.held.values_mut() {
            if matches!(held.state, State::Starting { .. }) {
                held.give_back(Why::Drained);
            }
        }
    }

    fn drain(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(now + self.settings.stop_grace_ms + DRAIN_EXTRA_MS);
        for (lease, held) in &mut self.held {
            held.stop(lease, now, self.settings.stop_grace_ms, Why::Drained, out);
        }
    }
}
