//! Changes of the membership, carried through: addresses are recorded before a replica comes, copies carried away before it goes, and its
//! id is closed behind it. Whether a change may be at all is the driver's word. What was begun and broken off is taken up by asking again.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::bounded;
use raftgrid_driver::{ChangeError, MembershipChange, RaftHandle, Role};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command, Command_oneof_kind, MemberLeaving, MemberRow, Outcome, PutMember};
use slog::{info, Logger};

use crate::evacuate::Evacuation;
use crate::limits::{CATCH_UP_LOOK_MS, CATCH_UP_WAIT_MS, PROPOSE_WAIT_MS};
use crate::node::Replica;
use crate::polls::rows_failed;
use crate::pool::Pool;
use crate::ports::{CallError, Callback, Commands, MemberChange, MemberVerb};

/// Changes who is a member.
pub(crate) struct Membership {
    /// This replica.
    pub node: u64,
    /// The group.
    pub handle: RaftHandle,
    /// Carries copies away; also knows rows and writes.
    pub evacuation: Evacuation,
    /// Where a change waits.
    pub pool: Pool,
    /// Log.
    pub logger: Logger,
}

impl Membership {
    /// Carries `change` through on a thread of its own; answers the index at which the configuration changed.
    pub(crate) fn change(self: &Arc<Self>, change: MemberChange, done: Callback<u64>) {
        let Some(slot) = self.pool.slot() else {
            return done(Err(CallError::Exhausted("other changes of the membership are under way".to_owned())));
        };
        let this = self.clone();
        slot.run(Box::new(move || done(this.carry_through(&change))));
    }

    fn carry_through(&self, change: &MemberChange) -> Result<u64, CallError> {
        let status = self.handle.status();
        if status.role != Role::Leader {
            return Err(CallError::NotLeader { leader: status.leader });
        }
        let node = change.node_id;
        match change.verb {
            MemberVerb::AddLearner => {
                self.record(change)?;
                self.propose(MembershipChange::AddLearner { node }, change)
            }
            MemberVerb::AddVoter => {
                self.record(change)?;
                self.propose(MembershipChange::Promote { node }, change)
            }
            MemberVerb::Demote => self.propose(MembershipChange::Demote { node }, change),
            MemberVerb::Remove => self.remove(node, change),
            MemberVerb::Replace => self.replace(node, change),
        }
    }

    /// Everybody must know where the newcomer is before it is one of them.
    fn record(&self, change: &MemberChange) -> Result<(), CallError> {
        let mut put = PutMember::new();
        put.set_node_id(change.node_id);
        put.set_raft_address(change.raft_address.clone());
        put.set_client_address(change.client_address.clone());
        put.set_leaving(MemberLeaving::LEAVING_NO);
        self.put(put)
    }

    fn put(&self, put: PutMember) -> Result<(), CallError> {
        let mut command = Command::new();
        command.kind = Some(Command_oneof_kind::put_member(put));
        let reply = self.evacuation.artifacts.proposals.propose_one(command)?;
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING => Ok(()),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }

    fn remove(&self, node: u64, change: &MemberChange) -> Result<u64, CallError> {
        if !self.handle.status().conf.contains(node) {
            return self.close(node);
        }
        self.may_go(node)?;
        self.vacate(node, change, 0)?;
        let changed = self.propose(MembershipChange::Remove { node }, change);
        self.gone(node, changed)
    }

    /// `new` comes as a learner that waits, is brought up to date, and takes the place of `old` in one step.
    fn replace(&self, new: u64, change: &MemberChange) -> Result<u64, CallError> {
        let old = change.replaces;
        if !self.handle.status().conf.contains(old) {
            return self.close(old);
        }
        self.may_go(old)?;
        if !self.handle.status().conf.contains(new) {
            self.record(change)?;
            self.propose(MembershipChange::AddStandby { node: new }, change)?;
        }
        self.wait_for_standby(new)?;
        self.vacate(old, change, new)?;
        // A leader that took over meanwhile has promoted the newcomer by itself: what is left is to let the old one go.
        let votes = self.handle.status().conf.voters.contains(&new);
        let step = if votes { MembershipChange::Remove { node: old } } else { MembershipChange::Replace { old, new } };
        let changed = self.propose(step, change);
        self.gone(old, changed)
    }

    fn may_go(&self, node: u64) -> Result<(), CallError> {
        if node == self.node {
            return Err(CallError::Precondition(format!(
                "replica {node} leads; hand leadership over first (gridctl cluster leadership-transfer)"
            )));
        }
        Ok(())
    }

    /// Until the newcomer has what the leader has. It is asked of the driver again and again, since only its word counts.
    fn wait_for_standby(&self, new: u64) -> Result<(), CallError> {
        for _ in 0..CATCH_UP_WAIT_MS / CATCH_UP_LOOK_MS {
            let status = self.handle.status();
            if status.role != Role::Leader {
                return Err(CallError::NotLeader { leader: status.leader });
            }
            let near =
                |(node, matched, active): &(u64, u64, bool)| *node == new && *active && *matched >= status.applied;
            if status.conf.voters.contains(&new) || status.progress.iter().any(near) {
                return Ok(());
            }
            // No event says how far a learner is; the look is cheap and bounded.
            let _ = crossbeam::channel::never::<()>().recv_timeout(Duration::from_millis(CATCH_UP_LOOK_MS));
        }
        Err(CallError::Unavailable(format!("replica {new} has not caught up yet")))
    }

    /// Marks `node` as leaving and carries its copies over to those that stay, `new` (0: nobody) among them.
    fn vacate(&self, node: u64, change: &MemberChange, new: u64) -> Result<(), CallError> {
        self.leaving(node, MemberLeaving::LEAVING_YES)?;
        if change.force {
            return Ok(());
        }
        let mut staying: Vec<u64> =
            self.handle.status().conf.voters.iter().copied().filter(|voter| *voter != node).collect();
        if new != 0 && !staying.contains(&new) {
            staying.push(new);
        }
        let carried = self.evacuation.run(&staying);
        if carried.is_err() {
            // Whether this is recorded or not, the next try begins with the opposite.
            let _ = self.leaving(node, MemberLeaving::LEAVING_NO);
        }
        carried.map_err(|error| match error {
            CallError::NotLeader { .. } | CallError::Unknown => error,
            // A client would try again and again what a person must look at first.
            why => CallError::Precondition(format!(
                "replica {node} cannot go yet: {why}; bring more replicas up, or lose data with --force-losing-data"
            )),
        })
    }

    fn leaving(&self, node: u64, leaving: MemberLeaving) -> Result<(), CallError> {
        let mut put = PutMember::new();
        put.set_node_id(node);
        put.set_leaving(leaving);
        self.put(put)
    }

    fn gone(&self, node: u64, changed: Result<u64, CallError>) -> Result<u64, CallError> {
        match changed {
            Ok(index) => {
                self.wait_until_out(node)?;
                self.close(node)?;
                info!(self.logger, "replica removed"; "node" => node, "index" => index);
                Ok(index)
            }
            Err(error) => {
                if self.handle.status().conf.contains(node) && !matches!(error, CallError::Unknown) {
                    let _ = self.leaving(node, MemberLeaving::LEAVING_NO);
                }
                Err(error)
            }
        }
    }

    /// A replacement is answered when the group stands between two configurations, and the old replica still counts in one of them. Whoever
    /// hears that it is gone switches it off, so it must not count any more.
    fn wait_until_out(&self, node: u64) -> Result<(), CallError> {
        for _ in 0..PROPOSE_WAIT_MS / CATCH_UP_LOOK_MS {
            if !self.handle.status().conf.contains(node) {
                return Ok(());
            }
            let _ = crossbeam::channel::never::<()>().recv_timeout(Duration::from_millis(CATCH_UP_LOOK_MS));
        }
        Err(CallError::Unavailable(format!("replica {node} is on its way out, but still needed; ask again")))
    }

    /// Closes the id of a replica that is out of the configuration.
    fn close(&self, node: u64) -> Result<u64, CallError> {
        let (rows, _) = self.evacuation.artifacts.views.view();
        let ever = views::members_ever(rows.as_ref()).map_err(rows_failed)?;
        let Some(row) = ever.into_iter().find(|row| row.node_id == node) else {
            return Err(CallError::Precondition(format!("replica {node} is no member")));
        };
        if !row.removed {
            let mut put = PutMember::new();
            put.set_node_id(node);
            put.set_removed(true);
            self.put(put)?;
        }
        Ok(self.handle.status().applied)
    }

    fn propose(&self, step: MembershipChange, change: &MemberChange) -> Result<u64, CallError> {
        let (sender, outcome) = bounded(1);
        let context = change.request_id.clone().into_bytes();
        self.handle.change_membership(step, context.into(), Box::new(move |it| drop(sender.send(it))));
        match outcome.recv_timeout(Duration::from_millis(PROPOSE_WAIT_MS)) {
            Ok(changed) => changed.map_err(change_failed),
            Err(_) => Err(CallError::Unknown),
        }
    }
}

impl Replica {
    /// Records the id of this replica's data directory, once, so that those who have never met it know it too.
    pub fn announce_store(&self, members: &[MemberRow], store_uuid: &[u8]) {
        let unsaid = |row: &&MemberRow| row.node_id == self.node() && row.store_uuid.is_empty();
        if !members.iter().any(|row| unsaid(&row)) {
            return;
        }
        let mut put = PutMember::new();
        put.set_node_id(self.node());
        put.set_store_uuid(store_uuid.to_vec());
        let mut command = Command::new();
        command.kind = Some(Command_oneof_kind::put_member(put));
        // Lost with a change of the leader, it is said again at the next look at the members.
        self.propose(vec![command], Box::new(|_| ()));
    }
}

fn change_failed(error: ChangeError) -> CallError {
    match error {
        ChangeError::NotLeader { leader } => CallError::NotLeader { leader },
        ChangeError::Busy => CallError::Exhausted(error.to_string()),
        ChangeError::Refused { reason } => CallError::Precondition(reason),
        ChangeError::Superseded | ChangeError::Stopped => CallError::Unavailable(error.to_string()),
        ChangeError::Unknown => CallError::Unknown,
    }
}
