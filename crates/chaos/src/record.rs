//! What a run's clients did and were told, on one clock, for the checkers.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use raftgrid_simulator::linearizability::{History, Op, TaskEvent, Time};

/// A write that its client knows to be done.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// When it was asked.
    pub invoked: Time,
    /// When it was answered.
    pub at: Time,
}

/// A submission whose id the server makes; `tag` is its own, whatever happens.
#[derive(Clone, Debug)]
pub struct Submission {
    /// In the task's data.
    pub tag: u64,
    /// The id, if it was acknowledged.
    pub accepted: Option<String>,
}

/// Retries by hand of one task: each acknowledged one makes one copy, each unknown one at most one.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// Answered with success.
    pub acknowledged: u64,
    /// Not answered.
    pub unknown: u64,
}

/// Everything that was seen. Shared by all threads of a run.
pub struct Record {
    start: Instant,
    ops: Mutex<Vec<Op>>,
    lives: Mutex<Vec<TaskEvent>>,
    acks: Mutex<Vec<Ack>>,
    submissions: Mutex<Vec<Submission>>,
    copies: Mutex<std::collections::BTreeMap<String, Copies>>,
    /// What must not happen and is seen at once.
    alarms: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Record {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            ops: Mutex::default(),
            lives: Mutex::default(),
            acks: Mutex::default(),
            submissions: Mutex::default(),
            copies: Mutex::default(),
            alarms: Mutex::default(),
        }
    }
}

impl Record {
    /// Microseconds since the run began.
    pub fn now(&self) -> Time {
        self.start.elapsed().as_micros() as u64
    }

    /// An operation on a register.
    pub fn op(&self, op: Op) {
        lock(&self.ops).push(op);
    }

    /// Something about a task.
    pub fn life(&self, event: TaskEvent) {
        lock(&self.lives).push(event);
    }

    /// A write was acknowledged.
    pub fn ack(&self, invoked: Time) {
        let at = self.now();
        lock(&self.acks).push(Ack { invoked, at });
    }

    /// A submission ended, one way or the other.
    pub fn submission(&self, submission: Submission) {
        lock(&self.submissions).push(submission);
    }

    /// A retry by hand of `task` ended.
    pub fn copy(&self, task: &str, acknowledged: bool) {
        let mut copies = lock(&self.copies);
        let counts = copies.entry(task.to_owned()).or_default();
        *if acknowledged { &mut counts.acknowledged } else { &mut counts.unknown } += 1;
    }

    /// Something that must not happen.
    pub fn alarm(&self, what: String) {
        lock(&self.alarms).push(what);
    }

    /// So many acknowledgements so far.
    pub fn acks(&self) -> Vec<Ack> {
        lock(&self.acks).clone()
    }

    /// When the first write asked after `moment` was answered.
    pub fn first_ack_after(&self, moment: Time) -> Option<Time> {
        lock(&self.acks).iter().filter(|ack| ack.invoked >= moment).map(|ack| ack.at).min()
    }

    /// The operations on registers.
    pub fn history(&self) -> History {
        History { ops: lock(&self.ops).clone() }
    }

    /// What was seen of tasks.
    pub fn lives(&self) -> Vec<TaskEvent> {
        lock(&self.lives).clone()
    }

    /// All submissions.
    pub fn submissions(&self) -> Vec<Submission> {
        lock(&self.submissions).clone()
    }

    /// Task → its retries by hand.
    pub fn copies(&self) -> std::collections::BTreeMap<String, Copies> {
        lock(&self.copies).clone()
    }

    /// What must not have happened.
    pub fn alarms(&self) -> Vec<String> {
        lock(&self.alarms).clone()
    }

    /// Writes everything to a file, an event a line, and `verdict` before it.
    pub fn write(&self, path: &Path, verdict: &str) -> Result<()> {
        let mut text = format!("{verdict}\n\n# operations on registers, times in microseconds\n");
        for (place, op) in lock(&self.ops).iter().enumerate() {
            let _ = writeln!(text, "{place:>7} {op}");
        }
        text.push_str("\n# lives of tasks\n");
        for (place, event) in lock(&self.lives).iter().enumerate() {
            let _ = writeln!(text, "{place:>7} {event:?}");
        }
        text.push_str("\n# submissions\n");
        for submission in lock(&self.submissions).iter() {
            let _ = writeln!(text, "{submission:?}");
        }
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}
