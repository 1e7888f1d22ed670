//! Heartbeats: one at a time, each remembered with the time it was sent and the leases it named.

use std::collections::BTreeMap;

use raftgrid_proto::v1::HeartbeatResponse;

use super::task::Held;
use super::{LeaseId, Millis, Output};
use crate::limits::{BEAT_DEFAULT_MS, BEAT_MAX_MS, BEAT_RETRY_FIRST_MS, BEAT_TIMEOUT_MS};

/// The beat that is under way.
pub(super) struct Sent {
    number: u64,
    /// When it was sent.
    pub(super) at: Millis,
    /// What it asked to renew.
    pub(super) held: Vec<LeaseId>,
}

/// When to beat, and what the leader said about it.
pub(super) struct Beats {
    /// Position of our registration; 0 before it is known.
    pub(super) incarnation: u64,
    /// A leader knows us.
    pub(super) registered: bool,
    /// As the leader says.
    pub(super) lease_ttl_ms: u64,
    interval_ms: u64,
    last_sent_at: Option<Millis>,
    /// Something is to be renewed sooner than the interval says.
    due_at: Option<Millis>,
    /// The last one failed: the pause before the next, and its length.
    retry_at: Option<Millis>,
    retry_ms: u64,
    next_number: u64,
    sent: Option<Sent>,
}

impl Beats {
    pub(super) fn new(lease_ttl_ms: u64) -> Self {
        Self {
            incarnation: 0,
            registered: false,
            lease_ttl_ms,
            interval_ms: BEAT_DEFAULT_MS,
            last_sent_at: None,
            due_at: None,
            retry_at: None,
            retry_ms: BEAT_RETRY_FIRST_MS,
            next_number: 1,
            sent: None,
        }
    }

    /// Beat at this time or before.
    pub(super) fn due_at(&mut self, at: Millis) {
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    /// Sends a beat if it is time. Returns when the next look is due.
    pub(super) fn advance(&mut self, now: Millis, held: &BTreeMap<LeaseId, Held>, out: &mut Vec<Output>) -> Millis {
        if self.sent.is_some() {
            return Millis::MAX;
        }
        let regular_at = self.last_sent_at.map_or(0, |at| at.saturating_add(self.interval_ms));
        let next_at = self.retry_at.unwrap_or_else(|| self.due_at.map_or(regular_at, |due| due.min(regular_at)));
        if now < next_at {
            return next_at;
        }
        let leases: Vec<LeaseId> = held.keys().cloned().collect();
        let number = self.next_number;
        self.next_number += 1;
        out.push(Output::Beat {
            number,
            held: leases.clone(),
            incarnation: self.incarnation,
            describe: !self.registered,
            timeout_ms: (self.lease_ttl_ms / 6).clamp(BEAT_TIMEOUT_MS.0, BEAT_TIMEOUT_MS.1),
        });
        self.last_sent_at = Some(now);
        self.due_at = None;
        self.retry_at = None;
        self.sent = Some(Sent { number, at: now, held: leases });
        Millis::MAX
    }

    /// The answer to a beat. None if it is not the one under way or was not acknowledged: then nothing is renewed.
    pub(super) fn answered(&mut self, now: Millis, number: u64, answer: &HeartbeatResponse) -> Option<Sent> {
        let sent = self.sent.take_if(|sent| sent.number == number)?;
        if !answer.get_acknowledged() {
            self.pause(now);
            return None;
        }
        self.registered = true;
        self.incarnation = answer.get_incarnation();
        self.retry_ms = BEAT_RETRY_FIRST_MS;
        if answer.get_lease_ttl_ms() != 0 {
            self.lease_ttl_ms = u64::from(answer.get_lease_ttl_ms());
        }
        if answer.get_next_beat_ms() != 0 {
            self.interval_ms = u64::from(answer.get_next_beat_ms()).min(BEAT_MAX_MS);
        }
        Some(sent)
    }

    /// No answer: again soon, at the next replica.
    pub(super) fn failed(&mut self, now: Millis, number: u64) {
        if self.sent.take_if(|sent| sent.number == number).is_some() {
            self.pause(now);
        }
    }

    fn pause(&mut self, now: Millis) {
        self.retry_at = Some(now + self.retry_ms);
        self.retry_ms = (self.retry_ms * 2).min(self.interval_ms.max(BEAT_RETRY_FIRST_MS));
    }
}
