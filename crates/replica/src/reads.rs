//! Reads, as fresh as asked. The leader asks a quorum (or trusts its lease); everybody else asks the leader for a read index, waits until that
//! is applied here, and answers from its own tables.
//!
//! Reads that wait together are one question. A question serves only reads that came before it was put: what is acknowledged after its index
//! was found, and before a read came, would be missing otherwise. Every callback is called once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raftgrid_driver::{Index, RaftHandle, ReadError, Role, Status};

use crate::clock::Clock;
use crate::contact::Contact;
use crate::lease::Lease;
use crate::limits::{READS_WAITING_MAX, READ_APPLY_WAIT_MS, READ_QUESTIONS_MAX, READ_QUESTION_WAIT_MS, READ_WAIT_MS};
use crate::metrics::Metrics;
use crate::ports::{CallError, Callback, Freshness, Peers, ReadView};
use crate::ring::Ring;
use crate::views::{end_of_entry, Views};

#[cfg(test)]
mod tests;

/// The path under which a peer is asked for a read index. The request is empty; the answer is the index in eight bytes, little-endian.
pub const READ_INDEX_PATH: &str = "raftgrid/read-index";

/// What reads need of the driver's handle.
pub(crate) trait RaftGroup: Send + Sync {
    /// See `RaftHandle::status`.
    fn status(&self) -> Arc<Status>;
    /// See `RaftHandle::read`.
    fn read(&self, callback: ReadCallback);
}

impl RaftGroup for RaftHandle {
    fn status(&self) -> Arc<Status> {
        RaftHandle::status(self)
    }
    fn read(&self, callback: ReadCallback) {
        RaftHandle::read(self, callback);
    }
}

type ReadCallback = Box<dyn FnOnce(Result<Index, ReadError>) + Send>;

/// What reads work with.
pub(crate) struct Reads {
    /// This replica.
    pub node: u64,
    /// The group.
    pub handle: Arc<dyn RaftGroup>,
    /// To ask the leader.
    pub peers: Arc<dyn Peers>,
    /// Rows.
    pub views: Arc<dyn Views>,
    /// Tells when something was applied.
    pub ring: Ring,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Age of what is known here.
    pub contact: Contact,
    /// Length of a lease; 0: there are none.
    pub lease_ms: u64,
    /// The newest lease.
    pub lease: Mutex<Option<Lease>>,
    /// Of reads on a replica that does not lead.
    pub questions: Mutex<Questions>,
    /// Counts.
    pub metrics: Metrics,
}

/// Reads that wait for the leader's word.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: Vec<Waiting>,
    /// By who was asked: a leader that fell silent must not hold up questions to the next one.
    under_way: BTreeMap<u64, usize>,
}

struct Waiting {
    begun_us: u64,
    give_up_ms: u64,
    done: Callback<ReadView>,
}

impl Reads {
    /// See `ports::Reads`.
    pub(crate) fn read(self: &Arc<Self>, freshness: Freshness, done: Callback<ReadView>) {
        match freshness {
            Freshness::Local => {
                self.metrics.local_reads.inc();
                done(Ok(self.look(self.contact.age_ms(self.clock.boottime_ms()))));
            }
            Freshness::Linearizable if self.handle.status().role == Role::Leader => self.by_quorum(done),
            Freshness::Linearizable => self.by_leader(done),
            Freshness::Lease => self.by_lease(done),
        }
    }

    /// A read index for a replica that asks: on the leader, confirmed by a quorum after this call, and applied here.
    pub(crate) fn index(&self, done: Callback<u64>) {
        self.handle.read(Box::new(move |index| done(index.map_err(read_failed))));
    }

    /// Reads that wait for the leader's word.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Questions> {
        // Each change is whole before anything else runs.
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, age_ms: u64) -> ReadView {
        let (rows, position) = self.views.view();
        ReadView { rows, position, age_ms }
    }

    fn by_quorum(self: &Arc<Self>, done: Callback<ReadView>) {
        let (this, begun_us) = (self.clone(), self.clock.monotonic_us());
        self.index(Box::new(move |index| {
            this.metrics.quorum_reads.took(&*this.clock, begun_us, index.is_ok());
            done(index.map(|_| this.look(0)));
        }));
    }

    fn by_lease(self: &Arc<Self>, done: Callback<ReadView>) {
        let before = self.handle.status();
        if before.role != Role::Leader {
            return done(Err(CallError::NotLeader { leader: before.leader }));
        }
        if self.lease_ms == 0 {
            let why =
                "lease reads are off (raft.lease_reads, on every replica); ask for a linearizable read, or a local one";
            return done(Err(CallError::Precondition(why.to_owned())));
        }
        // The status was looked at after the read began, and before the rows: whoever was elected since then is too late to be missed.
        let begun_ms = self.clock.boottime_ms();
        let holds = self.lease().as_ref().is_some_and(|lease| lease.holds(&before, begun_ms));
        if holds {
            self.metrics.lease_reads.inc();
            return done(Ok(self.look(0)));
        }
        let (this, begun_us) = (self.clone(), self.clock.monotonic_us());
        self.index(Box::new(move |index| {
            this.metrics.quorum_reads.took(&*this.clock, begun_us, index.is_ok());
            if index.is_ok() {
                let granted = Lease::granted(&before, &this.handle.status(), begun_ms, this.lease_ms);
                let mut lease = this.lease();
                let known = lease.take();
                *lease = match granted {
                    Some(granted) => Some(granted.or_later(known)),
                    None => known,
                };
            }
            done(index.map(|_| this.look(0)));
        }));
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        // One assignment changes it.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn by_leader(self: &Arc<Self>, done: Callback<ReadView>) {
        let begun_us = self.clock.monotonic_us();
        let waiting = Waiting { begun_us, give_up_ms: self.clock.monotonic_ms() + READ_WAIT_MS, done };
        let refused = {
            let mut questions = self.lock();
            if questions.waiting.len() < READS_WAITING_MAX {
                questions.waiting.push(waiting);
                None
            } else {
                Some(waiting)
            }
        };
        match refused {
            Some(read) => (read.done)(Err(CallError::Exhausted("too many reads are waiting".to_owned()))),
            None => self.ask(),
        }
    }

    /// Puts the next question, if somebody waits and few enough are under way: while they are, the next one grows.
    fn ask(self: &Arc<Self>) {
        let leader = self.handle.status().leader;
        let batch = {
            let mut questions = self.lock();
            let under_way = questions.under_way.get(&leader).copied().unwrap_or(0);
            if questions.waiting.is_empty() || under_way >= READ_QUESTIONS_MAX {
                return;
            }
            questions.under_way.insert(leader, under_way + 1);
            std::mem::take(&mut questions.waiting)
        };
        self.metrics.reads_per_question.observe(batch.len() as f64);
        let this = self.clone();
        let answered: Callback<u64> = Box::new(move |index| this.answered(leader, batch, index));
        match leader {
            0 => answered(Err(CallError::NotLeader { leader: 0 })),
            leader if leader == self.node => self.index(answered),
            leader => self.peers.read_index(leader, Duration::from_millis(READ_QUESTION_WAIT_MS), answered),
        }
    }

    fn answered(self: &Arc<Self>, asked: u64, batch: Vec<Waiting>, index: Result<u64, CallError>) {
        self.not_under_way(asked);
        match index {
            Ok(index) => {
                self.metrics.questions_answered.inc();
                let give_up_ms = self.clock.monotonic_ms() + READ_APPLY_WAIT_MS;
                self.when_applied(end_of_entry(index), give_up_ms, batch);
            }
            Err(error) => {
                self.metrics.questions_failed.inc();
                self.not_answered(asked, batch, error);
            }
        }
        self.ask();
    }

    fn not_under_way(&self, asked: u64) {
        let mut questions = self.lock();
        match questions.under_way.get_mut(&asked) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                questions.under_way.remove(&asked);
            }
        }
    }

    /// Somebody else leads by now: he is asked. Otherwise the callers are told.
    fn not_answered(&self, asked: u64, batch: Vec<Waiting>, error: CallError) {
        let leader = self.handle.status().leader;
        let now = self.clock.monotonic_ms();
        let error = match error {
            CallError::NotLeader { .. } => CallError::NotLeader { leader },
            // Nothing was changed by asking.
            CallError::Unknown => CallError::Unavailable("the leader did not answer in time".to_owned()),
            // The leader refuses this replica (its disk was lost, say). The caller did nothing wrong: others will serve him.
            CallError::Precondition(why) => CallError::Unavailable(why),
            other => other,
        };
        for read in batch {
            if leader != 0 && leader != asked && now < read.give_up_ms {
                self.lock().waiting.push(read);
            } else {
                self.metrics.follower_reads.took(&*self.clock, read.begun_us, false);
                (read.done)(Err(error.clone()));
            }
        }
    }

    /// Serves the batch when everything up to `position` is in the tables here. A replica that is far behind sends its callers to the leader.
    fn when_applied(self: &Arc<Self>, position: u64, give_up_ms: u64, batch: Vec<Waiting>) {
        let view = self.look(0);
        if view.position >= position {
            for read in batch {
                self.metrics.follower_reads.took(&*self.clock, read.begun_us, true);
                (read.done)(Ok(view.clone()));
            }
            return;
        }
        let now = self.clock.monotonic_ms();
        if now >= give_up_ms {
            let leader = self.handle.status().leader;
            for read in batch {
                self.metrics.follower_reads.took(&*self.clock, read.begun_us, false);
                (read.done)(Err(CallError::NotLeader { leader }));
            }
            return;
        }
        let this = self.clone();
        let again = Box::new(move |_| this.when_applied(position, give_up_ms, batch));
        self.ring.changed_after(view.position, None, Duration::from_millis(give_up_ms - now), again);
    }
}

pub(crate) fn read_failed(error: ReadError) -> CallError {
    match error {
        ReadError::NotLeader { leader } => CallError::NotLeader { leader },
        ReadError::Busy => CallError::Exhausted("too many reads are waiting".to_owned()),
        ReadError::Stopped => CallError::Unavailable("this replica is shutting down".to_owned()),
    }
}
