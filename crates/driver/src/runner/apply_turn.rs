//! One turn of the apply side: applies what is committed, answers who waits for it. It waits for nothing and knows no clock: the thread
//! `apply` runs it, and so does whoever runs a replica by hand (`manual`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender};

use super::handle::{Completion, Waiter};
use super::told::Told;
use super::Fatal;
use crate::core::{Applied, AppliedEntry, Applier, Outcome};
use crate::error::{ChangeError, ProposeDone, ProposeError};
use crate::limits::APPLY_BATCH_BYTES_MAX;
use crate::metrics::Metrics;
use crate::traits::{LogReadError, LogReader, StateMachine};
use crate::types::{Entry, Index, Snapshot};
use crate::waiters::{Settled, Waiters};

/// Work for the apply side.
pub(super) enum Job {
    /// Entries, with their bytes as counted in the queue.
    Entries(Vec<Entry>, usize),
    /// Entries `first..=last` that would not fit the queue: read from the log.
    Range(Index, Index),
    Restore(Snapshot),
    BuildSnapshot,
}

pub(super) struct ApplyTurn<M, R> {
    pub(super) machine: M,
    pub(super) reader: R,
    pub(super) applier: Applier,
    pub(super) jobs: Receiver<Job>,
    pub(super) completions: Sender<Completion>,
    pub(super) told: Arc<Told>,
    pub(super) waiters: Arc<Mutex<Waiters<Waiter>>>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) flush_after_entries: u64,
    pub(super) flush_asked_at: Index,
    pub(super) flushed_told: Index,
    /// Taken from the queue, and not entries as the job before it was.
    pub(super) held: VecDeque<Job>,
    pub(super) metrics: Metrics,
}

impl<M: StateMachine, R: LogReader> ApplyTurn<M, R> {
    /// Whether a job waits.
    pub(super) fn has_job(&self) -> bool {
        !(self.held.is_empty() && self.jobs.is_empty())
    }

    /// Carries out one job, with the entries that have queued up behind it. An error ends the process.
    pub(super) fn run_job(&mut self, job: Job) -> Result<(), Fatal> {
        match job {
            Job::Entries(mut entries, mut bytes) => {
                // What has queued up meanwhile goes into the same call.
                while bytes < APPLY_BATCH_BYTES_MAX && self.held.is_empty() {
                    match self.jobs.try_recv() {
                        Ok(Job::Entries(more, more_bytes)) => {
                            entries.extend(more);
                            bytes += more_bytes;
                        }
                        Ok(other) => self.held.push_back(other),
                        Err(_) => break,
                    }
                }
                self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
                self.apply(&entries)
            }
            Job::Range(first, last) => self.apply_range(first, last),
            Job::Restore(snapshot) => {
                self.restore(&snapshot);
                Ok(())
            }
            Job::BuildSnapshot => {
                let completions = self.completions.clone();
                // After the stop nobody wants to know.
                let done = move |built| drop(completions.send(Completion::SnapshotBuilt(built)));
                self.machine.build_snapshot(Box::new(done));
                Ok(())
            }
        }
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<(), Fatal> {
        self.metrics.apply_batch_entries.observe(entries.len() as f64);
        let (applied, outcomes) = self.applier.entries(&mut self.machine, entries)?;
        self.answer(outcomes);
        self.tell(applied);
        Ok(())
    }

    fn apply_range(&mut self, first: Index, last: Index) -> Result<(), Fatal> {
        let mut next = first;
        while next <= last && !self.stop.load(Ordering::SeqCst) {
            match self.reader.entries(next, last + 1, APPLY_BATCH_BYTES_MAX as u64) {
                Ok(entries) => {
                    let Some(read) = entries.last().map(|entry| entry.index) else {
                        return Err(Fatal::new("a committed entry is missing from the log"));
                    };
                    self.apply(&entries)?;
                    next = read + 1;
                }
                // Only an install takes away what is not applied: its snapshot is the next job, and covers these entries.
                Err(LogReadError::Compacted) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        let applied = self.applier.restore(&mut self.machine, snapshot);
        self.metrics.snapshots_installed.inc();
        let overtaken = self.waiters().overtaken(snapshot.meta.index);
        overtaken.into_iter().for_each(unknown);
        self.tell(applied);
    }

    /// Callbacks run without the lock.
    fn answer(&mut self, outcomes: Vec<AppliedEntry>) {
        let mut settled = Vec::new();
        {
            let mut waiters = self.waiters();
            for entry in outcomes {
                if waiters.is_empty() {
                    break;
                }
                settled.push((waiters.settle(entry.index, entry.term), entry));
            }
        }
        for (settled, entry) in settled {
            answer_entry(settled, entry);
        }
    }

    fn tell(&mut self, applied: Applied) {
        self.ask_flush(applied.index, applied.flushed);
        self.flushed_told = applied.flushed;
        if self.told.add(applied) {
            // The raft thread may be gone; then so is this one, soon.
            let _ = self.completions.send(Completion::Told);
        }
    }

    /// Asks once for each stretch of entries, not again for each entry while the flush runs.
    fn ask_flush(&mut self, applied: Index, flushed: Index) {
        let due = applied.saturating_sub(flushed) > self.flush_after_entries;
        if due && applied.saturating_sub(self.flush_asked_at) > self.flush_after_entries {
            self.flush_asked_at = applied;
            self.machine.request_flush();
        }
    }

    /// A flush ends in the background: the raft thread cuts the log when it hears of it.
    pub(super) fn tell_flushed(&mut self) {
        let flushed = self.machine.flushed();
        if flushed > self.flushed_told {
            let index = self.applier.applied();
            self.tell(Applied { index, flushed, ..Applied::default() });
        }
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Waiters<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn unknown(waiter: Waiter) {
    match waiter {
        Waiter::Propose(reply) => reply.call(Err(ProposeError::Unknown)),
        Waiter::Change(reply) => reply.call(Err(ChangeError::Unknown)),
    }
}

fn answer_entry(settled: Settled<Waiter>, entry: AppliedEntry) {
    for waiter in settled.superseded {
        match waiter {
            Waiter::Propose(reply) => reply.call(Err(ProposeError::Superseded)),
            Waiter::Change(reply) => reply.call(Err(ChangeError::Superseded)),
        }
    }
    let (index, term) = (entry.index, entry.term);
    match entry.outcome {
        Outcome::Normal(replies) => {
            for ((ordinal, waiter), reply) in (0u32..).zip(settled.done).zip(replies) {
                match waiter {
                    Waiter::Propose(callback) => callback.call(Ok(ProposeDone { index, term, ordinal, reply })),
                    Waiter::Change(callback) => callback.call(Err(ChangeError::Superseded)),
                }
            }
        }
        Outcome::Change(made) => {
            for waiter in settled.done {
                match (waiter, &made) {
                    (Waiter::Change(callback), Ok(())) => callback.call(Ok(index)),
                    (Waiter::Change(callback), Err(reason)) => {
                        callback.call(Err(ChangeError::Refused { reason: reason.clone() }));
                    }
                    (Waiter::Propose(callback), _) => callback.call(Err(ProposeError::Superseded)),
                }
            }
        }
    }
}
