//! The life of tasks, as docs (semantics) promise it, judged by what clients and workers saw.
//!
//! Held: (1) a submission that was acknowledged is there for every later read; (2) the same revision is the same row, for everyone, and a
//! later read never shows an earlier one; (3) a task that is over never changes; (4) leases rise; (5) of the reports of one lease at most
//! one is accepted, and of the successful ones of a task at most one ever, and what it said is what everyone reads from then on.

use std::collections::BTreeMap;

use crate::linearizability::history::Time;
use crate::linearizability::limits::NAMED_OPS_MAX;
use crate::linearizability::Violation;

/// Where a task stands, coarsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// On no node.
    Pending,
    /// A node owns it.
    Assigned,
    /// It runs, or may run.
    Running,
    /// Over, with success.
    Completed,
    /// Over, without.
    Failed,
}

impl Life {
    /// Whether it never changes again.
    pub fn is_over(self) -> bool {
        match self {
            Life::Completed | Life::Failed => true,
            Life::Pending | Life::Assigned | Life::Running => false,
        }
    }
}

/// A row as somebody read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskSeen {
    /// Position of its last change.
    pub revision: u64,
    /// Where it stands.
    pub life: Life,
    /// Position of its newest lease; 0: it never had one.
    pub epoch: u64,
    /// Attempts so far.
    pub attempt: u32,
    /// Its result.
    pub result: String,
}

/// What a reporter was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportAnswer {
    /// It counts.
    Accepted,
    /// An equal one counted before.
    Repeated,
    /// It does not count.
    Stale,
}

/// Something that a client did and, if it was told, learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// A submission was acknowledged.
    Submitted {
        /// Which task.
        task: String,
        /// When the answer came.
        at: Time,
    },
    /// A linearizable read.
    Read {
        /// Which task.
        task: String,
        /// When it was asked.
        invoked: Time,
        /// When the answer came.
        at: Time,
        /// The row; None: no such task.
        seen: Option<TaskSeen>,
    },
    /// A worker reported the end of an attempt and was answered.
    Reported {
        /// Which task.
        task: String,
        /// The lease it speaks for.
        epoch: u64,
        /// Whether it says success.
        completed: bool,
        /// What it says.
        result: String,
        /// When the answer came.
        at: Time,
        /// What it was told.
        answer: ReportAnswer,
    },
}

impl TaskEvent {
    fn task(&self) -> &str {
        match self {
            TaskEvent::Submitted { task, .. } | TaskEvent::Read { task, .. } | TaskEvent::Reported { task, .. } => task,
        }
    }
}

/// Everything that semantics.md forbids, in no particular order. Violations name places in `events`.
pub fn check_lives(events: &[TaskEvent]) -> Vec<Violation> {
    let mut tasks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        tasks.entry(event.task()).or_default().push(place);
    }
    let mut violations = Vec::new();
    for (task, places) in tasks {
        let mut judge = Judge { events, task, places: &places, violations: &mut violations };
        judge.existence();
        judge.rows();
        judge.order();
        judge.reports();
    }
    violations
}

struct Judge<'a> {
    events: &'a [TaskEvent],
    task: &'a str,
    places: &'a [usize],
    violations: &'a mut Vec<Violation>,
}

impl<'a> Judge<'a> {
    fn wrong(&mut self, ops: &[usize], cause: String) {
        let ops = ops.iter().copied().take(NAMED_OPS_MAX).collect();
        self.violations.push(Violation { key: self.task.to_owned(), ops, cause });
    }

    /// (place, asked, answered, row) of every read.
    fn reads(&self) -> Vec<(usize, Time, Time, Option<&'a TaskSeen>)> {
        let events = self.events;
        let read = |place: &usize| match &events[*place] {
            TaskEvent::Read { invoked, at, seen, .. } => Some((*place, *invoked, *at, seen.as_ref())),
            TaskEvent::Submitted { .. } | TaskEvent::Reported { .. } => None,
        };
        self.places.iter().filter_map(read).collect()
    }

    /// Rule 1. Having been read counts as an acknowledgement, too.
    fn existence(&mut self) {
        let reads = self.reads();
        let submitted = self.places.iter().filter_map(|place| match &self.events[*place] {
            TaskEvent::Submitted { at, .. } => Some((*at, *place)),
            TaskEvent::Read { at, seen: Some(_), .. } => Some((*at, *place)),
            TaskEvent::Read { .. } | TaskEvent::Reported { .. } => None,
        });
        let Some((known, by)) = submitted.min() else { return };
        for (place, invoked, _, seen) in reads {
            if seen.is_none() && invoked > known {
                self.wrong(&[by, place], "it was there, and a later read does not find it".to_owned());
            }
        }
    }

    /// Rules 2 (same revision, same row), 3 and 4.
    fn rows(&mut self) {
        let mut rows: Vec<(&TaskSeen, usize)> =
            self.reads().into_iter().filter_map(|(place, _, _, seen)| Some((seen?, place))).collect();
        rows.sort_unstable();
        for pair in rows.windows(2) {
            let ((before, first), (after, second)) = (pair[0], pair[1]);
            let cause = if before.revision == after.revision {
                (before != after).then(|| format!("revision {} is {before:?} and {after:?}", before.revision))
            } else if before.life.is_over() {
                Some(format!("it was over with {before:?}, and changed to {after:?}"))
            } else if after.epoch < before.epoch || after.attempt < before.attempt {
                Some(format!("its lease fell from {before:?} to {after:?}"))
            } else {
                None
            };
            if let Some(cause) = cause {
                self.wrong(&[first, second], cause);
            }
        }
    }

    /// Rule 2: reads never go back.
    fn order(&mut self) {
        let mut reads = self.reads();
        reads.sort_by_key(|(_, invoked, _, _)| *invoked);
        let mut answered: Vec<(Time, u64, usize)> =
            reads.iter().filter_map(|(place, _, at, seen)| Some((*at, (*seen)?.revision, *place))).collect();
        answered.sort_unstable();
        let (mut newest, mut at) = ((0, 0), 0);
        for (place, invoked, _, seen) in reads {
            while answered.get(at).is_some_and(|(time, _, _)| *time < invoked) {
                newest = newest.max((answered[at].1, answered[at].2));
                at += 1;
            }
            let revision = seen.map_or(u64::MAX, |row| row.revision);
            if revision < newest.0 {
                self.wrong(&[newest.1, place], format!("revision {revision} was read after {}", newest.0));
            }
        }
    }

    /// Rule 5.
    fn reports(&mut self) {
        let events = self.events;
        let mut accepted: BTreeMap<u64, usize> = BTreeMap::new();
        let mut success: Option<usize> = None;
        for place in self.places.iter().copied() {
            let TaskEvent::Reported { epoch, completed, answer, .. } = &events[place] else { continue };
            if *answer != ReportAnswer::Accepted {
                continue;
            }
            if let Some(other) = accepted.insert(*epoch, place) {
                self.wrong(&[other, place], format!("two reports of lease {epoch} were accepted"));
            }
            if *completed {
                if let Some(other) = success.replace(place) {
                    self.wrong(&[other, place], "two successful results were accepted".to_owned());
                }
            }
        }
        self.repeats(&accepted);
        let Some(place) = success else { return };
        let TaskEvent::Reported { result, at, .. } = &events[place] else { return };
        for (read, invoked, _, seen) in self.reads() {
            let Some(row) = seen else { continue };
            let over_by_it = row.life == Life::Completed && row.result == *result;
            if (invoked > *at || row.life.is_over()) && !over_by_it {
                self.wrong(&[place, read], format!("{result:?} was accepted, and {row:?} is read"));
            }
        }
    }

    /// "An equal one counted before" must not be said of one that differs from the one that counted.
    fn repeats(&mut self, accepted: &BTreeMap<u64, usize>) {
        let events = self.events;
        for place in self.places.iter().copied() {
            let TaskEvent::Reported { epoch, completed, result, answer: ReportAnswer::Repeated, .. } = &events[place]
            else {
                continue;
            };
            let Some(first) = accepted.get(epoch).copied() else { continue };
            if let TaskEvent::Reported { completed: counted, result: said, .. } = &events[first] {
                if (completed, result) != (counted, said) {
                    self.wrong(&[first, place], format!("{result:?} is called a repetition of {said:?}"));
                }
            }
        }
    }
}
