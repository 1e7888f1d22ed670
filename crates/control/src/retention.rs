//! What may go: uploads that were never committed, and the second phase of deletions. Proposes DeleteArtifact.
//!
//! Which gradients of old rounds go is decided by the machine itself, inside CommitModel (manifest, `commands/retention.rs`); they come here
//! as DELETING, like everything that a person deleted. Replicas remove the bytes of a DELETING artifact when they see it; the row stays for
//! `DELETE_CONFIRM_MS` more. A replica that was away meanwhile drops fragments without a row when it scrubs.

use std::collections::BTreeSet;

use raftgrid_proto::v1::{Command_oneof_kind, DeleteArtifact};

use crate::limits::{DELETE_CONFIRM_MS, DELETIONS_PER_STEP_MAX, RETRY_PAUSE_MS};
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::Millis;
use crate::view::{Leaving, View};

#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Cluster time at which an unfinished upload goes.
    expiries: Timers<u64>,
    /// When the second phase is due, in the leader's time.
    confirms: Timers<u64>,
    /// Seen DELETING since the last step: their time starts with the next one.
    fresh: BTreeSet<u64>,
}

impl Retention {
    /// The artifact's row changed.
    pub(crate) fn on_artifact(&mut self, view: &View, artifact: u64) {
        match view.leaving.get(&artifact) {
            Some(Leaving::Expires(at)) => self.expiries.set(artifact, *at),
            Some(Leaving::Deleting) => {
                self.expiries.clear(&artifact);
                self.fresh.insert(artifact);
            }
            None => {
                self.expiries.clear(&artifact);
                self.confirms.clear(&artifact);
                self.fresh.remove(&artifact);
            }
        }
    }

    pub(crate) fn step(&mut self, moment: &Moment<'_>, outbox: &mut Outbox) {
        let (now, cluster_ms) = (moment.now, moment.cluster_ms());
        for artifact in std::mem::take(&mut self.fresh) {
            if self.confirms.get(&artifact).is_none() {
                self.confirms.set(artifact, now + DELETE_CONFIRM_MS);
            }
        }
        for (at, artifact) in self.expiries.pop_due(cluster_ms).into_iter().enumerate() {
            // Again until the row is gone.
            self.expiries.set(artifact, cluster_ms + RETRY_PAUSE_MS);
            delete(outbox, at, artifact, false);
        }
        for (at, artifact) in self.confirms.pop_due(now).into_iter().enumerate() {
            self.confirms.set(artifact, now + RETRY_PAUSE_MS);
            delete(outbox, at, artifact, true);
        }
    }

    pub(crate) fn next_wake(&self, moment: &Moment<'_>) -> Option<Millis> {
        let expiry = self.expiries.next().map(|at| moment.local(at));
        [expiry, self.confirms.next()].into_iter().flatten().min()
    }
}

/// `at`: how many were looked at before it in this step.
fn delete(outbox: &mut Outbox, at: usize, artifact_id: u64, confirmed: bool) {
    let subject = Subject::Artifact(artifact_id);
    if at < DELETIONS_PER_STEP_MAX && outbox.free(&subject) {
        let delete = DeleteArtifact { artifact_id, confirmed, ..DeleteArtifact::default() };
        outbox.put(subject, Command_oneof_kind::delete_artifact(delete));
    }
}
