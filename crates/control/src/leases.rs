//! Leases: when each open lease ends if nobody renews it. Owns the deadlines; proposes ExpireLease.
//!
//! A deadline moves only when a beat is confirmed by a quorum (`liveness` calls `renew` then), and counts from the beat's arrival. Leases
//! found at the start of a leader's term get the election grace; a new lease gets its TTL from the first step that sees it.

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::{Command_oneof_kind, ExpireLease, Phase};

use crate::jitter::Jitter;
use crate::limits::RETRY_PAUSE_MS;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::{Beat, BeatAnswer, Config, Millis};
use crate::view::View;

#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Open epoch by task.
    epochs: BTreeMap<u64, u64>,
    deadlines: Timers<u64>,
    /// Seen since the last step: their time starts with the next one.
    fresh: BTreeSet<u64>,
    /// ExpireLease is under way or will be tried again.
    expiring: BTreeSet<u64>,
}

impl Leases {
    /// The task's row changed.
    pub(crate) fn on_task(&mut self, view: &View, task: u64) {
        let epoch = view.tasks.get(&task).map_or(0, |row| row.open_epoch);
        if epoch == 0 {
            self.epochs.remove(&task);
        } else if self.epochs.insert(task, epoch) == Some(epoch) {
            return;
        }
        self.deadlines.clear(&task);
        self.expiring.remove(&task);
        self.fresh.remove(&task);
        if epoch != 0 {
            self.fresh.insert(task);
        }
    }

    /// Starts the time of leases seen since the last call: `time` from now.
    pub(crate) fn start_fresh(&mut self, now: Millis, time: Millis) {
        for task in std::mem::take(&mut self.fresh) {
            self.deadlines.set(task, now + time);
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
        let until = arrived + config.lease_ttl_ms;
        if self.deadlines.get(&task).is_none_or(|deadline| deadline < until) {
            self.deadlines.set(task, until);
        }
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
                ..ExpireLease::default()
            };
            outbox.put(subject, Command_oneof_kind::expire_lease(expire));
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.deadlines.next()
    }
}
