//! Leases: when each open lease ends if nobody renews it. Owns the deadlines; proposes ExpireLease.
//!
//! A deadline moves when a beat is confirmed by a quorum (`liveness` calls `renew` then), and counts from the beat's arrival; and once more when
//! the start of the attempt is applied: a worker with no free slot may ask for a task long after its assignment, and counts from there. Leases
//! found at the start of a leader's term get the election grace; a new lease gets its TTL from the first step that sees it.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::{Command_oneof_kind, ExpireLease, Phase, TaskRow, TaskStatus};

use crate::jitter::Jitter;
use crate::limits::RETRY_PAUSE_MS;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::{Beat, BeatAnswer, Config, Millis};
use crate::view::View;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    epoch: u64,
    started: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// By task.
    open: BTreeMap<u64, Open>,
    deadlines: Timers<u64>,
    /// Seen since the last step: their time starts with the next one.
    fresh: BTreeSet<u64>,
    /// Started since the last step.
    started: BTreeSet<u64>,
    /// ExpireLease is under way or will be tried again.
    expiring: BTreeSet<u64>,
}

impl Leases {
    /// The task's row changed.
    pub(crate) fn on_task(&mut self, view: &View, task: u64) {
        let row = view.tasks.get(&task).filter(|row| row.open_epoch != 0);
        let open = row.map(|row| Open { epoch: row.open_epoch, started: is_started(row) });
        let before = match open {
            Some(open) => self.open.insert(task, open),
            None => self.open.remove(&task),
        };
        if let (Some(open), Some(before)) = (open, before) {
            if open.epoch == before.epoch {
                if open.started && !before.started {
                    self.started.insert(task);
                }
                return;
            }
        }
        self.deadlines.clear(&task);
        self.expiring.remove(&task);
        self.fresh.remove(&task);
        self.started.remove(&task);
        if open.is_some() {
            self.fresh.insert(task);
        }
    }

    /// Starts the time of leases seen since the last call, `time` from now; those whose attempt began since have at least as much.
    pub(crate) fn start_fresh(&mut self, now: Millis, time: Millis) {
        for task in std::mem::take(&mut self.fresh) {
            self.deadlines.set(task, now + time);
        }
        for task in std::mem::take(&mut self.started) {
            self.prolong(task, now + time);
        }
    }

    fn prolong(&mut self, task: u64, until: Millis) {
        if self.deadlines.get(&task).is_none_or(|deadline| deadline < until) {
            self.deadlines.set(task, until);
        }
    }

    /// A beat that a quorum stands behind: renews what it may and says what became of the rest.
    pub(crate) fn renew(
        &mut self,
        moment: &Moment<'_>,
        outbox: &Outbox,
        beat: &Beat,
        arrived: Millis,
        answer: &mut BeatAnswer,
    ) {
        let (config, view) = (moment.config, moment.view);
        let old_agent = beat.boot_nonce == 0 && beat.incarnation == 0 && beat.held.is_empty();
        if old_agent {
            for task in view.leases_of_node(&beat.node_id) {
                self.extend(config, outbox, task, arrived);
            }
            return;
        }
        for (task_id, epoch) in &beat.held {
            let pair = (task_id.clone(), *epoch);
            match view.task_by_id(task_id) {
                Some((task, row)) if row.open_epoch == *epoch => {
                    if row.get_task().assigned_node_id != beat.node_id {
                        answer.revoked.push(pair);
                    } else if !self.extend(config, outbox, task, arrived) {
                        answer.not_renewed.push(pair);
                    } else if row.get_task().phase == Phase::PHASE_STOPPING {
                        answer.stopping.push(pair);
                    }
                }
                // Epochs are positions: one above all that is known here was given by an entry that is not folded yet.
                _ if *epoch > view.newest => answer.not_renewed.push(pair),
                _ => answer.revoked.push(pair),
            }
        }
    }

    /// False: an expiry is under way, the renewal must not be promised.
    fn extend(&mut self, config: &Config, outbox: &Outbox, task: u64, arrived: Millis) -> bool {
        if self.expiring.contains(&task) {
            if outbox.busy(&Subject::Task(task)) {
                return false;
            }
            self.expiring.remove(&task);
        }
        self.prolong(task, arrived + config.lease_ttl_ms);
        true
    }

    /// Expires what nobody renewed.
    pub(crate) fn step(&mut self, moment: &Moment<'_>, jitter: &mut Jitter, outbox: &mut Outbox) {
        let now = moment.now;
        for task in self.deadlines.pop_due(now) {
            let Some(row) = moment.view.tasks.get(&task) else { continue };
            // Looked at again until the row shows that the lease is closed.
            self.deadlines.set(task, now + RETRY_PAUSE_MS);
            let subject = Subject::Task(task);
            if !outbox.free(&subject) {
                continue;
            }
            self.expiring.insert(task);
            let expire = ExpireLease {
                task_id: row.get_task().task_id.clone(),
                epoch: row.open_epoch,
                reason: format!("lease expired: node {} did not renew it", row.get_task().assigned_node_id),
                backoff_ms: jitter.backoff(moment.config, row.infrastructure_failures),
                before_start: !is_started(row),
                ..ExpireLease::default()
            };
            outbox.put(subject, Command_oneof_kind::expire_lease(expire));
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.deadlines.next()
    }
}

/// Whether a process of the open attempt may exist.
pub(crate) fn is_started(row: &TaskRow) -> bool {
    row.get_task().status == TaskStatus::RUNNING
}
